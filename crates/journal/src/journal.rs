//! The journal's handle: appending, waiting, reading, and what its owner has to do from time to time.

use crate::{
    File, FileSystem, JournalError, Position, Visitor,
    format::{RECORD_HEADER_BYTES, body_bytes_max},
    opening,
    queue::{Effect, QUEUE_BYTES_MAX, Queue},
    recovery, threads,
    watermark::Watermark,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// When written records are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncing {
    /// Always, as soon as the sync before is done.
    Always,
    /// Once in this time.
    Every(Duration),
    /// Only when a segment is left, at a checkpoint and at the end.
    Rarely,
}

/// How a journal works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of each segment of a new journal, a multiple of 8, at least 4,096; an existing one keeps its own. Also the limit of a record.
    pub segment_bytes: u64,
    /// When written records are synced, unless [`Journal::append_with`] says otherwise.
    pub syncing: Syncing,
    /// Bytes appended after which a checkpoint is due. It is put off while the last snapshot was larger than half of this, so
    /// that checkpoints take at most a third of what is written.
    pub checkpoint_bytes: u64,
    /// Who writes, syncs and prepares.
    pub work: Work,
}

/// Who does a journal's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Threads of its own.
    Threads,
    /// Its owner writes and syncs with [`Journal::commit`], in a thread that may block; threads prepare segments and sync at intervals. It spares two
    /// changes of threads for each group, which is more than a sync takes on a quick disk.
    Owner,
    /// Nobody but [`Journal::drive`], so that a test decides when.
    Driven,
}

impl Default for Options {
    /// 32 MiB segments: three of them are what an idle journal takes on disk. A checkpoint every two.
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, syncing: Syncing::Always, checkpoint_bytes: 64 << 20, work: Work::Threads }
    }
}

/// What opening a journal has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records replayed after the checkpoint.
    pub records: u64,
    /// Bytes of the checkpoint's snapshot.
    pub snapshot_bytes: usize,
    /// File and offset of a record that a crash had interrupted. Nothing says that it had been durable.
    pub torn: Option<(String, u64)>,
    /// Records that had been durable and are damaged, as [`Visitor::lost`] was told: 0 unless the visitor agreed to go on without them.
    pub lost: u64,
}

/// A record that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// What to wait for.
    pub sequence: u64,
    /// Where its body will be.
    pub address: u64,
}

/// Where a snapshot stands in the journal, and what is dead by then.
#[derive(Clone, Debug)]
pub struct Mark {
    pub(crate) position: Position,
    pub(crate) dead: Vec<u64>,
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Take a snapshot with a [`Journal::mark`] and give it to [`Journal::checkpoint`].
    Checkpoint,
    /// Append what is alive in this segment again.
    Compact(u64),
    /// Nothing more: the journal has ended.
    End,
}

/// What a journal takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments that hold records.
    pub segments: usize,
    /// Segments that are ready to be used again.
    pub spares: usize,
    /// Bytes of each.
    pub segment_bytes: u64,
}

/// A journal. Clones are handles of the same one, which ends when it is closed or the last handle is gone.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    threads: Arc<threads::Threads>,
}

pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) options: Options,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u64,
    pub(crate) epoch: u32,
    pub(crate) queue: Mutex<Queue>,
    /// Something is in the queue, or the journal ends.
    pub(crate) to_write: Condvar,
    /// Something is written and not synced, or the journal ends.
    pub(crate) to_sync: Condvar,
    /// Spares are short, the owner has something to do, or the journal ends.
    pub(crate) to_keep: Condvar,
    /// The segment that is written.
    pub(crate) current: Mutex<(u64, Arc<dyn File>)>,
    pub(crate) segments: RwLock<BTreeMap<u64, Arc<dyn File>>>,
    pub(crate) written: Watermark,
    /// The address behind the last record that is written.
    pub(crate) written_until: AtomicU64,
    pub(crate) synced: Watermark,
    /// There may be room again.
    pub(crate) room: Notify,
    pub(crate) failure: watch::Sender<Option<JournalError>>,
    /// Held while a batch is written, so that a test or the end of the journal may write too.
    pub(crate) writer: Mutex<crate::work::Writer>,
    /// Held while a segment is synced.
    pub(crate) syncing: Mutex<()>,
    pub(crate) checkpoints: Mutex<Checkpoints>,
}

