//! What runs in the pod of a Job before and after the program.

pub use super::object::JOB_KEY;

use super::judge::Said;
use crate::{Job, JobError, Store, WORKER_HOME};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The variable with the pod's own id, which tells the pods of one Job apart.
pub const POD: &str = "LEAT_POD";

/// The name of the job's document below the place of its attempt.
const DOCUMENT: &str = "job.json";

/// Where Kubernetes looks for what a container has said last, and how much of it it takes.
const LAST_WORDS: &str = "/dev/termination-log";
const LAST_WORDS_MAX: usize = 3000;

/// The digits of the pod's id that name the folder of its files.
const POD_DIGITS: usize = 8;

/// A job as it is written for its pod.
#[derive(Serialize, Deserialize)]
struct Document {
    round: u32,
    job: Job,
}

/// Writes a job down where its pod finds it, and gives the key.
pub(super) async fn write(store: &Store, job: &Job, place: &str, round: u32) -> Result<String, JobError> {
    let key = format!("{place}/{DOCUMENT}");
    store.put_json(&key, &Document { round, job: job.clone() }).await?;
    Ok(key)
}

/// The job whose attempt has this place.
pub(super) async fn read(store: &Store, place: &str) -> Result<Job, JobError> {
    Ok(document(store, &format!("{place}/{DOCUMENT}")).await?.job)
}

async fn document(store: &Store, key: &str) -> Result<Document, JobError> {
    let gone =
        || JobError::failed(format!("the job is not at `{}`: the pod has another store than its adapter", store.shown(key)));
    store.get_json(key).await?.ok_or_else(gone)
}

/// Lays the message of the job at this key out in the pod.
///
/// # Errors
/// See [`crate::prepare`]. The container's last message tells it to the adapter.
pub async fn prepare(store: &Store, key: &str) -> Result<(), JobError> {
    let work = async { crate::prepare(store, &document(store, key).await?.job, Path::new(WORKER_HOME)).await };
    told(work.await)
}

/// Takes what the program has left. `pod` is the pod's own id.
///
/// # Errors
/// See [`crate::commit`]. The container's last message tells it to the adapter.
pub async fn commit(store: &Store, key: &str, pod: &str) -> Result<(), JobError> {
    let work = async {
        let Document { job, round } = document(store, key).await?;
        let writer: String = pod.chars().filter(char::is_ascii_alphanumeric).take(POD_DIGITS).collect();
        crate::commit(store, &job, round, Path::new(WORKER_HOME), Some(&writer)).await
    };
    told(work.await.map(drop))
}

fn told(result: Result<(), JobError>) -> Result<(), JobError> {
    if let Err(error) = &result {
        let text: String = error
            .to_string()
            .chars()
            .scan(0, |bytes, c| {
                *bytes += c.len_utf8();
                (*bytes < LAST_WORDS_MAX).then_some(c)
            })
            .collect();
        let said = serde_json::to_vec(&Said { cause: error.cause, text }).unwrap_or_default();
        // Without it the exit code has to do.
        let _ = std::fs::write(LAST_WORDS, said);
    }
    result
}
