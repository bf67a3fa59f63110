//! The definition of the resource: what it says, and that its page and the chart's copy are current. `LEAT_BLESS=1` writes both anew.

use leatworks_controller::crd;
use serde_json::Value;
use std::path::Path;

/// All fields below a schema that do not say what they are.
fn undocumented(path: &str, schema: &Value, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let text = field["description"].as_str().unwrap_or_default();
        if !text.ends_with('.') && !text.ends_with(']') && !text.ends_with('`') {
            found.push(path.clone());
        }
        undocumented(&path, field, found);
        undocumented(&path, &field["items"], found);
    }
}

#[test]
fn every_field_has_a_sentence() {
    let crd = serde_json::to_value(crd::definition()).expect("JSON");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        assert!(schema["properties"][part]["properties"].is_object(), "{part}");
        undocumented(part, &schema["properties"][part], &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn it_is_a_namespaced_resource_with_a_status_of_its_own() {
    let crd = serde_json::to_value(crd::definition()).expect("JSON");
    let version = &crd["spec"]["versions"][0];
    assert_eq!(crd["spec"]["scope"], "Namespaced");
    assert_eq!(crd["spec"]["names"]["plural"], "topologies");
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "topo");
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<_> = version["additionalPrinterColumns"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| column["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(columns, ["State", "Tasks", "Edges", "Revision", "Reason", "Age"]);
}

#[test]
fn the_page_of_the_resource_and_the_definition_in_the_chart_are_current() {
    let definition = serde_json::to_value(crd::definition()).expect("JSON");
    let definition = leatworks_controller::yaml::write(&definition).expect("YAML");
    for (place, text) in [
        ("docs/reference/topology-resource.md", crd::reference_markdown()),
        ("charts/leatworks/files/topologies.yaml", definition),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(place);
        if std::env::var_os("LEAT_BLESS").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "`LEAT_BLESS=1 cargo test -p leatworks-controller --test crd` writes {place} anew");
    }
}
