//! The executor for Kubernetes: each attempt is a Job.
//!
//! A Job has one pod with three containers that start in order, as Kubernetes itself guarantees: [`prepare`] and the program are init containers, and
//! [`commit`] is the one behind them, which starts only when both have ended well.
//!
//! What a Job is called follows from its attempt, and what became of it is in the store. So whoever comes after an adapter that was killed finds
//! the Job, takes it up where it is, and makes no second one.

mod api;
mod inside;
mod judge;
mod object;
mod sweep;
mod watch;

pub use inside::{JOB_KEY, POD, commit, prepare};

use crate::adapter::CALL_AGAIN_MAX;
use crate::{
    Adapter, Attempt, BoxFuture, Cause, Commit, Executor, Job, JobError, Store,
    record::{self, Called},
};
use api::{CallError, Cluster};
use k8s_openapi::api::batch::v1::Job as Object;
use kube::Client;
use std::{sync::Arc, time::Duration};
use sweep::Watched;
use tokio::time::Instant;

/// As attempts say who has run them.
const EXECUTOR: &str = "kubernetes";

/// How long between two tries.
const CALL_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long between two tries where the server says that it may not be: a right that somebody took away by mistake, or a quota that is used up. Messages wait for it as they do for a server
/// that is away.
const WITHHELD_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How often it is looked for a Job whose making is not answered: an API server that has nothing else to do answers sooner.
const LOOK_FOR_IT_EVERY: Duration = Duration::from_millis(250);

/// Runs workers as Jobs of a cluster.
#[derive(Clone)]
pub struct Kubernetes {
    cluster: Cluster,
    store: Store,
    adapter: Arc<Adapter>,
    watched: Watched,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes")
            .field("topology", &self.adapter.topology)
            .field("task", &self.adapter.task)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Makes Jobs in this namespace. The store must be one that the pods reach, too.
    pub fn new(client: Client, namespace: &str, store: Store, adapter: Adapter) -> Self {
        let adapter = Arc::new(adapter);
        Self { cluster: Cluster::new(client, namespace, adapter.clone()), store, adapter, watched: Watched::default() }
    }

