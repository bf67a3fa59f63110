//! The sources and sinks that the runtime brings along, with what each can be told. The runtime has types of its own for their options, and
//! a test there compares them with this list.

use serde_json::{Map, Value};

use super::{BuiltinSpec, Table};
use crate::diagnostics::{At, Diagnostic, Reports, codes};

/// A source or sink that the runtime brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltinInfo {
    /// Its `type`.
    pub kind: &'static str,
    /// Its other keys.
    pub options: &'static [OptionInfo],
}

/// A key of a source or sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// The key.
    pub name: &'static str,
    /// What stands behind it.
    pub value: OptionValue,
    /// Whether it must be there.
    pub required: bool,
}

/// What can stand behind a key of a source or sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A text in quotes.
    Text,
    /// `true` or `false`.
    Truth,
    /// A whole number from 1 on.
    Count,
    /// A duration in quotes, longer than nothing.
    Duration,
}

const PATH: OptionInfo = OptionInfo { name: "path", value: OptionValue::Text, required: true };
const RECURSIVE: OptionInfo = OptionInfo { name: "recursive", value: OptionValue::Truth, required: false };
const EVERY: OptionInfo = OptionInfo { name: "every", value: OptionValue::Duration, required: true };
const COUNT: OptionInfo = OptionInfo { name: "count", value: OptionValue::Count, required: false };

/// The sources, in the order of their names.
pub const SOURCES: [BuiltinInfo; 4] = [
    BuiltinInfo { kind: "directory", options: &[PATH, RECURSIVE] },
    BuiltinInfo { kind: "interval", options: &[EVERY, COUNT] },
    BuiltinInfo { kind: "jsonl", options: &[PATH] },
    BuiltinInfo { kind: "lines", options: &[PATH] },
];

/// The sinks, in the order of their names.
pub const SINKS: [BuiltinInfo; 3] = [
    BuiltinInfo { kind: "jsonl", options: &[PATH] },
    BuiltinInfo { kind: "maildir", options: &[PATH] },
    BuiltinInfo { kind: "stdout", options: &[] },
];

/// Reads the table under `key`, with options that have all been checked.
pub(super) fn read(task: &Table<'_>, key: &str, known: &[BuiltinInfo], reports: &mut Reports) -> Option<At<BuiltinSpec>> {
    let table = task.table(key, reports)?;
    if !table.has("type") {
        table.missing("type", &format!("type = \"{}\"", known[0].kind), reports);
        return None;
    }
    let choices: Vec<(&str, BuiltinInfo)> = known.iter().map(|info| (info.kind, *info)).collect();
    let BuiltinInfo { kind, options } = table.choice("type", &choices, reports)?.value;
    let mut keys = vec!["type"];
    keys.extend(options.iter().map(|option| option.name));
    table.only(&keys, reports);
    let mut values = Map::new();
    for option in options {
        if let Some(value) = value(&table, option, reports) {
            values.insert(option.name.to_owned(), value);
        }
    }
    let spec = BuiltinSpec { kind: kind.to_owned(), options: Value::Object(values) };
    Some(At { value: spec, place: table.place.clone() })
}

fn value(table: &Table<'_>, option: &OptionInfo, reports: &mut Reports) -> Option<Value> {
    let OptionInfo { name, value, required } = *option;
    if required && !table.has(name) {
        let example = match value {
            OptionValue::Text => "\"…\"",
            OptionValue::Truth => "true",
            OptionValue::Count => "1",
            OptionValue::Duration => "\"10s\"",
        };
        table.missing(name, &format!("{name} = {example}"), reports);
    }
    match value {
        OptionValue::Text => table.string(name, reports).map(|at| Value::from(at.value)),
        OptionValue::Truth => table.truth(name, reports).map(Value::from),
        OptionValue::Count => table.number(name, 1..=i64::MAX as u64, reports).map(Value::from),
        OptionValue::Duration => {
            let duration = table.duration(name, reports)?;
            if duration.value.is_zero() {
                let message = format!("`{name}` is zero");
                let diagnostic = Diagnostic::at(&codes::RANGE, &duration.place, message, "it would never rest");
                reports.push(diagnostic.with_help(format!("give it some time, such as `{name} = \"10s\"`")));
            }
            table.string(name, reports).map(|at| Value::from(at.value))
        }
    }
}
