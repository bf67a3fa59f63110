//! The index of a spilled block as the journal keeps it: a checksum, the head, and for each of its messages what follows. Numbers are little endian or varints
//! (LEB128, zigzag where they may be negative).
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC32C of everything behind it |
//! | 1 | version, 1 |
//! | 4, 8 | topic, number of the block |
//! | 8, 8 | newest creation time, bytes of its messages as retention counts them |
//! | 8 | address of the first message |
//! | varints | messages; for each: address less the end of the message before, length less that of the message before |
//! | 1, 4 each | whether there are keys; the hashes of the keys |
//! | 1 each | root: 0 none, 1 in the table of roots, 2 its only message and never sent, 3 its only message and sent once |
//! | 16 each | ids of the roots, where there are any |
//!
//! So a message takes 3 bytes and its root's id.

use super::{
    anew,
    place::{Location, Place},
};
use crate::state::{Index, Indexed, Run, TopicId};
use bytes::Buf;
use leatworks_journal::{JournalError, Reader};

/// What the version is that this code reads and writes.
const VERSION: u8 = 1;

/// What is told of a damaged index.
pub(super) const ANEW: &str = "the index of a block is damaged, and made anew from the messages themselves";

/// Bytes of an index at most, by messages: address, length, key, kind and id of a root.
pub(super) const ENTRY_BYTES_MAX: usize = 10 + 5 + 4 + 1 + 16;

/// Bytes of an index before its messages at most.
pub(super) const HEAD_BYTES_MAX: usize = 64;

