//! One message as the journal keeps it, readable by itself, so that damage is limited to the message it hit.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC32C of everything behind it, little endian |
//! | 1 | flags: 1 the root is the message itself, 2 there is no root, 4 there are extras |
//! | 6 | milliseconds since the Unix epoch when it was made, little endian |
//! | 16 | id |
//! | 16 or 0 | root, unless a flag tells it |
//! | n or 0 | extras: a length-delimited protobuf message [`Extras`] with whatever is rarely there |
//! | rest | payload |
//!
//! Most messages have no extras and take 43 bytes beside their payload, or 27 if they are roots. The protobuf part is where fields may be added.

use crate::{Codec, Message, MessageId};
use bytes::{Buf, Bytes};
use prost::Message as _;

/// Bytes of the checksum.
pub(crate) const CRC_BYTES: usize = 4;

/// Bytes before the root.
const HEAD_BYTES: usize = CRC_BYTES + 1 + 6 + 16;

const OWN_ROOT: u8 = 1;
const NO_ROOT: u8 = 2;
const EXTRAS: u8 = 4;

/// What few messages have.
#[derive(Clone, PartialEq, prost::Message)]
struct Extras {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    deliver_at_ms: Option<u64>,
    #[prost(string, optional, tag = "3")]
    trace: Option<String>,
    #[prost(uint32, tag = "4")]
    codec: u32,
    #[prost(message, repeated, tag = "5")]
    properties: Vec<Property>,
    /// A time that does not fit into six bytes.
    #[prost(uint64, optional, tag = "6")]
    created_ms: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Property {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The largest time that fits into six bytes.
const CREATED_MS_MAX: u64 = (1 << 48) - 1;

fn extras(message: &Message) -> Option<Extras> {
    let Message { key, deliver_at_ms, trace, codec, properties, created_ms, .. } = message;
    let created_ms = Some(*created_ms).filter(|time| *time > CREATED_MS_MAX);
    let none = key.is_none() && deliver_at_ms.is_none() && trace.is_none() && properties.is_empty() && created_ms.is_none();
    (!none || *codec != Codec::Json).then(|| Extras {
        key: key.clone(),
        deliver_at_ms: *deliver_at_ms,
        trace: trace.clone(),
        codec: *codec as u32,
        properties: properties.iter().map(|(name, value)| Property { name: name.clone(), value: value.clone() }).collect(),
        created_ms,
    })
}

/// Appends a message and gives its bytes.
pub(crate) fn encode(message: &Message, to: &mut Vec<u8>) -> usize {
    let start = to.len();
    let extras = extras(message);
    let root = match message.root {
        root if root == message.id && root.0 != 0 => OWN_ROOT,
        MessageId(0) => NO_ROOT,
        _ => 0,
    };
    let flags = root | if extras.is_some() { EXTRAS } else { 0 };
    to.extend_from_slice(&[0, 0, 0, 0, flags]);
    to.extend_from_slice(&message.created_ms.min(CREATED_MS_MAX).to_le_bytes()[..6]);
    to.extend_from_slice(&message.id.0.to_le_bytes());
    if root == 0 {
        to.extend_from_slice(&message.root.0.to_le_bytes());
    }
    if let Some(extras) = extras {
        extras.encode_length_delimited(to).expect("a vector has room for whatever is written");
    }
    to.extend_from_slice(&message.payload);
    let crc = crc32c::crc32c(&to[start + CRC_BYTES..]);
    to[start..start + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    to.len() - start
}

/// Whether the bytes are those that were written.
pub(crate) fn is_whole(block: &[u8]) -> bool {
    block.split_first_chunk::<CRC_BYTES>().is_some_and(|(crc, rest)| u32::from_le_bytes(*crc) == crc32c::crc32c(rest))
}

/// Reads a message back whose checksum is right. From `Bytes` the payload is not copied, from a slice it is.
pub(crate) fn decode(block: impl Buf + AsRef<[u8]>) -> Result<Message, String> {
    let mut block = block;
    let cut = || "a message is cut off".to_owned();
    let head = block.as_ref().first_chunk::<HEAD_BYTES>().ok_or_else(cut)?;
    let flags = head[CRC_BYTES];
    if flags & !(OWN_ROOT | NO_ROOT | EXTRAS) != 0 {
        return Err(format!("a message has the flags {flags:#x}, which this version does not know"));
    }
    let mut time = [0; 8];
    time[..6].copy_from_slice(&head[CRC_BYTES + 1..][..6]);
    let mut id = [0; 16];
    id.copy_from_slice(&head[HEAD_BYTES - 16..]);
    let id = MessageId(u128::from_le_bytes(id));
    block.advance(HEAD_BYTES);
    let root = match flags & (OWN_ROOT | NO_ROOT) {
        OWN_ROOT => id,
        NO_ROOT => MessageId(0),
        _ if block.remaining() < 16 => return Err(cut()),
        _ => MessageId(block.get_u128_le()),
    };
    let extras = match flags & EXTRAS {
        0 => Extras::default(),
        _ => Extras::decode_length_delimited(&mut block).map_err(|error| error.to_string())?,
    };
    let payload: Bytes = block.copy_to_bytes(block.remaining());
    Ok(Message {
        id,
        root,
        key: extras.key,
        created_ms: extras.created_ms.unwrap_or(u64::from_le_bytes(time)),
        deliver_at_ms: extras.deliver_at_ms,
        trace: extras.trace,
        codec: if extras.codec == Codec::MessagePack as u32 { Codec::MessagePack } else { Codec::Json },
        properties: extras.properties.into_iter().map(|Property { name, value }| (name, value)).collect(),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_and_a_flipped_bit_is_seen() {
        let full = Message {
            id: MessageId(1 << 100),
            root: MessageId(7),
            key: Some("k".into()),
            created_ms: 1_700_000_000_000,
            deliver_at_ms: Some(9),
            trace: Some("t".into()),
            codec: Codec::MessagePack,
            properties: vec![("a".into(), "b".into())],
            payload: Bytes::from_static(b"payload"),
        };
        let plain =
            Message { key: None, deliver_at_ms: None, trace: None, codec: Codec::Json, properties: vec![], ..full.clone() };
        let root = Message { root: full.id, ..plain.clone() };
        let untracked = Message { root: MessageId(0), payload: Bytes::new(), ..plain.clone() };
        let late = Message { created_ms: u64::MAX, ..plain.clone() };
        let nothing = Message::default();
        for (message, overhead) in
            [(full, None), (plain, Some(43)), (root, Some(27)), (untracked, Some(27)), (late, None), (nothing, None)]
        {
            let mut bytes = vec![1, 2, 3];
            let taken = encode(&message, &mut bytes);
            let block = Bytes::from(bytes).slice(3..);
            assert_eq!(taken, block.len());
            assert!(overhead.is_none_or(|overhead| overhead == taken - message.payload.len()), "{taken} bytes");
            assert!(is_whole(&block));
            assert_eq!(decode(block.clone()), Ok(message));
            for bit in 0..block.len() * 8 {
                let mut damaged = block.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_whole(&damaged), "bit {bit}");
                // Whatever it is, it is refused or read, and nothing panics.
                let _ = decode(&damaged[..]);
            }
        }
        for length in 0..HEAD_BYTES {
            assert!(decode(&vec![0; length][..]).is_err());
        }
    }
}
