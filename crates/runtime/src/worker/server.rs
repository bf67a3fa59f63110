//! Serves one task as an HTTP worker.
//!
//! `POST /` takes a message as JSON and answers `{"tasks": […]}`; `/healthz` answers while the process lives, `/readyz` when the task has
//! started. A failure is 503 if it may pass, 422 if it is permanent, 400 if the message is not what the task takes, 504 if it took too long.
//! `POST /batch` takes many messages at once, see [`batch`].
//! As many calls as the task's `parallelism` says are handled at once; others wait, with their bodies unread, and beyond a limit are refused.

use super::{ATTEMPT, BODY_BYTES_MAX, EDGE, KEY, MESSAGE_ID, PARENT_ID, ROOT_ID, TRACEPARENT, batch};
use crate::{
    Cause, Codec, Context, TaskError, codec,
    codec::Bytes,
    context::Place,
    def::TaskDef,
    dispatch::guard_panic,
    handler::{Handler, Output},
    job,
    plan::TaskPlan,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use leatworks_broker::Message;
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use std::{
    future::Future,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most calls that wait for others to end. A caller bounds its own calls, so this is for eight callers of a usual parallelism of 8;
/// what waits holds a connection and no body.
const WAITING_MAX: usize = 64;

/// How long a call waits for others to end before it is refused: the time after which most callers give up by themselves.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// When a caller that was refused may come again.
pub(super) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a body may take to come: the largest one at 1.6 MB/s.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// A task could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not on this machine alone, and nobody said that it may be.
    #[error(
        "`{0}` can be reached from other machines, and a worker asks nobody who they are: say `--allow-remote` if that is meant"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("listening on `{address}`: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Standard input is no socket.
    #[error("standard input is not the listening socket that it should be: {0}")]
    Inherit(std::io::Error),
    /// The server failed.
    #[error("serving: {0}")]
    Serve(std::io::Error),
    /// The task could not be started.
    #[error("starting task `{task}`: {error}")]
    Start {
        /// The task.
        task: &'static str,
        /// Why.
        error: TaskError,
    },
}

/// A worker that listens.
pub struct Bound {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

/// Listens on an address.
///
/// # Errors
/// [`ServeError::NotLoopback`] and [`ServeError::Listen`].
pub async fn bind(address: SocketAddr, allow_remote: bool) -> Result<Bound, ServeError> {
    if !address.ip().is_loopback() && !allow_remote {
        return Err(ServeError::NotLoopback(address));
    }
    let listen = |error| ServeError::Listen { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok(Bound { listener, address })
}

/// Takes over the listening socket that is standard input. Whoever holds it too keeps its callers waiting while no worker is there.
///
/// # Errors
/// [`ServeError::Inherit`].
pub(crate) fn inherited() -> Result<Bound, ServeError> {
    let take = || {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        Ok(Bound { listener: tokio::net::TcpListener::from_std(listener)?, address })
    };
    take().map_err(ServeError::Inherit)
}

impl Bound {
    /// The address, with the port that was given if zero was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves whatever this routes to until `stop` resolves; then takes no new calls and finishes those that run.
    pub(crate) async fn serve_router(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        // The head of an answer and its body are two small writes, and the second would wait for the other side to acknowledge the first: 40 ms.
        let listener = self.listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "answers of a connection may come late");
            }
        });
        axum::serve(listener, router).with_graceful_shutdown(stop).await
    }

    /// Serves a task until `stop` resolves; then takes no new calls and finishes those that run. `open` starts the task meanwhile.
    ///
    /// # Errors
    /// [`ServeError::Serve`] and [`ServeError::Start`].
    pub async fn serve(
        self,
        task: TaskPlan,
        open: impl Future<Output = Result<Arc<dyn Handler>, TaskError>> + Send,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let name = task.def.name;
        let served = Arc::new(Served::new(task));
        let app = Router::new()
            .route("/", post(handle).options(async || offer(StatusCode::NO_CONTENT.into_response())))
            .route(&format!("/{}", batch::PATH), post(batch::handle))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(served.clone());
        let server = async { self.serve_router(app, stop).await.map_err(ServeError::Serve) };
        let start = async {
            let handler = open.await.map_err(|error| ServeError::Start { task: name, error })?;
            // Set once, here.
            let _ = served.handler.set(handler);
            Ok(())
        };
        tokio::try_join!(server, start).map(|_| ())
    }
}

/// What the server needs.
pub(super) struct Served {
    pub(super) def: &'static TaskDef,
    pub(super) timeout: Duration,
    pub(super) settings: Value,
    pub(super) handler: OnceLock<Arc<dyn Handler>>,
    pub(super) gate: Gate,
}

