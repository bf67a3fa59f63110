//! Dead letters: a message that was given up, with why.

use crate::{TaskError, ids};
use leatworks_broker::{Message, Position};
use serde::{Deserialize, Serialize};

/// The most bytes of an error's text that are kept. A page of text tells enough, and a journal full of stack traces helps nobody.
const ERROR_BYTES_MAX: usize = 4096;

/// All property names of a dead letter begin so; redriving takes them off again.
const PREFIX: &str = "leat-";

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The edge on which it was given up.
    pub edge: String,
    /// Where it lies in the dead-letter topic of that edge.
    #[serde(serialize_with = "position", deserialize_with = "read_position")]
    pub position: Position,
    /// Its identity.
    pub id: String,
    /// The root that it came of.
    pub root: String,
    /// Its key.
    pub key: Option<String>,
    /// Why: `error`, `panic`, `timeout`, `permanent`, `undecodable`, `worker-died`.
    pub cause: String,
    /// The text of the last error.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the message came to the edge, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// Its payload; bytes that are not UTF-8 are replaced.
    pub payload: String,
    /// Whether the payload is longer, and only its beginning is here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

fn position<S: serde::Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(position.0)
}

fn read_position<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
    Ok(Position(Deserialize::deserialize(deserializer)?))
}

impl DeadLetter {
    /// The message with the properties that say why it was given up.
    pub(crate) fn write(mut message: Message, edge: &str, attempts: u32, error: &TaskError) -> Message {
        message.deliver_at_ms = None;
        message.properties.retain(|(name, _)| !name.starts_with(PREFIX));
        let mut add = |name: &str, value: String| message.properties.push((format!("{PREFIX}{name}"), value));
        add("cause", error.cause().as_str().to_owned());
        add("error", bounded(error.to_string(), ERROR_BYTES_MAX));
        add("attempts", attempts.to_string());
        add("edge", edge.to_owned());
        add("first-ms", message.created_ms.to_string());
        add("last-ms", ids::now_ms().to_string());
        message
    }

    /// Reads it back.
    pub(crate) fn read(edge: &str, position: Position, message: &Message) -> Self {
        let property = |name: &str| {
            let found = message.properties.iter().find(|(key, _)| key.strip_prefix(PREFIX) == Some(name));
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        Self {
            edge: edge.to_owned(),
            position,
            id: message.id.to_string(),
            root: message.root.to_string(),
            key: message.key.clone(),
            cause: property("cause").to_owned(),
            error: property("error").to_owned(),
            attempts: property("attempts").parse().unwrap_or_default(),
            first_ms: property("first-ms").parse().unwrap_or_default(),
            last_ms: property("last-ms").parse().unwrap_or_default(),
            payload: payload_text(message),
            cut: false,
        }
    }

    /// Cuts a payload that has more bytes than this, with `…` at its end.
    pub(crate) fn cut_payload(&mut self, bytes_max: usize) {
        self.cut = self.payload.len() > bytes_max;
        self.payload = bounded(std::mem::take(&mut self.payload), bytes_max);
    }
}

fn payload_text(message: &Message) -> String {
    match message.codec {
        crate::Codec::Json => String::from_utf8_lossy(&message.payload).into_owned(),
        crate::Codec::MessagePack => crate::codec::decode::<serde_json::Value>(message.codec, &message.payload)
            .map_or_else(|_| String::from_utf8_lossy(&message.payload).into_owned(), |value| value.to_string()),
    }
}

/// The message as it was before it was given up.
pub(crate) fn clean(mut message: Message) -> Message {
    message.properties.retain(|(name, _)| !name.starts_with(PREFIX));
    message
}

fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = text.floor_char_boundary(bytes_max);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_says_why_and_comes_back_whole() {
        let message = Message {
            payload: crate::codec::Bytes::from_static(b"{}"),
            key: Some("k".to_owned()),
            properties: vec![("own".to_owned(), "kept".to_owned())],
            ..Message::default()
        };
        let error = TaskError::permanent("é".repeat(ERROR_BYTES_MAX));
        let dead = DeadLetter::write(message.clone(), "a-->b", 3, &error);
        let read = DeadLetter::read("a-->b", Position(5), &dead);
        assert_eq!((read.cause.as_str(), read.attempts, read.payload.as_str()), ("permanent", 3, "{}"));
        assert!(read.error.len() <= ERROR_BYTES_MAX + '…'.len_utf8() && read.error.ends_with("é…"), "{}", read.error.len());
        assert_eq!(clean(dead), message);
    }
}
