//! Which messages a fold has taken, where one may come twice.
//!
//! A dispatcher in a process of its own publishes and acknowledges in two steps. One that is killed between them leaves outputs that are published again with the same ids, and to a broker
//! that keeps steps whole these are messages like all others. So the ids are written beside the state of the fold, in the same step.

use crate::codec::Bytes;
use leatworks_broker::{Broker, BrokerError, Message, MessageId};
use std::collections::{HashSet, VecDeque};

/// Ids of one part. A part is written whole with each step that changes it, so a small one keeps small steps small.
const PART_IDS: usize = 1_024;

/// Parts that are kept: the last 15,360 ids at least. A repetition is behind what was published until the dispatcher was started again, in about a second.
const PARTS: u64 = 16;

/// The ids of what was taken last.
pub(super) struct Once {
    key: String,
    /// The number of the last part, which is written on.
    last: u64,
    parts: VecDeque<Vec<u64>>,
    known: HashSet<u64>,
}

impl Once {
    /// Reads what is kept beside the state with this key.
    pub(super) async fn open(broker: &dyn Broker, key: &str) -> Result<Self, BrokerError> {
        let mut found = Vec::new();
        for place in 0..PARTS {
            let part = broker.state(&part_key(key, place)).await?;
            found.extend(part.and_then(|bytes| read(&bytes)));
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        let last = found.last().map_or(0, |(number, _)| *number);
        // One that was not overwritten yet, although it was its turn, is too old.
        let parts = found.into_iter().filter(|(number, _)| number + PARTS > last).map(|(_, ids)| ids).collect();
        let mut once = Self { key: key.to_owned(), last, parts, known: HashSet::new() };
        once.known = once.parts.iter().flatten().copied().collect();
        Ok(once)
    }

    /// Whether a message was taken already. What has no id of its own is always another one.
    pub(super) fn has(&self, message: &Message) -> bool {
        hash(message.id).is_some_and(|id| self.known.contains(&id))
    }

    /// Notes messages that are taken; gives what is to be written with them.
    pub(super) fn note(&mut self, ids: impl Iterator<Item = MessageId>) -> Vec<(String, Option<Bytes>)> {
        let first = self.last;
        for id in ids.filter_map(hash) {
            if !self.known.insert(id) {
                continue;
            }
            match self.parts.back_mut().filter(|part| part.len() < PART_IDS) {
                Some(part) => part.push(id),
                None => self.begin(id),
            }
        }
        let changed = (self.last - first + 1).min(PARTS).min(self.parts.len() as u64);
        (0..changed).map(|back| self.written(self.last - back)).collect()
    }

    /// Begins the next part, and forgets the oldest if there are too many.
    fn begin(&mut self, id: u64) {
        if !self.parts.is_empty() {
            self.last += 1;
        }
        self.parts.push_back(vec![id]);
        if self.parts.len() as u64 > PARTS {
            for id in self.parts.pop_front().into_iter().flatten() {
                self.known.remove(&id);
            }
        }
    }

    fn written(&self, number: u64) -> (String, Option<Bytes>) {
        let ids = &self.parts[self.parts.len() - 1 - (self.last - number) as usize];
        let bytes: Vec<u8> = std::iter::once(&number).chain(ids).flat_map(|word| word.to_le_bytes()).collect();
        (part_key(&self.key, number % PARTS), Some(bytes.into()))
    }
}

fn part_key(key: &str, place: u64) -> String {
    format!("{key}/taken/{place}")
}

/// The number of a part and its ids; nothing if it is not what is written here.
fn read(bytes: &[u8]) -> Option<(u64, Vec<u64>)> {
    let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    Some((words.next()?, words.collect()))
}

/// An id as it is kept; two of so few are the same by chance once in 10^11 folds.
fn hash(id: MessageId) -> Option<u64> {
    (id.0 != 0).then_some((id.0 ^ (id.0 >> 64)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leatworks_broker::{Limits, MemoryBroker, Step};

    fn message(id: u128) -> Message {
        Message { id: MessageId(id), ..Message::default() }
    }

    #[tokio::test]
    async fn the_last_ids_are_known_also_to_who_opens_it_again() {
        let broker = MemoryBroker::new(Limits::default());
        let total = PARTS as u128 * PART_IDS as u128 * 2 + 100;
        let mut once = Once::open(&broker, "fold/t/f").await.unwrap();
        assert!(!once.has(&message(1)));
        let mut next = 1;
        for size in [1, 10, PART_IDS as u128 * 3, 7].into_iter().cycle() {
            let ids = next..(next + size).min(total + 1);
            next = ids.end;
            let state = once.note(ids.map(MessageId));
            broker.commit(Step { state, ..Step::default() }).await.unwrap();
            if next > total {
                break;
            }
        }
        let again = Once::open(&broker, "fold/t/f").await.unwrap();
        for once in [&once, &again] {
            let known = (1..=total).filter(|id| once.has(&message(*id))).count() as u128;
            assert!(
                (PARTS as u128 - 1) * (PART_IDS as u128) <= known && known <= PARTS as u128 * PART_IDS as u128,
                "{known} are known"
            );
            assert!((total - known + 1..=total).all(|id| once.has(&message(id))), "the last ones");
            assert!(!once.has(&message(total + 1)) && !once.has(&message(0)));
        }
        assert_eq!(again.last, once.last);
    }
}
