//! One producer: publishes what its client sends, and tells it so when that is durable.
//!
//! One publish of a producer is on its way at a time, and what comes meanwhile is the next one. The journal syncs in groups anyway, so a
//! second publish would wait for the same sync; and if one fails, nothing behind it has overtaken it.

use super::{
    Shared, epochs,
    limits::{PUBLISH_BYTES_MAX, PUBLISH_MESSAGES_MAX, SENDS_MAX},
    now_ms,
    out::{Gone, Outgoing},
    place,
    seats::{self, Seat, Wish},
    topics::{self, Refusal, Topic},
};
use crate::{
    envelope::{self, Origin},
    wire::{
        entry,
        frame::{self, Entry},
        proto::{self, Command, MessageIdData, SendError, SendReceipt, ServerError, Success},
    },
};
use bytes::{Bytes, BytesMut};
use leatworks_broker::{BrokerError, ErrorKind, Position, Publish};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// That a producer wants the topic for itself, on the wire.
const EXCLUSIVE: i32 = 1;

/// One send as it was read.
pub(crate) struct Incoming {
    pub(crate) send: proto::Send,
    pub(crate) entry: Result<Entry, Refusal>,
    /// What it takes of the room for messages that are not published yet.
    pub(crate) room: Vec<OwnedSemaphorePermit>,
}

/// What a producer is told.
#[expect(clippy::large_enum_variant, reason = "nearly all are sends, and a box would cost each of them an allocation")]
pub(crate) enum Work {
    /// To publish.
    Send(Incoming),
    /// To end, after all that came before.
    Close(u64),
}

/// A producer as its connection sees it.
pub(crate) struct Handle {
    pub(crate) name: String,
    pub(crate) work: mpsc::Sender<Work>,
}

/// A producer that is open.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    out: Outgoing,
    id: u64,
    topic: Topic,
    seat: Seat,
    name: Arc<str>,
    /// Whether the broker remembers how far its sequence has come.
    tracked: bool,
    /// Sends up to this sequence are repetitions: they were published by an earlier connection, or are not increasing where that is asked for.
    floor: Option<u64>,
    /// The highest sequence that was published.
    highest: Option<u64>,
}

/// Opens a producer.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    out: &Outgoing,
    request: &proto::Producer,
) -> Result<(Producer, proto::ProducerSuccess), Refusal> {
    let not_allowed = |why: &str| Err((ServerError::NotAllowed, why.to_owned()));
    let alone = match request.access_mode.unwrap_or_default() {
        0 => false,
        EXCLUSIVE => true,
        _ => {
            return not_allowed(
                "a topic is shared, or a producer has it for itself: nobody waits for that here, or is driven away",
            );
        }
    };
    if request.encrypted == Some(true) {
        return not_allowed("encrypted messages are not supported here");
    }
    if request.txn_enabled == Some(true) {
        return not_allowed("transactions are not supported here");
    }
    if let Some(schema) = &request.schema {
        super::requests::check_schema(schema)?;
    }
    let opening = shared.topics.opening.read().await;
    let topic = topics::open(shared, &request.topic, true).await?;
    if let Some(subscription) = request.initial_subscription_name.as_ref().filter(|name| !name.is_empty()) {
        super::consumer::create_subscription(shared, &topic, subscription, leatworks_broker::Start::Latest).await?;
    }
    let name = request.producer_name.clone().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| shared.producer_name());
    let wish = Wish { topic: &topic.name, name: &name, epoch: request.epoch.unwrap_or_default(), alone };
    let seat = shared.seats.take(wish, out).await?;
    drop(opening);
    let topic_epoch = match alone {
        true => Some(epochs::next(shared.broker.as_ref(), &topic.name, request.topic_epoch).await?),
        false => None,
    };
    let tracked = seats::is_assigned(&name) || shared.options.deduplicate;
    let last = match tracked {
        true => shared.broker.last_sequence(&topic.name, &name).await.map_err(|error| topics::refusal(&error))?,
        false => None,
    };
    let success = proto::ProducerSuccess { topic_epoch, ..proto::ProducerSuccess::new(request.request_id, name.clone(), last) };
    let producer = Producer {
        shared: shared.clone(),
        out: out.clone(),
        id: request.producer_id,
        topic,
        name: name.into(),
        seat,
        tracked,
        floor: last,
        highest: last,
    };
    Ok((producer, success))
}

