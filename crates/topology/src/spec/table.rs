//! A TOML table as a pass reads it: by key, with the place of everything, and with a report for what does not fit.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{duration, wrong};
use crate::diagnostics::{At, Place, Reports, codes};
use crate::mermaid::{GraphText, forbidden};
use crate::toml_text::TextMap;

/// A project file that has been read.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: Arc<str>,
    pub(crate) text: Arc<str>,
}

impl SourceFile {
    fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        Place { file: self.path.clone(), span: spanned.span() }
    }
}

/// A table and where it stands.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) file: &'a SourceFile,
    table: &'a DeTable<'a>,
    /// Its header or braces; the start of the file for the root.
    pub(crate) place: Place,
}

impl<'a> Table<'a> {
    pub(crate) fn root(file: &'a SourceFile, table: &'a DeTable<'a>) -> Self {
        let first = file.text.lines().next().unwrap_or_default().trim_end().len();
        Self { file, table, place: Place { file: file.path.clone(), span: 0..first } }
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn is_list(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_array())
    }

    pub(super) fn place_of(&self, key: &str) -> Place {
        self.value(key).map_or_else(|| self.place.clone(), |value| self.file.place(value))
    }

    /// Reports every key that is not among `known`.
    pub(super) fn only(&self, known: &[&'static str], reports: &mut Reports) {
        for key in self.table.keys() {
            let name = key.get_ref();
            if known.contains(&&**name) {
                continue;
            }
            let help = match reports.similar(name, known.iter().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => format!("the keys here are {}", list(known)),
            };
            wrong(&codes::UNKNOWN_KEY, &self.file.place(key), format!("unknown key `{name}`"), "not known here", help, reports);
        }
    }

    /// Reports that a key is missing.
    pub(super) fn missing(&self, key: &str, example: &str, reports: &mut Reports) {
        let message = format!("the key `{key}` is missing");
        wrong(&codes::MISSING_KEY, &self.place, message, "in this table", format!("add a line such as `{example}`"), reports);
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, help: &str, reports: &mut Reports) {
        let message = format!("`{key}` must be {wanted}");
        let label = format!("this is {}", kind(value.get_ref()));
        wrong(&codes::WRONG_TYPE, &self.file.place(value), message, &label, help.to_owned(), reports);
    }

    /// A text, which must not hold invisible characters.
    pub(super) fn string(&self, key: &str, reports: &mut Reports) -> Option<At<String>> {
        self.text(key, self.value(key)?, reports)
    }

    fn text(&self, key: &str, value: &Spanned<DeValue<'_>>, reports: &mut Reports) -> Option<At<String>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a text", &format!("put it in quotes: `{key} = \"…\"`"), reports);
            return None;
        };
        let place = self.file.place(value);
        if let Some(c) = text.chars().find(|c| forbidden(*c)) {
            let message = format!("`{key}` holds the invisible character U+{:04X}", u32::from(c));
            wrong(&codes::TEXT, &place, message, "in this text", "remove it".to_owned(), reports);
        }
        Some(At { value: text.to_owned(), place })
    }

    pub(super) fn required_string(&self, key: &str, example: &str, reports: &mut Reports) -> Option<At<String>> {
        if !self.has(key) {
            self.missing(key, example, reports);
        }
        self.string(key, reports)
    }

