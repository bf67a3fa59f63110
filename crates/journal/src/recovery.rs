//! Finds what is there when a journal is opened: the newest whole checkpoint, and every record after it.

use crate::{
    File, FileSystem, JournalError, Position, Record,
    format::{
        ALIGN_BYTES, CheckpointHeader, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
    },
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// The two checkpoint files, written in turn.
pub(crate) const CHECKPOINTS: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// How much of a segment is compared with zeros at once while records are looked for behind the last one.
const SCAN_BLOCK_BYTES: u64 = 4_096;

static ZEROS: [u8; (SCAN_BLOCK_BYTES + RECORD_HEADER_BYTES) as usize] = [0; (SCAN_BLOCK_BYTES + RECORD_HEADER_BYTES) as usize];

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}")
}

/// The name of a file that is ready to become a segment.
pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}")
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok()
}

/// What was found.
pub(crate) struct Found {
    pub(crate) segments: BTreeMap<u64, Arc<dyn File>>,
    /// Files that hold nothing, by name.
    pub(crate) spares: Vec<String>,
    /// Where the next record goes.
    pub(crate) tail: Position,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u64,
    /// The newest checkpoint's generation, 0 if there is none, and the file it is in.
    pub(crate) generation: u64,
    pub(crate) checkpoint: Option<usize>,
    pub(crate) snapshot_bytes: usize,
    pub(crate) records: u64,
    /// The place of a record that a crash has interrupted.
    pub(crate) torn: Option<(String, u64)>,
}

/// Reads what was appended before, while a journal is being opened.
#[derive(Clone)]
pub struct Reader {
    segment_bytes: u64,
    segments: BTreeMap<u64, Arc<dyn File>>,
}

impl Reader {
    /// As [`Journal::read`](crate::Journal::read).
    ///
    /// # Errors
    /// If there is no such place, or the disk fails.
    pub fn read(&self, address: u64, bytes: usize) -> Result<Bytes, JournalError> {
        let (number, offset) = (address / self.segment_bytes, address % self.segment_bytes);
        let name = segment_name(number);
        let file = self.segments.get(&number).ok_or_else(|| JournalError::damaged(&name, offset, "there is no such segment"))?;
        let mut buffer = vec![0; bytes];
        file.read(&mut buffer, offset).map_err(JournalError::io("reading", &name))?;
        Ok(buffer.into())
    }

    /// As [`Journal::segment_of`](crate::Journal::segment_of).
    pub fn segment_of(&self, address: u64) -> u64 {
        address / self.segment_bytes
    }
}

/// Takes what recovery finds.
pub trait Visitor {
    /// Called first, once: with this the visitor may read what the snapshot and the records refer to.
    fn begin(&mut self, reader: Reader) {
        drop(reader);
    }

    /// The state as a checkpoint holds it; called at most once, before any record.
    ///
    /// # Errors
    /// A text if it cannot be understood: recovery ends.
    fn snapshot(&mut self, snapshot: &[u8]) -> Result<(), String>;

    /// One record, in order.
    ///
    /// # Errors
    /// A text if it cannot be understood: recovery ends.
    fn record(&mut self, record: Record) -> Result<(), String>;
}

/// Looks through the directory; `None` if it holds no journal.
pub(crate) fn find(fs: &dyn FileSystem, visitor: &mut dyn Visitor) -> Result<Option<Found>, JournalError> {
    let names = fs.list().map_err(JournalError::io("listing", "."))?;
    let (checkpoint, damaged) = newest_checkpoint(fs, &names)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, "segment-")).collect();
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for number in numbers {
        let name = segment_name(number);
        let file = fs.open(&name).map_err(JournalError::io("opening", &name))?;
        segments.push((number, file.clone(), read_header(&*file, &name)?.filter(|header| header.number == number)));
    }
    let first =
        segments.iter().find_map(|(number, _, header)| header.filter(|header| *number == 0 && header.first_sequence == 1));
    let (start, segment_bytes, salt) = match (&checkpoint, first) {
        (Some((_, header, _)), _) => (header.position, header.segment_bytes, header.salt),
        (None, Some(header)) => (Position::start(header.epoch), header.segment_bytes, header.salt),
        (None, None) if damaged.is_none() && never_begun(&segments)? => return Ok(None),
        (None, None) => {
            let name = damaged.unwrap_or(CHECKPOINTS[0]);
            return Err(JournalError::damaged(
                name,
                0,
                "no whole checkpoint, and the segments do not reach back to the first record",
            ));
        }
    };
    visitor.begin(Reader { segment_bytes, segments: segments.iter().map(|(number, file, _)| (*number, file.clone())).collect() });
    let mut scan = Scan { segments: &segments, segment_bytes, salt, position: start, records: 0, torn: None };
    let snapshot_bytes = checkpoint.as_ref().map_or(0, |(_, _, snapshot)| snapshot.len());
    if let Some((slot, _, snapshot)) = &checkpoint {
        visitor.snapshot(snapshot).map_err(|reason| JournalError::damaged(CHECKPOINTS[*slot], 0, reason))?;
    }
    scan.run(visitor)?;
    let (tail, records, torn) = (scan.position, scan.records, scan.torn);
    let mut spares: Vec<String> = names.iter().filter(|name| name.starts_with("spare-")).cloned().collect();
    let mut kept = BTreeMap::new();
    for (number, file, _) in segments {
        // What lies after the tail is a segment that was about to be begun.
        match number <= tail.address / segment_bytes {
            true => _ = kept.insert(number, file),
            false => spares.push(segment_name(number)),
        }
    }
    let (generation, slot) = checkpoint.map_or((0, None), |(slot, header, _)| (header.generation, Some(slot)));
    Ok(Some(Found {
        segments: kept,
        spares,
        tail,
        segment_bytes,
        salt,
        generation,
        checkpoint: slot,
        snapshot_bytes,
        records,
        torn,
    }))
}

