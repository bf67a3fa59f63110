//! Finds what is there when a journal is opened: the newest whole checkpoint, and every record after it.

use crate::{
    File, FileSystem, JournalError, Lost, Position, Record,
    format::{CheckpointHeader, SEGMENT_HEADER_BYTES, SegmentHeader},
    planted::{self, Bug},
    scan::{End, Scan},
    segment::{self, Segment, segment_name, segment_number},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// The two checkpoint files, written in turn.
pub(crate) const CHECKPOINTS: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// The name of a file that is ready to become a segment.
pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}")
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
    /// The newest checkpoint's generation, 0 if there is none.
    pub(crate) generation: u64,
    /// The file that the next checkpoint must not replace: an older one that is known to be durable, or else the only one.
    pub(crate) kept_checkpoint: Option<usize>,
    pub(crate) snapshot_bytes: usize,
    pub(crate) records: u64,
    /// Records that were told as lost.
    pub(crate) lost: u64,
    /// The place of a record that a crash has interrupted.
    pub(crate) torn: Option<(String, u64)>,
    /// Up to which record it was said that all had been durable.
    pub(crate) synced: u64,
    pub(crate) repair: Repair,
}

/// What the last segment needs before anything is written behind what was found: see [`crate::opening`].
#[derive(Default)]
pub(crate) struct Repair {
    /// Bytes that were accepted, and may be in memory only.
    pub(crate) rewrite: Option<(u64, Bytes)>,
    /// Offsets of records that were cut off.
    pub(crate) cut: Vec<u64>,
    /// The header, if one of the two is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// Where the file ends, if it is too short.
    pub(crate) cut_at: Option<u64>,
}

/// Reads what was appended before, while a journal is being opened.
#[derive(Clone)]
pub struct Reader {
    segment_bytes: u64,
    salt: u64,
    segments: BTreeMap<u64, Arc<dyn File>>,
}

impl Reader {
    /// As [`Journal::records_of`](crate::Journal::records_of).
    ///
    /// # Errors
    /// If there is no such segment, or the disk fails.
    pub fn records_of(&self, segment: u64) -> Result<Vec<(Record, bool)>, JournalError> {
        let missing = || JournalError::damaged(segment_name(segment), 0, "there is no such segment");
        segment::records_of(&**self.segments.get(&segment).ok_or_else(missing)?, segment, self.segment_bytes, self.salt)
    }

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

    /// As [`Journal::place`](crate::Journal::place).
    pub fn place(&self, address: u64) -> (String, u64) {
        (segment_name(address / self.segment_bytes), address % self.segment_bytes)
    }

