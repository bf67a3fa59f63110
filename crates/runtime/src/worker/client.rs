//! Calls a task that is an HTTP worker.
//!
//! A 2xx answer is `{"tasks": [{"type": …, "task": …}, …]}`; 408, 429, 5xx, a broken connection and a timeout are retryable; any other status, and
//! an answer that does not parse, are permanent. Where no connection could be made there was no attempt.

use super::{
    ATTEMPT, BODY_BYTES_MAX, EDGE, KEY, MESSAGE_ID, PARENT_ID, ROOT_ID, TOPOLOGY, TRACEPARENT,
    batch::{self, Batches, Given, Unanswered},
};
use crate::{
    Cause, Codec, Context, TaskError,
    codec::{self, Bytes},
    def::{Kind, TaskDef, TopologyDef},
    handled::{Handled, Log},
    handler::{Answers, BatchHandler, Call, Handler, Output},
    routes::Routes,
    sink,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use leatworks_broker::{BoxFuture, Message};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// The longest that connecting may take: a machine that is there answers within milliseconds. It is at most half of the task's time, so that a worker that is
/// away is told apart from one that is there and slow.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// When the system asks a worker that says nothing whether it is still there, how often, and how many answers may be missing.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;

/// How much of an answer is quoted in an error.
const QUOTE_BYTES_MAX: usize = 200;

/// How much of what a worker says of its failure in our form stands in an error: a few lines.
const SAID_BYTES_MAX: usize = 2000;

/// The handler of a task that is an HTTP worker. `timeout` is the time that each of its messages has.
///
/// # Errors
/// Those of [`Endpoint::new`].
pub(crate) fn open(
    url: &str,
    task: &'static TaskDef,
    topology: &'static TopologyDef,
    timeout: Duration,
) -> Result<Arc<dyn Handler>, TaskError> {
    open_with(url, task, topology, timeout, None)
}

/// The same with somebody who is told of each message.
///
/// # Errors
/// Those of [`Endpoint::new`].
pub(crate) fn open_with(
    url: &str,
    task: &'static TaskDef,
    topology: &'static TopologyDef,
    timeout: Duration,
    log: Option<Log>,
) -> Result<Arc<dyn Handler>, TaskError> {
    let again = matches!(task.kind, Kind::Job(_));
    let endpoint = Endpoint { again, ..Endpoint::new(url, timeout)? };
    let batches = Batches::new(connector(timeout), &endpoint.uri);
    Ok(Arc::new(Worker { endpoint, batches, task, routes: Routes::new(task, topology), log }))
}

/// Where a worker listens, with the connections to it.
pub(crate) struct Endpoint {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    /// Who listens knows each attempt at a message again and goes on with it, as with jobs. So a call that breaks is made again, and counts as none.
    again: bool,
}

struct Worker {
    endpoint: Endpoint,
    batches: Batches,
    task: &'static TaskDef,
    routes: Routes,
    log: Option<Log>,
}

/// What a worker answers.
#[derive(Deserialize)]
pub(crate) struct Reply<'a> {
    #[serde(borrow)]
    pub(crate) tasks: Vec<Item<'a>>,
}

/// One of the tasks that follow.
#[derive(Deserialize)]
pub(crate) struct Item<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(crate) kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) task: &'a RawValue,
    /// Its key; that of the message if there is none.
    #[serde(default)]
    pub(crate) key: Option<String>,
}

impl Handler for Worker {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            // As JSON it would not be the same: MessagePack knows bytes, and keys that are no texts.
            if message.codec != Codec::Json && !self.endpoint.again && self.takes_batches().await {
                return self.alone(message, cx).await;
            }
            self.single(message, cx).await
        })
    }

    fn batch(&self) -> Option<&dyn BatchHandler> {
        // A job takes seconds at least, beside which a request of its own is nothing.
        (self.batches.are_taken() && !self.endpoint.again).then_some(self)
    }
}

