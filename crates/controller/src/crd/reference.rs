//! The page of the resource, written from its definition.

use super::{GROUP, VERSION, definition};
use serde_json::Value;
use std::fmt::Write;

/// What stands at the top of the page.
const HEAD: &str = "\
# The Topology resource

This page is generated from the definition that `leat k8s crd` prints; `kubectl explain topology.spec` says the same. How topologies are deployed is told in
[Kubernetes](../explanation/kubernetes.md).

";

/// The page, in Markdown.
pub fn reference_markdown() -> String {
    let mut page = HEAD.to_owned();
    let crd = serde_json::to_value(definition()).unwrap_or_default();
    let version = &crd["spec"]["versions"][0];
    let _ = writeln!(page, "`apiVersion: {GROUP}/{VERSION}`, `kind: Topology`; short name `topo`; namespaced.\n");
    page.push_str("## Columns\n\n| column | shows |\n|---|---|\n");
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let wide = if column["priority"].as_i64().unwrap_or_default() > 0 { ", with `-o wide`" } else { "" };
        let _ = writeln!(page, "| {} | {}{wide} |", text("name"), text("description"));
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    rules(&mut page, "The resource", schema);
    for part in ["spec", "status"] {
        section(&mut page, part, &schema["properties"][part]);
    }
    page
}

/// A section for an object, and one for each object within it.
fn section(page: &mut String, path: &str, schema: &Value) {
    let _ = writeln!(page, "\n## `{path}`\n");
    if let Some(text) = schema["description"].as_str() {
        let _ = writeln!(page, "{text}\n");
    }
    page.push_str("| field | type | meaning |\n|---|---|---|\n");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut inner = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (kind, below) = kind(field);
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let _ = writeln!(page, "| `{name}` | {kind}{needed} | {} |", meaning(field));
        if let Some(below) = below {
            let list = if field["type"] == "array" { "[]" } else { "" };
            inner.push((format!("{path}.{name}{list}"), below.clone()));
        }
    }
    rules(page, "It", schema);
    for (path, schema) in inner {
        section(page, &path, &schema);
    }
}

/// The word for a field's type, and the object that it holds.
fn kind(field: &Value) -> (String, Option<&Value>) {
    let has_fields = |schema: &Value| schema["properties"].is_object();
    let word = field["type"].as_str().unwrap_or("any");
    match word {
        "array" => {
            let (element, below) = kind(&field["items"]);
            (format!("list of {element}s"), below)
        }
        "object" if has_fields(field) => ("object".to_owned(), Some(field)),
        "object" if field["additionalProperties"].is_object() => ("map of strings".to_owned(), None),
        "object" => ("free object".to_owned(), None),
        other => (other.to_owned(), None),
    }
}

fn meaning(field: &Value) -> String {
    let mut text = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    let words: Vec<String> =
        field["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        let _ = write!(text, " One of {}.", words.join(", "));
    }
    let range = (field["minimum"].as_f64(), field["maximum"].as_f64());
    if let (Some(least), Some(most)) = range {
        let _ = write!(text, " From {least} to {most}.");
    }
    match &field["default"] {
        Value::Null => {}
        Value::String(default) => text.push_str(&format!(" Default `{default}`.")),
        default => text.push_str(&format!(" Default `{default}`.")),
    }
    text
}

/// What the API server checks.
fn rules(page: &mut String, what: &str, schema: &Value) {
    let messages: Vec<&str> =
        schema["x-kubernetes-validations"].as_array().into_iter().flatten().filter_map(|rule| rule["message"].as_str()).collect();
    if !messages.is_empty() {
        let _ = writeln!(page, "\n{what} is refused by the API server unless:\n");
        for message in messages {
            let _ = writeln!(page, "- {message}");
        }
    }
}
