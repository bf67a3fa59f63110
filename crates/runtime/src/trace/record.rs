//! What is written down of one handling of one message.

use serde::{Deserialize, Serialize};

/// The most bytes of an error's text: what the dead letters keep is longer.
const ERROR_BYTES_MAX: usize = 1024;

/// The most outputs that are named one by one. A task that splits a large file gives more; then their number is told.
pub(crate) const OUTPUTS_MAX: usize = 1000;

/// One handling of one message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The topology.
    pub topology: String,
    /// The edge that the message came by.
    pub edge: String,
    /// The task.
    pub task: String,
    /// The message's identity.
    pub message: String,
    /// The root that it came of.
    pub root: String,
    /// The message in whose handling it was made, if the message says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Which attempt it was, from 1 on.
    pub attempt: u32,
    /// What has become of it.
    pub outcome: Outcome,
    /// When that was, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// How long the call took, in microseconds, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Why it failed: `error`, `panic`, `timeout`, `permanent`, `undecodable`, `worker-died`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The text of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The identities of what it gave, as far as edges follow; not all if they are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// How many those are in all.
    #[serde(default)]
    pub given: u64,
}

/// What has become of a message by one handling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was settled with what came of it.
    #[default]
    Handled,
    /// It was taken into the state of a fold.
    Folded,
    /// It has failed, and was given back to be tried again.
    Failed,
    /// It has failed, and was moved to the dead letters.
    DeadLettered,
}

impl Record {
    /// With what was wrong.
    pub(crate) fn because(self, cause: &str, error: &str) -> Self {
        let mut text = error.to_owned();
        if text.len() > ERROR_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
            text.push('…');
        }
        Self { cause: Some(cause.to_owned()), error: Some(text), ..self }
    }
}
