//! Unpacks compressed payloads, within a limit that is known before the first byte is unpacked.

use super::proto::Compression;
use bytes::Bytes;
use std::io::Read;

/// The most bytes of one entry when unpacked. A batch of many messages compresses well, so it may be larger than one message; clients make
/// batches of 128 KiB by default.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// How snappy's frames begin. As a raw block it would copy from a gigabyte before its own beginning, so no raw block begins so.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// A payload that cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// The compression is none that is known.
    #[error("compression {0} is not known: none, lz4, zlib, zstd and snappy are")]
    Unknown(i32),
    /// It is too large.
    #[error("a payload of {bytes} bytes when unpacked, at most {UNPACKED_BYTES_MAX} are taken")]
    TooLarge {
        /// What it says that it has.
        bytes: usize,
    },
    /// It is not what it says it is.
    #[error("a compressed payload that does not unpack to the {bytes} bytes that it says it has")]
    Damaged {
        /// What it says that it has.
        bytes: usize,
    },
}

/// Unpacks a payload that says how large it is then.
///
/// # Errors
/// See [`CompressError`].
pub fn unpack(payload: &Bytes, compression: i32, bytes: usize) -> Result<Bytes, CompressError> {
    let kind = Compression::try_from(compression).map_err(|_| CompressError::Unknown(compression))?;
    if kind == Compression::None {
        return Ok(payload.clone());
    }
    if bytes > UNPACKED_BYTES_MAX {
        return Err(CompressError::TooLarge { bytes });
    }
    let damaged = || CompressError::Damaged { bytes };
    let unpacked = match kind {
        Compression::None => return Ok(payload.clone()),
        Compression::Lz4 => lz4_flex::block::decompress(payload, bytes).map_err(|_| damaged())?,
        Compression::Zlib => read(flate2::read::ZlibDecoder::new(&payload[..]), bytes).ok_or_else(damaged)?,
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&payload[..]).map_err(|_| damaged())?;
            read(decoder, bytes).ok_or_else(damaged)?
        }
        // The Rust client writes frames, all others a raw block.
        Compression::Snappy if payload.starts_with(SNAPPY_FRAMES) => {
            read(snap::read::FrameDecoder::new(&payload[..]), bytes).ok_or_else(damaged)?
        }
        Compression::Snappy => {
            if snap::raw::decompress_len(payload).map_err(|_| damaged())? != bytes {
                return Err(damaged());
            }
            snap::raw::Decoder::new().decompress_vec(payload).map_err(|_| damaged())?
        }
    };
    if unpacked.len() != bytes { Err(damaged()) } else { Ok(unpacked.into()) }
}

/// Reads as many bytes as are expected, of a source that must not have more. It need not say that it has ended: the Java client only flushes zlib.
fn read(mut source: impl Read, bytes: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(bytes.min(64 << 10));
    // It grows with what comes, not with what is announced.
    let whole = source.by_ref().take(bytes as u64).read_to_end(&mut unpacked);
    whole.ok().filter(|read| *read == bytes)?;
    match source.read(&mut [0]) {
        Ok(1..) => None,
        Ok(0) | Err(_) => Some(unpacked),
    }
}
