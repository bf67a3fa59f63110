//! Commit groups as the journal keeps them.
//!
//! A record is the messages that the group has published or moved, one behind the other as [`block`](super::block) has them, then a protobuf message
//! [`Head`] that says what they are and what else has changed, then the head's length and CRC32C (four bytes each, little endian). The head
//! comes last so that nothing is copied while the record is made. It has a checksum of its own: where a record is damaged, the damage is limited to the
//! messages it hit, unless it hit the head. Field numbers never change their meaning; unknown fields are passed over.

use super::{
    block,
    group::Part,
    index,
    place::{Location, Place},
    topic::TopicRecord,
};
use crate::{
    Account, Message, MessageId,
    state::{Delay, Event, Index, LastSent, Net, Published, RootNote, Span, SubscriptionId, Survivors, TopicId},
};
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;

/// Bytes of the length and the checksum behind the head.
const TAIL_BYTES: usize = 8;

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(message, repeated, tag = "1")]
    parts: Vec<PartRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartRecord {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, and there are a handful in a record")]
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
    Net(NetRecord),
    #[prost(message, tag = "6")]
    Index(IndexRecord),
    #[prost(uint32, tag = "7")]
    DeleteTopic(u32),
}

/// The index of a block; what it says lies among the messages.
#[derive(Clone, PartialEq, prost::Message)]
struct IndexRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(uint32, tag = "3")]
    bytes: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscriptionRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint32, tag = "4")]
    number: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeekRecord {
    #[prost(uint32, tag = "1")]
    subscription: u32,
    #[prost(uint64, tag = "2")]
    to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NetRecord {
    #[prost(message, repeated, tag = "1")]
    topics: Vec<SurvivorsRecord>,
    /// Subscription, first position and count of each span.
    #[prost(uint64, repeated, tag = "2")]
    settled: Vec<u64>,
    /// Subscription, first position, how many positions, and deliveries so far of each.
    #[prost(uint64, repeated, tag = "3")]
    attempts: Vec<u64>,
    /// Subscription, position, time, and how long the wait is from its beginning.
    #[prost(uint64, repeated, tag = "4")]
    delays: Vec<u64>,
    #[prost(message, repeated, tag = "5")]
    producers: Vec<ProducerRecord>,
    #[prost(message, repeated, tag = "6")]
    state: Vec<StateRecord>,
    /// Topic, position, and bytes of each message that was written anew.
    #[prost(uint64, repeated, tag = "7")]
    moved: Vec<u64>,
    /// Topic and end.
    #[prost(uint64, repeated, tag = "8")]
    expired: Vec<u64>,
    /// Number of the topology, sent, done, dead-lettered, in flight.
    #[prost(uint64, repeated, tag = "9")]
    accounts: Vec<u64>,
    /// Low and high half of each root's id.
    #[prost(fixed64, repeated, tag = "10")]
    roots: Vec<u64>,
    /// Number of the topology, sent, and 1 if something of it was dropped, for each of `roots`.
    #[prost(uint32, repeated, tag = "11")]
    root_notes: Vec<u32>,
    /// Low and high half of each id.
    #[prost(fixed64, repeated, tag = "12")]
    dropped: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SurvivorsRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(uint64, tag = "2")]
    first: u64,
    /// How many positions were given away.
    #[prost(uint64, tag = "3")]
    count: u64,
    #[prost(uint64, tag = "4")]
    damaged: u64,
    /// What lies between each message's position and the one before; left out if nothing ever does.
    #[prost(uint64, repeated, tag = "5")]
    gaps: Vec<u64>,
    /// Bytes of each message.
    #[prost(uint32, repeated, tag = "6")]
    lengths: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProducerRecord {
    #[prost(uint32, tag = "1")]
    topic: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint64, tag = "4")]
    position: u64,
    /// When, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "5")]
    used_ms: u64,
    /// It is forgotten, and the rest says nothing.
    #[prost(bool, tag = "6")]
    forgotten: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StateRecord {
    #[prost(string, tag = "1")]
    key: String,
    /// Absent: removed.
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
}

/// A message in a record that was made.
pub(crate) struct Placed {
    pub(crate) topic: TopicId,
    pub(crate) position: u64,
    /// Where in the body.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) message: Arc<Message>,
}

