//! The graph of a resource, checked again: the resource is turned into the project file that it was rendered from, and compiled as that is.

use crate::{
    crd::{Codec, TaskKind, TaskSpec, TopologySpec},
    names,
};
use leatworks::topics::{EdgeRef, TopologyRef};
use leatworks_topology::{self as model, Sources, TaskKind as ModelKind};
use std::collections::BTreeMap;

/// The file names of the project that a resource is turned into, as they stand in diagnostics.
const PROJECT: &str = "Project.toml";
const MEMBER: &str = "topology.toml";

/// Where a worker that is run here would listen: the model wants an address, and nobody calls this one.
const ELSEWHERE: &str = "http://worker.invalid";

/// A resource cannot be run as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The graph or its tasks do not compile.
    #[error("the graph is invalid: {0}")]
    Invalid(String),
    /// The graph is not the one that was built.
    #[error(
        "the graph has the hash {found}, and `graphHash` says {stated}: it was changed after the build; render the resource anew with `leat k8s render`"
    )]
    Changed {
        /// What the resource says.
        stated: String,
        /// What it is.
        found: String,
    },
    /// Something names a task or an edge that the graph does not have.
    #[error("{0}")]
    Unknown(String),
}

/// A graph as its broker knows it: the ways in, and then the edges.
pub fn reference(graph: &model::Topology) -> TopologyRef {
    let ways_in = graph.roots().map(|task| {
        let way_in = graph.ingress(task);
        EdgeRef {
            id: way_in.id(),
            ingress: true,
            topic: way_in.topic(),
            subscription: way_in.subscription().to_owned(),
            retry_topic: way_in.retry_topic(),
            dead_letter_topic: way_in.dead_letter_topic(),
        }
    });
    let edges = graph.edges().iter().map(|edge| EdgeRef {
        id: edge.id(),
        ingress: false,
        topic: edge.topic(),
        subscription: edge.subscription().to_owned(),
        retry_topic: edge.retry_topic(),
        dead_letter_topic: edge.dead_letter_topic(),
    });
    TopologyRef { name: graph.name().as_str().to_owned(), edges: ways_in.chain(edges).collect() }
}

/// Checks the graph of a resource, its hash, and that tasks and edges with settings are in it.
///
/// # Errors
/// See [`GraphError`].
pub fn compile(name: &str, spec: &TopologySpec) -> Result<model::Topology, GraphError> {
    let topology = compile_unhashed(name, spec)?;
    let found = hash(&topology);
    match &spec.graph_hash {
        Some(stated) if *stated != found => return Err(GraphError::Changed { stated: stated.clone(), found }),
        _ => {}
    }
    let ids = edge_ids(&topology);
    for edge in &spec.edges {
        if !ids.contains(&edge.edge) {
            let known = ids.join("`, `");
            return Err(GraphError::Unknown(format!(
                "`edges` names `{}`, which the graph does not have; it has `{known}`",
                edge.edge
            )));
        }
    }
    Ok(topology)
}

fn compile_unhashed(name: &str, spec: &TopologySpec) -> Result<model::Topology, GraphError> {
    let mut files = BTreeMap::new();
    let mut project = toml::Table::new();
    project.insert("name".to_owned(), "resource".into());
    project.insert("members".to_owned(), toml::Value::Array(vec![MEMBER.into()]));
    files.insert(PROJECT.to_owned(), text(&table("project", project.into()))?);
    files.insert(MEMBER.to_owned(), text(&member(name, spec)?)?);
    let sources: &dyn Sources = &files;
    let project = model::load_from(sources).map_err(|diagnostics| GraphError::Invalid(told(&diagnostics)))?;
    let [topology] = project.topologies() else {
        return Err(GraphError::Invalid("it is not one topology".to_owned()));
    };
    Ok(topology.clone())
}

/// All that is wrong, on one line: conditions are shown in tables.
fn told(diagnostics: &model::Diagnostics) -> String {
    let one = |diagnostic: &model::Diagnostic| {
        let help = diagnostic.help().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}: {}{help}", diagnostic.code(), diagnostic.message())
    };
    diagnostics.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn text(table: &toml::Table) -> Result<String, GraphError> {
    toml::to_string(table).map_err(|error| GraphError::Invalid(error.to_string()))
}

