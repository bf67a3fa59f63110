//! What is planned for resources, and how plans follow one another. `LEAT_BLESS=1` writes anew what is expected.

use leatworks_controller::{
    crd::{Retiring, Topology, TopologySpec, TopologyStatus},
    graph,
    names::Kind,
    plan::{self, EdgeQueue, Observed, Plan, Queues, Settings, Site, Step},
    yaml,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

const UID: &str = "7f2c3a10-0000-4000-8000-000000000001";

fn settings() -> Settings {
    Settings { leat_image: Some("registry.example.org/leat:1".to_owned()), jobs_account: Some("leatworks-jobs".to_owned()) }
}

/// A cluster that does at once what it is asked: Deployments are complete as soon as they are applied, and what is removed is gone.
#[derive(Default)]
struct Model {
    objects: Vec<Value>,
    status: TopologyStatus,
    queues: Queues,
    subscribed: BTreeSet<String>,
    version: u64,
}

impl Model {
    /// One reconciliation. Gives the plan that it carried out.
    fn pass(&mut self, spec: &TopologySpec) -> Plan {
        let graph = graph::compile("orders", spec).expect("a valid graph");
        let settings = settings();
        let site = Site { name: "orders", namespace: "shop", uid: UID, spec, graph: &graph, settings: &settings };
        let desired = plan::desired(site).expect("it can be deployed");
        let observed = Observed {
            objects: self.objects.clone(),
            status: self.status.clone(),
            queues: self.queues.clone(),
            subscribed: graph.edges().iter().all(|edge| self.subscribed.contains(&edge.id())),
        };
        let plan = plan::plan(site, &desired, &observed);
        for step in &plan.steps {
            self.carry_out(step, &graph);
        }
        let gone =
            |entry: &Retiring| plan.steps.iter().any(|step| matches!(step, Step::Unsubscribe(gone) if gone.edge == entry.edge));
        self.status.retiring = plan.retiring.iter().filter(|entry| !gone(entry)).cloned().collect();
        plan
    }

    fn carry_out(&mut self, step: &Step, graph: &leatworks_topology::Topology) {
        self.version += 1;
        match step {
            Step::Subscribe => self.subscribed.extend(graph.edges().iter().map(|edge| edge.id())),
            Step::Unsubscribe(entry) => drop(self.subscribed.remove(&entry.edge)),
            Step::Delete { kind, name, .. } => {
                self.objects.retain(|object| object["kind"] != kind.names().1 || object["metadata"]["name"] != name.as_str());
            }
            Step::Apply { object, .. } => {
                if object["metadata"]["labels"]["app.kubernetes.io/component"] == "dispatcher" {
                    let edge = object["metadata"]["annotations"]["leatworks.dev/edge"].as_str().expect("its edge");
                    assert!(
                        edge.starts_with("[*]") || self.subscribed.contains(edge),
                        "`{edge}` has a dispatcher before a subscription"
                    );
                }
                let mut live = object.clone();
                live["metadata"]["uid"] = format!("uid-{}", self.version).into();
                live["metadata"]["resourceVersion"] = self.version.to_string().into();
                live["metadata"]["generation"] = 1.into();
                let replicas = live["spec"]["replicas"].clone();
                live["status"] = json!({ "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas });
                self.objects
                    .retain(|known| known["kind"] != live["kind"] || known["metadata"]["name"] != live["metadata"]["name"]);
                self.objects.push(live);
            }
        }
    }

    /// Passes until one has nothing to do.
    fn settle(&mut self, spec: &TopologySpec) {
        for _ in 0..20 {
            let before = self.status.retiring.clone();
            if self.pass(spec).steps.is_empty() && self.status.retiring == before {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// The edges that have dispatchers.
    fn edges(&self) -> Vec<&str> {
        let mut edges: Vec<&str> =
            self.objects.iter().filter_map(|object| object["metadata"]["annotations"]["leatworks.dev/edge"].as_str()).collect();
        edges.sort_unstable();
        edges
    }
}

fn spec(graph: &str, more: Value) -> TopologySpec {
    let mut spec =
        json!({ "graph": format!("flowchart LR\n{graph}\n"), "image": "shop:1", "broker": { "url": "pulsar://pulsar:6650" } });
    leatworks_controller::merge::overlay(&mut spec, &more);
    serde_json::from_value(spec).expect("a spec")
}

/// Steps in a word each.
fn words(plan: &Plan) -> Vec<String> {
    let part = |object: &Value| {
        let metadata = &object["metadata"];
        let edge = metadata["annotations"]["leatworks.dev/edge"].as_str();
        edge.or(metadata["labels"]["leatworks.dev/task"].as_str()).unwrap_or("run").to_owned()
    };
    plan.steps
        .iter()
        .map(|step| match step {
            Step::Subscribe => "subscribe".to_owned(),
            Step::Apply { object, .. } => format!("apply {} {}", object["kind"].as_str().unwrap_or_default(), part(object)),
            Step::Delete { kind, name, .. } => {
                format!("delete {} {}", kind.names().1, name.rsplit_once('-').map_or("", |(name, _)| name))
            }
            Step::Unsubscribe(entry) => format!("unsubscribe {}", entry.edge),
        })
        .collect()
}

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
fn a_removed_edge_is_let_go_as_the_resource_says() {
    let before = "a --> b\na --> c\nb --> d";
    let after = "a --> c";
    for (policy, passes) in [
        ("Drop", vec![vec!["delete Deployment orders-a-b", "delete Deployment orders-b-d"], vec!["delete Deployment orders-b"]]),
        ("Park", vec![vec!["delete Deployment orders-a-b", "delete Deployment orders-b-d"], vec!["delete Deployment orders-b"]]),
    ] {
        let mut model = Model::default();
        model.settle(&spec(before, json!({})));
        let spec = spec(after, json!({ "removedEdges": policy }));
        let mut all = Vec::new();
        for _ in 0..8 {
            let plan = model.pass(&spec);
            if plan.steps.is_empty() && !all.is_empty() && plan.retiring.is_empty() {
                break;
            }
            all.push(words(&plan));
        }
        let flat: Vec<&String> = all.iter().flatten().collect();
        for step in passes.iter().flatten() {
            assert!(flat.iter().any(|found| found == step), "{policy}: {step} in {all:?}");
        }
        assert_eq!(model.edges(), ["[*]-->a", "a-->c"], "{policy}");
        assert_eq!(model.subscribed.contains("a-->b"), policy == "Park", "{policy}: {all:?}");
        assert!(model.status.retiring.is_empty(), "{policy}");
    }
}

#[test]
fn a_drained_edge_goes_when_what_was_published_before_is_handled_and_its_upstream_first() {
    let mut model = Model::default();
    model.settle(&spec("a --> b\na --> c\nb --> d", json!({})));
    let spec = spec("a --> c", json!({}));
    let queue = |published, pending, retrying| EdgeQueue { published, pending, retrying };
    model.queues = Queues::from([("a-->b".to_owned(), queue(100, 40, 0)), ("b-->d".to_owned(), queue(60, 0, 0))]);
    model.settle(&spec);
    assert_eq!(model.edges(), ["[*]-->a", "a-->b", "a-->c", "b-->d"], "nothing is handled yet, and what is behind waits for it");
    let until: Vec<_> = model.status.retiring.iter().map(|entry| (entry.edge.as_str(), entry.until)).collect();
    assert_eq!(until, [("a-->b", Some(100)), ("b-->d", None)]);
    // The task `a` goes on publishing for `c` on the same topic.
    model.queues.insert("a-->b".to_owned(), queue(150, 60, 0));
    model.settle(&spec);
    assert_eq!(model.edges().len(), 4, "90 of 100 are handled");
    model.queues.insert("a-->b".to_owned(), queue(150, 50, 1));
    model.settle(&spec);
    assert_eq!(model.edges().len(), 4, "one is still tried again");
    model.queues.insert("a-->b".to_owned(), queue(170, 70, 0));
    (0..3).for_each(|_| drop(model.pass(&spec)));
    model.settle(&spec);
    (0..3).for_each(|_| drop(model.pass(&spec)));
    assert_eq!(model.edges(), ["[*]-->a", "a-->c"]);
    assert!(!model.subscribed.contains("a-->b") && !model.subscribed.contains("b-->d"), "{:?}", model.subscribed);
    assert_eq!(
        model.objects.iter().filter(|object| object["kind"] == "Service").count(),
        2,
        "the workers that only they needed are gone"
    );
    assert!(model.status.retiring.is_empty());
}

#[test]
fn an_edge_that_comes_back_keeps_its_backlog() {
    let (with, without) = (spec("a --> b\na --> c", json!({})), spec("a --> c", json!({})));
    let mut model = Model::default();
    model.settle(&with);
    model.queues.insert("a-->b".to_owned(), EdgeQueue { published: 10, pending: 5, retrying: 0 });
    model.settle(&without);
    assert_eq!(model.status.retiring.len(), 1);
    model.settle(&with);
    assert!(model.status.retiring.is_empty() && model.subscribed.contains("a-->b"));
    // It is closing, and its dispatcher is going, when the edge comes back.
    model.queues.insert("a-->b".to_owned(), EdgeQueue { published: 10, pending: 0, retrying: 0 });
    model.pass(&without);
    assert!(model.status.retiring[0].closing);
    for live in &mut model.objects {
        if live["metadata"]["annotations"]["leatworks.dev/edge"] == "a-->b" {
            live["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
        }
    }
    assert_eq!(words(&model.pass(&with)), Vec::<String>::new(), "it waits until the old one is gone");
    model.objects.retain(|live| live["metadata"].get("deletionTimestamp").is_none());
    assert_eq!(words(&model.pass(&with)), ["apply Deployment a-->b"]);
    assert!(model.subscribed.contains("a-->b"));
}

/// Graphs of up to six tasks whose arrows all point forwards.
fn graphs() -> impl Strategy<Value = String> {
    proptest::collection::btree_set((0_usize..5, 1_usize..6), 1..10).prop_map(|pairs| {
        let names = ["a", "b", "c", "d", "e", "f"];
        let forward: BTreeSet<(usize, usize)> =
            pairs.into_iter().map(|(from, to)| if from < to { (from, to) } else { (to - 1, from + 1) }).collect();
        forward.into_iter().map(|(from, to)| format!("{} --> {}", names[from], names[to])).collect::<Vec<_>>().join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_edited_comes_to_rest_with_nothing_left_over(
        edits in proptest::collection::vec((graphs(), 0_usize..3, 0_usize..4, 1_i32..4, any::<bool>()), 1..8)
    ) {
        let mut model = Model::default();
        for (graph, policy, passes, replicas, by_run) in &edits {
            let policy = ["Drain", "Park", "Drop"][*policy];
            // A task is one with a dispatcher at one time and a sink at another.
            let sink = *by_run && graph.contains('f');
            let tasks = if sink { json!([{ "name": "f", "kind": "Sink", "sink": { "type": "stdout" } }]) } else { json!([]) };
            let more = json!({ "removedEdges": policy, "edges": [{ "edge": "a-->b", "replicas": replicas }], "tasks": tasks });
            let spec = spec(graph, more);
            let spec = if graph.contains("a --> b") { spec } else { TopologySpec { edges: Vec::new(), ..spec } };
            // The next edit may come at any time.
            for _ in 0..*passes {
                model.pass(&spec);
            }
            let last = spec;
            // Everything is handled by and by.
            for entry in &model.status.retiring {
                model.queues.insert(entry.edge.clone(), EdgeQueue { published: 9, pending: 0, retrying: 0 });
            }
            if std::ptr::eq(graph, &edits[edits.len() - 1].0) {
                for _ in 0..20 {
                    model.pass(&last);
                    for entry in &model.status.retiring {
                        model.queues.insert(entry.edge.clone(), EdgeQueue { published: 9, pending: 0, retrying: 0 });
                    }
                }
                prop_assert_eq!(model.pass(&last), Plan::default());
                let mut fresh = Model::default();
                fresh.settle(&last);
                let names = |model: &Model| model.objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect::<BTreeSet<_>>();
                prop_assert_eq!(names(&model), names(&fresh));
                prop_assert!(fresh.subscribed.is_subset(&model.subscribed), "{:?} of {:?}", model.subscribed, fresh.subscribed);
            }
        }
    }
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

/// A graph of whose tasks `s` is a source, `f` a fold and `k` a sink.
fn with_run(graph: &str, more: Value) -> TopologySpec {
    let kinds = [
        json!({ "name": "s", "kind": "Source", "source": { "type": "lines", "path": "/input" } }),
        json!({ "name": "f", "kind": "Fold" }),
        json!({ "name": "k", "kind": "Sink", "sink": { "type": "stdout" } }),
    ];
    let has = |kind: &&Value| graph.split_whitespace().any(|word| kind["name"] == word);
    let mut all = json!({ "tasks": kinds.iter().filter(has).collect::<Vec<_>>() });
    leatworks_controller::merge::overlay(&mut all, &more);
    spec(graph, all)
}

#[test]
fn a_task_that_becomes_a_fold_or_sink_hands_its_backlog_to_the_run() {
    for policy in ["Drain", "Park", "Drop"] {
        let mut model = Model::default();
        model.settle(&spec("a --> b\na --> f\na --> k", json!({ "removedEdges": policy })));
        assert_eq!(model.edges(), ["[*]-->a", "a-->b", "a-->f", "a-->k"]);
        for edge in ["a-->f", "a-->k"] {
            model.queues.insert(edge.to_owned(), EdgeQueue { published: 9, pending: 0, retrying: 0 });
        }
        let spec = with_run("a --> b\na --> f\na --> k", json!({ "removedEdges": policy }));
        for _ in 0..10 {
            let plan = model.pass(&spec);
            assert!(plan.retiring.is_empty() && !words(&plan).iter().any(|word| word.starts_with("unsubscribe")), "{plan:?}");
        }
        assert_eq!(model.edges(), ["[*]-->a", "a-->b"], "the run serves the others");
        assert!(model.subscribed.contains("a-->f") && model.subscribed.contains("a-->k"), "{:?}", model.subscribed);
        // And back.
        let back = self::spec("a --> b\na --> f\na --> k", json!({ "removedEdges": policy }));
        model.settle(&back);
        assert!(model.status.retiring.is_empty() && model.edges().len() == 4);
        assert!(model.subscribed.contains("a-->f") && model.subscribed.contains("a-->k"), "{:?}", model.subscribed);
    }
}

/// The run, which is the only Deployment without a task and an edge.
fn run(model: &mut Model) -> Option<&mut Value> {
    model
        .objects
        .iter_mut()
        .find(|live| live["metadata"]["labels"]["app.kubernetes.io/component"] == "run" && live["kind"] == "Deployment")
}

#[test]
fn a_removed_edge_into_a_fold_or_sink_is_let_go_when_the_run_is_another() {
    // With another run after it, and with none.
    for after in ["a --> b\na --> k", "a --> b"] {
        for (policy, waiting, subscribed) in [("Drop", 5, false), ("Park", 0, true), ("Drain", 0, false), ("Drain", 5, true)] {
            let case = format!("{policy} with {waiting} to {after}");
            let mut model = Model::default();
            model.settle(&with_run("a --> b\na --> f\na --> k", json!({})));
            model.queues = Queues::from(
                ["a-->f", "a-->k"].map(|edge| (edge.to_owned(), EdgeQueue { published: 9, pending: waiting, retrying: 0 })),
            );
            let spec = with_run(after, json!({ "removedEdges": policy }));
            let first = words(&model.pass(&spec));
            let changes_run = first.iter().any(|word| word == "apply Deployment run" || word == "delete Deployment orders");
            assert_eq!(changes_run, policy == "Park", "{case}: the status first names what only the run knows: {first:?}");
            // The old run goes on for a while when the new one is applied.
            model.pass(&spec);
            if let Some(run) = run(&mut model) {
                run["metadata"]["generation"] = 2.into();
                (0..3).for_each(|_| drop(model.pass(&spec)));
                assert!(model.subscribed.contains("a-->f"), "{case}: the old run still takes from it");
                self::run(&mut model).expect("the run")["metadata"]["generation"] = 1.into();
            }
            model.settle(&spec);
            assert_eq!(model.subscribed.contains("a-->f"), subscribed, "{case}");
            assert!(model.status.retiring.is_empty(), "{case}: {:?}", model.status.retiring);
            assert_eq!(model.edges(), ["[*]-->a", "a-->b"], "{case}");
        }
    }
}

#[test]
fn an_edge_is_not_drained_while_the_old_run_may_publish_for_it() {
    let mut model = Model::default();
    model.settle(&with_run("s --> a\ns --> b", json!({})));
    model.queues.insert("s-->b".to_owned(), EdgeQueue { published: 100, pending: 0, retrying: 0 });
    let spec = with_run("s --> a", json!({ "image": "shop:2" }));
    model.pass(&spec);
    run(&mut model).expect("the run")["metadata"]["generation"] = 2.into();
    (0..3).for_each(|_| drop(model.pass(&spec)));
    let [entry] = model.status.retiring.as_slice() else { panic!("{:?}", model.status.retiring) };
    assert_eq!((entry.until, entry.closing), (None, false), "the source of the old run may still read on");
    assert!(model.edges().contains(&"s-->b"));
    run(&mut model).expect("the run")["metadata"]["generation"] = 1.into();
    model.settle(&spec);
    assert!(model.status.retiring.is_empty() && !model.subscribed.contains("s-->b"));
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
