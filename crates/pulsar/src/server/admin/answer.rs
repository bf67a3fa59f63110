//! What a request is answered with.

use crate::{server::topics::Refusal, wire::proto::ServerError};
use hyper::StatusCode;
use leatworks_broker::{BrokerError, ErrorKind};
use serde_json::Value;

/// What was asked for.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is done, and there is nothing to tell.
    Empty,
    /// This.
    Json(Value),
}

/// Why a request is refused, as Pulsar tells it: `{"reason": …}`.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason)
    }

    /// It is there already.
    pub(super) fn exists(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, reason)
    }

    /// Somebody uses it.
    pub(super) fn busy(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, reason)
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }
}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Settled => StatusCode::PRECONDITION_FAILED,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Full | ErrorKind::Closed | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// What the binary protocol says.
impl From<Refusal> for Refused {
    fn from((code, reason): Refusal) -> Self {
        let status = match code {
            ServerError::TopicNotFound | ServerError::SubscriptionNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, reason)
    }
}
