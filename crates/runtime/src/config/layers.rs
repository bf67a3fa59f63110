//! Where the configuration comes from: files and variables. Each is checked by itself, so that an error names the one that it stands in.

use super::{ConfigError, Root};
use crate::settings::{self, SettingsError};
use config::{File, FileFormat};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The tables of the configuration and their keys, apart from those of a topology.
const TABLES: [(&str, &[&str]); 3] = [
    ("broker", &["url", "durability", "eager", "elision", "admin_url", "tenant", "namespace", "token", "token_file", "ca_file"]),
    ("jobs", &["files", "options", "keep"]),
    ("trace", &["enabled", "to", "options", "keep"]),
];

/// How many letters of a variable's name may be wrong for it to be meant as a key. With three, names of other programs would be refused.
const LETTERS_MAX: usize = 2;

/// How many letters a key has for each that may be wrong: `LEAT_TRACE` is not `LEAT_TRACE__TO`.
const LETTERS_OF_A_WRONG_ONE: usize = 5;

/// What one file, or one variable, says.
pub(super) struct Layer {
    /// Which one, for people.
    place: String,
    value: Value,
    /// Whether other projects read it, too.
    is_shared: bool,
}

impl Layer {
    /// A file, empty if there is none.
    pub(super) fn of_file(file: &Path) -> Result<Self, ConfigError> {
        let source = File::from(file.to_owned()).format(FileFormat::Toml).required(false);
        let value: Value = config::Config::builder().add_source(source).build()?.try_deserialize()?;
        Self { place: format!("`{}`", file.display()), value, is_shared: false }.checked()
    }

    /// It as what other projects read, too.
    pub(super) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// A variable, if it sets a key.
    pub(super) fn of_variable(name: &str, text: &str) -> Result<Option<Self>, ConfigError> {
        let Some(key) = key_of(name) else {
            return match misspelt(name) {
                Some(meant) => Err(ConfigError::Variable { name: name.to_owned(), meant }),
                None => Ok(None),
            };
        };
        let value = if is_text(&key) { text.into() } else { parsed(text) };
        let value = key.rsplit('.').fold(value, |value, part| Value::Object(Map::from_iter([(part.to_owned(), value)])));
        Self { place: format!("the variable `{name}`"), value, is_shared: false }.checked().map(Some)
    }

    /// It, if all that it says is known and of the right type.
    fn checked(self) -> Result<Self, ConfigError> {
        read(&self.value, &self.place)?;
        Ok(self)
    }
}

/// Lays each layer over those before it.
pub(super) fn merged(layers: &[Layer]) -> Result<(Root, Places), ConfigError> {
    let mut all = Value::Object(Map::new());
    let mut places = Places::default();
    for layer in layers {
        lay(&mut all, &layer.value);
        places.note(layer);
    }
    Ok((read(&all, UNPLACED)?, places))
}

fn read(value: &Value, place: &str) -> Result<Root, ConfigError> {
    let place = place.to_owned();
    settings::from_value(value).map_err(|error| match error {
        SettingsError::Unknown { key, .. } => ConfigError::Unknown { place, hint: hint(&key), key },
        SettingsError::Wrong { key, error } => ConfigError::Wrong { place, key, text: error.to_string() },
    })
}

/// Tables are laid over each other, key by key; everything else is replaced.
fn lay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Where it is not known which layer says something.
const UNPLACED: &str = "the configuration";

/// Which layer has said what: the last one of those that have a key. It holds no values, some of which are secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    by_key: BTreeMap<String, String>,
    /// The keys that nothing but what other projects read has.
    shared: BTreeSet<String>,
}

impl Places {
    fn note(&mut self, layer: &Layer) {
        let mut tables = vec![(String::new(), &layer.value)];
        while let Some((table, value)) = tables.pop() {
            for (key, value) in value.as_object().into_iter().flatten() {
                let key = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
                let _ = if layer.is_shared { self.shared.insert(key.clone()) } else { self.shared.remove(&key) };
                self.by_key.insert(key.clone(), layer.place.clone());
                tables.push((key, value));
            }
        }
    }

    /// Whether a key may be another project's.
    pub(super) fn is_shared(&self, key: &str) -> bool {
        self.shared.contains(key)
    }

