//! Both sides of the batch form against a peer that does not keep to it.

use super::{Answer, Batch, CONTENT_TYPE, Call, Failure, MESSAGES_MAX, Output};
use crate::{
    Context, TaskError,
    context::Place,
    def::{TaskDef, TopologyDef, example},
    handler::{self, Handler},
    plan::TaskPlan,
    worker,
};
use axum::{Router, response::IntoResponse, routing::post};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use leatworks_broker::{BoxFuture, Message, MessageId};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static TASK: TaskDef = example::TASK;

static TOPOLOGY: TopologyDef = TopologyDef { tasks: &[&TASK], ..example::TOPOLOGY };

fn calls(count: u128) -> Vec<handler::Call> {
    let place = Arc::new(Place { topology: "t", task: "task", edge: "[*]-->task".into(), settings: serde_json::Value::Null });
    let call = |number: u128| {
        let payload = Bytes::from(number.to_string());
        let message = Message { id: MessageId(number + 1), root: MessageId(number + 1), payload, ..Message::default() };
        handler::Call { cx: Context::new(place.clone(), &message, 1), message }
    };
    (0..count).map(call).collect()
}

async fn listen(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Offers batches, and answers a message by itself with nothing.
fn offering(singles: Arc<AtomicU32>) -> Router {
    let single = move || async move {
        singles.fetch_add(1, SeqCst);
        ([(super::OFFER, super::FORM)], "{\"tasks\":[]}")
    };
    Router::new().route("/", post(single))
}

/// A handler that has seen the offer.
async fn offered(address: SocketAddr) -> Arc<dyn Handler> {
    let handler = worker::client(&format!("http://{address}"), &TASK, &TOPOLOGY, TASK.timeout).unwrap();
    assert!(handler.batch().is_none(), "nobody has offered anything yet");
    let call = calls(1).remove(0);
    handler.handle(&call.message, &call.cx).await.unwrap();
    handler
}

/// What a batch comes to, by message.
async fn results(handler: &dyn Handler, count: u128) -> BTreeMap<usize, Result<Vec<handler::Output>, TaskError>> {
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let batch = handler.batch().expect("it was offered");
    batch.handle_all(&calls(count), Duration::from_secs(1), sender).await;
    let mut all = BTreeMap::new();
    while let Some((index, result)) = answers.recv().await {
        assert!(all.insert(index, result).is_none(), "message {index} is answered once");
    }
    all
}

fn encoded(answers: &[Answer]) -> Vec<u8> {
    answers.iter().flat_map(Answer::encode_length_delimited_to_vec).collect()
}

fn fine(index: u32) -> Answer {
    let output = Output { payload: Bytes::from(index.to_string()), ..Output::default() };
    Answer { index, outputs: vec![output], ..Answer::default() }
}

#[tokio::test]
async fn whatever_a_worker_answers_each_message_has_one_result() {
    let failed = |index, cause: &str, retryable| {
        let failure = Failure { text: "no".to_owned(), cause: cause.to_owned(), retryable, retry_after_ms: 7 };
        Answer { index, failure: Some(failure), ..Answer::default() }
    };
    let nothing = "error: ended its answer to a batch before this message";
    let garbled = "error: is no sequence of answers";
    // The bytes, and what becomes of three messages: an output, or the cause with words of the error.
    let cases: Vec<(Vec<u8>, [&str; 3])> = vec![
        (encoded(&[fine(2), fine(0), fine(1)]), ["0", "1", "2"]),
        (encoded(&[fine(1), fine(1), fine(9), fine(u32::MAX)]), [nothing, "1", nothing]),
        (
            encoded(&[failed(0, "panic", true), failed(1, "permanent", false), failed(2, "worker-died", true)]),
            ["panic: no", "permanent: no", "error: no"],
        ),
        (
            encoded(&[failed(0, "undecodable", false), failed(1, "moody", false), failed(2, "timeout", true)]),
            ["undecodable: no", "permanent: no", "timeout: no"],
        ),
        (Vec::new(), [nothing; 3]),
        ([encoded(&[fine(0)]), vec![200]].concat(), ["0", nothing, nothing]),
        ([encoded(&[fine(0)]), vec![255; 20]].concat(), ["0", garbled, garbled]),
        ([encoded(&[fine(0)]), vec![0xff, 0xff, 0xff, 0xff, 0x0f]].concat(), ["0", "error: more than", "error: more than"]),
        ([encoded(&[fine(1)]), vec![3, 7, 7, 7]].concat(), [garbled, "1", garbled]),
        (encoded(&[Answer { codec: 9, ..fine(0) }, fine(1), fine(2)]), ["permanent: codec 9", "1", "2"]),
    ];
    for (bytes, expected) in cases {
        let told = format!("{bytes:?}");
        let answer = move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], bytes).into_response() };
        let handler = offered(listen(offering(Arc::default()).route("/batch", post(answer))).await).await;
        let results = results(handler.as_ref(), 3).await;
        for (index, expected) in expected.iter().enumerate() {
            match (&results[&index], expected.split_once(": ")) {
                (Ok(outputs), None) => assert_eq!(&outputs[0].payload[..], expected.as_bytes(), "{told}"),
                (Err(error), Some((cause, words))) => {
                    assert_eq!(error.cause().as_str(), cause, "{told}: {error}");
                    assert!(error.to_string().contains(words), "{told}: {error}");
                }
                (result, _) => panic!("{told}: {index} is {result:?}"),
            }
        }
    }
}

