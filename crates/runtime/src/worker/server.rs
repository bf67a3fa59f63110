//! Serves one task as an HTTP worker.
//!
//! `POST /` takes a message as JSON and answers `{"tasks": […]}`; `/healthz` answers while the process lives, `/readyz` when the task has
//! started. A failure is 503 if it may pass, 422 if it is permanent, 400 if the message is not what the task takes, 504 if it took too long.

use super::{ATTEMPT, BODY_BYTES_MAX, EDGE, KEY, MESSAGE_ID, ROOT_ID, TRACEPARENT};
use crate::{
    Cause, Codec, Context, TaskError, codec,
    codec::Bytes,
    context::Place,
    def::TaskDef,
    dispatch::guard_panic,
    handler::{Handler, Output},
    plan::TaskPlan,
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use leatworks_broker::Message;
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

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

impl Bound {
    /// The address, with the port that was given if zero was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
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
            .route("/", post(handle))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(served.clone());
        let server = async { axum::serve(self.listener, app).with_graceful_shutdown(stop).await.map_err(ServeError::Serve) };
        let start = async {
            let handler = open.await.map_err(|error| ServeError::Start { task: name, error })?;
            // Set once, here.
            let _ = served.handler.set(handler);
            Ok(())
        };
        tokio::try_join!(server, start).map(|_| ())
    }
}

struct Served {
    def: &'static TaskDef,
    timeout: Duration,
    settings: Value,
    handler: OnceLock<Arc<dyn Handler>>,
}

impl Served {
    fn new(task: TaskPlan) -> Self {
        Self { def: task.def, timeout: task.timeout, settings: task.settings, handler: OnceLock::new() }
    }
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    if served.handler.get().is_some() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}

async fn handle(State(served): State<Arc<Served>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(handler) = served.handler.get() else {
        return failure(&TaskError::retryable("the task is starting"));
    };
    match answer(&served, handler.as_ref(), &headers, body).await {
        Ok(tasks) => Json(Answer { tasks }).into_response(),
        Err(error) => failure(&error),
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
    let handling = guard_panic(async { handler.handle(&message, &cx).await });
    let outputs = tokio::time::timeout(served.timeout, handling).await.unwrap_or_else(|_| {
        Err(TaskError::with_cause(Cause::Timeout, format!("it took longer than its timeout of {:?}", served.timeout)))
    })?;
    // An output whose label ends the flow has no type that the caller knows, and nobody takes it.
    let taken = |output: &&Output| output.route.is_some() || served.def.routes.is_empty();
    outputs.iter().filter(taken).map(|output| item(served.def, output)).collect()
}

/// One output of an answer. What is JSON stays as it is, so that no number is rounded.
#[derive(Serialize)]
struct Item {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    label: Option<&'static str>,
    task: Box<RawValue>,
}

fn item(task: &TaskDef, output: &Output) -> Result<Item, TaskError> {
    let payload = match task.codec {
        Codec::Json => codec::decode(task.codec, &output.payload)?,
        Codec::MessagePack => to_raw_value(&codec::decode::<Value>(task.codec, &output.payload)?)?,
    };
    let label = output.route.and_then(|route| task.routes.get(route)).and_then(|route| route.label);
    Ok(Item { label, task: payload })
}

#[derive(Serialize)]
struct Answer {
    tasks: Vec<Item>,
}

fn failure(error: &TaskError) -> Response {
    let status = match error.cause() {
        Cause::Undecodable => StatusCode::BAD_REQUEST,
        Cause::Permanent => StatusCode::UNPROCESSABLE_ENTITY,
        Cause::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Cause::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        Cause::Error | Cause::WorkerDied => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = Json(json!({ "error": error.to_string(), "cause": error.cause().as_str(), "retryable": !error.is_permanent() }));
    let seconds = error.delay_asked_for().map_or(0, |delay| delay.as_secs());
    if error.is_permanent() || seconds == 0 {
        (status, body).into_response()
    } else {
        (status, [(http::header::RETRY_AFTER, seconds.to_string())], body).into_response()
    }
}
