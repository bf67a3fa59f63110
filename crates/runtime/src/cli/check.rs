//! `check`: whether a topology could run as it is configured.

use super::{
    exit::{Failure, INVALID, OK},
    output::{self, Output},
};
use crate::{
    config::Config,
    def::{Kind, TopologyDef},
    host, job,
    plan::Plan,
    sink, source, worker,
};

/// Tells everything that a run would refuse and that can be known without doing anything.
pub(super) async fn check(topology: &'static TopologyDef, output: Output, config: &Config) -> Result<u8, Failure> {
    let plan = config.plan(topology)?;
    doubt(config, topology);
    let mut problems: Vec<String> = host::check(config).err().map(|error| error.to_string()).into_iter().collect();
    if config.data.exists() && !config.data.is_dir() {
        problems.push(format!("the data directory `{}` is no folder", config.data.display()));
    }
    problems.extend(tasks(&plan).await);
    if !problems.is_empty() {
        return Err(Failure::new(INVALID, problems.join("\nerror: ")));
    }
    let checked = serde_json::json!({
        "schema": "leat.check/v1",
        "topology": topology.name,
        "tasks": topology.tasks.len(),
        "edges": topology.edges.len(),
        "data": config.data,
        "broker": config.broker,
    });
    output::show(output, &checked, |_| {
        let (tasks, edges) = (topology.tasks.len(), topology.edges.iter().filter(|edge| edge.from.is_some()).count());
        format!(
            "{}: {tasks} tasks, {edges} edges, configuration, sources and sinks are fine; data in {}\n",
            topology.name,
            config.data.display()
        )
    })?;
    Ok(OK)
}

/// Warns of what may be a mistake, though it stops nothing.
pub(super) fn doubt(config: &Config, topology: &TopologyDef) {
    for doubt in config.doubts(topology.name) {
        tracing::warn!("{doubt}");
    }
}

async fn tasks(plan: &Plan) -> Vec<String> {
    let mut problems = Vec::new();
    for task in &plan.tasks {
        let name = task.def.name;
        if let Some(Err(error)) = task.source.as_ref().map(source::check) {
            problems.push(format!("source of task `{name}`: {error}"));
        }
        if let Some(Err(error)) = task.sink.as_ref().map(sink::check) {
            problems.push(format!("task `{name}`: {error}"));
        }
        let setup = plan.setup(task).for_check();
        let opened = match task.def.kind {
            Kind::Rust(open) => open(&setup).await.map(drop),
            Kind::Fold(open) => open(&setup).await.map(drop),
            Kind::Worker { .. } | Kind::Job(_) | Kind::Source | Kind::Sink(_) => Ok(()),
        };
        if let Err(error) = opened {
            problems.push(error.to_string());
        }
        if let (Kind::Job(def), None) = (&task.def.kind, &task.worker)
            && let Err(error) = job::check(plan, def)
        {
            problems.push(format!("task `{name}`: {error}"));
        }
        if let (Kind::Worker { .. } | Kind::Job(_), Some(url)) = (task.def.kind, &task.worker)
            && let Err(error) = worker::client(url, task.def, plan.topology, task.timeout)
        {
            problems.push(format!("task `{name}`: {error}"));
        }
    }
    problems
}
