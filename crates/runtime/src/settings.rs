//! Settings from a table: a unit struct is an empty table, and a key that nobody reads is an error.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};
use std::cell::Cell;

/// The least similarity of two keys (Jaro-Winkler, 0 to 1) at which one is offered in place of the other. Below it the guesses are noise.
const SIMILARITY_MIN: f64 = 0.75;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{}{error}", within(.key))]
    Wrong {
        /// The key with the tables it stands in; empty if it is the whole.
        key: String,
        error: serde_json::Error,
    },
    #[error("unknown key `{key}`{}", hint(.key, .known))]
    Unknown { key: String, known: &'static [&'static str] },
}

/// Reads settings. Null is an empty table.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, SettingsError> {
    let known = Cell::new(&[] as &[&str]);
    let empty = Value::Object(Map::new());
    let value = if value.is_null() { &empty } else { value };
    let mut unknown = None;
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(Table { value, known: &known }, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| {
        // serde_ignored writes an option as `?` in the path.
        unknown.get_or_insert_with(|| path.to_string().replace(".?", ""));
    });
    let settings = read.map_err(|error| {
        let path = track.path();
        // The path of the whole is written as a point.
        let key = if path.iter().len() == 0 { String::new() } else { path.to_string() };
        SettingsError::Wrong { key, error }
    })?;
    match unknown {
        None => Ok(settings),
        Some(key) => {
            let known = if key.contains('.') { &[] } else { known.get() };
            Err(SettingsError::Unknown { key, known })
        }
    }
}

/// The key in front of what is wrong with its value.
fn within(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}

/// The known word that is most similar, if one is.
pub(crate) fn similar<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let rated = known.iter().map(|known| (strsim::jaro_winkler(word, known), *known));
    let similar = rated.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
    similar.map(|(_, known)| known)
}

/// `; did you mean …?` if one of the known words is similar, else the known words.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    match similar(word, known) {
        Some(known) => format!("; did you mean `{known}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are `{}`", known.join("`, `")),
    }
}

/// A JSON value that lets unit structs be empty tables, and remembers which keys the outermost struct knows.
struct Table<'a> {
    value: &'a Value,
    known: &'a Cell<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Table<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.value.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        match self.value {
            Value::Object(map) => match map.keys().next() {
                None => visitor.visit_unit(),
                Some(key) => Err(Self::Error::custom(format!("unknown key `{key}`: this task has no settings"))),
            },
            other => Err(Self::Error::custom(format!("expected a table, found {other}"))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.known.set(fields);
        self.value.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.value.deserialize_option(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        Deserializer::deserialize_enum(self.value, name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit seq tuple tuple_struct map identifier
        ignored_any
    }
}

/// A duration in the configuration: a text such as `200ms`, `1.5s`, `2m`, `1h`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DurationText(pub(crate) std::time::Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::Number(seconds) => seconds.as_f64().and_then(|s| std::time::Duration::try_from_secs_f64(s).ok()),
            Value::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        parsed
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("{value} is no duration; write for example \"200ms\" or \"30s\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Unit;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Server {
        address: String,
        #[serde(default)]
        tls: Option<Tls>,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    struct Tls {
        verify: bool,
    }

    #[test]
    fn a_unit_struct_is_an_empty_table() {
        assert_eq!(from_value::<Unit>(&Value::Null).unwrap(), Unit);
        assert_eq!(from_value::<Unit>(&json!({})).unwrap(), Unit);
        assert_eq!(from_value::<Unit>(&json!({"a": 1})).unwrap_err().to_string(), "unknown key `a`: this task has no settings");
    }

    #[test]
    fn unknown_keys_are_errors_with_a_hint() {
        for (value, words) in [
            (json!({"address": "a", "tls": {"verify": true}}), ""),
            (json!({"adress": "a", "address": "b"}), "unknown key `adress`; did you mean `address`?"),
            (json!({"address": "b", "zzz": 1}), "unknown key `zzz`; known are `address`, `tls`"),
            (json!({"address": "b", "tls": {"verify": true, "more": 1}}), "unknown key `tls.more`"),
            (json!({}), "missing field `address`"),
            (json!({"address": 1}), "`address`: invalid type: integer `1`, expected a string"),
            (json!({"address": "b", "tls": {"verify": 1}}), "`tls.verify`: invalid type: integer `1`, expected a boolean"),
        ] {
            match from_value::<Server>(&value) {
                Ok(_) => assert_eq!(words, "", "{value}"),
                Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{value}: {error}"),
            }
        }
    }
}
