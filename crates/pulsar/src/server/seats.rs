//! Which producer names are taken. A client that comes back takes the place of its own lost connection.

use super::{limits::SUCCEED_TIME_MAX, out::Outgoing, topics::Refusal};
use crate::wire::proto::ServerError;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Notify, watch};

/// How the names begin that servers give to producers without one. Such a name belongs to one client for ever, so whoever brings it is that
/// client again, and its sequence never starts anew.
pub(crate) const ASSIGNED: &str = "leat-producer-";

/// A topic, and the name of a producer.
type Key = (Arc<str>, String);

type Taken = Arc<Mutex<HashMap<Key, Holder>>>;

/// The producers that are connected, by topic and name.
#[derive(Default)]
pub(crate) struct Seats {
    taken: Taken,
}

/// Who has a name.
struct Holder {
    epoch: u64,
    out: Outgoing,
    replaced: Arc<Notify>,
    /// Ends when the seat is free.
    ended: watch::Receiver<()>,
}

/// A producer's name, taken as long as this exists.
pub(crate) struct Seat {
    key: Key,
    taken: Taken,
    /// Told when the same client has come back on another connection.
    pub(crate) replaced: Arc<Notify>,
    _ended: watch::Sender<()>,
}

impl Seat {
    /// The producer's name.
    pub(crate) fn name(&self) -> &str {
        &self.key.1
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Whether a server has given this name.
pub(crate) fn is_assigned(name: &str) -> bool {
    name.starts_with(ASSIGNED)
}

impl Seats {
    /// The topics that have producers.
    pub(crate) fn topics(&self) -> HashSet<Arc<str>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|(topic, _)| topic.clone()).collect()
    }

    /// Takes a name.
    pub(crate) async fn take(&self, topic: &Arc<str>, name: &str, epoch: u64, out: &Outgoing) -> Result<Seat, Refusal> {
        let key = (topic.clone(), name.to_owned());
        let taking = async {
            loop {
                let mut ended = {
                    let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(holder) = taken.get(&key) else {
                        let (end, ended) = watch::channel(());
                        let replaced = Arc::new(Notify::new());
                        let holder = Holder { epoch, out: out.clone(), replaced: replaced.clone(), ended };
                        taken.insert(key.clone(), holder);
                        return Some(Seat { key: key.clone(), taken: self.taken.clone(), replaced, _ended: end });
                    };
                    if !(holder.out.is_gone() || is_assigned(name) || epoch > holder.epoch) {
                        return None;
                    }
                    holder.replaced.notify_one();
                    holder.ended.clone()
                };
                // It fails when the seat is free, which is what is waited for.
                let _ = ended.changed().await;
            }
        };
        let seat = tokio::time::timeout(SUCCEED_TIME_MAX, taking).await.ok().flatten();
        seat.ok_or_else(|| (ServerError::ProducerBusy, format!("producer `{name}` is connected to topic `{topic}` already")))
    }
}
