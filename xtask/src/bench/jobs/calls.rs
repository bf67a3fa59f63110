//! The calls of the two: of the adapter, as a dispatcher calls it, and of the API server, as a loop does that knows nothing of messages.

use crate::services::kubernetes::ApiServer;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinSet};

/// How long all of it may take: thirty pods on two busy cores end within a minute and a half.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often Jobs are counted: a list of one tells how many others there are.
const COUNT_AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked whether Jobs have ended: as often as an adapter looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

type Sender = SendRequest<Full<Bytes>>;

/// The adapter of a task.
pub(super) struct Adapter<'a> {
    pub(super) address: &'a str,
    /// Tells the messages of rounds apart.
    pub(super) round: usize,
}

/// The Jobs of a namespace.
pub(super) struct Jobs {
    pub(super) server: ApiServer,
    pub(super) namespace: &'static str,
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("not done within {PATIENCE:?}"))? })
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

impl Adapter<'_> {
    /// Calls it with so many messages at once. Each call ends when its Job has.
    fn call(&self, what: u32, count: usize) -> JoinSet<Result<()>> {
        let mut calls = JoinSet::new();
        for number in 0..count {
            let (address, id) = (self.address.to_owned(), format!("{what:08x}{:012x}{number:012x}", self.round));
            calls.spawn(async move {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(&address).await?)).await?;
                tokio::spawn(connection);
                let request = Request::post("/").header(header::HOST, &address).header(header::CONTENT_TYPE, "application/json");
                let request = request.header("leat-message-id", &id).header("leat-root-id", &id).header("leat-attempt", "1");
                let request = request.header("leat-topology", super::TOPOLOGY).header("leat-edge", super::EDGE);
                let (status, body) = ask(&mut sender, request.body(Full::from("{}"))?).await?;
                ensure!(status.is_success(), "the adapter answers {status}: {}", String::from_utf8_lossy(&body));
                Ok(())
            });
        }
        calls
    }

    /// How long it takes until so many messages have their Jobs. The calls are given up then.
    pub(super) fn until_made(&self, jobs: &Jobs, count: usize) -> Result<Duration> {
        block_on(async {
            let mut sender = jobs.connect().await?;
            let began = Instant::now();
            let mut calls = self.call(1, count);
            loop {
                if jobs.count(&mut sender).await? >= count {
                    return Ok(began.elapsed());
                }
                if let Some(ended) = calls.try_join_next() {
                    ended??;
                    bail!("a call has ended while no pod could start");
                }
                tokio::time::sleep(COUNT_AGAIN).await;
            }
        })
    }

    /// How long it takes until so many messages are answered.
    pub(super) fn until_answered(&self, count: usize) -> Result<Duration> {
        block_on(async {
            let began = Instant::now();
            let mut calls = self.call(2, count);
            while let Some(ended) = calls.join_next().await {
                ended??;
            }
            Ok(began.elapsed())
        })
    }
}

impl Jobs {
    async fn connect(&self) -> Result<Sender> {
        Ok(self.server.connect().await?.0)
    }

    async fn api(&self, sender: &mut Sender, method: Method, query: &str, body: Bytes) -> Result<Value> {
        let path = format!("/apis/batch/v1/namespaces/{}/jobs{query}", self.namespace);
        let request = Request::builder().method(method).uri(path).header(header::HOST, "kubernetes");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.server.token()));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let (status, body) = ask(sender, request).await?;
        ensure!(status.is_success(), "the API server answers {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// How many there are.
    async fn count(&self, sender: &mut Sender) -> Result<usize> {
        let list = self.api(sender, Method::GET, "?limit=1", Bytes::new()).await?;
        let others = list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
        Ok(list["items"].as_array().map_or(0, Vec::len) + usize::try_from(others)?)
    }

    /// Makes these Jobs by other names, one after another on one connection, and waits until they have ended, if that is asked for. Gives how long it took.
    pub(super) fn make(&self, objects: &[Value], until_ended: bool) -> Result<Duration> {
        let renamed = objects.iter().enumerate().map(|(number, object)| {
            let mut object = object.clone();
            object["metadata"]["name"] = format!("bare-{number}").into();
            Bytes::from(object.to_string())
        });
        let bodies: Vec<Bytes> = renamed.collect();
        block_on(async {
            let mut sender = self.connect().await?;
            let began = Instant::now();
            for body in bodies {
                self.api(&mut sender, Method::POST, "", body).await?;
            }
            while until_ended && !self.have_ended(&mut sender).await? {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(began.elapsed())
        })
    }

    async fn have_ended(&self, sender: &mut Sender) -> Result<bool> {
        let list = self.api(sender, Method::GET, "", Bytes::new()).await?;
        let jobs = list["items"].as_array().context("a list has items")?;
        if let Some(failed) = jobs.iter().find(|job| job["status"]["failed"].as_u64().is_some_and(|count| count > 0)) {
            bail!("a Job has failed: {}", failed["status"]);
        }
        Ok(jobs.iter().all(|job| job["status"]["succeeded"] == 1))
    }
}
