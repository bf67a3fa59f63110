//! What is written about attempts and commits, and found again.

use crate::{Cause, Job, JobError, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most rounds of one attempt. Each is a redrive by a person, so more is a fault.
const ROUNDS_MAX: u32 = 10_000;

/// The name of an attempt's record below its folder.
pub(crate) const RECORD: &str = "attempt.json";

/// The name of an attempt's log below its folder.
const LOG: &str = "log.txt";

/// The name of a message's commit below its place.
pub(crate) const COMMIT: &str = "commit.json";

/// The name of what says that the Job of an attempt was made, below its folder.
#[cfg(feature = "kubernetes")]
const MADE: &str = "made.json";

/// An attempt that somebody is called for.
#[cfg(feature = "kubernetes")]
pub(crate) enum Called {
    /// It is to be made, or goes on.
    Open(Box<Attempt>),
    /// It has failed already, and whoever calls has not heard of it.
    Failed(JobError),
}

/// One attempt at one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The topology.
    pub topology: String,
    /// The task.
    pub task: String,
    /// The edge.
    pub edge: String,
    /// The message's identity.
    pub message: String,
    /// The root that it came of.
    pub root: String,
    /// The message in whose handling it was made, if that is known.
    pub parent: Option<String>,
    /// Which attempt it is, from 1 on.
    pub attempt: u32,
    /// Which round it is, from 1 on: a message that was given back from the dead letters has all of its attempts once more.
    pub round: u32,
    /// Who has run it: `process` or `kubernetes`.
    pub executor: String,
    /// The name of its job there.
    pub name: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended; none while it runs, and for ever if what ran it was killed.
    pub ended_ms: Option<u64>,
    /// What has become of it.
    pub state: State,
    /// The exit code of the worker, if it ended by itself.
    pub exit_code: Option<i32>,
    /// What kind of failure it was.
    pub cause: Option<Cause>,
    /// The text of the failure.
    pub error: Option<String>,
    /// Where its log lies in the store, if it has one.
    pub log: Option<String>,
    /// What the worker said about its work.
    pub insights: Option<Value>,
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs, or what ran it was killed.
    Begun,
    /// What it left is committed.
    Succeeded,
    /// It has failed.
    Failed,
}

/// What follows from a message: the first commit of a message counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Which attempt has made it.
    pub attempt: u32,
    /// Which round.
    pub round: u32,
    /// What follows, in order.
    pub events: Vec<Committed>,
    /// What the worker said about its work.
    pub insights: Option<Value>,
}

/// One thing that follows from a message, with its files in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The label of the route or the task behind it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// The payload, with its files under [`FILES_KEY`](crate::FILES_KEY).
    pub payload: Value,
}

/// Milliseconds since the Unix epoch; zero for a clock before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn too_many(job: &Job) -> JobError {
    JobError::permanent(format!("attempt {} has had {ROUNDS_MAX} rounds", job.attempt))
}

/// The folder of one round of an attempt.
pub(crate) fn folder(job: &Job, round: u32) -> String {
    let place = job.place();
    match round {
        1 => format!("{place}/{}", job.attempt),
        round => format!("{place}/{}.{round}", job.attempt),
    }
}

