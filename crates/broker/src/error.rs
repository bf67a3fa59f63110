//! What can go wrong, and whether trying again can help.

/// What kind of failure it is. Retryable or not is decided here, where the error is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The topic, subscription or message does not exist.
    NotFound,
    /// Somebody else holds what is asked for: an exclusive subscription, the journal's lock.
    Conflict,
    /// The request can never succeed as it is.
    Invalid,
    /// The message is larger than the broker takes.
    TooLarge,
    /// A limit of backlog or disk is reached; retryable.
    Full,
    /// An input of a guarded step is settled already.
    Settled,
    /// The broker is closed.
    Closed,
    /// The connection or the service is away; retryable.
    Unavailable,
    /// Who asks is not let in, or may not do this: no credentials, wrong ones, or too few rights.
    Denied,
    /// The storage failed. Nothing is acknowledged any more, and the process is expected to end.
    Storage,
}

/// A broker's error: what was asked, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{context}")]
pub struct BrokerError {
    kind: ErrorKind,
    context: String,
}

impl BrokerError {
    /// An error of this kind; the context is a lower-case fragment that names the thing in backticks.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into() }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Full | ErrorKind::Unavailable)
    }
}
