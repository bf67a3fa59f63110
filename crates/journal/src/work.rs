//! What the threads do: writing, syncing, preparing segments, checkpoints. Each piece is a plain function that a test can call.

use crate::{
    File, FileSystem, JournalError, Position,
    format::{CHECKPOINT_HEADER_BYTES, CheckpointHeader, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader},
    journal::{Checkpoints, Mark, Options, Recovered, Shared},
    queue::{QUEUE_BYTES_MAX, Queue, SPARES_READY, Waiting},
    recovery::{CHECKPOINTS, Found, segment_name, spare_name},
};
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// The most bytes of one write. The disk does not get faster beyond a mebibyte, and readers of `written` wait for less.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Spare segments that are kept rather than removed, so that a journal which breathes does not make and remove files.
const SPARES_MAX: usize = 4;

/// How often a full disk is asked again for space for a segment: well below the second within which people expect it to be noticed.
pub(crate) const FULL_RETRY: Duration = Duration::from_millis(200);

/// The smallest segment: a page, as disks and file systems have it.
const SEGMENT_BYTES_MIN: u64 = 4_096;

/// What writes the records.
pub(crate) struct Writer {
    /// The segment that is written.
    number: u64,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
}

/// Prepares an opened or a new journal: from here on its records are told from all before by their epoch.
pub(crate) fn start(
    fs: Arc<dyn FileSystem>,
    options: Options,
    found: Option<Found>,
) -> Result<(Shared, Recovered), JournalError> {
    let found = match found {
        Some(found) => found,
        None => create(&*fs, options.segment_bytes)?,
    };
    let recovered = Recovered { records: found.records, snapshot_bytes: found.snapshot_bytes, torn: found.torn };
    let epoch = found.tail.epoch + 1;
    let (spares, next_spare) = take_spares(&*fs, &found.spares, found.segment_bytes)?;
    let number = found.tail.address / found.segment_bytes;
    let Some(file) = found.segments.get(&number).cloned() else {
        return Err(JournalError::damaged(segment_name(number), 0, "there is no such segment"));
    };
    let queue = Queue {
        records: VecDeque::new(),
        bytes: 0,
        tail: Position { epoch, ..found.tail },
        spares,
        promised: 0,
        next_spare,
        spare_wanted: false,
        full: false,
        checkpoint_failed: false,
        live: BTreeMap::new(),
        marked: found.tail.address,
        snapshot_bytes: found.snapshot_bytes as u64,
        compacted: 0,
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
        synced: Default::default(),
        room: Notify::new(),
        failure: watch::Sender::new(None),
        writer: Mutex::new(Writer { number, file, buffer: Vec::new() }),
        syncing: Mutex::new(()),
        checkpoints: Mutex::new(Checkpoints {
            generation: found.generation,
            slot: found.checkpoint,
            sequence: 0,
            dead: Vec::new(),
        }),
    };
    shared.open_epoch()?;
    Ok((shared, recovered))
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
    // Random enough to be no number that somebody has put in a payload.
    let salt = RandomState::new().hash_one(std::process::id());
    let name = segment_name(0);
    let file = fs.create(&name, segment_bytes).map_err(JournalError::io("creating", &name))?;
    let header = SegmentHeader { epoch: 0, number: 0, segment_bytes, first_sequence: 1, salt };
    file.write(&header.encode(), 0).map_err(JournalError::io("writing", &name))?;
    file.sync().map_err(JournalError::io("syncing", &name))?;
    fs.sync_directory().map_err(JournalError::io("syncing", "."))?;
    Ok(Found {
        segments: BTreeMap::from([(0, file)]),
        spares: Vec::new(),
        tail: Position::start(0),
        segment_bytes,
        salt,
        generation: 0,
        checkpoint: None,
        snapshot_bytes: 0,
        records: 0,
        torn: None,
    })
}

