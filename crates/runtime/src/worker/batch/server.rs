//! Takes batches.

use super::{Answer, Batch, CONTENT_TYPE, Call, Failure, MESSAGES_MAX, codec_number, codec_of};
use crate::{
    Cause, Context, TaskError,
    context::Place,
    handler::{self, Handler},
    job,
    worker::{
        BODY_BYTES_MAX,
        server::{BUSY_RETRY_AFTER, Served, WAIT_MAX, failure, failure_as, is_kind, read},
    },
};
use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{StatusCode, header};
use leatworks_broker::{Message, MessageId};
use prost::Message as _;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

/// The most bytes of a request: the payloads that a dispatcher puts into one, a single message as large as any may be, and what stands around each.
const REQUEST_BYTES_MAX: usize = super::PAYLOADS_BYTES_MAX + BODY_BYTES_MAX + (1 << 20);

/// Answers that wait for the caller to read them; with more waiting no further message is begun.
const ANSWERS_WAITING_MAX: usize = 64;

/// A batch that is being handled.
struct Work {
    served: Arc<Served>,
    handler: Arc<dyn Handler>,
    place: Arc<Place>,
    timeout: Duration,
    calls: Vec<Call>,
    next: AtomicUsize,
}

/// Answers `POST /batch`.
pub(in crate::worker) async fn handle(State(served): State<Arc<Served>>, request: Request) -> Response {
    let Some(handler) = served.handler.get().cloned() else {
        return failure(&TaskError::retryable("the task is starting"));
    };
    let (parts, body) = request.into_parts();
    if !is_kind(&parts.headers, CONTENT_TYPE) {
        let error = TaskError::with_cause(Cause::Undecodable, format!("the content type of a batch is `{CONTENT_TYPE}`"));
        return failure_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error);
    }
    let Ok(place) = served.gate.places.clone().try_acquire_owned() else {
        return failure(&TaskError::retryable("too many calls are waiting").retry_after(BUSY_RETRY_AFTER));
    };
    let body = match read(body, REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err((status, error)) => return failure_as(status, &error),
    };
    match Batch::decode(body) {
        Ok(batch) if batch.calls.len() > MESSAGES_MAX => {
            let error = TaskError::permanent(format!("the batch has more than {MESSAGES_MAX} messages"));
            failure_as(StatusCode::PAYLOAD_TOO_LARGE, &error)
        }
        Ok(batch) => answers(served, handler, batch, place),
        Err(error) => failure(&TaskError::with_cause(Cause::Undecodable, format!("this is no batch: {error}"))),
    }
}

/// Begins the messages in order, as many at once as the task takes, and answers each as soon as it is done. A caller that goes takes them with it.
fn answers(served: Arc<Served>, handler: Arc<dyn Handler>, batch: Batch, permit: OwnedSemaphorePermit) -> Response {
    let def = served.def;
    let place = Place { topology: def.topology, task: def.name, edge: batch.edge.into(), settings: served.settings.clone() };
    let asked = Duration::from_millis(batch.timeout_ms);
    let work = Arc::new(Work {
        timeout: if asked.is_zero() { served.timeout } else { asked.min(served.timeout) },
        handler,
        place: Arc::new(place),
        calls: batch.calls,
        next: AtomicUsize::new(0),
        served,
    });
    let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
    let mut runners = JoinSet::new();
    for _ in 0..work.served.gate.parallelism.min(work.calls.len()) {
        runners.spawn(run(work.clone(), sender.clone()));
    }
    let frames = stream::unfold((receiver, runners, permit), |(mut receiver, runners, permit)| async {
        let mut some: Vec<Answer> = Vec::new();
        if receiver.recv_many(&mut some, ANSWERS_WAITING_MAX).await == 0 {
            return None;
        }
        let mut frame = BytesMut::with_capacity(some.iter().map(|answer| answer.encoded_len() + 10).sum());
        for answer in some {
            // There is room, as it was asked for.
            let _ = answer.encode_length_delimited(&mut frame);
        }
        Some((Ok::<Bytes, Infallible>(frame.freeze()), (receiver, runners, permit)))
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(frames)).into_response()
}

/// Handles one message after the other, each in its turn among all that the task handles.
async fn run(work: Arc<Work>, answers: mpsc::Sender<Answer>) {
    let running = &work.served.gate.running;
    loop {
        let index = work.next.fetch_add(1, Relaxed);
        let Some(call) = work.calls.get(index) else { return };
        let result = match tokio::time::timeout(WAIT_MAX, running.acquire()).await {
            Ok(Ok(_turn)) => handled(&work, call).await,
            _ => Err(TaskError::retryable("too many calls are waiting").retry_after(BUSY_RETRY_AFTER)),
        };
        if answers.send(answer(&work, index, result)).await.is_err() {
            return;
        }
    }
}

async fn handled(work: &Work, call: &Call) -> Result<Vec<handler::Output>, TaskError> {
    let id = |bytes: &Bytes| {
        let bytes: [u8; 16] = bytes[..].try_into().ok()?;
        Some(MessageId(u128::from_be_bytes(bytes)))
    };
    let undecodable = |text: &str| TaskError::with_cause(Cause::Undecodable, text);
    let message = Message {
        id: id(&call.id).ok_or_else(|| undecodable("the id of a message has 16 bytes"))?,
        root: id(&call.root).ok_or_else(|| undecodable("the root of a message has 16 bytes"))?,
        key: call.key.clone(),
        created_ms: call.created_ms,
        trace: call.trace.clone(),
        codec: codec_of(call.codec).ok_or_else(|| undecodable("the codec of a message is 0 or 1"))?,
        properties: job::parents(call.parent.as_ref().and_then(id)),
        payload: call.payload.clone(),
        ..Message::default()
    };
    let cx = Context::new(work.place.clone(), &message, call.attempt);
    work.served.call(work.handler.as_ref(), &message, &cx, work.timeout).await
}

fn answer(work: &Work, index: usize, result: Result<Vec<handler::Output>, TaskError>) -> Answer {
    let def = work.served.def;
    let failed = |error: &TaskError| Answer { failure: Some(Failure::from(error)), ..Answer::default() };
    let mut answer = match result {
        Ok(outputs) => {
            let outputs = outputs.into_iter().map(|output| super::Output {
                label: output.route.and_then(|route| def.routes.get(route)?.label).map(str::to_owned),
                key: output.key,
                payload: output.payload,
            });
            Answer { outputs: outputs.collect(), codec: codec_number(def.codec), ..Answer::default() }
        }
        Err(error) => failed(&error),
    };
    if answer.encoded_len() > BODY_BYTES_MAX {
        answer = failed(&TaskError::permanent(format!("the answer has more than {BODY_BYTES_MAX} bytes")));
    }
    answer.index = u32::try_from(index).unwrap_or(u32::MAX);
    answer
}

impl From<&TaskError> for Failure {
    fn from(error: &TaskError) -> Self {
        let delay = error.delay_asked_for().unwrap_or_default().as_millis();
        Self {
            text: error.to_string(),
            cause: error.cause().as_str().to_owned(),
            retryable: !error.is_permanent(),
            retry_after_ms: u64::try_from(delay).unwrap_or(u64::MAX),
        }
    }
}
