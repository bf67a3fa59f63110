//! The ledger of attempts: which messages of a subscription have been handed out how often, whoever had them.
//!
//! Pulsar counts redeliveries in its memory only, and forgets them when a topic moves. So each consumer writes which messages it is about to
//! hand out into a small topic beside the subscription, and hands them out when it reads that back: then it has also read whatever others
//! have written before, also those who have died since. All who read the topic count in the same way and come to the same numbers.
//!
//! The ids of what is handed out are noted there as well, and what of it is settled, so that a repetition is known to all.
//!
//! A record is let go when nothing that it tells of is unsettled, its ids are not remembered any more, and nothing before it is kept.

mod count;

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
    sender::Sender,
};
use crate::wire::{
    frame::Entry,
    proto::{Ack, Command, Deliver, MessageIdData, SubType},
};
use count::State;
use leatworks_broker::{Message, MessageId, Position};
use prost::Message as _;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// The subscription that keeps the ledger's records.
pub(crate) const CURSOR: &str = "leat";

/// Settled messages that are told of at the latest, with or without something to hand out.
const SETTLED_MAX: usize = 1_000;

/// How long they wait for something to be handed out. What dies meanwhile together with the service has its last messages handed out again.
const SETTLED_WAIT: Duration = Duration::from_millis(100);

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
    /// Positions of messages that were given back and are handed out elsewhere from now on.
    #[prost(sint64, repeated, tag = "8")]
    moved: Vec<i64>,
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
        let state = Mutex::new(State::new(before));
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

    /// Messages are settled. It is told with the next that are handed out, or in a moment.
    pub(crate) fn settled(self: &Arc<Self>, positions: &[Position]) {
        let (many, first) = {
            let mut state = self.state();
            state.settled.extend_from_slice(positions);
            (state.settled.len() >= SETTLED_MAX, !std::mem::replace(&mut state.telling, true))
        };
        if many {
            drop(self.write(Record::default()));
        }
        if first {
            let ledger = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(SETTLED_WAIT).await;
                if let Some(ledger) = ledger.upgrade() {
                    ledger.tell_settled();
                }
            });
        }
    }

    /// Writes what is settled and was not told meanwhile.
    fn tell_settled(self: &Arc<Self>) {
        let is_left = {
            let mut state = self.state();
            state.telling = false;
            !state.settled.is_empty()
        };
        if is_left {
            drop(self.write(Record::default()));
        }
    }

    /// A message was given back and is handed out elsewhere from now on: it is not, if it comes again here.
    pub(crate) async fn moved(self: &Arc<Self>, position: Position) -> Answer<()> {
        let done = self.write(Record { moved: distances([position].into_iter()), ..Record::default() });
        done.await.map_err(|_| PulsarError::Closed)?.map(drop)
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
