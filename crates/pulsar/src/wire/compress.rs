//! Unpacks compressed payloads, within a limit that is known before the first byte is unpacked.

use super::proto::Compression;
use bytes::Bytes;
use std::io::Read;

/// The most bytes of one entry when unpacked. A batch of many messages compresses well, so it may be larger than one message; clients make
/// batches of 128 KiB by default.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// How Snappy's framed format begins. The Rust client writes it, the others write a bare block. No block begins so: it would copy from before its
/// own beginning.
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

/// Reads what is expected, and fails where there is more. An end is not asked for: the Java client's zlib streams have none.
fn read(source: impl Read, bytes: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(bytes.min(64 << 10));
    let mut source = source.take(bytes as u64);
    source.read_to_end(&mut unpacked).ok()?;
    let more = source.into_inner().read(&mut [0]).is_ok_and(|more| more > 0);
    (!more).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What the clients make of a payload: the Rust client frames Snappy, and the Java client flushes zlib and does not end it.
    fn client_made(text: &[u8]) -> Vec<(Compression, Vec<u8>)> {
        let mut frames = snap::write::FrameEncoder::new(Vec::new());
        frames.write_all(text).expect("memory takes all");
        let mut endless = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        endless.write_all(text).expect("memory takes all");
        endless.flush().expect("memory takes all");
        let endless = endless.get_ref().clone();
        vec![
            (Compression::Snappy, frames.into_inner().expect("memory takes all")),
            (Compression::Snappy, snap::raw::Encoder::new().compress_vec(text).expect("short enough")),
            (Compression::Zlib, endless),
        ]
    }

    #[test]
    fn every_client_s_form_is_unpacked_and_only_to_the_size_it_says() {
        let text = b"leat ".repeat(1000);
        for (kind, packed) in client_made(&text) {
            let unpack = |packed: &[u8], bytes| unpack(&Bytes::copy_from_slice(packed), kind as i32, bytes);
            assert_eq!(unpack(&packed, text.len()).as_deref(), Ok(&text[..]), "{kind:?}");
            for wrong in [text.len() - 1, text.len() + 1] {
                assert_eq!(unpack(&packed, wrong), Err(CompressError::Damaged { bytes: wrong }), "{kind:?}");
            }
            assert!(unpack(&packed[..packed.len() / 2], text.len()).is_err(), "{kind:?}");
        }
    }
}
