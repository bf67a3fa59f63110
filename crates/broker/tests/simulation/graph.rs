//! The graph that is simulated, and what its tasks make of a message: everything follows from the message's id.
//!
//! `in → a`, then `a → b` and `a → c` side by side, `b → d` and `c → d`, and `done`, which somebody outside looks at. A message that fails too often goes to
//! the dead letters of its edge.

use crate::random::{derive, of};
use leatworks_broker::{Message, MessageId, SubscriptionKind};

/// Attempts after which a message is given up.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// One subscription of the graph and the task behind it.
pub(crate) struct Edge {
    pub(crate) topic: &'static str,
    pub(crate) subscription: &'static str,
    pub(crate) kind: SubscriptionKind,
    pub(crate) consumers: u64,
    /// Where its outputs go; the last edge has none.
    pub(crate) output: Option<&'static str>,
    pub(crate) dead: &'static str,
}

pub(crate) const EDGES: [Edge; 6] = [
    edge("in", "a", SubscriptionKind::Shared, 2, Some("a"), "dead.a"),
    edge("a", "b", SubscriptionKind::KeyShared, 2, Some("b"), "dead.b"),
    edge("a", "c", SubscriptionKind::Failover, 2, Some("c"), "dead.c"),
    edge("b", "d", SubscriptionKind::Shared, 1, Some("done"), "dead.db"),
    edge("c", "d", SubscriptionKind::KeyShared, 2, Some("done"), "dead.dc"),
    edge("done", "seen", SubscriptionKind::Exclusive, 1, None, "dead.none"),
];

/// The edge whose consumer stands outside.
pub(crate) const OUTSIDE: usize = 5;

/// The edge whose step writes the state that the consumer outside finds and removes.
pub(crate) const STATEFUL: usize = 3;

/// Edges whose dead letters may be published again: no other subscription of their topics would get them too.
pub(crate) const REDRIVEN: [usize; 2] = [3, 4];

const fn edge(
    topic: &'static str,
    subscription: &'static str,
    kind: SubscriptionKind,
    consumers: u64,
    output: Option<&'static str>,
    dead: &'static str,
) -> Edge {
    Edge { topic, subscription, kind, consumers, output, dead }
}

/// The edges that get what is published in a topic.
pub(crate) fn readers(topic: &str) -> impl Iterator<Item = usize> {
    EDGES.iter().enumerate().filter(move |(_, edge)| edge.topic == topic).map(|(number, _)| number)
}

/// The ids of what an edge publishes for a message: usually one, sometimes none or two.
pub(crate) fn outputs(edge: usize, id: u128) -> Vec<u128> {
    let count = match (EDGES[edge].output, of(id, 100 + edge as u64) % 16) {
        (None, _) | (_, 0) => 0,
        (_, 1 | 2) => 2,
        _ => 1,
    };
    (0..count).map(|index| derive(id, edge as u64 * 16 + index)).collect()
}

/// How many attempts of an edge fail for a message.
pub(crate) fn failing(edge: usize, id: u128) -> u32 {
    match of(id, 200 + edge as u64) % 12 {
        _ if edge == OUTSIDE => 0,
        0 | 1 => 1,
        2 => 2,
        3 => u32::MAX,
        _ => 0,
    }
}

/// The id of a message's dead letter.
pub(crate) fn dead(edge: usize, id: u128) -> u128 {
    derive(id, 300 + edge as u64)
}

/// The id under which a dead letter is published again.
pub(crate) fn again(dead: u128) -> u128 {
    derive(dead, 400)
}

/// What becomes of a dead letter, if somebody looks after them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Dropped,
    Redriven,
}

pub(crate) fn fate(edge: usize, dead: u128) -> Fate {
    match of(dead, 500) % 6 {
        0 | 1 => Fate::Dropped,
        2..=4 if REDRIVEN.contains(&edge) => Fate::Redriven,
        _ => Fate::Stays,
    }
}

/// The key that the step of [`STATEFUL`] writes for an output.
pub(crate) fn state_key(id: u128) -> String {
    format!("open/{id:032x}")
}

pub(crate) fn key(root: u128) -> String {
    format!("key {}", root % 5)
}

/// Bytes that follow from the id: most are small, some are not.
pub(crate) fn payload(id: u128) -> Vec<u8> {
    let length = match of(id, 600) {
        large if large % 12 == 0 => large / 12 % 1_500,
        small => small / 12 % 120,
    };
    (0..length).map(|index| of(id, 700 + index / 8) as u8 ^ index as u8).collect()
}

pub(crate) fn message(id: u128, root: u128, created_ms: u64, deliver_at_ms: Option<u64>) -> Message {
    Message {
        id: MessageId(id),
        root: MessageId(root),
        key: Some(key(root)),
        created_ms,
        deliver_at_ms,
        payload: payload(id).into(),
        ..Message::default()
    }
}
