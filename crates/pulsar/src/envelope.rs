//! Between a message of the broker and a message of Pulsar: the payload is the payload, and what Pulsar has no field for rides as a property.
//!
//! The names of the properties are documented in `docs/reference/pulsar-protocol.md` and never change.

use crate::wire::{
    entry::Single,
    proto::{KeyValue, MessageMetadata},
};
use leatworks_broker::{Codec, Message, MessageId, Position};
use xxhash_rust::xxh3::xxh3_128;

/// The identity of a message, 32 hexadecimal digits.
pub(crate) const ID: &str = "leat-id";
/// The root that a message came of, if that is another one.
pub(crate) const ROOT: &str = "leat-root";
/// When a message was made, in milliseconds, if that is not when its entry says.
pub(crate) const CREATED: &str = "leat-created";
/// How the payload is encoded, if not as JSON.
const CODEC: &str = "leat-codec";
/// The only value of [`CODEC`] so far.
const MESSAGE_PACK: &str = "message-pack";
/// W3C trace context.
const TRACE: &str = "traceparent";
/// Pulsar's event time in milliseconds.
const EVENT_TIME: &str = "leat-event-time";
/// The key is bytes, written as base64.
const KEY_BASE64: &str = "leat-key-base64";
/// Pulsar's ordering key in hexadecimal digits; the message's key is the same then.
const ORDERING_KEY: &str = "leat-ordering-key";
/// Pulsar's partition key beside an ordering key.
const PARTITION_KEY: &str = "leat-partition-key";
/// The message has no value.
const NULL_VALUE: &str = "leat-null-value";

/// What the name of the sender is to a consumer; who has sent a message is not kept.
const PRODUCER: &str = "leatworks";

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The topic.
    pub(crate) topic: &'a str,
    /// The producer.
    pub(crate) producer: &'a str,
    /// Whether the topic belongs to a topology, whose envelope is then read. On any other topic properties are left as they are.
    pub(crate) in_topology: bool,
    /// Now, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

/// A message as the broker takes it.
///
/// A message that names no id is a root. Its id follows from what its client sends again unchanged after a lost connection, so that it is the
/// same root then: topic, producer, sequence, time of sending, and place in the batch. The time keeps messages apart whose producer has a
/// fixed name and starts its sequence anew.
pub(crate) fn to_message(origin: Origin<'_>, metadata: &MessageMetadata, index: usize, single: Single) -> Message {
    let mut message = Message {
        created_ms: match metadata.publish_time {
            0 => origin.now_ms,
            // A clock that is ahead must not make a message younger than those that come after it.
            time => time.min(origin.now_ms),
        },
        deliver_at_ms: metadata.deliver_at_time.and_then(|time| u64::try_from(time).ok()),
        payload: single.payload,
        ..Message::default()
    };
    let (mut id, mut root) = (None, None);
    for KeyValue { key: name, value } in single.properties {
        match name.as_str() {
            ID if origin.in_topology => id = value.parse().ok(),
            ROOT if origin.in_topology => root = value.parse().ok(),
            CREATED if value.parse().is_ok_and(|time| (1..=origin.now_ms).contains(&time)) => {
                message.created_ms = value.parse().unwrap_or(message.created_ms);
            }
            TRACE if origin.in_topology => message.trace = Some(value),
            CODEC if origin.in_topology && value == MESSAGE_PACK => message.codec = Codec::MessagePack,
            _ => message.properties.push((name, value)),
        }
    }
    // Zero is said of what belongs to no root, which is not the same as saying nothing.
    message.id = id.unwrap_or_else(|| root_id(origin, metadata, index));
    message.root = root.unwrap_or(message.id);
    let mut add = |name: &str, value: String| message.properties.push((name.to_owned(), value));
    if single.event_ms != 0 {
        add(EVENT_TIME, single.event_ms.to_string());
    }
    if single.null_value {
        add(NULL_VALUE, "true".to_owned());
    }
    if single.key_is_base64 {
        add(KEY_BASE64, "true".to_owned());
    }
    message.key = match single.ordering_key {
        None => single.key,
        Some(bytes) => {
            let ordering = to_hex(&bytes);
            if let Some(key) = single.key {
                add(PARTITION_KEY, key);
            }
            add(ORDERING_KEY, ordering.clone());
            Some(ordering)
        }
    };
    message
}

