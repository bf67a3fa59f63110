//! Identities of messages, and the time.

use crate::codec::{Bytes, Codec};
use leatworks_broker::{Message, MessageId};
use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// A root message: what [`Broker::publish`](leatworks_broker::Broker::publish) takes on an ingress topic.
///
/// Its id begins with the time, so ids sort roughly by age, and ends with 80 random bits.
pub fn new_root(payload: Bytes, codec: Codec, key: Option<String>) -> Message {
    let id = random_id();
    Message { id, root: id, key, created_ms: now_ms(), codec, payload, ..Message::default() }
}

/// Milliseconds since the Unix epoch; zero for a clock before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn random_id() -> MessageId {
    thread_local! {
        /// Random bytes and how many of them are left. One call of the system for 256 ids: it takes longer than publishing a message.
        static RANDOM: RefCell<([u8; 4_096], usize)> = const { RefCell::new(([0; 4_096], 0)) };
    }
    let random = RANDOM.with_borrow_mut(|(bytes, left)| {
        if *left < 16 {
            // Without a source of randomness two ids could collide, and messages be lost as repetitions: stopping is the lesser harm.
            getrandom::fill(bytes).expect("the operating system gives random bytes");
            *left = bytes.len();
        }
        *left -= 16;
        let mut random = [0; 16];
        random.copy_from_slice(&bytes[*left..*left + 16]);
        u128::from_le_bytes(random) >> 48
    });
    MessageId((u128::from(now_ms()) << 80) | random)
}

/// What the ids of all children by one edge are mixed with.
pub(crate) fn seed(topology: &str, edge: &str) -> u64 {
    xxh3_64(format!("{topology}\0{edge}").as_bytes())
}

/// The id of output number `index` of a message that was handled on the edge with this seed. The same message gives the same ids again.
pub(crate) fn child_id(parent: MessageId, seed: u64, index: u64) -> MessageId {
    let mut bytes = [0u8; 24];
    bytes[..16].copy_from_slice(&parent.0.to_le_bytes());
    bytes[16..].copy_from_slice(&index.to_le_bytes());
    // Zero means untracked, so it is no identity.
    MessageId(xxh3_128_with_seed(&bytes, seed).max(1))
}

/// A number that is evenly spread over 0 to 1, and the same for the same message and attempt.
pub(crate) fn spread(id: MessageId, attempt: u32) -> f64 {
    let hash = xxh3_128_with_seed(&id.0.to_le_bytes(), u64::from(attempt)) as u64;
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn children_have_ids_of_their_own_and_always_the_same() {
        let ids: HashSet<_> = (0..10)
            .flat_map(|parent| (0..10).flat_map(move |edge| (0..10).map(move |index| child_id(MessageId(parent), edge, index))))
            .collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(child_id(MessageId(7), 1, 2), child_id(MessageId(7), 1, 2));
        assert_ne!(seed("a", "bc"), seed("ab", "c"));
    }

    #[test]
    fn roots_are_their_own_root_and_differ() {
        let roots: HashSet<_> = (0..1000).map(|_| new_root(Bytes::new(), Codec::Json, None).id).collect();
        assert_eq!(roots.len(), 1000);
        let root = new_root(Bytes::new(), Codec::Json, None);
        assert_eq!(root.id, root.root);
    }

    #[test]
    fn the_spread_covers_its_range() {
        let values: Vec<f64> = (0..1000).map(|id| spread(MessageId(id), 1)).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value < 0.05) && values.iter().any(|value| *value > 0.95));
    }
}