impl BatchHandler for Worker {
    fn handle_all<'a>(&'a self, mut calls: &'a [Call], timeout: Duration, answers: Answers) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut first = 0;
            while !calls.is_empty() {
                let (now, rest) = calls.split_at(batch::fitting(calls));
                self.send(first, now, timeout, &answers).await;
                (first, calls) = (first + now.len(), rest);
            }
        })
    }
}

/// A call under way. If it is dropped, which is what becomes of one that takes too long, that is told too.
struct Telling<'a> {
    log: Option<&'a Log>,
    task: &'static str,
    cx: &'a Context,
}

impl Telling<'_> {
    fn tell(mut self, result: Result<(&StatusCode, usize), &TaskError>) {
        let (status, new_tasks) = match result {
            // It was not handled at all.
            Err(error) if error.is_unreached() => return self.nothing(),
            Ok((status, count)) => (status.to_string(), Some(count)),
            Err(error) => (error.to_string(), None),
        };
        self.once(status, new_tasks);
    }

    /// There is nothing to be told.
    fn nothing(mut self) {
        self.log = None;
    }

    fn once(&mut self, status: String, new_tasks: Option<usize>) {
        if let Some(log) = self.log.take() {
            log(&Handled { message_id: self.cx.message_id().to_string(), task: self.task, status, new_tasks });
        }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.once("given up before it was answered".to_owned(), None);
    }
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// None if it says that it has none.
    pub(crate) body: Option<Bytes>,
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_MAX.min(timeout / 2)));
    connector.set_nodelay(true);
    // A job may take hours, and a machine that has lost its power says nothing.
    connector.set_keepalive(Some(KEEPALIVE_AFTER));
    connector.set_keepalive_interval(Some(KEEPALIVE_EVERY));
    connector.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    connector
}

impl Endpoint {
    /// Nothing is connected before the first call, each of which has this time.
    ///
    /// # Errors
    /// A permanent error if the address is no `http://` address.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, TaskError> {
        let uri: Uri = url.parse().map_err(|error| TaskError::permanent(format!("worker address `{url}`: {error}")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(TaskError::permanent(format!("worker address `{url}`: it must begin with `http://` and a host")));
        }
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector(timeout)), uri, again: false })
    }

    /// Posts a JSON body with what is known of its message.
    ///
    /// # Errors
    /// Retryable if nobody answers, and by the status of an answer; permanent if the answer is too long.
    pub(crate) async fn call(&self, body: Bytes, cx: &Context) -> Result<Answer, TaskError> {
        self.call_and(body, cx, |_| {}).await
    }

    /// The same, with a look at the headers of the answer, whatever it is.
    async fn call_and(&self, body: Bytes, cx: &Context, look: impl FnOnce(&HeaderMap)) -> Result<Answer, TaskError> {
        let sent = self.client.request(self.request(body, cx)?).await;
        let response = sent.map_err(|error| self.broken(unsent(&self.uri, error)))?;
        look(response.headers());
        let (status, delay) = (response.status(), retry_after(&response));
        let body = self.body(response).await;
        self.judge(status, delay, body)
    }

    /// What is said of an answer that cannot be read.
    pub(crate) fn unreadable(&self, error: &serde_json::Error, body: &[u8]) -> TaskError {
        TaskError::permanent(format!(
            "the answer of `{}` is not `{{\"tasks\": [{{\"type\": …, \"task\": …}}, …]}}`: {error}: {}",
            self.uri,
            quote(body)
        ))
    }

    /// A call that broke before it was answered to the end.
    fn broken(&self, error: TaskError) -> TaskError {
        if self.again { TaskError::unreached(error) } else { error }
    }

    fn request(&self, body: Bytes, cx: &Context) -> Result<Request<Full<Bytes>>, TaskError> {
        let mut request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(MESSAGE_ID, cx.message_id().to_string())
            .header(ROOT_ID, cx.root_id().to_string())
            .header(ATTEMPT, cx.attempt())
            .header(TOPOLOGY, cx.topology())
            .header(EDGE, cx.edge())
            .header(TRACEPARENT, cx.traceparent());
        if let Some(key) = cx.key().and_then(|key| HeaderValue::from_str(key).ok()) {
            request = request.header(KEY, key);
        }
        if let Some(parent) = cx.parent_id() {
            request = request.header(PARENT_ID, parent.to_string());
        }
        request.body(Full::new(body)).map_err(TaskError::permanent)
    }

    async fn body(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, TaskError> {
        match Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(TaskError::permanent(format!("the answer of `{}` has more than {BODY_BYTES_MAX} bytes", self.uri)))
            }
            Err(error) => Err(self.broken(TaskError::retryable(format!("reading the answer of `{}`: {error}", self.uri)))),
        }
    }

    fn judge(&self, status: StatusCode, delay: Option<Duration>, body: Result<Bytes, TaskError>) -> Result<Answer, TaskError> {
        if status == StatusCode::NO_CONTENT {
            return Ok(Answer { status, body: None });
        }
        if status.is_success() {
            return Ok(Answer { status, body: Some(body?) });
        }
        // What the worker says about its failure helps, but is not needed.
        let body = body.unwrap_or_default();
        let (said, cause) = told(&body);
        let text = format!("`{}` answered {status}: {said}", self.uri);
        let retryable =
            status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::TOO_MANY_REQUESTS;
        let usual = if retryable { Cause::Error } else { Cause::Permanent };
        let error = TaskError::with_cause(cause.unwrap_or(usual), text);
        if error.is_permanent() == retryable {
            // The status counts, since everybody between us and the worker goes by it.
            return Err(TaskError::with_cause(usual, error));
        }
        Err(match delay {
            Some(delay) => error.retry_after(delay),
            None => error,
        })
    }
}

