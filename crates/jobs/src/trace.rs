//! What jobs have done with what came of a root message, as their records say.

use crate::{Attempt, Commit, FILES_KEY, FileRef, JobError, Store, record};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One message on one edge to a job: every attempt at it, and what was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStep {
    /// The message's identity.
    pub message: String,
    /// The message in whose handling it was made, if that is known.
    pub parent: Option<String>,
    /// The root that it came of.
    pub root: String,
    /// The task.
    pub task: String,
    /// The edge.
    pub edge: String,
    /// Every attempt, in the order in which they began.
    pub attempts: Vec<Attempt>,
    /// What was committed, if anything was.
    pub commit: Option<Commit>,
}

impl JobStep {
    fn new(mut attempts: Vec<Attempt>, commit: Option<Commit>) -> Option<Self> {
        attempts.sort_by_key(Attempt::order);
        let Attempt { message, parent, root, task, edge, .. } = attempts.first()?.clone();
        Some(Self { message, parent, root, task, edge, attempts, commit })
    }

    /// The files that were committed, each once.
    pub fn files(&self) -> Vec<FileRef> {
        let mut seen = BTreeSet::new();
        let events = self.commit.iter().flat_map(|commit| &commit.events);
        let lists = events.filter_map(|event| event.payload.get(FILES_KEY).cloned());
        let files = lists.filter_map(|list| serde_json::from_value::<Vec<FileRef>>(list).ok()).flatten();
        files.filter(|file| seen.insert(file.key.clone())).collect()
    }
}

impl Store {
    /// What jobs of a topology have done with a root and what came of it, by when they began. The id is that of the root or of any message that a job has had in
    /// hand, written in full. Empty if no job has had such a message, or what was kept of it is older than it is kept.
    ///
    /// # Errors
    /// If the store fails, or holds a record that cannot be read.
    pub async fn trace(&self, topology: &str, id: &str) -> Result<Vec<JobStep>, JobError> {
        let mut keys = self.list(&format!("{topology}/{id}")).await?;
        if keys.is_empty() {
            let step = format!("/{id}-");
            let all = self.list(topology).await?;
            let Some(root) = all.iter().find(|key| key.contains(&step)).and_then(|key| key.split('/').nth(1)) else {
                return Ok(Vec::new());
            };
            keys = all.iter().filter(|key| key.split('/').nth(1) == Some(root)).cloned().collect();
        }
        let mut steps: BTreeMap<String, (Vec<Attempt>, Option<Commit>)> = BTreeMap::new();
        for key in keys {
            // TOPOLOGY/ROOT/STEP/commit.json, and TOPOLOGY/ROOT/STEP/ATTEMPT/attempt.json: other files of these names lie deeper.
            match key.split('/').collect::<Vec<_>>()[..] {
                [_, _, step, _, name] if name == record::RECORD => {
                    steps.entry(step.to_owned()).or_default().0.extend(self.get_json::<Attempt>(&key).await?);
                }
                [_, _, step, name] if name == record::COMMIT => {
                    steps.entry(step.to_owned()).or_default().1 = self.get_json(&key).await?;
                }
                _ => {}
            }
        }
        let mut steps: Vec<JobStep> =
            steps.into_values().filter_map(|(attempts, commit)| JobStep::new(attempts, commit)).collect();
        steps.sort_by_key(|step| step.attempts.first().map(|attempt| attempt.started_ms));
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Location, State, job::tests::job, record::Committed};
    use serde_json::json;

    async fn begun(store: &Store, job: &Job) -> Attempt {
        Attempt::begin(store, job, "process").await.expect("it is written")
    }

    #[tokio::test]
    async fn a_root_shows_every_attempt_and_file_and_is_found_by_any_of_its_messages() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&Location::folder(folder.path()).expect("a place")).expect("a store");
        let id = |number: u128| format!("{number:032x}");
        let first = job();
        let retried = Job { attempt: 2, ..first.clone() };
        let child = Job {
            message: id(8),
            parent: Some(first.message.clone()),
            task: "shout".to_owned(),
            edge: "split-->shout".to_owned(),
            ..first.clone()
        };
        let other = Job { message: id(9), root: id(6), ..first.clone() };
        for job in [&first, &retried, &child, &other] {
            begun(&store, job).await;
        }
        let file = FileRef { path: "a/b".to_owned(), key: "k/a/b".to_owned(), bytes: Some(3), xxh3: None };
        // The same file with two events is one file.
        let event = Committed { kind: None, key: None, payload: json!({ FILES_KEY: [file] }) };
        let commit = Commit { attempt: 2, round: 1, events: vec![event.clone(), event], insights: None };
        commit.make(&store, &retried).await.expect("it is committed");
        // A worker may call its files as it likes.
        let named = format!("{}/2/data/{}", retried.place(), "attempt.json");
        store.put(&named, "no record".into()).await.expect("it is written");
        for by in [id(5), id(7), id(8)] {
            let steps = store.trace("books", &by).await.expect("it is readable");
            let shown: Vec<_> = steps.iter().map(|step| (step.task.as_str(), step.attempts.len(), step.files().len())).collect();
            assert_eq!(shown.len(), 2, "{by}: {shown:?}");
            assert!(shown.contains(&("split", 2, 1)) && shown.contains(&("shout", 1, 0)), "{by}: {shown:?}");
            let child = steps.iter().find(|step| step.task == "shout").expect("the child");
            assert_eq!((child.parent.as_ref(), child.attempts[0].state), (Some(&id(7)), State::Begun));
        }
        assert_eq!(store.trace("books", &id(6)).await.expect("it is readable").len(), 1);
        assert_eq!(store.trace("books", &id(1)).await.expect("it is readable"), []);
    }
}
