//! The ledger of attempts: which messages of a subscription have been handed out how often, whoever had them.
//!
//! Pulsar counts redeliveries in its memory only, and forgets them when a topic moves. So each consumer writes which messages it is about to
//! hand out into a small topic beside the subscription, and hands them out when it reads that back: then it has also read whatever others
//! have written before, also those who have died since. All who read the topic count in the same way and come to the same numbers.
//!
//! What nobody had in hand before is handed out while its note is on its way, where there is a directory that keeps the note meanwhile: see [`ahead`].
//!
//! The ids of what is handed out are noted there as well, and what of it is settled, so that a repetition is known to all.
//!
//! A record is let go when nothing that it tells of is unsettled, its ids are not remembered any more, and nothing before it is kept.

mod ahead;
mod count;
mod notes;

use super::{
    error::{Answer, PulsarError},
    feed::{Feed, FeedOptions, Sink},
    hands::Pick,
    limits::{AWAY_TIME_MAX, LEAVE_TIME_MAX, PREFETCH_MAX, STILL_MAX},
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
use ahead::{Ahead, Keep, NotesAre};
use count::State;
use leatworks_broker::{BrokerError, ErrorKind, Message, MessageId, Position};
use prost::Message as _;
use std::{
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, oneshot};

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
    /// The writer takes from the subscription from now on: whoever does, too, writes something.
    #[prost(bool, tag = "9")]
    greets: bool,
    /// The writer does not any more.
    #[prost(bool, tag = "10")]
    leaves: bool,
}

/// The attempt of what is a repetition of another message, and is not handed out.
pub(crate) const REPEATED: u32 = 0;

/// A record that says that these are about to be handed out.
fn noting(picked: &[Pick]) -> Record {
    let attempts = match picked.iter().all(|pick| pick.attempt == 1) {
        true => Vec::new(),
        false => picked.iter().map(|pick| pick.attempt).collect(),
    };
    let ids = match picked.iter().all(|pick| pick.id == 0) {
        true => Vec::new(),
        false => picked.iter().map(|pick| pick.id).collect(),
    };
    let taken = distances(picked.iter().map(|pick| pick.position));
    Record { taken, attempts, ids, ..Record::default() }
}

fn outgoing(record: Vec<u8>) -> Outgoing {
    let message = Message { id: MessageId(1), created_ms: now_ms(), payload: record.into(), ..Message::default() };
    Outgoing { message: message.into(), sequence: None, again: Again::default() }
}

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
    /// Notes have been read back, or will not be.
    arrived: Notify,
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
                // Over a new connection the rest is enough, however long this process has been reading.
                feed.has_read(MessageIdData { ledger: place.ledger, entry: place.entry, ..MessageIdData::default() });
            }
            Err(error) => tracing::error!(topic = feed.topic(), ?place, %error, "a record of attempts cannot be read"),
        }
    }

    fn lost(&self, _: &Arc<Feed>) {
        let Some(ledger) = self.0.upgrade() else { return };
        let mut state = ledger.state();
        let number = state.number;
        state.ahead.looks_away(number);
    }

    fn failed(&self, _: &Arc<Feed>, error: PulsarError) {
        let Some(ledger) = self.0.upgrade() else { return };
        {
            let mut state = ledger.state();
            for (_, waiting) in state.waiting.drain() {
                let _ = waiting.send(Err(error.clone()));
            }
            state.ahead.refused_all();
            state.ended = Some(error);
        }
        ledger.arrived.notify_waiters();
    }
}

impl Ledger {
    /// Reads the ledger from where it is kept, and goes on reading. What nobody had before is handed out ahead of its note where there is a directory for notes.
    pub(crate) async fn open(
        pool: Arc<Pool>,
        topic: String,
        sender: Sender,
        through: (u64, i64),
        before: Option<Before>,
        notes: Option<&Path>,
    ) -> Answer<Arc<Self>> {
        let writer = random();
        let mut state = State::new(before);
        state.ahead =
            Ahead::new(notes.map(|directory| Keep { directory: directory.to_owned(), of: pool.place_of(&topic), writer }));
        let state = Mutex::new(state);
        let ledger = Arc::new(Self { sender, writer, state, arrived: Notify::new(), feeds: Mutex::default() });
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

    pub(crate) async fn close(self: &Arc<Self>) {
        // Also who has only moved the subscription, or settled something there, was taken for somebody who is there.
        if self.state().number > 0 {
            let leaving = self.write(Record { leaves: true, ..Record::default() });
            // Who does not hear of it waits for its notes for longer than it needs to.
            let _ = tokio::time::timeout(LEAVE_TIME_MAX, leaving).await;
        }
        let feeds = std::mem::take(&mut *self.feeds());
        for feed in feeds {
            feed.close().await;
        }
        {
            let mut state = self.state();
            state.waiting.clear();
            state.ahead.close();
            state.ended = Some(PulsarError::Closed);
        }
        self.arrived.notify_waiters();
    }

    /// Sends once more what processes have kept for a ledger that have ended since, before it is read.
    pub(crate) async fn send_left(sender: &Sender, directory: &Path, of: &str) -> Answer<()> {
        for left in notes::left(directory, of) {
            let records = left.records.iter().map(|record| outgoing(record.clone())).collect();
            let sent = tokio::time::timeout(AWAY_TIME_MAX, sender.publish(records, None)).await;
            sent.map_err(|_| PulsarError::Away(format!("notes of attempts were not taken within {AWAY_TIME_MAX:?}")))??;
            left.remove();
        }
        Ok(())
    }

    /// Says that messages are taken from the subscription here, once.
    pub(crate) fn greet(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.state().greeted, true) {
            drop(self.write(Record { greets: true, ..Record::default() }));
        }
    }

