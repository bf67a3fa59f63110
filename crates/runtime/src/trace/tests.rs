//! What is written of a root, and what is found of it again.

use super::{writer::Writer, *};
use crate::{
    Codec, Counts, DeadLetter,
    config::TraceConfig,
    control::Pending,
    def::{EdgeDef, Retry, TaskDef, TopologyDef, example},
    dispatch::Edge,
    ids,
    plan::TaskPlan,
};
use leatworks_broker::{Limits, MemoryBroker, Message, MessageId, Position};
use leatworks_jobs::{Location, Store};
use std::{sync::Arc, time::Duration};

static TASK: TaskDef = TaskDef {
    name: "store",
    project: "shop",
    topology: "orders",
    version: "1",
    retry: Retry { attempts: 2, backoff: Duration::from_millis(1), max_backoff: Duration::from_millis(1) },
    timeout: Duration::from_secs(30),
    parallelism: 1,
    ..example::TASK
};

static TOPOLOGY: TopologyDef = TopologyDef {
    name: "orders",
    project: "shop",
    version: "1",
    tasks: &[&TASK],
    edges: &[EdgeDef {
        id: "parse-->store",
        from: Some("parse"),
        to: "store",
        label: None,
        topic: "t",
        subscription: "store",
        retry_topic: "r",
        dead_letter_topic: "d",
    }],
    ..example::TOPOLOGY
};

fn edge() -> Edge {
    let broker = Arc::new(MemoryBroker::new(Limits::default()));
    Edge::new(broker, None, &TOPOLOGY.edges[0], &TaskPlan::new(&TASK), Arc::new(Counts::new(&TOPOLOGY)))
}

struct Place {
    config: TraceConfig,
    folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let config = TraceConfig { enabled: true, place: Location::folder(folder.path()).unwrap(), keep: Duration::from_secs(3600) };
    Place { config, folder }
}

fn child(parent: &Message, index: u64) -> Message {
    Message { id: ids::child_id(parent.id, 1, index), root: parent.root, ..Message::default() }
}

#[tokio::test]
async fn what_is_told_is_found_by_the_root_and_by_what_came_of_it() {
    let Place { config, folder } = place();
    let (edge, root, other) =
        (edge(), ids::new_root("1".into(), Codec::Json, None), ids::new_root("2".into(), Codec::Json, None));
    let children = [child(&root, 0), child(&root, 1)];
    // Two processes of one topology write side by side.
    let writers = [0, 1].map(|_| Writer::begin(&config, "orders").unwrap().unwrap());
    let [one, two] = [writers[0].tracer(), writers[1].tracer()];
    one.failed(&edge, &root, 1, &crate::TaskError::retryable("é".repeat(5_000)));
    one.handled(&edge, &root, 2, Some(Duration::from_micros(1_500)), children.iter());
    one.handled(&edge, &other, 1, None, std::iter::empty());
    two.folded(&edge, &children[0], 1);
    let letter = DeadLetter::write(children[1].clone(), "parse-->store", 2, &crate::TaskError::permanent("no"));
    two.given_up(&edge, &letter);
    for writer in writers {
        writer.end().await;
    }
    let store = Store::open(&config.place).unwrap();
    for id in [root.id, children[0].id, children[1].id] {
        let found = find(&store, "orders", &id.to_string()).await.unwrap();
        assert_eq!((found.root, found.total, found.missed), (Some(root.id.to_string()), 4, 0));
        let outcomes: Vec<(Outcome, u32)> = found.records.iter().map(|record| (record.outcome, record.attempt)).collect();
        for expected in [(Outcome::Failed, 1), (Outcome::Handled, 2), (Outcome::Folded, 1), (Outcome::DeadLettered, 2)] {
            assert!(outcomes.contains(&expected), "{outcomes:?}");
        }
        let handled = found.records.iter().find(|record| record.outcome == Outcome::Handled).unwrap();
        assert_eq!((handled.took_us, handled.given, handled.outputs.len()), (Some(1_500), 2, 2));
        let failed = found.records.iter().find(|record| record.outcome == Outcome::Failed).unwrap();
        assert!(failed.error.as_ref().is_some_and(|error| error.len() < 1_100 && error.ends_with('…')));
    }
    assert_eq!(find(&store, "orders", &other.id.to_string()).await.unwrap().total, 1);
    assert_eq!(find(&store, "orders", &MessageId(7).to_string()).await.unwrap(), Found::default());
    assert_eq!(find(&store, "order", &root.id.to_string()).await.unwrap(), Found::default());
    // A part that is damaged costs its own lines.
    std::fs::write(folder.path().join("orders/0000000000000-9999999999999-x.jsonl"), format!("{{\"root\":\"{}\"\n", root.id))
        .unwrap();
    assert_eq!(find(&store, "orders", &root.id.to_string()).await.unwrap().total, 4);
}

