//! Looks after a Job from its making to its end, and writes down what became of it.

use super::{
    Kubernetes,
    api::CallError,
    judge::{self, Seen},
};
use crate::{Attempt, Cause, Commit, Job, JobError, adapter, record};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;
use tokio::time::Instant;

/// How often a Job is looked at. A pod takes one to five seconds to start, so this adds little, and an API server bears some hundred of such looks at a time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a Job that was removed may take until its pods are gone: what is asked to end has 5 s unless the template says otherwise.
const END_MAX: Duration = Duration::from_secs(60);

/// How often removing a finished Job is tried. Then it stays until its time to live has passed.
const CLEAN_TRIES: u32 = 60;
const CLEAN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A Job as it is at some moment.
enum Look {
    /// There is none of this name.
    Gone,
    Seen(Seen, Vec<Pod>),
}

impl Kubernetes {
    /// Waits until a Job has ended, keeps its log, writes down what became of it, and removes it.
    pub(super) async fn see_through(&self, job: &Job, attempt: &mut Attempt) -> Result<Commit, JobError> {
        let _watch = self.watched.begin(&attempt.name);
        let result = self.watch(job, attempt).await;
        let result = result.map_err(|error| match &attempt.log {
            Some(log) => error.and(format!("log: {}", self.store.shown(log))),
            None => error,
        });
        attempt.end(&self.store, job, result.as_ref()).await?;
        self.clean(attempt.name.clone());
        result
    }

