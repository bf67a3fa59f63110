//! Calls a task that is an HTTP worker.
//!
//! A 2xx answer is `{"tasks": [{"type": …, "task": …}, …]}`; 408, 429, 5xx, a refused or broken connection and a timeout are retryable;
//! any other status, and an answer that does not parse, are permanent.

use super::{ATTEMPT, BODY_BYTES_MAX, EDGE, KEY, MESSAGE_ID, ROOT_ID, TOPOLOGY, TRACEPARENT};
use crate::{
    Codec, Context, TaskError,
    codec::{self, Bytes},
    def::{TaskDef, TopologyDef},
    handled::{Handled, Log},
    handler::{Handler, Output},
    sink,
};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use leatworks_broker::{BoxFuture, Message};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// The longest that connecting may take: a machine that is there answers within milliseconds, and one that is not should not use up the
/// time of the task.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How much of an answer is quoted in an error.
const QUOTE_BYTES_MAX: usize = 200;

/// The handler of a task that is an HTTP worker.
///
/// # Errors
/// Those of [`Endpoint::new`].
pub(crate) fn open(url: &str, task: &'static TaskDef, topology: &'static TopologyDef) -> Result<Arc<dyn Handler>, TaskError> {
    open_with(url, task, topology, None)
}

/// The same with somebody who is told of each message.
///
/// # Errors
/// Those of [`Endpoint::new`].
pub(crate) fn open_with(
    url: &str,
    task: &'static TaskDef,
    topology: &'static TopologyDef,
    log: Option<Log>,
) -> Result<Arc<dyn Handler>, TaskError> {
    let endpoint = Endpoint::new(url)?;
    let targets = topology
        .edges
        .iter()
        .filter(|edge| edge.from == Some(task.name))
        .filter_map(|edge| {
            let route = task.routes.iter().position(|route| route.topic == edge.topic)?;
            Some((edge.to, route))
        })
        .collect();
    Ok(Arc::new(Worker { endpoint, task, targets, log }))
}

/// Where a worker listens, with the connections to it.
pub(crate) struct Endpoint {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
}

struct Worker {
    endpoint: Endpoint,
    task: &'static TaskDef,
    /// The tasks behind this one, each with its route.
    targets: Vec<(&'static str, usize)>,
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
}

impl Handler for Worker {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let told = Telling { log: self.log.as_ref(), task: self.task.name, cx };
            let result = self.call(message, cx).await;
            told.tell(result.as_ref().map(|(status, outputs)| (status, outputs.len())));
            result.map(|(_, outputs)| outputs)
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
            Ok((status, count)) => (status.to_string(), Some(count)),
            Err(error) => (error.to_string(), None),
        };
        self.once(status, new_tasks);
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

impl Endpoint {
    /// Nothing is connected before the first call.
    ///
    /// # Errors
    /// A permanent error if the address is no `http://` address.
    pub(crate) fn new(url: &str) -> Result<Self, TaskError> {
        let uri: Uri = url.parse().map_err(|error| TaskError::permanent(format!("worker address `{url}`: {error}")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(TaskError::permanent(format!("worker address `{url}`: it must begin with `http://` and a host")));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), uri })
    }

    /// Posts a JSON body with what is known of its message.
    ///
    /// # Errors
    /// Retryable if nobody answers, and by the status of an answer; permanent if the answer is too long.
    pub(crate) async fn call(&self, body: Bytes, cx: &Context) -> Result<Answer, TaskError> {
        let response = self
            .client
            .request(self.request(body, cx)?)
            .await
            .map_err(|error| TaskError::retryable(format!("calling `{}`: {}", self.uri, TaskError::from(error))))?;
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
        request.body(Full::new(body)).map_err(TaskError::permanent)
    }

    async fn body(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, TaskError> {
        match Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(TaskError::permanent(format!("the answer of `{}` has more than {BODY_BYTES_MAX} bytes", self.uri)))
            }
            Err(error) => Err(TaskError::retryable(format!("reading the answer of `{}`: {error}", self.uri))),
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
        let text = format!("`{}` answered {status}: {}", self.uri, quote(&body.unwrap_or_default()));
        let retryable =
            status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::TOO_MANY_REQUESTS;
        if !retryable {
            return Err(TaskError::permanent(text));
        }
        let error = TaskError::retryable(text);
        Err(match delay {
            Some(delay) => error.retry_after(delay),
            None => error,
        })
    }
}

impl Worker {
    async fn call(&self, message: &Message, cx: &Context) -> Result<(StatusCode, Vec<Output>), TaskError> {
        let body = if message.codec == Codec::Json { message.payload.clone() } else { Bytes::from(sink::json(message)?) };
        let answer = self.endpoint.call(body, cx).await?;
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
            .iter()
            .map(|item| {
                let route = self.route(item.kind.as_deref())?;
                let json = item.task.get();
                let payload = if self.task.codec == Codec::Json {
                    body.slice_ref(json.as_bytes())
                } else {
                    codec::encode(self.task.codec, &serde_json::from_str::<Value>(json)?)?
                };
                Ok(Output { route, topic: None, key: None, payload })
            })
            .collect()
    }

    /// The route of an output: its type is a label, a task behind this one (bare, or as `<topology>-<task>`), or left out if there is one
    /// route only.
    fn route(&self, kind: Option<&str>) -> Result<Option<usize>, TaskError> {
        let routes = self.task.routes;
        let Some(kind) = kind else {
            return match routes.len() {
                0 => Ok(None),
                1 => Ok(Some(0)),
                _ => Err(TaskError::permanent(format!("an output has no `type`, and there are several: {}", self.known()))),
            };
        };
        if let Some(route) = routes.iter().position(|route| route.label == Some(kind)) {
            return Ok(Some(route));
        }
        if self.task.ends.contains(&kind) {
            return Ok(None);
        }
        let bare = kind.strip_prefix(self.task.topology).and_then(|rest| rest.strip_prefix('-')).unwrap_or(kind);
        if let Some((_, route)) = self.targets.iter().find(|(target, _)| *target == kind || *target == bare) {
            return Ok(Some(*route));
        }
        if routes.is_empty() {
            return Ok(None);
        }
        Err(TaskError::permanent(format!("no edge of `{}` takes an output of type `{kind}`; {}", self.task.name, self.known())))
    }

    fn known(&self) -> String {
        let labels = self.task.routes.iter().filter_map(|route| route.label);
        let names: Vec<&str> =
            labels.chain(self.task.ends.iter().copied()).chain(self.targets.iter().map(|(name, _)| *name)).collect();
        format!("known are `{}`", names.join("`, `"))
    }
}

/// The wait that the worker asks for, in seconds. Dates are not read: the clocks of two machines differ.
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn quote(body: &[u8]) -> String {
    let cut = &body[..body.len().min(QUOTE_BYTES_MAX)];
    let more = if body.len() > cut.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut).trim())
}
