//! Requests over HTTP/1.1 and their answers. Nothing else knows of HTTP.

use super::{
    super::Shared,
    answer::{Answer, Refused},
    limits::{
        ANSWER_TIME_MAX, BODY_BYTES_MAX, BODY_TIME_MAX, CONNECTION_TIME_MAX, HEADER_BYTES_MAX, HEADER_TIME_MAX, HEADERS_MAX,
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::{convert::Infallible, sync::Arc};
use tokio::{net::TcpStream, sync::watch, time::timeout};

/// What is asked for.
pub(super) struct Ask {
    pub(super) method: Method,
    /// The parts of the path, decoded.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    /// What came with it; null if nothing did.
    pub(super) body: Value,
}

impl Ask {
    /// What a parameter says.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Answers the requests of one connection until its client leaves or the server stops.
pub(super) async fn connection(shared: Arc<Shared>, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    // An answer is written at once, and is small.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(&shared, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // It fails when the server is gone, and then nobody waits for an answer either.
    let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => finish(connection.as_mut()).await,
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => finish(connection.as_mut()).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin API ends");
    }
}

/// Answers what has been asked for, and takes nothing more.
async fn finish<S>(mut connection: std::pin::Pin<&mut http1::Connection<TokioIo<TcpStream>, S>>) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    connection.as_mut().graceful_shutdown();
    timeout(ANSWER_TIME_MAX, connection).await.unwrap_or(Ok(()))
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let answer = answer(shared, request).await;
    let (status, body) = match answer {
        Ok(Answer::Empty) => (StatusCode::NO_CONTENT, Bytes::new()),
        Ok(Answer::Json(value)) => (StatusCode::OK, value.to_string().into()),
        Err(Refused { status, reason }) => {
            tracing::debug!(what, %status, reason, "the admin API refuses");
            (status, serde_json::json!({ "reason": reason }).to_string().into())
        }
    };
    let is_empty = body.is_empty();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if !is_empty {
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Bearer"));
    }
    response
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Refused> {
    let (head, body) = request.into_parts();
    // Nothing of the body is read of somebody who may not come in.
    admit(shared, &head.headers)?;
    let bad = |why: &str| Refused::new(StatusCode::BAD_REQUEST, why);
    let path = head.uri.path().split('/').filter(|part| !part.is_empty()).map(decoded).collect::<Option<Vec<String>>>();
    let path = path.ok_or_else(|| bad("the path is not UTF-8 in percent-encoding"))?;
    let query = head.uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let query = query
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| bad("the query is not UTF-8 in percent-encoding"))?;
    let late = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {BODY_TIME_MAX:?}"));
    let body = timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await.map_err(late)?;
    let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
        true => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {BODY_BYTES_MAX} bytes")),
        false => bad("the body could not be read"),
    })?;
    let body = match body.to_bytes() {
        empty if empty.iter().all(u8::is_ascii_whitespace) => Value::Null,
        bytes => serde_json::from_slice(&bytes).map_err(|error| bad(&format!("the body is no JSON: {error}")))?,
    };
    let ask = Ask { method: head.method, path, query, body };
    let late = |_| Refused::new(StatusCode::SERVICE_UNAVAILABLE, format!("the broker did not do it within {ANSWER_TIME_MAX:?}"));
    timeout(ANSWER_TIME_MAX, super::routes::answer(shared, &ask)).await.map_err(late)?
}

/// Whether somebody may ask.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(), Refused> {
    let forbidden = |why: &str| Err(Refused::new(StatusCode::FORBIDDEN, why));
    // A page of any site can make a browser on this machine send a request here; a browser says so.
    if headers.contains_key(ORIGIN) {
        return forbidden("pages in browsers are not served");
    }
    let Some(key) = &shared.options.token_key else {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // A name that was pointed here would make this the page's own site.
        return if is_this_machine(host) {
            Ok(())
        } else {
            forbidden("without tokens the host has to be `localhost` or an address")
        };
    };
    let unauthorized = |why: String| Refused::new(StatusCode::UNAUTHORIZED, why);
    let given = headers.get(AUTHORIZATION).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let (scheme, token) = given.split_once(' ').unwrap_or((given, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized("a token is needed".to_owned()));
    }
    key.check(token.trim().as_bytes()).map(drop).map_err(unauthorized)
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

/// Text without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        out.push(match byte {
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_or_refused() {
        for (text, expected) in
            [("a-b.C_9", Some("a-b.C_9")), ("a%2Fb%20", Some("a/b ")), ("%zz", None), ("%f", None), ("%ff", None)]
        {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_this_machine() {
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("example.com:8080", false),
            ("localhost.example.com", false),
            ("", false),
        ] {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }
}
