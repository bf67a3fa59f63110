//! One segment's file, and its bytes as far as they can be read.

use crate::{
    File, FileSystem, JournalError, Position, Record,
    format::{
        ALIGN_BYTES, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, is_other_version, record_bytes,
        records_end,
    },
    planted::{self, Bug},
};
use bytes::Bytes;
use std::{io, sync::Arc};

/// How much of a segment is compared with zeros at once while records are looked for behind a gap.
const BLOCK_BYTES: u64 = 4_096;

/// How much is read at once where not everything can be: the least that a disk loses.
const SECTOR_BYTES: u64 = 512;

static ZEROS: [u8; (BLOCK_BYTES + RECORD_HEADER_BYTES) as usize] = [0; (BLOCK_BYTES + RECORD_HEADER_BYTES) as usize];

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}")
}

/// The number in a segment's name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix("segment-")?, 16).ok()?;
    // Another spelling of the number would be another file.
    (segment_name(number) == name).then_some(number)
}

/// A file with a segment's name.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    /// What the file has, which is less than a segment's size if it was cut.
    pub(crate) size: u64,
    /// What one of its two headers says; `None` if neither is whole, as in a file that was about to become a segment when a crash came.
    pub(crate) header: Option<SegmentHeader>,
    /// Why the header at the beginning, and the one at the end, are not taken.
    pub(crate) flaws: [Option<String>; 2],
    /// One of them is whole and another segment's: the file was about to be used again.
    pub(crate) recycled: bool,
    /// How many of the headers can be read.
    pub(crate) readable_headers: usize,
    /// Neither header can be read, so that nobody can know whether the segment was begun.
    pub(crate) unreadable: Option<Arc<io::Error>>,
}

impl Segment {
    /// Opens it and reads its headers.
    pub(crate) fn open(fs: &dyn FileSystem, number: u64, only_to_read: bool) -> Result<Self, JournalError> {
        let name = segment_name(number);
        let opened = if only_to_read { fs.open_to_read(&name) } else { fs.open(&name) };
        let file = opened.map_err(JournalError::io("opening", &name))?;
        let size = file.size().map_err(JournalError::io("looking at", &name))?;
        let mut header: Option<SegmentHeader> = None;
        let offsets = [0, records_end(size)];
        let mut flaws = [None, None];
        let (mut errors, mut recycled) = (Vec::new(), false);
        for (offset, flaw) in offsets.into_iter().zip(&mut flaws) {
            let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
            if let Err(error) = file.read(&mut bytes, offset) {
                *flaw = Some(format!("its header cannot be read: {error}"));
                errors.push(error);
                continue;
            }
            if offset == 0 && is_other_version(&bytes) {
                return Err(JournalError::damaged(name, 0, "another version of Leatworks has written it"));
            }
            let decoded = SegmentHeader::decode(&bytes);
            // A recycled file has its old headers until the new ones are durable.
            recycled |= decoded.is_some_and(|header| header.number != number);
            match decoded.filter(|header| header.number == number) {
                Some(found) if header.is_some_and(|header| header.epoch >= found.epoch) => {}
                Some(found) => header = Some(found),
                None => *flaw = Some("its header is damaged".to_owned()),
            }
        }
        let readable_headers = 2 - errors.len();
        let unreadable = errors.pop().filter(|_| !errors.is_empty()).map(Arc::new);
        Ok(Self { number, file, size, header, flaws, recycled, readable_headers, unreadable })
    }

    /// Reads it all, with zeros for what is not there or cannot be read.
    pub(crate) fn read(&self, segment_bytes: u64, salt: u64) -> Content {
        Content::read(&*self.file, self.size, self.number, segment_bytes, salt)
    }
}

/// The records of a segment, in order, and whether each is whole. One that is not has the place and the length that its header says, if those lead on from the record
/// before; nothing else of it is certain.
pub(crate) fn records_of(
    file: &dyn File,
    number: u64,
    segment_bytes: u64,
    salt: u64,
) -> Result<Vec<(Record, bool)>, JournalError> {
    let size = file.size().map_err(JournalError::io("looking at", segment_name(number)))?;
    let content = Content::read(file, size, number, segment_bytes, salt);
    let any = Position { address: 0, sequence: 1, epoch: 0 };
    let record = |offset: u64, header: &RecordHeader| Record {
        sequence: header.sequence,
        address: content.address(offset) + RECORD_HEADER_BYTES,
        body: content.body(offset, header),
    };
    let mut records = Vec::new();
    let mut from = SEGMENT_HEADER_BYTES;
    for (offset, header) in content.later(SEGMENT_HEADER_BYTES, any) {
        while from < offset {
            let Some(damaged) = content.header(from).filter(|header| header.body_bytes > 0) else { break };
            records.push((record(from, &damaged), false));
            from += record_bytes(damaged.body_bytes as usize);
        }
        records.push((record(offset, &header), true));
        from = offset + record_bytes(header.body_bytes as usize);
    }
    // The last may be damaged too.
    if let Some(damaged) = content.header(from).filter(|header| header.body_bytes > 0) {
        records.push((record(from, &damaged), false));
    }
    records.retain(|(record, _)| !record.body.is_empty());
    Ok(records)
}

