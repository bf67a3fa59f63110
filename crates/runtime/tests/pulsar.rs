//! Topologies on a real Apache Pulsar behave as on the embedded broker: `cargo xtask ci pulsar` starts one and runs this.

mod support;

use leatworks::{
    Context, Counts, Task, TaskError,
    broker::Broker,
    control::{Filter, Outgoing, Request, Response, perform},
    def::{Kind, TopologyDef},
    open_task,
    plan::Plan,
    run::{Report, RunOptions, Stop, run},
    topics::DEAD_LETTER_SUBSCRIPTION,
};
use leatworks_broker::{Message, Position, Publish, Step};
use leatworks_pulsar::{PulsarBroker, PulsarOptions};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use support::*;
use tokio::sync::watch;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: `cargo xtask ci pulsar` starts a Pulsar and runs this"))
}

/// A broker on a namespace that no other test has.
async fn broker() -> Arc<dyn Broker> {
    connected(namespace()).await
}

/// A namespace that no other test has.
fn namespace() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let namespace = format!("runtime-{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let admin = variable("LEAT_PULSAR_ADMIN_URL");
    let address = admin.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let path = format!("/admin/v2/namespaces/public/{namespace}");
    write!(stream, "PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
    namespace
}

async fn connected(namespace: String) -> Arc<dyn Broker> {
    let (url, admin_url) = (variable("LEAT_PULSAR_URL"), Some(variable("LEAT_PULSAR_ADMIN_URL")));
    let options = PulsarOptions { url, admin_url, namespace, ..PulsarOptions::default() };
    Arc::new(PulsarBroker::connect(options).await.unwrap())
}

/// Handles what was sent, and ends.
async fn drain(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Report {
    let (stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, drain_limit: Duration::from_secs(120), ..RunOptions::default() };
    let plan = Plan::new(topology, std::env::temp_dir());
    let running = tokio::spawn(run(broker.clone(), plan, options, Arc::new(Counts::new(topology)), stopped));
    stop.send(Stop::Drain).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.counted.as_ref().unwrap().backlogs, BTreeMap::new(), "{report}");
    report
}

async fn send_all(broker: &Arc<dyn Broker>, topology: &'static TopologyDef, payloads: impl Iterator<Item = String>) {
    let messages = payloads.map(|payload| Outgoing { payload, key: None }).collect();
    let edge = topology.edges[0].id.to_owned();
    let request = Request::Send { topology: topology.into(), edge, messages, wait_ms: None };
    let answer = perform(broker.as_ref(), request, false).await;
    assert!(matches!(answer, Response::Sent(_)), "{answer:?}");
}

/// Gives its input `N` times.
#[derive(Deserialize)]
struct Times<const N: usize>;

impl<const N: usize> Task for Times<N> {
    type In = u64;
    type Out = u64;

    async fn run(&self, input: u64, _cx: &Context) -> Result<Vec<u64>, TaskError> {
        Ok(vec![input; N])
    }
}

fn times<const N: usize>() -> Kind {
    Kind::Rust(open_task::<Times<N>>)
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_out_copies_exactly() {
    let nodes = vec![node("t1", times::<1>()), node("t2", times::<2>()), node("t3", times::<3>()), node("t4", times::<4>())];
    let topology = topology("fan", nodes, &["t1-->t2", "t1-->t3", "t2-->t4", "t3-->t4"]);
    let broker = broker().await;
    send_all(&broker, topology, (0..1000).map(|number| number.to_string())).await;
    let report = drain(&broker, topology).await;
    let handled: Vec<u64> = report.tasks.values().map(|task| task.handled).collect();
    let emitted: Vec<u64> = report.tasks.values().map(|task| task.emitted).collect();
    assert_eq!((handled, emitted), (vec![1000, 1000, 1000, 5000], vec![1000, 2000, 3000, 20_000]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_gives_nothing_does_not_take_the_other_branch_with_it() {
    let nodes = vec![
        node("t1", times::<1>()),
        node("t2", times::<1>()),
        node("t3", times::<0>()),
        node("t4", times::<1>()),
        node("t5", times::<1>()),
    ];
    let topology = topology("diamond", nodes, &["t1-->t2", "t1-->t3", "t2-->t4", "t3-->t4", "t4-->t5"]);
    let broker = broker().await;
    send_all(&broker, topology, (0..100).map(|number| number.to_string())).await;
    let report = drain(&broker, topology).await;
    assert_eq!((report.tasks["t5"].handled, report.tasks["t3"].emitted, report.given_up()), (100, 0, 0));
}

/// The attempts that were made of each wish, by test.
static ATTEMPTS: Mutex<BTreeMap<String, Vec<u32>>> = Mutex::new(BTreeMap::new());
/// Whether everything that fails goes well from now on.
static HEALED: AtomicBool = AtomicBool::new(false);

/// Fails in the way that it is told to.
#[derive(Deserialize)]
struct Moody;

impl Task for Moody {
    type In = String;
    type Out = ();

    async fn run(&self, wish: String, cx: &Context) -> Result<(), TaskError> {
        if HEALED.load(Ordering::SeqCst) {
            return Ok(());
        }
        ATTEMPTS.lock().unwrap().entry(wish.clone()).or_default().push(cx.attempt());
        match wish.as_str() {
            "fail" => Err(TaskError::retryable("not today")),
            "fail for good" => Err(TaskError::permanent("never")),
            "panic" => panic!("at the disco"),
            "hang" => std::future::pending().await,
            "fail once" if cx.attempt() == 1 => Err(TaskError::retryable("only once")),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_tried_exactly_as_often_as_said_then_kept_and_can_be_redriven() {
    let task = node("moody", Kind::Rust(open_task::<Moody>)).timeout(Duration::from_millis(500)).parallelism(4);
    let topology = topology("poison", vec![task], &[]);
    let broker = broker().await;
    let wishes = ["a", "fail", "b", "fail for good", "panic", "c", "hang", "fail once", "d"];
    send_all(&broker, topology, wishes.iter().map(|wish| format!("\"{wish}\""))).await;
    let report = drain(&broker, topology).await;
    assert_eq!((report.given_up(), report.tasks["moody"].handled), (4, 5), "{report}");
    let letters = || async {
        let request = Request::DeadLetters { topology: topology.into(), filter: Filter::default(), limit: 100 };
        match perform(broker.as_ref(), request, false).await {
            Response::DeadLetters(listed) => listed.letters,
            other => panic!("{other:?}"),
        }
    };
    let found: BTreeMap<_, _> =
        letters().await.into_iter().map(|letter| (letter.payload, (letter.cause, letter.attempts))).collect();
    let expected = [("fail", "error", 3), ("fail for good", "permanent", 1), ("panic", "panic", 3), ("hang", "timeout", 3)];
    let expected = expected.map(|(wish, cause, attempts)| (format!("\"{wish}\""), (cause.to_owned(), attempts)));
    assert_eq!(found, BTreeMap::from(expected.clone()));
    for (wish, (_, attempts)) in expected {
        assert_eq!(ATTEMPTS.lock().unwrap()[wish.trim_matches('"')], (1..=attempts).collect::<Vec<_>>(), "{wish}");
    }
    HEALED.store(true, Ordering::SeqCst);
    let redrive = Request::Redrive { topology: topology.into(), filter: Filter::default() };
    let answer = perform(broker.as_ref(), redrive.clone(), false).await;
    assert!(matches!(answer, Response::Count { count: 4 }), "{answer:?}");
    assert!(letters().await.is_empty());
    assert!(matches!(perform(broker.as_ref(), redrive, false).await, Response::Count { count: 0 }), "each is redriven once");
    let report = drain(&broker, topology).await;
    assert_eq!((report.given_up(), report.tasks["moody"].handled), (0, 4), "{report}");
}

/// Gives up whatever comes.
#[derive(Deserialize)]
struct Never;

impl Task for Never {
    type In = u64;
    type Out = ();

    async fn run(&self, _: u64, _cx: &Context) -> Result<(), TaskError> {
        Err(TaskError::permanent("never"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_a_killed_redrive_has_sent_and_not_settled_do_not_go_back_twice() {
    let topology = topology("halfway", vec![node("never", Kind::Rust(open_task::<Never>))], &[]);
    let edge = &topology.edges[0];
    for sent in [0, 6, 10] {
        let namespace = namespace();
        let killed = connected(namespace.clone()).await;
        send_all(&killed, topology, (0..10).map(|number| number.to_string())).await;
        assert_eq!(drain(&killed, topology).await.given_up(), 10);
        let letters = killed.peek(edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION, Position(0), 100).await.unwrap();
        // It has noted what it sends, as redrives do, and comes so far.
        let positions: Vec<u64> = letters.iter().map(|(position, _)| position.0).collect();
        let sending = serde_json::json!({ "edge": edge.id, "first": 0, "positions": positions }).to_string();
        let state = vec![("redrive/halfway.redrive".to_owned(), Some(sending.into()))];
        killed.commit(Step { state, ..Step::default() }).await.unwrap();
        let back = |(number, (_, message)): (usize, &(Position, Message))| Publish {
            topic: edge.retry_topic.into(),
            message: message.clone().into(),
            sequence: Some(("redrive".into(), number as u64)),
        };
        killed.publish(letters.iter().enumerate().take(sent).map(back).collect()).await.unwrap();
        killed.close().await.unwrap();

        let broker = connected(namespace).await;
        let redrive = Request::Redrive { topology: topology.into(), filter: Filter::default() };
        let answer = perform(broker.as_ref(), redrive, false).await;
        assert!(matches!(answer, Response::Count { count } if count == 10 - sent as u64), "{sent} were sent: {answer:?}");
        let back = broker.peek(edge.retry_topic, edge.subscription, Position(0), 100).await.unwrap();
        let ids = |of: &[(Position, Message)]| of.iter().map(|(_, message)| message.id).collect::<Vec<_>>();
        assert_eq!(ids(&back), ids(&letters), "{sent} were sent");
        let left = broker.peek(edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION, Position(0), 100).await.unwrap();
        assert_eq!(left, [], "{sent} were sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_an_account_is_refused_in_words() {
    let topology = topology("accountless", vec![node("t", times::<0>())], &[]);
    let broker = broker().await;
    send_all(&broker, topology, ["1".to_owned()].into_iter()).await;
    let Response::Status(status) = perform(broker.as_ref(), Request::Status { topology: topology.into() }, false).await else {
        panic!("no status")
    };
    assert_eq!((status.account, status.running, status.edges[0].backlog), (None, false, 1));
    assert!(status.account_line().contains("keeps no account"));
    let messages = vec![Outgoing { payload: "2".to_owned(), key: None }];
    let edge = topology.edges[0].id.to_owned();
    let request = Request::Send { topology: topology.into(), edge, messages, wait_ms: Some(60_000) };
    let Response::Failed { error, .. } = perform(broker.as_ref(), request, false).await else { panic!("it waits for ever") };
    assert!(error.contains("keeps no account"), "{error}");
    let report = drain(&broker, topology).await;
    assert_eq!(report.tasks["t"].handled, 1, "what was refused was not sent");
    assert!(report.to_string().contains("keeps no account"), "{report}");
}
