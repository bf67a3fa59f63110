//! HTTP workers in any language: what they answer, and what becomes of the message when they do not.

mod support;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse,
    routing::post,
};
use leatworks::{
    Codec, Context, Counts, DeadLetter, Task, TaskError,
    broker::{Broker, Message, Publish},
    control::{Filter, Request, Response, perform},
    def::{Kind, Retry, TopologyDef},
    new_root, open_task,
    plan::{Plan, TaskPlan},
    run::{Report, RunOptions, Stop, run},
    standalone::{self, Observer},
    worker,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use support::*;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};

#[derive(serde::Deserialize)]
struct Keep;

static KEPT: Mutex<BTreeMap<String, Vec<Value>>> = Mutex::new(BTreeMap::new());

impl Task for Keep {
    type In = Value;
    type Out = ();

    async fn run(&self, value: Value, cx: &Context) -> Result<(), TaskError> {
        KEPT.lock().unwrap().entry(cx.topology().to_owned()).or_default().push(value);
        Ok(())
    }
}

fn quick(attempts: u32) -> Retry {
    Retry { attempts, backoff: Duration::from_millis(5), max_backoff: Duration::from_millis(20) }
}

/// `work` is the worker, behind it `a` and `b` by labels.
fn labelled(name: &'static str, url: String, attempts: u32) -> &'static TopologyDef {
    let work = node("work", Kind::Worker { url: leak(url) }).retry(quick(attempts)).timeout(Duration::from_millis(300));
    let keep = || Kind::Rust(open_task::<Keep>);
    topology(name, vec![work.ends(&["end"]), node("a", keep()), node("b", keep())], &["work-->|one|a", "work-->|two|b"])
}

async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A worker that answers what the message says: a status and a body.
async fn echo() -> SocketAddr {
    let answer = |body: String| async move {
        let wish: Value = serde_json::from_str(&body).unwrap();
        let status = StatusCode::from_u16(wish["status"].as_u64().unwrap() as u16).unwrap();
        let body = wish["body"].as_str().map_or_else(|| wish["body"].to_string(), str::to_owned);
        if wish["slow"] == true {
            std::future::pending::<()>().await;
        }
        (status, body).into_response()
    };
    listen(Router::new().route("/work", post(answer))).await
}

async fn drain(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Report {
    let (stop, stopped) = watch::channel(Stop::Drain);
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let plan = Plan::new(topology, std::env::temp_dir());
    let report = run(broker.clone(), plan, options, Arc::new(Counts::new(topology)), stopped).await.unwrap();
    drop(stop);
    report
}

async fn dead_letters(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Vec<DeadLetter> {
    let request = Request::DeadLetters { topology: topology.into(), filter: Filter::default(), limit: 100 };
    match perform(broker.as_ref(), request, false).await {
        Response::DeadLetters(listed) => listed.letters,
        other => panic!("{other:?}"),
    }
}

async fn prepared(topology: &'static TopologyDef, payloads: Vec<Value>) -> Arc<dyn Broker> {
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    send(&broker, topology, payloads.iter().map(Value::to_string)).await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_meaning() {
    let tasks = |tasks: Value| json!({ "tasks": tasks });
    let name = "answers";
    // What the worker answers; how often it is asked; the cause and a part of the error, or nothing if it is well.
    let cases = vec![
        (200, tasks(json!([])), 1, None),
        (200, tasks(json!([{"type": "one", "task": 1}, {"type": "two", "task": [2]}, {"type": "end", "task": 3}])), 1, None),
        (202, tasks(json!([{"type": "b", "task": "to b"}, {"type": "answers-a", "task": "to a"}])), 1, None),
        (204, json!(""), 1, None),
        (200, json!("garbage"), 1, Some(("permanent", "is not `{\"tasks\": [{\"type\": …, \"task\": …}, …]}`"))),
        (200, json!(""), 1, Some(("permanent", "EOF"))),
        (200, json!({"tasks": 7}), 1, Some(("permanent", "invalid type"))),
        (
            200,
            tasks(json!([{"type": "three", "task": 1}])),
            1,
            Some(("permanent", "no edge of `work` takes an output of type `three`")),
        ),
        (200, tasks(json!([{"task": 1}])), 1, Some(("permanent", "has no `type`"))),
        (400, json!("what is that"), 1, Some(("permanent", "400 Bad Request: what is that"))),
        (404, json!(""), 1, Some(("permanent", "404"))),
        (302, json!(""), 1, Some(("permanent", "302"))),
        (408, json!(""), 3, Some(("error", "408"))),
        (429, json!(""), 3, Some(("error", "429"))),
        (500, json!("oh no"), 3, Some(("error", "500 Internal Server Error: oh no"))),
        (503, json!(""), 3, Some(("error", "503"))),
    ];
    let topology = labelled(name, format!("http://{}/work", echo().await), 3);
    let mut payloads: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(case, (status, body, ..))| json!({"case": case, "status": status, "body": body}))
        .collect();
    payloads.push(json!({"case": cases.len(), "status": 200, "body": "", "slow": true}));
    let broker = prepared(topology, payloads).await;
    let report = drain(&broker, topology).await;
    let mut letters: BTreeMap<u64, DeadLetter> = BTreeMap::new();
    for letter in dead_letters(&broker, topology).await {
        let payload: Value = serde_json::from_str(&letter.payload).unwrap();
        letters.insert(payload["case"].as_u64().unwrap(), letter);
    }
    for (case, (_, _, attempts, expected)) in cases.iter().enumerate() {
        let letter = letters.remove(&(case as u64));
        match expected {
            None => assert_eq!(letter, None),
            Some((cause, text)) => {
                let letter = letter.unwrap_or_else(|| panic!("case {case} was given up"));
                assert_eq!((letter.cause.as_str(), letter.attempts), (*cause, *attempts), "{letter:?}");
                assert!(letter.error.contains(text), "{letter:?}");
            }
        }
    }
    let hung = letters.remove(&(cases.len() as u64)).unwrap();
    assert_eq!((hung.cause.as_str(), hung.attempts), ("timeout", 3));
    assert_eq!((report.done, report.dead_lettered, report.tasks["work"].handled, report.tasks["work"].emitted), (4, 13, 4, 5));
    let mut kept = KEPT.lock().unwrap().remove(name).unwrap();
    kept.sort_by_key(Value::to_string);
    assert_eq!(kept, [json!("to a"), json!("to b"), json!(1), json!([2])]);
}

/// Both workers of a line are told a trace: the one that the message came with, or one that is made of its root.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_with_a_message_from_worker_to_worker() {
    let told: Arc<Mutex<BTreeMap<(String, String), String>>> = Arc::default();
    let seen = told.clone();
    let answer = move |uri: Uri, headers: HeaderMap, body: String| async move {
        let trace = headers["traceparent"].to_str().unwrap().to_owned();
        let task: Value = serde_json::from_str(&body).unwrap();
        seen.lock().unwrap().insert((task.as_str().unwrap().to_owned(), uri.path().to_owned()), trace);
        let next = if uri.path() == "/first" { json!([{"type": "second", "task": task}]) } else { json!([]) };
        json!({ "tasks": next }).to_string()
    };
    let address = listen(Router::new().route("/first", post(answer.clone())).route("/second", post(answer))).await;
    let worker = |name| node(name, Kind::Worker { url: leak(format!("http://{address}/{name}")) });
    let topology = topology("traced", vec![worker("first"), worker("second")], &["first-->second"]);
    let broker = prepared(topology, Vec::new()).await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let roots = [("with", Some(given.to_owned())), ("without", None)].map(|(name, trace)| {
        let root = Message { trace, ..new_root(json!(name).to_string().into(), Codec::Json, None) };
        (root.root, Publish { topic: "traced-first".into(), message: root.into(), sequence: None })
    });
    let made = format!("00-{:032x}-", roots[1].0.0);
    broker.publish(roots.map(|(_, publish)| publish).into()).await.unwrap();
    drain(&broker, topology).await;
    let told = told.lock().unwrap();
    let of = |name: &str, path: &str| told[&(name.to_owned(), path.to_owned())].clone();
    assert_eq!([of("with", "/first"), of("with", "/second")], [given, given]);
    let [first, second] = [of("without", "/first"), of("without", "/second")];
    assert!(first.starts_with(&made) && second.starts_with(&made) && first != second, "one trace with two spans: {told:?}");
    assert!([&first, &second].iter().all(|trace| trace.len() == given.len() && trace.ends_with("-01")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_down_gets_everything_when_it_is_back() {
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let topology = labelled("down", format!("http://{address}"), 1);
    let broker = prepared(topology, (0..20).map(|number| json!(number)).collect()).await;
    let (stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let counts = Arc::new(Counts::new(topology));
    let running = tokio::spawn(run(broker.clone(), Plan::new(topology, "."), options, counts.clone(), stopped));
    let in_hand = async || {
        let stats = broker.topic_stats("down-work").await.unwrap().unwrap();
        stats.subscriptions["work"].in_flight
    };
    while in_hand().await == 0 {
        tokio::task::yield_now().await;
    }
    let answer = |body: String| async move { json!({"tasks": [{"type": "one", "task": body}]}).to_string() };
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(answer))).await });
    stop.send(Stop::Drain).unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.done, report.dead_lettered, report.in_flight), (20, 0, 0));
    assert_eq!((report.tasks["a"].handled, report.tasks["work"].failed), (20, 0));
}