    pub(super) fn strings(&self, key: &str, reports: &mut Reports) -> Vec<At<String>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref().as_array() {
            Some(array) => array.iter().filter_map(|item| self.text(key, item, reports)).collect(),
            None => {
                let text = value.get_ref().as_str().unwrap_or("…");
                self.wrong_type(key, value, "a list of texts", &format!("write `{key} = [{text:?}]`"), reports);
                Vec::new()
            }
        }
    }

    /// A list of whole numbers.
    pub(super) fn numbers(&self, key: &str, range: RangeInclusive<u64>, reports: &mut Reports) -> Vec<u64> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of whole numbers", &format!("write `{key} = [{}]`", range.start()), reports);
            return Vec::new();
        };
        array.iter().filter_map(|item| self.whole(key, item, &range, reports)).collect()
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<u64>, reports: &mut Reports) -> Option<u64> {
        self.whole(key, self.value(key)?, &range, reports)
    }

    fn whole(&self, key: &str, value: &Spanned<DeValue<'_>>, range: &RangeInclusive<u64>, reports: &mut Reports) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number", &format!("write `{key} = {}`", range.start()), reports);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("`{key}` is out of range");
            let help = format!("give a number from {} to {}", range.start(), range.end());
            wrong(&codes::RANGE, &self.file.place(value), message, "not possible", help, reports);
        }
        number
    }

    pub(super) fn truth(&self, key: &str, reports: &mut Reports) -> Option<bool> {
        let value = self.value(key)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_type(key, value, "true or false", &format!("write `{key} = true`, without quotes"), reports);
        }
        truth
    }

    pub(super) fn duration(&self, key: &str, reports: &mut Reports) -> Option<At<Duration>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let help = match value.get_ref().as_integer() {
                Some(number) => format!("add a unit: `{key} = \"{}s\"`", number.as_str()),
                None => format!("write `{key} = \"10s\"`"),
            };
            self.wrong_type(key, value, "a duration in quotes", &help, reports);
            return None;
        };
        let place = self.file.place(value);
        match duration::parse(text) {
            Ok(duration) => return Some(At { value: duration, place }),
            Err(duration::Wrong::Unreadable) => {
                let help = "write whole numbers with a unit: `200ms`, `10s`, `5m`, `1h`, `1m30s`".to_owned();
                wrong(&codes::DURATION, &place, format!("`{text}` is not a duration"), "not understood", help, reports);
            }
            Err(duration::Wrong::TooLong) => {
                let days = duration::DURATION_MAX.as_secs() / (24 * 3600);
                let help = format!("give at most `{days}d`");
                wrong(&codes::DURATION, &place, format!("`{text}` is too long"), "longer than a month", help, reports);
            }
        }
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)], reports: &mut Reports) -> Option<At<T>> {
        let text = self.string(key, reports)?;
        let found = choices.iter().find(|(name, _)| *name == text.value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let help = match reports.similar(&text.value, names.iter().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => format!("the choices are {}", list(&names)),
            };
            wrong(&codes::CHOICE, &text.place, format!("`{}` is no choice for `{key}`", text.value), "not known", help, reports);
        }
        found.map(|(_, choice)| At { value: *choice, place: text.place.clone() })
    }

    pub(super) fn table(&self, key: &str, reports: &mut Reports) -> Option<Table<'a>> {
        let value = self.value(key)?;
        let found = self.inner(value);
        if found.is_none() {
            self.wrong_type(key, value, "a table", &format!("write `{key} = {{ … }}`"), reports);
        }
        found
    }

    pub(super) fn required_table(&self, key: &str, reports: &mut Reports) -> Option<Table<'a>> {
        if !self.has(key) {
            self.missing(key, &format!("[{key}]"), reports);
        }
        self.table(key, reports)
    }

    /// The tables under `[[key]]`.
    pub(super) fn tables(&self, key: &str, reports: &mut Reports) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let help = format!("write `[[{key}]]`, with two brackets");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of tables", &help, reports);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            match self.inner(item) {
                Some(table) => tables.push(table),
                None => self.wrong_type(key, item, "a list of tables", &help, reports),
            }
        }
        tables
    }

    fn inner(&self, value: &'a Spanned<DeValue<'a>>) -> Option<Table<'a>> {
        let table = value.get_ref().as_table()?;
        Some(Table { file: self.file, table, place: self.file.place(value) })
    }

    /// A graph with the map of its positions.
    pub(super) fn graph(&self, key: &str, reports: &mut Reports) -> Option<GraphText> {
        let Some(value) = self.value(key) else {
            self.missing(key, "graph = \"start --> finish\"", reports);
            return None;
        };
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a Mermaid graph", "write `graph = \"\"\"`, the graph, and `\"\"\"`", reports);
            return None;
        };
        let span = value.span();
        let map = TextMap::new(self.file.text.get(span.clone()).unwrap_or_default(), span.start, text);
        Some(GraphText { text: text.to_owned(), map, file: self.file.path.clone() })
    }

    /// All keys but one as a JSON object.
    pub(super) fn options(&self, but: &str, reports: &mut Reports) -> Value {
        let mut options = Map::new();
        for (key, value) in self.table.iter().filter(|(key, _)| key.get_ref() != but) {
            match json(value.get_ref()) {
                Some(json) => drop(options.insert(key.get_ref().to_string(), json)),
                None => {
                    let message = format!("`{}` holds a number that JSON does not have", key.get_ref());
                    let help = "give a finite number of at most 64 bits".to_owned();
                    wrong(&codes::RANGE, &self.file.place(value), message, "not possible", help, reports);
                }
            }
        }
        Value::Object(options)
    }
}

fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Integer(integer) => Value::from(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?),
        DeValue::Float(float) => Value::Number(Number::from_f64(float.as_str().parse().ok()?)?),
        DeValue::Boolean(boolean) => Value::from(*boolean),
        DeValue::Datetime(datetime) => Value::from(datetime.to_string()),
        DeValue::Array(array) => Value::Array(array.iter().map(|item| json(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, value)| Some((key.get_ref().to_string(), json(value.get_ref())?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Names in backticks with commas between them.
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
