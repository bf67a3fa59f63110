//! Messages whose task fails, panics, hangs or cannot read them: tried exactly as often as said, then kept with the cause, and brought
//! back whole.

mod support;

use leatworks::{
    Context, Counts, DeadLetter, Permanent, Task, TaskError,
    broker::Broker,
    control::{Filter, Outgoing, Request, Response, perform},
    def::{Kind, TopologyDef},
    open_task,
    plan::Plan,
    run::{Report, RunOptions, Stop, run},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use support::*;
use tokio::sync::watch;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    test: String,
    wish: String,
}

/// Does what the message wishes, and notes each attempt.
#[derive(Deserialize)]
struct Moody;

static ATTEMPTS: Mutex<BTreeMap<(String, String), Vec<u32>>> = Mutex::new(BTreeMap::new());
static HEALED: AtomicBool = AtomicBool::new(false);

impl Task for Moody {
    type In = Order;
    type Out = Order;

    async fn run(&self, order: Order, cx: &Context) -> Result<Order, TaskError> {
        let key = (order.test.clone(), order.wish.clone());
        ATTEMPTS.lock().unwrap().entry(key).or_default().push(cx.attempt());
        if order.test == "redrive" && HEALED.load(SeqCst) {
            return Ok(order);
        }
        match order.wish.as_str() {
            "fail" => Err(TaskError::retryable("not today")),
            "fail for good" => "x".parse::<u32>().map(|_| order).permanent(),
            "panic" => panic!("at the disco"),
            "hang" => std::future::pending().await,
            "fail once" if cx.attempt() == 1 => Err(TaskError::retryable("not yet")),
            _ => Ok(order),
        }
    }
}

#[derive(Deserialize)]
struct Keep;

impl Task for Keep {
    type In = Order;
    type Out = ();

    async fn run(&self, _order: Order, _cx: &Context) -> Result<(), TaskError> {
        Ok(())
    }
}