/// An index in a record that was made.
pub(crate) struct PlacedIndex {
    pub(crate) topic: TopicId,
    pub(crate) number: u64,
    /// Where in the body.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) index: Index<Place>,
}

/// A record that was made: its body, and where in it each message and each index is.
pub(crate) struct Made {
    pub(crate) body: Vec<u8>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) indexes: Vec<PlacedIndex>,
}

/// Makes the record of a group. `bytes` is about how long it gets.
pub(crate) fn encode(parts: Vec<Part<Place>>, bytes: usize) -> Made {
    let mut making = Made { body: Vec::with_capacity(bytes), placed: Vec::new(), indexes: Vec::new() };
    let parts = parts.into_iter().map(|part| PartRecord { kind: Some(making.part(part)) }).collect();
    let body = &mut making.body;
    let start = body.len();
    Head { parts }.encode(body).expect("a vector has room for whatever is written");
    let length = (body.len() - start) as u32;
    let crc = crc32c::crc32c(&body[start..]);
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&crc.to_le_bytes());
    making
}

impl Made {
    fn part(&mut self, part: Part<Place>) -> Kind {
        match part {
            Part::Net(net) => Kind::Net(self.net(net)),
            Part::Index { topic, number, index, .. } => Kind::Index(self.index(topic, number, index)),
            Part::Structure(Event::Topic(spec), number) => Kind::Topic(TopicRecord { number, ..TopicRecord::from(&spec) }),
            Part::Structure(Event::Subscription { topic, name, from }, number) => {
                Kind::Subscription(SubscriptionRecord { topic: topic.0, name, from, number })
            }
            Part::Structure(Event::DeleteTopic(topic), _) => Kind::DeleteTopic(topic.0),
            Part::Structure(Event::Unsubscribe(subscription), _) => Kind::Unsubscribe(subscription.0),
            Part::Structure(Event::Seek { subscription, to }, _) => Kind::Seek(SeekRecord { subscription: subscription.0, to }),
            Part::Structure(other, _) => unreachable!("{other:?} is no change of topics or subscriptions"),
        }
    }

    fn message(&mut self, topic: TopicId, position: u64, place: Place) -> u32 {
        let Some(message) = place.message else { return 0 };
        let offset = self.body.len();
        let bytes = block::encode(&message, &mut self.body);
        self.placed.push(Placed { topic, position, offset, bytes, message });
        bytes as u32
    }

    fn index(&mut self, topic: TopicId, number: u64, index: Index<Place>) -> IndexRecord {
        let offset = self.body.len();
        let bytes = index::encode(topic, number, &index, &mut self.body);
        self.indexes.push(PlacedIndex { topic, number, offset, bytes, index });
        IndexRecord { topic: topic.0, number, bytes: bytes as u32 }
    }

    fn net(&mut self, net: Net<Place>) -> NetRecord {
        let span = |span: &Span| [u64::from(span.subscription.0), span.start, span.end - span.start];
        let account = |(number, account): &(u32, Account)| {
            [u64::from(*number), account.sent, account.done, account.dead_lettered, account.in_flight]
        };
        let producer = |(topic, name, last): (TopicId, Arc<str>, Option<LastSent>)| {
            let LastSent { sequence, position, used_ms } = last.unwrap_or(LastSent { sequence: 0, position: 0, used_ms: 0 });
            ProducerRecord {
                topic: topic.0,
                name: name.as_ref().to_owned(),
                sequence,
                position,
                used_ms,
                forgotten: last.is_none(),
            }
        };
        let moved = |(topic, position, place)| {
            let bytes = self.message(topic, position, place);
            [u64::from(topic.0), position, u64::from(bytes)]
        };
        NetRecord {
            moved: net.moved.into_iter().flat_map(moved).collect(),
            topics: net.topics.into_iter().map(|survivors| self.survivors(survivors)).collect(),
            settled: net.settled.iter().flat_map(span).collect(),
            attempts: attempt_runs(&net.attempts),
            delays: net.delays.iter().flat_map(|(s, at, delay)| [u64::from(s.0), *at, delay.until_ms, delay.of_ms]).collect(),
            producers: net.producers.into_iter().map(producer).collect(),
            state: net.state.into_iter().map(|(key, value)| StateRecord { key, value }).collect(),
            expired: net.expired.iter().flat_map(|(topic, end)| [u64::from(topic.0), *end]).collect(),
            accounts: net.accounts.iter().flat_map(account).collect(),
            roots: net.roots.iter().flat_map(|note| halves(note.id)).collect(),
            root_notes: net.roots.iter().flat_map(|note| [note.topology, note.sent, u32::from(note.dropped)]).collect(),
            dropped: net.dropped.iter().flat_map(|id| halves(id.0)).collect(),
        }
    }

