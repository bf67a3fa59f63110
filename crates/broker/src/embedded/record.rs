//! Events as the journal keeps them.
//!
//! A record is a length-delimited protobuf message [`Change`], then the messages it publishes or moves one behind the other, each as CRC32C
//! (little endian) and the protobuf message [`Envelope`]. So a message can be read back by itself, and damage is limited to the message it hit. Field numbers
//! never change their meaning; unknown fields are passed over.

use crate::{
    Codec, Message, MessageId, TopicKind, TopicSpec,
    state::{Attempt, Event, Published, Span, SubscriptionId, TopicId},
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// Where a message's checksum and envelope are. Three numbers of four bytes, so that the index takes 24 bytes a message and not 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    address: [u32; 2],
    bytes: NonZeroU32,
}

impl Location {
    /// These bytes; `None` for no bytes at all.
    pub(crate) fn new(address: u64, bytes: usize) -> Option<Self> {
        let bytes = NonZeroU32::new(u32::try_from(bytes).ok()?)?;
        Some(Self { address: [address as u32, (address >> 32) as u32], bytes })
    }

    pub(crate) fn address(self) -> u64 {
        u64::from(self.address[0]) | (u64::from(self.address[1]) << 32)
    }

    pub(crate) fn bytes(self) -> usize {
        self.bytes.get() as usize
    }
}

/// Bytes of the checksum before each envelope.
const CRC_BYTES: usize = 4;

/// A message with its envelope. A root's own root is left out; 0 cannot be left out, so an untracked message says so.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(fixed64, tag = "1")]
    id_low: u64,
    #[prost(fixed64, tag = "2")]
    id_high: u64,
    #[prost(fixed64, tag = "3")]
    root_low: u64,
    #[prost(fixed64, tag = "4")]
    root_high: u64,
    #[prost(bool, tag = "5")]
    untracked: bool,
    #[prost(string, optional, tag = "6")]
    key: Option<String>,
    #[prost(uint64, tag = "7")]
    created_ms: u64,
    #[prost(uint64, optional, tag = "8")]
    deliver_at_ms: Option<u64>,
    #[prost(string, optional, tag = "9")]
    trace: Option<String>,
    #[prost(uint32, tag = "10")]
    codec: u32,
    #[prost(message, repeated, tag = "11")]
    properties: Vec<Property>,
    #[prost(bytes = "bytes", tag = "12")]
    payload: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Property {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Topic(TopicRecord),
    #[prost(message, tag = "2")]
    Subscription(SubscriptionRecord),
    #[prost(uint32, tag = "3")]
    Unsubscribe(u32),
    #[prost(message, tag = "4")]
    Seek(SeekRecord),
    #[prost(message, tag = "5")]
    Step(StepRecord),
    #[prost(message, tag = "6")]
    Attempts(AttemptsRecord),
    #[prost(message, tag = "7")]
    Delay(DelayRecord),
    #[prost(message, tag = "8")]
    Expire(ExpireRecord),
    #[prost(message, tag = "9")]
    Moved(MovedRecord),
}