/// The bytes of a segment.
pub(crate) struct Content {
    pub(crate) number: u64,
    segment_bytes: u64,
    salt: u64,
    pub(crate) bytes: Bytes,
    /// What is really there: 0 if there is no such file.
    pub(crate) size: u64,
    /// What cannot be read, with the reason.
    unreadable: Vec<(std::ops::Range<u64>, Arc<io::Error>)>,
}

impl Content {
    /// Reads a segment's file of this size, with zeros for what is not there or cannot be read.
    fn read(file: &dyn File, size: u64, number: u64, segment_bytes: u64, salt: u64) -> Self {
        let mut bytes = vec![0; segment_bytes as usize];
        let size = size.min(segment_bytes);
        let mut unreadable = Vec::new();
        if file.read_into_zeros(&mut bytes[..size as usize], 0).is_err() {
            for start in (0..size).step_by(SECTOR_BYTES as usize) {
                let end = (start + SECTOR_BYTES).min(size);
                let block = &mut bytes[start as usize..end as usize];
                if let Err(error) = file.read(block, start) {
                    block.fill(0);
                    unreadable.push((start..end, Arc::new(error)));
                }
            }
        }
        Self { number, segment_bytes, salt, bytes: bytes.into(), size, unreadable }
    }

    /// What a segment holds that is not there.
    pub(crate) fn missing(number: u64, segment_bytes: u64, salt: u64) -> Self {
        let bytes = vec![0; segment_bytes as usize].into();
        Self { number, segment_bytes, salt, bytes, size: 0, unreadable: Vec::new() }
    }

    /// Where its records end.
    pub(crate) fn end(&self) -> u64 {
        records_end(self.segment_bytes)
    }

    /// The place in the journal of an offset in this segment.
    pub(crate) fn address(&self, offset: u64) -> u64 {
        self.number * self.segment_bytes + offset
    }

    /// Why something from this offset on cannot be read.
    pub(crate) fn unreadable(&self, range: std::ops::Range<u64>) -> Option<&Arc<io::Error>> {
        let within = |(other, _): &&(std::ops::Range<u64>, _)| other.start < range.end && range.start < other.end;
        self.unreadable.iter().find(within).map(|(_, error)| error)
    }

    /// The header of the record that should be at this offset; nothing of it is checked but that the record would fit.
    pub(crate) fn header(&self, offset: u64) -> Option<RecordHeader> {
        let header = RecordHeader::decode(self.bytes.get(usize::try_from(offset).ok()?..self.end() as usize)?)?;
        (offset + RECORD_HEADER_BYTES + u64::from(header.body_bytes) <= self.end()).then_some(header)
    }

    /// The body behind a header.
    pub(crate) fn body(&self, offset: u64, header: &RecordHeader) -> Bytes {
        let start = (offset + RECORD_HEADER_BYTES) as usize;
        self.bytes.slice(start..start + header.body_bytes as usize)
    }

    /// The whole record at this offset, if there is one.
    pub(crate) fn record(&self, offset: u64) -> Option<RecordHeader> {
        let header = self.header(offset)?;
        let start = (offset + RECORD_HEADER_BYTES) as usize;
        let body = &self.bytes[start..(offset + record_bytes(header.body_bytes as usize)) as usize];
        let whole = header.checksum(self.salt, self.address(offset), body) == header.crc;
        let unchecked = planted::is(Bug::IgnoreChecksum) && header.body_bytes > 0 && header.behind > 0;
        (header.sequence > 0 && (whole || unchecked)).then_some(header)
    }

    /// The whole records that follow this place in the journal, from this offset on: they have a later sequence, though not by more than there is
    /// space for records between, and no earlier epoch. So bytes of a payload are told from a header without their checksum being computed.
    pub(crate) fn later(&self, from: u64, place: Position) -> impl Iterator<Item = (u64, RecordHeader)> + use<'_> {
        let Position { sequence, epoch, address } = place;
        let end = self.end().saturating_sub(RECORD_HEADER_BYTES - 1);
        // Most of a segment that is not full is zeros. Comparing them in blocks is some hundred times faster than looking for a header at each offset.
        let written = move |start: &u64| {
            let block = &self.bytes[*start as usize..(*start + BLOCK_BYTES + RECORD_HEADER_BYTES).min(self.end()) as usize];
            block != &ZEROS[..block.len()]
        };
        let blocks = (from..end).step_by(BLOCK_BYTES as usize).filter(written);
        let offsets = blocks.flat_map(move |start| (start..(start + BLOCK_BYTES).min(end)).step_by(ALIGN_BYTES as usize));
        offsets.filter_map(move |offset| {
            let header = self.header(offset)?;
            let most = sequence + self.address(offset).saturating_sub(address) / RECORD_HEADER_BYTES;
            let later = (sequence..=most).contains(&header.sequence) && header.epoch >= epoch;
            (later && self.record(offset).is_some()).then_some((offset, header))
        })
    }
}
