//! What a Job and its pods say, as the API server shows them. Pure: nothing is asked and nothing is changed.

use crate::{COMMIT, Cause, JobError, PREPARE, Spec, WORKER, ending};
use k8s_openapi::api::{
    batch::v1::Job as Object,
    core::v1::{ContainerStatus, Pod, PodStatus},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most characters of what a container has said last.
const SAID_MAX: usize = 300;

/// How far a Job is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// The program does not run yet, and why, if the cluster says so.
    Starting(Option<String>),
    /// The program runs.
    Running,
    /// The program has ended; what comes of it is not decided.
    Ending,
    /// Everything that the program left is taken.
    Succeeded,
    /// Nothing comes of it.
    Failed(Failed),
}

/// Why nothing comes of a Job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failed {
    /// Why.
    pub(super) error: JobError,
    /// The exit code of the program, if it ended by itself.
    pub(super) exit_code: Option<i32>,
}

impl Failed {
    fn of(error: JobError) -> Self {
        Self { error, exit_code: None }
    }
}

/// What [`PREPARE`] and [`COMMIT`] say when they fail, as the last message of their container.
#[derive(Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) cause: Cause,
    pub(super) text: String,
}

/// Judges a Job by its own conditions; the pods say why. A pod alone decides only that all has gone well.
pub(super) fn judge(job: &Object, pods: &[Pod], spec: &Spec, timeout: Duration) -> Seen {
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    if condition("Complete").is_some() || pods.iter().any(|pod| phase(pod) == "Succeeded") {
        return Seen::Succeeded;
    }
    let newest = newest(pods);
    if let Some(failed) = condition("Failed") {
        let reason = failed.reason.as_deref().unwrap_or_default();
        return Seen::Failed(why(reason, failed.message.as_deref().unwrap_or_default(), newest, spec, timeout));
    }
    let Some(pod) = newest else { return Seen::Starting(None) };
    if matches!(phase(pod), "Failed") || pod.metadata.deletion_timestamp.is_some() {
        return Seen::Ending;
    }
    let state = |name: &str| container(pod, name).and_then(|container| container.state.as_ref());
    if state(WORKER).is_some_and(|state| state.running.is_some()) {
        return Seen::Running;
    }
    if state(WORKER).is_some_and(|state| state.terminated.is_some()) {
        return Seen::Ending;
    }
    Seen::Starting(waits_for(pod))
}

/// Whether a Job has come to its end, as it says itself.
pub(super) fn has_ended(job: &Object) -> bool {
    let conditions = job.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions
        .into_iter()
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

/// The pod that was made last; one that is not over comes before those that are.
pub(super) fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| {
        let over = matches!(phase(pod), "Failed" | "Succeeded");
        (!over, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    })
}

fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

fn phase(pod: &Pod) -> &str {
    status(pod).and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = status(pod)?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find(|container| container.name == name)
}

/// Why a pod's program does not run yet.
fn waits_for(pod: &Pod) -> Option<String> {
    let status = status(pod)?;
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    if let Some(condition) = scheduled.filter(|condition| condition.status == "False") {
        return Some(text(condition.reason.as_deref(), condition.message.as_deref()));
    }
    [PREPARE, WORKER].iter().find_map(|name| {
        let waiting = container(pod, name)?.state.as_ref()?.waiting.as_ref()?;
        // This is how each container begins.
        if matches!(waiting.reason.as_deref(), None | Some("PodInitializing" | "ContainerCreating")) {
            return None;
        }
        Some(text(waiting.reason.as_deref(), waiting.message.as_deref()))
    })
}

fn text(reason: Option<&str>, message: Option<&str>) -> String {
    let parts: Vec<&str> = [reason, message].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    last_line(&parts.join(": ").replace('\n', " "))
}

/// Why a Job has failed: by its pod, and where that says nothing by itself.
fn why(reason: &str, message: &str, pod: Option<&Pod>, spec: &Spec, timeout: Duration) -> Failed {
    let of_pod = pod.and_then(|pod| why_of_pod(pod, spec, timeout));
    if reason == "DeadlineExceeded" {
        // The Job's own deadline is longer than the program's: it is over when the program was never begun, or when nobody was there to end it.
        let waits = pod.and_then(waits_for);
        let behind = waits.map(|waits| format!(": {waits}")).unwrap_or_default();
        let text = format!("the Job took longer than all of its time; the program may take {timeout:?}{behind}");
        return of_pod.unwrap_or_else(|| Failed::of(JobError::new(Cause::Timeout, text)));
    }
    of_pod.unwrap_or_else(|| {
        let gone = if pod.is_none() { ", and its pod is gone" } else { "" };
        Failed::of(JobError::failed(format!("the Job has failed{gone}: {}", text(Some(reason), Some(message)))))
    })
}

