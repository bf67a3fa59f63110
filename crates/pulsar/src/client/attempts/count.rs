//! What all who read a ledger make of it, record by record.

use super::{Ahead, REPEATED, Record, positions};
use crate::client::{
    error::{Answer, PulsarError},
    hands::Pick,
    opening::Before,
    pack::Place,
    seen::{Gone, Seen},
};
use leatworks_broker::Position;
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;

/// What has been read, and what is to be written.
#[derive(Default)]
pub(super) struct State {
    /// What was handed out and is not settled.
    known: HashMap<Position, Known>,
    /// Records that are kept, in order, and how many messages and ids are known by each.
    records: VecDeque<(Position, usize)>,
    seen: Seen,
    gone: Gone,
    before: Option<Before>,
    /// The last record of each writer: what comes a second time over a new connection is passed over.
    pub(super) writers: HashMap<u64, u64>,
    pub(super) last: Option<Position>,
    pub(super) number: u64,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Answer<Vec<u32>>>>,
    /// What is settled and was not told yet, and whether somebody will tell it in a moment.
    pub(super) settled: Vec<Position>,
    pub(super) telling: bool,
    pub(super) ahead: Ahead,
    /// Whether others have been told that messages are taken here.
    pub(super) greeted: bool,
    /// Why nothing is read any more, if it is not.
    pub(super) ended: Option<PulsarError>,
}

/// The attempt that a message was handed out for, the record that says so, and the hash of its id, or 0.
#[derive(Clone, Copy, Debug)]
struct Known {
    attempt: u32,
    by: Position,
    id: u64,
}

impl State {
    /// One that has read nothing.
    pub(super) fn new(before: Option<Before>) -> Self {
        Self { before, ..Self::default() }
    }

    /// Whether messages may be handed out before their record is read back: nothing is known here of any of them, nor of another with its id.
    pub(super) fn goes_ahead(&mut self, number: u64, record: &[u8], picked: &[Pick]) -> bool {
        let Self { ahead, known, gone, seen, .. } = self;
        let is_new = |Pick { position, id, .. }: &Pick| !known.contains_key(position) && !gone.has(*position) && !seen.has(*id);
        ahead.go(number, record, picked, is_new)
    }

    /// Counts what a record tells. Gives the attempt of each message that it is about.
    pub(super) fn count(&mut self, at: Position, record: &Record) -> Vec<u32> {
        if record.forget {
            self.known.clear();
            self.seen.clear();
            self.gone = Gone::default();
            self.before = None;
            self.records.iter_mut().for_each(|(_, known)| *known = 0);
        }
        self.records.push_back((at, 0));
        let mut attempts = Vec::with_capacity(record.taken.len());
        for (index, position) in positions(&record.taken).enumerate() {
            let told = record.attempts.get(index).copied().unwrap_or(1);
            let id = record.ids.get(index).copied().unwrap_or_default();
            attempts.push(self.take(at, position, told, id));
        }
        positions(&record.settled).for_each(|position| self.settle(at, position, false));
        positions(&record.moved).for_each(|position| self.settle(at, position, true));
        attempts
    }

    /// Passes over a record that was read already, and stands there once more.
    pub(super) fn pass(&mut self, at: Position) {
        self.records.push_back((at, 0));
    }

    fn take(&mut self, at: Position, position: Position, told: u32, id: u64) -> u32 {
        self.gone.take();
        while let Some(record) = self.gone.forget_one() {
            self.less(record);
        }
        let is_first = id == 0 || (self.note(id, position, at) && !self.seen.is_settled(id));
        if !is_first || self.gone.has(position) {
            return REPEATED;
        }
        if let Some(before) = self.before.as_ref().filter(|before| before.is_settled(position, at)) {
            let moved = before.has_moved(position);
            self.remember_settled(at, position, Known { attempt: told, by: at, id }, moved);
            return told;
        }
        let before = self.known.get(&position).copied();
        let attempt = before.map_or(told, |before| told.max(before.attempt + 1));
        let by = match before {
            // Only both records together tell how often it was.
            Some(before) if told < attempt => before.by,
            Some(before) => {
                self.less(before.by);
                at
            }
            None => at,
        };
        if by == at {
            self.more();
        }
        self.known.insert(position, Known { attempt, by, id });
        attempt
    }