#[derive(serde::Deserialize)]
struct Polite {
    greeting: String,
}

static STARTS: AtomicU32 = AtomicU32::new(0);

impl Task for Polite {
    type In = String;
    type Out = String;

    async fn start(&mut self, _setup: &leatworks::Setup) -> Result<(), TaskError> {
        STARTS.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn run(&self, name: String, cx: &Context) -> Result<Option<String>, TaskError> {
        match name.as_str() {
            "nobody" => Ok(None),
            "rude" => Err(TaskError::permanent("no")),
            "busy" => Err(TaskError::retryable("later").retry_after(Duration::from_secs(7))),
            "panic" => panic!("oh"),
            name => Ok(Some(format!("{} {name}, attempt {} by {}", self.greeting, cx.attempt(), cx.edge()))),
        }
    }
}

/// A task's own server, called by a topology as any other worker.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_tasks_speak_the_same() {
    let served = topology("served", vec![node("polite", Kind::Rust(open_task::<Polite>)).attempts(2)], &[]);
    let mut plan = TaskPlan::new(served.tasks[0]);
    plan.settings = json!({"greeting": "hello"});
    let bound = worker::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = bound.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let setup = leatworks::Setup::new(served.tasks[0], plan.settings.clone(), ".".into());
    let serving = tokio::spawn(async move {
        let open = open_task::<Polite>(&setup);
        let stopped = async {
            let _ = stopped.await;
        };
        bound.serve(plan, open, stopped).await
    });
    let caller = node("polite", Kind::Worker { url: leak(format!("http://{address}")) }).attempts(2);
    let topology = topology("calling", vec![caller, node("keep", Kind::Rust(open_task::<Keep>))], &["polite-->keep"]);
    let broker = prepared(topology, ["you", "nobody", "rude", "busy", "panic"].map(|name| json!(name)).to_vec()).await;
    send(&broker, topology, ["7".to_owned()].into_iter()).await;
    let report = drain(&broker, topology).await;
    assert_eq!((report.done, report.dead_lettered), (2, 4));
    let letters = dead_letters(&broker, topology).await;
    let letters: BTreeMap<&str, (&str, u32)> =
        letters.iter().map(|letter| (letter.payload.as_str(), (letter.cause.as_str(), letter.attempts))).collect();
    // The same whether a message went by itself or with others.
    let expected =
        [("\"rude\"", ("permanent", 1)), ("7", ("undecodable", 1)), ("\"busy\"", ("error", 2)), ("\"panic\"", ("panic", 2))];
    assert_eq!(letters, BTreeMap::from(expected));
    let kept = KEPT.lock().unwrap().remove("calling").unwrap();
    assert_eq!(kept, [json!("hello you, attempt 1 by [*]-->polite")]);
    assert_eq!(STARTS.load(SeqCst), 1);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let refused = worker::bind("0.0.0.0:0".parse().unwrap(), false).await.err().unwrap().to_string();
    assert!(refused.contains("`0.0.0.0:0` can be reached from other machines"), "{refused}");
    assert!(worker::bind("0.0.0.0:0".parse().unwrap(), true).await.is_ok());
}

