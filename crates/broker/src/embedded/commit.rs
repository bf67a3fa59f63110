//! Closing commit groups: the open group becomes a record of the journal as soon as the disk is ready for one.
//!
//! While a group is synced, the next one is closed and written, and the one after that forms by itself. So a group's size follows the load without a timer, the
//! disk always has something to do, and a message that is published and settled within the time of a sync leaves no trace but its effect.

use super::{
    duties,
    group::Part,
    place::{Location, Place},
    record, spill,
    store::{JournalGroup, JournalStore, memory_size},
};
use crate::{
    Durability,
    engine::{Core, Engine},
    planted::{self, Bug},
};
use leatworks_journal::JournalError;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

/// How often the committing thread looks for messages whose retention has passed when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// How long nothing must have been committed before the journal says that it rests: one small write, which is nothing ten times a second.
const REST: Duration = Duration::from_millis(100);

/// How long a group is kept open at most for messages that are on their way through this process. What has passed by then is not written, and an ordinary disk (3 to 5 ms a
/// sync) would not have had it earlier. A group without such messages is closed at once.
const LINGER: Duration = Duration::from_millis(2);

/// Bytes of a group that a disk writes within a sync as if there were none: it is not kept open for longer than a sync takes, since that is all that could be saved.
const SMALL_BYTES: usize = 64 << 10;

/// Bytes of a group that is worth writing, whatever is on its way.
const WORTH_BYTES: usize = 4 << 20;

/// Wakes the committing thread.
#[derive(Default)]
pub(super) struct Wake {
    state: Mutex<Woken>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Woken {
    work: bool,
    passed: bool,
    end: bool,
}

impl Wake {
    /// There is something to commit.
    pub(super) fn work(&self) {
        self.lock().work = true;
        self.changed.notify_one();
    }

    /// Nothing of the open group is on its way any more.
    pub(super) fn passed(&self) {
        self.lock().passed = true;
        self.changed.notify_one();
    }