    /// As [`Journal::start_of`](crate::Journal::start_of).
    pub fn start_of(&self, segment: u64) -> u64 {
        segment * self.segment_bytes
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

    /// Records that had been durable are damaged; called in their place in the order. What follows is visited next if this agrees to go on without them.
    ///
    /// # Errors
    /// A text if it does not agree, which is the default: recovery ends with [`JournalError::Damaged`], and nothing has been changed.
    fn lost(&mut self, lost: Lost) -> Result<(), String> {
        Err(lost.to_string())
    }
}

/// Looks through the directory; `None` if it holds no journal.
pub(crate) fn find(fs: &dyn FileSystem, visitor: &mut dyn Visitor) -> Result<Option<Found>, JournalError> {
    let names = fs.list().map_err(JournalError::io("listing", "."))?;
    let checkpoints = Checkpoints::read(fs, &names, false)?;
    let segments = open_segments(fs, &names, false)?;
    let Some((start, segment_bytes, salt)) = beginning(&checkpoints, &segments)? else { return Ok(None) };
    let files = segments.iter().map(|(number, segment)| (*number, segment.file.clone()));
    visitor.begin(Reader { segment_bytes, salt, segments: files.collect() });
    let newest = checkpoints.newest();
    if let Some(newest) = newest {
        let snapshot = visitor.snapshot(&newest.snapshot);
        snapshot.map_err(|reason| JournalError::damaged(CHECKPOINTS[newest.slot], 0, reason))?;
        // It may be in memory only. If there is no other, it must be durable before another is written.
        newest.file.sync().map_err(JournalError::io("syncing", CHECKPOINTS[newest.slot]))?;
    }
    let End { position: tail, content, unproven, synced, walked } =
        Scan::new(&segments, segment_bytes, salt, start, newest.is_some()).run(visitor)?;
    if walked.lost > 0 && !planted::is(Bug::LostComesBack) {
        make_seen_durable(fs, &names)?;
    }
    let last = tail.address / segment_bytes;
    let mut repair = Repair { cut: walked.cut, ..Repair::default() };
    let offset = tail.address % segment_bytes;
    if unproven < offset {
        repair.rewrite = Some((unproven, content.bytes.slice(unproven as usize..offset as usize)));
    }
    let mut spares: Vec<String> = names.iter().filter(|name| name.starts_with("spare-")).cloned().collect();
    let mut kept = BTreeMap::new();
    for (number, segment) in segments {
        // What lies after the tail is a segment that was about to be begun.
        if number > last {
            spares.push(segment_name(number));
            continue;
        }
        if number == last {
            repair.cut_at = (segment.size < segment_bytes).then_some(segment.size);
            // Where the file was cut, the copy is not where it belongs. What cannot be read cannot be written in part either.
            let flawed = segment.flaws.iter().any(Option::is_some) || segment.size != segment_bytes;
            repair.header = segment.header.filter(|_| flawed && segment.readable_headers == 2);
        }
        kept.insert(number, segment.file);
    }
    Ok(Some(Found {
        segments: kept,
        spares,
        tail,
        segment_bytes,
        salt,
        generation: newest.map_or(0, |newest| newest.header.generation),
        kept_checkpoint: checkpoints.kept(),
        snapshot_bytes: newest.map_or(0, |newest| newest.snapshot.len()),
        synced,
        records: walked.records,
        lost: walked.lost,
        torn: walked.torn,
        repair,
    }))
}

/// Makes all of the journal durable as it was read. What was told as lost may be whole on the disk, behind something that a killed process has written and not synced, such as a checkpoint
/// in the place of one that knew it: a power cut would bring it back among what has happened without it.
fn make_seen_durable(fs: &dyn FileSystem, names: &[String]) -> Result<(), JournalError> {
    let is_read = |name: &&String| segment_number(name).is_some() || CHECKPOINTS.contains(&name.as_str());
    names.iter().filter(is_read).try_for_each(|name| {
        let file = fs.open(name).map_err(JournalError::io("opening", name))?;
        file.sync().map_err(JournalError::io("syncing", name))
    })
}

/// All files that have a segment's name.
pub(crate) fn open_segments(
    fs: &dyn FileSystem,
    names: &[String],
    only_to_read: bool,
) -> Result<BTreeMap<u64, Segment>, JournalError> {
    let numbers = names.iter().filter_map(|name| segment_number(name));
    numbers.map(|number| Ok((number, Segment::open(fs, number, only_to_read)?))).collect()
}

/// Where the walk begins, the size of the segments, and the salt; `None` if there is no journal.
fn beginning(checkpoints: &Checkpoints, segments: &BTreeMap<u64, Segment>) -> Result<Option<(Position, u64, u64)>, JournalError> {
    if let Some(newest) = checkpoints.newest() {
        return Ok(Some((newest.header.position, newest.header.segment_bytes, newest.header.salt)));
    }
    let first = segments.get(&0).and_then(|segment| segment.header).filter(|header| header.first_sequence == 1);
    if let Some(header) = first {
        return Ok(Some((Position::start(header.epoch), header.segment_bytes, header.salt)));
    }
    let damaged = checkpoints.flaws.iter().position(Option::is_some);
    if damaged.is_none() && never_begun(segments)? {
        return Ok(None);
    }
    let reason = "no whole checkpoint, and the segments do not reach back to the first record";
    Err(JournalError::damaged(CHECKPOINTS[damaged.unwrap_or(0)], 0, reason))
}

/// Whether these files are at most a first segment whose making was interrupted: it has no header, and nothing was written behind it.
fn never_begun(segments: &BTreeMap<u64, Segment>) -> Result<bool, JournalError> {
    for segment in segments.values() {
        let bytes = read_all(&*segment.file).map_err(JournalError::io("reading", segment_name(segment.number)))?;
        if segment.header.is_some() || bytes.iter().skip(SEGMENT_HEADER_BYTES as usize).any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A whole checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) slot: usize,
    pub(crate) header: CheckpointHeader,
    snapshot: Bytes,
    file: Arc<dyn File>,
}

/// The checkpoints there are.
#[derive(Default)]
pub(crate) struct Checkpoints {
    pub(crate) whole: Vec<Checkpoint>,
    /// Why one that is there is not taken.
    pub(crate) flaws: [Option<String>; 2],
}

impl Checkpoints {
    pub(crate) fn read(fs: &dyn FileSystem, names: &[String], only_to_read: bool) -> Result<Self, JournalError> {
        let mut all = Self::default();
        for (slot, name) in CHECKPOINTS.iter().enumerate().filter(|(_, name)| names.iter().any(|other| other == *name)) {
            let opened = if only_to_read { fs.open_to_read(name) } else { fs.open(name) };
            let file = opened.map_err(JournalError::io("opening", *name))?;
            // What cannot be read is no checkpoint: the other one serves as well.
            let bytes = read_all(&*file);
            let decoded = bytes.as_ref().ok().and_then(|bytes| {
                let (header, snapshot) = CheckpointHeader::decode(bytes)?;
                Some((header, bytes.slice_ref(snapshot)))
            });
            match (decoded, bytes) {
                (Some((header, snapshot)), _) => all.whole.push(Checkpoint { slot, header, snapshot, file }),
                (None, Ok(_)) => all.flaws[slot] = Some("its checksum is wrong".to_owned()),
                (None, Err(error)) => all.flaws[slot] = Some(format!("cannot be read: {error}")),
            }
        }
        Ok(all)
    }

    pub(crate) fn newest(&self) -> Option<&Checkpoint> {
        self.whole.iter().max_by_key(|checkpoint| checkpoint.header.generation)
    }

    /// The one that the next must not replace. Of two whole ones it is the older: it was durable before the newer one was begun, while the newer one
    /// may be in memory only, if whoever wrote it was killed before it was synced or the sync failed.
    fn kept(&self) -> Option<usize> {
        let oldest = self.whole.iter().min_by_key(|checkpoint| checkpoint.header.generation);
        let kept = if planted::is(Bug::ReplaceDurableCheckpoint) { self.newest() } else { oldest };
        kept.map(|checkpoint| checkpoint.slot)
    }
}

pub(crate) fn read_all(file: &dyn File) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
    file.read_into_zeros(&mut bytes, 0)?;
    Ok(bytes.into())
}
