//! The threads of a journal: one writes, one syncs, one prepares segments.

use crate::{
    journal::{Shared, Work},
    work::FULL_RETRY,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long nothing must have been appended before a mark says that everything is synced. Whatever follows within this says it too, and for nothing; a
/// mark takes one small write, which is nothing ten times a second. An owner that syncs at once does not wake this thread, and says by [`Journal::rest`] when it rests.
///
/// [`Journal::rest`]: crate::Journal::rest
const MARK_AFTER: Duration = Duration::from_millis(100);

/// A thread's name and what it does.
type Task = (&'static str, fn(&Shared));

/// The running threads; they end with this.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let mut running = Vec::new();
        let works: &[Task] = match shared.options.work {
            Work::Threads => &[("journal-keep", keep), ("journal-sync", sync), ("journal-write", write)],
            Work::Owner => &[("journal-keep", keep), ("journal-sync", sync)],
            Work::Driven => &[],
        };
        for (name, work) in works {
            let (shared, work) = (shared.clone(), *work);
            let thread = std::thread::Builder::new().name((*name).to_owned()).spawn(move || work(&shared));
            running.push(thread.expect("a process that cannot start a thread cannot go on"));
        }
        Self { shared: shared.clone(), running: Mutex::new(running) }
    }
}

impl Threads {
    /// Waits until they have ended, which they do after [`Shared::end`].
    pub(crate) fn join(&self) {
        for thread in self.running.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic in it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.end();
        self.join();
    }
}

/// Writes whatever waits, until the journal ends and nothing waits any more.
fn write(shared: &Shared) {
    loop {
        match shared.write_some() {
            Ok(true) => continue,
            Ok(false) => {}
            Err(_) => return,
        }
        let mut queue = shared.lock();
        while queue.records.is_empty() {
            if queue.closing || shared.failure.borrow().is_some() {
                return;
            }
            queue = shared.to_write.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Syncs as the options say. While a sync runs, the writer goes on, and what it has written by then is the next commit group.
fn sync(shared: &Shared) {
    let mut last = Instant::now();
    while let Some(work) = wait_for_sync(shared, last) {
        let done = match work {
            Next::Sync => {
                last = Instant::now();
                shared.sync()
            }
            Next::Mark => shared.mark_synced(),
        };
        if done.is_err() {
            return;
        }
    }
}

/// What the syncing thread does next.
enum Next {
    Sync,
    /// Say that everything is synced, since nothing has followed that would.
    Mark,
}

/// Waits until there is something to sync; `None` at the end.
fn wait_for_sync(shared: &Shared, last: Instant) -> Option<Next> {
    let mut queue = shared.lock();
    loop {
        if queue.closing || shared.failure.borrow().is_some() {
            return None;
        }
        let synced = shared.synced.get();
        let (wait, idle) = match queue.wants.wait(last.elapsed(), synced) {
            Some(wait) if wait.is_zero() => return Some(Next::Sync),
            Some(wait) => (wait, false),
            None if queue.can_mark(synced, shared.segment_bytes) => (MARK_AFTER, true),
            None => {
                queue = shared.to_sync.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
        };
        let (locked, timeout) = shared.to_sync.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
        queue = locked;
        if idle && timeout.timed_out() && queue.can_mark(shared.synced.get(), shared.segment_bytes) {
            return Some(Next::Mark);
        }
    }
}

/// Keeps spares ready.
fn keep(shared: &Shared) {
    loop {
        shared.prepare_spares();
        let queue = shared.lock();
        if queue.closing || shared.failure.borrow().is_some() {
            return;
        }
        match queue.full {
            true => drop(shared.to_keep.wait_timeout(queue, FULL_RETRY).unwrap_or_else(PoisonError::into_inner)),
            false if queue.spares_short(shared.segment_bytes) => {}
            false => drop(shared.to_keep.wait(queue).unwrap_or_else(PoisonError::into_inner)),
        }
    }
}
