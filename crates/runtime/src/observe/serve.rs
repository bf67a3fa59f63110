//! `/metrics`, `/healthz` and `/readyz`. Nothing else is served, and nothing is taken in.

use super::Watch;
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use std::sync::Arc;

/// The form of Prometheus' text.
const TEXT: &str = "text/plain; version=0.0.4";

/// What the server answers.
pub(crate) fn router(watch: Arc<Watch>) -> Router {
    Router::new()
        .route("/metrics", get(async |State(watch): State<Arc<Watch>>| ([(header::CONTENT_TYPE, TEXT)], watch.text())))
        .route("/healthz", get(async |State(watch): State<Arc<Watch>>| answer(watch.is_alive())))
        .route("/readyz", get(async |State(watch): State<Arc<Watch>>| answer(watch.is_ready())))
        .fallback(async || (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"))
        .with_state(watch)
}

fn answer(is_well: Result<(), String>) -> Response {
    match is_well {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
