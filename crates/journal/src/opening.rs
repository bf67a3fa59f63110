//! What happens between finding a journal, or none, and appending to it.

use crate::{
    File, FileSystem, JournalError, Position,
    format::{RECORD_HEADER_BYTES, SegmentHeader, records_end},
    journal::{Checkpoints, Options, Recovered, Shared, Syncing},
    planted::{self, Bug},
    queue::{Queue, Wants},
    recovery::{Found, Repair, spare_name},
    segment::segment_name,
    work::{WRITE_BYTES_MAX, Writer},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, RwLock, atomic::AtomicU64},
};
use tokio::sync::{Notify, watch};

/// The smallest segment: a page, as disks and file systems have it.
const SEGMENT_BYTES_MIN: u64 = 4_096;

/// Prepares an opened or a new journal: from here on its records are told from all before by their epoch.
pub(crate) fn start(
    fs: Arc<dyn FileSystem>,
    options: Options,
    found: Option<Found>,
) -> Result<(Shared, Recovered), JournalError> {
    let found = found.map_or_else(|| create(&*fs, options.segment_bytes), Ok)?;
    let Found { snapshot_bytes, records, lost, .. } = found;
    let recovered = Recovered { records, snapshot_bytes, torn: found.torn, lost };
    let number = found.tail.address / found.segment_bytes;
    let Some(file) = found.segments.get(&number).cloned() else {
        return Err(JournalError::damaged(segment_name(number), 0, "there is no such segment"));
    };
    found.repair.run(&*file, &segment_name(number), found.segment_bytes)?;
    let epoch = found.tail.epoch + 1;
    let (spares, next_spare) = take_spares(&*fs, &found.spares, found.segment_bytes)?;
    let queue = Queue {
        records: VecDeque::new(),
        bytes: 0,
        tail: Position { epoch, ..found.tail },
        spares,
        promised: 0,
        marked_synced: 0,
        wants: Wants::default(),
        next_spare,
        spare_wanted: false,
        full: false,
        making_checkpoint: false,
        checkpoint_failed: false,
        live: BTreeMap::new(),
        lost: found.lost > 0,
        marked: found.tail.address,
        snapshot_bytes: snapshot_bytes as u64,
        compacted: Position::start(0),
        emptied: 0,
        moved_bytes: 0,
        compact_from: 0,
        closing: false,
        duties_ended: false,
    };
    let shared = Shared {
        fs,
        options,
        segment_bytes: found.segment_bytes,
        salt: found.salt,
        epoch,
        queue: Mutex::new(queue),
        to_write: Condvar::new(),
        to_sync: Condvar::new(),
        to_keep: Condvar::new(),
        current: Mutex::new((number, file.clone())),
        segments: RwLock::new(found.segments),
        written: Default::default(),
        written_until: AtomicU64::new(found.tail.address),
        synced: Default::default(),
        room: Notify::new(),
        failure: watch::Sender::new(None),
        writer: Mutex::new(Writer { number, file, buffer: Vec::new() }),
        syncing: Mutex::new(()),
        checkpoints: Mutex::new(Checkpoints {
            generation: found.generation,
            slot: found.kept_checkpoint,
            sequence: 0,
            dead: Vec::new(),
        }),
    };
    // The next record repeats it: whatever said so of a damaged record before may lie where that one comes to lie.
    shared.synced.raise(found.synced);
    shared.open_epoch()?;
    Ok((shared, recovered))
}

impl Repair {
    /// Writes what recovery has accepted once more, erases what it has cut off, and makes the segment whole; the caller syncs it. All of it is what is
    /// there already, so it does not matter how much of it a crash lets through.
    ///
    /// After a failed sync the kernel takes what it could not write for clean: it can be read until the power is cut, and no later sync
    /// writes it. Nor is what a killed process has written and not synced on the disk. So neither may be acknowledged, or be
    /// followed by what is, before it has been written again. What was cut off would stand behind the new records until they reach it,
    /// and if those were damaged, it could be taken for what came next.
    fn run(&self, file: &dyn File, name: &str, segment_bytes: u64) -> Result<(), JournalError> {
        let write = |bytes: &[u8], offset: u64| file.write(bytes, offset).map_err(JournalError::io("writing", name));
        if let Some(size) = self.cut_at {
            let zeros = vec![0; WRITE_BYTES_MAX];
            for offset in (size..segment_bytes).step_by(WRITE_BYTES_MAX) {
                write(&zeros[..(segment_bytes - offset).min(WRITE_BYTES_MAX as u64) as usize], offset)?;
            }
        }
        if let Some(header) = &self.header {
            write(&header.encode(), 0)?;
            write(&header.encode(), records_end(segment_bytes))?;
        }
        if let Some((offset, bytes)) = self.rewrite.as_ref().filter(|_| !planted::is(Bug::TrustThePageCache)) {
            for (index, part) in bytes.chunks(WRITE_BYTES_MAX).enumerate() {
                write(part, offset + (index * WRITE_BYTES_MAX) as u64)?;
            }
        }
        if !planted::is(Bug::KeepCutOff) {
            self.cut.iter().try_for_each(|offset| write(&[0; RECORD_HEADER_BYTES as usize], *offset))?;
        }
        Ok(())
    }
}