/// What a client is told of one send, in the order in which it has sent.
enum Answer {
    /// It is published: this many of the group's messages.
    Published(usize),
    /// It was published before.
    Repeated,
    /// It is not taken.
    Refused(Refusal),
}

/// Sends that are published as one step.
#[derive(Default)]
struct Group {
    answers: Vec<(proto::Send, Answer)>,
    messages: Vec<Publish>,
    bytes: usize,
    highest: Option<u64>,
    room: Vec<OwnedSemaphorePermit>,
}

/// Why a producer ends.
enum End {
    /// Its client has asked for it.
    Closed(u64),
    /// Its client is gone, or has come back on another connection.
    Left,
    /// A publish has failed in a way that may pass: its client opens it again, and sends again what it has no receipt for.
    Failed,
}

impl Producer {
    /// The task's handle and the queue that [`run`](Self::run) works on.
    pub(crate) fn queue(&self) -> (Handle, mpsc::Receiver<Work>) {
        let (work, queue) = mpsc::channel(SENDS_MAX);
        (Handle { name: self.seat.name().to_owned(), work }, queue)
    }

    /// Publishes until the producer ends.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let end = self.work(&mut queue).await;
        drop(queue);
        let Self { out, id, seat, .. } = self;
        // Free before the client hears of it, so that it can take the name again at once.
        drop(seat);
        // A client that is gone hears nothing.
        let _ = match end {
            End::Closed(request_id) => out.command(Command::Success(Success { request_id })).await,
            End::Failed => {
                out.command(Command::CloseProducer(proto::CloseProducer { producer_id: id, request_id: u64::MAX })).await
            }
            End::Left => Ok(()),
        };
    }

    async fn work(&mut self, queue: &mut mpsc::Receiver<Work>) -> End {
        let mut taken = Vec::with_capacity(SENDS_MAX);
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let count = tokio::select! {
                    biased;
                    () = self.seat.replaced.notified() => return End::Left,
                    count = queue.recv_many(&mut taken, SENDS_MAX) => count,
                };
                if count == 0 {
                    return End::Left;
                }
                waiting.extend(taken.drain(..));
            }
            let mut group = Group::default();
            let mut close = None;
            while group.bytes < PUBLISH_BYTES_MAX && group.messages.len() < PUBLISH_MESSAGES_MAX {
                match waiting.pop_front() {
                    Some(Work::Send(incoming)) => self.admit(&mut group, incoming),
                    Some(Work::Close(request_id)) => {
                        close = Some(request_id);
                        break;
                    }
                    None => break,
                }
            }
            match self.publish(group).await {
                Ok(true) => {}
                Ok(false) => return End::Failed,
                Err(Gone) => return End::Left,
            }
            if let Some(request_id) = close {
                return End::Closed(request_id);
            }
        }
    }

    /// Decides what becomes of a send, and puts its messages into the group.
    fn admit(&self, group: &mut Group, incoming: Incoming) {
        let Incoming { send, entry, room } = incoming;
        group.room.extend(room);
        let highest = send.highest_sequence_id.unwrap_or_default().max(send.sequence_id);
        let last = if self.shared.options.deduplicate { group.highest.or(self.highest) } else { self.floor };
        let answer = if last.is_some_and(|last| highest <= last) {
            Answer::Repeated
        } else {
            match entry.and_then(|entry| self.open_entry(&send, entry)) {
                Ok(messages) => {
                    let count = messages.len();
                    group.bytes += messages.iter().map(|publish| publish.message.payload.len()).sum::<usize>();
                    group.messages.extend(messages);
                    group.highest = group.highest.max(Some(highest));
                    Answer::Published(count)
                }
                Err(refusal) => Answer::Refused(refusal),
            }
        };
        group.answers.push((send, answer));
    }

    fn open_entry(&self, send: &proto::Send, entry: Entry) -> Result<Vec<Publish>, Refusal> {
        if send.is_chunk == Some(true) || send.marker == Some(true) {
            return Err((ServerError::NotAllowed, "messages in chunks and markers are not supported here".to_owned()));
        }
        let (metadata, singles) = entry::split(entry).map_err(|error| (ServerError::NotAllowed, error.to_string()))?;
        let max = self.shared.broker.max_message_bytes();
        if let Some(single) = singles.iter().find(|single| single.payload.len() > max) {
            let text = format!("a message of {} bytes, at most {max} are taken", single.payload.len());
            return Err((ServerError::NotAllowed, text));
        }
        let origin =
            Origin { topic: &self.topic.name, producer: &self.name, in_topology: self.topic.in_topology, now_ms: now_ms() };
        let publish = |(index, single)| Publish {
            topic: self.topic.name.clone(),
            message: envelope::to_message(origin, &metadata, index, single).into(),
            sequence: None,
        };
        Ok(singles.into_iter().enumerate().map(publish).collect())
    }

    /// Publishes a group and answers its sends; `false` if the producer has to be opened anew.
    async fn publish(&mut self, group: Group) -> Result<bool, Gone> {
        let Group { answers, mut messages, highest, room, .. } = group;
        let published = match messages.last_mut() {
            None => Ok(Vec::new()),
            Some(last) => {
                // One sequence for the whole group, since it is one step.
                let rises = self.tracked && highest > self.highest;
                last.sequence = highest.filter(|_| rises).map(|highest| (self.name.clone(), highest));
                let alone = answers.len() == 1;
                // Payloads are shared, so a copy for the rare case that one message spoils the others is cheap only when it is needed.
                let copy = if alone { Vec::new() } else { messages.clone() };
                match self.shared.broker.publish(messages).await {
                    Err(error) if !alone && is_about_one(&error) => return self.publish_each(answers, copy, room).await,
                    published => published,
                }
            }
        };
        drop(room);
        if published.is_ok() {
            self.highest = self.highest.max(highest);
        }
        let goes_on = published.as_ref().err().is_none_or(is_about_one);
        let answers = self.answers(answers, published);
        self.tell(answers).await.map(|()| goes_on)
    }

    /// Publishes the sends of a group one by one, since one of them cannot be taken.
    async fn publish_each(
        &mut self,
        answers: Vec<(proto::Send, Answer)>,
        messages: Vec<Publish>,
        room: Vec<OwnedSemaphorePermit>,
    ) -> Result<bool, Gone> {
        let mut messages = messages.into_iter();
        for (send, answer) in answers {
            let count = if let Answer::Published(count) = answer { count } else { 0 };
            let highest = send.highest_sequence_id.unwrap_or_default().max(send.sequence_id);
            let group = Group {
                messages: messages.by_ref().take(count).map(|publish| Publish { sequence: None, ..publish }).collect(),
                answers: vec![(send, answer)],
                highest: Some(highest),
                ..Group::default()
            };
            if !Box::pin(self.publish(group)).await? {
                return Ok(false);
            }
        }
        drop(room);
        Ok(true)
    }

    /// The answers to a group's sends as bytes.
    fn answers(&self, answers: Vec<(proto::Send, Answer)>, published: Result<Vec<Position>, BrokerError>) -> Bytes {
        let mut out = BytesMut::with_capacity(answers.len() * 48);
        let mut first = 0;
        for (send, answer) in answers {
            let answer = match (answer, &published) {
                (Answer::Published(count), Ok(positions)) => {
                    let position = positions.get(first).map_or(u64::MAX, |position| position.0);
                    first += count;
                    // A batch is taken apart: the entry that is named is its first message alone.
                    Ok(MessageIdData { batch_size: (count > 1).then_some(1), ..place::id(self.topic.ledger, position) })
                }
                (Answer::Published(_), Err(error)) => Err(topics::refusal(error)),
                // Pulsar too says of a repetition that it has no place.
                (Answer::Repeated, _) => Ok(MessageIdData { ledger: u64::MAX, entry: u64::MAX, ..MessageIdData::default() }),
                (Answer::Refused(refusal), _) => Err(refusal),
            };
            frame::encode(&mut out, self.answer(&send, answer));
        }
        out.freeze()
    }

    fn answer(&self, send: &proto::Send, answer: Result<MessageIdData, Refusal>) -> Command {
        let sequence_id = send.sequence_id;
        match answer {
            Ok(message_id) => Command::SendReceipt(SendReceipt {
                producer_id: self.id,
                sequence_id,
                message_id: Some(message_id),
                highest_sequence_id: send.highest_sequence_id,
            }),
            Err((error, message)) => {
                Command::SendError(SendError { producer_id: self.id, sequence_id, error: error.into(), message })
            }
        }
    }

    async fn tell(&self, answers: Bytes) -> Result<(), Gone> {
        if answers.is_empty() {
            return Ok(());
        }
        tokio::select! {
            told = self.out.send(answers) => told,
            () = self.seat.replaced.notified() => Err(Gone),
        }
    }
}

/// Whether an error is about one message, and not about the broker.
fn is_about_one(error: &BrokerError) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::NotFound)
}
