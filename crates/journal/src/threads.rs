//! The threads of a journal: one writes, one syncs, one prepares segments.

use crate::{journal::Shared, work::FULL_RETRY};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

/// A thread's name and what it does.
type Work = (&'static str, fn(&Shared));

/// The running threads; they end with this.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let mut running = Vec::new();
        if shared.options.threads {
            let works: [Work; 3] = [("journal-write", write), ("journal-sync", sync), ("journal-keep", keep)];
            for (name, work) in works {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
                running.push(thread.expect("a process that cannot start a thread cannot go on"));
            }
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
    loop {
        {
            let mut queue = shared.lock();
            loop {
                if queue.closing || shared.failure.borrow().is_some() {
                    return;
                }
                match queue.wait_before_sync(last.elapsed(), shared.synced.get()) {
                    Some(wait) if wait.is_zero() => break,
                    Some(wait) => queue = shared.to_sync.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
                    None => queue = shared.to_sync.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            }
        }
        last = Instant::now();
        if shared.sync().is_err() {
            return;
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
