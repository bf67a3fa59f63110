//! What the controller says of a topology.

#![allow(unreachable_pub, reason = "the derive copies each struct into a function of its own")]

use super::RemovedEdges;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the controller has made of a topology, and how it is. Only the controller writes it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The generation of the resource that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How the topology is, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The number of the revision that is deployed. It grows with each change that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The hash of the graph that is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_hash: Option<String>,
    /// How many tasks are ready, of how many: `4/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_ready: Option<String>,
    /// How many edges are ready, of how many: `6/6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges_ready: Option<String>,
    /// What holds: `Accepted` (the resource is valid), `SubscriptionsReady` (all topics and subscriptions are there) and `Ready` (all that
    /// was asked for runs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Each task that runs here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<PartStatus>,
    /// Each edge that is dispatched here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<PartStatus>,
    /// Edges that are no longer in the graph, and are being let go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<Retiring>,
}

/// How a topology is, in a word.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// All that was asked for runs.
    Ready,
    /// What was asked for is being made, or not all of it is ready.
    Progressing,
    /// The resource does not validate. What ran before goes on.
    Refused,
    /// Something that is needed cannot be reached or was refused; it is tried again.
    Failing,
}

impl State {
    /// Its name, as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Refused => "Refused",
            Self::Failing => "Failing",
        }
    }
}

/// Whether something holds, and why.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: String,
    /// The generation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How a task or an edge is.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartStatus {
    /// The task, or the edge as it stands in the graph.
    pub name: String,
    /// How many pods are asked for.
    pub replicas: i32,
    /// How many of them are ready and of the current revision.
    pub ready: i32,
    /// Why not all are ready, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An edge that is no longer in the graph.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retiring {
    /// The edge, as it stood in the graph.
    pub edge: String,
    /// What becomes of its backlog.
    pub policy: RemovedEdges,
    /// The topic of the edge.
    pub topic: String,
    /// The subscription of the edge.
    pub subscription: String,
    /// Where its messages wait to be tried again.
    pub retry_topic: String,
    /// What had been published on the topic when nobody used the edge any more: so much is handled before it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Its dispatcher is gone or going, and then its subscription goes.
    #[serde(default)]
    pub closing: bool,
}
