//! `/metrics`, `/livez` and `/readyz`, over HTTP/1.1. Nothing else is served, and nothing is taken in.

use crate::{
    metrics::Metrics,
    watch::{PULSE_AGE_MAX, Pulse},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections at once: a few kubelets and scrapers.
const CONNECTIONS_MAX: usize = 32;

/// How long a request's head may take to come.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the parts of the controller are alive.
#[derive(Clone, Default)]
pub(crate) struct Health {
    pulses: Arc<Mutex<Vec<Pulse>>>,
}

impl Health {
    /// What has to have a pulse from now on. A controller that does not lead has nothing that could be stuck.
    pub(crate) fn watches(&self, pulses: Vec<Pulse>) {
        *self.pulses.lock().unwrap_or_else(PoisonError::into_inner) = pulses;
    }

    fn is_alive(&self) -> bool {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|pulse| pulse.age() < PULSE_AGE_MAX)
    }
}

/// Listens.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Health) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (metrics, health) = (metrics.clone(), health.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics, &health)))
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).keep_alive(false);
            // A caller that goes away is its own affair.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, health: &Health) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics.text()),
        (&Method::GET, "/livez" | "/readyz") if health.is_alive() => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/livez" | "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("a watch or the queue has given no sign of life for {PULSE_AGE_MAX:?}\n"))
        }
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(health: &Health, method: Method, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        answer(&request, &Metrics::default(), health).status()
    }

    #[tokio::test(start_paused = true)]
    async fn what_gives_no_sign_of_life_fails_the_probes_after_a_minute() {
        let health = Health::default();
        let probes = |health: &Health| ["/livez", "/readyz"].map(|path| status(health, Method::GET, path));
        tokio::time::advance(2 * PULSE_AGE_MAX).await;
        assert_eq!(probes(&health), [StatusCode::OK; 2], "nothing could be stuck where nobody leads");
        let (lively, silent) = (Pulse::default(), Pulse::default());
        health.watches(vec![lively.clone(), silent.clone()]);
        tokio::time::advance(PULSE_AGE_MAX - Duration::from_secs(1)).await;
        lively.beat();
        assert_eq!(probes(&health), [StatusCode::OK; 2]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(probes(&health), [StatusCode::SERVICE_UNAVAILABLE; 2], "one that is silent is enough");
        silent.beat();
        assert_eq!(probes(&health), [StatusCode::OK; 2], "it is back");
        tokio::time::advance(2 * PULSE_AGE_MAX).await;
        health.watches(Vec::new());
        assert_eq!(probes(&health), [StatusCode::OK; 2], "the lead is lost");
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let health = Health::default();
        for (method, path, expected) in [
            (Method::GET, "/metrics", StatusCode::OK),
            (Method::GET, "/", StatusCode::NOT_FOUND),
            (Method::GET, "/livez/", StatusCode::NOT_FOUND),
            (Method::POST, "/livez", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            assert_eq!(status(&health, method.clone(), path), expected, "{method} {path}");
        }
    }
}
