//! The Job of one attempt, as it is given to the API server. Pure: the same attempt gives the same Job.

use crate::{Adapter, COMMIT, Job, JobError, PREPARE, WORKER, WORKER_HOME, WORKER_PROJECT, adapter};
use serde_json::{Value, json};
use std::time::Duration;

/// Says that an object is ours.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const LEATWORKS: &str = "leatworks";
/// What an object is for.
const ROLE: &str = "app.kubernetes.io/component";
/// The value of [`ROLE`]: no Service and no Deployment selects by it.
const JOB: &str = "job";

/// The topology.
pub(super) const TOPOLOGY: &str = "leatworks.dev/topology";
/// The task.
pub(super) const TASK: &str = "leatworks.dev/task";
/// The edge: as a label shortened, as an annotation whole.
pub(super) const EDGE: &str = "leatworks.dev/edge";
/// The message on its edge, by which all of its attempts are found.
pub(super) const STEP: &str = "leatworks.dev/step";
/// The attempt.
pub(super) const ATTEMPT: &str = "leatworks.dev/attempt";
/// An annotation: the root that the message came of.
const ROOT: &str = "leatworks.dev/root";
/// An annotation: where everything of the attempt lies in the store.
pub(super) const PLACE: &str = "leatworks.dev/place";

/// The variable by which the first and the last container find the job that they are of.
pub const JOB_KEY: &str = "LEAT_JOB";

/// When a Job is removed that nobody has looked at since it ended: its outcome is known from the store by then, unless everything was down for that long.
const TTL: Duration = Duration::from_secs(3600);

/// How the Jobs of a task are found.
pub(super) fn selector(adapter: &Adapter) -> String {
    format!("{TOPOLOGY}={},{TASK}={},{ROLE}={JOB}", adapter.topology, adapter.task)
}

/// How the Jobs of a message are found.
pub(super) fn selector_of(adapter: &Adapter, job: &Job) -> String {
    format!("{},{STEP}={}", selector(adapter), job.step())
}

/// The Job of an attempt. `place` is where everything of the attempt lies in the store, `key` where the job itself is written.
///
/// # Errors
/// A permanent failure if the template is none.
pub(super) fn object(
    adapter: &Adapter,
    job: &Job,
    name: &str,
    place: &str,
    key: &str,
) -> Result<k8s_openapi::api::batch::v1::Job, JobError> {
    let edge = adapter.edges.get(&job.edge).map_or_else(|| format!("unknown-{}", &job.step()[33..]), String::clone);
    let labels = json!({
        MANAGED_BY: LEATWORKS,
        ROLE: JOB,
        TOPOLOGY: adapter.topology,
        TASK: adapter.task,
        EDGE: edge,
        STEP: job.step(),
        ATTEMPT: job.attempt.to_string(),
    });
    let annotations = json!({ EDGE: job.edge, ROOT: job.root, PLACE: place });
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name, "labels": labels, "annotations": annotations, "ownerReferences": [adapter.owner] },
        "spec": {
            // Whoever dispatches the message is the only one who tries again.
            "backoffLimit": 0,
            // Without it another pod starts as soon as one is asked to end, and both would work at once.
            "podReplacementPolicy": "Failed",
            // A pod whose place was taken away has not failed: another one takes over, in the time that the Job has.
            "podFailurePolicy": { "rules": [
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            ] },
            "activeDeadlineSeconds": seconds(adapter::job_deadline(job.deadline)),
            "ttlSecondsAfterFinished": seconds(TTL),
            "template": template(adapter, job, &labels, &annotations, key),
        },
    });
    serde_json::from_value(object).map_err(|error| JobError::permanent(format!("the template of the Job: {error}")))
}

fn template(adapter: &Adapter, job: &Job, labels: &Value, annotations: &Value, key: &str) -> Value {
    let mut template = adapter.template.clone();
    let metadata = &mut template["metadata"];
    for (name, values) in [("labels", labels), ("annotations", annotations)] {
        for (key, value) in values.as_object().into_iter().flatten() {
            metadata[name][key] = value.clone();
        }
    }
    let spec = &mut template["spec"];
    spec["restartPolicy"] = "Never".into();
    spec["activeDeadlineSeconds"] = seconds(adapter::pod_deadline(job.deadline)).into();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let variables = match container["name"].as_str() {
                Some(PREPARE | COMMIT) => vec![(JOB_KEY, key.to_owned())],
                Some(WORKER) => {
                    let own = [("LEAT_WORK", WORKER_HOME.to_owned()), ("LEAT_PROJECT", WORKER_PROJECT.to_owned())];
                    own.into_iter().chain(job.told()).collect()
                }
                _ => continue,
            };
            set(&mut container["env"], variables);
        }
    }
    template
}

/// Ours go over what a template says under the same names, and come first, so that others may refer to them.
fn set(env: &mut Value, variables: Vec<(&str, String)>) {
    let ours = |entry: &Value| variables.iter().any(|(name, _)| entry["name"] == *name);
    let others: Vec<Value> = env.as_array().into_iter().flatten().filter(|entry| !ours(entry)).cloned().collect();
    let own = variables.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    *env = own.chain(others).collect();
}

/// Whole seconds, upwards: a deadline may be late, not early.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}
