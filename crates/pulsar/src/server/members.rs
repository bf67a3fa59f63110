//! Who consumes from which subscription: which one of a failover subscription is active, and whom to send away before a subscription is moved.

use super::{limits::EVICT_TIME_MAX, out::Outgoing};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

/// A topic and a subscription of it.
pub(crate) type Place = (Arc<str>, Arc<str>);

/// What a consumer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    /// It is the first of its subscription.
    pub(crate) active: bool,
    /// It has to go.
    pub(crate) evicted: bool,
}

/// The consumers that are connected, in the order of arrival.
#[derive(Default)]
pub(crate) struct Members {
    all: Arc<Mutex<HashMap<Place, Group>>>,
    changed: Arc<Notify>,
    /// Consumers of failover subscriptions join one at a time, so that the order here is the broker's.
    pub(crate) joining: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Group {
    members: Vec<One>,
    /// Nobody may join: the subscription is being moved.
    closed: bool,
}

struct One {
    id: u64,
    out: Outgoing,
    signal: watch::Sender<Signal>,
}

/// One consumer's membership, until it is dropped.
pub(crate) struct Member {
    id: u64,
    place: Place,
    all: Arc<Mutex<HashMap<Place, Group>>>,
    changed: Arc<Notify>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = all.get_mut(&self.place) {
            group.members.retain(|one| one.id != self.id);
            group.tell_first();
            if group.members.is_empty() && !group.closed {
                all.remove(&self.place);
            }
        }
        drop(all);
        self.changed.notify_waiters();
    }
}

impl Group {
    fn tell_first(&self) {
        if let Some(first) = self.members.first() {
            first.signal.send_if_modified(|signal| !std::mem::replace(&mut signal.active, true));
        }
    }
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Group>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins; `None` while the subscription is being moved.
    pub(crate) fn join(&self, place: &Place, id: u64, out: &Outgoing) -> Option<(Member, watch::Receiver<Signal>)> {
        let mut all = self.lock();
        let group = all.entry(place.clone()).or_default();
        if group.closed {
            return None;
        }
        let (signal, told) = watch::channel(Signal::default());
        group.members.push(One { id, out: out.clone(), signal });
        group.tell_first();
        Some((Member { id, place: place.clone(), all: self.all.clone(), changed: self.changed.clone() }, told))
    }

    /// How many others there are.
    pub(crate) fn others(&self, place: &Place, id: u64) -> usize {
        self.lock().get(place).map_or(0, |group| group.members.iter().filter(|one| one.id != id).count())
    }

    /// Waits until those have left whose client is gone.
    pub(crate) async fn wait_for_gone(&self, place: &Place) {
        let gone = |group: &Group| group.members.iter().any(|one| one.out.is_gone());
        self.wait(|| !self.lock().get(place).is_some_and(gone)).await;
    }

    /// Lets nobody join, sends all others away, and waits until they have left; `None` if somebody else does that already, or they do not leave.
    pub(crate) async fn close(&self, place: &Place, id: u64) -> Option<Closed> {
        {
            let mut all = self.lock();
            let group = all.entry(place.clone()).or_default();
            if std::mem::replace(&mut group.closed, true) {
                return None;
            }
            for one in group.members.iter().filter(|one| one.id != id) {
                one.signal.send_modify(|signal| signal.evicted = true);
            }
        }
        let closed = Closed { place: place.clone(), all: self.all.clone() };
        self.wait(|| self.others(place, id) == 0).await.then_some(closed)
    }

    async fn wait(&self, done: impl Fn() -> bool) -> bool {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if done() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(EVICT_TIME_MAX, waiting).await.is_ok()
    }
}

/// A subscription that nobody can join, until this is dropped.
pub(crate) struct Closed {
    place: Place,
    all: Arc<Mutex<HashMap<Place, Group>>>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = all.get_mut(&self.place) {
            group.closed = false;
            if group.members.is_empty() {
                all.remove(&self.place);
            }
        }
    }
}
