//! The ledger of attempts: which messages of a subscription have been handed out how often, whoever had them.
//!
//! Pulsar counts redeliveries in its memory only, and forgets them when a topic moves. So each consumer writes which messages it is about to
//! hand out into a small topic beside the subscription, and hands them out when it reads that back: then it has also read whatever others
//! have written before, also those who have died since. All who read the topic count in the same way and come to the same numbers.
//!
//! The ids of what is handed out are noted there as well, so that a repetition is known to all.
//!
//! A record is let go when nothing that it tells of is unsettled, its ids are not remembered any more, and nothing before it is kept.

use super::{
    error::{Answer, PulsarError},
    feed::{Feed, FeedOptions, Sink},
    hands::Pick,
    limits::{PREFETCH_MAX, STILL_MAX},
    now_ms,
    opening::Before,
    pack::{self, Again, Outgoing, Place},
    pool::Pool,
    random,
    seen::Seen,
    sender::Sender,
};
use crate::wire::{
    frame::Entry,
    proto::{Ack, Command, Deliver, MessageIdData, SubType},
};
use leatworks_broker::{Message, MessageId, Position};
use prost::Message as _;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// The subscription that keeps the ledger's records.
pub(crate) const CURSOR: &str = "leat";

/// Settled messages that are told of at the latest, with or without something to hand out.
const SETTLED_MAX: usize = 1_000;

/// The topic that a subscription's attempts are noted in.
pub(crate) fn ledger_topic(topic: &str, subscription: &str) -> String {
    super::topics::beside(topic, subscription, "ATTEMPTS")
}

/// What is written at once.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    /// Who writes, and the how many'th record of it this is.
    #[prost(fixed64, tag = "1")]
    writer: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
    /// The positions that are about to be handed out, each as the distance from the one before.
    #[prost(sint64, repeated, tag = "3")]
    taken: Vec<i64>,
    /// The attempts that the writer takes these for; empty if each is the first.
    #[prost(uint32, repeated, tag = "4")]
    attempts: Vec<u32>,
    /// Positions that are settled.
    #[prost(sint64, repeated, tag = "5")]
    settled: Vec<i64>,
    /// The subscription was moved, and all attempts start over.
    #[prost(bool, tag = "6")]
    forget: bool,
    /// The hashes of the ids of what is about to be handed out; empty if repetitions are not looked for.
    #[prost(fixed64, repeated, tag = "7")]
    ids: Vec<u64>,
}

/// The attempt of what is a repetition of another message, and is not handed out.
pub(crate) const REPEATED: u32 = 0;

fn distances(positions: impl Iterator<Item = Position>) -> Vec<i64> {
    let mut last = 0;
    positions.map(|position| (position.0 as i64).wrapping_sub(std::mem::replace(&mut last, position.0 as i64))).collect()
}

fn positions(distances: &[i64]) -> impl Iterator<Item = Position> {
    distances.iter().scan(0_i64, |at, distance| {
        *at = at.wrapping_add(*distance);
        Some(Position(*at as u64))
    })
}

/// The attempts of one subscription.
pub(crate) struct Ledger {
    sender: Sender,
    writer: u64,
    state: Mutex<State>,
    feeds: Mutex<Vec<Arc<Feed>>>,
}

#[derive(Default)]
struct State {
    /// The attempt that each message was handed out for, and the record that says so.
    known: HashMap<Position, (u32, Position)>,
    /// Records that are kept, in order, and how many messages and ids are known by each.
    records: VecDeque<(Position, usize)>,
    seen: Seen,
    before: Option<Before>,
    /// The last record of each writer: what comes a second time over a new connection is passed over.
    writers: HashMap<u64, u64>,
    last: Option<Position>,
    number: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer<Vec<u32>>>>,
    settled: Vec<Position>,
}

/// Where records go that are read.
struct Tail(std::sync::Weak<Ledger>);

/// Nothing comes to who only acknowledges.
struct Cursor;

impl Sink for Cursor {
    fn arrived(&self, _: &Arc<Feed>, _: Deliver, _: Entry) {}
    fn lost(&self, _: &Arc<Feed>) {}
    fn failed(&self, _: &Arc<Feed>, _: PulsarError) {}
}

impl Sink for Tail {
    fn arrived(&self, feed: &Arc<Feed>, deliver: Deliver, entry: Entry) {
        let Some(ledger) = self.0.upgrade() else { return };
        let place = Place { ledger: deliver.message_id.ledger, entry: deliver.message_id.entry };
        match pack::open("", entry, now_ms()) {
            Ok(messages) => {
                feed.give(messages.len(), feed.epoch());
                let done = ledger.read(place, messages.iter().map(|arrived| &arrived.message));
                ledger.let_go(done);
            }
            Err(error) => tracing::error!(topic = feed.topic(), ?place, %error, "a record of attempts cannot be read"),
        }
    }