type Segment = (u64, Arc<dyn File>, Option<SegmentHeader>);

/// Whether these files are at most a first segment whose making was interrupted: it has no header, and nothing was written behind it.
fn never_begun(segments: &[Segment]) -> Result<bool, JournalError> {
    for (number, file, header) in segments {
        let bytes = read_all(&**file).map_err(JournalError::io("reading", segment_name(*number)))?;
        if header.is_some() || bytes.iter().skip(SEGMENT_HEADER_BYTES as usize).any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

type Checkpoint = (usize, CheckpointHeader, Bytes);

/// The newest whole checkpoint, and the name of a damaged one.
fn newest_checkpoint(fs: &dyn FileSystem, names: &[String]) -> Result<(Option<Checkpoint>, Option<&'static str>), JournalError> {
    let mut newest: Option<Checkpoint> = None;
    let mut damaged = None;
    for (slot, name) in CHECKPOINTS.iter().enumerate().filter(|(_, name)| names.iter().any(|other| other == *name)) {
        let file = fs.open(name).map_err(JournalError::io("opening", *name))?;
        // What cannot be read is no checkpoint: the other one serves as well.
        let bytes = read_all(&*file).unwrap_or_default();
        match CheckpointHeader::decode(&bytes) {
            Some((header, snapshot)) => {
                if newest.as_ref().is_none_or(|(_, other, _)| other.generation < header.generation) {
                    newest = Some((slot, header, bytes.slice_ref(snapshot)));
                }
            }
            None => damaged = Some(*name),
        }
    }
    Ok((newest, damaged))
}

fn read_all(file: &dyn File) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
    file.read(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// The header of a segment; `None` if there is none, as in a file that was about to become a segment when a crash came.
fn read_header(file: &dyn File, name: &str) -> Result<Option<SegmentHeader>, JournalError> {
    let size = file.size().map_err(JournalError::io("looking at", name))?;
    if size < SEGMENT_HEADER_BYTES {
        return Ok(None);
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    file.read(&mut bytes, 0).map_err(JournalError::io("reading", name))?;
    Ok(SegmentHeader::decode(&bytes).filter(|header| header.segment_bytes == size))
}

/// A walk over the records.
struct Scan<'a> {
    segments: &'a [Segment],
    segment_bytes: u64,
    salt: u64,
    /// Where the next record is expected, its sequence, and the epoch of the one before.
    position: Position,
    records: u64,
    torn: Option<(String, u64)>,
}

impl Scan<'_> {
    fn run(&mut self, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        loop {
            let number = self.position.address / self.segment_bytes;
            let name = segment_name(number);
            let Some((_, file, Some(header))) = self.segments.iter().find(|(other, ..)| *other == number) else {
                return Err(JournalError::damaged(name, 0, "missing, or its header is damaged"));
            };
            if header.salt != self.salt {
                return Err(JournalError::damaged(name, 0, "belongs to another journal"));
            }
            self.position.epoch = self.position.epoch.max(header.epoch);
            let bytes = read_all(&**file).map_err(JournalError::io("reading", &name))?;
            self.records_of(&bytes, &name, visitor)?;
            if !self.enter_next(number, &bytes, &name)? {
                return Ok(());
            }
        }
    }

    /// Visits the records of one segment up to the first place where there is none.
    fn records_of(&mut self, bytes: &Bytes, name: &str, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        loop {
            let offset = self.position.address % self.segment_bytes;
            let expected =
                |header: &RecordHeader| header.sequence == self.position.sequence && header.epoch >= self.position.epoch;
            let Some((header, body)) = record_at(bytes, offset, self.salt).filter(|(header, _)| expected(header)) else {
                return Ok(());
            };
            // A record without a body only says that the journal was opened.
            if !body.is_empty() {
                let record = Record {
                    sequence: header.sequence,
                    address: self.position.address + RECORD_HEADER_BYTES,
                    body: bytes.slice_ref(body),
                };
                self.records += 1;
                visitor.record(record).map_err(|reason| JournalError::damaged(name, offset, reason))?;
            }
            self.position.epoch = header.epoch;
            self.position.sequence += 1;
            self.position.address += record_bytes(body.len());
        }
    }

    /// Goes on to the next segment, if this one was left for it. Decides whether what follows the last record is the torn end of what a crash interrupted,
    /// or damage.
    fn enter_next(&mut self, number: u64, bytes: &Bytes, name: &str) -> Result<bool, JournalError> {
        let expected = self.position.sequence;
        let later = |(other, _, header): &&Segment| {
            *other > number && header.is_some_and(|header| header.epoch >= self.position.epoch && header.salt == self.salt)
        };
        let next = self.segments.iter().find(later).and_then(|(other, _, header)| Some((*other, (*header)?)));
        let offset = self.position.address % self.segment_bytes;
        match next {
            // A segment is synced whole before the next one is begun, so one that is cut short before another has lost something.
            Some((_, header)) if header.first_sequence > expected => {
                let reason = format!("records {expected} to {} are missing", header.first_sequence - 1);
                Err(JournalError::damaged(name, offset, reason))
            }
            Some((other, header)) if other == number + 1 && header.first_sequence == expected => {
                self.position.address = other * self.segment_bytes + SEGMENT_HEADER_BYTES;
                Ok(true)
            }
            _ => {
                self.check_torn(bytes, offset, name)?;
                self.check_unbegun(number)?;
                Ok(false)
            }
        }
    }

    /// A segment after the last that has no header was about to be begun, unless there are records in it: they are only written when the header is
    /// durable.
    fn check_unbegun(&self, last: u64) -> Result<(), JournalError> {
        for (number, file, _) in self.segments.iter().filter(|(number, ..)| *number > last) {
            let name = segment_name(*number);
            let bytes = read_all(&**file).map_err(JournalError::io("reading", &name))?;
            if let Some((offset, header)) = self.later_records(&bytes, 0).next() {
                let reason = format!("its header is damaged: record {} at byte {offset} is behind it", header.sequence);
                return Err(JournalError::damaged(name, 0, reason));
            }
        }
        Ok(())
    }

    /// The whole records that follow the last one, wherever they are from this offset on.
    fn later_records<'b>(&self, bytes: &'b Bytes, from: u64) -> impl Iterator<Item = (u64, RecordHeader)> + use<'b> {
        let (Position { sequence, epoch, .. }, salt) = (self.position, self.salt);
        let end = (bytes.len() as u64).saturating_sub(RECORD_HEADER_BYTES);
        // Most of a segment that is not full is zeros. Comparing them in blocks is some hundred times faster than looking for a header at each offset.
        let written = move |start: &u64| {
            let block =
                &bytes[*start as usize..(*start + SCAN_BLOCK_BYTES + RECORD_HEADER_BYTES).min(bytes.len() as u64) as usize];
            block != &ZEROS[..block.len()]
        };
        let blocks = (from..end).step_by(SCAN_BLOCK_BYTES as usize).filter(written);
        let offsets = blocks.flat_map(move |start| (start..(start + SCAN_BLOCK_BYTES).min(end)).step_by(ALIGN_BYTES as usize));
        offsets.filter_map(move |offset| {
            let header = RecordHeader::decode(&bytes[offset as usize..])?;
            let ours = header.sequence >= sequence && header.epoch >= epoch;
            (ours && record_at(bytes, offset, salt).is_some()).then_some((offset, header))
        })
    }

    fn check_torn(&mut self, bytes: &Bytes, from: u64, name: &str) -> Result<(), JournalError> {
        let begun = RecordHeader::decode(&bytes[from as usize..]);
        if begun.is_some_and(|header| header.sequence == self.position.sequence && header.epoch >= self.position.epoch) {
            self.torn = Some((name.to_owned(), from));
        }
        for (_, header) in self.later_records(bytes, from) {
            self.torn = Some((name.to_owned(), from));
            if header.synced() >= self.position.sequence {
                let reason =
                    format!("record {} is damaged: record {} says that it was durable", self.position.sequence, header.sequence);
                return Err(JournalError::damaged(name, from, reason));
            }
        }
        Ok(())
    }
}

/// The whole record at this offset, if there is one.
pub(crate) fn record_at(bytes: &[u8], offset: u64, salt: u64) -> Option<(RecordHeader, &[u8])> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let header = RecordHeader::decode(rest)?;
    let body = rest.get(RECORD_HEADER_BYTES as usize..)?.get(..header.body_bytes as usize)?;
    (header.sequence > 0 && header.checksum(salt, body) == header.crc).then_some((header, body))
}
