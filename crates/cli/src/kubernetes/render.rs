//! Topologies of the project as resources.

use super::args::{Pull, Render};
use crate::{
    exit::{Code, Doing, Failure, Result},
    project::Found,
};
use leatworks::config::Flags;
use leatworks_controller::{
    crd::{self, TaskKind, TaskSpec, Topology, TopologySpec},
    graph, merge, yaml,
};
use leatworks_jobs::read_env_files;
use leatworks_topology::{self as model, Task};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The resources of the topologies that are asked for.
pub(super) fn render(args: &Render, found: &Found) -> Result<Vec<Value>> {
    let topologies = match args.topology.as_deref() {
        Some(name) => vec![found.topology(Some(name))?],
        None => found.project.topologies().iter().collect(),
    };
    let broker = broker(args, found)?;
    let overlays = overlays(args, found)?;
    let mut resources = Vec::new();
    for topology in topologies {
        let name = topology.name().as_str();
        let mut resource = json!(Topology::new(name, spec(topology, args, broker.clone())));
        for task in resource["spec"]["tasks"].as_array_mut().into_iter().flatten() {
            take_env_files(task, &found.root)?;
        }
        if let Some(namespace) = &args.namespace {
            resource["metadata"]["namespace"] = namespace.as_str().into();
        }
        if let Some(over) = overlays.get(name) {
            merge::overlay(&mut resource["spec"], over);
        }
        check(name, &resource)?;
        resources.push(resource);
    }
    Ok(resources)
}

/// Pods do not see the files of this machine, so their variables go along.
fn take_env_files(task: &mut Value, root: &Path) -> Result {
    let Some(job) = task.get_mut("job").and_then(Value::as_object_mut) else { return Ok(()) };
    let Some(files) = job.remove("env_files") else { return Ok(()) };
    let files: Vec<PathBuf> = serde_json::from_value(files).map_err(|error| Failure::new(Code::Internal, error))?;
    let mut variables = read_env_files(&files, root).map_err(|error| Failure::new(Code::Invalid, error))?;
    // What the project says itself goes over what its files say.
    for (name, value) in job.get("env").and_then(Value::as_object).into_iter().flatten() {
        variables.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
    }
    job.insert("env".to_owned(), json!(variables));
    Ok(())
}

/// What an overlay makes of a resource must still be one.
fn check(name: &str, resource: &Value) -> Result {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(Code::Invalid, format!("the resource of `{name}`: {error}"));
    let topology: Topology = serde_json::from_value(resource.clone()).map_err(|error| wrong(&error))?;
    graph::compile(name, &topology.spec).map(drop).map_err(|error| wrong(&error))
}

fn broker(args: &Render, found: &Found) -> Result<crd::Broker> {
    let flags = Flags { broker: args.broker.clone(), ..Flags::default() };
    // Nothing is opened in the project's folder, and what is read later was named where the command was typed: an overlay, or KUBECONFIG.
    let here = std::env::current_dir()?;
    let config = found.config(flags);
    std::env::set_current_dir(&here).doing(|| format!("going back to `{}`", here.display()))?;
    let config = config?;
    if !config.is_pulsar() {
        let text = "no broker: pods reach a Pulsar service only; name it by `--broker pulsar://HOST:PORT`, or as `broker.url` in leat.toml";
        return Err(Failure::new(Code::Usage, text));
    }
    let pulsar = config.pulsar;
    Ok(crd::Broker {
        url: pulsar.url,
        admin_url: args.admin_url.clone().or(pulsar.admin_url),
        tenant: pulsar.tenant,
        namespace: pulsar.namespace,
        token_secret: None,
        ca_secret: None,
    })
}

fn overlays(args: &Render, found: &Found) -> Result<Value> {
    let Some(path) = &args.overlay else { return Ok(json!({})) };
    let text = std::fs::read_to_string(path).doing(|| format!("reading `{}`", path.display()))?;
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Code::Invalid, format!("`{}`: {why}", path.display()));
    let overlays = yaml::read(&text).map_err(|error| wrong(&error))?;
    let Some(map) = overlays.as_object() else {
        return Err(wrong(&"it holds topologies by name, each with what it adds to `spec`"));
    };
    match map.keys().find(|name| found.project.topology(name).is_none()) {
        Some(name) => Err(wrong(&format!("the project has no topology `{name}`"))),
        None => Ok(overlays),
    }
}

fn spec(topology: &model::Topology, args: &Render, broker: crd::Broker) -> TopologySpec {
    TopologySpec {
        graph: topology.graph_source().to_owned(),
        graph_hash: Some(graph::hash(topology)),
        codec: match topology.codec() {
            model::Codec::Json => crd::Codec::Json,
            model::Codec::MessagePack => crd::Codec::MessagePack,
        },
        image: args.image.clone(),
        image_pull_policy: args.pull_policy.map(|when| match when {
            Pull::Always => crd::PullPolicy::Always,
            Pull::IfNotPresent => crd::PullPolicy::IfNotPresent,
            Pull::Never => crd::PullPolicy::Never,
        }),
        image_pull_secrets: Vec::new(),
        broker,
        tasks: topology.tasks().iter().map(task).collect(),
        edges: Vec::new(),
        removed_edges: crd::RemovedEdges::Drain,
        jobs: None,
        env: Vec::new(),
        env_from: Vec::new(),
        pod_template: None,
        revision_history_limit: crd::REVISIONS_KEPT,
    }
}

/// All that the project says of a task, so that the resource says it as well.
fn task(task: &Task) -> TaskSpec {
    let mut spec = TaskSpec::named(task.name().as_str());
    let retry = task.retry();
    spec.parallelism = i32::try_from(task.parallelism()).ok();
    spec.timeout = Some(time(task.timeout()));
    spec.retry = Some(crd::Retry {
        attempts: i32::try_from(retry.attempts).ok(),
        backoff: Some(time(retry.backoff)),
        max_backoff: Some(time(retry.max_backoff)),
    });
    spec.ends = task.ends().iter().map(|label| label.as_str().to_owned()).collect();
    spec.source = task.source().map(builtin);
    match task.kind() {
        model::TaskKind::Rust { fold: false, .. } => {}
        model::TaskKind::Rust { fold: true, .. } => spec.kind = TaskKind::Fold,
        model::TaskKind::Worker { url } => (spec.kind, spec.url) = (TaskKind::Worker, Some(url.clone())),
        model::TaskKind::Job(job) => (spec.kind, spec.job) = (TaskKind::Job, Some(job.options().clone())),
        model::TaskKind::Source => spec.kind = TaskKind::Source,
        model::TaskKind::Sink(sink) => (spec.kind, spec.sink) = (TaskKind::Sink, Some(builtin(sink))),
    }
    spec
}

fn builtin(builtin: &model::Builtin) -> Value {
    let mut value = json!({ "type": builtin.kind() });
    merge::overlay(&mut value, builtin.options());
    value
}

/// A time as project files write it.
fn time(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}
