//! Looking into a topology and acting on it from outside: send, status, dead letters.
//!
//! One process owns the journal. While it runs it listens on a unix socket in the data directory and takes one request per line of JSON;
//! otherwise the command opens the journal itself. [`Access`] hides which of the two it is.

mod access;
mod act;
mod given;
mod pending;
mod place;
mod redrive;
mod socket;

pub use access::{Access, AccessError};
pub use act::perform;
pub use given::GivenError;
pub use place::socket_path;
pub(crate) use socket::answers;
pub use socket::listen;

use crate::{DeadLetter, topics::TopologyRef};
use leatworks_broker::{Account, ErrorKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is asked. As JSON it is tagged by `op`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// The account and queues of a topology.
    Status {
        /// The topology.
        topology: TopologyRef,
    },
    /// Sends root messages.
    Send {
        /// The topology.
        topology: TopologyRef,
        /// The edge by which they enter, such as `[*]-->start`.
        edge: String,
        /// The messages.
        messages: Vec<Outgoing>,
        /// How long to wait until each is done, in milliseconds; without it there is no wait.
        wait_ms: Option<u64>,
    },
    /// Lists dead letters.
    DeadLetters {
        /// The topology.
        topology: TopologyRef,
        /// Which.
        filter: Filter,
        /// How many at most.
        limit: usize,
    },
    /// Lists what waits, or is in hand, of a root.
    Pending {
        /// The topology.
        topology: TopologyRef,
        /// The root, or a message that came of it, in full.
        id: String,
        /// How many at most.
        limit: usize,
    },
    /// Gives dead letters back to their edges, to be handled as if they were new there.
    Redrive {
        /// The topology.
        topology: TopologyRef,
        /// Which.
        filter: Filter,
    },
    /// Drops dead letters for good.
    Drop {
        /// The topology.
        topology: TopologyRef,
        /// Which.
        filter: Filter,
    },
}

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The payload as JSON text. It is sent as it is, so that a wrong one is seen where it is handled: in the dead letters.
    pub payload: String,
    /// The key.
    pub key: Option<String>,
}

/// Which dead letters are meant: those that fit all that is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// On this edge.
    pub edge: Option<String>,
    /// With this id, or of the root with it. A list also takes the beginning of one.
    pub id: Option<String>,
    /// For this cause.
    pub cause: Option<String>,
    /// Of those at most so many, the first by edge and then by age, for what changes something. A list has a limit of its own, and counts all.
    pub limit: Option<u64>,
}

/// What is answered. As JSON it is `{"is": …, "value": …}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", content = "value", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Send`].
    Sent(Vec<Sent>),
    /// To [`Request::DeadLetters`].
    DeadLetters(Listed),
    /// To [`Request::Pending`].
    Pending(Waiting),
    /// To [`Request::Redrive`] and [`Request::Drop`]: how many.
    Count {
        /// How many dead letters it was.
        count: u64,
    },
    /// It failed.
    Failed {
        /// Why.
        error: String,
        /// What kind of failure it is.
        kind: FailureKind,
    },
}

impl Response {
    pub(crate) fn failed(kind: FailureKind, error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), kind }
    }
}

/// What kind of failure a [`Response::Failed`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The request is wrong.
    Invalid,
    /// The request, or a message in it, is too large.
    TooLarge,
    /// What it is about does not exist.
    NotFound,
    /// Somebody else holds what is needed.
    Conflict,
    /// It may succeed later: the run is about to end, or the broker is away.
    Unavailable,
    /// The disk or a queue is full.
    Full,
    /// The storage failed.
    Storage,
    /// Another kind, also one that this version does not know.
    #[serde(other)]
    Other,
}

impl From<ErrorKind> for FailureKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::TooLarge => Self::TooLarge,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable | ErrorKind::Closed => Self::Unavailable,
            ErrorKind::Full => Self::Full,
            ErrorKind::Storage => Self::Storage,
            _ => Self::Other,
        }
    }
}

/// Dead letters, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// `leat.dlq/v1`.
    pub schema: String,
    /// How many fit the filter.
    pub total: u64,
    /// The first of them, by edge and then by age.
    pub letters: Vec<DeadLetter>,
}

/// What waits of a root, by edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The messages.
    pub messages: Vec<Pending>,
    /// Whether there may be more.
    pub cut: bool,
}

/// A message that waits on an edge, or is in hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The edge.
    pub edge: String,
    /// Its identity.
    pub id: String,
    /// The root that it came of.
    pub root: String,
    /// The message in whose handling it was made, if it says so.
    pub parent: Option<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Its identity.
    pub id: String,
    /// `accepted`; with a wait `done`, `dead-lettered`, or `pending` if the time was over.
    pub outcome: String,
}

/// How a topology stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `leat.status/v1`.
    pub schema: String,
    /// The topology.
    pub topology: String,
    /// What an acknowledged write survives.
    pub durability: String,
    /// Whether a process is running that owns the journal.
    pub running: bool,
    /// The account of its roots, unless the broker keeps none.
    #[serde(flatten)]
    pub account: Option<Roots>,
    /// The edges.
    pub edges: Vec<EdgeStatus>,
}

/// The account of a topology's roots: `sent == done + dead_lettered + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// Roots that were accepted.
    pub sent: u64,
    /// Roots of which nothing is pending and nothing was given up.
    pub done: u64,
    /// Roots of which nothing is pending and something was given up.
    pub dead_lettered: u64,
    /// Roots of which something is pending.
    pub in_flight: u64,
}

impl From<Account> for Roots {
    fn from(Account { sent, done, dead_lettered, in_flight }: Account) -> Self {
        Self { sent, done, dead_lettered, in_flight }
    }
}

/// The account as a line for people.
impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, done, dead_lettered, in_flight } = self;
        write!(f, "sent {sent} = done {done} + dead-lettered {dead_lettered} + in flight {in_flight}")
    }
}

impl Status {
    /// The account as a line for people, or that there is none.
    pub fn account_line(&self) -> String {
        self.account.map_or_else(|| "this broker keeps no account of roots".to_owned(), |roots| roots.to_string())
    }
}

/// How an edge stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// The edge.
    pub edge: String,
    /// Messages that wait, those with a delay included.
    pub backlog: u64,
    /// Messages that are being handled.
    pub in_flight: u64,
    /// Those of the backlog that wait for their delay.
    pub delayed: u64,
    /// Messages that were given up and are kept.
    pub dead_letters: u64,
}
