//! `leat dispatch TOPOLOGY/EDGE`: one dispatcher of one edge, by what the project says of it.

use super::Dispatch;
use crate::{
    args::Output,
    exit::Result,
    project::{self, Found},
};
use leatworks::{
    EdgeJob, Setup, TaskError,
    config::Flags,
    def::{BuiltinDef, Codec, Drawings, EdgeDef, JobDef, Kind, Retry, RouteDef, TaskDef, TopologyDef},
    dispatch_edge,
    handler::{FoldHandler, Handler},
};
use leatworks_broker::BoxFuture;
use leatworks_topology::{self as model, Task, TaskKind, Topology};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// Dispatches one edge until a signal ends it.
pub(super) fn run(args: &Dispatch, target: &str, quiet: bool, found: &Found) -> Result<ExitCode> {
    // No name of a topology has an arrow in it, so what stands before a `/` is one.
    let (name, edge) = match target.split_once('/') {
        Some((name, edge)) => (Some(name), edge),
        None => (None, target),
    };
    let topology = definition(found.topology(name)?, found);
    let flags = Flags { data: args.data.data.clone(), broker: args.broker.clone(), ..Flags::default() };
    let (ca_file, token_file) = (typed(args.ca_file.as_deref())?, typed(args.token_file.as_deref())?);
    let mut config = found.config(flags)?;
    let pulsar = &mut config.pulsar;
    pulsar.admin_url = args.admin_url.clone().or_else(|| pulsar.admin_url.take());
    pulsar.ca_file = ca_file.or_else(|| pulsar.ca_file.take());
    if token_file.is_some() {
        (pulsar.token, pulsar.token_file) = (None, token_file);
    }
    let mut job = EdgeJob::new(edge);
    (job.worker, job.json, job.quiet) = (args.worker.clone(), args.output == Output::Json, quiet);
    (job.listen, job.json_log) = (args.listen, args.json_log);
    Ok(dispatch_edge(topology, &config, &job))
}

/// A file that was named on the command line. It is read when this process works in the project's folder.
fn typed(file: Option<&Path>) -> Result<Option<PathBuf>> {
    file.map(project::absolute).transpose()
}

/// A topology of the project as its own binary knows it, but for its Rust types. It lives as long as the process, which has one dispatcher.
fn definition(topology: &Topology, found: &Found) -> &'static TopologyDef {
    let name = leak(topology.name().as_str());
    let codec = match topology.codec() {
        model::Codec::Json => Codec::Json,
        model::Codec::MessagePack => Codec::MessagePack,
    };
    let project = leak(found.project.name());
    let tasks: Vec<&'static TaskDef> =
        topology.tasks().iter().map(|task| &*Box::leak(Box::new(task_def(topology, task, project, name, codec)))).collect();
    let ingresses = topology.roots().map(|task| {
        let ingress = topology.ingress(task);
        EdgeDef {
            id: leak(&ingress.id()),
            from: None,
            to: leak(ingress.to().as_str()),
            label: None,
            topic: leak(&ingress.topic()),
            subscription: leak(ingress.subscription()),
            retry_topic: leak(&ingress.retry_topic()),
            dead_letter_topic: leak(&ingress.dead_letter_topic()),
        }
    });
    let edges = topology.edges().iter().map(|edge| EdgeDef {
        id: leak(&edge.id()),
        from: Some(leak(edge.from().as_str())),
        to: leak(edge.to().as_str()),
        label: edge.label().map(|label| leak(label.as_str())),
        topic: leak(&edge.topic()),
        subscription: leak(edge.subscription()),
        retry_topic: leak(&edge.retry_topic()),
        dead_letter_topic: leak(&edge.dead_letter_topic()),
    });
    Box::leak(Box::new(TopologyDef {
        name,
        project,
        version: env!("CARGO_PKG_VERSION"),
        description: leak(topology.description().unwrap_or_default()),
        codec,
        edges: Vec::leak(ingresses.chain(edges).collect()),
        tasks: Vec::leak(tasks),
        drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
    }))
}

fn task_def(topology: &Topology, task: &Task, project: &'static str, name: &'static str, codec: Codec) -> TaskDef {
    let routes = topology.routes(task);
    let routes = routes
        .iter()
        .map(|route| RouteDef { label: route.label().map(|label| leak(label.as_str())), topic: leak(route.topic()) });
    let model::Retry { attempts, backoff, max_backoff } = task.retry();
    TaskDef {
        project,
        topology: name,
        name: leak(task.name().as_str()),
        version: env!("CARGO_PKG_VERSION"),
        codec,
        kind: match task.kind() {
            TaskKind::Rust { fold: false, .. } => Kind::Rust(elsewhere),
            TaskKind::Rust { fold: true, .. } => Kind::Fold(fold_elsewhere),
            TaskKind::Worker { url } => Kind::Worker { url: leak(url) },
            TaskKind::Job(job) => Kind::Job(JobDef { options: leak(&job.options().to_string()) }),
            TaskKind::Source => Kind::Source,
            TaskKind::Sink(sink) => Kind::Sink(builtin(sink)),
        },
        retry: Retry { attempts, backoff, max_backoff },
        timeout: task.timeout(),
        parallelism: task.parallelism(),
        source: task.source().map(builtin),
        routes: Vec::leak(routes.collect()),
        ends: Vec::leak(task.ends().iter().map(|label| leak(label.as_str())).collect()),
    }
}

fn builtin(builtin: &model::Builtin) -> BuiltinDef {
    BuiltinDef { kind: leak(builtin.kind()), options: leak(&builtin.options().to_string()) }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

/// The Rust types of a project are in its own binaries.
fn elsewhere(setup: &Setup) -> BoxFuture<'_, std::result::Result<Arc<dyn Handler>, TaskError>> {
    Box::pin(std::future::ready(Err(not_here(setup))))
}

fn fold_elsewhere(setup: &Setup) -> BoxFuture<'_, std::result::Result<Arc<dyn FoldHandler>, TaskError>> {
    Box::pin(std::future::ready(Err(not_here(setup))))
}

fn not_here(setup: &Setup) -> TaskError {
    TaskError::permanent(format!("the type of task `{}` is in the project's own binaries", setup.task().name))
}
