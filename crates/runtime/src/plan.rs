//! What is run: the definition of a topology with the runtime configuration applied.

use crate::{
    Setup, TaskError,
    config::JobsConfig,
    def::{BuiltinDef, Kind, Retry, TaskDef, TopologyDef},
    setup::Results,
    sink::Console,
    trace::Tracer,
};
use leatworks_broker::Durability;
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// A topology as it is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topology.
    pub topology: &'static TopologyDef,
    /// Its tasks, in the order of the definition.
    pub tasks: Vec<TaskPlan>,
    /// The data directory of the installation.
    pub data: PathBuf,
    /// What an acknowledged write to its topics survives; `None` is what the broker's level says.
    pub durability: Option<Durability>,
    /// Whether a dispatcher by itself makes the topics that are missing. It does not where somebody else makes and removes them, as on a cluster, where the
    /// dispatcher of an older graph would bring back what has been removed since.
    pub make_topics: bool,
    /// Where jobs keep their files, and how they are run.
    pub jobs: JobsConfig,
    /// Where the tasks said that they lay their results.
    pub(crate) results: Results,
    /// Standard output, for the sinks that write there.
    pub(crate) console: Console,
    /// Where what is done with each message is told, if it is to be written down.
    pub(crate) tracer: Option<Tracer>,
}

/// A task as it is run.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// The task.
    pub def: &'static TaskDef,
    /// How failures are retried.
    pub retry: Retry,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many messages of one edge are handled at once.
    pub parallelism: usize,
    /// Whether it gets messages before they are durable. Only for what runs in the broker's own process and whose effects go through the broker;
    /// effects of its own that a task has outside happen at least once either way.
    pub eager: bool,
    /// Whether what it gives says which message it was made of.
    pub(crate) lineage: bool,
    /// Where the HTTP worker listens, if it is one.
    pub worker: Option<String>,
    /// Where its messages come from.
    pub source: Option<Builtin>,
    /// The sink that it is.
    pub sink: Option<Builtin>,
    /// Its settings, null if there are none.
    pub settings: Value,
}

/// A source or sink with its options.
#[derive(Clone, Debug, PartialEq)]
pub struct Builtin {
    /// Its `type`.
    pub kind: String,
    /// Its other options: an object.
    pub options: Value,
}

impl Plan {
    /// The definition as it is, without any configuration.
    pub fn new(topology: &'static TopologyDef, data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        // Who makes a message is written on it only where somebody keeps it.
        let lineage = topology.tasks.iter().any(|task| matches!(task.kind, Kind::Job(_)));
        Self {
            topology,
            tasks: topology.tasks.iter().map(|task| TaskPlan { lineage, ..TaskPlan::new(task) }).collect(),
            jobs: JobsConfig::new(&data),
            data,
            durability: None,
            make_topics: true,
            results: Results::default(),
            console: Console::default(),
            tracer: None,
        }
    }

    /// The task of this name.
    pub fn task(&self, name: &str) -> Option<&TaskPlan> {
        self.tasks.iter().find(|task| task.def.name == name)
    }

    pub(crate) fn setup(&self, task: &TaskPlan) -> Setup {
        Setup::new(task.def, task.settings.clone(), self.data.clone()).with_results(self.results.clone())
    }
}

impl TaskPlan {
    /// The definition as it is, without any configuration.
    pub fn new(def: &'static TaskDef) -> Self {
        let (worker, sink) = match def.kind {
            Kind::Worker { url } => (Some(url.to_owned()), None),
            Kind::Sink(sink) => (None, Some(Builtin::new(&sink))),
            Kind::Rust(_) | Kind::Fold(_) | Kind::Job(_) | Kind::Source => (None, None),
        };
        Self {
            def,
            retry: def.retry,
            timeout: def.timeout,
            parallelism: def.parallelism,
            eager: matches!(def.kind, Kind::Rust(_) | Kind::Fold(_)),
            lineage: matches!(def.kind, Kind::Job(_)),
            worker,
            source: def.source.as_ref().map(Builtin::new),
            sink,
            settings: Value::Null,
        }
    }
}

impl Builtin {
    /// From a definition. Options that are no object are an empty one: the generator writes objects only.
    pub fn new(def: &BuiltinDef) -> Self {
        let options = serde_json::from_str(def.options).ok().filter(Value::is_object);
        Self { kind: def.kind.to_owned(), options: options.unwrap_or_else(|| Value::Object(serde_json::Map::new())) }
    }

    /// The options as a type.
    pub(crate) fn options<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T, TaskError> {
        crate::settings::from_value(&self.options)
            .map_err(|error| TaskError::permanent(format!("options of {what} `{}`: {error}", self.kind)))
    }
}
