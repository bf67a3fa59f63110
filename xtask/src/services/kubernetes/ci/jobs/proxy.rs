//! A proxy between the pods of a cluster and its API server, which answers in its place with what such servers answer at times, or not at all.
//!
//! It has the API server's own certificate. What pods send to the address of the service of the API goes to it, so that no client is told of it.

mod plan;

use super::super::super::{ApiServer, Cluster, address, control::SERVICE_OF_THE_API, credentials::Credentials};
use crate::ci::run_command;
use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::http1::SendRequest,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use plan::{Answer, Plan};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, oneshot},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// Where it listens.
const PORT: u16 = 6444;

/// How long a client is left without an answer: longer than the limit of every call.
const SILENCE: Duration = Duration::from_secs(20);

/// Whatever pods send there comes to the proxy.
const REDIRECT: &str = "--table nat --insert PREROUTING --source 10.244.0.0/16 --protocol tcp --dport 443";

type Content = UnsyncBoxBody<Bytes, hyper::Error>;

/// A proxy, which ends when this is dropped.
pub(super) struct Proxy {
    plan: Arc<Plan>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Proxy {
    /// Starts it, and leads the pods' calls there. Connections that are there already stay as they are.
    pub(super) fn start(cluster: &Cluster, seed: u64) -> Result<Self> {
        let plan = Arc::new(Plan::new(seed));
        let relay = Arc::new(Relay::new(cluster, plan.clone())?);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let network = cluster.network().clone();
        // The sockets of a thread belong to the network that it is in.
        let thread = std::thread::spawn(move || {
            network.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let listener = TcpListener::bind((address(1), PORT)).await.context("listening for the proxy")?;
                    let _ = ready.send(());
                    tokio::select! {
                        _ = stopped => Ok(()),
                        never = accept(listener, relay) => never,
                    }
                })
            })
        });
        if is_ready.recv().is_err() {
            return Err(thread.join().ok().and_then(Result::err).unwrap_or_else(|| anyhow!("the proxy did not start")));
        }
        let mut redirect = cluster.network().command("iptables");
        redirect.args(REDIRECT.split(' ')).args(["--destination", SERVICE_OF_THE_API, "--jump", "DNAT"]);
        run_command(redirect.args(["--to-destination", &format!("{}:{PORT}", address(1))]))?;
        Ok(Self { plan, stop: Some(stop), thread: Some(thread) })
    }

    /// What it has answered otherwise than the API server would have.
    pub(super) fn tally(&self) -> String {
        self.plan.tally()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What every connection needs.
struct Relay {
    acceptor: TlsAcceptor,
    server: ApiServer,
    plan: Arc<Plan>,
}

async fn accept(listener: TcpListener, relay: Arc<Relay>) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let relay = relay.clone();
        // How a connection ends is its client's affair.
        tokio::spawn(async move { relay.connection(client).await });
    }
}

impl Relay {
    fn new(cluster: &Cluster, plan: Arc<Plan>) -> Result<Self> {
        let file = |name: &str| Credentials::of(&cluster.folder).file(name);
        let certificate = vec![CertificateDer::from_pem_file(file("api.crt"))?];
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let server = server.with_safe_default_protocol_versions()?.with_no_client_auth();
        let server = server.with_single_cert(certificate, PrivateKeyDer::from_pem_file(file("api.key"))?)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), server: ApiServer::of(cluster)?, plan })
    }

    /// One connection of a client, with one of its own to the API server. They end together.
    async fn connection(self: Arc<Self>, client: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let client = self.acceptor.accept(client).await?;
        let (sender, server) = self.server.connect().await?;
        // A connection has one request at a time.
        let sender = Arc::new(Mutex::new(sender));
        let service = service_fn(|request| {
            let (relay, sender) = (self.clone(), sender.clone());
            async move { relay.answer(request, &mut *sender.lock().await).await }
        });
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await;
        server.abort();
        Ok(served?)
    }

    async fn answer(&self, request: Request<Incoming>, server: &mut SendRequest<Incoming>) -> Result<Response<Content>> {
        let watches =
            request.uri().query().is_some_and(|query| query.split('&').any(|word| matches!(word, "watch=true" | "watch=1")));
        match self.plan.next(request.method(), watches) {
            Answer::OfTheServer => Ok(pass(request, server).await?.map(BodyExt::boxed_unsync)),
            Answer::Refused(code) => Ok(status(code)),
            Answer::Done(code) => {
                pass(request, server).await?.into_body().collect().await?;
                Ok(status(code))
            }
            Answer::Silence => {
                let _ = pass(request, server).await?;
                tokio::time::sleep(SILENCE).await;
                Err(anyhow!("the proxy gives no answer"))
            }
            Answer::SilentWatch => {
                let (head, _) = pass(request, server).await?.into_parts();
                Ok(Response::from_parts(head, Silent.boxed_unsync()))
            }
        }
    }
}

async fn pass(request: Request<Incoming>, server: &mut SendRequest<Incoming>) -> Result<Response<Incoming>> {
    server.ready().await?;
    Ok(server.send_request(request).await?)
}

/// An answer as the API server would give it.
fn status(code: u16) -> Response<Content> {
    let reason = match code {
        409 => "AlreadyExists",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        _ => "Timeout",
    };
    let text = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": "by the proxy", "code": code,
    });
    let content = Full::new(Bytes::from(text.to_string())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(content);
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// A body that says nothing and does not end.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Poll::Pending
    }
}
