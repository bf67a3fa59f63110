//! `[topology.task.job]`: what a task of kind `job` runs, and within which limits.

use serde_json::{Map, Value, json};

use super::{Table, wrong};
use crate::diagnostics::{At, Reports, codes};

/// The longest size: beyond it a limit is a slip of the unit.
const SIZE_MAX: u64 = 1 << 50;

/// The keys of the table.
const KEYS: [&str; 12] = [
    "command",
    "image",
    "memory",
    "output",
    "log",
    "permanent",
    "env",
    "env_files",
    "resources",
    "node_selector",
    "pull_secrets",
    "secrets",
];

/// Reads the table of a job as a JSON object whose values have all been checked: texts, lists of texts, maps of texts, numbers of bytes.
pub(super) fn read(task: &Table<'_>, reports: &mut Reports) -> Option<At<Value>> {
    let table = task.table("job", reports)?;
    table.only(&KEYS, reports);
    let mut options = Map::new();
    let command: Vec<String> = table.strings("command", reports).into_iter().map(|at| at.value).collect();
    if table.is_list("command") && command.first().is_none_or(String::is_empty) {
        let (place, help) = (table.place_of("command"), "name a program: `command = [\"sh\", \"./work.sh\"]`".to_owned());
        wrong(&codes::RANGE, &place, "`command` names no program".to_owned(), "nothing to run", help, reports);
    }
    let image = table.string("image", reports);
    if !table.has("command") && !table.has("image") {
        table.missing("command", "command = [\"sh\", \"./work.sh\"]", reports);
    }
    if !command.is_empty() {
        options.insert("command".to_owned(), json!(command));
    }
    if let Some(image) = image {
        options.insert("image".to_owned(), json!(image.value));
    }
    for key in ["memory", "output", "log"] {
        if let Some(bytes) = size(&table, key, reports) {
            options.insert(key.to_owned(), json!(bytes));
        }
    }
    if table.has("permanent") {
        options.insert("permanent".to_owned(), json!(table.numbers("permanent", 1..=255, reports)));
    }
    for key in ["env_files", "pull_secrets", "secrets"] {
        if table.has(key) {
            let texts: Vec<String> = table.strings(key, reports).into_iter().map(|at| at.value).collect();
            options.insert(key.to_owned(), json!(texts));
        }
    }
    for key in ["env", "resources", "node_selector"] {
        if let Some(texts) = texts(&table, key, reports) {
            options.insert(key.to_owned(), texts);
        }
    }
    Some(At { value: Value::Object(options), place: task.place_of("job") })
}

/// A table of texts; numbers and truth values stand for their text.
fn texts(table: &Table<'_>, key: &'static str, reports: &mut Reports) -> Option<Value> {
    let inner = table.table(key, reports)?;
    let Value::Object(found) = inner.options("", reports) else { return None };
    let mut texts = Map::new();
    for (name, value) in found {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => {
                let message = format!("`{name}` of `{key}` must be a text");
                let help = format!("put it in quotes: `{key} = {{ {name} = \"…\" }}`");
                wrong(&codes::WRONG_TYPE, &inner.place_of(&name), message, "neither a text nor a number", help, reports);
                continue;
            }
        };
        if key == "env" && !is_variable(&name) {
            let message = format!("`{name}` is no name of a variable");
            let help =
                "use letters, digits and `_`, not beginning with a digit, and not `LEAT_`, which names what the run itself tells"
                    .to_owned();
            wrong(&codes::RANGE, &inner.place_of(&name), message, "not possible", help, reports);
            continue;
        }
        texts.insert(name, Value::String(text));
    }
    Some(Value::Object(texts))
}

/// Whether a program can find a variable of this name in its environment, and it is none of ours.
fn is_variable(name: &str) -> bool {
    let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    word && !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && !name.starts_with("LEAT_")
}

fn size(table: &Table<'_>, key: &'static str, reports: &mut Reports) -> Option<u64> {
    let text = table.string(key, reports)?;
    let bytes = parse(&text.value).filter(|bytes| (1..=SIZE_MAX).contains(bytes));
    if bytes.is_none() {
        let message = format!("`{}` is no size", text.value);
        let help = "write a whole number with a unit: `64KiB`, `256MiB`, `2GiB`".to_owned();
        wrong(&codes::RANGE, &text.place, message, "not understood, or out of range", help, reports);
    }
    bytes
}

/// Reads a whole number with a unit as bytes.
fn parse(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("0B", 0), ("64KiB", 65_536), ("256MiB", 268_435_456), ("2GB", 2_000_000_000)] {
            assert_eq!(parse(text), Some(bytes), "of {text:?}");
        }
        for text in ["", "12", "MiB", "1.5GiB", "1 GiB", "-1B", "1gib", "99999999999999999999B", "99999999TiB"] {
            assert_eq!(parse(text), None, "of {text:?}");
        }
    }

    #[test]
    fn variables_are_named_as_programs_can_find_them() {
        for (name, good) in [("A", true), ("_b9", true), ("9A", false), ("a-b", false), ("", false), ("LEAT_ATTEMPT", false)] {
            assert_eq!(is_variable(name), good, "of {name:?}");
        }
    }
}