pub(crate) struct Checkpoints {
    pub(crate) generation: u64,
    /// The file that the next must not replace.
    pub(crate) slot: Option<usize>,
    /// Where the newest that was made since the journal was opened stands.
    pub(crate) sequence: u64,
    /// Segments that were dead at the newest checkpoint: free when the next one is written.
    pub(crate) dead: Vec<u64>,
}

impl Journal {
    /// Opens a journal, or makes one, and lets the visitor see what it holds. Blocks while it reads.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if something that was durable once is damaged and the visitor does not agree to go on without it, or if going on would
    /// be to guess; [`JournalError::Io`] if something cannot be read that may be the end of the journal. Nothing has been changed then.
    pub fn open(fs: Arc<dyn FileSystem>, options: Options, visitor: &mut dyn Visitor) -> Result<(Self, Recovered), JournalError> {
        let found = recovery::find(&*fs, visitor)?;
        let (shared, recovered) = opening::start(fs, options, found)?;
        let shared = Arc::new(shared);
        let threads = threads::Threads::start(&shared);
        Ok((Self { shared, threads: Arc::new(threads) }, recovered))
    }

    /// The largest body of a record.
    pub fn record_bytes_max(&self) -> usize {
        self.shared.record_bytes_max()
    }

    /// Whether a record of this size can be appended without waiting. On a full disk its effect says how much of the reserve it may use.
    pub fn has_room(&self, bytes: usize, effect: Effect) -> bool {
        self.has_room_behind(0, bytes, effect)
    }

    /// The same where another record, of so many bytes, is going to be appended before this one.
    pub fn has_room_behind(&self, before: usize, bytes: usize, effect: Effect) -> bool {
        self.shared.lock().has_room(before, bytes, effect, self.shared.segment_bytes)
    }

    /// Whether the disk had no space for another spare segment when it was asked last.
    pub fn is_full(&self) -> bool {
        self.shared.lock().full
    }

    /// Waits until there may be room.
    ///
    /// # Errors
    /// [`JournalError::Full`] if the disk has no space, [`JournalError::TooLarge`] if no segment takes it, or why the journal has ended.
    pub async fn room(&self, bytes: usize, effect: Effect) -> Result<(), JournalError> {
        loop {
            let mut notified = std::pin::pin!(self.shared.room.notified());
            notified.as_mut().enable();
            self.shared.alive()?;
            if bytes > self.record_bytes_max() {
                return Err(JournalError::TooLarge { bytes, max: self.record_bytes_max() });
            }
            {
                let mut queue = self.shared.lock();
                if queue.has_room(0, bytes, effect, self.shared.segment_bytes) {
                    return Ok(());
                }
                queue.spare_wanted = true;
                // What is about to be freed is worth waiting for: it takes two checkpoints.
                if queue.full && queue.bytes < QUEUE_BYTES_MAX && !self.shared.checkpoint_frees(&queue) {
                    return Err(JournalError::Full);
                }
                self.shared.to_keep.notify_all();
            }
            notified.await;
        }
    }

    /// Appends a record, which must not be empty. [`Journal::has_room`] must have said that there is room.
    pub fn append(&self, body: Vec<u8>) -> Appended {
        self.append_with(body, self.shared.options.syncing)
    }

    /// Appends a record that is to be synced in this way, whatever the options say of the others. A sync that another record asks for takes it along: what
    /// one asks for is the least that it gets.
    pub fn append_with(&self, body: Vec<u8>, syncing: Syncing) -> Appended {
        debug_assert!(!body.is_empty() && body.len() <= self.record_bytes_max(), "a record of {} bytes", body.len());
        let mut queue = self.shared.lock();
        let (sequence, address) = queue.append(body, syncing, self.shared.segment_bytes);
        if queue.records.len() == 1 && self.shared.options.work == Work::Threads {
            self.shared.to_write.notify_one();
        }
        queue.checkpoint_failed = false;
        if queue.full || queue.spares_short(self.shared.segment_bytes) || queue.checkpoint_due(&self.shared.options) {
            self.shared.to_keep.notify_all();
        }
        Appended { sequence, address: address + RECORD_HEADER_BYTES }
    }