    /// A message is settled, or goes on elsewhere.
    fn settle(&mut self, at: Position, position: Position, moved: bool) {
        let known = self.known.remove(&position);
        if let Some(known) = known {
            self.less(known.by);
        }
        if known.is_some() || moved {
            self.remember_settled(at, position, known.unwrap_or(Known { attempt: 1, by: at, id: 0 }), moved);
        }
    }

    /// Neither it nor another copy of it is handed out any more. Without an id that is remembered of what may have another copy only.
    fn remember_settled(&mut self, at: Position, position: Position, known: Known, moved: bool) {
        if known.id != 0 {
            self.seen.settle(known.id, position);
        } else if (moved || known.attempt > 1) && self.gone.note(position, at) {
            self.more();
        }
    }

    /// Notes an id; `false` if it is a repetition.
    fn note(&mut self, id: u64, position: Position, at: Position) -> bool {
        let remembered = self.seen.len();
        let first = self.seen.note(id, position, at);
        if self.seen.len() > remembered {
            self.more();
        }
        while let Some(record) = self.seen.forget_one() {
            self.less(record);
        }
        first
    }

    /// The record that is being read is needed for one thing more.
    fn more(&mut self) {
        self.records.back_mut().into_iter().for_each(|(_, known)| *known += 1);
    }

    fn less(&mut self, record: Position) {
        if let Ok(found) = self.records.binary_search_by_key(&record, |(at, _)| *at) {
            self.records[found].1 = self.records[found].1.saturating_sub(1);
        }
    }

