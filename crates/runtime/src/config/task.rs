//! What the configuration says of one task.

use super::ConfigError;
use crate::{
    def::Retry,
    plan::{Builtin, TaskPlan},
    settings::DurationText,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskConfig {
    timeout: Option<DurationText>,
    retry: RetryConfig,
    parallelism: Option<usize>,
    worker: Option<String>,
    source: Option<Value>,
    sink: Option<Value>,
    settings: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RetryConfig {
    attempts: Option<u32>,
    backoff: Option<DurationText>,
    max_backoff: Option<DurationText>,
}

/// Lays it over the task.
pub(super) fn apply(task: &mut TaskPlan, config: &TaskConfig) -> Result<(), ConfigError> {
    let wrong = |text: &str| ConfigError::Wrong(format!("`topology.{}.task.{}`: {text}", task.def.topology, task.def.name));
    let Retry { attempts, backoff, max_backoff } = task.retry;
    let retry = Retry {
        attempts: config.retry.attempts.unwrap_or(attempts),
        backoff: config.retry.backoff.map_or(backoff, |text| text.0),
        max_backoff: config.retry.max_backoff.map_or(max_backoff, |text| text.0),
    };
    if retry.attempts == 0 {
        return Err(wrong("`retry.attempts` is at least 1"));
    }
    if config.parallelism == Some(0) {
        return Err(wrong("`parallelism` is at least 1"));
    }
    if config.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
        return Err(wrong("`timeout` is longer than zero"));
    }
    if config.worker.is_some() && task.worker.is_none() {
        return Err(wrong("it is no HTTP worker, so it has no `worker` address"));
    }
    if config.sink.is_some() && task.sink.is_none() {
        return Err(wrong("it is no sink"));
    }
    let source = match &config.source {
        Some(options) => Some(merged(task.source.as_ref(), options).ok_or_else(|| wrong("`source` needs a `type`"))?),
        None => task.source.clone(),
    };
    let sink = match &config.sink {
        Some(options) => Some(merged(task.sink.as_ref(), options).ok_or_else(|| wrong("`sink` needs a `type`"))?),
        None => task.sink.clone(),
    };
    task.retry = retry;
    task.timeout = config.timeout.map_or(task.timeout, |text| text.0);
    task.parallelism = config.parallelism.unwrap_or(task.parallelism);
    task.worker = config.worker.clone().or_else(|| task.worker.take());
    (task.source, task.sink) = (source, sink);
    task.settings = config.settings.clone().unwrap_or(Value::Null);
    Ok(())
}

/// Options laid over those of the definition; with another `type` they replace them.
fn merged(old: Option<&Builtin>, new: &Value) -> Option<Builtin> {
    let mut new = new.as_object()?.clone();
    let kind = match new.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => return None,
        None => old?.kind.clone(),
    };
    let mut options = match old {
        Some(old) if old.kind == kind => old.options.as_object().cloned().unwrap_or_default(),
        _ => serde_json::Map::new(),
    };
    options.extend(new);
    Some(Builtin { kind, options: Value::Object(options) })
}
