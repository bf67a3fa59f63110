//! Tasks over HTTP: `POST /tasks/{type}/submit` with the task, `POST /tasks/submit_raw` with type and task. Both are answered when the broker has the message.

use super::select::{Envelope, Select};
use crate::{Codec, ids};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use leatworks_broker::{ErrorKind, Publish};
use serde_json::{json, value::RawValue};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

/// What the server needs.
pub(super) struct Submit {
    pub(super) select: Arc<Select>,
    /// The types that are taken: what has a topic or a handler.
    pub(super) kinds: BTreeSet<String>,
}

pub(super) fn router(submit: Arc<Submit>) -> Router {
    // The broker refuses what is too large for it with an error that says so; beyond twice that nothing is read.
    let limit = submit.select.broker.max_message_bytes().saturating_mul(2);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/tasks/submit_raw", post(raw))
        .route("/tasks/{kind}/submit", post(typed))
        .layer(DefaultBodyLimit::max(limit))
        .with_state(submit)
}

async fn typed(
    State(submit): State<Arc<Submit>>,
    kind: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Path(kind) = match kind {
        Ok(kind) => kind,
        Err(error) => return refused(error.status(), &error.body_text()),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => return unread(&submit, &error),
    };
    match serde_json::from_slice::<&RawValue>(&body) {
        Ok(task) => publish(&submit, &Envelope { kind: Cow::Owned(kind), task }).await,
        Err(error) => refused(StatusCode::BAD_REQUEST, &format!("the task is no JSON: {error}")),
    }
}

async fn raw(State(submit): State<Arc<Submit>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return unread(&submit, &error),
    };
    match serde_json::from_slice::<Envelope<'_>>(&body) {
        Ok(envelope) => publish(&submit, &envelope).await,
        Err(error) => refused(StatusCode::BAD_REQUEST, &format!("a task is `{{\"type\": …, \"task\": …}}`: {error}")),
    }
}

async fn publish(submit: &Submit, envelope: &Envelope<'_>) -> Response {
    if !submit.kinds.contains(envelope.kind.as_ref()) {
        let known = submit.kinds.iter().map(String::as_str).collect::<Vec<_>>().join("`, `");
        return refused(StatusCode::NOT_FOUND, &format!("nobody takes tasks of type `{}`; known are `{known}`", envelope.kind));
    }
    let payload = match serde_json::to_vec(envelope) {
        Ok(payload) => payload.into(),
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let topic = match submit.select.topic(&envelope.kind).await {
        Ok(topic) => topic,
        Err(error) => return refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let message = ids::new_root(payload, Codec::Json, None);
    let publish = Publish { topic, message: message.into(), sequence: None };
    match submit.select.broker.publish(vec![publish]).await {
        Ok(_) => Json(json!({ "successful": true })).into_response(),
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            refused(status, &error.to_string())
        }
    }
}

/// A body that was not taken in: mostly it is too long, and then nothing of the broker was asked.
fn unread(submit: &Submit, error: &BytesRejection) -> Response {
    let status = error.status();
    let text = match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            format!("the task is too large: a message has at most {} bytes", submit.select.broker.max_message_bytes())
        }
        _ => error.body_text(),
    };
    refused(status, &text)
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "successful": false, "error": error }))).into_response()
}
