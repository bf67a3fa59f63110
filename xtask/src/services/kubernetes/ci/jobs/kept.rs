//! What the store says of messages, and what the API server has written down of Jobs.

use super::{super::super::Cluster, TOPOLOGY};
use crate::services::kubernetes::control;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The tasks whose messages are told apart.
pub(super) const TRANSFORM: &str = "transform";
pub(super) const JOIN: &str = "join";

/// A message that a job has had in hand.
pub(super) struct Message {
    pub(super) task: String,
    /// Its identity.
    pub(super) id: String,
    /// How its Jobs are found: by a label of this value.
    pub(super) step: String,
    /// The book, and the number of the chapter if it is one.
    pub(super) book: String,
    pub(super) number: usize,
    pub(super) committed: bool,
    /// The files that came with it, by their keys.
    pub(super) files: Vec<String>,
    /// The attempts that have a log.
    pub(super) logs: usize,
}

/// How many messages have a commit, those left out that a fold has given: how many these are depends on when its input rests.
pub(super) fn commits(store: &Path) -> Result<usize> {
    Ok(messages(store)?.iter().filter(|one| one.committed && one.task != JOIN).count())
}

/// The messages whose chapters were joined, and how many chapters were to be.
pub(super) fn joined(messages: &[Message]) -> (Vec<&Message>, usize) {
    let joined = messages.iter().filter(|one| one.task == JOIN && one.committed).collect();
    (joined, messages.iter().filter(|one| one.task == TRANSFORM && one.committed).count())
}

/// All messages.
pub(super) fn messages(store: &Path) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for step in folders(&store.join(TOPOLOGY))?.iter().map(|root| folders(root)).collect::<Result<Vec<_>>>()?.concat() {
        let attempts = folders(&step)?;
        // One that was killed before it has written what its pod is told has been taken up by the next.
        let Some(document) = attempts.iter().find_map(|attempt| document(attempt).ok()) else { continue };
        let data = &document["job"]["data"];
        let path =
            data["path"].as_str().map(|path| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned());
        messages.push(Message {
            task: text(&document, "/job/task"),
            id: text(&document, "/job/message"),
            step: step.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            book: path.unwrap_or_else(|| text(data, "/book")),
            number: data["number"].as_u64().unwrap_or_default() as usize,
            files: document["job"]["files"].as_array().into_iter().flatten().map(|file| text(file, "/key")).collect(),
            committed: step.join("commit.json").is_file(),
            logs: attempts.iter().filter(|attempt| attempt.join("log.txt").is_file()).count(),
        });
    }
    Ok(messages)
}

/// A job as it was written for its pod.
pub(super) fn document(place: &Path) -> Result<Value> {
    let path = place.join("job.json");
    let bytes = std::fs::read(&path).with_context(|| format!("reading `{}`", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    // What nobody has written to yet is not there.
    let Ok(entries) = std::fs::read_dir(of) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?.into_iter().filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

pub(super) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The own ids of the Jobs of each attempt: of a step, its number.
#[derive(Debug, Default)]
pub(super) struct Made(BTreeMap<(String, u32), BTreeSet<String>>);

impl Made {
    /// Adds a Job as the API server shows it.
    pub(super) fn add(&mut self, job: &Value) {
        let label = |name: &str| text(job, &format!("/metadata/labels/leatworks.dev~1{name}"));
        let Ok(attempt) = label("attempt").parse() else { return };
        self.0.entry((label("step"), attempt)).or_default().insert(text(job, "/metadata/uid"));
    }

    /// Adds what the API server has written down.
    pub(super) fn add_audited(&mut self, cluster: &Cluster) -> Result<()> {
        control::jobs_made(cluster)?.iter().for_each(|event| self.add(&event["responseObject"]));
        Ok(())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// The attempts that have more than one Job.
    pub(super) fn twice(&self) -> Vec<&(String, u32)> {
        self.0.iter().filter(|(_, uids)| uids.len() > 1).map(|(attempt, _)| attempt).collect()
    }

    /// The attempts at a message that have a Job.
    pub(super) fn of(&self, step: &str) -> Vec<u32> {
        self.0.keys().filter(|(of, _)| of == step).map(|(_, attempt)| *attempt).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_jobs_of_one_attempt_are_seen() {
        let job = |step: &str, attempt: &str, uid: &str| json!({"metadata": {"uid": uid, "labels": {"leatworks.dev/step": step, "leatworks.dev/attempt": attempt}}});
        let mut made = Made::default();
        for (step, attempt, uid) in [("a", "1", "1"), ("a", "1", "1"), ("a", "2", "2"), ("b", "1", "3")] {
            made.add(&job(step, attempt, uid));
        }
        assert_eq!((made.count(), made.twice().len(), made.of("a")), (3, 0, vec![1, 2]));
        made.add(&job("b", "1", "4"));
        made.add(&json!({"metadata": {"uid": "5"}}));
        assert_eq!((made.count(), made.twice()), (4, vec![&("b".to_owned(), 1)]));
    }
}
