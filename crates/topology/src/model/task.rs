//! A task of a topology, with everything its declaration says.

use std::time::Duration;

use serde_json::Value;

use crate::{Label, Shape, TaskName};

/// A node of the graph: takes one message, gives zero or more.
#[derive(Clone, Debug)]
pub struct Task {
    pub(crate) name: TaskName,
    pub(crate) kind: TaskKind,
    pub(crate) retry: Retry,
    pub(crate) timeout: Duration,
    pub(crate) parallelism: usize,
    pub(crate) ends: Vec<Label>,
    pub(crate) source: Option<Builtin>,
    pub(crate) text: Option<String>,
    pub(crate) shape: Shape,
    pub(crate) classes: Vec<String>,
    pub(crate) line: usize,
}

impl Task {
    /// Its name, unique in the project.
    pub fn name(&self) -> &TaskName {
        &self.name
    }

    /// What handles its messages.
    pub fn kind(&self) -> &TaskKind {
        &self.kind
    }

    /// How often and how soon a failed message is tried again.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// How long one handling may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How many messages it handles at a time, at least 1.
    pub fn parallelism(&self) -> usize {
        self.parallelism
    }

    /// Labels it gives that end there: no edge carries them.
    pub fn ends(&self) -> &[Label] {
        &self.ends
    }

    /// The built-in source that feeds it; only a root has one.
    pub fn source(&self) -> Option<&Builtin> {
        self.source.as_ref()
    }

    /// The text of its node, with Mermaid's `#…;` character codes already replaced; `None` where the graph gives only the id.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The outline of its node.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The style classes given by `:::class`.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The line of the topology's file where the graph first names it, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// What handles the messages of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskKind {
    /// A Rust type.
    Rust {
        /// The path of the type, such as `crate::tasks::FetchUsers`; always parses as a Rust path.
        path: String,
        /// It implements `Fold` instead of `Task`.
        fold: bool,
    },
    /// An HTTP worker in any language.
    Worker {
        /// An `http://` address.
        url: String,
    },
    /// A program that is started for each message.
    Job(Job),
    /// Nothing of its own: it passes on what its source reads.
    Source,
    /// A built-in sink.
    Sink(Builtin),
}

/// A program that is started for each message, without a library of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub(crate) options: Value,
}

impl Job {
    /// What its table says, as a JSON object of checked values: `command`, `permanent`, `env_files`, `pull_secrets` and `secrets` are lists;
    /// `env`, `resources` and `node_selector` are objects of texts; `memory`, `output` and `log` are bytes; `image` is a text. What was not
    /// given is not there.
    pub fn options(&self) -> &Value {
        &self.options
    }
}

/// A source or sink that the runtime brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct Builtin {
    pub(crate) kind: String,
    pub(crate) options: Value,
}

impl Builtin {
    /// Its `type`, such as `jsonl`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its other keys as a JSON object: those that [`SOURCES`](crate::SOURCES) or [`SINKS`](crate::SINKS) list for it, and no others.
    pub fn options(&self) -> &Value {
        &self.options
    }
}

/// How often and how soon a failed message is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first one included; at least 1.
    pub attempts: u32,
    /// The wait before the second try; it doubles from there.
    pub backoff: Duration,
    /// The longest wait between two tries; at least `backoff`.
    pub max_backoff: Duration,
}