impl Shared {
    /// Writes and syncs a record that only says the new epoch. Nothing else of this epoch may be written before: if it were lost while a later one
    /// stayed, the next opening would take the same epoch and could mistake the later one for its own.
    fn open_epoch(&self) -> Result<(), JournalError> {
        {
            if !self.lock().fits(RECORD_HEADER_BYTES, self.segment_bytes) {
                // It opens the next segment, for which there must be a file.
                self.make_spare()?;
            }
            self.lock().append_opening(self.segment_bytes);
        }
        while self.write_some()? {}
        // What recovery has accepted may have been written and never synced; all of it is in this file, or in one that was synced when it was left.
        self.sync()
    }

    /// Writes one batch of what waits; `false` if nothing does.
    pub(crate) fn write_some(&self) -> Result<bool, JournalError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = self.take_batch();
        let Some((first, last)) = batch.first().zip(batch.last()).map(|(first, last)| (first.address, last.sequence)) else {
            return Ok(false);
        };
        if self.failure.borrow().is_some() {
            return Err(self.ended());
        }
        let result = self.write_batch(&mut writer, &batch, first);
        if let Err(error) = result {
            return Err(self.fail(match error {
                // The space was taken when the segment was made: a file system that has none for it all the same has failed.
                JournalError::Full => {
                    let error = Arc::new(std::io::ErrorKind::StorageFull.into());
                    JournalError::Io { action: "writing", file: segment_name(first / self.segment_bytes), error }
                }
                error => error,
            }));
        }
        self.written.raise(last);
        // Under the lock, so that the syncing thread, which looks under it, is not just about to wait.
        let _queue = self.lock();
        self.to_sync.notify_one();
        Ok(true)
    }

    /// The records that go into one write: up to a limit, and all in one segment.
    fn take_batch(&self) -> Vec<Waiting> {
        let mut queue = self.lock();
        let was_crowded = queue.bytes >= QUEUE_BYTES_MAX;
        let mut batch: Vec<Waiting> = Vec::new();
        let mut bytes = 0;
        while let Some(record) = queue.records.front() {
            let same =
                batch.first().is_none_or(|first| first.address / self.segment_bytes == record.address / self.segment_bytes);
            if !same || bytes >= WRITE_BYTES_MAX {
                break;
            }
            bytes += record.body.len();
            batch.extend(queue.records.pop_front());
        }
        queue.bytes -= bytes;
        if was_crowded {
            self.room.notify_waiters();
        }
        batch
    }

    fn write_batch(&self, writer: &mut Writer, batch: &[Waiting], first: u64) -> Result<(), JournalError> {
        if first / self.segment_bytes != writer.number {
            self.roll(writer, first / self.segment_bytes, batch[0].sequence)?;
        }
        let synced = self.synced.get();
        writer.buffer.clear();
        for Waiting { sequence, address, body } in batch {
            writer.buffer.resize((address - first) as usize, 0);
            let header = RecordHeader::new(self.salt, *sequence, self.epoch, synced, body);
            writer.buffer.extend_from_slice(&header.encode());
            writer.buffer.extend_from_slice(body);
        }
        let write = writer.file.write(&writer.buffer, first % self.segment_bytes);
        // A buffer that one large record has stretched is let go.
        writer.buffer.shrink_to(2 * WRITE_BYTES_MAX);
        write.map_err(JournalError::io("writing", segment_name(writer.number)))
    }

    /// Goes on in the next segment. The one before is synced whole first, so that a segment that is followed by another is never torn.
    fn roll(&self, writer: &mut Writer, number: u64, first_sequence: u64) -> Result<(), JournalError> {
        {
            let _alone = self.sync_alone()?;
            self.sync_segment(writer.number, &*writer.file, first_sequence - 1)?;
        }
        let spare = loop {
            {
                let mut queue = self.lock();
                if let Some(spare) = queue.spares.pop_front() {
                    queue.promised = queue.promised.saturating_sub(1);
                    break spare;
                }
            }
            // Room was promised for this record, so this is a race with a spare that is being made, or a record that was larger than foreseen: the
            // disk being full must not end a journal that has accepted something.
            match self.make_spare() {
                Err(JournalError::Full) if self.options.threads && !self.lock().closing => self.wait_for_space(),
                made => made?,
            }
        };
        let name = segment_name(number);
        let file = self.fs.open(&spare).map_err(JournalError::io("opening", &spare))?;
        self.fs.rename(&spare, &name).map_err(JournalError::io("renaming", &spare))?;
        let header =
            SegmentHeader { epoch: self.epoch, number, segment_bytes: self.segment_bytes, first_sequence, salt: self.salt };
        file.write(&header.encode(), 0).map_err(JournalError::io("writing", &name))?;
        file.sync().map_err(JournalError::io("syncing", &name))?;
        self.fs.sync_directory().map_err(JournalError::io("syncing", "."))?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(number, file.clone());
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (number, file.clone());
        *writer = Writer { number, file, buffer: std::mem::take(&mut writer.buffer) };
        Ok(())
    }

    fn wait_for_space(&self) {
        let mut queue = self.lock();
        queue.full = true;
        self.room.notify_waiters();
        self.to_keep.notify_all();
        drop(self.to_write.wait_timeout(queue, FULL_RETRY).unwrap_or_else(PoisonError::into_inner));
    }

    /// Syncs everything that is written.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        let _alone = self.sync_alone()?;
        // In this order: what is written by now is in this segment or in one that was synced when it was left.
        let written = self.written.get();
        let (number, file) = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.synced.get() >= written {
            true => Ok(()),
            false => self.sync_segment(number, &*file, written),
        }
    }

    /// The right to sync segments. The kernel tells a failed write back to one of those who sync a file at the same time, and the others must not take
    /// their turn for a success.
    fn sync_alone(&self) -> Result<MutexGuard<'_, ()>, JournalError> {
        let alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.failure.borrow().is_some() {
            true => Err(self.ended()),
            false => Ok(alone),
        }
    }

    /// Syncs a segment, and everything up to this sequence with it. Whoever calls it syncs alone.
    fn sync_segment(&self, number: u64, file: &dyn File, sequence: u64) -> Result<(), JournalError> {
        if let Err(error) = file.sync() {
            return Err(self.fail(JournalError::Io { action: "syncing", file: segment_name(number), error: Arc::new(error) }));
        }
        self.synced.raise(sequence);
        Ok(())
    }

    /// Makes spares until there are enough; tells those who wait for room if the disk has none.
    pub(crate) fn prepare_spares(&self) {
        while self.lock().spares_short(self.segment_bytes) {
            let made = self.make_spare();
            self.lock().full = made.is_err();
            self.room.notify_waiters();
            self.to_keep.notify_all();
            match made {
                Ok(()) => {}
                Err(JournalError::Full) => return,
                Err(error) => {
                    self.fail(error);
                    return;
                }
            }
        }
    }

    fn make_spare(&self) -> Result<(), JournalError> {
        let name = {
            let mut queue = self.lock();
            queue.next_spare += 1;
            spare_name(queue.next_spare)
        };
        self.fs.create(&name, self.segment_bytes).map_err(JournalError::io("creating", &name))?;
        let mut queue = self.lock();
        queue.spares.push_back(name);
        if queue.spares.len() >= queue.promised + SPARES_READY {
            queue.spare_wanted = false;
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self, mark: Mark, snapshot: &[u8]) -> Result<(), JournalError> {
        self.sync_up_to(mark.position.sequence - 1)?;
        let mut checkpoints = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if mark.position.sequence < checkpoints.sequence {
            // Another was made of a later state while this one waited, and segments that only this one needs may be gone.
            return Ok(());
        }
        let slot = checkpoints.slot.map_or(0, |slot| 1 - slot);
        let header = CheckpointHeader {
            generation: checkpoints.generation + 1,
            position: mark.position,
            segment_bytes: self.segment_bytes,
            salt: self.salt,
        };
        if let Err(error) = self.write_checkpoint(CHECKPOINTS[slot], &header, snapshot) {
            return match error {
                // The older checkpoint is gone, the newer one stands: nothing is lost, and the next attempt may find space.
                JournalError::Full => {
                    self.lock().checkpoint_failed = true;
                    self.room.notify_waiters();
                    Err(JournalError::Full)
                }
                error => Err(self.fail(error)),
            };
        }
        checkpoints.generation += 1;
        checkpoints.slot = Some(slot);
        checkpoints.sequence = mark.position.sequence;
        self.lock().snapshot_bytes = snapshot.len() as u64;
        let dead = std::mem::replace(&mut checkpoints.dead, mark.dead);
        drop(checkpoints);
        for number in dead {
            if let Err(error) = self.reuse(number) {
                return Err(self.fail(error));
            }
        }
        self.room.notify_waiters();
        Ok(())
    }

    /// Waits until this is synced, by whoever syncs first.
    fn sync_up_to(&self, sequence: u64) -> Result<(), JournalError> {
        while self.written.get() < sequence {
            if !self.write_some()? {
                // The writer has the rest in hand, and gives its lock back when it is written.
                drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner));
                self.alive()?;
            }
        }
        self.sync()
    }

    fn write_checkpoint(&self, name: &str, header: &CheckpointHeader, snapshot: &[u8]) -> Result<(), JournalError> {
        let bytes = (CHECKPOINT_HEADER_BYTES + snapshot.len()) as u64;
        let mut made = self.fs.create(name, bytes);
        while made.as_ref().is_err_and(crate::fs::is_full) {
            // Freeing a spare is what makes a checkpoint possible, and the checkpoint is what frees segments.
            let Some(spare) = self.lock().take_unpromised_spare() else { break };
            self.fs.remove(&spare).map_err(JournalError::io("removing", &spare))?;
            made = self.fs.create(name, bytes);
        }
        let file = made.map_err(JournalError::io("creating", name))?;
        file.write(&header.encode(snapshot), 0).map_err(JournalError::io("writing", name))?;
        file.write(snapshot, CHECKPOINT_HEADER_BYTES as u64).map_err(JournalError::io("writing", name))?;
        file.sync().map_err(JournalError::io("syncing", name))?;
        self.fs.sync_directory().map_err(JournalError::io("syncing", "."))
    }

    /// A segment that holds nothing becomes a spare, or is removed if there are enough.
    fn reuse(&self, number: u64) -> Result<(), JournalError> {
        if self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number).is_none() {
            return Ok(());
        }
        let segment = segment_name(number);
        let spare = {
            let mut queue = self.lock();
            queue.live.remove(&number);
            queue.full = false;
            queue.next_spare += 1;
            (queue.spares.len() < SPARES_MAX.max(SPARES_READY + queue.promised)).then(|| spare_name(queue.next_spare))
        };
        let Some(spare) = spare else {
            return self.fs.remove(&segment).map_err(JournalError::io("removing", segment));
        };
        self.fs.rename(&segment, &spare).map_err(JournalError::io("renaming", segment))?;
        self.lock().spares.push_back(spare);
        Ok(())
    }
}

impl Queue {
    fn append_opening(&mut self, segment_bytes: u64) {
        let (sequence, address) = (self.tail.sequence, self.place(0, segment_bytes));
        self.tail.sequence += 1;
        self.records.push_back(Waiting { sequence, address, body: Vec::new() });
    }

    fn take_unpromised_spare(&mut self) -> Option<String> {
        (self.spares.len() > self.promised).then(|| self.spares.pop_back()).flatten()
    }
}

/// The offset of the first record of a segment.
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(8) && RECORD_HEADER_BYTES.is_multiple_of(8));
