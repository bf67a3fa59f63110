//! How payloads are encoded and decoded.

pub use bytes::Bytes;
pub use leatworks_broker::Codec;

use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;

/// A value could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// As JSON.
    #[error("encoding as JSON")]
    Json(#[from] serde_json::Error),
    /// As MessagePack.
    #[error("encoding as MessagePack")]
    MessagePack(#[from] rmp_serde::encode::Error),
}

/// A payload is not what is expected. The text has the place, if the codec knows it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The place is a line and column, and the path of keys to it.
    #[error("the message is not the JSON that is expected: {0}")]
    Json(#[from] serde_json::Error),
    /// MessagePack has no place.
    #[error("the message is not the MessagePack that is expected: {0}")]
    MessagePack(#[from] rmp_serde::decode::Error),
}

/// What a thread keeps for encoding.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Encodes a value.
///
/// # Errors
/// If the value says so, or a map has keys that JSON cannot have.
pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Bytes, EncodeError> {
    thread_local! {
        /// Where values are encoded before their length is known: a payload is then one allocation of its very size.
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out meanwhile: a value may encode others while it is encoded.
    let mut buffer = BUFFER.take();
    buffer.clear();
    match codec {
        Codec::Json => serde_json::to_writer(&mut buffer, value)?,
        Codec::MessagePack => value.serialize(&mut rmp_serde::Serializer::new(&mut buffer).with_struct_map())?,
    }
    let bytes = Bytes::copy_from_slice(&buffer);
    // One large value must not stretch it for ever.
    buffer.shrink_to(BUFFER_BYTES_MAX);
    BUFFER.set(buffer);
    Ok(bytes)
}

/// Decodes a payload.
///
/// # Errors
/// If it is not well-formed, or not what the type wants.
pub fn decode<T: DeserializeOwned>(codec: Codec, payload: &[u8]) -> Result<T, DecodeError> {
    Ok(match codec {
        Codec::Json => serde_json::from_slice(payload)?,
        Codec::MessagePack => rmp_serde::from_slice(payload)?,
    })
}
