//! One attempt at one message.

use crate::{FileRef, Spec, error::JobError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// One attempt at one message, with everything that an executor needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The topology.
    pub topology: String,
    /// The task.
    pub task: String,
    /// The edge that the message came by.
    pub edge: String,
    /// The message's identity, 32 hexadecimal digits.
    pub message: String,
    /// The root that it came of: the correlation id of everything that comes of one root.
    pub root: String,
    /// The message in whose handling this one was made, if that is known.
    pub parent: Option<String>,
    /// Which attempt it is, from 1 on.
    pub attempt: u32,
    /// The message's key.
    pub key: Option<String>,
    /// The W3C trace context.
    pub traceparent: String,
    /// The payload without its files.
    pub data: Value,
    /// The files that came with the message.
    pub files: Vec<FileRef>,
    /// What the task may give.
    pub declared: Declared,
    /// How long the worker may run.
    pub deadline: Duration,
    /// What is run.
    pub spec: Spec,
}

/// What a task may give, by the graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// How many routes there are.
    pub routes: usize,
    /// The labels of its edges, those that end, and the tasks behind it.
    pub names: Vec<String>,
}

impl Declared {
    /// Whether the graph has an edge for an output of this type; without one it is the only route.
    ///
    /// # Errors
    /// A permanent failure that names the task, the type and what is known.
    pub fn check(&self, job: &Job, kind: Option<&str>) -> Result<(), JobError> {
        let known = || match &self.names[..] {
            [] => "it has no outgoing edges".to_owned(),
            names => format!("the graph declares `{}`", names.join("`, `")),
        };
        let Some(kind) = kind else {
            return match self.routes {
                0 | 1 => Ok(()),
                _ => Err(JobError::permanent(format!(
                    "an event of `{}` has no `type`, and there are several: {}",
                    job.task,
                    known()
                ))),
            };
        };
        let bare = kind.strip_prefix(&job.topology).and_then(|rest| rest.strip_prefix('-'));
        if self.names.iter().any(|name| name == kind || Some(name.as_str()) == bare) {
            return Ok(());
        }
        Err(JobError::permanent(format!("`{}` gave an event of type `{kind}`, which is not declared: {}", job.task, known())))
    }
}

impl Job {
    /// Identifies the message on its edge: the same for every attempt.
    pub fn step(&self) -> String {
        format!("{}-{:08x}", self.message, xxh3_64(self.edge.as_bytes()) as u32)
    }

    /// Where everything of this message on this edge lies in the store.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.topology, self.root, self.step())
    }

    /// What a worker is told of its message by its environment.
    pub(crate) fn told(&self) -> [(&'static str, String); 7] {
        [
            ("LEAT_TOPOLOGY", self.topology.clone()),
            ("LEAT_TASK", self.task.clone()),
            ("LEAT_EDGE", self.edge.clone()),
            ("LEAT_MESSAGE_ID", self.message.clone()),
            ("LEAT_ROOT_ID", self.root.clone()),
            ("LEAT_ATTEMPT", self.attempt.to_string()),
            ("TRACEPARENT", self.traceparent.clone()),
        ]
    }

    /// A name for one round of this attempt: by topology, edge, message and attempt, at most 63 of `a`–`z`, `0`–`9` and `-`.
    pub fn name(&self, round: u32) -> String {
        let identity = format!("{}\0{}\0{}\0{}\0{round}", self.topology, self.edge, self.message, self.attempt);
        format!("leat-{:032x}", xxh3_128(identity.as_bytes()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn job() -> Job {
        Job {
            topology: "books".to_owned(),
            task: "split".to_owned(),
            edge: "[*]-->split".to_owned(),
            message: format!("{:032x}", 7),
            root: format!("{:032x}", 5),
            parent: None,
            attempt: 1,
            key: None,
            traceparent: "00-00000000000000000000000000000005-0000000000000007-01".to_owned(),
            data: json!({"n": 1}),
            files: Vec::new(),
            declared: Declared { routes: 1, names: vec!["part".to_owned(), "shout".to_owned()] },
            deadline: Duration::from_secs(20),
            spec: Spec { command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()], ..Spec::default() },
        }
    }

    #[test]
    fn names_differ_by_what_they_name() {
        let base = job();
        let others = [
            Job { topology: "book".to_owned(), ..base.clone() },
            Job { edge: "a-->split".to_owned(), ..base.clone() },
            Job { message: format!("{:032x}", 8), ..base.clone() },
            Job { attempt: 2, ..base.clone() },
        ];
        assert_eq!(base.name(1), base.clone().name(1));
        assert_ne!(base.name(1), base.name(2));
        for other in others {
            assert_ne!(base.name(1), other.name(1));
        }
        assert!(base.name(1).len() <= 63);
    }

    #[test]
    fn what_the_graph_does_not_declare_is_refused_by_name() {
        let job = job();
        for kind in [None, Some("part"), Some("books-shout")] {
            assert_eq!(job.declared.check(&job, kind), Ok(()), "{kind:?}");
        }
        let error = job.declared.check(&job, Some("prat")).unwrap_err().to_string();
        assert_eq!(error, "`split` gave an event of type `prat`, which is not declared: the graph declares `part`, `shout`");
        let several = Declared { routes: 2, ..job.declared.clone() };
        assert!(several.check(&job, None).unwrap_err().to_string().contains("has no `type`"));
        let none = Declared::default();
        assert!(none.check(&job, Some("x")).unwrap_err().to_string().contains("no outgoing edges"));
        assert_eq!(none.check(&job, None), Ok(()));
    }
}
