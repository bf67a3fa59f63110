//! What is planned for resources, and how plans follow one another. `LEAT_BLESS=1` writes anew what is expected.

mod model;
mod removed;

use leatworks_controller::{
    crd::{Topology, TopologySpec},
    graph,
    names::Kind,
    plan::{self, Plan, Site, Step},
    revision, yaml,
};
use model::{Model, UID, run, settings, spec, with_run, words};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn objects_are_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut cases: Vec<_> = std::fs::read_dir(&folder).expect("the cases").map(|entry| entry.expect("a case").path()).collect();
    cases.retain(|path| path.to_string_lossy().ends_with(".topology.yaml"));
    cases.sort();
    assert!(cases.len() >= 2, "cases in {}", folder.display());
    for path in cases {
        let text = std::fs::read_to_string(&path).expect("a resource");
        let resource: Topology = serde_json::from_value(yaml::read(&text).expect("YAML")).expect("a resource");
        let name = resource.metadata.name.as_deref().expect("a name");
        let graph = graph::compile(name, &resource.spec).expect("a valid graph");
        let settings = settings();
        let site = Site { name, namespace: "shop", uid: UID, spec: &resource.spec, graph: &graph, settings: &settings };
        let objects = plan::desired(site).expect("it can be deployed");
        let found = objects.iter().map(|object| yaml::write(object).expect("YAML")).collect::<Vec<_>>().join("---\n");
        let expected =
            path.with_file_name(path.file_name().expect("a name").to_string_lossy().replace(".topology.", ".objects."));
        if std::env::var_os("LEAT_BLESS").is_some() {
            std::fs::write(&expected, &found).expect("written");
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        assert!(found == wanted, "{}: LEAT_BLESS=1 writes anew what is expected, which is now\n{found}", expected.display());
    }
}

#[test]
fn subscriptions_come_first_and_a_second_pass_does_nothing() {
    let spec =
        spec("a --> b\nb -->|x| c\nb -->|y| d", json!({ "tasks": [{ "name": "d", "settings": { "deep": { "key": 1.5 } } }] }));
    let mut model = Model::default();
    let first = words(&model.pass(&spec));
    assert_eq!(first[0], "subscribe");
    assert_eq!(first.len(), 1 + 1 + 4 + 4 + 4, "a config map, and for each task and each edge what it needs: {first:?}");
    assert_eq!(model.pass(&spec), Plan::default(), "a second pass");
    model.objects[3]["spec"]["selector"]["changed"] = "by hand".into();
    model.objects[7]["spec"]["template"]["spec"]["containers"][0]["image"] = "changed:by-hand".into();
    let gone = model.objects.remove(0);
    let repaired = words(&model.pass(&spec));
    assert_eq!(repaired.len(), 2, "what was changed and what was removed, and nothing else: {repaired:?}");
    assert_eq!(model.pass(&spec), Plan::default());
    assert!(model.objects.iter().any(|object| object["metadata"]["name"] == gone["metadata"]["name"]));
}

#[test]
fn kinds_are_applied_in_the_order_in_which_they_need_one_another() {
    let spec = spec(
        "a --> b",
        json!({ "tasks": [{ "name": "a", "settings": { "x": 1 } }], "edges": [{ "edge": "a-->b", "autoscale": { "maxReplicas": 4, "backlogPerReplica": 100 } }] }),
    );
    let mut model = Model::default();
    let planned = model.pass(&spec);
    let kinds: Vec<Kind> = planned
        .steps
        .iter()
        .filter_map(|step| if let Step::Apply { object, .. } = step { Kind::of(object["kind"].as_str()?) } else { None })
        .collect();
    assert!(kinds.is_sorted() && kinds.first() == Some(&Kind::ConfigMap) && kinds.last() == Some(&Kind::Autoscaler), "{kinds:?}");
    // Those of one kind are applied side by side, and no other step with them.
    let groups: Vec<Vec<&str>> = planned
        .steps
        .chunk_by(plan::are_side_by_side)
        .map(|group| {
            group
                .iter()
                .map(|step| if let Step::Apply { object, .. } = step { object["kind"].as_str().unwrap_or("") } else { "other" })
                .collect()
        })
        .collect();
    let expected: [&[&str]; 5] = [
        &["other"],
        &["ConfigMap"],
        &["Service", "Service"],
        &["Deployment", "Deployment", "Deployment", "Deployment"],
        &["HorizontalPodAutoscaler"],
    ];
    assert_eq!(groups, expected);
}

