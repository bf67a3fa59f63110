//! `/metrics`, `/livez` and `/readyz`, over HTTP/1.1. Nothing else is served, and nothing is taken in.

use crate::{
    metrics::Metrics,
    watch::{PULSE_AGE_MAX, Pulse},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
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
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics, &health))));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).keep_alive(false);
            // A caller that goes away is its own affair.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, health: &Health) -> Response<Full<Bytes>> {
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