/// Two processes would be two dispatchers with two brokers; here they share the memory broker.
#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_of_one_edge_share_the_work() {
    let calls: &'static [AtomicU32; 40] = Box::leak(Box::new([const { AtomicU32::new(0) }; 40]));
    let answer = move |body: String| async move {
        calls[body.parse::<usize>().unwrap()].fetch_add(1, SeqCst);
        // Long enough that the other dispatcher has its turn.
        tokio::task::yield_now().await;
        json!({"tasks": [{"type": "one", "task": body}]}).to_string()
    };
    let address = listen(Router::new().route("/", post(answer))).await;
    let topology = labelled("shared", format!("http://{address}"), 3);
    let broker = prepared(topology, (0..40).map(|number| json!(number)).collect()).await;
    let plan = Plan::new(topology, ".");
    let (stop, stopped) = watch::channel(false);
    let told = Arc::new(Mutex::new([0; 2]));
    let dispatchers: Vec<_> = (0..2)
        .map(|index| {
            let (broker, plan, mut stopped, told) = (broker.clone(), plan.clone(), stopped.clone(), told.clone());
            tokio::spawn(async move {
                let log = Arc::new(move |_: &standalone::Handled<'_>| told.lock().unwrap()[index] += 1);
                let stop = async move { _ = stopped.wait_for(|stopped| *stopped).await };
                let counts = Arc::new(Counts::new(topology));
                standalone::run_edge(
                    broker,
                    &plan,
                    &topology.edges[0],
                    None,
                    Observer { log: Some(log), ..Observer::new(counts) },
                    stop,
                )
                .await
            })
        })
        .collect();
    let backlog = async || {
        let stats = broker.stats().await.unwrap();
        let topic = stats.iter().find(|topic| topic.spec.name == "shared-work").unwrap();
        topic.subscriptions["work"].backlog + topic.subscriptions["work"].in_flight
    };
    while backlog().await > 0 {
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    for dispatcher in dispatchers {
        dispatcher.await.unwrap().unwrap();
    }
    assert!(calls.iter().all(|calls| calls.load(SeqCst) == 1), "each message once");
    let told = *told.lock().unwrap();
    assert_eq!(told[0] + told[1], 40);
    assert!(told.iter().all(|told| *told > 0), "{told:?}");
    let report = drain(&broker, topology).await;
    assert_eq!((report.done, report.tasks["work"].handled, report.tasks["a"].handled), (40, 0, 40));
}