    /// Sends what the service has refused of these messages' notes again.
    ///
    /// # Errors
    /// If it refuses it once more.
    pub(crate) async fn send_refused(self: &Arc<Self>, positions: &[Position]) -> Answer<()> {
        let refused = match self.state().ahead.where_are(positions) {
            NotesAre::Refused(refused) => refused,
            _ => return Ok(()),
        };
        let attempts = self.write(noting(&refused)).await.map_err(|_| PulsarError::Closed)??;
        self.state().ahead.read_back(&refused, &attempts);
        Ok(())
    }

    /// Waits until what was noted of these messages has been read back. What the service has refused is sent again.
    ///
    /// # Errors
    /// If it refuses it once more. With `alone` also if one of them is a repetition of another message: what it leads to must not happen twice.
    pub(crate) async fn arrived(self: &Arc<Self>, positions: &[Position], alone: bool) -> Result<(), BrokerError> {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let known = self.state().ahead.where_are(positions);
            match known {
                NotesAre::OnTheirWay => arrived.await,
                NotesAre::Refused(_) => self.send_refused(positions).await?,
                NotesAre::There(repeated) if alone && !repeated.is_empty() => {
                    return Err(BrokerError::new(ErrorKind::Settled, "a message is settled already, by another of the same id"));
                }
                NotesAre::There(_) => return Ok(()),
            }
        }
    }

    /// Notes that messages are about to be handed out, each with the attempt it is as far as is known; gives what it is, or [`REPEATED`].
    pub(crate) fn take(self: &Arc<Self>, picked: &[Pick]) -> oneshot::Receiver<Answer<Vec<u32>>> {
        self.write_of(noting(picked), picked)
    }

    /// Messages are settled. It is told with the next that are handed out, or in a moment.
    pub(crate) fn settled(self: &Arc<Self>, positions: &[Position]) {
        let (many, first) = {
            let mut state = self.state();
            state.ahead.left(positions);
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

    /// A message was given back, and its copy says its attempt.
    pub(crate) fn left(&self, position: Position) {
        self.state().ahead.left(&[position]);
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

    fn write(self: &Arc<Self>, record: Record) -> oneshot::Receiver<Answer<Vec<u32>>> {
        self.write_of(record, &[])
    }

    /// Writes a record about messages that are to be handed out. Answers when it is read back, or now if they can be handed out ahead of it.
    fn write_of(self: &Arc<Self>, mut record: Record, picked: &[Pick]) -> oneshot::Receiver<Answer<Vec<u32>>> {
        let (done, waiting) = oneshot::channel();
        let sending = {
            // Numbered and sent under one lock, so that the numbers of a writer rise in the topic.
            let mut state = self.state();
            if let Some(error) = state.ended.clone() {
                let _ = done.send(Err(error));
                return waiting;
            }
            state.number += 1;
            (record.writer, record.number) = (self.writer, state.number);
            record.settled = distances(std::mem::take(&mut state.settled).into_iter());
            let (number, record) = (record.number, record.encode_to_vec());
            if !picked.is_empty() && state.goes_ahead(number, &record, picked) {
                let _ = done.send(Ok(picked.iter().map(|pick| pick.attempt).collect()));
            } else {
                // Only this note is waited for from here on.
                picked.iter().for_each(|pick| state.ahead.left(&[pick.position]));
                state.ahead.wait(picked);
                state.waiting.insert(number, done);
            }
            (number, self.sender.send(vec![outgoing(record)]))
        };
        let ledger = self.clone();
        tokio::spawn(async move {
            let (number, sending) = sending;
            if let Err(error) = sending.await {
                ledger.not_sent(number, error);
            }
        });
        waiting
    }

    fn not_sent(&self, number: u64, error: PulsarError) {
        let mut state = self.state();
        let was_ahead = state.ahead.refused(number);
        let waiting = state.waiting.remove(&number);
        drop(state);
        let _ = waiting.map(|waiting| waiting.send(Err(error)));
        if was_ahead {
            self.arrived.notify_waiters();
        }
    }

    /// Counts what an entry tells. Gives the entries that need not be kept any longer.
    fn read<'a>(self: &Arc<Self>, place: Place, messages: impl Iterator<Item = &'a Message>) -> Vec<Place> {
        let mut state = self.state();
        let (mut was_ahead, mut is_greeted) = (false, false);
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
                state.pass(at);
                continue;
            }
            *written = record.number;
            let attempts = state.count(at, &record);
            if record.writer != self.writer {
                is_greeted |= state.ahead.meets(record.writer, record.leaves) && record.greets;
                continue;
            }
            if record.greets {
                state.ahead.greeted();
            }
            state.ahead.has_read(record.number);
            state.ahead.waited(&record.ids);
            if let Some(waiting) = state.waiting.remove(&record.number) {
                // Who does not wait any more hands nothing out.
                let _ = waiting.send(Ok(attempts));
            } else {
                was_ahead |= state.ahead.arrived(record.number, &attempts);
            }
        }
        let done = state.done(place);
        drop(state);
        if was_ahead {
            self.arrived.notify_waiters();
        }
        if is_greeted {
            drop(self.write(Record::default()));
        }
        done
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
