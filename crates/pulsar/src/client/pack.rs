//! Between messages and entries of a topic, and between places on Pulsar and positions.

use super::limits::{ENTRY_BYTES_MAX, ENTRY_MESSAGES_MAX};
use crate::{
    envelope::{self, Origin},
    wire::{
        entry::{EntryError, Single, split},
        frame::{self, Entry},
        proto::{Command, Compression, MessageMetadata, Send, SingleMessageMetadata},
    },
};
use bytes::{BufMut, Bytes, BytesMut};
use leatworks_broker::{Message, MessageId, Position};
use prost::Message as _;
use std::sync::Arc;

/// How often a message has been handed out before it was put here.
const ATTEMPT: &str = "leat-attempt";
/// Where a message stood when it was first published.
const POSITION: &str = "leat-position";

/// Bits of a position for the place in the batch, and for the entry in its ledger; the rest is the ledger.
const INDEX_BITS: u32 = 10;
/// See [`INDEX_BITS`]. A ledger is closed after ten minutes at the soonest: 28,000 entries a second for so long fit.
pub(crate) const ENTRY_BITS: u32 = 24;

/// What a property takes beside its name and its value: their tags and lengths.
const PROPERTY_BYTES: usize = 12;

/// Below this a batch does not get smaller enough to be worth it.
const COMPRESS_BYTES_MIN: usize = 512;

/// An entry of a topic: its ledger and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) ledger: u64,
    pub(crate) entry: u64,
}

impl Place {
    /// The position of one message of this entry, unless the numbers are too large for one.
    pub(crate) fn position(self, index: usize) -> Option<Position> {
        let fits = self.ledger < 1 << (64 - ENTRY_BITS - INDEX_BITS) && self.entry < 1 << ENTRY_BITS && index < 1 << INDEX_BITS;
        fits.then_some(Position((self.ledger << (ENTRY_BITS + INDEX_BITS)) | (self.entry << INDEX_BITS) | index as u64))
    }

    /// The position of one message of a batch that has become entries one after the other, of which this is the first.
    pub(crate) fn position_apart(self, index: usize) -> Option<Position> {
        // The last bit of the entry is followed by the first of the ledger, so what does not fit in this ledger is in the next.
        self.position(0).map(|first| Position(first.0 + ((index as u64) << INDEX_BITS)))
    }

    /// The entry that a position is in, and the place there.
    pub(crate) fn of(position: Position) -> (Self, usize) {
        let entry = (position.0 >> INDEX_BITS) & ((1 << ENTRY_BITS) - 1);
        let ledger = position.0 >> (ENTRY_BITS + INDEX_BITS);
        (Self { ledger, entry }, (position.0 & ((1 << INDEX_BITS) - 1)) as usize)
    }
}

/// What a repetition is answered with: it has no place.
pub(crate) const NO_POSITION: Position = Position(u64::MAX);

/// What a message that is given back carries with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// How often it was handed out before.
    pub(crate) attempt: u32,
    /// Where it stood first.
    pub(crate) position: Option<Position>,
}

/// One message on its way, with what is known of it here.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Arc<Message>,
    pub(crate) sequence: Option<u64>,
    pub(crate) again: Again,
}

/// The bytes of a message beside its payload, as far as they are as many as somebody wants: properties, key and trace.
pub(crate) fn extras(message: &Message) -> usize {
    let properties: usize = message.properties.iter().map(|(name, value)| name.len() + value.len() + PROPERTY_BYTES).sum();
    properties + message.key.as_ref().map_or(0, String::len) + message.trace.as_ref().map_or(0, String::len)
}

/// How many of these messages make the next entry: those of one key, since a key's messages are routed by their entry, and only those without
/// a time of their own, which an entry has as a whole.
pub(crate) fn run(messages: &[Outgoing]) -> usize {
    let first = &messages[0].message;
    if first.deliver_at_ms.is_some() {
        return 1;
    }
    let mut bytes = 0;
    let fits = |next: &&Outgoing| {
        bytes += next.message.payload.len() + extras(&next.message);
        next.message.key == first.key && next.message.deliver_at_ms.is_none() && bytes <= ENTRY_BYTES_MAX
    };
    messages.iter().take(ENTRY_MESSAGES_MAX).take_while(fits).count().max(1)
}

