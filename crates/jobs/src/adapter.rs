//! What an adapter of a task is told. The controller writes it, and `leat jobs serve` reads it, so both know it, though only one of them knows Kubernetes' API.

use crate::Spec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// The container that lays out the message. It is the first of the pod's init containers.
pub const PREPARE: &str = "prepare";
/// The container of the program. It is the second, and starts when the first has ended well.
pub const WORKER: &str = "worker";
/// The container that takes what the program has left. It starts when all init containers have ended well, and never otherwise.
pub const COMMIT: &str = "commit";

/// Where the work folder is, in each of the three.
pub const WORKER_HOME: &str = "/work";
/// The folder in the program's image that arguments with `./` are below.
pub const WORKER_PROJECT: &str = "/app";

/// One task of one topology, as its adapter makes Jobs for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adapter {
    /// The topology.
    pub topology: String,
    /// The task.
    pub task: String,
    /// How messages are serialized: `json` or `messagepack`.
    pub codec: String,
    /// The routes of the task.
    pub routes: Vec<Route>,
    /// Labels that end the flow on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<String>,
    /// The edges that lead to the task, each with the value that its label has.
    pub edges: BTreeMap<String, String>,
    /// How long the program may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many messages are handled at once.
    pub parallelism: usize,
    /// How many attempts a message has before it goes to the dead letters.
    #[serde(default = "one")]
    pub attempts: u32,
    /// What is run.
    pub spec: Spec,
    /// What a Job belongs to, and goes with: an owner reference.
    pub owner: Value,
    /// The template of the pods: the containers [`PREPARE`], [`WORKER`] and [`COMMIT`] with everything but what differs from message to message.
    pub template: Value,
}

/// An output of the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its label, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The tasks behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

fn one() -> u32 {
    1
}

impl Adapter {
    /// How long the program may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How long a pod may take until its program runs: it waits for a node with room, and its images may have several gigabytes.
const START_MAX: Duration = Duration::from_secs(600);

/// How long copying files before and after the program may take, and whatever is to be noticed and written down.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How long a pod may take from its start on, if nobody ends its program before: then the node does, and keeps the log.
pub(crate) fn pod_deadline(timeout: Duration) -> Duration {
    START_MAX + timeout
}

/// How long a Job may take in all. It is longer than that of its pod, since a Job that takes too long is ended with the logs of its pods.
pub(crate) fn job_deadline(timeout: Duration) -> Duration {
    pod_deadline(timeout) + SETTLE_MAX
}

/// How long an adapter looks after a Job, whatever the cluster says.
pub(crate) fn watch_max(timeout: Duration) -> Duration {
    job_deadline(timeout) + SETTLE_MAX
}

/// How long making or finding a Job is tried: an API server that is started anew or replaced is back by then, and while it is away no message loses attempts.
pub(crate) const CALL_AGAIN_MAX: Duration = Duration::from_secs(300);

/// How long an adapter may take for one message of a task with this timeout: it may look for an earlier attempt, and see it through, before it begins its own.
pub fn answer_max(timeout: Duration) -> Duration {
    (watch_max(timeout) + CALL_AGAIN_MAX) * 2 + SETTLE_MAX
}
