//! The embedded broker without its threads: whoever opened it does their work piece by piece, in any order. So a test decides what happens between two pieces,
//! and the same order gives the same journal, byte for byte.

use super::{
    Duties, Embedded, EmbeddedOptions, Opened,
    commit::{self, Closed},
    duties,
    store::JournalStore,
};
use crate::{
    Result,
    engine::{Engine, Store},
    planted::{self, Bug},
};
use leatworks_journal::{Duty, Effect, FileSystem, Journal, JournalError, Mark};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A piece of the threads' work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Closes the open group.
    Close,
    /// Appends the closed group to the journal, and notes where its messages will be.
    Append,
    /// Prepares spare segments, and writes one batch of what was appended.
    Write,
    /// Syncs what was written.
    Sync,
    /// Takes a snapshot for a checkpoint.
    Snapshot,
    /// Makes the oldest snapshot durable.
    Checkpoint,
    /// Does what the journal asks for, if it does: a snapshot, or moving what is alive in an old segment.
    Duty,
    /// Says on disk that everything is synced, if it is.
    Rest,
    /// Lets go of what is kept for seeking and is too old.
    Expire,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 9] = [
        Self::Close,
        Self::Append,
        Self::Write,
        Self::Sync,
        Self::Snapshot,
        Self::Checkpoint,
        Self::Duty,
        Self::Rest,
        Self::Expire,
    ];
}

/// The state that opening has found, as lines of text, and the journal's last record by then.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The last record that was there.
    pub sequence: u64,
    /// Everything that is known after it.
    pub image: Vec<String>,
    /// The position that the next message of each topic gets.
    pub next: BTreeMap<String, u64>,
}

/// What does the threads' work.
pub struct Driven {
    engine: Arc<Engine<JournalStore>>,
    journal: Journal,
    closed: Mutex<Option<Closed>>,
    snapshots: Mutex<VecDeque<(Mark, Vec<u8>)>>,
    replayed: Replayed,
}

/// More than any consumer of a test leaves behind.
const CROWDED_BYTES: usize = 2_048;

/// Snapshots that wait to be made durable at most: one that the duties take, and one that a caller has asked for.
const SNAPSHOTS_MAX: usize = 2;

impl Embedded {
    /// Opens the broker without threads. Its clock says that it is this time in milliseconds since the Unix epoch, and goes on with tokio's.
    ///
    /// # Errors
    /// Those of [`Embedded::open_on`].
    pub fn open_driven(fs: Arc<dyn FileSystem>, options: EmbeddedOptions, now_ms: u64) -> Result<(Self, Driven)> {
        let Opened { engine, journal, wake, recovered, image } = Opened::new(fs, options, None, Some(now_ms))?;
        // The journal's first record of this life says only that it is open.
        let next = engine.lock().state.topics.iter().map(|topic| (topic.spec.name.clone(), topic.log.next())).collect();
        let replayed = Replayed { sequence: journal.last() - 1, image, next };
        let duties = Duties { journal: journal.clone(), wake, threads: Vec::new() };
        let broker = Self { _duties: Arc::new(duties), engine: engine.clone(), recovered };
        Ok((broker, Driven { engine, journal, closed: Mutex::default(), snapshots: Mutex::default(), replayed }))
    }
}

impl Driven {
    /// Does a piece of work, if there is any of it.
    ///
    /// # Errors
    /// As the thread would have met it: a full disk passes, anything else has ended the broker.
    pub fn drive(&self, work: Work) -> Result<()> {
        let done = match work {
            Work::Close => {
                self.close_group();
                Ok(())
            }
            Work::Append => {
                self.append();
                Ok(())
            }
            Work::Write => self.journal.drive_writing().map(|_| ()),
            Work::Sync => self.journal.drive_syncing(),
            Work::Snapshot => self.snapshot(),
            Work::Checkpoint => self.checkpoint(),
            Work::Duty => self.duty(),
            Work::Rest => self.journal.rest(),
            Work::Expire => {
                self.engine.expire_all();
                Ok(())
            }
        };
        if done.as_ref().is_err_and(|error| !matches!(error, JournalError::Full)) {
            self.engine.wake_all();
            self.engine.store.closed.notify_waiters();
        }
        done.map_err(|error| self.engine.store.error(error))
    }

    /// What opening has found.
    pub fn replayed(&self) -> &Replayed {
        &self.replayed
    }

    /// The state as each group that was closed since the last call has left it, with the record that the group becomes.
    pub fn images(&self) -> Vec<(u64, Vec<String>)> {
        std::mem::take(&mut *lock(&self.engine.store.images))
    }

    /// The last record that survives the end of the process, and the last that survives the loss of power.
    pub fn kept(&self) -> (u64, u64) {
        (self.journal.written_now(), self.journal.synced_now())
    }

    /// Whether there is hardly room: what nobody waits for, as when a consumer leaves, may go unrecorded now.
    pub fn is_crowded(&self) -> bool {
        !self.engine.store.has_room(&self.engine.lock().group, CROWDED_BYTES, Effect::Frees)
    }

    fn close_group(&self) {
        let mut waiting = lock(&self.closed);
        // One thread closes and appends, so there is never more than one.
        if waiting.is_none() && self.journal.check().is_ok() {
            *waiting = commit::close_to_append(&self.engine, &mut self.engine.lock());
        }
    }

    fn append(&self) {
        if let Some(closed) = lock(&self.closed).take() {
            commit::append(&self.engine, closed);
        }
    }

    fn snapshot(&self) -> std::result::Result<(), JournalError> {
        self.journal.check()?;
        if lock(&self.snapshots).len() < SNAPSHOTS_MAX {
            // Whoever takes a snapshot waits for whoever closes a group.
            if !planted::is(Bug::SnapshotBetween) {
                self.append();
            }
            let taken = commit::snapshot(&self.engine);
            lock(&self.snapshots).push_back(taken);
        }
        Ok(())
    }

    fn checkpoint(&self) -> std::result::Result<(), JournalError> {
        let taken = lock(&self.snapshots).pop_front();
        taken.map_or(Ok(()), |(mark, snapshot)| self.journal.checkpoint(mark, &snapshot))
    }

    fn duty(&self) -> std::result::Result<(), JournalError> {
        match self.journal.duty_now() {
            Some(Duty::Checkpoint) => self.snapshot(),
            Some(Duty::Compact(segment)) => duties::compact(&self.engine, &self.journal, segment),
            Some(Duty::End) | None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
