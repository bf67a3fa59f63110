//! The bytes on disk: segment headers, record headers and checkpoint headers. All numbers are little endian.
//!
//! | segment header | bytes | | record header | bytes | | checkpoint header | bytes |
//! |---|---|---|---|---|---|---|---|
//! | magic `LEATSEG2` | 8 | | length of the body | 4 | | magic `LEATCKP2` | 8 |
//! | epoch | 4 | | CRC32C | 4 | | generation | 8 |
//! | zero | 4 | | sequence | 8 | | position: address, sequence | 16 |
//! | number of the segment | 8 | | epoch | 4 | | segment size, salt | 16 |
//! | size of every segment | 8 | | behind | 4 | | length of the snapshot | 8 |
//! | first sequence | 8 | | body, then zeros up to 8 bytes | | | epoch | 4 |
//! | salt | 8 | | | | | CRC32C of header and snapshot | 4 |
//! | zero, CRC32C | 12 + 4 | | | | | snapshot | |
//!
//! A segment begins and ends with its header, so that one damaged sector does not cost what the header says. A record's checksum covers the
//! journal's salt, the record's address in the journal, its header and its body. So bytes of a payload that look like a record are none,
//! what an earlier use of a recycled segment has left is none, since the segment had another number, and a record that the disk has put at a
//! wrong place is none. `behind` says how many records back the last synced one was when this one was written: a later record whose `behind`
//! reaches past a damaged one proves that the damaged one had been synced, so it is damage and not the torn end of what a crash interrupted.
//!
//! Behind the last record there may be a mark: a header without a body, with the sequence of that record and 0 records `behind`. It says that the record is synced, for
//! which nothing else follows while a journal is at rest. It is no record: the next one takes its place, or leaves it behind in a segment that is full.

use crate::Position;

/// Bytes of a segment's header; records begin after it, and end before its copy.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: u64 = 24;

/// Records begin at multiples of this, so that looking for the next record after a damaged one takes an eighth of the steps.
pub(crate) const ALIGN_BYTES: u64 = 8;

/// Bytes of a checkpoint's header.
pub(crate) const CHECKPOINT_HEADER_BYTES: usize = 64;

const SEGMENT_MAGIC: &[u8; 8] = b"LEATSEG2";
const CHECKPOINT_MAGIC: &[u8; 8] = b"LEATCKP2";

/// What the segments of every version begin with, followed by the version.
const SEGMENT_MAGIC_ANY: &[u8] = b"LEATSEG";

/// What a record of this length takes in a segment.
pub(crate) fn record_bytes(body_bytes: usize) -> u64 {
    (RECORD_HEADER_BYTES + body_bytes as u64).next_multiple_of(ALIGN_BYTES)
}

/// Where the records of a segment of this size end: the copy of its header begins there.
pub(crate) fn records_end(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_sub(SEGMENT_HEADER_BYTES)
}

/// The largest body of a record in segments of this size, which is a multiple of 8.
pub(crate) fn body_bytes_max(segment_bytes: u64) -> usize {
    (records_end(segment_bytes) - SEGMENT_HEADER_BYTES - RECORD_HEADER_BYTES) as usize
}

/// Whether these bytes are the header of a segment that another version has written, and not a damaged one of this version.
pub(crate) fn is_other_version(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> bool {
    let other = bytes.starts_with(SEGMENT_MAGIC_ANY) && !bytes.starts_with(SEGMENT_MAGIC);
    other && u32_at(bytes, 60) == crc32c::crc32c(&bytes[..60])
}

/// Zeros behind a body of this length.
fn padding(body_bytes: usize) -> usize {
    body_bytes.next_multiple_of(ALIGN_BYTES as usize) - body_bytes
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) epoch: u32,
    pub(crate) number: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) first_sequence: u64,
    pub(crate) salt: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES as usize)?;
        let valid = &bytes[..8] == SEGMENT_MAGIC && u32_at(bytes, 60) == crc32c::crc32c(&bytes[..60]);
        valid.then(|| Self {
            epoch: u32_at(bytes, 8),
            number: u64_at(bytes, 16),
            segment_bytes: u64_at(bytes, 24),
            first_sequence: u64_at(bytes, 32),
            salt: u64_at(bytes, 40),
        })
    }
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) body_bytes: u32,
    pub(crate) crc: u32,
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) behind: u32,
}

