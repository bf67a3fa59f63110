//! The values of the chart: each is in the schema and has a default, and their page is current. `LEAT_BLESS=1` writes the page's table anew.

use leatworks_controller::yaml;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const BEGIN: &str = "<!-- values, generated from values.schema.json and values.yaml -->\n";
const END: &str = "<!-- end -->\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn chart(file: &str) -> String {
    std::fs::read_to_string(repository().join("charts/leatworks").join(file)).expect(file)
}

fn schema() -> Value {
    serde_json::from_str(&chart("values.schema.json")).expect("JSON")
}

fn defaults() -> Value {
    yaml::read(&chart("values.yaml")).expect("YAML")
}

/// Every value with its schema: tables are gone into where the schema says what is in them.
fn values(schema: &Value, before: &str, found: &mut Vec<(String, Value)>) {
    for (name, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        if value["properties"].is_object() {
            values(value, &path, found);
        } else {
            found.push((path, value.clone()));
        }
    }
}

fn default(path: &str) -> Option<Value> {
    let defaults = defaults();
    path.split('.').try_fold(&defaults, |value, part| value.get(part)).cloned()
}

fn kind(schema: &Value) -> String {
    let word = schema["type"].as_str().unwrap_or("any");
    match word {
        "array" => format!("list of {}s", schema["items"]["type"].as_str().unwrap_or("value")),
        "object" if schema["additionalProperties"]["type"] == "string" => "map of strings".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

fn limits(schema: &Value) -> String {
    let words = schema["enum"].as_array().map(|words| {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        format!(" One of {}.", words.join(", "))
    });
    let range = match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(min), Value::Number(max)) => Some(format!(" From {min} to {max}.")),
        _ => None,
    };
    words.or(range).unwrap_or_default()
}

fn shown(default: &Value) -> String {
    match default {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Object(map) if map.is_empty() => "none".to_owned(),
        other => format!("`{other}`"),
    }
}

/// A table with a row for each value.
fn table() -> String {
    let mut found = Vec::new();
    values(&schema(), "", &mut found);
    let mut table = "| value | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (path, schema) in found.iter().filter(|(path, _)| path != "global") {
        let about = schema["description"].as_str().unwrap_or_default();
        let default = shown(&default(path).unwrap_or_default());
        table += &format!("| `{path}` | {} | {default} | {about}{} |\n", kind(schema), limits(schema)).replace("$", "\\$");
    }
    table
}

/// The paths of all defaults.
fn leaves(value: &Value, before: &str, known: &BTreeMap<String, Value>, set: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        if known.contains_key(&path) || !value.is_object() {
            set.insert(path);
        } else {
            leaves(value, &path, known, set);
        }
    }
}

#[test]
fn every_value_has_a_default_and_is_in_the_schema() {
    let mut found = Vec::new();
    values(&schema(), "", &mut found);
    let known: BTreeMap<String, Value> = found.into_iter().filter(|(path, _)| path != "global").collect();
    for (path, schema) in &known {
        assert!(default(path).is_some(), "`{path}` has no default in values.yaml");
        let about = schema["description"].as_str().unwrap_or_default();
        assert!(about.ends_with('.'), "`{path}` has a sentence: {about}");
    }
    let mut set = BTreeSet::new();
    leaves(&defaults(), "", &known, &mut set);
    assert_eq!(set, known.keys().cloned().collect(), "values.yaml and values.schema.json name the same values");
}

#[test]
fn the_page_of_the_values_is_current() {
    let path = repository().join("docs/reference/chart.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let fresh = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("LEAT_BLESS").is_some() {
        std::fs::write(&path, &fresh).expect("written");
        return;
    }
    assert!(page == fresh, "`LEAT_BLESS=1 cargo test -p leatworks-controller --test chart` writes {} anew", path.display());
}
