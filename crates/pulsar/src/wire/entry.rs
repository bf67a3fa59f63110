//! Takes an entry apart into its messages: checks what is not supported, unpacks, and splits a batch.

use super::{
    compress::{self, CompressError},
    frame::Entry,
    proto::{KeyValue, MessageMetadata, SingleMessageMetadata},
};
use bytes::{Buf, Bytes};
use prost::Message;

/// The most messages of one batch. A client makes batches of a thousand by default; what is at least two bytes each on the wire is some
/// hundred in memory.
const BATCH_MESSAGES_MAX: usize = 100_000;

/// An entry that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It cannot be unpacked.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A batch whose parts do not fit.
    #[error("a batch of {messages} messages whose parts do not fit in it")]
    Batch {
        /// How many it says that it has.
        messages: i32,
    },
    /// Something that is not supported, by name.
    #[error("{0} are not supported here")]
    Unsupported(&'static str),
}

/// One message of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Single {
    /// Its properties.
    pub properties: Vec<KeyValue>,
    /// Its key.
    pub key: Option<String>,
    /// Whether the key is bytes, written as base64.
    pub key_is_base64: bool,
    /// What orders it in place of its key.
    pub ordering_key: Option<Bytes>,
    /// When what it tells of has happened, as its sender says; zero for never.
    pub event_ms: u64,
    /// It has no value at all, which is not an empty one.
    pub null_value: bool,
    /// Its payload.
    pub payload: Bytes,
}

/// How many bytes the payload of an entry has when it is unpacked, as it says itself.
pub fn unpacked_bytes(entry: &Entry) -> usize {
    match entry.metadata.compression.unwrap_or_default() {
        0 => entry.payload.len(),
        _ => entry.metadata.uncompressed_size.unwrap_or_default() as usize,
    }
}

/// Takes an entry apart.
///
/// # Errors
/// See [`EntryError`].
pub fn split(entry: Entry) -> Result<(MessageMetadata, Vec<Single>), EntryError> {
    let Entry { mut metadata, payload } = entry;
    if !metadata.encryption_keys.is_empty() {
        return Err(EntryError::Unsupported("encrypted messages"));
    }
    if metadata.txnid_least_bits.is_some() || metadata.txnid_most_bits.is_some() || metadata.marker_type.is_some() {
        return Err(EntryError::Unsupported("transactions"));
    }
    if metadata.num_chunks.is_some_and(|chunks| chunks > 1) {
        return Err(EntryError::Unsupported("messages in chunks"));
    }
    let bytes = metadata.uncompressed_size.unwrap_or_default() as usize;
    let payload = compress::unpack(&payload, metadata.compression.unwrap_or_default(), bytes)?;
    let messages = match metadata.num_messages_in_batch {
        Some(messages) => split_batch(payload, messages)?,
        None => vec![Single {
            properties: std::mem::take(&mut metadata.properties),
            key: metadata.partition_key.take().filter(|_| metadata.null_partition_key != Some(true)),
            key_is_base64: metadata.partition_key_b64_encoded == Some(true),
            ordering_key: metadata.ordering_key.take(),
            event_ms: metadata.event_time.unwrap_or_default(),
            null_value: metadata.null_value == Some(true),
            payload,
        }],
    };
    Ok((metadata, messages))
}

/// `[size u32][SingleMessageMetadata][payload]`, as many times as there are messages, and nothing behind them.
fn split_batch(mut payload: Bytes, messages: i32) -> Result<Vec<Single>, EntryError> {
    let damaged = || EntryError::Batch { messages };
    let count = usize::try_from(messages).ok().filter(|count| (1..=BATCH_MESSAGES_MAX).contains(count)).ok_or_else(damaged)?;
    // Each takes six bytes at least: a number beyond that cannot be true, and must not cost memory.
    if count > payload.len() / 6 {
        return Err(damaged());
    }
    let mut split = Vec::with_capacity(count);
    for _ in 0..count {
        if payload.len() < 4 {
            return Err(damaged());
        }
        let size = payload.get_u32() as usize;
        if size > payload.len() {
            return Err(damaged());
        }
        let single = SingleMessageMetadata::decode(payload.split_to(size)).map_err(|_| damaged())?;
        let bytes = usize::try_from(single.payload_size).ok().filter(|bytes| *bytes <= payload.len()).ok_or_else(damaged)?;
        let payload = payload.split_to(bytes);
        // What its sender has taken back by compaction is not there for anybody.
        if single.compacted_out != Some(true) {
            split.push(Single {
                properties: single.properties,
                key: single.partition_key.filter(|_| single.null_partition_key != Some(true)),
                key_is_base64: single.partition_key_b64_encoded == Some(true),
                ordering_key: single.ordering_key,
                event_ms: single.event_time.unwrap_or_default(),
                null_value: single.null_value == Some(true),
                payload,
            });
        }
    }
    if payload.has_remaining() || split.is_empty() { Err(damaged()) } else { Ok(split) }
}