    fn survivors(&mut self, survivors: Survivors<Place>) -> SurvivorsRecord {
        let Survivors { topic, first, next, damaged, held } = survivors;
        let mut record = SurvivorsRecord {
            topic: topic.0,
            first,
            count: next - first,
            damaged,
            gaps: Vec::new(),
            lengths: Vec::with_capacity(held.len()),
        };
        let mut expected = first;
        if held.iter().zip(first..).any(|((position, _), dense)| *position != dense) {
            for (position, _) in &held {
                record.gaps.push(position - expected);
                expected = position + 1;
            }
        }
        for (position, published) in held {
            record.lengths.push(self.message(topic, position, published.handle));
        }
        record
    }
}

/// Neighbours of one number together: a consumer that leaves with thousands of messages takes a few bytes.
fn attempt_runs(attempts: &[(SubscriptionId, u64, u32)]) -> Vec<u64> {
    let mut runs: Vec<u64> = Vec::new();
    for (subscription, position, attempt) in attempts {
        let (subscription, attempt) = (u64::from(subscription.0), u64::from(*attempt));
        match runs.last_chunk_mut::<4>() {
            Some([same, start, count, number]) if *same == subscription && *start + *count == *position && *number == attempt => {
                *count += 1;
            }
            _ => runs.extend([subscription, *position, 1, attempt]),
        }
    }
    runs
}

fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

fn whole(halves: &[u64]) -> u128 {
    u128::from(halves[0]) | (u128::from(halves[1]) << 64)
}

/// Reads a record back whose body is at this address. With `whole`, the whole record is known to be undamaged; without it, messages that are not are
/// taken in as what they are: something at a place that cannot be read.
pub(crate) fn decode(body: &Bytes, address: u64, whole: bool) -> Result<Vec<Part<Place>>, String> {
    let cut = || "a record is cut off".to_owned();
    let (rest, tail) = body.split_last_chunk::<TAIL_BYTES>().ok_or_else(cut)?;
    let length = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]) as usize;
    let start = rest.len().checked_sub(length).ok_or_else(cut)?;
    if !whole && u32::from_le_bytes([tail[4], tail[5], tail[6], tail[7]]) != crc32c::crc32c(&rest[start..]) {
        return Err("the head's checksum is wrong".to_owned());
    }
    let head = Head::decode(&rest[start..]).map_err(|error| error.to_string())?;
    let mut blocks = Blocks { address, rest: body.slice(..start), whole };
    let unknown = || "a record of a kind that this version does not know".to_owned();
    let part = |part: PartRecord| match part.kind.ok_or_else(unknown)? {
        Kind::Topic(topic) => {
            let number = topic.number;
            Ok(Part::Structure(Event::Topic(topic.try_into()?), number))
        }
        Kind::Subscription(SubscriptionRecord { topic, name, from, number }) => {
            Ok(Part::Structure(Event::Subscription { topic: TopicId(topic), name, from }, number))
        }
        Kind::DeleteTopic(topic) => Ok(Part::Structure(Event::DeleteTopic(TopicId(topic)), 0)),
        Kind::Unsubscribe(subscription) => Ok(Part::Structure(Event::Unsubscribe(SubscriptionId(subscription)), 0)),
        Kind::Seek(SeekRecord { subscription, to }) => {
            Ok(Part::Structure(Event::Seek { subscription: SubscriptionId(subscription), to }, 0))
        }
        Kind::Net(net) => decode_net(net, &mut blocks).map(Part::Net),
        Kind::Index(IndexRecord { topic, number, bytes }) => {
            let (at, bytes) = blocks.next(bytes)?;
            let (topic, at) = (TopicId(topic), Some(Place::at(at)));
            // Without it the block stays in memory.
            let damaged = |_| Index { newest_ms: 0, bytes: 0, entries: Vec::new() };
            Ok(Part::Index { topic, number, index: index::decode(topic, number, &bytes).unwrap_or_else(damaged), at })
        }
    };
    head.parts.into_iter().map(part).collect()
}

