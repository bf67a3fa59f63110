//! What travels: the message with its envelope, and its delivery.

use bytes::Bytes;
use std::{fmt, sync::Arc};

/// Identifies a message within an installation: random for a root, derived from parent, edge and index for what comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MessageId(pub u128);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MessageId {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(s, 16).map(Self)
    }
}

/// Where a message stands in its topic: 0 for the first one ever published there, then one more for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// How a payload is encoded. The numbers are persisted and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// JSON text.
    #[default]
    Json = 0,
    /// MessagePack with named fields.
    MessagePack = 1,
}

/// A message with its envelope. What a topic implies (topology, edge) is not repeated in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// The root that it came of; a root is its own.
    pub root: MessageId,
    /// The key, for `KeyShared` and for people.
    pub key: Option<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Not to be delivered before this time, in milliseconds since the Unix epoch.
    pub deliver_at_ms: Option<u64>,
    /// W3C trace context (`traceparent`), if any.
    pub trace: Option<String>,
    /// How `payload` is encoded.
    pub codec: Codec,
    /// Anything else, such as the cause of a dead letter. Usually empty, which costs nothing.
    pub properties: Vec<(String, String)>,
    /// The message itself, opaque to the broker.
    pub payload: Bytes,
}

/// A message as a consumer gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it stands in its topic; what a [`Step`](crate::Step) acknowledges.
    pub position: Position,
    /// Which delivery of this message on this subscription it is, from 1 on.
    pub attempt: u32,
    /// The message. It is shared with the broker, which keeps it for as long as somebody may need it.
    pub message: Arc<Message>,
}