    async fn watch(&self, job: &Job, attempt: &mut Attempt) -> Result<Commit, JobError> {
        let began = Instant::now();
        let mut running: Option<Instant> = None;
        let mut waits = None;
        loop {
            match self.look(job, &attempt.name).await {
                Ok(Look::Gone) => return self.vanished(job, attempt).await,
                Ok(Look::Seen(Seen::Succeeded, pods)) => return self.succeeded(job, attempt, &pods).await,
                Ok(Look::Seen(Seen::Failed(failed), pods)) => {
                    attempt.exit_code = failed.exit_code;
                    self.keep_log(job, attempt, &pods).await;
                    // A commit that was made before the pod was ended from outside counts.
                    return Commit::of(&self.store, job).await?.ok_or_else(|| match waits {
                        // The pod that could say it is gone with the Job's deadline.
                        Some(waits) if failed.error.cause == Cause::Timeout => failed.error.and(waits),
                        _ => failed.error,
                    });
                }
                Ok(Look::Seen(Seen::Running, pods)) => {
                    waits = None;
                    // Clocks of nodes are not ours, so the time is taken here.
                    if running.get_or_insert_with(Instant::now).elapsed() > job.deadline {
                        return self.late(job, attempt, &pods).await;
                    }
                }
                Ok(Look::Seen(Seen::Starting(why), _)) => {
                    // The pod was replaced by another one, whose program has its own time.
                    running = None;
                    waits = why;
                }
                Ok(Look::Seen(Seen::Ending, _)) => {}
                Err(error) => {
                    tracing::warn!(name = attempt.name, %error, "a Job cannot be looked at just now");
                    tokio::time::sleep(error.again_after()).await;
                }
            }
            if began.elapsed() > adapter::watch_max(job.deadline) {
                return self.given_up(job, attempt, waits).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, job: &Job, name: &str) -> Result<Look, CallError> {
        let Some(object) = self.cluster.get(name).await? else { return Ok(Look::Gone) };
        let pods = self.cluster.pods(name).await?;
        Ok(Look::Seen(judge::judge(&object, &pods, &job.spec, job.deadline), pods))
    }

    async fn succeeded(&self, job: &Job, attempt: &mut Attempt, pods: &[Pod]) -> Result<Commit, JobError> {
        let commit = Commit::of(&self.store, job).await?;
        attempt.exit_code = Some(0);
        self.keep_log(job, attempt, pods).await;
        let nothing =
            || format!("the Job `{}` has ended well, and nothing is committed: its pod writes to another store", attempt.name);
        commit.ok_or_else(|| JobError::failed(nothing()))
    }

    /// Nobody is there to ask any more, so it counts what is written.
    async fn vanished(&self, job: &Job, attempt: &mut Attempt) -> Result<Commit, JobError> {
        if let Some(commit) = Commit::of(&self.store, job).await? {
            return Ok(commit);
        }
        // Another adapter may have seen it to its end.
        let written = Attempt::at(&self.store, &record::folder(job, attempt.round)).await?;
        if let Some((failure, log)) = written.and_then(|written| Some((written.failure()?, written.log))) {
            attempt.log = log;
            return Err(failure);
        }
        let name = &attempt.name;
        Err(JobError::failed(format!("the Job `{name}` is gone, removed by somebody else, and it had committed nothing")))
    }

    /// The program has had its time: it is ended.
    async fn late(&self, job: &Job, attempt: &mut Attempt, pods: &[Pod]) -> Result<Commit, JobError> {
        self.keep_log(job, attempt, pods).await;
        self.end(&attempt.name).await;
        // It may have come to its end at the last moment.
        let text = format!("the worker was ended, since it took longer than its timeout of {:?}", job.deadline);
        Commit::of(&self.store, job).await?.ok_or_else(|| JobError::new(Cause::Timeout, text))
    }

    /// The cluster should have ended the Job by itself, and has not.
    async fn given_up(&self, job: &Job, attempt: &mut Attempt, waits: Option<String>) -> Result<Commit, JobError> {
        self.end(&attempt.name).await;
        let why = waits.map(|why| format!(": {why}")).unwrap_or_default();
        let text = format!("the Job `{}` did not end within {:?}{why}", attempt.name, adapter::watch_max(job.deadline));
        Commit::of(&self.store, job).await?.ok_or_else(|| JobError::new(Cause::Timeout, text))
    }

    /// Removes a Job whose program runs, and waits until its pods are gone, so that the next attempt does not work beside this one.
    async fn end(&self, name: &str) {
        let began = Instant::now();
        let mut asked = false;
        while began.elapsed() < END_MAX {
            let done = match asked {
                false => self.cluster.delete(name, true).await.map(|()| asked = true).map(|()| false),
                true => self.cluster.get(name).await.map(|object| object.is_none()),
            };
            match done {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(name, %error, "a Job cannot be ended just now"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracing::warn!(name, "the pods of a Job that was ended are still there");
    }

    /// Keeps what the program has written. An attempt without its log has still ended as it has.
    async fn keep_log(&self, job: &Job, attempt: &mut Attempt, pods: &[Pod]) {
        let Some(pod) = judge::newest(pods).and_then(|pod| pod.metadata.name.as_deref()) else { return };
        match self.again_briefly(|| self.cluster.log(pod, job.spec.log)).await {
            Ok(log) => {
                if let Err(error) = attempt.keep_log(&self.store, job, log.into_bytes()).await {
                    tracing::warn!(pod, %error, "a log cannot be kept");
                }
            }
            Err(error) => tracing::warn!(pod, %error, "a log cannot be read"),
        }
    }

    pub(super) async fn again_briefly<T, F>(&self, call: impl Fn() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let began = Instant::now();
        loop {
            match call().await {
                Err(error) if !error.is_refusal() && began.elapsed() < adapter::CALL_AGAIN_MAX => {
                    tracing::debug!(%error, "asked again");
                }
                result => return result,
            }
            tokio::time::sleep(super::CALL_AGAIN_AFTER).await;
        }
    }

    /// Removes a Job whose outcome is written down. Nobody waits for that.
    pub(super) fn clean(&self, name: String) {
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            let mut said = String::new();
            for _ in 0..CLEAN_TRIES {
                let Err(error) = cluster.delete(&name, false).await else { return };
                if error.is_withheld() && said.is_empty() {
                    tracing::warn!(name, %error, "a finished Job cannot be removed just now");
                }
                said = error.to_string();
                tokio::time::sleep(CLEAN_AGAIN_AFTER).await;
            }
            tracing::warn!(name, error = said, "a finished Job is left to its time to live");
        });
    }
}