/// Packs messages as one entry, as a frame that can be sent more than once. `first` and `last` are the sequences.
pub(crate) fn frame(producer: (u64, &str), messages: &[Outgoing], first: u64, last: u64, now_ms: u64) -> Bytes {
    let (producer_id, name) = producer;
    // The time of publishing is what a subscription is moved to, so it is that of the youngest message: none is passed over then.
    let published = messages.iter().map(|outgoing| outgoing.message.created_ms).max().unwrap_or_default();
    let published = if (1..=now_ms).contains(&published) { published } else { now_ms };
    let mut singles: Vec<MessageMetadata> = messages.iter().map(|outgoing| metadata(outgoing, published)).collect();
    let batch = messages.len() > 1;
    let (mut metadata, payload) = match batch {
        false => (singles.remove(0), messages[0].message.payload.clone()),
        true => pack_batch(singles, messages),
    };
    metadata.producer_name = name.to_owned();
    metadata.publish_time = published;
    metadata.sequence_id = first;
    metadata.highest_sequence_id = batch.then_some(last);
    let payload = compress(&mut metadata, payload);
    let mut out = BytesMut::with_capacity(payload.len() + 256);
    let send = Send {
        producer_id,
        sequence_id: first,
        num_messages: Some(messages.len() as i32),
        highest_sequence_id: batch.then_some(last),
        ..Send::default()
    };
    frame::encode_with_entry(&mut out, Command::Send(send), &metadata, &payload);
    out.freeze()
}

fn metadata(outgoing: &Outgoing, published: u64) -> MessageMetadata {
    let Outgoing { message, again, .. } = outgoing;
    let mut metadata = envelope::to_metadata(message, Position(0), true);
    let mut add = |name: &str, value: String| {
        metadata.properties.push(crate::wire::proto::KeyValue { key: name.to_owned(), value });
    };
    if message.created_ms != published {
        add(envelope::CREATED, message.created_ms.to_string());
    }
    if again.attempt > 0 {
        add(ATTEMPT, again.attempt.to_string());
    }
    if let Some(position) = again.position {
        add(POSITION, position.0.to_string());
    }
    metadata.deliver_at_time = message.deliver_at_ms.and_then(|time| i64::try_from(time).ok());
    metadata
}

fn pack_batch(singles: Vec<MessageMetadata>, messages: &[Outgoing]) -> (MessageMetadata, Bytes) {
    let bytes: usize = messages.iter().map(|outgoing| outgoing.message.payload.len() + 128).sum();
    let mut out = BytesMut::with_capacity(bytes);
    let key = messages[0].message.key.clone();
    let count = singles.len();
    let mut ordering_key = None;
    for (single, outgoing) in singles.into_iter().zip(messages) {
        ordering_key = single.ordering_key.clone();
        let single = SingleMessageMetadata {
            properties: single.properties,
            partition_key: single.partition_key,
            payload_size: outgoing.message.payload.len() as i32,
            event_time: single.event_time,
            partition_key_b64_encoded: single.partition_key_b64_encoded,
            ordering_key: single.ordering_key,
            sequence_id: outgoing.sequence,
            null_value: single.null_value,
            ..SingleMessageMetadata::default()
        };
        out.put_u32(single.encoded_len() as u32);
        // A growing buffer has always room.
        let _ = single.encode(&mut out);
        out.put_slice(&outgoing.message.payload);
    }
    let metadata = MessageMetadata {
        num_messages_in_batch: Some(count as i32),
        // What routes the entry to a consumer.
        partition_key: key,
        ordering_key,
        ..MessageMetadata::default()
    };
    (metadata, out.freeze())
}

fn compress(metadata: &mut MessageMetadata, payload: Bytes) -> Bytes {
    if payload.len() < COMPRESS_BYTES_MIN {
        return payload;
    }
    let packed = lz4_flex::block::compress(&payload);
    if packed.len() >= payload.len() {
        return payload;
    }
    metadata.compression = Some(Compression::Lz4.into());
    metadata.uncompressed_size = Some(payload.len() as u32);
    packed.into()
}

/// A message as it comes, with what came with it.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Message,
    pub(crate) again: Again,
    /// Whether its id is its own, and not made up for one of a client that says none.
    pub(crate) says_id: bool,
}

/// Takes an entry of a topic apart.
pub(crate) fn open(topic: &str, entry: Entry, now_ms: u64) -> Result<Vec<Arrived>, EntryError> {
    let (metadata, singles) = split(entry)?;
    let arrived = |(index, single)| open_single(topic, &metadata, index, single, now_ms);
    Ok(singles.into_iter().enumerate().map(arrived).collect())
}