/// Somebody who says so and speaks HTTP/1.1 only.
async fn old_fashioned(singles: Arc<AtomicU32>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let singles = singles.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let answer = if buffer[..read].starts_with(b"POST / ") {
                        singles.fetch_add(1, SeqCst);
                        "HTTP/1.1 200 OK\r\nleat-batch: 1\r\ncontent-length: 12\r\n\r\n{\"tasks\":[]}"
                    } else {
                        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer.contains("close") {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn where_batches_do_not_get_through_each_message_goes_by_itself_in_the_same_attempt() {
    let refusing = |status: StatusCode| move || async move { status.into_response() };
    for case in ["no such path", "415", "a text", "HTTP/1.1"] {
        let singles = Arc::new(AtomicU32::new(0));
        let router = offering(singles.clone());
        let address = match case {
            "415" => listen(router.route("/batch", post(refusing(StatusCode::UNSUPPORTED_MEDIA_TYPE)))).await,
            "a text" => listen(router.route("/batch", post(|| async { "hello" }))).await,
            "HTTP/1.1" => old_fashioned(singles.clone()).await,
            _ => listen(router).await,
        };
        let handler = offered(address).await;
        let results = results(handler.as_ref(), 3).await;
        assert!(results.len() == 3 && results.values().all(Result::is_ok), "{case}: {results:?}");
        assert_eq!(singles.load(SeqCst), 4, "{case}");
        assert!(handler.batch().is_none(), "{case}: the offer is not believed again at once");
    }
}

#[tokio::test]
async fn a_worker_that_is_busy_or_gone_is_tried_again_by_the_retry() {
    let busy = || async { (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3")]).into_response() };
    let handler = offered(listen(offering(Arc::default()).route("/batch", post(busy))).await).await;
    for result in results(handler.as_ref(), 3).await.into_values() {
        let error = result.unwrap_err();
        assert!(!error.is_permanent() && error.delay_asked_for() == Some(Duration::from_secs(3)), "{error}");
    }
    assert!(handler.batch().is_some(), "a busy worker still takes batches");
}

struct Nothing;

impl Handler for Nothing {
    fn handle<'a>(&'a self, _message: &'a Message, _cx: &'a Context) -> BoxFuture<'a, Result<Vec<handler::Output>, TaskError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[tokio::test]
async fn what_is_no_batch_is_refused_and_bad_messages_fail_alone() {
    let bound = worker::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let uri: Uri = format!("http://{}/batch", bound.address()).parse().unwrap();
    let open = async { Ok(Arc::new(Nothing) as Arc<dyn Handler>) };
    tokio::spawn(bound.serve(TaskPlan::new(&TASK), open, std::future::pending()));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let send = async |kind: &str, body: Vec<u8>| {
        let request = Request::post(uri.clone()).header(header::CONTENT_TYPE, kind).body(Full::new(body.into())).unwrap();
        let response = client.request(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    };
    let good = Call { id: Bytes::from_static(&[1; 16]), root: Bytes::from_static(&[1; 16]), ..Call::default() };
    let many = Batch { calls: vec![good.clone(); MESSAGES_MAX + 1], ..Batch::default() };
    for (kind, body, status) in [
        ("application/json", Vec::new(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (CONTENT_TYPE, vec![255; 9], StatusCode::BAD_REQUEST),
        (CONTENT_TYPE, many.encode_to_vec(), StatusCode::PAYLOAD_TOO_LARGE),
        (CONTENT_TYPE, Vec::new(), StatusCode::OK),
    ] {
        assert_eq!(send(kind, body).await.0, status);
    }
    let bad = [Call { id: Bytes::from_static(b"x"), ..good.clone() }, Call { codec: 2, ..good.clone() }, good];
    let (status, mut body) = send(CONTENT_TYPE, Batch { calls: bad.to_vec(), ..Batch::default() }.encode_to_vec()).await;
    assert_eq!(status, StatusCode::OK);
    let mut failures = BTreeMap::new();
    while !body.is_empty() {
        let answer = Answer::decode_length_delimited(&mut body).unwrap();
        failures.insert(answer.index, answer.failure.map(|failure| (failure.cause, failure.retryable)));
    }
    let undecodable = || Some(("undecodable".to_owned(), false));
    assert_eq!(failures, BTreeMap::from([(0, undecodable()), (1, undecodable()), (2, None)]));
}
