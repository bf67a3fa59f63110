//! Everything that can happen to a broker's state: what [`State::apply`](super::State::apply) takes.

use super::Delay;
use crate::{Message, TopicSpec};
use bytes::Bytes;
use std::sync::Arc;

/// A topic by number, given in the order of creation and never used again. Persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(crate) u32);

/// A subscription by number, given in the order of creation and never used again. Persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriptionId(pub(crate) u32);

/// A change of the state; `H` tells where a message's bytes are. It is decided already: applying it cannot fail.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event<H> {
    /// A topic is made, or the retention of an existing one is changed.
    Topic(TopicSpec),
    /// A topic without subscriptions is removed. Its number is not used again.
    DeleteTopic(TopicId),
    /// A subscription is made whose first unsettled position is `from`.
    Subscription { topic: TopicId, name: String, from: u64 },
    /// A subscription is removed.
    Unsubscribe(SubscriptionId),
    /// A subscription is moved.
    Seek { subscription: SubscriptionId, to: u64 },
    /// A publish or a step.
    Step { settled: Vec<Span>, publishes: Vec<Published<H>>, state: Vec<(String, Option<Bytes>)> },
    /// Messages are about to be handed out; the attempt number is absolute.
    Attempts { subscription: SubscriptionId, attempts: Vec<Attempt> },
    /// A message is to be delivered again, not before this time.
    Delay { subscription: SubscriptionId, position: u64, delay: Delay },
    /// Settled messages that were kept for seeking are let go, up to this position.
    Expire { topic: TopicId, end: u64 },
    /// Messages whose bytes have been written anew, so that the place they were at can be used again.
    Moved { messages: Vec<(TopicId, u64, H)> },
    /// Named producers that have published nothing on a topic for long are forgotten.
    Forget { topic: TopicId, producers: Vec<Arc<str>> },
    /// A message cannot be read back: it is settled here, and its root counts as given up.
    Damaged { subscription: SubscriptionId, position: u64 },
}

/// Consecutive positions of one subscription: `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) subscription: SubscriptionId,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Consecutive positions, `start..end`, whose next delivery is this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attempt: u32,
}

/// Who has published a message under a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Producer {
    pub(crate) name: Arc<str>,
    pub(crate) sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

/// The last that a named producer has published on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastSent {
    pub(crate) sequence: u64,
    /// Where the message went.
    pub(crate) position: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) used_ms: u64,
}

/// A message that enters a topic: what the state must know of it, and where the rest is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Published<H> {
    pub(crate) topic: TopicId,
    /// The root's id, 0 if it is not tracked.
    pub(crate) root: u128,
    /// [`key_hash`] of its key.
    pub(crate) key: u32,
    pub(crate) created_ms: u64,
    pub(crate) deliver_at_ms: Option<u64>,
    pub(crate) producer: Option<Producer>,
    /// What it takes, about: for retention by size.
    pub(crate) bytes: usize,
    pub(crate) handle: H,
}

impl<H> Published<H> {
    /// What the state must know of this message, which is at `handle`.
    pub(crate) fn new(topic: TopicId, message: &Message, producer: Option<Producer>, handle: H) -> Self {
        Self {
            topic,
            root: message.root.0,
            key: key_hash(message.key.as_deref()),
            created_ms: message.created_ms,
            deliver_at_ms: message.deliver_at_ms,
            producer,
            bytes: message.payload.len(),
            handle,
        }
    }
}

/// FNV-1a of a key, folded to 32 bits; 0 for no key. Snapshots hold it, so it never changes.
pub(crate) fn key_hash(key: Option<&str>) -> u32 {
    let Some(key) = key else { return 0 };
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in key.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    ((hash ^ (hash >> 32)) as u32).max(1)
}