    /// The sequence of the last record that was appended.
    pub fn last(&self) -> u64 {
        self.shared.lock().tail.sequence - 1
    }

    /// Fails if the journal has ended, with the reason.
    pub fn check(&self) -> Result<(), JournalError> {
        self.shared.alive()
    }

    /// Waits until everything up to this record survives the end of the process.
    pub async fn written(&self, sequence: u64) -> Result<(), JournalError> {
        match self.shared.written.wait(sequence).await {
            true => Ok(()),
            false => Err(self.shared.ended()),
        }
    }

    /// Waits until everything up to this record survives the loss of power. It does not ask for a sync: see [`Options::syncing`] and
    /// [`Journal::append_with`].
    pub async fn synced(&self, sequence: u64) -> Result<(), JournalError> {
        match self.shared.synced.wait(sequence).await {
            true => Ok(()),
            false => Err(self.shared.ended()),
        }
    }

    /// Blocks until everything up to this record survives the end of the process; `false` if the journal has ended before.
    pub fn wait_written(&self, sequence: u64) -> bool {
        self.shared.written.wait_blocking(sequence)
    }

    /// Blocks until everything up to this record survives the loss of power; `false` if the journal has ended before.
    pub fn wait_synced(&self, sequence: u64) -> bool {
        self.shared.synced.wait_blocking(sequence)
    }

    /// How far records survive the end of the process.
    pub fn written_now(&self) -> u64 {
        self.shared.written.get()
    }

    /// Whether what was appended at this address, so many bytes, can be read back now.
    pub fn is_written(&self, address: u64, bytes: usize) -> bool {
        address + bytes as u64 <= self.shared.written_until.load(Ordering::Acquire)
    }

    /// How far records survive the loss of power.
    pub fn synced_now(&self) -> u64 {
        self.shared.synced.get()
    }

