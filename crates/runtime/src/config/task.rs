//! What the configuration says of one task.

use super::{Fault, values};
use crate::{
    def::{EdgeDef, Kind, Retry},
    plan::{Builtin, TaskPlan},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskConfig {
    #[serde(deserialize_with = "values::timeout")]
    timeout: Option<Duration>,
    pub(super) retry: RetryConfig,
    #[serde(deserialize_with = "values::parallelism")]
    parallelism: Option<usize>,
    worker: Option<String>,
    source: Option<Map<String, Value>>,
    sink: Option<Map<String, Value>>,
    settings: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RetryConfig {
    #[serde(deserialize_with = "values::attempts")]
    attempts: Option<u32>,
    #[serde(deserialize_with = "values::duration")]
    backoff: Option<Duration>,
    #[serde(deserialize_with = "values::duration")]
    max_backoff: Option<Duration>,
}

impl RetryConfig {
    /// What contradicts itself. What goes together with what the project says is for a run: the longest wait is the longest, whatever the first one is.
    pub(super) fn check(&self, table: &str) -> Result<(), Fault> {
        let (Some(backoff), Some(max)) = (self.backoff, self.max_backoff) else { return Ok(()) };
        if max >= backoff {
            return Ok(());
        }
        let text = format!("{} is shorter than `backoff`: waits grow from that to this", humantime::format_duration(max));
        Err(Fault { key: format!("{table}.retry.max_backoff"), text })
    }
}

/// Lays it over the task, of a topology with these edges, if they are known.
pub(super) fn apply(task: &mut TaskPlan, config: &TaskConfig, edges: Option<&[EdgeDef]>) -> Result<(), Fault> {
    let table = format!("topology.{}.task.{}", task.def.topology, task.def.name);
    let wrong = |key: &str, text: &str| Fault { key: format!("{table}.{key}"), text: text.to_owned() };
    let Retry { attempts, backoff, max_backoff } = task.retry;
    let retry = Retry {
        attempts: config.retry.attempts.unwrap_or(attempts),
        backoff: config.retry.backoff.unwrap_or(backoff),
        max_backoff: config.retry.max_backoff.unwrap_or(max_backoff),
    };
    if config.worker.is_some() && task.worker.is_none() {
        return Err(wrong("worker", "the task is no HTTP worker, so it has no address of one"));
    }
    if config.sink.is_some() && task.sink.is_none() {
        return Err(wrong("sink", "the task is no sink"));
    }
    let is_fed = |edges: &[EdgeDef]| edges.iter().any(|edge| edge.from.is_some() && edge.to == task.def.name);
    if config.source.is_some() && edges.is_some_and(is_fed) {
        return Err(wrong("source", "other tasks give to the task, so it has no source"));
    }
    if config.settings.is_some() && matches!(task.def.kind, Kind::Source | Kind::Sink(_)) {
        return Err(wrong("settings", "the task comes with Leatworks and has none: its options are in `source` or `sink`"));
    }
    let source = match &config.source {
        Some(options) => Some(merged(task.source.as_ref(), options).ok_or_else(|| wrong("source", "it needs a `type`"))?),
        None => task.source.clone(),
    };
    let sink = match &config.sink {
        Some(options) => Some(merged(task.sink.as_ref(), options).ok_or_else(|| wrong("sink", "it needs a `type`"))?),
        None => task.sink.clone(),
    };
    task.retry = retry;
    task.timeout = config.timeout.unwrap_or(task.timeout);
    task.parallelism = config.parallelism.unwrap_or(task.parallelism);
    task.worker = config.worker.clone().or_else(|| task.worker.take());
    (task.source, task.sink) = (source, sink);
    task.settings = config.settings.clone().unwrap_or(Value::Null);
    Ok(())
}

/// Options laid over those of the definition; with another `type` they replace them.
fn merged(old: Option<&Builtin>, new: &Map<String, Value>) -> Option<Builtin> {
    let mut new = new.clone();
    let kind = match new.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => return None,
        None => old?.kind.clone(),
    };
    let mut options = match old {
        Some(old) if old.kind == kind => old.options.as_object().cloned().unwrap_or_default(),
        _ => Map::new(),
    };
    options.extend(new);
    Some(Builtin { kind, options: Value::Object(options) })
}
