//! What generated code builds: topologies, tasks and edges as constants.

pub use crate::codec::Codec;
pub use crate::handler::{OpenFold, OpenHandler};

use std::time::Duration;

/// A topology as its binary knows it.
#[derive(Debug)]
pub struct TopologyDef {
    /// Its name.
    pub name: &'static str,
    /// The project that declares it.
    pub project: &'static str,
    /// The build version of the binary.
    pub version: &'static str,
    /// What it is for, for people; may be empty.
    pub description: &'static str,
    /// How its messages are encoded.
    pub codec: Codec,
    /// Its tasks in topological order.
    pub tasks: &'static [&'static TaskDef],
    /// Its edges, the ingress edges first.
    pub edges: &'static [EdgeDef],
    /// The graph, drawn.
    pub drawings: Drawings,
}

impl TopologyDef {
    /// The task of this name.
    pub fn task(&self, name: &str) -> Option<&'static TaskDef> {
        self.tasks.iter().copied().find(|task| task.name == name)
    }

    /// The edge into a root task, by which messages enter the topology.
    pub fn ingress(&self, task: &str) -> Option<&'static EdgeDef> {
        self.edges.iter().find(|edge| edge.from.is_none() && edge.to == task)
    }
}

/// The graph, drawn when the binary was built.
#[derive(Clone, Copy, Debug)]
pub struct Drawings {
    /// Mermaid flowchart.
    pub mermaid: &'static str,
    /// Graphviz DOT.
    pub dot: &'static str,
    /// SVG picture.
    pub svg: &'static str,
    /// Text for a terminal.
    pub text: &'static str,
}

/// A task as its binary knows it.
#[derive(Debug)]
pub struct TaskDef {
    /// The project that declares it.
    pub project: &'static str,
    /// The topology that it belongs to.
    pub topology: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The build version of the binary.
    pub version: &'static str,
    /// How its messages are encoded.
    pub codec: Codec,
    /// What handles its messages.
    pub kind: Kind,
    /// How failures are retried, unless the runtime configuration says otherwise.
    pub retry: Retry,
    /// How long one attempt may take, unless the runtime configuration says otherwise.
    pub timeout: Duration,
    /// How many messages of one edge are handled at once, unless the runtime configuration says otherwise.
    pub parallelism: usize,
    /// Where its messages come from, if it is a root with a source.
    pub source: Option<BuiltinDef>,
    /// Its distinct outputs.
    pub routes: &'static [RouteDef],
    /// The labels that end the flow on purpose.
    pub ends: &'static [&'static str],
}

/// What handles the messages of a task.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A Rust type that implements [`Task`](crate::Task).
    Rust(OpenHandler),
    /// A Rust type that implements [`Fold`](crate::Fold).
    Fold(OpenFold),
    /// An HTTP worker in any language.
    Worker {
        /// Where it listens, `http://host:port/path`.
        url: &'static str,
    },
    /// A program that is started for each message.
    Job(JobDef),
    /// Passes on what its source gives.
    Source,
    /// A sink that comes with the runtime.
    Sink(BuiltinDef),
}

/// A source or sink that comes with the runtime.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinDef {
    /// Its `type`, such as `lines` or `jsonl`.
    pub kind: &'static str,
    /// Its other options as a JSON object.
    pub options: &'static str,
}

/// A program that is started for each message.
#[derive(Clone, Copy, Debug)]
pub struct JobDef {
    /// What its table says, as a JSON object: see [`leatworks_jobs::Spec`].
    pub options: &'static str,
}

/// How failures are retried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How many attempts there are in all, at least 1.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each one, and the real wait is random between zero and that.
    pub backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
}

/// An output of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteDef {
    /// Its label, if its edges have one.
    pub label: Option<&'static str>,
    /// The topic that it is published to.
    pub topic: &'static str,
}

/// An edge as its dispatcher knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeDef {
    /// Its identity: `a-->b`, `a-->|mail|b`, or `[*]-->a` for the way in.
    pub id: &'static str,
    /// The task that gives; none for the way in.
    pub from: Option<&'static str>,
    /// The task that takes.
    pub to: &'static str,
    /// The label, if it has one.
    pub label: Option<&'static str>,
    /// The topic that it reads.
    pub topic: &'static str,
    /// The subscription that it reads by: the name of the target task.
    pub subscription: &'static str,
    /// Where redriven messages enter it again.
    pub retry_topic: &'static str,
    /// Where its messages go that were given up.
    pub dead_letter_topic: &'static str,
}

/// What tests of this crate have in common; each says what it is about, and takes the rest from here.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    pub(crate) const TASK: TaskDef = TaskDef {
        project: "p",
        topology: "t",
        name: "task",
        version: "0",
        codec: Codec::Json,
        kind: Kind::Source,
        retry: Retry { attempts: 1, backoff: Duration::ZERO, max_backoff: Duration::ZERO },
        timeout: Duration::from_secs(1),
        parallelism: 2,
        source: None,
        routes: &[],
        ends: &[],
    };

    pub(crate) const TOPOLOGY: TopologyDef = TopologyDef {
        name: "t",
        project: "p",
        version: "0",
        description: "",
        codec: Codec::Json,
        tasks: &[&TASK],
        edges: &[],
        drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
    };
}