fn decode_net(net: NetRecord, blocks: &mut Blocks) -> Result<Net<Place>, String> {
    let span = |span: &[u64]| Span {
        subscription: SubscriptionId(span[0] as u32),
        start: span[1],
        end: span[1].saturating_add(span[2]),
    };
    let mut moved = Vec::with_capacity(net.moved.len() / 3);
    for [topic, position, bytes] in net.moved.as_chunks::<3>().0 {
        moved.push((TopicId(*topic as u32), *position, Place::at(blocks.next(*bytes as u32)?.0)));
    }
    let topics = net.topics.into_iter().map(|survivors| decode_survivors(survivors, blocks)).collect::<Result<_, String>>()?;
    let account = |[number, sent, done, dead_lettered, in_flight]: &[u64; 5]| {
        (*number as u32, Account { sent: *sent, done: *done, dead_lettered: *dead_lettered, in_flight: *in_flight })
    };
    let note = |(id, [topology, sent, dropped]): (&[u64; 2], &[u32; 3])| RootNote {
        id: whole(id),
        topology: *topology,
        sent: *sent,
        dropped: *dropped != 0,
    };
    let run = |[subscription, start, count, attempt]: &[u64; 4]| {
        let (subscription, attempt) = (SubscriptionId(*subscription as u32), *attempt as u32);
        (*start..start.saturating_add(*count)).map(move |position| (subscription, position, attempt))
    };
    let delay = |[subscription, at, until_ms, of_ms]: &[u64; 4]| {
        (SubscriptionId(*subscription as u32), *at, Delay { until_ms: *until_ms, of_ms: *of_ms })
    };
    // Copied: a slice would keep the whole segment in memory.
    let copied = |StateRecord { key, value }| (key, value.map(|value| Bytes::copy_from_slice(&value)));
    let producer = |ProducerRecord { topic, name, sequence, position, used_ms, forgotten }| {
        let last = (!forgotten).then_some(LastSent { sequence, position, used_ms });
        (TopicId(topic), Arc::from(name), last)
    };
    Ok(Net {
        topics,
        settled: net.settled.as_chunks::<3>().0.iter().map(|chunk| span(chunk)).collect(),
        attempts: net.attempts.as_chunks::<4>().0.iter().flat_map(run).collect(),
        delays: net.delays.as_chunks::<4>().0.iter().map(delay).collect(),
        producers: net.producers.into_iter().map(producer).collect(),
        state: net.state.into_iter().map(copied).collect(),
        moved,
        expired: net.expired.as_chunks::<2>().0.iter().map(|[topic, end]| (TopicId(*topic as u32), *end)).collect(),
        accounts: net.accounts.as_chunks::<5>().0.iter().map(account).collect(),
        roots: net.roots.as_chunks::<2>().0.iter().zip(net.root_notes.as_chunks::<3>().0).map(note).collect(),
        dropped: net.dropped.as_chunks::<2>().0.iter().map(|id| MessageId(whole(id))).collect(),
    })
}

fn decode_survivors(record: SurvivorsRecord, blocks: &mut Blocks) -> Result<Survivors<Place>, String> {
    let SurvivorsRecord { topic, first, count, damaged, gaps, lengths } = record;
    let mut held = Vec::with_capacity(lengths.len());
    let mut position = first;
    for (index, length) in lengths.into_iter().enumerate() {
        position = position.saturating_add(gaps.get(index).copied().unwrap_or(0));
        let (location, block) = blocks.next(length)?;
        // A message that cannot be read is in its place nevertheless, so that it is missed and reported when it is delivered.
        let readable = blocks.whole || block::is_whole(&block);
        let message = if readable { block::decode(block)? } else { Message::default() };
        held.push((position, Published::new(TopicId(topic), &message, None, Place::at(location))));
        position = position.saturating_add(1);
    }
    Ok(Survivors { topic: TopicId(topic), first, next: first.saturating_add(count), damaged, held })
}

/// The messages before the head.
struct Blocks {
    address: u64,
    rest: Bytes,
    whole: bool,
}

impl Blocks {
    fn next(&mut self, length: u32) -> Result<(Location, Bytes), String> {
        let length = length as usize;
        let location = Location::new(self.address, length).filter(|_| length <= self.rest.len()).ok_or("a message is cut off")?;
        self.address += length as u64;
        Ok((location, self.rest.split_to(length)))
    }
}
