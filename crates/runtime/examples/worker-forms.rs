//! How many messages a second one dispatcher gets handled by a worker over HTTP on this machine, in each of the two forms:
//!
//!     cargo run --release -p leatworks --example worker-forms
//!
//! Dispatcher, worker and a broker in memory share one process, so both sides of the connection share its processors. The task gives its input back. Batches go to
//! a worker as every task binary is one; JSON to a plain HTTP server that takes nothing else. It takes twenty seconds at most.

use axum::{Router, routing::post};
use leatworks::{
    Context, Counts, Setup, Task, TaskError,
    broker::{Broker, Limits, MemoryBroker, Publish},
    def::{Codec, Drawings, EdgeDef, Kind, Retry, TaskDef, TopologyDef},
    open_task,
    plan::{Plan, TaskPlan},
    standalone, topics, worker,
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long each form is measured.
const TIME: Duration = Duration::from_secs(6);

/// How long it may warm up: connections, and the size of batches.
const WARM: Duration = Duration::from_secs(1);

/// How many messages wait at least, so that the dispatcher never does.
const AHEAD: u64 = 20_000;

/// How many are published at once.
const BATCH: u64 = 2_000;

#[derive(serde::Deserialize)]
struct Echo;

impl Task for Echo {
    type In = Value;
    type Out = Value;

    async fn run(&self, value: Value, _cx: &Context) -> Result<Value, TaskError> {
        Ok(value)
    }
}

static ECHO: TaskDef = TaskDef {
    project: "forms",
    topology: "forms",
    name: "echo",
    version: "0",
    codec: Codec::Json,
    kind: Kind::Rust(open_task::<Echo>),
    retry: Retry { attempts: 3, backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(30) },
    timeout: Duration::from_secs(30),
    parallelism: 8,
    source: None,
    routes: &[],
    ends: &[],
};

static FORMS: TopologyDef = TopologyDef {
    name: "forms",
    project: "forms",
    version: "0",
    description: "",
    codec: Codec::Json,
    tasks: &[&ECHO],
    edges: &[EdgeDef {
        id: "[*]-->echo",
        from: None,
        to: "echo",
        label: None,
        topic: "forms-echo",
        subscription: "echo",
        retry_topic: "forms-echo-echo-RETRY",
        dead_letter_topic: "forms-echo-echo-DLQ",
    }],
    drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let setup: &'static Setup = Box::leak(Box::new(Setup::new(&ECHO, Value::Null, ".".into())));
    let bound = worker::bind("127.0.0.1:0".parse()?, false).await?;
    let ours = format!("http://{}", bound.address());
    tokio::spawn(bound.serve(TaskPlan::new(&ECHO), open_task::<Echo>(setup), std::future::pending()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let plain = format!("http://{}", listener.local_addr()?);
    let answer = |body: String| async move { format!("{{\"tasks\":[{{\"task\":{body}}}]}}") };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(answer))).await });
    for (form, url) in [("batches", ours), ("JSON", plain)] {
        let rate = measure(&url).await?;
        println!("{form:>8}: {rate:.0} messages/s (200 bytes each, parallelism {}, {TIME:?})", ECHO.parallelism);
    }
    Ok(())
}

async fn measure(url: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits::default()));
    topics::create(broker.as_ref(), &(&FORMS).into()).await?;
    let counts = Arc::new(Counts::new(&FORMS));
    let plan = Plan::new(&FORMS, ".");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let dispatcher = tokio::spawn({
        let (broker, counts, url) = (broker.clone(), counts.clone(), url.to_owned());
        async move {
            let stop = async { _ = stopped.await };
            standalone::run_edge(broker, &plan, &FORMS.edges[0], Some(&url), standalone::Observer::new(counts), stop).await
        }
    });
    let handled = || counts.tasks()["echo"].handled;
    let payload = json!({ "text": "x".repeat(189) }).to_string();
    let topic: Arc<str> = FORMS.edges[0].topic.into();
    let (began, mut published, mut from) = (Instant::now(), 0, None);
    while began.elapsed() < WARM + TIME {
        if began.elapsed() > WARM && from.is_none() {
            from = Some((Instant::now(), handled()));
        }
        if published - handled() > AHEAD {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let publish = |_| Publish {
            topic: topic.clone(),
            message: leatworks::new_root(payload.clone().into(), Codec::Json, None).into(),
            sequence: None,
        };
        broker.publish((0..BATCH).map(publish).collect()).await?;
        published += BATCH;
    }
    let (since, before) = from.ok_or("the time was over before it began")?;
    let rate = (handled() - before) as f64 / since.elapsed().as_secs_f64();
    // It is gone only if it has failed, which is told next.
    let _ = stop.send(());
    dispatcher.await??;
    Ok(rate)
}
