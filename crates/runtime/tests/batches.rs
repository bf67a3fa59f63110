//! Dispatchers and the workers that every task binary is: many messages in a request, each with an end of its own.

mod support;

use leatworks::{
    Context, Counts, Setup, Task, TaskError,
    broker::{Broker, Publish},
    codec,
    def::{Codec, Kind, Retry, TopologyDef},
    open_task,
    plan::{Plan, TaskPlan},
    standalone::{self, Handled, Observer},
    worker,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How often each message was begun, by edge and message.
static BEGUN: Mutex<BTreeMap<String, BTreeMap<String, u32>>> = Mutex::new(BTreeMap::new());

#[derive(serde::Deserialize)]
struct Varied;

impl Task for Varied {
    type In = Value;
    type Out = Value;

    async fn run(&self, value: Value, cx: &Context) -> Result<Vec<Value>, TaskError> {
        *BEGUN.lock().unwrap().entry(cx.edge().to_owned()).or_default().entry(value.to_string()).or_default() += 1;
        match value.as_str() {
            Some("hangs") => std::future::pending().await,
            Some("panics") => panic!("oh"),
            Some("never") => Err(TaskError::permanent("no")),
            Some("later") if cx.attempt() == 1 => Err(TaskError::retryable("not yet")),
            Some("twice") => Ok(vec![value; 2]),
            _ => Ok(vec![value]),
        }
    }

    fn key(value: &Value) -> Option<String> {
        Some(value.to_string())
    }
}

/// Serves `Varied` as its binary would.
async fn serve(topology: &'static TopologyDef) -> SocketAddr {
    let task = topology.tasks[0];
    let setup: &'static Setup = Box::leak(Box::new(Setup::new(task, Value::Null, ".".into())));
    let bound = worker::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = bound.address();
    tokio::spawn(bound.serve(TaskPlan::new(task), open_task::<Varied>(setup), std::future::pending()));
    address
}

/// Stands between dispatcher and worker, and sees which form is spoken.
#[derive(Default)]
struct Between {
    /// Connections of HTTP/2, which is what batches come by.
    batches: AtomicU64,
    /// Requests over HTTP/1.1, seen by their first bytes.
    singles: AtomicU64,
}

async fn between(worker: SocketAddr, cut: watch::Receiver<u64>) -> (SocketAddr, Arc<Between>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Between::default());
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (seen, mut cut) = (counted.clone(), cut.clone());
            cut.mark_unchanged();
            tokio::spawn(async move {
                let mut first = [0; 3];
                near.read_exact(&mut first).await?;
                let count = if &first == b"PRI" { &seen.batches } else { &seen.singles };
                count.fetch_add(1, SeqCst);
                let mut far = TcpStream::connect(worker).await?;
                far.write_all(&first).await?;
                tokio::select! {
                    copied = copy_bidirectional(&mut near, &mut far) => copied.map(drop),
                    _ = cut.changed() => Ok(()),
                }
            });
        }
    });
    (address, seen)
}