    fn lost(&self, _: &Arc<Feed>) {}

    fn failed(&self, _: &Arc<Feed>, error: PulsarError) {
        let Some(ledger) = self.0.upgrade() else { return };
        for (_, waiting) in ledger.state().waiting.drain() {
            let _ = waiting.send(Err(error.clone()));
        }
    }
}

impl Ledger {
    /// Reads the ledger from where it is kept, and goes on reading.
    pub(crate) async fn open(
        pool: Arc<Pool>,
        topic: String,
        sender: Sender,
        through: (u64, i64),
        before: Option<Before>,
    ) -> Answer<Arc<Self>> {
        let state = Mutex::new(State { before, ..State::default() });
        let ledger = Arc::new(Self { sender, writer: random(), state, feeds: Mutex::default() });
        let options = FeedOptions {
            topic,
            subscription: CURSOR.to_owned(),
            kind: SubType::Shared,
            consumer: "leatworks".to_owned(),
            window: 0,
            still_max: STILL_MAX,
            from: None,
        };
        let cursor = Feed::open(pool.clone(), options.clone(), Arc::new(Cursor)).await?;
        let from = MessageIdData { ledger: through.0, entry: through.1 as u64, ..MessageIdData::default() };
        let tail = FeedOptions {
            subscription: format!("leat-tail-{:016x}", random()),
            kind: SubType::Exclusive,
            window: PREFETCH_MAX,
            from: Some(from),
            ..options
        };
        ledger.feeds().push(cursor);
        let tail = Feed::open(pool, tail, Arc::new(Tail(Arc::downgrade(&ledger)))).await?;
        ledger.feeds().push(tail);
        Ok(ledger)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeds(&self) -> MutexGuard<'_, Vec<Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn close(&self) {
        let feeds = std::mem::take(&mut *self.feeds());
        for feed in feeds {
            feed.close().await;
        }
        self.state().waiting.clear();
    }

    /// Notes that messages are about to be handed out, each with the attempt it is as far as is known; gives what it is, or [`REPEATED`].
    pub(crate) fn take(self: &Arc<Self>, picked: &[Pick]) -> oneshot::Receiver<Answer<Vec<u32>>> {
        let attempts = match picked.iter().all(|pick| pick.attempt == 1) {
            true => Vec::new(),
            false => picked.iter().map(|pick| pick.attempt).collect(),
        };
        let ids = match picked.iter().all(|pick| pick.id == 0) {
            true => Vec::new(),
            false => picked.iter().map(|pick| pick.id).collect(),
        };
        let taken = distances(picked.iter().map(|pick| pick.position));
        self.write(Record { taken, attempts, ids, ..Record::default() })
    }

    /// Messages are settled. It is told with the next that are handed out.
    pub(crate) fn settled(self: &Arc<Self>, positions: &[Position]) {
        let many = {
            let mut state = self.state();
            state.settled.extend_from_slice(positions);
            state.settled.len() >= SETTLED_MAX
        };
        if many {
            drop(self.write(Record::default()));
        }
    }

    /// All attempts start over.
    pub(crate) async fn forget(self: &Arc<Self>) -> Answer<()> {
        let done = self.write(Record { forget: true, ..Record::default() });
        done.await.map_err(|_| PulsarError::Closed)?.map(drop)
    }

    fn write(self: &Arc<Self>, mut record: Record) -> oneshot::Receiver<Answer<Vec<u32>>> {
        let (done, waiting) = oneshot::channel();
        let sending = {
            // Numbered and sent under one lock, so that the numbers of a writer rise in the topic.
            let mut state = self.state();
            state.number += 1;
            (record.writer, record.number) = (self.writer, state.number);
            record.settled = distances(std::mem::take(&mut state.settled).into_iter());
            let number = record.number;
            state.waiting.insert(number, done);
            let message =
                Message { id: MessageId(1), created_ms: now_ms(), payload: record.encode_to_vec().into(), ..Message::default() };
            let outgoing = Outgoing { message: message.into(), sequence: None, again: Again::default() };
            (number, self.sender.send(vec![outgoing]))
        };
        let ledger = self.clone();
        tokio::spawn(async move {
            let (number, sending) = sending;
            if let Err(error) = sending.await {
                let waiting = ledger.state().waiting.remove(&number);
                let _ = waiting.map(|waiting| waiting.send(Err(error)));
            }
        });
        waiting
    }