/// Appends an index and gives its bytes.
pub(super) fn encode(topic: TopicId, number: u64, index: &Index<Place>, to: &mut Vec<u8>) -> usize {
    let start = to.len();
    to.extend_from_slice(&[0, 0, 0, 0, VERSION]);
    to.extend_from_slice(&topic.0.to_le_bytes());
    to.extend_from_slice(&number.to_le_bytes());
    to.extend_from_slice(&index.newest_ms.to_le_bytes());
    to.extend_from_slice(&index.bytes.to_le_bytes());
    let places = || index.entries.iter().filter_map(|entry| entry.handle.at);
    let (mut end, mut length) = (places().next().map_or(0, Location::address), 0);
    to.extend_from_slice(&end.to_le_bytes());
    put(index.entries.len() as u64, to);
    for at in places() {
        put(zigzag(at.address().wrapping_sub(end) as i64), to);
        put(zigzag(at.bytes() as i64 - length), to);
        (end, length) = (at.address() + at.bytes() as u64, at.bytes() as i64);
    }
    let keyed = index.entries.iter().any(|entry| entry.key != 0);
    to.push(u8::from(keyed));
    if keyed {
        index.entries.iter().for_each(|entry| to.extend_from_slice(&entry.key.to_le_bytes()));
    }
    to.extend(index.entries.iter().map(|entry| match (entry.root, entry.sole) {
        (0, _) => 0,
        (_, None) => 1,
        (_, Some(sent)) => sent as u8 + 2,
    }));
    for entry in index.entries.iter().filter(|entry| entry.root != 0) {
        to.extend_from_slice(&entry.root.to_le_bytes());
    }
    let crc = crc32c::crc32c(&to[start + 4..]);
    to[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    to.len() - start
}

/// Reads an index back; a text tells why it is none of this block.
pub(super) fn decode(topic: TopicId, number: u64, bytes: &[u8]) -> Result<Index<Place>, String> {
    let cut = || "an index is cut off".to_owned();
    let (crc, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
        return Err("the index's checksum is wrong".to_owned());
    }
    if rest.len() < 37 || rest.get_u8() != VERSION {
        return Err("an index of a version that this one does not know".to_owned());
    }
    if (TopicId(rest.get_u32_le()), rest.get_u64_le()) != (topic, number) {
        return Err("the index of another block".to_owned());
    }
    let (newest_ms, bytes, mut end) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
    let count = get(&mut rest).filter(|count| *count <= rest.len() as u64).ok_or_else(cut)? as usize;
    let mut entries = Vec::with_capacity(count);
    let mut length = 0_i64;
    for _ in 0..count {
        let address = end.wrapping_add(unzigzag(get(&mut rest).ok_or_else(cut)?) as u64);
        length = length.wrapping_add(unzigzag(get(&mut rest).ok_or_else(cut)?));
        let at = usize::try_from(length).ok().and_then(|length| Location::new(address, length)).ok_or_else(cut)?;
        end = address.wrapping_add(at.bytes() as u64);
        entries.push(Indexed { handle: Place::at(at), key: 0, root: 0, sole: None });
    }
    let keyed = rest.split_off_first().ok_or_else(cut)?;
    if *keyed != 0 {
        if rest.len() < 4 * count {
            return Err(cut());
        }
        entries.iter_mut().for_each(|entry| entry.key = rest.get_u32_le());
    }
    let (kinds, mut rest) = rest.split_at_checked(count).ok_or_else(cut)?;
    for (entry, kind) in entries.iter_mut().zip(kinds).filter(|(_, kind)| **kind != 0) {
        entry.root = rest.try_get_u128_le().map_err(|_| cut())?;
        entry.sole = u32::from(*kind).checked_sub(2);
    }
    Ok(Index { newest_ms, bytes, entries })
}

/// How many messages of an index are in which segment.
pub(super) fn runs(index: &Index<Place>, segment_of: impl Fn(u64) -> u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for at in index.entries.iter().filter_map(|entry| entry.handle.at) {
        let (segment, bytes) = (segment_of(at.address()), at.bytes() as u64);
        match runs.iter_mut().find(|run| run.segment == segment) {
            Some(run) => (run.messages, run.bytes) = (run.messages + 1, run.bytes + bytes),
            None => runs.push(Run { segment, messages: 1, bytes }),
        }
    }
    runs
}

/// Reads the index of a block that lies at this place.
pub(super) fn read(
    topic: TopicId,
    number: u64,
    handle: &Place,
    read: impl FnOnce(u64, usize) -> Result<bytes::Bytes, JournalError>,
) -> Result<Index<Place>, String> {
    let at = handle.at.ok_or("an index that is nowhere")?;
    let bytes = read(at.address(), at.bytes()).map_err(|error| error.to_string())?;
    decode(topic, number, &bytes)
}

/// Reads an index back while the journal is being opened; a text names the place if it cannot.
pub(super) fn replay(reader: &Reader, topic: TopicId, number: u64, handle: &Place) -> Result<Index<Place>, String> {
    read(topic, number, handle, |address, bytes| reader.read(address, bytes)).map_err(|reason| {
        let (file, offset) = reader.place(handle.at.map_or(0, Location::address));
        format!("damaged `{file}` at byte {offset}: {reason}")
    })
}

/// Finds the messages of a block whose index is damaged while the journal is being opened, for this reason.
pub(super) fn find_anew(
    reader: &Reader,
    topic: TopicId,
    number: u64,
    runs: &[Run],
    reason: &str,
) -> Result<Vec<Indexed<Place>>, String> {
    tracing::error!(topic = topic.0, block = number, reason, "{ANEW}");
    let start_of = |segment| reader.start_of(segment);
    let found = anew::find(topic, number, runs, |segment| reader.records_of(segment), start_of);
    found.map_err(|error| format!("{reason}; it cannot be made anew: {error}"))
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn get(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_damage_is_seen() {
        let at = |address, bytes| Place::at(Location::new(address, bytes).unwrap());
        let entry = |handle, key, root, sole| Indexed { handle, key, root, sole };
        let mixed = vec![
            entry(at(1 << 40, 227), 0, 0, None),
            entry(at((1 << 40) + 227, 227), 7, 1 << 100, None),
            entry(at(5, 1 << 20), 0, u128::MAX, Some(0)),
            entry(at(1 << 63, 1), u32::MAX, 3, Some(1)),
        ];
        let plain = (0..512_u64).map(|index| entry(at(100 + index * 227, 227), 0, u128::from(index) + 1, Some(1))).collect();
        for (entries, size) in [(mixed, None), (plain, Some(512 * 19)), (Vec::new(), Some(0))] {
            let index = Index { newest_ms: u64::MAX, bytes: 9, entries };
            let mut bytes = vec![1];
            let taken = encode(TopicId(3), 4, &index, &mut bytes);
            assert_eq!(taken, bytes.len() - 1);
            assert!(taken <= HEAD_BYTES_MAX + index.entries.len() * ENTRY_BYTES_MAX);
            assert!(size.is_none_or(|size: usize| taken.abs_diff(size) < 64), "{taken} bytes");
            assert_eq!(decode(TopicId(3), 4, &bytes[1..]), Ok(index));
            assert!(decode(TopicId(3), 5, &bytes[1..]).is_err() && decode(TopicId(2), 4, &bytes[1..]).is_err());
            for bit in (8..bytes.len() * 8).step_by(7) {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(TopicId(3), 4, &damaged[1..]).is_err(), "bit {bit}");
            }
            for length in 1..bytes.len() {
                assert!(decode(TopicId(3), 4, &bytes[1..length]).is_err(), "{length} bytes");
            }
        }
    }
}