    /// Resolves when the journal has failed, with the reason. It never does after a proper end.
    pub fn failed(&self) -> impl Future<Output = JournalError> + Send + 'static {
        let mut failure = self.shared.failure.subscribe();
        let keep = self.shared.failure.clone();
        async move {
            let error = failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
            match error {
                Some(error) => {
                    drop(keep);
                    error
                }
                None => std::future::pending().await,
            }
        }
    }

    /// These, by address and size, are alive: their segments are kept.
    pub fn hold(&self, all: impl Iterator<Item = (u64, usize)>) {
        self.hold_runs(all.map(|(address, bytes)| (self.segment_of(address), 1, bytes as u64)));
    }

    /// The same of many at once: so many messages of so many bytes in each of these segments.
    pub fn hold_runs(&self, runs: impl Iterator<Item = (u64, u64, u64)>) {
        let mut queue = self.shared.lock();
        runs.for_each(|(segment, messages, bytes)| queue.hold(segment, messages, bytes));
    }

    /// These, held before, are dead.
    pub fn release(&self, all: impl Iterator<Item = (u64, usize)>) {
        self.release_runs(all.map(|(address, bytes)| (self.segment_of(address), 1, bytes as u64)));
    }

    /// The same of many at once.
    pub fn release_runs(&self, runs: impl Iterator<Item = (u64, u64, u64)>) {
        let mut queue = self.shared.lock();
        runs.for_each(|(segment, messages, bytes)| queue.release(segment, messages, bytes));
    }

    /// Where a snapshot of the owner's state stands that is taken now, with everything appended so far applied.
    pub fn mark(&self) -> Mark {
        let mut queue = self.shared.lock();
        let tail = queue.tail.address / self.shared.segment_bytes;
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let dead = segments.keys().copied().filter(|number| *number < tail);
        let dead = dead.filter(|number| queue.is_dead(*number)).collect();
        queue.marked = queue.tail.address;
        queue.lost = false;
        Mark { position: queue.tail, dead }
    }

    /// Makes a snapshot durable and lets segments go that neither it nor the one before needs. Blocks.
    pub fn checkpoint(&self, mark: Mark, snapshot: &[u8]) -> Result<(), JournalError> {
        self.shared.checkpoint(mark, snapshot)
    }

    /// Waits until there is something for the owner to do. Blocks; for a thread of its own.
    pub fn duty(&self) -> Duty {
        let mut queue = self.shared.lock();
        loop {
            if queue.closing || queue.duties_ended || self.shared.failure.borrow().is_some() {
                return Duty::End;
            }
            if let Some(duty) = self.shared.next_duty(&mut queue) {
                return duty;
            }
            queue = self.shared.to_keep.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whoever waits for a duty is told that there will be none any more.
    pub fn end_duties(&self) {
        self.shared.lock().duties_ended = true;
        self.shared.room.notify_waiters();
        self.shared.to_keep.notify_all();
    }

    /// What there is to do now, without waiting.
    pub fn duty_now(&self) -> Option<Duty> {
        self.shared.next_duty(&mut self.shared.lock())
    }

    /// Writes what was appended, and syncs it if that is wanted at once. Blocks. For [`Work::Owner`].
    ///
    /// # Errors
    /// Why the journal has ended.
    pub fn commit(&self) -> Result<(), JournalError> {
        while self.shared.write_some()? {}
        let wait = self.shared.lock().wants.wait(Duration::ZERO, self.shared.synced.get());
        match wait {
            Some(wait) if wait.is_zero() => self.shared.sync(),
            _ => Ok(()),
        }
    }

    /// Says on disk that everything is synced, if it is and nothing that follows says so: from then on damage of the last records is told from an end that a crash has
    /// torn. Blocks. For [`Work::Owner`], when nothing has been appended for a while.
    ///
    /// # Errors
    /// Why the journal has ended.
    pub fn rest(&self) -> Result<(), JournalError> {
        self.shared.mark_synced()
    }

    /// What it takes on disk.
    pub fn usage(&self) -> Usage {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).len();
        let spares = self.shared.lock().spares.len();
        Usage { segments, spares, segment_bytes: self.shared.segment_bytes }
    }

    /// Writes and syncs everything and ends. Blocks. Appending must have stopped.
    pub fn close(&self) -> Result<(), JournalError> {
        let result = self.shared.alive().and_then(|()| {
            while self.shared.write_some()? {}
            self.shared.sync()?;
            self.shared.mark_synced()
        });
        self.shared.end();
        self.threads.join();
        result
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_bytes_max(&self) -> usize {
        body_bytes_max(self.segment_bytes)
    }

    /// Fails if the journal has ended.
    pub(crate) fn alive(&self) -> Result<(), JournalError> {
        if let Some(error) = self.failure.borrow().clone() {
            return Err(error);
        }
        match self.lock().closing {
            true => Err(JournalError::Closed),
            false => Ok(()),
        }
    }

    fn checkpoint_frees(&self, queue: &Queue) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        queue.checkpoint_frees(&segments, self.segment_bytes)
    }

    fn next_duty(&self, queue: &mut Queue) -> Option<Duty> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        queue.duty(&self.options, &segments, self.segment_bytes)
    }

    pub(crate) fn ended(&self) -> JournalError {
        self.failure.borrow().clone().unwrap_or(JournalError::Closed)
    }

    /// The journal has failed: nobody is told that anything is durable any more.
    pub(crate) fn fail(&self, error: JournalError) -> JournalError {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(error.clone());
            }
            first
        });
        self.wake_all();
        error
    }

    pub(crate) fn end(&self) {
        self.lock().closing = true;
        self.wake_all();
    }

    fn wake_all(&self) {
        self.written.end();
        self.synced.end();
        self.room.notify_waiters();
        // Whoever looked before the lock was free is waiting by now.
        drop(self.lock());
        self.to_write.notify_all();
        self.to_sync.notify_all();
        self.to_keep.notify_all();
    }
}
