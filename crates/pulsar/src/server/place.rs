//! Between positions and message ids: a topic is one log here, cut into ledgers of the same size.

use crate::{client::ENTRY_BITS, wire::proto::MessageIdData};
use leatworks_broker::{Position, Start};

/// The ledgers that a topic has for itself, of 16 million messages each: 68 thousand million messages.
pub(crate) const LEDGERS_OF_TOPIC: u64 = 1 << 12;

/// The ledgers that a topic can be said to have before positions end.
const LEDGERS_MAX: u64 = 1 << (64 - ENTRY_BITS);

/// The ledger of what nothing can come behind, for who starts there.
const LATEST: u64 = i64::MAX as u64;

/// An entry that is named by -1 is the one before the first.
const BEFORE_FIRST: u64 = u64::MAX;

/// The id of the message at a position of the topic whose ledgers begin with `ledger`.
pub(crate) fn id(ledger: u64, position: u64) -> MessageIdData {
    let entry = position & ((1 << ENTRY_BITS) - 1);
    MessageIdData { ledger: ledger + (position >> ENTRY_BITS), entry, ..MessageIdData::default() }
}

/// The position of a message, if an id names one of this topic. An id that a producer got for a message of a batch names the first of it, and the place
/// within.
pub(crate) fn position(ledger: u64, id: &MessageIdData) -> Option<Position> {
    let of_topic = id.ledger.checked_sub(ledger).filter(|number| *number < LEDGERS_MAX && id.entry != BEFORE_FIRST)?;
    let first = (of_topic << ENTRY_BITS).saturating_add(id.entry);
    Some(Position(first.saturating_add(u64::from(id.batch_index.unwrap_or_default().max(0) as u32))))
}

/// Where an id points to for who starts there.
pub(crate) fn start(ledger: u64, id: &MessageIdData) -> Start {
    match (id.ledger, id.entry) {
        // -1 is the earliest, the largest signed number the latest.
        (u64::MAX, _) => Start::Earliest,
        (LATEST, _) => Start::Latest,
        (found, _) if found < ledger => Start::Earliest,
        (found, BEFORE_FIRST) if found == ledger => Start::Earliest,
        (found, BEFORE_FIRST) if found - ledger < LEDGERS_MAX => Start::At(Position((found - ledger) << ENTRY_BITS)),
        _ => position(ledger, id).map_or(Start::Latest, Start::At),
    }
}

/// `LEDGER:ENTRY` of the message before a position, as the admin API writes it; the entry is -1 before the first.
pub(crate) fn text_before(ledger: u64, position: u64) -> String {
    match position.checked_sub(1).map(|last| id(ledger, last)) {
        Some(last) => format!("{}:{}", last.ledger, last.entry),
        None => format!("{ledger}:-1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: u64 = 3 * LEDGERS_OF_TOPIC;

    #[test]
    fn ids_rise_with_positions_and_name_them() {
        let positions = [0, 1, (1 << ENTRY_BITS) - 1, 1 << ENTRY_BITS, (5 << ENTRY_BITS) + 7, u64::MAX >> 1];
        let ids: Vec<MessageIdData> = positions.iter().map(|at| id(LEDGER, *at)).collect();
        assert!(ids.is_sorted_by_key(|id| (id.ledger, id.entry)));
        for (at, id) in positions.iter().zip(&ids) {
            assert_eq!((position(LEDGER, id), start(LEDGER, id)), (Some(Position(*at)), Start::At(Position(*at))));
        }
        let in_batch = MessageIdData { batch_index: Some(3), ..id(LEDGER, (1 << ENTRY_BITS) - 2) };
        assert_eq!(position(LEDGER, &in_batch), Some(Position((1 << ENTRY_BITS) + 1)), "a batch may go on in the next ledger");
        assert_eq!(position(LEDGER, &id(LEDGER - 1, 0)), None, "it is of another topic");
    }

    #[test]
    fn a_start_before_the_first_and_behind_the_last_is_told_by_its_numbers() {
        let first = LEDGER as i64;
        for (ledger, entry, expected) in [
            (-1, -1, Start::Earliest),
            (first - 1, 5, Start::Earliest),
            (first, -1, Start::Earliest),
            (first + 2, -1, Start::At(Position(2 << ENTRY_BITS))),
            (i64::MAX, i64::MAX, Start::Latest),
            (1 << 50, 0, Start::Latest),
        ] {
            let id = MessageIdData { ledger: ledger as u64, entry: entry as u64, ..MessageIdData::default() };
            assert_eq!(start(LEDGER, &id), expected, "{ledger}:{entry}");
        }
        let texts = [0, 1, (1 << ENTRY_BITS) + 1].map(|position| text_before(5, position));
        assert_eq!(texts, ["5:-1", "5:0", "6:0"]);
    }
}
