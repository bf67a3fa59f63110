//! The model: a project whose topologies have passed every check. Only the compiler in `passes` makes one.

mod look;
mod names;
mod task;

pub use look::{Direction, Shape, StyleRule, Subgraph};
pub use names::{Label, NAME_LENGTH_MAX, TaskName, TopologyName};
pub use task::{Builtin, Job, Retry, Task, TaskKind};

use std::collections::HashMap;

/// A project: what `Project.toml` and its member files describe.
#[derive(Clone, Debug)]
pub struct Project {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) files: Vec<String>,
    pub(crate) topologies: Vec<Topology>,
}

impl Project {
    /// Its name, a valid topology name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, in the author's words.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// `Project.toml` and the member files, relative to the project's root, with `/` between folders.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Its topologies in the order of the member files; at least one.
    pub fn topologies(&self) -> &[Topology] {
        &self.topologies
    }

    /// The topology of that name.
    pub fn topology(&self, name: &str) -> Option<&Topology> {
        self.topologies.iter().find(|topology| topology.name == *name)
    }
}

/// How messages are serialized on the edges of a topology.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON, the default.
    #[default]
    Json,
    /// MessagePack.
    MessagePack,
}

impl Codec {
    /// `json` or `messagepack`, as in the project files.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Json => "json",
            Codec::MessagePack => "messagepack",
        }
    }
}

/// A named directed acyclic graph of tasks. A value of this type has passed every check.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(crate) name: TopologyName,
    pub(crate) description: Option<String>,
    pub(crate) file: String,
    pub(crate) codec: Codec,
    pub(crate) module: String,
    pub(crate) direction: Direction,
    pub(crate) tasks: Vec<Task>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) links: HashMap<TaskName, Links>,
    pub(crate) subgraphs: Vec<Subgraph>,
    pub(crate) styles: Vec<StyleRule>,
    pub(crate) graph_source: String,
    pub(crate) graph_line: usize,
}

/// Where a task and its edges stand in a topology's lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    pub(crate) task: usize,
    pub(crate) incoming: Vec<usize>,
    pub(crate) outgoing: Vec<usize>,
}

impl Topology {
    /// Its name, unique among all binaries of the project.
    pub fn name(&self) -> &TopologyName {
        &self.name
    }

    /// What it is for, in the author's words.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The member file that declares it, relative to the project's root.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How messages are serialized on its edges.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The Rust module of its tasks, as written under `mod`; `tasks` by default.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// The direction in which the graph is drawn.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Its tasks: each one before those it sends to, otherwise in the order of the graph.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task of that name.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.links.get(name).map(|links| &self.tasks[links.task])
    }

    /// Its edges in the order of the graph, which is what `linkStyle` counts by.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edges that lead to a task, in the order of the graph.
    pub fn incoming(&self, task: &str) -> impl Iterator<Item = &Edge> {
        self.links.get(task).into_iter().flat_map(|links| &links.incoming).map(|&edge| &self.edges[edge])
    }

    /// The edges that leave a task, in the order of the graph.
    pub fn outgoing(&self, task: &str) -> impl Iterator<Item = &Edge> {
        self.links.get(task).into_iter().flat_map(|links| &links.outgoing).map(|&edge| &self.edges[edge])
    }

    /// The tasks that no edge leads to, in topological order; at least one.
    pub fn roots(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| self.links.get(task.name()).is_some_and(|links| links.incoming.is_empty()))
    }

    /// What a task gives: one unlabelled route, or one for each label that has an edge, in the order of the graph; none for a leaf.
    pub fn routes(&self, task: &Task) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for edge in self.outgoing(task.name().as_str()) {
            if !routes.iter().any(|route| route.label.as_ref() == edge.label()) {
                routes.push(Route { label: edge.label().cloned(), topic: edge.topic() });
            }
        }
        routes
    }

    /// The way in to a task. Roots always have one; what is sent to a topology by hand enters there.
    pub fn ingress(&self, task: &Task) -> Ingress {
        Ingress { topology: self.name.clone(), to: task.name.clone(), line: task.line }
    }

    /// The boxes around tasks, outer ones before those they enclose.
    pub fn subgraphs(&self) -> &[Subgraph] {
        &self.subgraphs
    }

    /// Statements about looks, in the order of the graph.
    pub fn styles(&self) -> &[StyleRule] {
        &self.styles
    }

    /// The graph in Mermaid exactly as written, comments included.
    pub fn graph_source(&self) -> &str {
        &self.graph_source
    }

    /// The line of the file on which the text of the graph begins, from 1.
    pub fn graph_line(&self) -> usize {
        self.graph_line
    }
}

/// An output of a task: unlabelled, or one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    label: Option<Label>,
    topic: String,
}

impl Route {
    /// The label; `None` for the one route of a task with unlabelled edges.
    pub fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// The topic that carries it.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

/// `A --> B` or `A -->|label| B`: messages that A gives, under that label, go to B.
#[derive(Clone, Debug)]
pub struct Edge {
    pub(crate) topology: TopologyName,
    pub(crate) from: TaskName,
    pub(crate) to: TaskName,
    pub(crate) label: Option<Label>,
    pub(crate) length: usize,
    pub(crate) line: usize,
}

impl Edge {
    /// The task it leaves.
    pub fn from(&self) -> &TaskName {
        &self.from
    }

    /// The task it leads to.
    pub fn to(&self) -> &TaskName {
        &self.to
    }

    /// Its label.
    pub fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// How many layers it spans at least in a drawing: 1 for `-->`, one more for each further dash.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The line of the topology's file on which its arrow stands, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Its identity in logs and metrics: `a-->b` or `a-->|mail|b`.
    pub fn id(&self) -> String {
        match &self.label {
            Some(label) => format!("{}-->|{label}|{}", self.from, self.to),
            None => format!("{}-->{}", self.from, self.to),
        }
    }

    /// The topic that carries it: `<topology>-<task>.out`, with `.<label>` where it has one.
    pub fn topic(&self) -> String {
        match &self.label {
            Some(label) => format!("{}-{}.out.{label}", self.topology, self.from),
            None => format!("{}-{}.out", self.topology, self.from),
        }
    }

    /// The subscription on that topic: the name of the target.
    pub fn subscription(&self) -> &str {
        self.to.as_str()
    }

    /// Where messages wait to be tried again.
    pub fn retry_topic(&self) -> String {
        format!("{}-{}-RETRY", self.topic(), self.to)
    }

    /// Where messages go that cannot be handled.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}-{}-DLQ", self.topic(), self.to)
    }
}

/// The edge from outside to a task, `[*]-->task`.
#[derive(Clone, Debug)]
pub struct Ingress {
    topology: TopologyName,
    to: TaskName,
    line: usize,
}

impl Ingress {
    /// The task it leads to.
    pub fn to(&self) -> &TaskName {
        &self.to
    }

    /// The line of the topology's file where the graph first names the task, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Its identity in logs and metrics: `[*]-->task`.
    pub fn id(&self) -> String {
        format!("[*]-->{}", self.to)
    }

    /// Its topic: `<topology>-<task>`.
    pub fn topic(&self) -> String {
        format!("{}-{}", self.topology, self.to)
    }

    /// The subscription on that topic: the name of the task.
    pub fn subscription(&self) -> &str {
        self.to.as_str()
    }

    /// Where messages wait to be tried again.
    pub fn retry_topic(&self) -> String {
        format!("{}-{}-RETRY", self.topic(), self.to)
    }

    /// Where messages go that cannot be handled.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}-{}-DLQ", self.topic(), self.to)
    }
}