    /// Whether Jobs can be found, as far as that is known before the first one is made.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn check(&self) -> Result<(), JobError> {
        let found = self.again_briefly(|| self.cluster.all()).await;
        found.map(drop).map_err(|error| JobError::failed(format!("finding Jobs: {error}")))
    }

    /// Tries a call for a while that may succeed later.
    async fn again<T, F>(&self, doing: &str, call: impl Fn() -> F) -> Result<T, JobError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let began = Instant::now();
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) if error.is_refusal() && !error.is_withheld() || began.elapsed() > CALL_AGAIN_MAX => {
                    return Err(JobError::failed(format!("{doing}: {error}")));
                }
                Err(error) => {
                    tracing::warn!(doing, %error, "the API server is asked again");
                    tokio::time::sleep(error.again_after()).await;
                }
            }
        }
    }

    /// The attempts at this message whose Jobs are there, and of which nobody has written down the end: the earliest first.
    async fn unseen(&self, job: &Job) -> Result<Vec<(Job, Attempt)>, JobError> {
        let objects = self.again("finding the Jobs of the message", || self.cluster.of_message(job)).await?;
        let mut unseen = Vec::new();
        for object in objects {
            let Some(place) = object.metadata.annotations.as_ref().and_then(|all| all.get(object::PLACE)) else { continue };
            let Some(attempt) = Attempt::at(&self.store, place).await? else { continue };
            let is_of_it = attempt.message == job.message && attempt.edge == job.edge && attempt.topology == job.topology;
            if is_of_it && attempt.ended_ms.is_none() && object.metadata.name.as_deref() == Some(&attempt.name) {
                unseen.push((Job { attempt: attempt.attempt, ..job.clone() }, attempt));
            }
        }
        unseen.sort_by_key(|(_, attempt)| (attempt.round, attempt.attempt));
        Ok(unseen)
    }

    async fn run(&self, job: &Job) -> Result<Commit, JobError> {
        if let Some(commit) = Commit::of(&self.store, job).await? {
            return Ok(commit);
        }
        for (earlier, mut attempt) in self.unseen(job).await? {
            tracing::info!(name = attempt.name, attempt = attempt.attempt, id = job.message, "a Job is taken up");
            match self.see_through(&earlier, &mut attempt).await {
                // An earlier attempt has failed, and was counted as one. This one is still to be made.
                Err(error) if error.cause != Cause::Permanent && attempt.attempt != job.attempt => {
                    tracing::info!(name = attempt.name, %error, "the attempt before has failed");
                }
                result => return result,
            }
        }
        let mut attempt = match Attempt::called(&self.store, job, EXECUTOR, self.adapter.attempts).await? {
            Called::Open(attempt) => attempt,
            Called::Failed(failure) => return Err(failure),
        };
        // One that was made and is gone is not made again: its program has run, wholly or in part.
        if !attempt.is_made(&self.store, job).await? {
            if let Err(error) = self.create(job, &attempt).await {
                // What is not known to be refused may have been made: then the attempt is open, and whoever comes next finds it.
                if error.cause == Cause::Permanent {
                    attempt.end(&self.store, job, Err(&error)).await?;
                }
                return Err(error);
            }
            if let Err(error) = attempt.made(&self.store, job).await {
                tracing::warn!(name = attempt.name, %error, "it cannot be written down that a Job is made");
            }
        }
        self.see_through(job, &mut attempt).await
    }

    /// Makes the Job of an attempt, unless it is there.
    async fn create(&self, job: &Job, attempt: &Attempt) -> Result<(), JobError> {
        let place = record::folder(job, attempt.round);
        let key = inside::write(&self.store, job, &place, attempt.round).await?;
        let object = object::object(&self.adapter, job, &attempt.name, &place, &key)?;
        let doing = format!("making the Job `{}`", attempt.name);
        let began = Instant::now();
        loop {
            let error = match self.made_or_found(&object, &attempt.name).await {
                Ok(None) => {
                    tracing::info!(name = attempt.name, attempt = job.attempt, id = job.message, "a Job is made");
                    return Ok(());
                }
                Ok(Some(there)) => return is_the_same(&object, &there),
                Err(error) => error,
            };
            if matches!(error.code(), Some(400 | 413 | 422)) {
                return Err(JobError::permanent(format!("{doing}: the API server refuses it: {error}")));
            }
            if error.is_refusal() && !error.is_withheld() {
                return Err(JobError::failed(format!("{doing}: {error}")));
            }
            // It may have been made all the same, unless it was refused.
            if !error.is_withheld()
                && let Some(there) = self.again(&doing, || self.cluster.get(&attempt.name)).await?
            {
                return is_the_same(&object, &there);
            }
            if began.elapsed() > CALL_AGAIN_MAX {
                return Err(JobError::failed(format!("{doing}: it is not there, and the API server says: {error}")));
            }
            tracing::warn!(name = attempt.name, %error, "the Job is made again");
            tokio::time::sleep(error.again_after()).await;
        }
    }

    /// Makes a Job, and gives the one that is there if that is seen before there is an answer: a Job that nobody knows to be made may be gone when it is looked for late, and
    /// would be made a second time.
    async fn made_or_found(&self, object: &Object, name: &str) -> Result<Option<Object>, CallError> {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_FOR_IT_EVERY).await;
                if let Ok(Some(there)) = self.cluster.get(name).await {
                    return there;
                }
            }
        };
        tokio::select! {
            made = self.cluster.create(object) => made.map(|()| None),
            there = looking => Ok(Some(there)),
        }
    }
}

impl Executor for Kubernetes {
    fn execute<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Commit, JobError>> {
        Box::pin(self.run(job))
    }
}

/// Whether what is there under a name is what was to be made.
fn is_the_same(wanted: &Object, there: &Object) -> Result<(), JobError> {
    let of = |object: &Object, name: &str| object.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let names = [object::TOPOLOGY, object::TASK, object::EDGE, object::STEP, object::ATTEMPT];
    if names.iter().all(|name| of(wanted, name) == of(there, name)) {
        return Ok(());
    }
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    Err(JobError::permanent(format!(
        "a Job `{name}` is there already and is not of this attempt: its labels are others; remove it"
    )))
}

#[cfg(test)]
mod tests;
