//! The API server as jobs use it: few calls, each with a limit in time. Nothing is watched: what is asked anew cannot have been missed.

use super::{CALL_AGAIN_AFTER, WITHHELD_AGAIN_AFTER, object};
use crate::{Adapter, Job, WORKER, log::Log};
use futures_util::AsyncReadExt;
use k8s_openapi::api::{batch::v1::Job as Object, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, PostParams, PropagationPolicy},
};
use std::{future::Future, sync::Arc, time::Duration};

/// How long one call may take. A server that is alive answers within a second; one behind a dead connection never does.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);

/// How long reading a log may take: some megabytes of it, from a node.
const LOG_TIME_MAX: Duration = Duration::from_secs(30);

/// How much of a log is read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// How many Jobs are asked for at a time.
const PAGE: u32 = 250;

/// A call has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{0}")]
    Api(Box<kube::Error>),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("reading what is sent: {0}")]
    Read(std::io::Error),
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl CallError {
    /// The status that the API server has answered with.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::TimedOut(_) | Self::Read(_) => None,
        }
    }

    /// The server has looked at it and says no, for a reason that does not pass by itself within a minute. Everything else may have been done or not.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 401 | 403 | 404 | 405 | 413 | 415 | 422))
    }

    /// The server refuses what it would do if somebody gave back a right, or had a quota that is not used up: no fault of the message, and soon mended.
    pub(super) fn is_withheld(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// How long to wait before the call is made again.
    pub(super) fn again_after(&self) -> Duration {
        if self.is_withheld() { WITHHELD_AGAIN_AFTER } else { CALL_AGAIN_AFTER }
    }
}

/// The Jobs of one task in one namespace.
#[derive(Clone)]
pub(super) struct Cluster {
    jobs: Api<Object>,
    pods: Api<Pod>,
    adapter: Arc<Adapter>,
}

impl Cluster {
    pub(super) fn new(client: Client, namespace: &str, adapter: Arc<Adapter>) -> Self {
        Self { jobs: Api::namespaced(client.clone(), namespace), pods: Api::namespaced(client, namespace), adapter }
    }

    /// Makes a Job.
    pub(super) async fn create(&self, object: &Object) -> Result<(), CallError> {
        within(CALL_TIME_MAX, self.jobs.create(&PostParams::default(), object)).await.map(drop)
    }

    /// The Job of this name, if there is one. The server asks its store, so what is not there is gone.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Object>, CallError> {
        within(CALL_TIME_MAX, self.jobs.get_opt(name)).await
    }

    /// The pods of a Job.
    pub(super) async fn pods(&self, name: &str) -> Result<Vec<Pod>, CallError> {
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        Ok(within(CALL_TIME_MAX, self.pods.list(&params)).await?.items)
    }

    /// The Jobs of all attempts at a message.
    pub(super) async fn of_message(&self, job: &Job) -> Result<Vec<Object>, CallError> {
        let params = ListParams::default().labels(&object::selector_of(&self.adapter, job));
        Ok(within(CALL_TIME_MAX, self.jobs.list(&params)).await?.items)
    }

    /// All Jobs of the task.
    pub(super) async fn all(&self) -> Result<Vec<Object>, CallError> {
        let mut params = ListParams::default().labels(&object::selector(&self.adapter)).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = within(CALL_TIME_MAX, self.jobs.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_ {
                Some(next) if !next.is_empty() => params = params.continue_token(&next),
                _ => return Ok(all),
            }
        }
    }

    /// Removes a Job. In the foreground it is there until its pods are gone.
    pub(super) async fn delete(&self, name: &str, foreground: bool) -> Result<(), CallError> {
        let policy = if foreground { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        match within(CALL_TIME_MAX, self.jobs.delete(name, &params)).await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    /// What a pod's program has written so far: the beginning and the end of it.
    pub(super) async fn log(&self, pod: &str, bytes_max: u64) -> Result<Log, CallError> {
        let params = LogParams { container: Some(WORKER.to_owned()), ..LogParams::default() };
        let read = async {
            let mut stream = std::pin::pin!(self.pods.log_stream(pod, &params).await?);
            let mut log = Log::new(bytes_max);
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                match stream.read(&mut chunk).await.map_err(CallError::Read)? {
                    0 => return Ok(log),
                    count => log.add(&chunk[..count]),
                }
            }
        };
        tokio::time::timeout(LOG_TIME_MAX, read).await.unwrap_or(Err(CallError::TimedOut(LOG_TIME_MAX)))
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::TimedOut(limit)),
    }
}