fn moody(name: &'static str, parallelism: usize) -> &'static TopologyDef {
    let task = node("moody", Kind::Rust(open_task::<Moody>)).timeout(Duration::from_secs(10)).parallelism(parallelism);
    topology(name, vec![task, node("keep", Kind::Rust(open_task::<Keep>))], &["moody-->keep"])
}

fn orders(test: &str, wishes: &[&str]) -> Vec<String> {
    let order = |wish: &&str| Order { test: test.to_owned(), wish: (*wish).to_owned() };
    wishes.iter().map(|wish| serde_json::to_string(&order(wish)).unwrap()).collect()
}

async fn send_all(broker: &Arc<dyn Broker>, topology: &'static TopologyDef, payloads: Vec<String>) {
    let messages = payloads.into_iter().map(|payload| Outgoing { payload, key: Some("k".to_owned()) }).collect();
    let edge = topology.edges[0].id.to_owned();
    let request = Request::Send { topology: topology.into(), edge, messages, wait_ms: None };
    assert!(matches!(perform(broker.as_ref(), request, false).await, Response::Sent(_)));
}

async fn drain(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Report {
    let (stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, drain_limit: Duration::from_secs(3600), ..RunOptions::default() };
    let plan = Plan::new(topology, std::env::temp_dir());
    let running = tokio::spawn(run(broker.clone(), plan, options, Arc::new(Counts::new(topology)), stopped));
    stop.send(Stop::Drain).unwrap();
    running.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_tried_exactly_as_often_as_said_and_kept_with_its_cause() {
    for parallelism in [1, 8] {
        let test = format!("causes-{parallelism}");
        let topology = moody(leak(test.clone()), parallelism);
        let broker = memory();
        let wishes = ["a", "fail", "b", "fail for good", "panic", "c", "hang", "fail once", "d"];
        send_all(&broker, topology, orders(&test, &wishes)).await;
        let report = drain(&broker, topology).await;
        assert_eq!((report.sent, report.done, report.dead_lettered, report.in_flight), (9, 5, 4, 0));
        assert_eq!((report.tasks["moody"].failed, report.tasks["moody"].retried, report.tasks["moody"].handled), (11, 7, 5));
        assert_eq!(report.tasks["keep"].handled, 5);
        let letters = dead_letters(&broker, topology).await;
        let found: BTreeMap<String, (String, u32, String)> = letters
            .into_iter()
            .map(|letter| {
                let order: Order = serde_json::from_str(&letter.payload).unwrap();
                assert_eq!(letter.edge, "[*]-->moody");
                (order.wish, (letter.cause, letter.attempts, letter.error))
            })
            .collect();
        for (wish, cause, attempts, error) in [
            ("fail", "error", 3, "not today"),
            ("fail for good", "permanent", 1, "invalid digit found in string"),
            ("panic", "panic", 3, "the task panicked: at the disco"),
            ("hang", "timeout", 3, "it took longer than its timeout of 10s"),
        ] {
            assert_eq!(found[wish], (cause.to_owned(), attempts, error.to_owned()));
            let noted = ATTEMPTS.lock().unwrap()[&(test.clone(), wish.to_owned())].clone();
            assert_eq!(noted, (1..=attempts).collect::<Vec<_>>(), "{wish}");
        }
        assert_eq!(found.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn redriving_brings_a_message_back_whole_and_its_root_is_done() {
    let topology = moody("redriven", 1);
    let broker = memory();
    send_all(&broker, topology, orders("redrive", &["fail", "fail for good", "a"])).await;
    drain(&broker, topology).await;
    let before = dead_letters(&broker, topology).await;
    assert_eq!(before.len(), 2);
    let one = Filter { cause: Some("error".to_owned()), ..Filter::default() };
    let redrive = |filter| Request::Redrive { topology: topology.into(), filter };
    // Not healed yet: it fails again, whole.
    assert!(matches!(perform(broker.as_ref(), redrive(one.clone()), false).await, Response::Count { count: 1 }));
    let report = drain(&broker, topology).await;
    assert_eq!((report.sent, report.done, report.dead_lettered), (3, 1, 2));
    let again = dead_letters(&broker, topology).await;
    let key = |letters: &[DeadLetter]| {
        let mut keys: Vec<_> =
            letters.iter().map(|letter| (letter.id.clone(), letter.payload.clone(), letter.key.clone())).collect();
        keys.sort();
        keys
    };
    assert_eq!(key(&again), key(&before));
    HEALED.store(true, SeqCst);
    assert!(matches!(perform(broker.as_ref(), redrive(Filter::default()), false).await, Response::Count { count: 2 }));
    let account = broker.account("redriven").await.unwrap();
    assert_eq!((account.sent, account.done, account.dead_lettered, account.in_flight), (3, 1, 0, 2));
    let report = drain(&broker, topology).await;
    assert_eq!((report.sent, report.done, report.dead_lettered, report.in_flight), (3, 3, 0, 0));
    assert_eq!(dead_letters(&broker, topology).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_dead_letter_is_gone_and_its_root_stays_counted() {
    let topology = moody("dropped", 1);
    let broker = memory();
    send_all(&broker, topology, orders("drop", &["fail for good", "panic"])).await;
    drain(&broker, topology).await;
    let filter = Filter { cause: Some("panic".to_owned()), ..Filter::default() };
    let drop = Request::Drop { topology: topology.into(), filter };
    assert!(matches!(perform(broker.as_ref(), drop, false).await, Response::Count { count: 1 }));
    assert_eq!(dead_letters(&broker, topology).await.len(), 1);
    let account = broker.account("dropped").await.unwrap();
    assert_eq!((account.sent, account.done, account.dead_lettered, account.in_flight), (2, 0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn poison_becomes_a_dead_letter_and_the_others_go_on() {
    let topology = moody("poisoned", 4);
    let broker = memory();
    let mebibyte = format!("{{\"test\": \"poison\", \"wish\": \"{}\"}}", "x".repeat(1 << 20));
    let good = orders("poison", &["a"]).remove(0);
    let poison = ["", "{", "[1]", "null", "\u{0}", "{\"test\": 1, \"wish\": 2}", "{\"type\":\"poisoned-moody\",\"task\":7}"];
    let mut payloads: Vec<String> = poison.iter().map(|text| (*text).to_owned()).collect();
    payloads.push(mebibyte);
    payloads.push(good.clone());
    payloads.push(format!("{{\"type\":\"poisoned-moody\",\"task\":{good}}}"));
    send_all(&broker, topology, payloads).await;
    let report = drain(&broker, topology).await;
    assert_eq!((report.sent, report.done, report.dead_lettered), (10, 3, 7));
    for letter in dead_letters(&broker, topology).await {
        assert_eq!((letter.cause.as_str(), letter.attempts), ("undecodable", 1), "{letter:?}");
        assert!(letter.error.contains("at line 1 column"), "{letter:?}");
        assert!(poison.contains(&letter.payload.as_str()), "{letter:?}");
    }
}

/// How many messages of the test below have been handled.
static PASSED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[derive(Deserialize)]
struct WaitsForOthers;

impl Task for WaitsForOthers {
    type In = u32;
    type Out = ();

    /// The message 101 waits until all others have been handled, which must not need its own lane.
    async fn run(&self, number: u32, _cx: &Context) -> Result<(), TaskError> {
        while number == 101 && PASSED.load(SeqCst) < 199 {
            tokio::task::yield_now().await;
        }
        PASSED.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_does_not_hold_up_those_behind_it_while_a_lane_is_free() {
    let task = node("wait", Kind::Rust(open_task::<WaitsForOthers>)).timeout(Duration::from_secs(20)).parallelism(2);
    let topology = topology("lanes", vec![task], &[]);
    let broker = memory();
    send_all(&broker, topology, (0..200).map(|number: u32| number.to_string()).collect()).await;
    let report = drain(&broker, topology).await;
    assert_eq!((report.done, report.dead_lettered), (200, 0));
}
