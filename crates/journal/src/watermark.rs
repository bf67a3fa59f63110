//! A number that only rises, and those who wait for it.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::oneshot;

/// How far something has got: written, or synced.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    value: AtomicU64,
    waiting: Mutex<Waiting>,
    /// For threads that wait.
    raised: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    list: Vec<(u64, oneshot::Sender<()>)>,
    ended: bool,
}

impl Watermark {
    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    /// Raises it and wakes those who waited for no more than this.
    pub(crate) fn raise(&self, value: u64) {
        self.value.fetch_max(value, Ordering::AcqRel);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = 0;
        while index < waiting.list.len() {
            match waiting.list[index].0 <= value {
                // Whoever stopped waiting does not want to know.
                true => _ = waiting.list.swap_remove(index).1.send(()),
                false => index += 1,
            }
        }
        self.raised.notify_all();
    }

    /// Blocks until it is there; `false` if it will not get there any more.
    pub(crate) fn wait_blocking(&self, value: u64) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while self.get() < value {
            if waiting.ended {
                return false;
            }
            waiting = self.raised.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Waits for it; `false` if it will not get there any more.
    pub(crate) async fn wait(&self, value: u64) -> bool {
        let told = {
            if self.get() >= value {
                return true;
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // It is raised before the lock is taken to wake the waiters, so nobody who looks under the lock is forgotten.
            if self.get() >= value {
                return true;
            }
            if waiting.ended {
                return false;
            }
            let (tell, told) = oneshot::channel();
            waiting.list.push((value, tell));
            told
        };
        told.await.is_ok() || self.get() >= value
    }

    /// It will rise no more.
    pub(crate) fn end(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.ended = true;
        waiting.list.clear();
        self.raised.notify_all();
    }
}
