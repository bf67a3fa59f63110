//! Why an attempt has failed.

use std::fmt;

/// Why an attempt has failed: what kind of failure it is, and its text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// What kind it is.
    pub cause: Cause,
    text: String,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// It may pass: the message is tried again.
    Failed,
    /// The worker took longer than its time.
    Timeout,
    /// The worker used more memory than it may.
    Memory,
    /// Something else took its place away: nothing is wrong with the message or the worker.
    Evicted,
    /// It will not pass: the message goes to the dead letters at once.
    Permanent,
}

impl JobError {
    /// A failure of some kind.
    pub fn new(cause: Cause, text: impl fmt::Display) -> Self {
        Self { cause, text: text.to_string() }
    }

    /// A failure that may pass.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::new(Cause::Failed, text)
    }

    /// A failure that will not pass.
    pub fn permanent(text: impl fmt::Display) -> Self {
        Self::new(Cause::Permanent, text)
    }

    /// The same with more behind its text.
    #[must_use]
    pub fn and(self, more: impl fmt::Display) -> Self {
        Self { text: format!("{}; {more}", self.text), ..self }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for JobError {}