fn table(key: &str, value: toml::Value) -> toml::Table {
    toml::Table::from_iter([(key.to_owned(), value)])
}

fn member(name: &str, spec: &TopologySpec) -> Result<toml::Table, GraphError> {
    let mut topology = toml::Table::new();
    topology.insert("name".to_owned(), name.into());
    let codec = if spec.codec == Codec::Json { "json" } else { "messagepack" };
    topology.insert("codec".to_owned(), codec.into());
    topology.insert("graph".to_owned(), spec.graph.as_str().into());
    let tasks: Result<Vec<toml::Value>, GraphError> = spec.tasks.iter().map(|spec| Ok(task(spec)?.into())).collect();
    topology.insert("task".to_owned(), tasks?.into());
    Ok(table("topology", toml::Value::Array(vec![topology.into()])))
}

fn task(spec: &TaskSpec) -> Result<toml::Table, GraphError> {
    let mut task = table("name", spec.name.as_str().into());
    let mut set = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            task.insert(key.to_owned(), value);
        }
    };
    let options = |value: &Option<serde_json::Value>| match value {
        None => Ok(None),
        Some(value) => toml::Value::try_from(value)
            .map(Some)
            .map_err(|error| GraphError::Invalid(format!("the options of task `{}`: {error}", spec.name))),
    };
    match spec.kind {
        TaskKind::Fold => set("kind", Some("fold".into())),
        TaskKind::Worker => set("worker", Some(spec.url.as_deref().unwrap_or(ELSEWHERE).into())),
        TaskKind::Job => set("worker", Some(ELSEWHERE.into())),
        TaskKind::Rust | TaskKind::Source | TaskKind::Sink => {}
    }
    set("source", options(&spec.source)?);
    set("sink", options(&spec.sink)?);
    set("timeout", spec.timeout.as_deref().map(Into::into));
    set("parallelism", spec.parallelism.map(Into::into));
    set("ends", (!spec.ends.is_empty()).then(|| spec.ends.clone().into()));
    // A node with a source and no type passes on what that gives; a Rust task with a source says its type.
    set("type", (spec.kind == TaskKind::Rust && spec.source.is_some()).then(|| "Task".into()));
    if let Some(retry) = &spec.retry {
        let mut values = toml::Table::new();
        let attempts = retry.attempts.map(|attempts| ("attempts", attempts.into()));
        let backoff = retry.backoff.as_deref().map(|text| ("backoff", text.into()));
        let max_backoff = retry.max_backoff.as_deref().map(|text| ("max_backoff", text.into()));
        values.extend([attempts, backoff, max_backoff].into_iter().flatten().map(|(key, value)| (key.to_owned(), value)));
        set("retry", Some(values.into()));
    }
    Ok(task)
}

/// The hash of what a binary of the topology knows: its name, its tasks with their kinds, and its edges. The order in which they are drawn
/// does not count, nor does how they look.
pub fn hash(topology: &model::Topology) -> String {
    let mut lines: Vec<String> =
        topology.tasks().iter().map(|task| format!("{} {}", task.name(), kind_word(task.kind()))).collect();
    lines.extend(edge_ids(topology));
    lines.sort();
    names::hash(&format!("{} {}\n{}", topology.name(), topology.codec().as_str(), lines.join("\n")))
}

fn kind_word(kind: &ModelKind) -> &'static str {
    match kind {
        ModelKind::Rust { fold: false, .. } => "task",
        ModelKind::Rust { fold: true, .. } => "fold",
        // A job is called over HTTP like a worker: what starts it is behind that.
        ModelKind::Worker { .. } | ModelKind::Job(_) => "worker",
        ModelKind::Source => "source",
        ModelKind::Sink(_) => "sink",
    }
}

/// All edges as they stand in the graph, with the ways in.
pub fn edge_ids(topology: &model::Topology) -> Vec<String> {
    let ways_in = topology.roots().map(|task| topology.ingress(task).id());
    ways_in.chain(topology.edges().iter().map(model::Edge::id)).collect()
}
