//! What a user asks for. The sentences of the fields are what `kubectl explain` says.

#![allow(unreachable_pub, reason = "the derive copies each struct into a function of its own")]

use super::{EnvSource, EnvVar, JobFiles, KeyRef, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A graph of tasks that messages flow through, and how it is run.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "leatworks.dev",
    version = "v1alpha1",
    kind = "Topology",
    plural = "topologies",
    shortname = "topo",
    category = "leatworks",
    category = "all",
    namespaced,
    status = "TopologyStatus",
    derive = "PartialEq",
    doc = "A graph of tasks that messages flow through, run on this cluster: a worker for each task and a dispatcher for each edge.",
    validation = Rule::new("self.metadata.name.matches('^[a-z][a-z0-9-]*$') && size(self.metadata.name) <= 63").message("a topology is called by lower-case letters, digits and hyphens, at most 63, beginning with a letter"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "How the topology is, in a word"),
    printcolumn(name = "Tasks", type_ = "string", json_path = ".status.tasksReady", description = "Tasks that are ready, of all that run here"),
    printcolumn(name = "Edges", type_ = "string", json_path = ".status.edgesReady", description = "Edges that are ready, of all"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision", description = "The revision that is deployed", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "Why it is not ready", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "When it was made")
)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpec {
    /// The graph as Mermaid text, exactly as the build has checked it.
    #[schemars(length(min = 1, max = 262144))]
    pub graph: String,
    /// The hash of the graph and its tasks as the build has checked them. A resource whose graph was changed by hand is refused: its image
    /// knows only the graph that it was built from. `leat k8s render` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub graph_hash: Option<String>,
    /// How messages are serialized on the edges.
    #[serde(default)]
    pub codec: Codec,
    /// The image that holds the binaries of the topology and its tasks, in `/app`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// When the kubelet pulls images. Without it Kubernetes decides by the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of secrets in this namespace that hold the credentials of registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,
    /// The Pulsar service that carries the messages.
    pub broker: Broker,
    /// Settings of tasks. A node of the graph that is not named here is a Rust task with the usual settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub tasks: Vec<TaskSpec>,
    /// Settings of edges. An edge of the graph that is not named here has one dispatcher.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["edge".to_owned()]))]
    pub edges: Vec<EdgeSpec>,
    /// What becomes of the backlog of an edge that a change takes out of the graph.
    #[serde(default)]
    pub removed_edges: RemovedEdges,
    /// Where jobs keep their files. Needed by topologies with tasks of kind Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<JobFiles>,
    /// Environment variables of workers, dispatchers, the run, and the programs of jobs. Adapters of jobs, and what lays out and takes in their files, do not get
    /// them: credentials of the store of files are in `jobs.secrets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub env: Vec<EnvVar>,
    /// Secrets and config maps whose keys are environment variables of the same containers as `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvSource>,
    /// Laid over the template of every pod: a pod template of Kubernetes, with what is to be added or changed. The pod must then still keep
    /// to the Pod Security Standard `restricted`, or the resource is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub pod_template: Option<Value>,
    /// How many revisions are kept for `leat rollback`.
    #[serde(default = "revisions_kept")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: i32,
}

/// How many revisions are kept unless the resource says otherwise.
pub const REVISIONS_KEPT: i32 = 10;

fn revisions_kept() -> i32 {
    REVISIONS_KEPT
}

fn one() -> i32 {
    1
}

/// An object that only its reader checks.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// How messages are serialized.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// JSON.
    #[default]
    #[serde(rename = "json")]
    Json,
    /// MessagePack.
    #[serde(rename = "messagepack")]
    MessagePack,
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// With each start of a container.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

/// What becomes of the backlog of an edge that is taken out of the graph.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemovedEdges {
    /// Its dispatcher goes on until what was published before the change is handled, then the subscription goes. An edge into a fold or sink has no dispatcher: if anything waits
    /// there when the run has been replaced, it is parked, and an event says so.
    #[default]
    Drain,
    /// Its dispatcher goes at once and the subscription stays, with its backlog and with what else is published on its topic, until the edge comes back.
    Park,
    /// Its dispatcher and its subscription go at once, with the backlog.
    Drop,
}

/// The Pulsar service that carries the messages.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broker {
    /// Its address, `pulsar://HOST:PORT` or `pulsar+ssl://HOST:PORT`.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^pulsar([+]ssl)?://[^ ]+$')").message("the address of a Pulsar service is `pulsar://HOST:PORT` or `pulsar+ssl://HOST:PORT`"))]
    pub url: String,
    /// Where its admin API is; by default port 8080 of the same host, 8443 with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^ ]+$')").message("the admin API is at `http://HOST:PORT` or `https://HOST:PORT`"))]
    pub admin_url: Option<String>,
    /// The tenant.
    #[serde(default = "public")]
    #[schemars(length(min = 1, max = 255))]
    pub tenant: String,
    /// The tenant's namespace, which must exist.
    #[serde(default = "usual")]
    #[schemars(length(min = 1, max = 255))]
    pub namespace: String,
    /// The key of a Secret that holds the token by which the service knows who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<KeyRef>,
    /// The key of a Secret that holds the certificates, in PEM, that the service's is checked by. Needed with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<KeyRef>,
}

