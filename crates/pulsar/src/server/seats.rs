//! Which producer names are taken, and which topics one producer has for itself. A client that comes back takes the place of its own lost connection.

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
    /// It has the topic for itself.
    alone: bool,
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

/// Who wants a name, and how.
pub(crate) struct Wish<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) name: &'a str,
    /// The how many'th connection of its client this is.
    pub(crate) epoch: u64,
    /// It wants the topic for itself.
    pub(crate) alone: bool,
}

/// Why a name, or a topic, cannot be had at once.
enum Barred {
    /// Its holders are on their way out: this one first.
    Leaving(watch::Receiver<()>),
    For(Refusal),
}

impl Wish<'_> {
    /// Whoever is in the way of this, unless nobody is.
    fn barred(&self, taken: &HashMap<Key, Holder>) -> Option<Barred> {
        let Self { topic, name, epoch, alone } = *self;
        let refused = |code, why: String| Some(Barred::For((code, why)));
        if let Some(holder) = taken.get(&(topic.clone(), name.to_owned())) {
            if !(holder.out.is_gone() || is_assigned(name) || epoch > holder.epoch) {
                return refused(ServerError::ProducerBusy, format!("producer `{name}` is connected to topic `{topic}` already"));
            }
            return Some(holder.leave());
        }
        let mut others = taken.iter().filter(|((of, _), holder)| of == topic && (alone || holder.alone));
        let ((_, other), holder) = others.next()?;
        if holder.out.is_gone() {
            return Some(holder.leave());
        }
        match alone {
            true => refused(ServerError::ProducerFenced, format!("topic `{topic}` has a producer `{other}` already")),
            false => refused(ServerError::ProducerBusy, format!("producer `{other}` has topic `{topic}` for itself")),
        }
    }
}

impl Holder {
    /// Tells it that it has to go, and gives what ends when it is gone.
    fn leave(&self) -> Barred {
        self.replaced.notify_one();
        Barred::Leaving(self.ended.clone())
    }
}

impl Seats {
    /// The topics that have producers.
    pub(crate) fn topics(&self) -> HashSet<Arc<str>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|(topic, _)| topic.clone()).collect()
    }

    /// Takes a name.
    pub(crate) async fn take(&self, wish: Wish<'_>, out: &Outgoing) -> Result<Seat, Refusal> {
        let key = (wish.topic.clone(), wish.name.to_owned());
        let taking = async {
            loop {
                let mut ended = {
                    let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                    match wish.barred(&taken) {
                        Some(Barred::For(refusal)) => return Err(refusal),
                        Some(Barred::Leaving(ended)) => ended,
                        None => {
                            let (end, ended) = watch::channel(());
                            let replaced = Arc::new(Notify::new());
                            let (epoch, alone) = (wish.epoch, wish.alone);
                            let holder = Holder { epoch, alone, out: out.clone(), replaced: replaced.clone(), ended };
                            taken.insert(key.clone(), holder);
                            return Ok(Seat { key: key.clone(), taken: self.taken.clone(), replaced, _ended: end });
                        }
                    }
                };
                // It fails when the seat is free, which is what is waited for.
                let _ = ended.changed().await;
            }
        };
        let busy = || {
            let text = format!("a producer that had topic `{}` or the name `{}` does not let go", wish.topic, wish.name);
            (ServerError::ProducerBusy, text)
        };
        tokio::time::timeout(SUCCEED_TIME_MAX, taking).await.unwrap_or_else(|_| Err(busy()))
    }
}
