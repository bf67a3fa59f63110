//! The dispatcher that runs by itself, with real HTTP workers: the email pipeline of Trampoline, and what must not lose or stop anything.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use leatworks::{
    standalone::{self, DispatchError, Settings},
    worker::bind,
};
use leatworks_broker::{
    Broker, Durability, Embedded, EmbeddedOptions, Limits, MemoryBroker, Message, MessageId, Position, Publish,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the workers were asked, by type.
#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<(String, Value)>>,
    more: Notify,
}

impl Seen {
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.calls.lock().unwrap().iter() {
            *counts.entry(kind.clone()).or_insert(0) += 1;
        }
        counts
    }

    async fn until(&self, enough: impl Fn(&BTreeMap<String, usize>) -> bool) {
        let waiting = async {
            loop {
                let more = self.more.notified();
                if enough(&self.counts()) {
                    return;
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("only {:?}", self.counts()));
    }
}

async fn worker(State(seen): State<Arc<Seen>>, Path(kind): Path<String>, Json(task): Json<Value>) -> Response {
    let calls_before = seen.counts().get(&kind).copied().unwrap_or(0);
    seen.calls.lock().unwrap().push((kind.clone(), task.clone()));
    seen.more.notify_waiters();
    let next = |kind: &str, task: Value| json!({ "type": kind, "task": task });
    let tasks = match kind.as_str() {
        "email-pipeline-start" => vec![next("fetch-users", json!({}))],
        "fetch-users" => (1..=3).map(|user| next("generate-email", json!({ "user": user }))).collect(),
        "generate-email" => vec![next("send-email", task)],
        "send-email" => vec![next("record-sent", task)],
        "record-sent" => vec![],
        "fails-twice" if calls_before < 2 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "fails-twice" => vec![],
        "refuses" => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        "babbles" => return "no JSON at all".into_response(),
        other => panic!("nobody asks for `{other}`"),
    };
    Json(json!({ "tasks": tasks })).into_response()
}

/// Workers that listen, as long as it exists.
async fn workers() -> (Arc<Seen>, String) {
    let seen = Arc::new(Seen::default());
    let app = Router::new().route("/{kind}", post(worker)).with_state(seen.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (seen, url)
}

const EMAIL: [&str; 5] = ["email-pipeline-start", "fetch-users", "generate-email", "send-email", "record-sent"];

fn settings(kinds: &[&str], url: &str) -> Settings {
    let topics = kinds.iter().map(|kind| format!("\"{kind}\"")).collect::<Vec<_>>().join(", ");
    let handler = |kind: &&str| format!("[[handlers]]\ntask_selector = {{ type = \"{kind}\" }}\nendpoint = \"{url}/{kind}\"\n");
    let handlers: String = kinds.iter().map(handler).collect();
    let retry = "[retry]\nbackoff = \"1ms\"\nattempts = 3\n";
    Settings::parse(&format!("[mq]\nurl = \"embedded:data\"\ntopics = [{topics}]\n{handlers}{retry}")).unwrap()
}

struct Running {
    task: JoinHandle<Result<(), DispatchError>>,
    stop: oneshot::Sender<()>,
    http: std::net::SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

async fn start(broker: Arc<dyn Broker>, settings: Settings) -> Running {
    let (stop, stopped) = oneshot::channel();
    let bound = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let http = bound.address();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = lines.clone();
    let task = tokio::spawn(async move {
        let log = move |handled: &standalone::Handled<'_>| told.lock().unwrap().push(handled.to_string());
        standalone::run(broker, &settings, Some(bound), log, async { stopped.await.unwrap_or(()) }).await
    });
    Running { task, stop, http, lines }
}

impl Running {
    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Posts a body; the status and what is answered.
    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.post_of(path, body, body.len()).await
    }

    /// Posts the beginning of a body of this length.
    async fn post_of(&self, path: &str, body: &str, length: usize) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

fn memory() -> Arc<dyn Broker> {
    Arc::new(MemoryBroker::new(Limits::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_email_pipeline_makes_eleven_calls_by_either_form_of_submitting() {
    for (path, body) in
        [("/tasks/email-pipeline-start/submit", "{}"), ("/tasks/submit_raw", r#"{"type": "email-pipeline-start", "task": {}}"#)]
    {
        let (seen, url) = workers().await;
        let broker = memory();
        let running = start(broker.clone(), settings(&EMAIL, &url)).await;
        assert_eq!(running.post(path, body).await, (200, json!({ "successful": true })), "{path}");
        seen.until(|counts| counts.get("record-sent") == Some(&3)).await;
        let lines = running.lines.clone();
        running.end().await;
        let wanted = EMAIL.into_iter().zip([1, 1, 3, 3, 3]).map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(seen.counts(), wanted.collect(), "{path}");
        // The task alone is the body of a call.
        assert!(seen.calls.lock().unwrap().contains(&("send-email".to_owned(), json!({ "user": 2 }))));
        for topic in broker.stats().await.unwrap() {
            assert!(topic.subscriptions.values().all(|stats| stats.backlog + stats.in_flight == 0), "{path}: {topic:?}");
        }
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 11);
        assert!(lines[0].ends_with("task:<email-pipeline-start> status:<200 OK> result:<Continue:1 new task>"), "{}", lines[0]);
        assert!(lines[1].ends_with("result:<Continue:3 new tasks>"), "{}", lines[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_and_what_cannot_be_handled_is_kept() {
    let (seen, url) = workers().await;
    let broker = memory();
    let kinds = ["fails-twice", "refuses", "babbles"];
    let running = start(broker.clone(), settings(&kinds, &url)).await;
    for kind in kinds {
        assert_eq!(running.post(&format!("/tasks/{kind}/submit"), "{\"a\": 1}").await.0, 200);
    }
    // Whoever publishes by another way may publish anything.
    for (index, payload) in ["no JSON", r#"{"type": "unknown", "task": 1}"#].into_iter().enumerate() {
        let message = Message { id: MessageId(1 + index as u128), payload: payload.into(), ..Message::default() };
        broker.publish(vec![Publish { topic: "refuses".into(), message: message.into(), sequence: None }]).await.unwrap();
    }
    seen.until(|counts| counts.get("fails-twice") == Some(&3)).await;
    let dead = |topic: &'static str| {
        let broker = broker.clone();
        async move { broker.peek(&format!("{topic}-leat-dispatch-DLQ"), "dlq", Position(0), 10).await.unwrap() }
    };
    let waiting = async {
        while dead("refuses").await.len() < 3 || dead("babbles").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("dead letters");
    running.end().await;
    assert_eq!(seen.counts(), [("babbles", 1), ("fails-twice", 3), ("refuses", 1)].map(|(kind, n)| (kind.to_owned(), n)).into());
    assert!(dead("fails-twice").await.is_empty());
    let payloads: Vec<_> = dead("refuses").await.into_iter().map(|(_, message)| message.payload).collect();
    assert!(payloads.iter().any(|payload| payload == "no JSON"), "the payload is kept as it came: {payloads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_submitted_and_no_task_is_refused_with_a_reason() {
    let (_, url) = workers().await;
    let running = start(memory(), settings(&EMAIL, &url)).await;
    for (path, body, status) in [
        ("/tasks/submit_raw", "{}", 400),
        ("/tasks/submit_raw", "nonsense", 400),
        ("/tasks/fetch-users/submit", "nonsense", 400),
        ("/tasks/nobody/submit", "{}", 404),
        ("/tasks/%ff/submit", "{}", 400),
        ("/tasks/submit_raw", r#"{"type": "../x", "task": {}}"#, 404),
    ] {
        let (found, answer) = running.post(path, body).await;
        assert_eq!((found, &answer["successful"]), (status, &json!(false)), "{path} {body}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{path} {body}");
    }
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(6 << 20));
    assert_eq!(running.post("/tasks/fetch-users/submit", &large).await.0, 413);
    // So much of it is not even read to its end.
    let read = "x".repeat((10 << 20) + 1);
    for path in ["/tasks/fetch-users/submit", "/tasks/submit_raw"] {
        let (status, answer) = running.post_of(path, &read, 60 << 20).await;
        assert_eq!((status, &answer["successful"]), (413, &json!(false)), "{path}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains("5242880 bytes")), "{path}: {answer}");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_dispatcher_shares_the_work_and_takes_over_when_one_is_gone() {
    let (seen, url) = workers().await;
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { durability: Durability::Process, ..EmbeddedOptions::new(dir.path()) };
    let broker: Arc<dyn Broker> = Arc::new(Embedded::open(options).unwrap());
    let first = start(broker.clone(), settings(&["record-sent"], &url)).await;
    let second = start(broker.clone(), settings(&["record-sent"], &url)).await;
    for number in 0..40 {
        assert_eq!(first.post("/tasks/record-sent/submit", &number.to_string()).await.0, 200);
        if number == 20 {
            second.task.abort();
        }
    }
    seen.until(|counts| counts.get("record-sent").is_some_and(|count| *count >= 40)).await;
    first.end().await;
    let numbers: std::collections::BTreeSet<u64> =
        seen.calls.lock().unwrap().iter().filter_map(|(_, task)| task.as_u64()).collect();
    assert_eq!(numbers.len(), 40, "each came, whoever was there");
    let stats = broker.stats().await.unwrap();
    let topic = stats.iter().find(|topic| topic.spec.name == "record-sent").unwrap();
    assert_eq!(topic.subscriptions["leat-dispatch"].backlog, 0);
    broker.close().await.unwrap();
}
