//! Frames: a length, a command, and with some commands a checksummed payload with its metadata.
//!
//! ```text
//! [total u32][command size u32][BaseCommand]
//! [total u32][command size u32][BaseCommand][0x0e01][crc32c u32][metadata size u32][MessageMetadata][payload]
//! ```
//! All numbers are big-endian. The checksum covers everything behind it, and may be left out together with its mark.

use super::proto::{BaseCommand, Command, MessageMetadata};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// The mark of a checksum.
const CHECKSUM_MARK: u16 = 0x0e01;

/// The largest payload of one message that is taken and announced: Pulsar's own default.
pub const MESSAGE_BYTES_MAX: usize = 5 << 20;

/// The largest frame: a message, and what Pulsar too allows for its command and metadata beside it.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (128 << 10);

/// The largest frame before a client has said who it is: a token has at most a few KiB.
pub const CONNECT_BYTES_MAX: usize = 16 << 10;

/// The largest command. A thousand message ids take 14 KiB; a million empty ones would take 50 times their size in memory.
const COMMAND_BYTES_MAX: usize = 512 << 10;

/// The largest metadata of an entry, for the same reason. Properties are meant for a few words.
const METADATA_BYTES_MAX: usize = 512 << 10;

/// What is wrong with a frame. Where the next one begins is not known any more, so the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than is taken now.
    #[error("a frame of {bytes} bytes, at most {max} are taken here")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The lengths in the frame contradict each other, or a part is too large.
    #[error("a frame whose parts do not fit in it")]
    Lengths,
    /// The command is no command.
    #[error("a command that cannot be read: {0}")]
    Command(String),
}

/// One frame: a command, or a number of a command that is not known here, and the bytes behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The number of the command.
    pub kind: i32,
    /// The command, if it is known.
    pub command: Option<Command>,
    /// What comes behind it; empty for most.
    pub rest: Bytes,
}

/// Takes the first frame out of what was read, if it is there as a whole.
///
/// # Errors
/// See [`FrameError`]. A frame that is too large is refused by its length alone, before there is memory for it.
pub fn decode(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(total) = number(buffer, 0) else { return Ok(None) };
    if total > bytes_max {
        return Err(FrameError::TooLarge { bytes: total, max: bytes_max });
    }
    if buffer.len() < 4 + total {
        // No memory for what is only announced: the buffer grows with what comes.
        return Ok(None);
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(total).freeze();
    let size = number(&frame, 0).filter(|size| *size <= COMMAND_BYTES_MAX && *size <= total - 4).ok_or(FrameError::Lengths)?;
    frame.advance(4);
    let command = frame.split_to(size);
    let BaseCommand { kind, command } = BaseCommand::decode(command).map_err(|error| FrameError::Command(error.to_string()))?;
    if command.as_ref().is_some_and(|command| command.kind() != kind) {
        return Err(FrameError::Command(format!("command {kind} carries another one")));
    }
    Ok(Some(Frame { kind, command, rest: frame }))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

/// What is wrong with the payload of a frame. The frame itself is whole, so the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The checksum does not fit.
    #[error("the checksum of the message does not fit its bytes")]
    Checksum,
    /// The parts do not fit.
    #[error("the metadata of the message cannot be read: {0}")]
    Metadata(String),
}

/// An entry as it comes with a frame: its metadata and its payload, still packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The metadata.
    pub metadata: MessageMetadata,
    /// The payload, perhaps compressed, perhaps a batch.
    pub payload: Bytes,
}

/// Reads what comes behind a `SEND` or `MESSAGE` command.
///
/// # Errors
/// See [`PayloadError`].
pub fn decode_entry(mut rest: Bytes) -> Result<Entry, PayloadError> {
    let short = || PayloadError::Metadata("it ends too early".to_owned());
    if rest.len() >= 2 && rest[..2] == CHECKSUM_MARK.to_be_bytes() {
        let sum = number(&rest, 2).ok_or_else(short)?;
        rest.advance(6);
        if crc32c::crc32c(&rest) as usize != sum {
            return Err(PayloadError::Checksum);
        }
    }
    let size = number(&rest, 0).filter(|size| *size <= METADATA_BYTES_MAX && *size <= rest.len() - 4).ok_or_else(short)?;
    rest.advance(4);
    let metadata = MessageMetadata::decode(rest.split_to(size)).map_err(|error| PayloadError::Metadata(error.to_string()))?;
    Ok(Entry { metadata, payload: rest })
}

/// Writes a command as a frame.
pub fn encode(out: &mut BytesMut, command: Command) {
    let base = BaseCommand { kind: command.kind(), command: Some(command) };
    let size = base.encoded_len();
    out.reserve(8 + size);
    out.put_u32((4 + size) as u32);
    out.put_u32(size as u32);
    encode_into(&base, out);
}

/// Writes a command with an entry as a frame.
pub fn encode_with_entry(out: &mut BytesMut, command: Command, metadata: &MessageMetadata, payload: &[u8]) {
    let base = BaseCommand { kind: command.kind(), command: Some(command) };
    let (size, metadata_size) = (base.encoded_len(), metadata.encoded_len());
    let total = 4 + size + 2 + 4 + 4 + metadata_size + payload.len();
    out.reserve(4 + total);
    out.put_u32(total as u32);
    out.put_u32(size as u32);
    encode_into(&base, out);
    out.put_u16(CHECKSUM_MARK);
    let sum_at = out.len();
    out.put_u32(0);
    out.put_u32(metadata_size as u32);
    encode_into(metadata, out);
    out.put_slice(payload);
    let sum = crc32c::crc32c(&out[sum_at + 4..]);
    out[sum_at..sum_at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn encode_into(message: &impl Message, out: &mut BytesMut) {
    // A growing buffer has always room.
    let _ = message.encode(out);
}