impl Attempt {
    /// Writes down that an attempt begins. An attempt of which there is a record already is a new round of it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn begin(store: &Store, job: &Job, executor: &str) -> Result<Self, JobError> {
        for round in 1..=ROUNDS_MAX {
            let attempt = Self::new(job, executor, round);
            if store.put_new(&format!("{}/{RECORD}", folder(job, round)), &attempt).await? {
                return Ok(attempt);
            }
        }
        Err(too_many(job))
    }

    /// The same, but an attempt that this executor has begun and that has not ended goes on: it belongs to whoever finds it. One that has failed is a new round only
    /// if its message was given back from the dead letters, of which a message has so many `attempts` before it goes there.
    ///
    /// # Errors
    /// If the store fails, or holds a record that cannot be read.
    #[cfg(feature = "kubernetes")]
    pub(crate) async fn called(store: &Store, job: &Job, executor: &str, attempts: u32) -> Result<Called, JobError> {
        let mut before: Option<Self> = None;
        for round in 1..=ROUNDS_MAX {
            let place = folder(job, round);
            if let Some(before) = &before
                && Self::at(store, &place).await?.is_none()
                && let Some(failure) = before.unheard(store, job, attempts).await?
            {
                return Ok(Called::Failed(failure));
            }
            let attempt = Self::new(job, executor, round);
            if store.put_new(&format!("{place}/{RECORD}"), &attempt).await? {
                return Ok(Called::Open(Box::new(attempt)));
            }
            match Self::at(store, &place).await? {
                Some(there) if there.ended_ms.is_none() && there.executor == executor => {
                    return Ok(Called::Open(Box::new(there)));
                }
                there => before = there,
            }
        }
        Err(too_many(job))
    }

    /// How it has failed, if whoever is called for it again cannot have heard that: a message that has, and was given back from the dead letters since, comes with its
    /// first attempt, after whatever it had before.
    #[cfg(feature = "kubernetes")]
    async fn unheard(&self, store: &Store, job: &Job, attempts: u32) -> Result<Option<JobError>, JobError> {
        let Some(failure) = self.failure() else { return Ok(None) };
        // This one may be heard of, dead and given back, and nothing tells.
        if self.attempt == 1 && (attempts <= 1 || failure.cause == Cause::Permanent) {
            return Ok(None);
        }
        for key in store.list(&job.place()).await? {
            // TOPOLOGY/ROOT/STEP/ATTEMPT/attempt.json: other files of this name lie deeper.
            if key.split('/').nth(4) == Some(RECORD)
                && store.get_json::<Self>(&key).await?.is_some_and(|other| other.order() > self.order())
            {
                return Ok(None);
            }
        }
        Ok(Some(failure))
    }

    /// By this the attempts at a message are in order.
    pub(crate) fn order(&self) -> (u64, u32, u32) {
        (self.started_ms, self.round, self.attempt)
    }

    /// How it has failed, if it has.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn failure(&self) -> Option<JobError> {
        let failed = self.state == State::Failed;
        Some(JobError::new(self.cause?, self.error.as_ref()?)).filter(|_| failed)
    }

    /// Writes down that its Job was made.
    ///
    /// # Errors
    /// If the store fails.
    #[cfg(feature = "kubernetes")]
    pub(crate) async fn made(&self, store: &Store, job: &Job) -> Result<(), JobError> {
        let key = format!("{}/{MADE}", folder(job, self.round));
        store.put_new(&key, &serde_json::json!({ "made_ms": now_ms() })).await.map(drop)
    }

    /// Whether its Job was made, as far as anybody could write that down.
    ///
    /// # Errors
    /// If the store fails.
    #[cfg(feature = "kubernetes")]
    pub(crate) async fn is_made(&self, store: &Store, job: &Job) -> Result<bool, JobError> {
        Ok(store.get(&format!("{}/{MADE}", folder(job, self.round))).await?.is_some())
    }

    /// The record of the attempt whose place this is, if there is one.
    ///
    /// # Errors
    /// If the store fails, or holds a record that cannot be read.
    #[cfg(feature = "kubernetes")]
    pub(crate) async fn at(store: &Store, place: &str) -> Result<Option<Self>, JobError> {
        store.get_json(&format!("{place}/{RECORD}")).await
    }

    fn new(job: &Job, executor: &str, round: u32) -> Self {
        Self {
            topology: job.topology.clone(),
            task: job.task.clone(),
            edge: job.edge.clone(),
            message: job.message.clone(),
            root: job.root.clone(),
            parent: job.parent.clone(),
            attempt: job.attempt,
            round,
            executor: executor.to_owned(),
            name: job.name(round),
            started_ms: now_ms(),
            ended_ms: None,
            state: State::Begun,
            exit_code: None,
            cause: None,
            error: None,
            log: None,
            insights: None,
        }
    }

    /// Keeps its log.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn keep_log(&mut self, store: &Store, job: &Job, log: Vec<u8>) -> Result<(), JobError> {
        let key = format!("{}/{LOG}", folder(job, self.round));
        store.put(&key, log.into()).await?;
        self.log = Some(key);
        Ok(())
    }

    /// Writes down how it has ended.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn end(&mut self, store: &Store, job: &Job, result: Result<&Commit, &JobError>) -> Result<(), JobError> {
        self.ended_ms = Some(now_ms());
        match result {
            Ok(commit) => {
                self.state = State::Succeeded;
                self.insights.clone_from(&commit.insights);
            }
            Err(error) => {
                self.state = State::Failed;
                self.cause = Some(error.cause);
                self.error = Some(error.to_string());
            }
        }
        store.put_json(&format!("{}/{RECORD}", folder(job, self.round)), self).await
    }

    /// All attempts at the messages of a root in a topology, oldest first.
    ///
    /// # Errors
    /// If the store fails, or holds a record that cannot be read.
    pub async fn of_root(store: &Store, topology: &str, root: &str) -> Result<Vec<Self>, JobError> {
        let mut attempts = Vec::new();
        for key in store.list(&format!("{topology}/{root}")).await? {
            if key.ends_with(&format!("/{RECORD}")) {
                attempts.extend(store.get_json::<Self>(&key).await?);
            }
        }
        attempts.sort_by_key(Self::order);
        Ok(attempts)
    }
}

impl Commit {
    /// What was committed for the message of a job, if anything was.
    ///
    /// # Errors
    /// If the store fails, or holds a record that cannot be read.
    pub async fn of(store: &Store, job: &Job) -> Result<Option<Self>, JobError> {
        store.get_json(&format!("{}/{COMMIT}", job.place())).await
    }

    /// Commits, unless somebody has done so for this message, and gives what counts.
    pub(crate) async fn make(self, store: &Store, job: &Job) -> Result<Self, JobError> {
        if store.put_new(&format!("{}/{COMMIT}", job.place()), &self).await? {
            return Ok(self);
        }
        let first = Self::of(store, job).await?;
        first.ok_or_else(|| JobError::failed("a commit of this message was there and is gone"))
    }
}
