//! What a service can answer instead of what was asked for, and whether asking again can help.

use super::now_ms;
use crate::wire::proto::ServerError;
use leatworks_broker::{BrokerError, ErrorKind};

/// What is known of the token that was shown, to tell why it was refused: the service only says that it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    token: bool,
    end_s: Option<u64>,
}

impl Shown {
    pub(crate) fn of(token: Option<&str>) -> Self {
        #[derive(serde::Deserialize)]
        struct Claims {
            exp: Option<u64>,
        }
        // Nothing is trusted of it: who refuses has looked at the signature.
        let claims = token.and_then(|token| jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok());
        Self { token: token.is_some(), end_s: claims.and_then(|found| found.claims.exp) }
    }
}

/// What the service answers, or why it does not.
pub(crate) type Answer<T> = Result<T, PulsarError>;

/// Why the service could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PulsarError {
    /// The address is none.
    #[error("`{0}` is no address of a Pulsar service: it is `pulsar://HOST:PORT` or `pulsar+ssl://HOST:PORT`")]
    Address(String),
    /// A file that is named in the options cannot be used.
    #[error("the file `{path}` cannot be used: {why}")]
    File {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS is asked for, and nobody is named whose word about a server is taken.
    #[error("`{0}` uses TLS, and no `ca_file` says whose certificates are trusted")]
    NoAuthority(String),
    /// The server's certificate is by somebody else than the named authority.
    #[error("the certificate of `{address}` is not by anybody in `ca_file`: {why}")]
    UnknownAuthority {
        /// The server.
        address: String,
        /// What was found wrong.
        why: String,
    },
    /// The server's certificate is for another host.
    #[error("the certificate of `{address}` is for another host: {why}")]
    OtherHost {
        /// The server.
        address: String,
        /// What was found wrong.
        why: String,
    },
    /// Anything else about TLS.
    #[error("no TLS with `{address}`: {why}")]
    Tls {
        /// The server.
        address: String,
        /// What was found wrong.
        why: String,
    },
    /// The service wants a token, and there is none.
    #[error("the service wants a token, and none is given: {0}")]
    NoToken(String),
    /// The token's time is over.
    #[error("the token has expired: {0}")]
    TokenExpired(String),
    /// The token is refused for another reason.
    #[error("the token is refused: {0}")]
    TokenRefused(String),
    /// The role of the token may not do this.
    #[error("the role has no right to do this: {0}")]
    NotAuthorized(String),
    /// What is named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Somebody else has it.
    #[error("{0}")]
    Busy(String),
    /// It can never succeed as it is.
    #[error("{0}")]
    Refused(String),
    /// A quota of the service is reached.
    #[error("{0}")]
    Quota(String),
    /// The service is away, or not ready.
    #[error("{0}")]
    Away(String),
    /// The client was closed.
    #[error("the broker is closed")]
    Closed,
}

impl PulsarError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Quota(_))
    }

    /// An error of the service, as it tells it.
    pub(crate) fn of_server(code: i32, message: &str, shown: Shown) -> Self {
        let message = message.to_owned();
        match ServerError::try_from(code).unwrap_or(ServerError::Unknown) {
            ServerError::Authentication => Self::of_authentication(message, shown),
            ServerError::Authorization => Self::NotAuthorized(message),
            ServerError::ConsumerBusy | ServerError::ProducerBusy | ServerError::ProducerFenced => Self::Busy(message),
            ServerError::TopicNotFound | ServerError::SubscriptionNotFound => Self::NotFound(message),
            ServerError::ProducerBlockedQuotaExceeded => Self::Quota(message),
            ServerError::InvalidTopicName
            | ServerError::IncompatibleSchema
            | ServerError::UnsupportedVersion
            | ServerError::NotAllowed => Self::Refused(message),
            // Everything else is a state of the service that passes: a topic that moves, a ledger that is reopened, too many requests.
            _ => Self::Away(message),
        }
    }

    pub(crate) fn of_authentication(message: String, shown: Shown) -> Self {
        match shown {
            Shown { token: false, .. } => Self::NoToken(message),
            Shown { end_s: Some(end), .. } if end <= now_ms() / 1_000 => Self::TokenExpired(message),
            Shown { .. } => Self::TokenRefused(message),
        }
    }
}

impl From<PulsarError> for BrokerError {
    fn from(error: PulsarError) -> Self {
        let kind = match &error {
            PulsarError::Address(_) | PulsarError::File { .. } | PulsarError::Refused(_) => ErrorKind::Invalid,
            PulsarError::NoAuthority(_)
            | PulsarError::UnknownAuthority { .. }
            | PulsarError::OtherHost { .. }
            | PulsarError::Tls { .. }
            | PulsarError::NoToken(_)
            | PulsarError::TokenExpired(_)
            | PulsarError::TokenRefused(_)
            | PulsarError::NotAuthorized(_) => ErrorKind::Denied,
            PulsarError::NotFound(_) => ErrorKind::NotFound,
            PulsarError::Busy(_) => ErrorKind::Conflict,
            PulsarError::Quota(_) => ErrorKind::Full,
            PulsarError::Away(_) => ErrorKind::Unavailable,
            PulsarError::Closed => ErrorKind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}