impl RecordHeader {
    /// The header of this body at this address, written when this sequence was the last synced one.
    pub(crate) fn new(salt: u64, address: u64, sequence: u64, epoch: u32, synced: u64, body: &[u8]) -> Self {
        let behind = u32::try_from(sequence.saturating_sub(synced)).unwrap_or(u32::MAX);
        let header = Self { body_bytes: body.len() as u32, crc: 0, sequence, epoch, behind };
        let zeros = &[0; ALIGN_BYTES as usize][..padding(body.len())];
        Self { crc: crc32c::crc32c_append(header.checksum(salt, address, body), zeros), ..header }
    }

    /// The mark at this address that says that everything up to this sequence is synced.
    pub(crate) fn mark(salt: u64, address: u64, synced: u64, epoch: u32) -> Self {
        Self::new(salt, address, synced, epoch, synced, &[])
    }

    /// The sequence that is expected at the place of this: a mark is no record.
    pub(crate) fn expected(&self) -> u64 {
        self.sequence + u64::from(self.behind == 0)
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_BYTES as usize] {
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        bytes[..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[20..].copy_from_slice(&self.behind.to_le_bytes());
        bytes
    }

    /// Reads a header, which may be anything: nothing is checked.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES as usize)?;
        Some(Self {
            body_bytes: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            epoch: u32_at(bytes, 16),
            behind: u32_at(bytes, 20),
        })
    }

    /// Of what is given and the body, which comes with the zeros behind it, so that no byte between two records is left out.
    pub(crate) fn checksum(&self, salt: u64, address: u64, body: &[u8]) -> u32 {
        let mut head = [0; 36];
        head[..8].copy_from_slice(&salt.to_le_bytes());
        head[8..16].copy_from_slice(&address.to_le_bytes());
        head[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        head[28..32].copy_from_slice(&self.epoch.to_le_bytes());
        head[32..].copy_from_slice(&self.behind.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&head), body)
    }

    /// The last sequence that was known to be synced when this record was written; nothing if it was too long ago to say.
    pub(crate) fn synced(&self) -> u64 {
        match self.behind {
            u32::MAX => 0,
            behind => self.sequence.saturating_sub(u64::from(behind)),
        }
    }
}

/// The head of a checkpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) generation: u64,
    pub(crate) position: Position,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u64,
}

impl CheckpointHeader {
    pub(crate) fn encode(&self, snapshot: &[u8]) -> [u8; CHECKPOINT_HEADER_BYTES] {
        let mut bytes = [0; CHECKPOINT_HEADER_BYTES];
        bytes[..8].copy_from_slice(CHECKPOINT_MAGIC);
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.address.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.position.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.salt.to_le_bytes());
        bytes[48..56].copy_from_slice(&(snapshot.len() as u64).to_le_bytes());
        bytes[56..60].copy_from_slice(&self.position.epoch.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..60]), snapshot);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header and the snapshot behind it, if both are whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_at_checked(CHECKPOINT_HEADER_BYTES)?;
        let snapshot = rest.get(..usize::try_from(u64_at(head, 48)).ok()?)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..60]), snapshot);
        let valid = &head[..8] == CHECKPOINT_MAGIC && u32_at(head, 60) == crc;
        let position = Position { address: u64_at(head, 16), sequence: u64_at(head, 24), epoch: u32_at(head, 56) };
        let header = Self { generation: u64_at(head, 8), position, segment_bytes: u64_at(head, 32), salt: u64_at(head, 40) };
        valid.then_some((header, snapshot))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_a_flipped_bit_is_seen() {
        let segment = SegmentHeader { epoch: 3, number: 9, segment_bytes: 1 << 20, first_sequence: 77, salt: 5 };
        let position = Position { address: 1 << 33, sequence: 78, epoch: 3 };
        let checkpoint = CheckpointHeader { generation: 4, position, segment_bytes: 1 << 20, salt: 5 };
        let mut file = checkpoint.encode(b"snapshot").to_vec();
        file.extend_from_slice(b"snapshot");
        assert_eq!(SegmentHeader::decode(&segment.encode()), Some(segment));
        assert_eq!(CheckpointHeader::decode(&file), Some((checkpoint, &b"snapshot"[..])));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CheckpointHeader::decode(&damaged), None, "bit {bit}");
        }
        let record = RecordHeader::new(5, 64, 80, 3, 70, b"body");
        assert_eq!((RecordHeader::decode(&record.encode()), record.synced()), (Some(record), 70));
        // Another journal's, and one at another place.
        assert_ne!(RecordHeader::new(6, 64, 80, 3, 70, b"body").crc, record.crc);
        assert_ne!(RecordHeader::new(5, 72, 80, 3, 70, b"body").crc, record.crc);
    }
}
