//! What a task's failure is: retryable or permanent, decided where it is born.

use std::{error::Error, fmt, time::Duration};

/// Why a task did not handle a message.
///
/// Every error type converts into a retryable one by `?`; [`Permanent::permanent`] makes it permanent.
///
/// ```
/// use leatworks::{Permanent, TaskError};
///
/// fn parse(text: &str) -> Result<u32, TaskError> {
///     Ok(text.parse::<u32>().permanent()?)
/// }
/// assert!(parse("many").unwrap_err().is_permanent());
/// ```
#[derive(Clone)]
pub struct TaskError {
    text: String,
    cause: Cause,
    retry_after: Option<Duration>,
    /// Nobody has seen the message: it could not be brought to its worker.
    unreached: bool,
}

/// What kind of failure it is, as the dead letter says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The task returned a retryable error, on every attempt.
    Error,
    /// The task panicked.
    Panic,
    /// The task took longer than its timeout.
    Timeout,
    /// The task returned a permanent error.
    Permanent,
    /// The message is not what the task takes.
    Undecodable,
    /// The process ended while it held the message, on every attempt.
    WorkerDied,
}

impl Cause {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Error, Self::Panic, Self::Timeout, Self::Permanent, Self::Undecodable, Self::WorkerDied];

    /// The word that the dead letter and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Permanent => "permanent",
            Self::Undecodable => "undecodable",
            Self::WorkerDied => "worker-died",
        }
    }

    /// The cause that a worker means by such a word. That it has died is nothing that a worker says.
    pub(crate) fn told(word: &str) -> Option<Self> {
        let known = [Self::Error, Self::Panic, Self::Timeout, Self::Permanent, Self::Undecodable];
        known.into_iter().find(|cause| cause.as_str() == word)
    }
}

impl TaskError {
    /// A failure that may pass: the message is tried again.
    pub fn retryable(text: impl fmt::Display) -> Self {
        Self::with_cause(Cause::Error, text)
    }

    /// A failure that will not pass: the message goes to the dead letters at once.
    pub fn permanent(text: impl fmt::Display) -> Self {
        Self::with_cause(Cause::Permanent, text)
    }

    pub(crate) fn with_cause(cause: Cause, text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), cause, retry_after: None, unreached: false }
    }

    /// Nobody was there to take the message, so this was no attempt at it.
    pub(crate) fn unreached(text: impl fmt::Display) -> Self {
        Self { unreached: true, ..Self::retryable(text) }
    }

    /// Asks for the next attempt not before this time has passed. It is bounded by the task's `max_backoff`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Whether another attempt is pointless.
    pub fn is_permanent(&self) -> bool {
        matches!(self.cause, Cause::Permanent | Cause::Undecodable)
    }

    /// What kind of failure it is.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    pub(crate) fn is_unreached(&self) -> bool {
        self.unreached
    }

    pub(crate) fn delay_asked_for(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.cause.as_str())
    }
}

impl<E: Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            source = error.source();
        }
        Self::retryable(text)
    }
}

/// Makes the error of a result permanent.
pub trait Permanent<T> {
    /// The same result, with an error that is not tried again.
    ///
    /// # Errors
    /// The error that the result holds.
    fn permanent(self) -> Result<T, TaskError>;
}

impl<T, E: Into<TaskError>> Permanent<T> for Result<T, E> {
    fn permanent(self) -> Result<T, TaskError> {
        self.map_err(|error| TaskError { cause: Cause::Permanent, unreached: false, ..error.into() })
    }
}