/// The segments that are not used, under names that no segment gets, and the number of the last of these names.
fn take_spares(fs: &dyn FileSystem, names: &[String], segment_bytes: u64) -> Result<(VecDeque<String>, u64), JournalError> {
    let number_of = |name: &String| u64::from_str_radix(name.rsplit('-').next().unwrap_or_default(), 16).unwrap_or(0);
    let mut next_spare = names.iter().map(number_of).max().map_or(0, |number| number + 1);
    let mut spares = VecDeque::new();
    for name in names {
        let file = fs.open(name).map_err(JournalError::io("opening", name))?;
        // One that was being made when a crash came is too short.
        if file.size().map_err(JournalError::io("looking at", name))? != segment_bytes {
            fs.remove(name).map_err(JournalError::io("removing", name))?;
            continue;
        }
        file.sync().map_err(JournalError::io("syncing", name))?;
        // A segment that was about to be begun gives its name back: another spare may be the next to get it.
        next_spare += 1;
        let spare = spare_name(next_spare);
        fs.rename(name, &spare).map_err(JournalError::io("renaming", name))?;
        spares.push_back(spare);
    }
    Ok((spares, next_spare))
}

/// A new journal: one segment, synced with its name.
fn create(fs: &dyn FileSystem, segment_bytes: u64) -> Result<Found, JournalError> {
    let segment_bytes = segment_bytes.max(SEGMENT_BYTES_MIN).next_multiple_of(8);
    let salt = fs.salt();
    let name = segment_name(0);
    let file = create_segment(fs, &name, segment_bytes)?;
    let header = SegmentHeader { epoch: 0, number: 0, segment_bytes, first_sequence: 1, salt };
    write_headers(&*file, &header).map_err(JournalError::io("writing", &name))?;
    file.sync().map_err(JournalError::io("syncing", &name))?;
    fs.sync_directory().map_err(JournalError::io("syncing", "."))?;
    Ok(Found {
        segments: BTreeMap::from([(0, file)]),
        spares: Vec::new(),
        tail: Position::start(0),
        segment_bytes,
        salt,
        generation: 0,
        kept_checkpoint: None,
        snapshot_bytes: 0,
        records: 0,
        lost: 0,
        torn: None,
        synced: 0,
        repair: Repair::default(),
    })
}

/// Makes a file for a segment. Its size is durable before anything is written in it, so that one that is shorter later was cut by something else than a
/// crash.
pub(crate) fn create_segment(fs: &dyn FileSystem, name: &str, segment_bytes: u64) -> Result<Arc<dyn File>, JournalError> {
    let file = fs.create(name, segment_bytes).map_err(JournalError::io("creating", name))?;
    file.sync().map_err(JournalError::io("syncing", name))?;
    Ok(file)
}

/// Writes the header at both ends of a segment.
pub(crate) fn write_headers(file: &dyn File, header: &SegmentHeader) -> std::io::Result<()> {
    file.write(&header.encode(), 0)?;
    file.write(&header.encode(), records_end(header.segment_bytes))
}

impl Shared {
    /// Writes and syncs a record that only says the new epoch. Nothing else of this epoch may be written before: if it were lost while a later one
    /// stayed, the next opening would take the same epoch and could mistake the later one for its own.
    fn open_epoch(&self) -> Result<(), JournalError> {
        let lacks_spare = {
            let queue = self.lock();
            // It opens the next segment then, for which there must be a file.
            !queue.fits(RECORD_HEADER_BYTES, self.segment_bytes) && queue.spares.is_empty()
        };
        if lacks_spare {
            self.make_spare()?;
        }
        self.lock().append(Vec::new(), Syncing::Always, self.segment_bytes);
        while self.write_some()? {}
        // With it, whatever was accepted and written again: all of it is in this file, or in one that is synced when it is left.
        self.sync()?;
        if planted::is(Bug::OpenWithoutDirectorySync) {
            return Ok(());
        }
        // A process that was killed while it began a segment, or made a checkpoint, may not have got to this.
        self.fs.sync_directory().map_err(|error| self.fail(JournalError::io("syncing", ".")(error)))
    }
}
