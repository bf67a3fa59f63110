//! The order of each key on a key-shared subscription, and which consumer a key goes to.

use crate::state::Settled;
use std::collections::{BTreeSet, HashMap};

/// Keys with an unsettled message that was looked at, by hash.
#[derive(Debug, Default)]
pub(super) struct Keys {
    queues: HashMap<u32, Queue, rustc_hash::FxBuildHasher>,
    /// How many messages wait for the one before.
    waiting: usize,
}

/// One key: the message that is at its head, and those that wait for it.
#[derive(Debug)]
struct Queue {
    head: u64,
    waiting: BTreeSet<u64>,
}

impl Keys {
    /// Whether the order of its key lets this message go; if not, it waits for the one before.
    pub(super) fn admit(&mut self, key: u32, position: u64) -> bool {
        let queue = self.queues.entry(key).or_insert_with(|| Queue { head: position, waiting: BTreeSet::new() });
        queue.head == position || {
            self.waiting += usize::from(queue.waiting.insert(position));
            false
        }
    }

    /// A message is settled. Gives the next of its key, if this was the head and another waits.
    pub(super) fn settled(&mut self, position: u64, key: u32, settled: &Settled) -> Option<u64> {
        let mut queue = self.queues.remove(&key)?;
        if queue.head != position {
            self.queues.insert(key, queue);
            return None;
        }
        while let Some(next) = queue.waiting.pop_first() {
            self.waiting -= 1;
            if !settled.contains(next) {
                self.queues.insert(key, Queue { head: next, ..queue });
                return Some(next);
            }
        }
        None
    }

    /// Forgets the key that has this message at its head, and gives those that waited for it.
    pub(super) fn forget(&mut self, position: u64) -> BTreeSet<u64> {
        let mut freed = BTreeSet::new();
        self.queues.retain(|_, queue| {
            let forgotten = queue.head == position;
            if forgotten {
                freed.append(&mut queue.waiting);
            }
            !forgotten
        });
        self.waiting -= freed.len();
        freed
    }

    /// How many messages wait for the one before.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}

/// The consumer that a key goes to, of those that are there: each gets about as many keys as the others, and when one comes or goes only the keys move
/// that go to it or were with it (rendezvous hashing: the highest of a number made of the key and the consumer). It takes a nanosecond for each consumer.
pub(super) fn owner(key: u32, consumers: impl IntoIterator<Item = u64>) -> Option<u64> {
    let weight = |consumer: &u64| mix(u64::from(key) ^ mix(*consumer));
    consumers.into_iter().max_by_key(weight)
}

/// Spreads a number over all 64 bits (the last steps of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn keys_are_spread_and_move_only_to_who_comes_and_from_who_goes() {
        let keys = 1..=20_000_u32;
        for consumers in [1..3_u64, 5..15, 1_000..1_064] {
            let before: Vec<_> = keys.clone().map(|key| owner(key, consumers.clone()).unwrap()).collect();
            let mut counts = BTreeMap::new();
            before.iter().for_each(|consumer| *counts.entry(*consumer).or_insert(0_u64) += 1);
            let fair = 20_000 / (consumers.end - consumers.start);
            assert_eq!(counts.len() as u64, consumers.end - consumers.start);
            assert!(counts.values().all(|count| *count > fair / 2 && *count < fair * 3 / 2), "{counts:?}");
            // One comes; then the first goes.
            let more = consumers.start..consumers.end + 1;
            for (key, before) in keys.clone().zip(&before) {
                let after = owner(key, more.clone()).unwrap();
                assert!(after == *before || after == consumers.end, "key {key} moved from {before} to {after}");
                let left = owner(key, more.start + 1..more.end);
                assert!(left == Some(after) || after == more.start, "key {key} moved from {after} to {left:?}");
            }
        }
        assert_eq!(owner(7, []), None);
    }
}