impl Worker {
    /// Sends one request, and tells an answer for each of its messages. `first` is the index of the first one.
    async fn send(&self, first: usize, calls: &[Call], timeout: Duration, answers: &Answers) {
        let telling = calls.iter().map(|call| Some(Telling { log: self.log.as_ref(), task: self.task.name, cx: &call.cx }));
        let mut open: Vec<Option<Telling<'_>>> = telling.collect();
        let mut tell = |index: usize, result: Result<Vec<Given>, TaskError>| {
            // One that was answered already, or was never asked about, is no message of ours.
            let Some(told) = open.get_mut(index).and_then(Option::take) else { return };
            let result =
                result.and_then(|given| given.into_iter().map(|given| self.output(given)).collect::<Result<Vec<_>, _>>());
            told.tell(result.as_ref().map(|outputs| (&StatusCode::OK, outputs.len())));
            // The dispatcher is gone only when the run is over.
            let _ = answers.send((first + index, result));
        };
        let error = match self.batches.send(calls, timeout, &mut tell).await {
            Ok(()) => TaskError::retryable(format!("`{}` ended its answer to a batch before this message", self.endpoint.uri)),
            Err(Unanswered::Failed(error)) => error,
            Err(Unanswered::Refused) => {
                open.into_iter().flatten().for_each(Telling::nothing);
                for (index, call) in calls.iter().enumerate() {
                    let handled = tokio::time::timeout(timeout, self.single(&call.message, &call.cx)).await;
                    let late =
                        || TaskError::with_cause(Cause::Timeout, format!("it took longer than its timeout of {timeout:?}"));
                    let _ = answers.send((first + index, handled.unwrap_or_else(|_| Err(late()))));
                }
                return;
            }
        };
        for index in 0..calls.len() {
            tell(index, Err(error.clone()));
        }
    }

    /// Asks the worker, once, whether it takes batches.
    async fn takes_batches(&self) -> bool {
        if !self.batches.are_taken() && self.batches.is_to_be_asked() {
            let mut request = Request::new(Full::new(Bytes::new()));
            (*request.method_mut(), *request.uri_mut()) = (Method::OPTIONS, self.endpoint.uri.clone());
            // Nobody there is told of the message, which is sent next.
            if let Ok(response) = self.endpoint.client.request(request).await {
                self.batches.look(response.headers());
            }
        }
        self.batches.are_taken()
    }