fn varied(name: &'static str, codec: Codec, attempts: u32, parallelism: usize) -> &'static TopologyDef {
    let retry = Retry { attempts, backoff: Duration::from_millis(2), max_backoff: Duration::from_millis(10) };
    let task = node("varied", Kind::Rust(open_task::<Varied>)).retry(retry).parallelism(parallelism);
    let next = node("next", Kind::Rust(open_task::<Varied>));
    topology_with(name, codec, vec![task.timeout(Duration::from_millis(200)), next], &["varied-->next"])
}

async fn prepared(topology: &'static TopologyDef, messages: &[Value]) -> Arc<dyn Broker> {
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let publish = |value: &Value| Publish {
        topic: topology.edges[0].topic.into(),
        message: leatworks::new_root(codec::encode(topology.codec, value).unwrap(), topology.codec, None).into(),
        sequence: None,
    };
    broker.publish(messages.iter().map(publish).collect()).await.unwrap();
    broker
}

/// Dispatches the first edge until nothing is pending there, with something to do meanwhile.
async fn dispatch(
    broker: &Arc<dyn Broker>,
    topology: &'static TopologyDef,
    worker: SocketAddr,
    mut meanwhile: impl FnMut(u64),
) -> (Arc<Counts>, u64) {
    let told = Arc::new(AtomicU64::new(0));
    let counts = Arc::new(Counts::new(topology));
    let (stop, mut stopped) = watch::channel(false);
    let dispatcher = tokio::spawn({
        let (broker, counts, told) = (broker.clone(), counts.clone(), told.clone());
        async move {
            let log = Arc::new(move |_: &Handled<'_>| _ = told.fetch_add(1, SeqCst));
            let stop = async move { _ = stopped.wait_for(|stopped| *stopped).await };
            let url = format!("http://{worker}");
            let plan = Plan::new(topology, ".");
            standalone::run_edge(
                broker,
                &plan,
                &topology.edges[0],
                Some(&url),
                Observer { log: Some(log), ..Observer::new(counts) },
                stop,
            )
            .await
        }
    });
    loop {
        let stats = broker.stats().await.unwrap();
        let topic = stats.iter().find(|topic| topic.spec.name == topology.edges[0].topic).unwrap();
        if topic.subscriptions["varied"].backlog + topic.subscriptions["varied"].in_flight == 0 {
            break;
        }
        meanwhile(counts.tasks()["varied"].handled);
        // The condition is looked at again soon, and the processors are left to those who bring it about.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.send_replace(true);
    dispatcher.await.unwrap().unwrap();
    (counts, told.load(SeqCst))
}

async fn outputs(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Vec<(Value, Option<String>)> {
    let peeked = broker.peek(topology.edges[1].topic, "next", leatworks::broker::Position(0), 10_000).await.unwrap();
    let read = |message: &leatworks::broker::Message| codec::decode(topology.codec, &message.payload).unwrap();
    peeked.iter().map(|(_, message)| (read(message), message.key.clone())).collect()
}

fn begun(message: &str) -> u32 {
    let begun = BEGUN.lock().unwrap();
    begun.values().filter_map(|messages| messages.get(message)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_go_in_few_requests_in_either_codec() {
    for (name, codec, base) in [("batches-json", Codec::Json, 10_000), ("batches-messagepack", Codec::MessagePack, 20_000)] {
        let topology = varied(name, codec, 3, 2);
        let (_cut, cutting) = watch::channel(0);
        let (address, seen) = between(serve(topology).await, cutting).await;
        let messages: Vec<Value> = (base..base + 2_000).map(|number| json!(number)).collect();
        let broker = prepared(topology, &messages).await;
        let (counts, told) = dispatch(&broker, topology, address, |_| {}).await;
        let tally = counts.tasks()["varied"];
        assert_eq!((tally.handled, tally.emitted, tally.failed, told), (2_000, 2_000, 0, 2_000));
        let outputs: BTreeMap<String, Option<String>> =
            outputs(&broker, topology).await.into_iter().map(|(value, key)| (value.to_string(), key)).collect();
        assert_eq!(outputs.len(), 2_000);
        assert!(outputs.iter().all(|(value, key)| key.as_ref() == Some(value)), "each has the key that its task gave");
        assert!(messages.iter().all(|message| begun(&message.to_string()) == 1));
        // A connection of HTTP/1.1 for each of the first messages that are called at once, or for the question, and one for all batches.
        assert_eq!(seen.batches.load(SeqCst), 1, "{name}");
        assert!((1..=2).contains(&seen.singles.load(SeqCst)), "{name}: {}", seen.singles.load(SeqCst));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_one_message_befalls_no_other_of_its_batch() {
    let topology = varied("mates", Codec::Json, 2, 2);
    let mut messages: Vec<Value> = (30_000..30_400).map(|number| json!(number)).collect();
    // Far enough behind that batches are large when they come.
    for (at, text) in [(320, "hangs"), (330, "panics"), (340, "never"), (350, "later"), (360, "twice")] {
        messages.insert(at, json!(text));
    }
    let broker = prepared(topology, &messages).await;
    let (counts, told) = dispatch(&broker, topology, serve(topology).await, |_| {}).await;
    let letters = dead_letters(&broker, topology).await;
    let letters: BTreeMap<&str, (&str, u32)> =
        letters.iter().map(|letter| (letter.payload.as_str(), (letter.cause.as_str(), letter.attempts))).collect();
    let expected = [("\"hangs\"", ("timeout", 2)), ("\"panics\"", ("panic", 2)), ("\"never\"", ("permanent", 1))];
    assert_eq!(letters, BTreeMap::from(expected));
    for number in 30_000..30_400 {
        assert_eq!(begun(&number.to_string()), 1, "message {number}");
    }
    let tally = counts.tasks()["varied"];
    assert_eq!((tally.handled, tally.emitted, tally.failed), (402, 403, 6));
    assert_eq!(told, 402 + 6, "a line for each attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_costs_an_attempt_and_no_message() {
    let topology = varied("cut", Codec::Json, 1_000, 2);
    let (cut, cutting) = watch::channel(0);
    let (address, seen) = between(serve(topology).await, cutting).await;
    let messages: Vec<Value> = (40_000..44_000).map(|number| json!(number)).collect();
    let broker = prepared(topology, &messages).await;
    let (counts, _) = dispatch(&broker, topology, address, |handled| {
        // Each time that so many more are done.
        let cuts = (handled / 500).min(6);
        cut.send_if_modified(|done| (*done < cuts).then(|| *done = cuts).is_some());
    })
    .await;
    assert_eq!(counts.tasks()["varied"].handled, 4_000);
    assert_eq!(dead_letters(&broker, topology).await, []);
    let outputs: BTreeSet<String> = outputs(&broker, topology).await.iter().map(|(value, _)| value.to_string()).collect();
    assert_eq!(outputs, messages.iter().map(Value::to_string).collect());
    let batches = seen.batches.load(SeqCst);
    assert!(batches > 1, "batches are taken up again after a cut: {batches}");
}