fn public() -> String {
    "public".to_owned()
}

fn usual() -> String {
    "default".to_owned()
}

/// A task of the graph.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.kind == 'Worker' || !has(self.url)").message("only a task of kind Worker has a `url`"),
    validation = Rule::new("self.kind != 'Worker' || has(self.url) != has(self.image)").message("a task of kind Worker has either the `url` of a server that runs already, or an `image` that is run here"),
    validation = Rule::new("self.kind != 'Source' || has(self.source)").message("a task of kind Source says what its `source` is"),
    validation = Rule::new("self.kind == 'Sink' ? has(self.sink) : !has(self.sink)").message("a task of kind Sink, and no other, says what its `sink` is"),
    validation = Rule::new("self.kind == 'Job' ? has(self.job) : !has(self.job)").message("a task of kind Job, and no other, has a `job`")
)]
pub struct TaskSpec {
    /// The node in the graph.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What handles its messages.
    #[serde(default)]
    pub kind: TaskKind,
    /// An image of its own in place of the topology's. For a job it is that of the program. Sources, folds and sinks have none: the run of the topology has
    /// them all in one container, and a resource that says `image`, `command`, `port`, `replicas`, `env` or `envFrom` of them is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// What its container runs, in place of `/app/TASK serve`; it listens on `port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// The port on which its worker listens.
    #[serde(default = "worker_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// The address of an HTTP worker that runs already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub url: Option<String>,
    /// How many pods its worker has.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How many messages of one edge it handles at a time, in place of what the project says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub parallelism: Option<i32>,
    /// How long one handling may take, such as `10s`, in place of what the project says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub timeout: Option<String>,
    /// How a failure is tried again, in place of what the project says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Labels it gives that no edge carries, on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    pub ends: Vec<String>,
    /// The built-in source that feeds it, with its `type` and options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub source: Option<Value>,
    /// The built-in sink that it is, with its `type` and options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub sink: Option<Value>,
    /// How a job is run for each message: the table `job` of the task in the project, with sizes in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub job: Option<Value>,
    /// Its settings, as its Rust type reads them. They are no place for secrets: those come by `env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub settings: Option<Value>,
    /// Environment variables of its worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub env: Vec<EnvVar>,
    /// Secrets and config maps whose keys are environment variables of its worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvSource>,
    /// What its worker needs and may take. Of all sources, folds and sinks one at most says it, for the run that has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Laid over the template of its pods, after that of the topology. Those of sources, folds and sinks are laid over the pod of the run, whose container is `run`, in the
    /// order of the graph. For a job these are the pods of its Jobs, whose container `worker` is the program's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub pod_template: Option<Value>,
}

fn worker_port() -> i32 {
    8080
}

impl TaskSpec {
    /// A Rust task with the usual settings.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: TaskKind::Rust,
            image: None,
            command: Vec::new(),
            port: worker_port(),
            url: None,
            replicas: one(),
            parallelism: None,
            timeout: None,
            retry: None,
            ends: Vec::new(),
            source: None,
            sink: None,
            job: None,
            settings: None,
            env: Vec::new(),
            env_from: Vec::new(),
            resources: None,
            pod_template: None,
        }
    }
}

/// What handles the messages of a task.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskKind {
    /// A Rust type, served by a binary of the image.
    #[default]
    Rust,
    /// A Rust type with durable state, which the run of the topology has.
    Fold,
    /// An HTTP worker in any language.
    Worker,
    /// Nothing of its own: it passes on what its source reads.
    Source,
    /// A built-in sink.
    Sink,
    /// A Kubernetes Job for each message.
    Job,
}

/// How often and how soon a failed message is tried again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries in all, the first one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<i32>,
    /// The wait before the second try, such as `200ms`; it doubles from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub backoff: Option<String>,
    /// The longest wait between two tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_backoff: Option<String>,
}

/// What a container needs and may take, as in a pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the node must have free for it, such as `cpu: "100m"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// What it may take at most, such as `memory: "256Mi"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

/// An edge of the graph.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeSpec {
    /// The edge: `a-->b`, `a-->|label|b`, or `[*]-->a` for the way in.
    #[schemars(length(min = 1, max = 256))]
    pub edge: String,
    /// How many dispatchers share its messages; not counted where `autoscale` says.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How many messages each dispatcher has in hand at a time, in place of what its target says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub parallelism: Option<i32>,
    /// More dispatchers where the backlog is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// What a dispatcher needs and may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Laid over the template of its pods, after that of the topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub pod_template: Option<Value>,
}

/// How the number of dispatchers of an edge follows its backlog.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("`minReplicas` is at most `maxReplicas`"))]
pub struct Autoscale {
    /// The fewest dispatchers.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How many messages each dispatcher may have waiting for it.
    #[schemars(range(min = 1, max = 1000000000))]
    pub backlog_per_replica: i64,
}