    /// Counts what an entry tells. Gives the entries that need not be kept any longer.
    fn read<'a>(&self, place: Place, messages: impl Iterator<Item = &'a Message>) -> Vec<Place> {
        let mut state = self.state();
        for (index, message) in messages.enumerate() {
            let (Some(at), Ok(record)) = (place.position(index), Record::decode(message.payload.clone())) else {
                tracing::error!(?place, index, "a record of attempts cannot be read");
                continue;
            };
            if state.last.is_some_and(|last| at <= last) {
                continue;
            }
            state.last = Some(at);
            let written = state.writers.entry(record.writer).or_default();
            if record.number <= *written {
                continue;
            }
            *written = record.number;
            let attempts = state.count(at, &record);
            if record.writer == self.writer
                && let Some(waiting) = state.waiting.remove(&record.number)
            {
                // Who does not wait any more hands nothing out.
                let _ = waiting.send(Ok(attempts));
            }
        }
        state.done(place)
    }

    fn let_go(&self, done: Vec<Place>) {
        if done.is_empty() {
            return;
        }
        let id = |place: Place| MessageIdData { ledger: place.ledger, entry: place.entry, ..MessageIdData::default() };
        let message_ids: Vec<_> = done.into_iter().map(id).collect();
        if let Some(cursor) = self.feeds().first() {
            cursor.tell(|consumer_id| Command::Ack(Ack { consumer_id, message_ids, ..Ack::default() }));
        }
    }
}

impl State {
    fn count(&mut self, at: Position, record: &Record) -> Vec<u32> {
        if record.forget {
            self.known.clear();
            self.seen.clear();
            self.before = None;
            self.records.iter_mut().for_each(|(_, known)| *known = 0);
        }
        self.records.push_back((at, 0));
        let mut attempts = Vec::with_capacity(record.taken.len());
        for (index, position) in positions(&record.taken).enumerate() {
            let told = record.attempts.get(index).copied().unwrap_or(1);
            let id = record.ids.get(index).copied().unwrap_or_default();
            if id != 0 && !self.note(id, position, at) {
                attempts.push(REPEATED);
                continue;
            }
            if self.before.as_ref().is_some_and(|before| before.is_settled(position, at)) {
                attempts.push(told);
                continue;
            }
            let before = self.known.get(&position).copied();
            let attempt = before.map_or(told, |(attempt, _)| told.max(attempt + 1));
            attempts.push(attempt);
            let by = match before {
                // Only both records together tell how often it was.
                Some((_, by)) if told < attempt => by,
                Some((_, by)) => {
                    self.less(by);
                    at
                }
                None => at,
            };
            if by == at {
                self.records.back_mut().into_iter().for_each(|(_, known)| *known += 1);
            }
            self.known.insert(position, (attempt, by));
        }
        for position in positions(&record.settled) {
            if let Some((_, by)) = self.known.remove(&position) {
                self.less(by);
            }
        }
        attempts
    }

    /// Notes an id; `false` if it is a repetition.
    fn note(&mut self, id: u64, position: Position, at: Position) -> bool {
        let remembered = self.seen.len();
        let first = self.seen.note(id, position, at);
        if self.seen.len() > remembered {
            self.records.back_mut().into_iter().for_each(|(_, known)| *known += 1);
        }
        while let Some(record) = self.seen.forget_one() {
            self.less(record);
        }
        first
    }

    fn less(&mut self, record: Position) {
        if let Ok(found) = self.records.binary_search_by_key(&record, |(at, _)| *at) {
            self.records[found].1 = self.records[found].1.saturating_sub(1);
        }
    }

    /// Entries from the front of which nothing is known any more; never the one that was read last, which may have more to tell.
    fn done(&mut self, reading: Place) -> Vec<Place> {
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
    use super::*;

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
            for (position, (attempt, _)) in &state.known {
                assert_eq!(other.known.get(position).map(|(attempt, _)| attempt), Some(attempt), "{position:?} after {entry}");
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
        let before = Before { last: (3, 0), acknowledged: None, pending: [Position(11)].into() };
        let mut state = State { before: Some(before), ..State::default() };
        assert_eq!(state.count(at(0), &record(&[10, 11], &[], &[])), [1, 1]);
        assert_eq!(state.count(at(1), &record(&[12], &[], &[11])), [1]);
        assert_eq!(state.known.keys().collect::<Vec<_>>(), [&Position(12)]);
        assert_eq!(state.done(Place { ledger: 9, entry: 0 }).len(), 1, "10 is not waited for");
    }
}