/// A topic as it was created; also part of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TopicRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    topology: String,
    #[prost(uint64, tag = "4")]
    retention_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscriptionRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    from: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeekRecord {
    #[prost(uint32, tag = "1")]
    subscription: u32,
    #[prost(uint64, tag = "2")]
    to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StepRecord {
    /// Subscription, first position and count of each span.
    #[prost(uint64, repeated, tag = "1")]
    settled: Vec<u64>,
    /// The topic of each published message, and the bytes of its checksum and envelope.
    #[prost(uint32, repeated, tag = "2")]
    topics: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    lengths: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    producers: Vec<ProducerRecord>,
    #[prost(message, repeated, tag = "5")]
    state: Vec<StateRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProducerRecord {
    /// Which of the published messages.
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    sequence: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StateRecord {
    #[prost(string, tag = "1")]
    key: String,
    /// Absent: removed.
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttemptsRecord {
    #[prost(uint32, tag = "1")]
    subscription: u32,
    /// First position, count and attempt of each run.
    #[prost(uint64, repeated, tag = "2")]
    attempts: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DelayRecord {
    #[prost(uint32, tag = "1")]
    subscription: u32,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(uint64, tag = "3")]
    until_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExpireRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(uint64, tag = "2")]
    end: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MovedRecord {
    #[prost(uint32, repeated, tag = "1")]
    topics: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    positions: Vec<u64>,
    #[prost(uint32, repeated, tag = "3")]
    lengths: Vec<u32>,
}

/// A message in a record that is being made: its offset in the body and its bytes.
pub(crate) struct Placed {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) message: Arc<Message>,
}

/// Makes the record of an event, and tells where in it each message is.
pub(crate) fn encode(event: Event<Arc<Message>>) -> (Vec<u8>, Event<Placed>) {
    let mut blocks = BytesMut::new();
    let event = event.map(|message| place(message, &mut blocks));
    let change = Change { kind: Some(kind_of(&event)) };
    let mut body = Vec::with_capacity(change.encoded_len() + 5 + blocks.len());
    change.encode_length_delimited(&mut body).expect("a vector has room for whatever is written");
    let head = body.len();
    body.extend_from_slice(&blocks);
    (body, event.map(|placed| Placed { offset: head + placed.offset, ..placed }))
}

fn place(message: Arc<Message>, blocks: &mut BytesMut) -> Placed {
    let offset = blocks.len();
    let envelope = Envelope::from(Arc::unwrap_or_clone(message));
    blocks.extend_from_slice(&[0; CRC_BYTES]);
    envelope.encode(blocks).expect("a buffer that grows has room for whatever is written");
    let crc = crc32c::crc32c(&blocks[offset + CRC_BYTES..]);
    blocks[offset..offset + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    Placed { offset, bytes: blocks.len() - offset, message: Arc::new(envelope.into()) }
}

fn kind_of(event: &Event<Placed>) -> Kind {
    match event {
        Event::Topic(spec) => Kind::Topic(TopicRecord::from(spec)),
        Event::Subscription { topic, name, from } => {
            Kind::Subscription(SubscriptionRecord { topic: topic.0, name: name.clone(), from: *from })
        }
        Event::Unsubscribe(subscription) => Kind::Unsubscribe(subscription.0),
        Event::Seek { subscription, to } => Kind::Seek(SeekRecord { subscription: subscription.0, to: *to }),
        Event::Step { settled, publishes, state } => {
            let producer = |(index, published): (usize, &Published<Placed>)| {
                let (name, sequence) = published.producer.clone()?;
                Some(ProducerRecord { index: index as u32, name: name.as_ref().to_owned(), sequence })
            };
            Kind::Step(StepRecord {
                settled: settled
                    .iter()
                    .flat_map(|span| [u64::from(span.subscription.0), span.start, span.end - span.start])
                    .collect(),
                topics: publishes.iter().map(|published| published.topic.0).collect(),
                lengths: publishes.iter().map(|published| published.handle.bytes as u32).collect(),
                producers: publishes.iter().enumerate().filter_map(producer).collect(),
                state: state.iter().map(|(key, value)| StateRecord { key: key.clone(), value: value.clone() }).collect(),
            })
        }
        Event::Attempts { subscription, attempts } => Kind::Attempts(AttemptsRecord {
            subscription: subscription.0,
            attempts: attempts.iter().flat_map(|run| [run.start, run.end - run.start, u64::from(run.attempt)]).collect(),
        }),
        Event::Delay { subscription, position, until_ms } => {
            Kind::Delay(DelayRecord { subscription: subscription.0, position: *position, until_ms: *until_ms })
        }
        Event::Expire { topic, end } => Kind::Expire(ExpireRecord { topic: topic.0, end: *end }),
        Event::Moved { messages } => Kind::Moved(MovedRecord {
            topics: messages.iter().map(|(topic, ..)| topic.0).collect(),
            positions: messages.iter().map(|(_, position, _)| *position).collect(),
            lengths: messages.iter().map(|(.., placed)| placed.bytes as u32).collect(),
        }),
    }
}

/// Reads a record back whose body is at this address.
pub(crate) fn decode(body: &Bytes, address: u64) -> Result<Event<Location>, String> {
    let mut rest = body.clone();
    let change = Change::decode_length_delimited(&mut rest).map_err(|error| error.to_string())?;
    let mut blocks = Blocks { address: address + (body.len() - rest.len()) as u64, rest };
    let kind = change.kind.ok_or("a record of a kind that this version does not know")?;
    let event = match kind {
        Kind::Topic(topic) => Event::Topic(topic.try_into()?),
        Kind::Subscription(SubscriptionRecord { topic, name, from }) => Event::Subscription { topic: TopicId(topic), name, from },
        Kind::Unsubscribe(subscription) => Event::Unsubscribe(SubscriptionId(subscription)),
        Kind::Seek(SeekRecord { subscription, to }) => Event::Seek { subscription: SubscriptionId(subscription), to },
        Kind::Step(step) => decode_step(step, &mut blocks)?,
        Kind::Attempts(AttemptsRecord { subscription, attempts }) => {
            let run = |run: &[u64]| Attempt { start: run[0], end: run[0] + run[1], attempt: run[2] as u32 };
            Event::Attempts { subscription: SubscriptionId(subscription), attempts: attempts.chunks_exact(3).map(run).collect() }
        }
        Kind::Delay(DelayRecord { subscription, position, until_ms }) => {
            Event::Delay { subscription: SubscriptionId(subscription), position, until_ms }
        }
        Kind::Expire(ExpireRecord { topic, end }) => Event::Expire { topic: TopicId(topic), end },
        Kind::Moved(MovedRecord { topics, positions, lengths }) => {
            let all = topics.into_iter().zip(positions).zip(lengths);
            let messages = all.map(|((topic, position), length)| Ok((TopicId(topic), position, blocks.next(length)?.0)));
            Event::Moved { messages: messages.collect::<Result<_, String>>()? }
        }
    };
    Ok(event)
}

fn decode_step(step: StepRecord, blocks: &mut Blocks) -> Result<Event<Location>, String> {
    let span = |span: &[u64]| Span { subscription: SubscriptionId(span[0] as u32), start: span[1], end: span[1] + span[2] };
    let mut publishes = Vec::with_capacity(step.topics.len());
    for (topic, length) in step.topics.into_iter().zip(step.lengths) {
        let (location, block) = blocks.next(length)?;
        let message = decode_message(block)?;
        publishes.push(Published::new(TopicId(topic), message, None).map(|_| location));
    }
    for ProducerRecord { index, name, sequence } in step.producers {
        let published = publishes.get_mut(index as usize).ok_or("a producer without a message")?;
        published.producer = Some((name.into(), sequence));
    }
    // Copied: a slice would keep the whole segment in memory.
    let copied = |StateRecord { key, value }| (key, value.map(|value| Bytes::copy_from_slice(&value)));
    Ok(Event::Step {
        settled: step.settled.chunks_exact(3).map(span).collect(),
        publishes,
        state: step.state.into_iter().map(copied).collect(),
    })
}

/// The messages behind a change.
struct Blocks {
    address: u64,
    rest: Bytes,
}

impl Blocks {
    fn next(&mut self, length: u32) -> Result<(Location, Bytes), String> {
        let length = length as usize;
        let location = Location::new(self.address, length).filter(|_| length <= self.rest.len()).ok_or("a message is cut off")?;
        self.address += length as u64;
        Ok((location, self.rest.split_to(length)))
    }
}

/// Reads one message back from its checksum and envelope. From `Bytes` the payload is not copied, from a slice it is.
pub(crate) fn decode_message(block: impl bytes::Buf + AsRef<[u8]>) -> Result<Message, String> {
    let mut block = block;
    let (crc, rest) = block.as_ref().split_first_chunk::<CRC_BYTES>().ok_or("a message is cut off")?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
        return Err("the message's checksum is wrong".to_owned());
    }
    block.advance(CRC_BYTES);
    let envelope = Envelope::decode(block).map_err(|error| error.to_string())?;
    Ok(envelope.into())
}

impl From<Message> for Envelope {
    fn from(message: Message) -> Self {
        let Message { id, root, key, created_ms, deliver_at_ms, trace, codec, properties, payload } = message;
        let named = if root == id { MessageId::default() } else { root };
        Self {
            id_low: id.0 as u64,
            id_high: (id.0 >> 64) as u64,
            root_low: named.0 as u64,
            root_high: (named.0 >> 64) as u64,
            untracked: root == MessageId::default() && id != root,
            key,
            created_ms,
            deliver_at_ms,
            trace,
            codec: codec as u32,
            properties: properties.into_iter().map(|(name, value)| Property { name, value }).collect(),
            payload,
        }
    }
}

impl From<Envelope> for Message {
    fn from(envelope: Envelope) -> Self {
        let id = MessageId(u128::from(envelope.id_low) | (u128::from(envelope.id_high) << 64));
        let named = MessageId(u128::from(envelope.root_low) | (u128::from(envelope.root_high) << 64));
        Self {
            id,
            root: if named == MessageId::default() && !envelope.untracked { id } else { named },
            key: envelope.key,
            created_ms: envelope.created_ms,
            deliver_at_ms: envelope.deliver_at_ms,
            trace: envelope.trace,
            codec: if envelope.codec == Codec::MessagePack as u32 { Codec::MessagePack } else { Codec::Json },
            properties: envelope.properties.into_iter().map(|Property { name, value }| (name, value)).collect(),
            payload: envelope.payload,
        }
    }
}

impl From<&TopicSpec> for TopicRecord {
    fn from(spec: &TopicSpec) -> Self {
        let kind = match spec.kind {
            TopicKind::Plain => 0,
            TopicKind::Ingress => 1,
            TopicKind::Route => 2,
            TopicKind::DeadLetter => 3,
        };
        let retention_ms = u64::try_from(spec.retention.as_millis()).unwrap_or(u64::MAX);
        Self { name: spec.name.clone(), kind, topology: spec.topology.clone(), retention_ms }
    }
}

impl TryFrom<TopicRecord> for TopicSpec {
    type Error = String;

    fn try_from(record: TopicRecord) -> Result<Self, String> {
        let kind = match record.kind {
            0 => TopicKind::Plain,
            1 => TopicKind::Ingress,
            2 => TopicKind::Route,
            3 => TopicKind::DeadLetter,
            other => return Err(format!("topic `{}` is of kind {other}, which this version does not know", record.name)),
        };
        Ok(Self { name: record.name, kind, topology: record.topology, retention: Duration::from_millis(record.retention_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u128, root: u128) -> Message {
        Message {
            id: MessageId(id),
            root: MessageId(root),
            key: Some("k".into()),
            created_ms: 5,
            deliver_at_ms: Some(9),
            trace: Some("t".into()),
            codec: Codec::MessagePack,
            properties: vec![("a".into(), "b".into())],
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn every_event_comes_back() {
        let published = |id, root, producer| Published::new(TopicId(7), message(id, root), producer);
        let sub = SubscriptionId(3);
        let spec =
            TopicSpec { name: "a".into(), kind: TopicKind::DeadLetter, topology: "t".into(), retention: Duration::from_secs(3) };
        let events = [
            Event::Topic(spec),
            Event::Subscription { topic: TopicId(2), name: "s".into(), from: 11 },
            Event::Unsubscribe(sub),
            Event::Seek { subscription: sub, to: 1 << 40 },
            Event::Step {
                settled: vec![Span { subscription: sub, start: 4, end: 9 }],
                publishes: vec![
                    published(1 << 100, 1 << 100, None),
                    published(2, 0, Some(("p".into(), 8))),
                    published(0, 5, None),
                    Published::new(TopicId(0), Message::default(), None),
                ],
                state: vec![("x".into(), None), ("y".into(), Some(Bytes::from_static(b"")))],
            },
            Event::Attempts { subscription: sub, attempts: vec![Attempt { start: 1, end: 4, attempt: 2 }] },
            Event::Delay { subscription: sub, position: 3, until_ms: 1 << 41 },
            Event::Expire { topic: TopicId(1), end: 512 },
            Event::Moved { messages: vec![(TopicId(1), 8, Arc::new(message(1, 2)))] },
        ];
        for event in events {
            let (body, placed) = encode(event.clone());
            let body = Bytes::from(body);
            let decoded = decode(&body, 1_000).unwrap();
            assert_eq!(decoded, placed.map(|placed| Location::new(1_000 + placed.offset as u64, placed.bytes).unwrap()));
            let read = decoded.map(|at| {
                let start = (at.address() - 1_000) as usize;
                Arc::new(decode_message(body.slice(start..start + at.bytes())).unwrap())
            });
            assert_eq!(read, event);
        }
    }
}
