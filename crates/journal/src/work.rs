//! What the threads do: writing, syncing, preparing segments, checkpoints. Each piece is a plain function that a test can call.

use crate::{
    File, JournalError,
    format::{
        ALIGN_BYTES, CHECKPOINT_HEADER_BYTES, CheckpointHeader, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
        SegmentHeader,
    },
    journal::{Mark, Shared, Work},
    opening::{create_segment, write_headers},
    planted::{self, Bug},
    queue::{QUEUE_BYTES_MAX, Queue, SPARES_READY, Waiting},
    recovery::{CHECKPOINTS, spare_name},
    segment::segment_name,
};
use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

/// The most bytes of one write. The disk does not get faster beyond a mebibyte, and readers of `written` wait for less.
pub(crate) const WRITE_BYTES_MAX: usize = 1 << 20;

/// Spare segments that are kept rather than removed, so that a journal which breathes does not make and remove files.
const SPARES_MAX: usize = 6;

/// What part of the bytes that are appended between two checkpoints the file of one has at least as space for its growth.
const CHECKPOINT_SPACE_PART: u64 = 32;

/// The same at most. A pending message takes about 15 bytes of a snapshot, and at least 60 of a record.
const CHECKPOINT_GROWTH_PART: u64 = 4;

/// A checkpoint's file that is so many times larger than it would be made is made anew: a large backlog has passed.
const CHECKPOINT_SHRINK: u64 = 4;

/// How often a full disk is asked again for space for a segment: well below the second within which people expect it to be noticed.
pub(crate) const FULL_RETRY: Duration = Duration::from_millis(200);

/// What writes the records.
pub(crate) struct Writer {
    /// The segment that is written.
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) buffer: Vec<u8>,
}

