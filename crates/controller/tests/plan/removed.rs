//! What becomes of edges that a change takes out of the graph.

use crate::model::{Model, run, spec, with_run, words};
use leatworks_controller::{
    crd::TopologySpec,
    plan::{EdgeQueue, Plan, Queues},
};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

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
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_edited_comes_to_rest_with_nothing_left_over(
        may_park in any::<bool>(),
        edits in proptest::collection::vec((graphs(), 0_usize..3, 0_usize..4, 1_i32..4, any::<bool>(), proptest::option::of(0_usize..12)), 1..8)
    ) {
        let mut model = Model::default();
        let handled = |model: &mut Model| {
            for entry in &model.status.retiring {
                model.queues.insert(entry.edge.clone(), EdgeQueue { published: 9, pending: 0, retrying: 0 });
            }
        };
        let mut last = None;
        for (graph, policy, passes, replicas, by_run, cut) in &edits {
            let policy = ["Drain", "Drop", if may_park { "Park" } else { "Drop" }][*policy];
            // A task is one with a dispatcher at one time and a sink at another.
            let sink = *by_run && graph.contains('f');
            let tasks = if sink { json!([{ "name": "f", "kind": "Sink", "sink": { "type": "stdout" } }]) } else { json!([]) };
            let more = json!({ "removedEdges": policy, "edges": [{ "edge": "a-->b", "replicas": replicas }], "tasks": tasks });
            let spec = spec(graph, more);
            let spec = if graph.contains("a --> b") { spec } else { TopologySpec { edges: Vec::new(), ..spec } };
            // The next edit may come at any time, also when no pass has ended since the last one.
            if let Some(steps) = cut {
                model.pass_until(&spec, *steps);
            }
            for _ in 0..*passes {
                model.pass(&spec);
            }
            // Everything is handled by and by.
            handled(&mut model);
            last = Some(spec);
        }
        let last = last.expect("an edit");
        for _ in 0..20 {
            model.pass(&last);
            handled(&mut model);
        }
        prop_assert_eq!(model.pass(&last), Plan::default());
        let mut fresh = Model::default();
        fresh.settle(&last);
        let names = |model: &Model| model.objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect::<BTreeSet<_>>();
        prop_assert_eq!(names(&model), names(&fresh));
        if may_park {
            prop_assert!(fresh.subscribed.is_subset(&model.subscribed), "{:?} of {:?}", model.subscribed, fresh.subscribed);
        } else {
            prop_assert_eq!(model.subscribed, fresh.subscribed);
        }
    }
}

#[test]
fn a_subscription_is_let_go_whose_edge_never_came_further() {
    for (policy, waiting, subscribed) in [("Drop", 5, false), ("Park", 0, true), ("Drain", 0, false), ("Drain", 5, true)] {
        let case = format!("{policy} with {waiting}");
        let mut model = Model::default();
        model.settle(&spec("a --> b", json!({})));
        // The controller dies when it has subscribed, and twice the next resource comes before another has told anything.
        model.pass_until(&spec("a --> b\na --> c", json!({})), 1);
        assert!(model.subscribed.contains("a-->c") && !model.edges().contains(&"a-->c"));
        let next = spec("a --> b\na --> d", json!({ "removedEdges": policy }));
        model.pass_until(&next, 1);
        model.queues.insert("a-->c".to_owned(), EdgeQueue { published: 9, pending: waiting, retrying: 0 });
        // What becomes of it was said by who took it out.
        let last = spec("a --> b", json!({ "removedEdges": "Drop" }));
        model.settle(&last);
        assert_eq!(model.subscribed.contains("a-->c"), subscribed, "{case}");
        assert!(!model.subscribed.contains("a-->d"), "{case}");
        assert!(model.status.retiring.is_empty() && model.edges() == ["[*]-->a", "a-->b"], "{case}");
        assert_eq!(model.pass(&last), Plan::default(), "{case}");
    }
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
        let back = crate::model::spec("a --> b\na --> f\na --> k", json!({ "removedEdges": policy }));
        model.settle(&back);
        assert!(model.status.retiring.is_empty() && model.edges().len() == 4);
        assert!(model.subscribed.contains("a-->f") && model.subscribed.contains("a-->k"), "{:?}", model.subscribed);
    }
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
                crate::model::run(&mut model).expect("the run")["metadata"]["generation"] = 1.into();
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
fn an_edge_that_had_come_back_before_the_status_said_so_is_let_go_anew() {
    let with = spec("a --> b\na --> c", json!({}));
    let without = |policy: &str| spec("a --> b", json!({ "removedEdges": policy }));
    for (policy, subscribed) in [("Drop", false), ("Park", true)] {
        let mut model = Model::default();
        model.settle(&with);
        model.pass(&without("Drop"));
        assert!(model.status.retiring[0].closing);
        model.pass(&without("Drop"));
        // It is there again with all that belongs to it, but somebody changes the resource before the status is written.
        model.pass_until(&with, usize::MAX);
        assert!(model.status.retiring[0].closing && model.edges().contains(&"a-->c"));
        (0..4).for_each(|_| drop(model.pass(&without(policy))));
        model.settle(&without(policy));
        assert_eq!(model.subscribed.contains("a-->c"), subscribed, "{policy}");
    }
}

#[test]
fn what_was_parked_stays_whatever_was_asked_for_before_anybody_was_told() {
    let graph = |graph: &str, policy: &str| spec(graph, json!({ "removedEdges": policy }));
    let (parked, dropped) = (graph("a --> b\na --> d", "Park"), graph("a --> b\na --> e", "Drop"));
    let mut model = Model::default();
    model.settle(&graph("a --> b", "Drop"));
    model.pass_until(&graph("a --> b\na --> c", "Drop"), 1);
    model.pass_until(&parked, 0);
    model.pass_until(&dropped, 0);
    // What was parked by is the newest revision now, and has the number of one.
    model.pass_until(&parked, 0);
    model.settle(&parked);
    assert!(model.subscribed.contains("a-->c"), "{:?}", model.subscribed);
}
