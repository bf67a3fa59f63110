//! Sends batches to a worker that takes them.

use super::{Answer, Batch, CONTENT_TYPE, FORM, MESSAGES_MAX, PATH, PAYLOADS_BYTES_MAX, codec_number};
use crate::{Cause, Codec, TaskError, handler, worker::client as worker};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use prost::{Message as _, encoding::decode_varint};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How often a worker that owes answers is asked whether it is still there, and how long it may take to say so: a machine that is gone without a word is
/// noticed well before most tasks' time is over.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How much longer than a message's time a worker may be silent: within that its own word that the time is over comes, which tells more.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

/// After how long batches are tried again with a worker that has offered them and did not take the first: something between may not let them through.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The longest varint of a length.
const LENGTH_BYTES_MAX: usize = 10;

/// The connection to a worker for batches, and whether it takes them.
pub(in crate::worker) struct Batches {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    /// The worker has offered it, and has not gone since.
    offered: AtomicBool,
    /// It was asked, and need not be again.
    asked: AtomicBool,
    /// A batch has been answered.
    proven: AtomicBool,
    /// Not before this.
    again_at: Mutex<Option<Instant>>,
}

/// An output as a worker has given it.
pub(in crate::worker) struct Given {
    pub(in crate::worker) label: Option<String>,
    pub(in crate::worker) output: handler::Output,
    /// How it is encoded.
    pub(in crate::worker) codec: Codec,
}

/// Why a request, or what is left of it, has no answers.
pub(in crate::worker) enum Unanswered {
    /// The worker takes no batches, and has handled nothing.
    Refused,
    /// It failed.
    Failed(TaskError),
}

impl Batches {
    pub(in crate::worker) fn new(connector: HttpConnector, worker: &Uri) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(connector);
        Self {
            client,
            uri: behind(worker),
            offered: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            again_at: Mutex::new(None),
        }
    }

    /// Looks whether an answer in the other form offers batches.
    pub(in crate::worker) fn look(&self, headers: &HeaderMap) {
        let offers = headers.get(super::OFFER).is_some_and(|form| form == FORM);
        if offers == self.offered.load(Relaxed) {
            return;
        }
        let early = self.again_at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| Instant::now() < at);
        self.offered.store(offers && !early, Relaxed);
    }

    /// Whether the worker is to be asked whether it takes batches: once, and again when it has gone.
    pub(in crate::worker) fn is_to_be_asked(&self) -> bool {
        !self.asked.swap(true, Relaxed)
    }

    /// Whether the worker takes batches, as far as is known.
    pub(in crate::worker) fn are_taken(&self) -> bool {
        self.offered.load(Relaxed)
    }

    /// Sends one request, and tells each answer as it comes. What is left then is told by the error; without one there is nothing left that the worker
    /// would still answer.
    pub(in crate::worker) async fn send(
        &self,
        calls: &[handler::Call],
        timeout: Duration,
        mut answered: impl FnMut(usize, Result<Vec<Given>, TaskError>),
    ) -> Result<(), Unanswered> {
        let silence_max = timeout.saturating_add(SILENCE_GRACE);
        let silent =
            |_| self.gone(TaskError::with_cause(Cause::Timeout, format!("`{}` said nothing for {silence_max:?}", self.uri)));
        let response = match tokio::time::timeout(silence_max, self.client.request(self.request(calls, timeout))).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // Nobody there, or nobody any more, is found out in the other form. One that is there and has never taken a batch may never do so.
                let there = !error.is_connect();
                let failed = self.gone(worker::unsent(&self.uri, error));
                return Err(if there && !self.proven.load(Relaxed) { self.refused() } else { failed });
            }
            Err(elapsed) => return Err(silent(elapsed)),
        };
        let mut body = self.judge(response)?;
        let mut buffer = BytesMut::new();
        loop {
            match tokio::time::timeout(silence_max, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
                    while let Some(answer) = self.next(&mut buffer)? {
                        self.proven.store(true, Relaxed);
                        answered(answer.index as usize, read(answer));
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(self.gone(TaskError::retryable(format!(
                        "reading the answer of `{}`: {}",
                        self.uri,
                        TaskError::from(error)
                    ))));
                }
                Ok(None) => return Ok(()),
                Err(elapsed) => return Err(silent(elapsed)),
            }
        }
    }

    fn request(&self, calls: &[handler::Call], timeout: Duration) -> Request<Full<Bytes>> {
        let cx = calls.first().map(|call| &call.cx);
        let batch = Batch {
            topology: cx.map(|cx| cx.topology().to_owned()).unwrap_or_default(),
            edge: cx.map(|cx| cx.edge().to_owned()).unwrap_or_default(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            calls: calls.iter().map(call).collect(),
        };
        let mut request = Request::new(Full::new(Bytes::from(batch.encode_to_vec())));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
        request
    }

    fn judge(&self, response: Response<Incoming>) -> Result<Incoming, Unanswered> {
        let status = response.status();
        let ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == CONTENT_TYPE);
        if status == StatusCode::OK && ours {
            return Ok(response.into_body());
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
            let error = TaskError::retryable(format!("`{}` answered {status}", self.uri));
            let delay = worker::retry_after(&response);
            return Err(Unanswered::Failed(match delay {
                Some(delay) => error.retry_after(delay),
                None => error,
            }));
        }
        Err(self.refused())
    }

    /// The next answer, if all of it is there.
    fn next(&self, buffer: &mut BytesMut) -> Result<Option<Answer>, Unanswered> {
        let broken = |error: &dyn std::fmt::Display| {
            self.gone(TaskError::retryable(format!("the answer of `{}` is no sequence of answers: {error}", self.uri)))
        };
        let mut ahead = &buffer[..];
        let length = match decode_varint(&mut ahead) {
            Ok(length) => length,
            Err(_) if buffer.len() < LENGTH_BYTES_MAX => return Ok(None),
            Err(error) => return Err(broken(&error)),
        };
        let limit = crate::worker::BODY_BYTES_MAX;
        let length = usize::try_from(length).ok().filter(|length| *length <= limit);
        let Some(length) = length else { return Err(broken(&format!("one has more than {limit} bytes"))) };
        if ahead.len() < length {
            return Ok(None);
        }
        let head = buffer.len() - ahead.len();
        buffer.advance(head);
        Answer::decode(buffer.split_to(length).freeze()).map(Some).map_err(|error| broken(&error))
    }

    /// The worker has gone, as far as is known: whoever comes next is asked anew.
    fn gone(&self, error: TaskError) -> Unanswered {
        self.offered.store(false, Relaxed);
        self.asked.store(false, Relaxed);
        Unanswered::Failed(error)
    }

    fn refused(&self) -> Unanswered {
        tracing::info!(uri = %self.uri, again = ?AGAIN_AFTER, "the worker takes no batches; it is called for each message");
        *self.again_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + AGAIN_AFTER);
        self.offered.store(false, Relaxed);
        Unanswered::Refused
    }
}