    /// Where a key, or the table that it would stand in, is said.
    pub(super) fn of(&self, key: &str) -> &str {
        let mut key = key;
        loop {
            match (self.by_key.get(key), key.rsplit_once('.')) {
                (Some(place), _) => return place,
                (None, Some((table, _))) => key = table,
                (None, None) => return UNPLACED,
            }
        }
    }

    /// An error with the place of its key.
    pub(super) fn wrong(&self, Fault { key, text }: Fault) -> ConfigError {
        ConfigError::Wrong { place: self.of(&key).to_owned(), key, text }
    }
}

/// What is wrong with a key.
pub(super) struct Fault {
    pub(super) key: String,
    pub(super) text: String,
}

/// The key that a variable sets: `LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__SEND__TIMEOUT` is `topology.email-pipeline.task.send.timeout`.
///
/// A shell has no variables with `-` in their name, so in the names of topologies and tasks `_` stands for it.
fn key_of(variable: &str) -> Option<String> {
    // Without a table it is no key of the configuration, such as `LEAT_LOG`.
    let key = variable.strip_prefix("LEAT_")?;
    if key != "DATA" && !key.contains("__") {
        return None;
    }
    let mut parts: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
    if parts[0] == "topology" {
        for index in [1, 3] {
            if let Some(part) = parts.get_mut(index) {
                *part = part.replace('_', "-");
            }
        }
    }
    Some(parts.join("."))
}

/// Keys whose value is a text whatever it looks like: a directory or a tenant may be named by a number.
fn is_text(key: &str) -> bool {
    key == "data"
        || key.starts_with("jobs.")
        || key.strip_prefix("trace.").is_some_and(|key| key != "enabled")
        || key.strip_prefix("broker.").is_some_and(|key| !matches!(key, "eager" | "elision"))
}

/// What may be meant by a variable that nobody reads. Others are left alone: they may be those of another program.
fn misspelt(variable: &str) -> Option<String> {
    const KNOWN: [&str; 8] = ["BLESS", "DATA", "FROZEN", "HOME", "LOG", "PROJECT", "WORK", "WORKSPACE"];
    let name = variable.strip_prefix("LEAT_").filter(|name| !KNOWN.contains(name))?;
    let plain = |name: &str| name.replace('_', "");
    let wrong = |key: &String| strsim::damerau_levenshtein(&plain(name), &plain(key));
    let keys = TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}__{key}").to_ascii_uppercase()));
    // One underscore in place of two is the usual mistake.
    let key = keys.filter(|key| wrong(key) <= LETTERS_MAX.min(key.len() / LETTERS_OF_A_WRONG_ONE)).min_by_key(wrong);
    if let Some(meant) = key.or_else(|| settings::similar(name, &KNOWN).map(str::to_owned)) {
        return Some(format!("LEAT_{meant}"));
    }
    // Others begin with `TOPOLOGY_` too: a cluster makes variables of the names of services.
    let rest = name.strip_prefix("TOPOLOGY_")?;
    (rest.contains("_TASK_") || rest.ends_with("_DURABILITY")).then(|| "LEAT_TOPOLOGY__NAME__TASK__NAME__KEY".to_owned())
}

/// A variable's text as the value that it looks like.
fn parsed(text: &str) -> Value {
    match text {
        "true" => true.into(),
        "false" => false.into(),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into(),
            // Null is what becomes of a number that is none, or has no end.
            (_, Ok(number)) if number.is_finite() => number.into(),
            _ => text.into(),
        },
    }
}

fn hint(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let known: &[&str] = match parts[..] {
        [_] => &["broker", "data", "jobs", "topology", "trace"],
        [table, _] => TABLES.iter().find(|(name, _)| *name == table).map_or(&[], |(_, keys)| keys),
        ["topology", _, _] => &["durability", "task"],
        ["topology", _, "task", _, _] => &["timeout", "retry", "parallelism", "worker", "source", "sink", "settings"],
        ["topology", _, "task", _, "retry", _] => &["attempts", "backoff", "max_backoff"],
        _ => &[],
    };
    settings::hint(parts.last().copied().unwrap_or_default(), known)
}