    /// Entries from the front of which nothing is known any more; never the one that was read last, which may have more to tell.
    pub(super) fn done(&mut self, reading: Place) -> Vec<Place> {
        let mut done: Vec<Place> = Vec::new();
        while let Some((at, 0)) = self.records.front() {
            let (place, _) = Place::of(*at);
            if place == reading {
                break;
            }
            self.records.pop_front();
            // An entry is let go when its last record is.
            if self.records.front().is_none_or(|(next, _)| Place::of(*next).0 != place) {
                done.push(place);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::{super::distances, *};

    fn record(taken: &[u64], attempts: &[u32], settled: &[u64]) -> Record {
        let of = |positions: &[u64]| distances(positions.iter().copied().map(Position));
        Record { taken: of(taken), attempts: attempts.to_vec(), settled: of(settled), ..Record::default() }
    }

    fn at(entry: u64) -> Position {
        Place { ledger: 3, entry }.position(0).unwrap()
    }

    #[test]
    fn positions_are_the_distances_between_them() {
        let all = [Position(5), Position(5), Position(2), Position(u64::MAX), Position(0)];
        assert!(positions(&distances(all.into_iter())).eq(all));
    }

    #[test]
    fn attempts_are_the_same_for_whoever_reads_from_wherever_the_ledger_is_kept() {
        let log = [
            record(&[10, 11, 12], &[], &[]),
            record(&[13], &[], &[10]),
            // By one who knows of the first time, and by one who does not.
            record(&[11, 12], &[2, 1], &[]),
            record(&[11, 12], &[3, 3], &[13]),
            record(&[14], &[], &[11]),
            record(&[12], &[4], &[]),
        ];
        let counted = [vec![1, 1, 1], vec![1], vec![2, 2], vec![3, 3], vec![1], vec![4]];
        let mut state = State::default();
        let mut kept_from = 0;
        for (entry, record) in log.iter().enumerate() {
            assert_eq!(state.count(at(entry as u64), record), counted[entry], "record {entry}");
            kept_from += state.done(Place::of(at(entry as u64)).0).len();
            // Another who begins with what is kept comes to the same.
            let mut other = State::default();
            (kept_from..=entry).for_each(|entry| drop(other.count(at(entry as u64), &log[entry])));
            for (position, known) in &state.known {
                let others = other.known.get(position).map(|known| known.attempt);
                assert_eq!(others, Some(known.attempt), "{position:?} after {entry}");
            }
        }
        assert_eq!(kept_from, 4, "12 is known by the last alone, and 14 by the one before");
    }

    #[test]
    fn the_second_of_two_with_one_id_is_a_repetition_for_whoever_reads() {
        let with = |taken: &[u64], ids: &[u64], settled: &[u64]| Record { ids: ids.to_vec(), ..record(taken, &[], settled) };
        let log = [
            with(&[10, 11], &[1, 2], &[]),
            // 12 is 10 again; 13 has no id.
            with(&[12, 13], &[1, 0], &[10, 11]),
            with(&[12, 14, 15], &[1, 2, 3], &[12, 13]),
            with(&[15, 16], &[3, 4], &[12, 14, 15]),
            // 1 and 2 are forgotten by now.
            with(&[17, 18], &[1, 2], &[15, 16]),
            with(&[19], &[1], &[17, 18]),
        ];
        let counted = [vec![1, 1], vec![0, 1], vec![0, 0, 1], vec![2, 1], vec![1, 1], vec![0]];
        let fresh = || State { seen: Seen::with_max(2), ..State::default() };
        let mut state = fresh();
        let mut kept_from = 0;
        for (entry, record) in log.iter().enumerate() {
            assert_eq!(state.count(at(entry as u64), record), counted[entry], "record {entry}");
            kept_from += state.done(Place::of(at(entry as u64)).0).len();
            // Another who begins with what is kept drops the same from here on.
            let mut other = fresh();
            (kept_from..=entry).for_each(|entry| drop(other.count(at(entry as u64), &log[entry])));
            for id in 1..=4 {
                let (mine, others) = (state.seen.place(id), other.seen.place(id));
                assert_eq!(mine, others, "id {id} after record {entry}");
            }
        }
        assert_eq!(kept_from, 4, "the records of the last ids are kept");
        state.count(at(9), &Record { forget: true, ..Record::default() });
        assert_eq!(state.count(at(10), &with(&[20], &[1], &[])), [1], "a subscription that was moved begins anew");
    }

    #[test]
    fn what_was_settled_before_is_not_waited_for() {
        let before = Before { last: (3, 0), acknowledged: None, pending: [Position(11)].into(), elsewhere: false };
        let mut state = State { before: Some(before), ..State::default() };
        assert_eq!(state.count(at(0), &record(&[10, 11], &[], &[])), [1, 1]);
        assert_eq!(state.count(at(1), &record(&[12], &[], &[11])), [1]);
        assert_eq!(state.known.keys().collect::<Vec<_>>(), [&Position(12)]);
        assert_eq!(state.done(Place { ledger: 9, entry: 0 }).len(), 1, "10 is not waited for");
    }

    #[test]
    fn what_is_settled_or_goes_on_elsewhere_is_not_handed_out_again() {
        let with = |taken: &[u64], attempts: &[u32], ids: &[u64], settled: &[u64]| Record {
            ids: ids.to_vec(),
            ..record(taken, attempts, settled)
        };
        let moved = |gone: &[u64]| Record { moved: record(gone, &[], &[]).taken, ..Record::default() };
        let log = [
            // 20 and 21 have no id, and 22 is known by no record that is kept.
            with(&[10, 11, 12], &[], &[1, 2, 3], &[]),
            record(&[20, 21], &[], &[]),
            record(&[20], &[2], &[10, 21]),
            moved(&[11, 22]),
            record(&[], &[], &[20]),
            with(&[10, 11, 12], &[1, 2, 2], &[1, 2, 3], &[]),
            // What was settled at its first attempt and has no id is not remembered; the copies of 20 and the rest are.
            record(&[20, 20, 21, 22], &[3, 1, 1, 2], &[]),
        ];
        let counted = [
            vec![1, 1, 1],
            vec![1, 1],
            vec![2],
            vec![],
            vec![],
            vec![REPEATED, REPEATED, 2],
            vec![REPEATED, REPEATED, 1, REPEATED],
        ];
        let mut state = State::default();
        for (entry, record) in log.iter().enumerate() {
            assert_eq!(state.count(at(entry as u64), record), counted[entry], "record {entry}");
        }
        assert!(state.done(Place { ledger: 9, entry: 0 }).is_empty(), "the first record is kept for its ids");
        state.count(at(9), &Record { forget: true, ..Record::default() });
        assert_eq!(state.count(at(10), &with(&[10, 20], &[], &[1, 0], &[])), [1, 1], "a subscription that was moved begins anew");
    }

    #[test]
    fn what_was_given_back_before_is_not_handed_out_beside_its_copy() {
        let pending = [Position(11), Position(13)].into();
        let before = Before { last: (3, 0), acknowledged: None, pending, elsewhere: true };
        let mut state = State::new(Some(before));
        state.count(at(0), &Record { ids: vec![1, 0], ..record(&[11, 13], &[], &[]) });
        assert_eq!(state.count(at(1), &Record { ids: vec![1, 0], ..record(&[11, 13], &[2, 2], &[]) }), [REPEATED; 2]);
    }
}