    /// There will be nothing more.
    pub(super) fn end(&self) {
        self.lock().end = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do, at most for so long.
    fn wait(&self, time: Duration) -> Woken {
        let mut woken = self.lock();
        if !woken.work && !woken.end {
            woken = self.changed.wait_timeout(woken, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        let found = *woken;
        (woken.work, woken.passed) = (false, false);
        found
    }

    /// Waits for what is on its way, at most for so long.
    fn wait_passed(&self, time: Duration) {
        let idle = |woken: &mut Woken| !woken.passed && !woken.end;
        let mut woken = self.changed.wait_timeout_while(self.lock(), time, idle).unwrap_or_else(PoisonError::into_inner).0;
        woken.passed = false;
    }
}

impl JournalStore {
    fn committing(&self) -> MutexGuard<'_, ()> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commits until the broker ends.
pub(super) fn run(engine: &Weak<Engine<JournalStore>>, wake: &Wake) {
    // What the syncs of late took.
    let mut sync = LINGER;
    let mut rests = false;
    loop {
        let woken = wake.wait(if rests { IDLE } else { REST });
        let Some(engine) = engine.upgrade() else { return };
        let store = &engine.store;
        if store.is_open() && store.journal.check().is_ok() {
            linger(&engine, wake, sync);
            commit(&engine);
            let began = Instant::now();
            // What goes wrong ends the journal, which everybody is told.
            let _ = store.journal.commit();
            sync = (sync * 7 + began.elapsed()) / 8;
            rests = false;
        } else if !woken.work {
            // As above.
            let _ = store.journal.rest();
            rests = true;
            engine.expire_all();
        }
        if store.journal.check().is_err() {
            engine.wake_all();
            store.closed.notify_waiters();
            return;
        }
        if woken.end {
            return;
        }
    }
}

/// Keeps the open group open while messages of it are on their way, for a while.
fn linger(engine: &Engine<JournalStore>, wake: &Wake, sync: Duration) {
    let began = Instant::now();
    loop {
        let (waits, time) = {
            let group = &engine.lock().group.group;
            let time = if group.bytes < SMALL_BYTES { LINGER.min(sync) } else { LINGER };
            (group.is_passing() && group.bytes < WORTH_BYTES, time)
        };
        let left = time.saturating_sub(began.elapsed());
        if !waits || left.is_zero() {
            return;
        }
        wake.wait_passed(left);
    }
}

/// Closes the open group and appends it.
pub(super) fn commit(engine: &Engine<JournalStore>) {
    let _committing = engine.store.committing();
    let closed = close_to_append(engine, &mut engine.lock());
    if let Some(closed) = closed {
        append(engine, closed);
    }
}

/// A group that is closed and not appended yet. Whoever has one holds [`JournalStore::committing`].
pub(super) struct Closed {
    sequence: u64,
    parts: Vec<Part<Place>>,
    bytes: usize,
    level: Option<Durability>,
}

/// Closes the open group, if there is anything in it: what comes now is in the next one.
fn close_group(engine: &Engine<JournalStore>, core: &mut Core<Place, JournalGroup>) -> Option<Closed> {
    let store = &engine.store;
    if !core.group.group.is_dirty() {
        return None;
    }
    let (bytes, level) = (core.group.group.bytes, core.group.group.level);
    let parts = core.group.group.close(&core.state);
    store.closed_bytes.store(bytes, Ordering::Release);
    #[cfg(feature = "simulation")]
    store.take_image(&core.state);
    let sequence = store.next_group();
    store.closed.notify_waiters();
    Some(Closed { sequence, parts, bytes, level })
}

/// Closes the open group, with what is to be spilled.
pub(super) fn close_to_append(engine: &Engine<JournalStore>, core: &mut Core<Place, JournalGroup>) -> Option<Closed> {
    let mut closed = close_group(engine, core)?;
    closed.bytes += spill::choose(&engine.store, core, closed.bytes, &mut closed.parts);
    engine.store.closed_bytes.store(closed.bytes, Ordering::Release);
    Some(closed)
}

/// Appends a closed group and notes where its messages are.
pub(super) fn append(engine: &Engine<JournalStore>, closed: Closed) {
    let store = &engine.store;
    let (address, placed, indexes) = append_body(store, closed);
    {
        let mut core = engine.lock();
        place(engine, &mut core, address, placed);
        spill::put_away(store, &mut core, address, indexes);
    }
    store.closed_bytes.store(0, Ordering::Release);
    store.closed.notify_waiters();
}

/// Appends a closed group: where its body is, and what is where in it.
fn append_body(store: &JournalStore, closed: Closed) -> (u64, Vec<record::Placed>, Vec<record::PlacedIndex>) {
    let Closed { sequence, parts, bytes, level } = closed;
    let record::Made { body, placed, indexes } = record::encode(parts, bytes);
    let appended = store.journal.append_with(body, store.syncing(level));
    debug_assert_eq!(appended.sequence, sequence, "what is waited for is another record");
    (appended.address, placed, indexes)
}

/// Notes where the messages of a record are.
fn place(engine: &Engine<JournalStore>, core: &mut Core<Place, JournalGroup>, address: u64, placed: Vec<record::Placed>) {
    let store = &engine.store;
    let mut held = Vec::with_capacity(placed.len());
    let mut cached = Vec::with_capacity(placed.len());
    for record::Placed { topic, position, offset, bytes, message } in placed {
        let entry = core.state.topics[topic.0 as usize].log.get_mut(position);
        // What was settled while the record was made is written and dead.
        let Some(entry) = entry.filter(|entry| entry.handle.at.is_none()) else { continue };
        let same = entry.handle.message.as_ref().is_some_and(|held| Arc::ptr_eq(held, &message));
        let Some(at) = Location::new(address + offset as u64, bytes).filter(|_| same) else { continue };
        entry.handle.at = Some(at);
        held.push((at.address(), at.bytes()));
        cached.push((topic, position, memory_size(&message)));
    }
    if !held.is_empty() && !planted::is(Bug::PlaceNotHeld) {
        store.journal.hold(held.into_iter());
    }
    for (topic, position, bytes) in cached {
        store.cache(&mut core.group, &mut core.state, topic, position, bytes);
    }
}

/// Commits what there is and takes a snapshot of exactly that, with the engine locked.
pub(super) fn snapshot(engine: &Engine<JournalStore>) -> (leatworks_journal::Mark, Vec<u8>) {
    // Most of it without the lock.
    commit(engine);
    let store = &engine.store;
    let _committing = (!planted::is(Bug::SnapshotBetween)).then(|| store.committing());
    let mut core = engine.lock();
    if let Some(closed) = close_group(engine, &mut core) {
        let (address, placed, _) = append_body(store, closed);
        place(engine, &mut core, address, placed);
        store.closed_bytes.store(0, Ordering::Release);
        store.closed.notify_waiters();
    }
    (store.journal.mark(), super::snapshot::encode(&core.state))
}

/// Commits everything, with the state as it is at the end, and ends the journal.
pub(super) fn close(engine: &Engine<JournalStore>) -> Result<(), JournalError> {
    let journal = engine.store.journal.clone();
    let done = duties::checkpoint(engine, &journal);
    if let (Ok(()), Some(hand)) = (&done, engine.store.hand.get()) {
        // All attempts that were under way are in the checkpoint. What the process before had begun and this one has not met is left.
        let rest = engine.lock().group.hand.rest();
        // What fails here would count attempts twice at worst.
        let _ = hand.replace(rest);
    }
    match done {
        // The checkpoint only makes the next start quicker: without space for it, what was acknowledged is as safe.
        Ok(()) | Err(JournalError::Full) => journal.close(),
        Err(error) => Err(error),
    }
}