#[tokio::test]
async fn no_message_waits_for_its_trace_and_what_is_left_out_is_counted() {
    let Place { config, folder: _folder } = place();
    let writer = Writer::begin(&config, "orders").unwrap().unwrap();
    let (edge, tracer, root) = (edge(), writer.tracer(), ids::new_root("1".into(), Codec::Json, None));
    // Nothing is written while this goes on: the writer has the same thread.
    let told = 20_000;
    for attempt in 0..told {
        tracer.folded(&edge, &root, attempt);
    }
    writer.end().await;
    let found = find(&Store::open(&config.place).unwrap(), "orders", &root.id.to_string()).await.unwrap();
    assert!(found.missed > 0, "the queue has a bound");
    assert_eq!(found.total + found.missed, u64::from(told));
    assert_eq!(found.records.len(), RECORDS_MAX);
}

#[tokio::test]
async fn nothing_is_written_where_nobody_asks_for_it() {
    let Place { config, folder } = place();
    assert!(Writer::begin(&TraceConfig { enabled: false, ..config }, "orders").unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn record(edge: &str, message: &str, outcome: Outcome, ended_ms: u64, outputs: &[&str]) -> Record {
    Record {
        edge: edge.to_owned(),
        task: edge.rsplit('>').next().unwrap().to_owned(),
        message: message.to_owned(),
        outcome,
        ended_ms,
        outputs: outputs.iter().map(|output| (*output).to_owned()).collect(),
        ..Record::default()
    }
}

#[test]
fn steps_stand_behind_what_they_came_of() {
    let records = vec![
        // They come in no order.
        record("b-->d", "m3", Outcome::Handled, 40, &[]),
        record("[*]-->a", "m1", Outcome::Failed, 10, &[]),
        record("[*]-->a", "m1", Outcome::Handled, 20, &["m2", "m4"]),
        record("a-->c", "m2", Outcome::Handled, 35, &[]),
        record("a-->b", "m2", Outcome::Handled, 30, &["m3"]),
    ];
    let pending = Pending { edge: "a-->b".to_owned(), id: "m4".to_owned(), created_ms: 20, ..Pending::default() };
    let letter = Message { id: MessageId(5), ..Message::default() };
    let letter = DeadLetter::write(letter, "x-->y", 3, &crate::TaskError::permanent("no"));
    let letter = DeadLetter::read("x-->y", Position(0), &letter);
    let dead = letter.id.clone();
    let steps = steps(Sources { records, pending: vec![pending], dead_letters: vec![letter], ..Sources::default() });
    let shown: Vec<(usize, &str, &str, StepState)> =
        steps.iter().map(|step| (step.depth, step.edge.as_str(), step.message.as_str(), step.state)).collect();
    assert_eq!(
        shown,
        [
            (0, "[*]-->a", "m1", StepState::Handled),
            (1, "a-->b", "m4", StepState::Pending),
            (1, "a-->b", "m2", StepState::Handled),
            (2, "b-->d", "m3", StepState::Handled),
            (1, "a-->c", "m2", StepState::Handled),
            (0, "x-->y", dead.as_str(), StepState::DeadLettered),
        ]
    );
    assert_eq!(steps[0].attempts.len(), 2);
    assert_eq!(steps[3].parent.as_deref(), Some("m2"));
}

#[test]
fn what_came_of_a_branch_stands_behind_that_branch() {
    let branch = |edge: &str, ended_ms, outputs: &[&str]| {
        let outcome = if outputs.is_empty() { Outcome::DeadLettered } else { Outcome::Handled };
        record(edge, "m2", outcome, ended_ms, outputs)
    };
    let start = || record("[*]-->parse", "m1", Outcome::Handled, 10, &["m2"]);
    let waits = |edge: &str, id: &str| {
        let parent = Some("m2".to_owned());
        Pending { edge: edge.to_owned(), id: id.to_owned(), parent, ..Pending::default() }
    };
    // By what the branch has told, and, for what it does not name, by the task from which its edge comes.
    for outputs in [&["m3"][..], &["m4"]] {
        let enrich = branch("parse-->|good|enrich", 20, &[]);
        let records = vec![start(), enrich, branch("parse-->|good|audit", 30, outputs)];
        let pending = vec![waits("audit-->|late|sum", "m3")];
        let steps = steps(Sources { records, pending, ..Sources::default() });
        let shown: Vec<(usize, &str)> = steps.iter().map(|step| (step.depth, step.edge.as_str())).collect();
        let expected = [(0, "[*]-->parse"), (1, "parse-->|good|enrich"), (1, "parse-->|good|audit"), (2, "audit-->|late|sum")];
        assert_eq!(shown, expected, "{outputs:?}");
    }
    // Nothing is known of the branch that has made it.
    let records = vec![start(), branch("parse-->|good|enrich", 20, &[])];
    let steps = steps(Sources { records, pending: vec![waits("audit-->sum", "m3")], ..Sources::default() });
    let audited = steps.iter().find(|step| step.edge == "audit-->sum").unwrap();
    assert_eq!((audited.depth, audited.parent.as_deref()), (0, Some("m2")));
}

#[test]
fn steps_that_name_each_other_are_shown_all_the_same() {
    let records = vec![record("a-->b", "m1", Outcome::Handled, 1, &["m2"]), record("b-->a", "m2", Outcome::Handled, 2, &["m1"])];
    assert_eq!(steps(Sources { records, ..Sources::default() }).len(), 2);
}
