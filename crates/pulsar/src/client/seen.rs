//! Which messages a subscription has handed out, by their ids: one that comes again at another place is a repetition.
//!
//! After a crash between publishing and acknowledging a step's outputs are published again with the same ids. Who takes from a topic notes the
//! ids in the ledger of attempts, where all read the same order, so all take the same one of two for the first. One that is settled is a repetition also at its own
//! place: then the service has lost its acknowledgement.

use leatworks_broker::{MessageId, Position};
use std::collections::{HashMap, HashSet, VecDeque};

/// The most ids that are remembered of a subscription. A repetition is behind what was published while its step came again: at 25,000 messages
/// a second this is the last ten seconds. They take 17 MiB, and 3 MiB in the ledger, which a new process reads first. With the one that is
/// coming they fill a power of two.
const IDS_MAX: usize = (1 << 18) - 1;

/// For how many messages more it is remembered that one without an id is settled. The service writes acknowledgements down about once a second, and what was acknowledged
/// since comes again before anything else.
pub(crate) const GONE_TAKEN_MAX: u64 = 20_000;

/// The ids that were noted last.
#[derive(Debug)]
pub(crate) struct Seen {
    max: usize,
    /// Where the message of each id stands, and whether it is settled.
    places: HashMap<u64, (Position, bool)>,
    /// In the order of the ledger, with the record that each is noted in.
    order: VecDeque<(u64, Position)>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { max: IDS_MAX, places: HashMap::new(), order: VecDeque::new() }
    }
}

impl Seen {
    /// An id as it is noted; 0 is none. Two messages of the many that are remembered are the same by chance once in 10^14.
    pub(crate) fn hash(id: MessageId) -> u64 {
        if id.0 == 0 { 0 } else { ((id.0 ^ (id.0 >> 64)) as u64).max(1) }
    }

    /// Notes an id; `false` if it is a repetition: it was noted of a message that stands elsewhere.
    pub(crate) fn note(&mut self, id: u64, position: Position, record: Position) -> bool {
        match self.places.get(&id) {
            Some((place, _)) => *place == position,
            None => {
                self.places.insert(id, (position, false));
                self.order.push_back((id, record));
                true
            }
        }
    }

    /// The message of an id is settled, if it is the one that stands there.
    pub(crate) fn settle(&mut self, id: u64, position: Position) {
        if let Some((_, settled)) = self.places.get_mut(&id).filter(|(place, _)| *place == position) {
            *settled = true;
        }
    }

    /// Whether a message of an id is remembered.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.places.contains_key(&id)
    }

    /// Whether the message of an id is remembered as settled.
    pub(crate) fn is_settled(&self, id: u64) -> bool {
        self.places.get(&id).is_some_and(|(_, settled)| *settled)
    }

    /// Forgets what is too much, and gives the record that it was noted in.
    pub(crate) fn forget_one(&mut self) -> Option<Position> {
        if self.order.len() <= self.max {
            return None;
        }
        let (id, record) = self.order.pop_front()?;
        self.places.remove(&id);
        Some(record)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.order.clear();
    }

    /// Where the message of an id stands.
    #[cfg(test)]
    pub(crate) fn place(&self, id: u64) -> Option<Position> {
        self.places.get(&id).map(|(place, _)| *place)
    }

    /// One that remembers less.
    #[cfg(test)]
    pub(crate) fn with_max(max: usize) -> Self {
        Self { max, ..Self::default() }
    }
}

/// Which messages without an id are settled that were tried more than once, or were given back: if the service loses an acknowledgement they come again, and of what was given back another
/// copy may be there still.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    places: HashSet<Position>,
    /// In the order of the ledger, with the record that each is noted in, and how many messages had been taken by then.
    order: VecDeque<(Position, Position, u64)>,
    taken: u64,
}

impl Gone {
    /// A message is taken.
    pub(crate) fn take(&mut self) {
        self.taken += 1;
    }

    /// Notes a place; `false` if it is there already.
    pub(crate) fn note(&mut self, position: Position, record: Position) -> bool {
        let is_new = self.places.insert(position);
        if is_new {
            self.order.push_back((position, record, self.taken));
        }
        is_new
    }

    pub(crate) fn has(&self, position: Position) -> bool {
        self.places.contains(&position)
    }

    /// Forgets what is too long ago, and gives the record that it was noted in.
    pub(crate) fn forget_one(&mut self) -> Option<Position> {
        let (position, record, taken) = self.order.front().copied()?;
        if self.taken - taken <= GONE_TAKEN_MAX {
            return None;
        }
        self.order.pop_front();
        self.places.remove(&position);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_place_of_an_id_is_a_repetition_as_long_as_the_first_is_remembered() {
        let mut seen = Seen::with_max(2);
        let at = Position;
        assert!(seen.note(7, at(10), at(1)) && seen.note(8, at(11), at(1)));
        assert!(seen.note(7, at(10), at(2)), "the same message is handed out again");
        assert!(!seen.note(7, at(12), at(2)) && !seen.note(8, at(9), at(3)));
        assert_eq!(seen.forget_one(), None);
        assert!(seen.note(9, at(13), at(3)));
        assert_eq!((seen.forget_one(), seen.forget_one()), (Some(at(1)), None));
        assert!(seen.note(7, at(12), at(4)) && !seen.note(8, at(9), at(4)), "the oldest alone is forgotten");
        seen.clear();
        assert!(seen.note(8, at(9), at(5)));
    }

    #[test]
    fn no_id_is_zero_and_others_are_not() {
        assert_eq!(Seen::hash(MessageId(0)), 0);
        for id in [1, 1 << 64, (1 << 64) | 1, u128::MAX] {
            assert_ne!(Seen::hash(MessageId(id)), 0, "{id:x}");
        }
    }

    #[test]
    fn what_is_gone_is_known_for_so_many_messages() {
        let mut gone = Gone::default();
        assert!(gone.note(Position(7), Position(1)) && !gone.note(Position(7), Position(2)));
        (0..GONE_TAKEN_MAX).for_each(|_| gone.take());
        assert!(gone.note(Position(8), Position(3)));
        assert_eq!(gone.forget_one(), None);
        gone.take();
        assert_eq!((gone.forget_one(), gone.forget_one()), (Some(Position(1)), None));
        assert_eq!((gone.has(Position(7)), gone.has(Position(8))), (false, true));
    }
}