fn why_of_pod(pod: &Pod, spec: &Spec, timeout: Duration) -> Option<Failed> {
    let status = status(pod)?;
    let (reason, message) = (status.reason.as_deref().unwrap_or_default(), status.message.as_deref().unwrap_or_default());
    let disrupted = status.conditions.iter().flatten().find(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    if let Some(condition) = disrupted {
        let text = format!("the pod's place was taken away: {}", text(condition.reason.as_deref(), condition.message.as_deref()));
        return Some(Failed::of(JobError::new(Cause::Evicted, text)));
    }
    if reason == "DeadlineExceeded" {
        let text = format!("the pod was ended, since it took longer than all of its time; the program may take {timeout:?}");
        return Some(Failed::of(JobError::new(Cause::Timeout, text)));
    }
    if reason == "Evicted" {
        return Some(Failed::of(JobError::new(Cause::Evicted, format!("the pod was evicted: {}", last_line(message)))));
    }
    if !reason.is_empty() {
        return Some(Failed::of(JobError::failed(format!("the pod has failed: {}", text(Some(reason), Some(message))))));
    }
    let ended = |name: &str| container(pod, name)?.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0);
    for name in [PREPARE, COMMIT] {
        if let Some(ended) = ended(name) {
            let message = ended.message.as_deref().unwrap_or_default();
            let told: Option<Said> = serde_json::from_str(message.trim()).ok();
            let error = told.map_or_else(
                || {
                    let (code, said) = (ended.exit_code, ending::said(&last_line(message)));
                    let reason = ended.reason.as_deref().unwrap_or_default();
                    JobError::failed(format!("the container `{name}` ended with exit code {code} ({reason}){said}"))
                },
                |said| JobError::new(said.cause, said.text),
            );
            return Some(Failed::of(error));
        }
    }
    let ended = ended(WORKER)?;
    let last = last_line(ended.message.as_deref().unwrap_or_default());
    let code = ended.exit_code;
    match ended.reason.as_deref() {
        Some("OOMKilled") => {
            let limit = spec.memory.map(|bytes| format!(" and may use {bytes} bytes")).unwrap_or_default();
            let said = ending::said(&last);
            let text = format!("the worker was killed, since it used more memory than there is for it{limit}{said}");
            Some(Failed { error: JobError::new(Cause::Memory, text), exit_code: Some(code) })
        }
        // It has not run at all, so its code is none of the program's.
        Some(reason @ ("StartError" | "ContainerCannotRun" | "ContainerStatusUnknown")) => {
            let text = format!("the worker could not be run: {reason}{}", ending::said(&last));
            Some(Failed::of(JobError::failed(text)))
        }
        _ => Some(Failed { error: ending::by_exit_code(spec, code, &last), exit_code: Some(code) }),
    }
}

/// The last line that says anything.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(SAID_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::Path;

    /// Each file is a Job and its pods as an API server has shown them, what the task says, and what that means.
    #[test]
    fn recorded_statuses_mean_what_has_happened() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kubernetes/recorded");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 12, "{files:?}");
        for file in files {
            let case: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            let job: Object = serde_json::from_value(case["job"].clone()).unwrap();
            let pods: Vec<Pod> = serde_json::from_value(case["pods"].clone()).unwrap();
            let spec: Spec = serde_json::from_value(case["spec"].clone()).unwrap();
            let seen = judge(&job, &pods, &spec, Duration::from_secs(10));
            let shown = match &seen {
                Seen::Starting(why) => format!("starting {}", why.as_deref().unwrap_or("-")),
                Seen::Running => "running".to_owned(),
                Seen::Ending => "ending".to_owned(),
                Seen::Succeeded => "succeeded".to_owned(),
                Seen::Failed(failed) => {
                    let cause = serde_json::to_value(failed.error.cause).unwrap();
                    let code = failed.exit_code.map(|code| format!(" {code}")).unwrap_or_default();
                    format!("{}{code}: {}", cause.as_str().unwrap(), failed.error)
                }
            };
            assert_eq!(shown, case["expected"].as_str().unwrap(), "{}", file.display());
        }
    }
}