#[test]
fn what_would_have_no_effect_is_refused_with_its_remedy() {
    let refusal = |more: Value| {
        let spec = with_run("s --> f\nf --> k", more);
        let graph = graph::compile("orders", &spec).expect("a valid graph");
        let settings = settings();
        let site = Site { name: "orders", namespace: "shop", uid: UID, spec: &spec, graph: &graph, settings: &settings };
        plan::desired(site).map_or_else(|refusal| refusal.0.join("\n"), |_| String::new())
    };
    let fold = |more: Value| {
        let mut fold = json!({ "name": "f" });
        leatworks_controller::merge::overlay(&mut fold, &more);
        json!({ "tasks": [fold] })
    };
    for (more, expected) in [
        (
            fold(json!({ "image": "other:1" })),
            "task `f` is of kind Fold, which the run of the topology has: its `image` has no effect",
        ),
        (fold(json!({ "command": ["/app/f"] })), "`command` has no effect"),
        (fold(json!({ "replicas": 3 })), "`replicas` has no effect; take it out; there is one run"),
        (fold(json!({ "port": 9000 })), "`port` has no effect"),
        (fold(json!({ "env": [{ "name": "A", "value": "1" }] })), "`env` has no effect; say it in `podTemplate`"),
        (fold(json!({ "envFrom": [{ "secretRef": { "name": "s" } }] })), "`envFrom` has no effect; say it in `podTemplate`"),
        (
            json!({ "tasks": [{ "name": "f", "resources": { "limits": { "cpu": "1" } } }, { "name": "k", "resources": {} }] }),
            "the tasks `f`, `k`",
        ),
        (
            json!({ "tasks": [{ "name": "k", "settings": { "x": 1 } }] }),
            "`settings` has no effect; take it out; it is told by `source` or `sink`",
        ),
        (json!({ "edges": [{ "edge": "f-->k", "replicas": 2 }] }), "`edges` names `f-->k`"),
        (json!({ "edges": [{ "edge": "[*]-->s" }] }), "`edges` names `[*]-->s`"),
    ] {
        let found = refusal(more.clone());
        assert!(found.contains(expected) && found.lines().count() == 1, "{more}: `{expected}` in {found}");
    }
    assert_eq!(
        refusal(fold(json!({ "settings": { "window": 1 }, "timeout": "5s", "resources": { "limits": { "cpu": "1" } } }))),
        ""
    );
}

#[test]
fn the_templates_of_all_tasks_of_the_run_are_laid_over_its_pod() {
    let env = |name: &str| json!({ "spec": { "containers": [{ "name": "run", "env": [{ "name": name, "value": "1" }] }] } });
    let tasks = json!([{ "name": "f", "podTemplate": env("OF_F") }, { "name": "k", "podTemplate": env("OF_K") }]);
    let mut model = Model::default();
    model.settle(&with_run("s --> f\nf --> k", json!({ "tasks": tasks })));
    let run = run(&mut model).expect("the run");
    let env = run["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    for name in ["OF_F", "OF_K"] {
        assert!(env.iter().any(|variable| variable["name"] == name), "{name} in {env:?}");
    }
}

#[test]
fn a_graph_that_was_changed_after_the_build_is_refused() {
    let built = spec("a --> b", json!({}));
    let hash = graph::hash(&graph::compile("orders", &built).expect("a valid graph"));
    // The same graph drawn in another way is the same graph.
    for drawn in ["a --> b", "b\na\na --> b"] {
        graph::compile("orders", &spec(drawn, json!({ "graphHash": hash }))).expect("the graph that was built");
    }
    for changed in ["a --> b --> c", "b --> a", "a -->|x| b"] {
        let error = graph::compile("orders", &spec(changed, json!({ "graphHash": hash }))).expect_err(changed).to_string();
        assert!(error.contains(&hash) && error.contains("it was changed after the build"), "{changed}: {error}");
    }
    let error = graph::compile("orders", &with_run("a --> k", json!({ "graphHash": hash }))).expect_err("another kind");
    assert!(matches!(error, graph::GraphError::Changed { .. }), "{error}");
}

#[test]
fn a_resource_takes_over_what_a_removed_one_of_its_name_has_left_and_counts_anew() {
    let (first, second) = (spec("a --> b", json!({})), spec("a --> c", json!({})));
    let settings = settings();
    let record = |uid: &str, spec: &TopologySpec, there: &[Value]| {
        let graph = graph::compile("orders", spec).expect("a valid graph");
        revision::record(
            Site { name: "orders", namespace: "shop", uid, spec, graph: &graph, settings: &settings },
            &revision::of(there, uid),
            there,
        )
    };
    let mut there = Vec::new();
    for (uid, spec, number, is_known) in [
        ("one", &first, 1, false),
        ("one", &second, 2, false),
        // The collector has not yet come by.
        ("two", &second, 1, true),
        ("two", &first, 2, true),
    ] {
        let (found, recorded) = record(uid, spec, &there);
        let (mut object, seen) = recorded.expect("it is recorded");
        assert_eq!((found, seen.is_some()), (number, is_known), "{uid}");
        assert_eq!(record(uid, spec, std::slice::from_ref(&object)), (number, None), "{uid}");
        object["metadata"]["resourceVersion"] = "1".into();
        there.retain(|known: &Value| known["metadata"]["name"] != object["metadata"]["name"]);
        there.push(object);
    }
    assert_eq!(revision::all(&revision::of(&there, "two")).len(), 2);
    assert!(revision::of(&there, "one").is_empty());
}
