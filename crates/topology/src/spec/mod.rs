//! What the project files say, key by key: known keys only, each of the right type, each with its place. Nothing is compared with
//! anything else yet.

mod builtin;
mod duration;
mod job;
mod table;

pub use builtin::{BuiltinInfo, OptionInfo, OptionValue, SINKS, SOURCES};
pub(crate) use table::{SourceFile, Table};

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::Codec;
use crate::diagnostics::{At, CodeInfo, Diagnostic, Place, Reports, codes};
use crate::mermaid::GraphText;

/// The most tries of one message: beyond it a message that cannot be handled would stay for days.
pub(crate) const ATTEMPTS_MAX: u64 = 1_000;

/// The most messages that a task handles at a time: each may hold a connection or a file.
pub(crate) const PARALLELISM_MAX: u64 = 4_096;

/// `Project.toml`.
#[derive(Debug)]
pub(crate) struct ProjectSpec {
    pub(crate) name: At<String>,
    pub(crate) description: Option<String>,
    pub(crate) members: Vec<At<String>>,
}

/// One `[[topology]]`.
#[derive(Debug)]
pub(crate) struct TopologySpec {
    pub(crate) file: Arc<str>,
    pub(crate) file_text: Arc<str>,
    pub(crate) name: At<String>,
    pub(crate) description: Option<String>,
    pub(crate) module: Option<At<String>>,
    pub(crate) codec: Codec,
    pub(crate) graph: GraphText,
    pub(crate) tasks: Vec<TaskSpec>,
}

/// One `[[topology.task]]`.
#[derive(Debug)]
pub(crate) struct TaskSpec {
    pub(crate) name: At<String>,
    pub(crate) rust_type: Option<At<String>>,
    pub(crate) kind: Option<At<KindWord>>,
    pub(crate) job: Option<At<Value>>,
    pub(crate) worker: Option<At<String>>,
    pub(crate) ends: Vec<At<String>>,
    pub(crate) attempts: Option<u32>,
    pub(crate) backoff: Option<At<Duration>>,
    pub(crate) max_backoff: Option<At<Duration>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) parallelism: Option<usize>,
    pub(crate) source: Option<At<BuiltinSpec>>,
    pub(crate) sink: Option<At<BuiltinSpec>>,
}

/// The word under `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindWord {
    Task,
    Fold,
    Job,
}

/// `source = { type = "…", … }` or `sink = { … }`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BuiltinSpec {
    pub(crate) kind: String,
    pub(crate) options: Value,
}

/// Reads `Project.toml`. What is missing is reported; a missing name leaves nothing to go on with.
pub(crate) fn project(root: &Table<'_>, reports: &mut Reports) -> Option<ProjectSpec> {
    root.only(&["project"], reports);
    let project = root.required_table("project", reports)?;
    project.only(&["name", "description", "members"], reports);
    let members = project.strings("members", reports);
    if project.has("members") && members.is_empty() && project.is_list("members") {
        no_topology(&project.place_of("members"), "the project has no members", reports);
    }
    if !project.has("members") {
        project.missing("members", "members = [\"topologies/first.toml\"]", reports);
    }
    let description = project.string("description", reports).map(|at| at.value);
    let name = project.required_string("name", "name = \"mailroom\"", reports)?;
    Some(ProjectSpec { name, description, members })
}

/// Reads a member file.
pub(crate) fn member(root: &Table<'_>, reports: &mut Reports) -> Vec<TopologySpec> {
    root.only(&["project", "topology"], reports);
    if let Some(project) = root.table("project", reports) {
        project.only(&["name", "description"], reports);
        project.string("name", reports);
        project.string("description", reports);
    }
    if !root.has("topology") {
        no_topology(&root.place, "the file declares no topology", reports);
    }
    root.tables("topology", reports).iter().filter_map(|table| topology(table, reports)).collect()
}

fn no_topology(place: &Place, message: &str, reports: &mut Reports) {
    let diagnostic = Diagnostic::at(&codes::NO_TOPOLOGY, place, message, "nothing to run here");
    reports.push(
        diagnostic
            .with_help("declare one: `[[topology]]` with `name` and `graph`, in a file that `members` of Project.toml lists"),
    );
}

fn topology(table: &Table<'_>, reports: &mut Reports) -> Option<TopologySpec> {
    table.only(&["name", "description", "mod", "codec", "graph", "task"], reports);
    let description = table.string("description", reports).map(|at| at.value);
    let module = table.string("mod", reports);
    let codec = table.choice("codec", &[("json", Codec::Json), ("messagepack", Codec::MessagePack)], reports);
    let tasks = table.tables("task", reports);
    let tasks = tasks.iter().filter_map(|table| task(table, reports)).collect();
    let graph = table.graph("graph", reports);
    let name = table.required_string("name", "name = \"email-pipeline\"", reports)?;
    let codec = codec.map(|at| at.value).unwrap_or_default();
    let SourceFile { path, text } = table.file.clone();
    Some(TopologySpec { file: path, file_text: text, name, description, module, codec, graph: graph?, tasks })
}

fn task(table: &Table<'_>, reports: &mut Reports) -> Option<TaskSpec> {
    const KEYS: [&str; 11] =
        ["name", "type", "kind", "worker", "job", "ends", "retry", "timeout", "parallelism", "source", "sink"];
    table.only(&KEYS, reports);
    let (mut attempts, mut backoff, mut max_backoff) = (None, None, None);
    if let Some(retry) = table.table("retry", reports) {
        retry.only(&["attempts", "backoff", "max_backoff"], reports);
        attempts = retry.number("attempts", 1..=ATTEMPTS_MAX, reports).map(|number| number as u32);
        backoff = retry.duration("backoff", reports);
        max_backoff = retry.duration("max_backoff", reports);
    }
    let timeout = table.duration("timeout", reports);
    if let Some(timeout) = timeout.as_ref().filter(|timeout| timeout.value.is_zero()) {
        let diagnostic = Diagnostic::at(&codes::RANGE, &timeout.place, "a timeout of zero", "every message would fail at once");
        reports.push(diagnostic.with_help("give it some time, such as `timeout = \"10s\"`"));
    }
    let kinds = [("task", KindWord::Task), ("fold", KindWord::Fold), ("job", KindWord::Job)];
    let kind = table.choice("kind", &kinds, reports);
    if kind.as_ref().is_some_and(|kind| kind.value == KindWord::Job) && !table.has("job") {
        table.missing("job", "job = { command = [\"sh\", \"./work.sh\"] }", reports);
    }
    if table.has("job") && !table.has("kind") {
        table.missing("kind", "kind = \"job\"", reports);
    }
    Some(TaskSpec {
        rust_type: table.string("type", reports),
        kind,
        job: job::read(table, reports),
        worker: table.string("worker", reports),
        ends: table.strings("ends", reports),
        attempts,
        backoff,
        max_backoff,
        timeout: timeout.map(|at| at.value),
        parallelism: table.number("parallelism", 1..=PARALLELISM_MAX, reports).map(|number| number as usize),
        source: builtin::read(table, "source", &SOURCES, reports),
        sink: builtin::read(table, "sink", &SINKS, reports),
        name: table.required_string("name", "name = \"send\"", reports)?,
    })
}

/// A diagnostic about a value.
fn wrong(code: &'static CodeInfo, place: &Place, message: String, label: &str, help: String, reports: &mut Reports) {
    reports.push(Diagnostic::at(code, place, message, label).with_help(help));
}