impl Served {
    fn new(task: TaskPlan) -> Self {
        let gate = Gate::new(task.parallelism);
        Self { def: task.def, timeout: task.timeout, settings: task.settings, handler: OnceLock::new(), gate }
    }

    /// Has a message handled within this time. Outputs that nobody takes are left out: the label of such a one ends the flow, and is no type that a caller knows.
    pub(super) async fn call(
        &self,
        handler: &dyn Handler,
        message: &Message,
        cx: &Context,
        timeout: Duration,
    ) -> Result<Vec<Output>, TaskError> {
        let mut handling = std::pin::pin!(guard_panic(async { handler.handle(message, cx).await }));
        // Most tasks are done at the first poll: the timer is only made for those that wait.
        let mut outputs = match futures_util::poll!(&mut handling) {
            std::task::Poll::Ready(result) => result?,
            std::task::Poll::Pending => tokio::time::timeout(timeout, handling).await.unwrap_or_else(|_| {
                Err(TaskError::with_cause(Cause::Timeout, format!("it took longer than its timeout of {timeout:?}")))
            })?,
        };
        outputs.retain(|output| output.route.is_some() || self.def.routes.is_empty());
        Ok(outputs)
    }
}

/// Lets in as many calls as are handled at once, and as many more as may wait.
pub(super) struct Gate {
    /// Held for a call, or a batch, from its coming to its end.
    pub(super) places: Arc<Semaphore>,
    /// Held for each message while it is handled.
    pub(super) running: Semaphore,
    pub(super) parallelism: usize,
}

impl Gate {
    fn new(parallelism: usize) -> Self {
        let running = parallelism.clamp(1, Semaphore::MAX_PERMITS - WAITING_MAX);
        Self { places: Arc::new(Semaphore::new(running + WAITING_MAX)), running: Semaphore::new(running), parallelism: running }
    }

    /// Waits for its turn; none if too many wait, or it takes too long.
    async fn enter(&self) -> Option<(SemaphorePermit<'_>, SemaphorePermit<'_>)> {
        let place = self.places.try_acquire().ok()?;
        let turn = tokio::time::timeout(WAIT_MAX, self.running.acquire()).await.ok()?.ok()?;
        Some((place, turn))
    }
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    if served.handler.get().is_some() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}

async fn handle(state: State<Arc<Served>>, request: Request) -> Response {
    offer(json(state, request).await)
}

/// Says that batches are taken, too.
fn offer(mut response: Response) -> Response {
    response.headers_mut().insert(batch::OFFER, HeaderValue::from_static(batch::FORM));
    response
}

async fn json(State(served): State<Arc<Served>>, request: Request) -> Response {
    let Some(handler) = served.handler.get() else {
        return failure(&TaskError::retryable("the task is starting"));
    };
    let (parts, body) = request.into_parts();
    if !is_kind(&parts.headers, "application/json") {
        let error = TaskError::with_cause(Cause::Undecodable, "the content type of a message is `application/json`");
        return failure_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error);
    }
    let Some(_permits) = served.gate.enter().await else {
        return failure(&TaskError::retryable("too many calls are waiting").retry_after(BUSY_RETRY_AFTER));
    };
    let body = match read(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err((status, error)) => return failure_as(status, &error),
    };
    match answer(&served, handler.as_ref(), &parts.headers, body).await {
        Ok(tasks) => Json(Answer { tasks }).into_response(),
        Err(error) => failure(&error),
    }
}

/// Whether this is the content type.
pub(super) fn is_kind(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

/// Reads a body of at most so many bytes.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, (StatusCode, TaskError)> {
    match tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = TaskError::permanent(format!("the body has more than {bytes_max} bytes"));
            Err((StatusCode::PAYLOAD_TOO_LARGE, error))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, TaskError::permanent(format!("reading the body: {error}")))),
        Err(_) => {
            let error = TaskError::with_cause(Cause::Timeout, format!("the body did not come within {BODY_TIME_MAX:?}"));
            Err((StatusCode::REQUEST_TIMEOUT, error))
        }
    }
}

async fn answer(served: &Served, handler: &dyn Handler, headers: &HeaderMap, body: Bytes) -> Result<Vec<Item>, TaskError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let id = header(MESSAGE_ID).and_then(|id| id.parse().ok()).unwrap_or_else(crate::ids::random_id);
    let message = Message {
        id,
        root: header(ROOT_ID).and_then(|root| root.parse().ok()).unwrap_or(id),
        key: header(KEY).map(str::to_owned),
        created_ms: crate::ids::now_ms(),
        trace: header(TRACEPARENT).map(str::to_owned),
        codec: Codec::Json,
        properties: job::parents(header(PARENT_ID).and_then(|parent| parent.parse().ok())),
        payload: body,
        ..Message::default()
    };
    let place = Place {
        topology: served.def.topology,
        task: served.def.name,
        edge: header(EDGE).unwrap_or_default().to_owned().into(),
        settings: served.settings.clone(),
    };
    let attempt = header(ATTEMPT).and_then(|attempt| attempt.parse().ok()).unwrap_or(1);
    let cx = Context::new(Arc::new(place), &message, attempt);
    let outputs = served.call(handler, &message, &cx, served.timeout).await?;
    outputs.iter().map(|output| item(served.def, output)).collect()
}