fn root_id(origin: Origin<'_>, metadata: &MessageMetadata, index: usize) -> MessageId {
    let mut bytes = Vec::with_capacity(origin.topic.len() + origin.producer.len() + 26);
    for name in [origin.topic, origin.producer] {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    for number in [metadata.sequence_id, metadata.publish_time, index as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    // Zero means untracked, so it is no identity.
    MessageId(xxh3_128(&bytes).max(1))
}

/// The metadata of a message as a client gets it.
pub(crate) fn to_metadata(message: &Message, position: Position, in_topology: bool) -> MessageMetadata {
    let mut metadata = MessageMetadata {
        producer_name: PRODUCER.to_owned(),
        sequence_id: position.0,
        publish_time: message.created_ms,
        partition_key: message.key.clone(),
        deliver_at_time: message.deliver_at_ms.and_then(|time| i64::try_from(time).ok()),
        ..MessageMetadata::default()
    };
    let mut add = |name: &str, value: String| metadata.properties.push(KeyValue { key: name.to_owned(), value });
    if in_topology {
        add(ID, message.id.to_string());
        if message.root != message.id {
            add(ROOT, message.root.to_string());
        }
        if message.codec == Codec::MessagePack {
            add(CODEC, MESSAGE_PACK.to_owned());
        }
        if let Some(trace) = &message.trace {
            add(TRACE, trace.clone());
        }
    }
    let (mut ordering, mut partition) = (None, None);
    for (name, value) in &message.properties {
        match name.as_str() {
            EVENT_TIME => metadata.event_time = value.parse().ok(),
            KEY_BASE64 => metadata.partition_key_b64_encoded = Some(true),
            NULL_VALUE => metadata.null_value = Some(true),
            ORDERING_KEY => ordering = from_hex(value),
            PARTITION_KEY => partition = Some(value.clone()),
            _ => metadata.properties.push(KeyValue { key: name.clone(), value: value.clone() }),
        }
    }
    if let Some(ordering) = ordering {
        metadata.ordering_key = Some(ordering.into());
        metadata.partition_key = partition;
    }
    metadata
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|half| half as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const ORIGIN: Origin<'_> = Origin { topic: "t", producer: "p", in_topology: true, now_ms: 1_000 };

    fn property(name: &str, value: &str) -> KeyValue {
        KeyValue { key: name.into(), value: value.into() }
    }

    #[test]
    fn what_a_client_sends_comes_back_the_same() {
        for in_topology in [true, false] {
            let single = Single {
                properties: vec![property("a", "1"), property("traceparent", "00-1-2-03"), property("a", "2")],
                key: Some("aGVsbG8=".into()),
                key_is_base64: true,
                ordering_key: Some(Bytes::from_static(&[0, 0xff, 7])),
                event_ms: 77,
                null_value: true,
                payload: Bytes::from_static(b"x"),
            };
            let metadata = MessageMetadata { sequence_id: 4, publish_time: 900, ..MessageMetadata::default() };
            let message = to_message(Origin { in_topology, ..ORIGIN }, &metadata, 0, single.clone());
            assert_eq!(message.trace.is_some(), in_topology);
            let back = to_metadata(&message, Position(9), in_topology);
            assert_eq!(
                (back.partition_key, back.ordering_key, back.event_time, back.publish_time),
                (single.key, single.ordering_key, Some(77), 900)
            );
            assert_eq!((back.partition_key_b64_encoded, back.null_value), (Some(true), Some(true)));
            let mut properties = back.properties;
            properties.retain(|property| property.key != "leat-id");
            let mut expected = single.properties;
            properties.sort_by(|a, b| a.key.cmp(&b.key));
            expected.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(properties, expected);
        }
    }

    #[test]
    fn a_root_that_is_sent_again_is_the_same_and_no_other_is() {
        let id = |topic: &str, producer: &str, sequence_id, publish_time, index| {
            let metadata = MessageMetadata { sequence_id, publish_time, ..MessageMetadata::default() };
            let message = to_message(Origin { topic, producer, ..ORIGIN }, &metadata, index, Single::default());
            assert_eq!(message.id, message.root);
            message.id
        };
        let ids: std::collections::HashSet<_> = [
            id("t", "p", 1, 5, 0),
            id("t", "p", 2, 5, 0),
            id("t", "p", 1, 6, 0),
            id("t", "p", 1, 5, 1),
            id("u", "p", 1, 5, 0),
            id("tp", "", 1, 5, 0),
        ]
        .into();
        assert_eq!(ids.len(), 6);
        assert_eq!(id("t", "p", 1, 5, 0), id("t", "p", 1, 5, 0));
    }

    #[test]
    fn the_envelope_of_a_topology_is_read_where_it_belongs() {
        let single = Single {
            properties: vec![property("leat-id", "0a"), property("leat-root", "0b"), property("leat-codec", "message-pack")],
            ..Single::default()
        };
        let message = to_message(ORIGIN, &MessageMetadata::default(), 0, single.clone());
        assert_eq!((message.id, message.root, message.codec), (MessageId(10), MessageId(11), Codec::MessagePack));
        assert!(message.properties.is_empty());
        let outside = to_message(Origin { in_topology: false, ..ORIGIN }, &MessageMetadata::default(), 0, single);
        assert_ne!(outside.id, MessageId(10));
        assert_eq!((outside.codec, outside.properties.len()), (Codec::Json, 3));
    }
}