    /// A message as a batch of its own.
    async fn alone(&self, message: &Message, cx: &Context) -> Result<Vec<Output>, TaskError> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let calls = [Call { message: message.clone(), cx: cx.clone() }];
        self.send(0, &calls, self.task.timeout, &sender).await;
        match answers.try_recv() {
            Ok((_, result)) => result,
            Err(_) => Err(TaskError::retryable(format!("`{}` gave no answer", self.endpoint.uri))),
        }
    }

    /// An output that came in a batch.
    fn output(&self, given: Given) -> Result<Output, TaskError> {
        let Given { label, mut output, codec } = given;
        output.route = self.routes.find(label.as_deref())?;
        if codec != self.task.codec {
            output.payload = codec::encode(self.task.codec, &codec::decode::<Value>(codec, &output.payload)?)?;
        }
        Ok(output)
    }

    /// A message by itself, as JSON.
    async fn single(&self, message: &Message, cx: &Context) -> Result<Vec<Output>, TaskError> {
        let told = Telling { log: self.log.as_ref(), task: self.task.name, cx };
        let result = self.call(message, cx).await;
        told.tell(result.as_ref().map(|(status, outputs)| (status, outputs.len())));
        result.map(|(_, outputs)| outputs)
    }

    async fn call(&self, message: &Message, cx: &Context) -> Result<(StatusCode, Vec<Output>), TaskError> {
        let body = if message.codec == Codec::Json { message.payload.clone() } else { Bytes::from(sink::json(message)?) };
        let answer = self.endpoint.call_and(body, cx, |headers| self.batches.look(headers)).await?;
        let outputs = answer.body.map_or(Ok(Vec::new()), |body| self.outputs(&body))?;
        Ok((answer.status, outputs))
    }

    fn outputs(&self, body: &Bytes) -> Result<Vec<Output>, TaskError> {
        let reply: Reply<'_> = serde_json::from_slice(body).map_err(|error| self.endpoint.unreadable(&error, body))?;
        if reply.tasks.len() > crate::MAX_OUTPUTS {
            return Err(TaskError::permanent(format!("one message gave more than {} outputs", crate::MAX_OUTPUTS)));
        }
        reply
            .tasks
            .into_iter()
            .map(|item| {
                let route = self.routes.find(item.kind.as_deref())?;
                let json = item.task.get();
                let payload = if self.task.codec == Codec::Json {
                    body.slice_ref(json.as_bytes())
                } else {
                    codec::encode(self.task.codec, &serde_json::from_str::<Value>(json)?)?
                };
                Ok(Output { route, topic: None, key: item.key, payload })
            })
            .collect()
    }
}

/// What is said of a request that has no answer. If there was not even a connection for it, the message has not been tried.
pub(super) fn unsent(uri: &Uri, error: hyper_util::client::legacy::Error) -> TaskError {
    let away = error.is_connect();
    let text = format!("calling `{uri}`: {}", TaskError::from(error));
    if away { TaskError::unreached(text) } else { TaskError::retryable(text) }
}

/// The wait that the worker asks for, in seconds. Dates are not read: the clocks of two machines differ.
pub(super) fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What a worker says of its failure, and the cause that it names if it is one of ours. One that knows our form says what it means in few words, such as where a log is.
fn told(body: &[u8]) -> (String, Option<Cause>) {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow, default)]
        error: Cow<'a, str>,
        #[serde(borrow, default)]
        cause: Cow<'a, str>,
    }
    match serde_json::from_slice::<Told<'_>>(body) {
        Ok(told) if told.error.is_empty() => (quote(body), Cause::told(&told.cause)),
        Ok(told) => (cut(told.error.as_bytes(), SAID_BYTES_MAX), Cause::told(&told.cause)),
        Err(_) => (quote(body), None),
    }
}

fn quote(body: &[u8]) -> String {
    cut(body, QUOTE_BYTES_MAX)
}

fn cut(text: &[u8], bytes_max: usize) -> String {
    let cut = &text[..text.len().min(bytes_max)];
    let more = if text.len() > cut.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut).trim())
}