/// One output of an answer. What is JSON stays as it is, so that no number is rounded.
#[derive(Serialize)]
struct Item {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    label: Option<&'static str>,
    task: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn item(task: &TaskDef, output: &Output) -> Result<Item, TaskError> {
    let payload = match task.codec {
        Codec::Json => codec::decode(task.codec, &output.payload)?,
        Codec::MessagePack => to_raw_value(&codec::decode::<Value>(task.codec, &output.payload)?)?,
    };
    let label = output.route.and_then(|route| task.routes.get(route)).and_then(|route| route.label);
    Ok(Item { label, task: payload, key: output.key.clone() })
}

#[derive(Serialize)]
struct Answer {
    tasks: Vec<Item>,
}

pub(super) fn failure(error: &TaskError) -> Response {
    let status = match error.cause() {
        Cause::Undecodable => StatusCode::BAD_REQUEST,
        Cause::Permanent => StatusCode::UNPROCESSABLE_ENTITY,
        Cause::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Cause::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        Cause::Error | Cause::WorkerDied => StatusCode::SERVICE_UNAVAILABLE,
    };
    failure_as(status, error)
}

pub(super) fn failure_as(status: StatusCode, error: &TaskError) -> Response {
    let body = Json(json!({ "error": error.to_string(), "cause": error.cause().as_str(), "retryable": !error.is_permanent() }));
    let seconds = error.delay_asked_for().map_or(0, |delay| delay.as_secs());
    if error.is_permanent() || seconds == 0 {
        (status, body).into_response()
    } else {
        (status, [(header::RETRY_AFTER, seconds.to_string())], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{Kind, Retry};
    use futures_util::{FutureExt, stream};
    use std::convert::Infallible;

    static ECHO: TaskDef = TaskDef {
        project: "p",
        topology: "t",
        name: "echo",
        version: "0",
        codec: Codec::Json,
        kind: Kind::Source,
        retry: Retry { attempts: 1, backoff: Duration::ZERO, max_backoff: Duration::ZERO },
        timeout: Duration::from_secs(1),
        parallelism: 2,
        source: None,
        routes: &[],
        ends: &[],
    };

    struct Nothing;

    impl Handler for Nothing {
        fn handle<'a>(
            &'a self,
            _message: &'a Message,
            _cx: &'a Context,
        ) -> leatworks_broker::BoxFuture<'a, Result<Vec<Output>, TaskError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    fn served() -> Arc<Served> {
        let served = Served::new(TaskPlan::new(&ECHO));
        assert!(served.handler.set(Arc::new(Nothing)).is_ok());
        Arc::new(served)
    }

    async fn post(served: &Arc<Served>, kind: Option<&str>, body: Body) -> (StatusCode, Option<String>) {
        let mut request = Request::post("/");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let response = handle(State(served.clone()), request.body(body).unwrap()).await;
        let after = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap().to_owned());
        (response.status(), after)
    }

    #[tokio::test]
    async fn only_json_of_a_bounded_size_is_taken() {
        let served = served();
        let json = Some("application/json");
        let large = || Body::from(vec![b' '; BODY_BYTES_MAX + 1]);
        for (kind, body, status) in [
            (json, Body::from("1"), StatusCode::OK),
            (Some("Application/JSON; charset=utf-8"), Body::from("1"), StatusCode::OK),
            (Some("text/plain"), Body::from("1"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (None, Body::from("1"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (json, large(), StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            assert_eq!(post(&served, kind, body).await.0, status, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_frees_its_place() {
        let served = served();
        let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(post(&served, Some("application/json"), endless).await.0, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(served.gate.running.available_permits(), ECHO.parallelism);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_beyond_the_parallelism_wait_and_beyond_the_queue_are_refused() {
        let served = served();
        let json = Some("application/json");
        let endless = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let mut calls: Vec<_> = (0..ECHO.parallelism + WAITING_MAX).map(|_| Box::pin(post(&served, json, endless()))).collect();
        for call in &mut calls {
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(post(&served, json, Body::from("1")).await, (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned())));
        calls.truncate(ECHO.parallelism - 1);
        assert_eq!(post(&served, json, Body::from("1")).await.0, StatusCode::OK);
    }
}