fn open_single(topic: &str, metadata: &MessageMetadata, index: usize, mut single: Single, now_ms: u64) -> Arrived {
    let mut again = Again::default();
    let mut created = None;
    single.properties.retain(|property| {
        match property.key.as_str() {
            envelope::CREATED => created = property.value.parse().ok(),
            ATTEMPT => again.attempt = property.value.parse().unwrap_or_default(),
            POSITION => again.position = property.value.parse().ok().map(Position),
            _ => return true,
        }
        false
    });
    // A foreign client says nothing of them; zero is said of what belongs to no root.
    let said = |name: &str| {
        let found = single.properties.iter().find(|property| property.key == name);
        found.and_then(|property| property.value.parse::<MessageId>().ok())
    };
    let (id, root) = (said(envelope::ID), said(envelope::ROOT));
    let origin = Origin { topic, producer: &metadata.producer_name, in_topology: true, now_ms };
    let mut message = envelope::to_message(origin, metadata, index, single);
    if let Some(id) = id {
        (message.id, message.root) = (id, root.unwrap_or(id));
    }
    message.created_ms = created.unwrap_or(message.created_ms);
    // Whether its time has come is decided where it is handed out.
    message.deliver_at_ms = metadata.deliver_at_time.and_then(|time| u64::try_from(time).ok());
    Arrived { message, again, says_id: id.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leatworks_broker::Codec;

    #[test]
    fn positions_rise_with_the_place_and_tell_it() {
        let places = [(0, 0, 0), (0, 0, 999), (0, 1, 0), (0, (1 << 24) - 1, 3), (1, 0, 0), ((1 << 30) - 1, 7, 1_023)];
        let positions: Vec<Position> = places
            .iter()
            .map(|(ledger, entry, index)| Place { ledger: *ledger, entry: *entry }.position(*index).unwrap())
            .collect();
        assert!(positions.is_sorted());
        for ((ledger, entry, index), position) in places.into_iter().zip(positions) {
            assert_eq!(Place::of(position), (Place { ledger, entry }, index));
        }
        for (ledger, entry, index) in [(1 << 30, 0, 0), (0, 1 << 24, 0), (0, 0, 1_024)] {
            assert_eq!(Place { ledger, entry }.position(index), None);
        }
    }

    #[test]
    fn an_entry_holds_no_more_than_its_bytes_with_all_that_a_message_has() {
        let of = |payload: usize, property: usize| {
            let properties = if property == 0 { Vec::new() } else { vec![("p".to_owned(), "x".repeat(property))] };
            let message = Message { properties, payload: vec![7; payload].into(), ..Message::default() };
            Outgoing { message: message.into(), sequence: None, again: Again::default() }
        };
        for (payload, property, fit) in
            [(1, 0, ENTRY_MESSAGES_MAX), (ENTRY_BYTES_MAX / 4, 0, 4), (1, ENTRY_BYTES_MAX / 5, 4), (ENTRY_BYTES_MAX * 2, 0, 1)]
        {
            let messages: Vec<Outgoing> = (0..2 * ENTRY_MESSAGES_MAX).map(|_| of(payload, property)).collect();
            assert_eq!(run(&messages), fit, "{payload} bytes with a property of {property}");
        }
    }

    #[test]
    fn messages_come_out_of_their_entries_as_they_went_in() {
        let message = |number: u64, key: Option<&str>, deliver_at_ms| Message {
            id: MessageId(u128::from(number) + 1),
            root: MessageId(7),
            key: key.map(str::to_owned),
            created_ms: 1_000 + number / 2,
            deliver_at_ms,
            trace: Some("00-1-2-03".to_owned()),
            codec: if number.is_multiple_of(3) { Codec::MessagePack } else { Codec::Json },
            properties: vec![("cause".to_owned(), "a".to_owned()), ("cause".to_owned(), String::new())],
            payload: vec![7; number as usize * 300].into(),
        };
        let sent: Vec<Message> = vec![
            message(0, None, None),
            message(1, None, None),
            message(2, Some("k"), None),
            message(3, Some("k"), None),
            message(4, Some("l"), None),
            message(5, Some("l"), Some(3_000)),
            message(6, Some("l"), None),
        ];
        let again = |index: usize| Again { attempt: index as u32, position: (index == 2).then_some(Position(77)) };
        let outgoing: Vec<Outgoing> = sent
            .iter()
            .enumerate()
            .map(|(index, message)| Outgoing {
                message: message.clone().into(),
                sequence: Some(index as u64),
                again: again(index),
            })
            .collect();
        let (mut at, mut runs, mut back) = (0, Vec::new(), Vec::new());
        while at < outgoing.len() {
            let count = run(&outgoing[at..]);
            runs.push(count);
            let bytes = super::frame((1, "p"), &outgoing[at..at + count], at as u64, (at + count - 1) as u64, 2_000);
            let frame = frame::decode(&mut BytesMut::from(&bytes[..]), usize::MAX).unwrap().unwrap();
            back.extend(open("t", frame::decode_entry(frame.rest).unwrap(), 2_500).unwrap());
            at += count;
        }
        assert_eq!(runs, [2, 2, 1, 1, 1]);
        assert_eq!(back.iter().map(|arrived| arrived.message.clone()).collect::<Vec<_>>(), sent);
        assert!(back.iter().enumerate().all(|(index, arrived)| arrived.again == again(index)));
    }
}