/// How many of these calls go into one request, at least one.
pub(in crate::worker) fn fitting(calls: &[handler::Call]) -> usize {
    let mut bytes = 0;
    let more = calls.iter().take(MESSAGES_MAX).take_while(|call| {
        bytes += call.message.payload.len();
        bytes <= PAYLOADS_BYTES_MAX
    });
    more.count().max(1).min(calls.len())
}

/// The address behind that of a worker.
fn behind(worker: &Uri) -> Uri {
    let path = format!("{}/{PATH}", worker.path().trim_end_matches('/'));
    let mut parts = worker.clone().into_parts();
    // A path that was one stays one with a segment more.
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| worker.clone())
}

fn call(call: &handler::Call) -> super::Call {
    let handler::Call { message, cx } = call;
    let id = |id: leatworks_broker::MessageId| Bytes::copy_from_slice(&id.0.to_be_bytes());
    super::Call {
        id: id(message.id),
        root: id(message.root),
        attempt: cx.attempt(),
        key: message.key.clone(),
        created_ms: message.created_ms,
        trace: message.trace.clone(),
        codec: codec_number(message.codec),
        payload: message.payload.clone(),
        parent: cx.parent_id().map(id),
    }
}

fn read(answer: Answer) -> Result<Vec<Given>, TaskError> {
    if let Some(failure) = answer.failure {
        return Err(failure.into());
    }
    if answer.outputs.len() > crate::MAX_OUTPUTS {
        return Err(TaskError::permanent(format!("one message gave more than {} outputs", crate::MAX_OUTPUTS)));
    }
    let codec = super::codec_of(answer.codec)
        .ok_or_else(|| TaskError::permanent(format!("the worker's outputs are in codec {}, which nobody knows", answer.codec)))?;
    let given = |output: super::Output| Given {
        label: output.label,
        output: handler::Output { route: None, topic: None, key: output.key, payload: output.payload },
        codec,
    };
    Ok(answer.outputs.into_iter().map(given).collect())
}

impl From<super::Failure> for TaskError {
    fn from(failure: super::Failure) -> Self {
        let cause = Cause::told(&failure.cause).unwrap_or(if failure.retryable { Cause::Error } else { Cause::Permanent });
        let error = Self::with_cause(cause, failure.text);
        match failure.retry_after_ms {
            0 => error,
            delay => error.retry_after(Duration::from_millis(delay)),
        }
    }
}
