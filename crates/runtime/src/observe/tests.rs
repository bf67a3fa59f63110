//! What a dispatcher tells of itself, as somebody sees it who asks.

use super::*;
use crate::{
    Codec, Context, TaskError,
    def::{Kind, Retry, TaskDef, TopologyDef, example},
    handler::{Handler, Output},
    plan::TaskPlan,
};
use leatworks_broker::{BoxFuture, Limits, MemoryBroker, Message, Publish};

static TASK: TaskDef = TaskDef {
    kind: Kind::Worker { url: "http://store" },
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
        id: "parse-->|good|store",
        from: Some("parse"),
        to: "store",
        label: Some("good"),
        topic: "orders-parse-good",
        subscription: "store",
        retry_topic: "orders-parse-good-store-retry",
        dead_letter_topic: "orders-parse-good-store-dlq",
    }],
    ..example::TOPOLOGY
};

fn watch() -> (Arc<Counts>, Watch) {
    let counts = Arc::new(Counts::new(&TOPOLOGY));
    (counts.clone(), Watch::new("orders", &TOPOLOGY.edges[0], counts, TASK.timeout))
}

#[test]
fn calls_are_counted_in_the_bucket_of_their_length() {
    let histogram = Histogram::default();
    for micros in [1, 1_000, 1_001, 400_000, 5_000_000, 4_000_000_000] {
        histogram.record(Duration::from_micros(micros));
    }
    let (within, count, seconds) = histogram.cumulated();
    assert_eq!(within, [2, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5, 5, 5]);
    assert_eq!(count, 6);
    assert!((seconds - 4_005.402_002).abs() < 1e-6, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_is_alive_while_its_loop_turns_and_calls_come_back() {
    let pass = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
    let (_, watch) = watch();
    pass(1_000).await;
    assert_eq!(watch.is_alive(), Ok(()), "it waits for its broker");
    watch.joined();
    watch.turned(0);
    pass(STILL_MAX.as_secs() + 1).await;
    assert!(watch.is_alive().unwrap_err().contains("stands still"));
    // It turns and has nothing to do, however long.
    watch.turned(0);
    assert_eq!(watch.is_alive(), Ok(()));
    // A call may take its time.
    watch.took(1);
    let limit = (TASK.timeout + LATE_MAX).as_secs();
    for _ in 0..limit {
        watch.turned(1);
        pass(1).await;
    }
    assert_eq!(watch.is_alive(), Ok(()));
    watch.turned(1);
    pass(1).await;
    assert!(watch.is_alive().unwrap_err().contains("nothing has come back"));
    // What waits for a broker that is away is in no lane.
    watch.turned(0);
    assert_eq!(watch.is_alive(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_is_ready_when_it_has_joined_and_the_broker_answers() {
    let (_, watch) = watch();
    let why = |words: &str| {
        let told = watch.is_ready().unwrap_err();
        assert!(told.contains(words), "{words}: {told}");
    };
    why("not joined");
    watch.joined();
    why("has not said");
    let broker = MemoryBroker::new(Limits::default());
    tokio::select! {
        () = watch.look(&broker) => unreachable!("it looks without end"),
        () = tokio::time::sleep(LOOK * 4) => {}
    }
    assert_eq!(watch.is_ready(), Ok(()));
    broker.close().await.unwrap();
    tokio::select! {
        () = watch.look(&broker) => unreachable!("it looks without end"),
        () = tokio::time::sleep(ANSWER_MAX * 2) => {}
    }
    why("has not answered");
    watch.answered.store(watch.now(), Relaxed);
    watch.closing();
    why("it ends");
}

/// Handles `1`, fails on `2` and gives up on `3`.
struct Sorter;

impl Handler for Sorter {
    fn handle<'a>(&'a self, message: &'a Message, _: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        let result = match &*message.payload {
            b"1" => Ok(Vec::new()),
            b"2" => Err(TaskError::retryable("later")),
            _ => Err(TaskError::permanent("never")),
        };
        Box::pin(std::future::ready(result))
    }
}

#[tokio::test]
async fn what_a_dispatcher_does_is_in_its_metrics() {
    let (counts, watch) = watch();
    let watch = Arc::new(watch);
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits::default()));
    crate::topics::create(broker.as_ref(), &(&TOPOLOGY).into()).await.unwrap();
    let publish = |payload: &'static str| Publish {
        topic: "orders-parse-good".into(),
        message: crate::new_root(payload.into(), Codec::Json, None).into(),
        sequence: None,
    };
    broker.publish(["1", "2", "3", "1"].map(publish).into()).await.unwrap();
    let mut edge = crate::dispatch::Edge::new(
        broker.clone(),
        Some(Arc::new(Sorter)),
        &TOPOLOGY.edges[0],
        &TaskPlan::new(&TASK),
        counts.clone(),
    );
    edge.watch = Some(watch.clone());
    let (close, closing) = crate::dispatch::Closing::new();
    let serving = tokio::spawn(crate::dispatch::serve(Arc::new(edge), closing));
    while pending(broker.as_ref(), &TOPOLOGY.edges[0]).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    close.send_replace(true);
    serving.await.unwrap().unwrap();
    watch.backlog.store(7, Relaxed);
    let text = watch.text();
    let value = |name: &str| {
        let start = format!("{name}{{topology=\"orders\",edge=\"parse.good.store\"");
        let line = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    for (name, expected) in [
        ("leatworks_dispatcher_received_total", 5.0),
        ("leatworks_dispatcher_handled_total", 2.0),
        ("leatworks_dispatcher_outputs_total", 0.0),
        ("leatworks_dispatcher_failed_total", 3.0),
        ("leatworks_dispatcher_retried_total", 1.0),
        ("leatworks_dispatcher_dead_lettered_total", 2.0),
        ("leatworks_dispatcher_in_flight", 0.0),
        ("leatworks_edge_backlog", 7.0),
        ("leatworks_dispatcher_handler_duration_seconds_count", 5.0),
    ] {
        assert!((value(name) - expected).abs() < f64::EPSILON, "{name} is {expected}: {text}");
    }
    assert!(value("leatworks_dispatcher_progress_age_seconds") < 60.0);
    // Every family is described once, and ends its lines as Prometheus wants them.
    let families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).map(|(name, _)| name).collect();
    let distinct: std::collections::BTreeSet<&&str> = families.iter().collect();
    assert_eq!(families.len(), distinct.len());
    assert!(text.ends_with('\n'));
}