impl Shared {
    /// Writes one batch of what waits; `false` if nothing does.
    pub(crate) fn write_some(&self) -> Result<bool, JournalError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = self.take_batch();
        let Some((first, last, end)) = batch
            .first()
            .zip(batch.last())
            .map(|(first, last)| (first.address, last.sequence, last.address + RECORD_HEADER_BYTES + last.body.len() as u64))
        else {
            return Ok(false);
        };
        if self.failure.borrow().is_some() {
            return Err(self.ended());
        }
        self.write_batch(&mut writer, &batch, first).map_err(|error| self.write_failed(error, first))?;
        self.written_until.store(end, Ordering::Release);
        self.written.raise(last);
        if planted::is(Bug::AcknowledgeBeforeSync) {
            self.synced.raise(last);
        }
        // Under the lock, so that the syncing thread, which looks under it, is not just about to wait.
        let (mut queue, synced) = (self.lock(), self.synced.get());
        batch.iter().for_each(|record| queue.wants.add(record.sequence, record.syncing, synced));
        // The owner syncs what wants it at once.
        if self.options.work != Work::Owner || queue.wants.wait(Duration::ZERO, synced).is_some_and(|wait| !wait.is_zero()) {
            self.to_sync.notify_one();
        }
        Ok(true)
    }

    fn write_failed(&self, error: JournalError, address: u64) -> JournalError {
        self.fail(match error {
            // The space was taken when the segment was made: a file system that has none for it all the same has failed.
            JournalError::Full => {
                let error = Arc::new(std::io::ErrorKind::StorageFull.into());
                JournalError::Io { action: "writing", file: segment_name(address / self.segment_bytes), error }
            }
            error => error,
        })
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
        let synced = if planted::is(Bug::WrongBehind) { batch[0].sequence - 1 } else { self.synced.get() };
        let dropped = if planted::is(Bug::DropLastOfBatch) && batch.len() > 1 { 1 } else { 0 };
        writer.buffer.clear();
        for Waiting { sequence, address, body, .. } in &batch[..batch.len() - dropped] {
            writer.buffer.resize((address - first) as usize, 0);
            let header = RecordHeader::new(self.salt, *address, *sequence, self.epoch, synced, body);
            writer.buffer.extend_from_slice(&header.encode());
            writer.buffer.extend_from_slice(body);
        }
        // The segment may have been used before, and the zeros behind the last record count.
        writer.buffer.resize(writer.buffer.len().next_multiple_of(ALIGN_BYTES as usize), 0);
        let write = writer.file.write(&writer.buffer, first % self.segment_bytes);
        // A buffer that one large record has stretched is let go.
        writer.buffer.shrink_to(2 * WRITE_BYTES_MAX);
        write.map_err(JournalError::io("writing", segment_name(writer.number)))
    }

    /// Goes on in the next segment. The one before is synced whole first, so that a segment that is followed by another is never torn.
    fn roll(&self, writer: &mut Writer, number: u64, first_sequence: u64) -> Result<(), JournalError> {
        if !planted::is(Bug::RollWithoutSegmentSync) {
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
                Err(JournalError::Full) if self.options.work != Work::Driven && !self.lock().closing => self.wait_for_space(),
                made => made?,
            }
        };
        let name = segment_name(number);
        let file = self.fs.open(&spare).map_err(JournalError::io("opening", &spare))?;
        self.fs.rename(&spare, &name).map_err(JournalError::io("renaming", &spare))?;
        let header =
            SegmentHeader { epoch: self.epoch, number, segment_bytes: self.segment_bytes, first_sequence, salt: self.salt };
        write_headers(&*file, &header).map_err(JournalError::io("writing", &name))?;
        file.sync().map_err(JournalError::io("syncing", &name))?;
        if !planted::is(Bug::RollWithoutDirectorySync) {
            self.fs.sync_directory().map_err(JournalError::io("syncing", "."))?;
        }
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

    /// Writes a mark that says that everything before it is synced, if it is and nothing says so, so that damage of the last records is not taken for a torn
    /// end. It takes no sequence and no place: the next record is written over it. It asks for no sync: the kernel writes it some time, and if it is lost nobody
    /// misses it.
    pub(crate) fn mark_synced(&self) -> Result<(), JournalError> {
        // Whatever is appended from here on is written when this is.
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = {
            let mut queue = self.lock();
            let synced = if planted::is(Bug::MarkBeforeSync) { self.written.get() } else { self.synced.get() };
            if !queue.can_mark(synced, self.segment_bytes) || queue.tail.address / self.segment_bytes != writer.number {
                return Ok(());
            }
            queue.marked_synced = queue.tail.sequence - 1;
            queue.tail
        };
        if self.failure.borrow().is_some() {
            return Err(self.ended());
        }
        let mark = RecordHeader::mark(self.salt, tail.address, tail.sequence - 1, self.epoch);
        let written = writer.file.write(&mark.encode(), tail.address % self.segment_bytes);
        written
            .map_err(JournalError::io("writing", segment_name(writer.number)))
            .map_err(|error| self.write_failed(error, tail.address))
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
            if planted::is(Bug::RetryFailedSync) && file.sync().is_ok() {
                self.synced.raise(sequence);
                return Ok(());
            }
            return Err(self.fail(JournalError::Io { action: "syncing", file: segment_name(number), error: Arc::new(error) }));
        }
        self.synced.raise(sequence);
        Ok(())
    }

    /// Makes spares until there are enough; tells those who wait for room if the disk has none.
    pub(crate) fn prepare_spares(&self) {
        while self.failure.borrow().is_none() && self.lock().spares_short(self.segment_bytes) {
            let made =
                if planted::is(Bug::FullForEver) && self.lock().full { Err(JournalError::Full) } else { self.make_spare() };
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

    pub(crate) fn make_spare(&self) -> Result<(), JournalError> {
        let name = {
            let mut queue = self.lock();
            queue.next_spare += 1;
            spare_name(queue.next_spare)
        };
        create_segment(&*self.fs, &name, self.segment_bytes)?;
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
        let mut position = mark.position;
        if planted::is(Bug::CheckpointOneTooFar) {
            position.sequence += 1;
        }
        let header = CheckpointHeader {
            generation: checkpoints.generation + 1,
            position,
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
        let mut dead = std::mem::replace(&mut checkpoints.dead, mark.dead);
        if planted::is(Bug::ReuseTooEarly) {
            dead.append(&mut checkpoints.dead);
        }
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
        let file = self.checkpoint_file(name, (CHECKPOINT_HEADER_BYTES + snapshot.len()) as u64)?;
        file.write(&header.encode(snapshot), 0).map_err(JournalError::io("writing", name))?;
        file.write(snapshot, CHECKPOINT_HEADER_BYTES as u64).map_err(JournalError::io("writing", name))?;
        if !planted::is(Bug::CheckpointWithoutSync) {
            file.sync().map_err(JournalError::io("syncing", name))?;
        }
        self.fs.sync_directory().map_err(JournalError::io("syncing", "."))
    }

    /// How much larger than this a checkpoint may be when its file is used again, which is two checkpoints later.
    fn checkpoint_growth(&self, bytes: u64) -> u64 {
        let every = self.options.checkpoint_bytes;
        let live: u64 = self.lock().live.values().map(|live| live.bytes).sum();
        // Of few messages nothing can be told.
        let part = if live > every / CHECKPOINT_SPACE_PART {
            bytes.min(live / CHECKPOINT_GROWTH_PART) as f64 / live as f64
        } else {
            0.0
        };
        let appended = 2 * every.max(2 * bytes);
        ((appended as f64 * part) as u64).max(every / CHECKPOINT_SPACE_PART)
    }

    /// The file of a checkpoint of this size: the one that is there, or another that has more space than is asked for, so that on a disk that has become full
    /// the next ones fit too. It is a checkpoint that frees segments.
    fn checkpoint_file(&self, name: &str, bytes: u64) -> Result<Arc<dyn File>, JournalError> {
        let ample = bytes + self.checkpoint_growth(bytes);
        if let Ok(file) = self.fs.open(name) {
            let size = file.size().map_err(JournalError::io("looking at", name))?;
            if (bytes..=CHECKPOINT_SHRINK * ample).contains(&size) {
                return Ok(file);
            }
        }
        self.lock().making_checkpoint = true;
        let made = self.make_checkpoint_file(name, bytes, ample);
        self.lock().making_checkpoint = false;
        self.to_keep.notify_all();
        made
    }

    fn make_checkpoint_file(&self, name: &str, bytes: u64, ample: u64) -> Result<Arc<dyn File>, JournalError> {
        let mut made = self.fs.create(name, ample);
        while made.as_ref().is_err_and(crate::fs::is_full) {
            made = self.fs.create(name, bytes);
            if made.is_ok() {
                break;
            }
            // As a last resort a spare is let go of.
            let Some(spare) = self.lock().take_unpromised_spare() else { break };
            self.fs.remove(&spare).map_err(JournalError::io("removing", &spare))?;
        }
        made.map_err(JournalError::io("creating", name))
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
            queue.full &= queue.spares.len() + 1 < SPARES_READY + queue.promised;
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
    fn take_unpromised_spare(&mut self) -> Option<String> {
        (self.spares.len() > self.promised).then(|| self.spares.pop_back()).flatten()
    }
}

/// The offset of the first record of a segment.
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(8) && RECORD_HEADER_BYTES.is_multiple_of(8));
