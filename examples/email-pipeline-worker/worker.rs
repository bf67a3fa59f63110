//! The email pipeline as plain HTTP workers in Rust, with nothing of Leatworks in it: the twin of `worker.py`.
//!
//!     cargo run -p leatworks-cli --example email-pipeline-worker -- [PORT]
//!
//! Beside it, `leat dispatch` calls these workers (see dispatcher.toml), and one task starts it all:
//!
//!     curl -d '{}' http://127.0.0.1:2000/tasks/email-pipeline-start/submit

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{convert::Infallible, error::Error};
use tokio::net::TcpListener;

/// The largest task that is read: what a dispatcher sends is no larger.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A task that follows: its type, and what its worker gets.
#[derive(Serialize)]
struct Next {
    r#type: &'static str,
    task: Value,
}

#[derive(Clone, Deserialize, Serialize)]
struct User {
    name: String,
    email: String,
}

#[derive(Deserialize)]
struct ForUser {
    user: User,
}

#[derive(Deserialize)]
struct Mail {
    to: String,
}

fn next(kind: &'static str, task: Value) -> Next {
    Next { r#type: kind, task }
}

fn fetch_users() -> Vec<Next> {
    let users = [("Ada", "ada@example.com"), ("Grace", "grace@example.com"), ("Edsger", "edsger@example.com")];
    users.map(|(name, email)| next("generate-email", json!({ "user": { "name": name, "email": email } }))).into()
}

fn generate_email(ForUser { user }: ForUser) -> Vec<Next> {
    let text = format!("Dear {},\nthis is your mail.\n", user.name);
    vec![next("send-email", json!({ "to": user.email, "text": text }))]
}

fn send_email(Mail { to }: Mail) -> Vec<Next> {
    // Here the mail would leave. The same message may come again after a crash, with the same leat-message-id.
    vec![next("record-sent", json!({ "to": to }))]
}

/// What a worker makes of a task; none if there is no such worker.
fn work(kind: &str, task: &[u8]) -> Option<serde_json::Result<Vec<Next>>> {
    Some(match kind {
        "email-pipeline-start" => Ok(vec![next("fetch-users", json!({}))]),
        "fetch-users" => Ok(fetch_users()),
        "generate-email" => serde_json::from_slice(task).map(generate_email),
        "send-email" => serde_json::from_slice(task).map(send_email),
        "record-sent" => Ok(Vec::new()),
        _ => return None,
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let kind = parts.uri.path().trim_matches('/');
    let id = parts.headers.get("leat-message-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    println!("{kind} {id}");
    let told = |status: StatusCode, value: Value| {
        let mut response = Response::new(Full::from(value.to_string()));
        *response.status_mut() = status;
        Ok(response)
    };
    if parts.method != Method::POST {
        return told(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "a task is posted" }));
    }
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return told(StatusCode::BAD_REQUEST, json!({ "error": "the task did not come whole" }));
    };
    match work(kind, &body.to_bytes()) {
        Some(Ok(tasks)) => told(StatusCode::OK, json!({ "tasks": tasks })),
        // No other attempt would end better.
        Some(Err(error)) => {
            told(StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": format!("not a task for this worker: {error}") }))
        }
        None => told(StatusCode::NOT_FOUND, json!({ "error": "there is no such worker" })),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(3000), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("workers on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // Small answers on a kept connection must not wait for the caller's acknowledgement of the one before.
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
