//! The broker's topics as a client sees them: found, or made when a client names them first.

use super::{Shared, epochs};
use crate::wire::proto::ServerError;
use leatworks_broker::{Broker, BrokerError, ErrorKind, TopicKind, TopicSpec, TopicStats};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::RwLock;

/// Subscriptions that end with their consumer are named so on the broker: those that a crash has left are found by it.
pub(crate) const READER: &str = "leat-reader--";

/// A topic that is known to exist.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name on the broker.
    pub(crate) name: Arc<str>,
    /// Whether it belongs to a topology, so that the envelope is read and shown.
    pub(crate) in_topology: bool,
    /// The first of its ledgers.
    pub(crate) ledger: u64,
}

/// Topics that are known to exist. Nobody else removes one, and its kind never changes.
#[derive(Default)]
pub(crate) struct Topics {
    known: Mutex<HashMap<String, Topic>>,
    /// Held to read from when a client names a topic until it has a producer or a subscription there, and to write while topics that have none are removed.
    pub(crate) opening: RwLock<()>,
    /// One topic is made or changed at a time, so that there are not more than may be. Who needs both takes [`Topics::opening`] first.
    pub(crate) making: tokio::sync::Mutex<Making>,
}

/// What may be made by naming it, and through the admin API, which counts what topologies have too.
#[derive(Debug, Default)]
pub(crate) struct Making {
    named: Room,
    pub(crate) all: Room,
}

impl Making {
    /// One is about to be made, in whichever way.
    pub(crate) fn make(&mut self) {
        for Room(left) in [&mut self.named, &mut self.all] {
            *left = left.saturating_sub(1);
        }
    }
}

/// How many topics may be made until it is counted again how many there are: half of the room that was found last, so that a thousand topics are no million looks, and close to the limit each is
/// counted.
#[derive(Debug, Default)]
pub(crate) struct Room(usize);

impl Room {
    /// If there is no room for one more it gives how many there are.
    pub(crate) async fn is_full(
        &mut self,
        limit: usize,
        count: impl AsyncFnOnce() -> Result<usize, BrokerError>,
    ) -> Result<Option<usize>, BrokerError> {
        if self.0 == 0 {
            let there = count().await?;
            if there >= limit {
                return Ok(Some(there));
            }
            self.0 = (limit - there).div_ceil(2);
        }
        Ok(None)
    }
}

impl Topics {
    fn get(&self, name: &str) -> Option<Topic> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn forget(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn put(&self, name: &str, in_topology: bool, ledger: u64) -> Topic {
        let topic = Topic { name: name.into(), in_topology, ledger };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert(topic).clone()
    }
}

/// A failure as Pulsar tells it.
pub(crate) type Refusal = (ServerError, String);

/// The topic of a full name, made if it is not there and may be. The caller holds [`Topics::opening`].
pub(crate) async fn open(shared: &Shared, name: &str, create: bool) -> Result<Topic, Refusal> {
    let local = shared.options.namespace.topic(name)?;
    if let Some(topic) = shared.topics.get(local) {
        return Ok(topic);
    }
    let refused = |error: BrokerError| refusal(&error);
    let mut making = shared.topics.making.lock().await;
    if let Some(found) = shared.broker.topic_stats(local).await.map_err(refused)? {
        let ledger = shared.ledgers.of(shared.broker.as_ref(), local).await.map_err(refused)?;
        return Ok(shared.topics.put(local, found.spec.kind != TopicKind::Plain, ledger));
    }
    if !create {
        return Err((ServerError::TopicNotFound, format!("topic `{name}` does not exist")));
    }
    let count = async || {
        let all = shared.broker.stats().await?;
        Ok(all.iter().filter(|topic| topic.spec.kind == TopicKind::Plain).count())
    };
    if let Some(there) = making.named.is_full(shared.options.auto_topics_max, count).await.map_err(refused)? {
        return Err((
            ServerError::NotAllowed,
            format!(
                "topic `{name}` is not made: there are {there} already, as many as may be; `--topics-max` of `leat broker` says how many"
            ),
        ));
    }
    making.make();
    // Nothing is kept beyond its acknowledgement, as with Pulsar.
    let spec = TopicSpec { name: local.to_owned(), kind: TopicKind::Plain, ..TopicSpec::default() };
    shared.broker.create_topic(spec).await.map_err(refused)?;
    let ledger = shared.ledgers.of(shared.broker.as_ref(), local).await.map_err(refused)?;
    Ok(shared.topics.put(local, false, ledger))
}

/// A broker's error with Pulsar's code for it.
pub(crate) fn refusal(error: &BrokerError) -> Refusal {
    let code = match error.kind() {
        ErrorKind::NotFound => ServerError::SubscriptionNotFound,
        ErrorKind::Conflict => ServerError::ConsumerBusy,
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Settled => ServerError::NotAllowed,
        ErrorKind::Full => ServerError::ProducerBlockedQuotaExceeded,
        ErrorKind::Closed | ErrorKind::Unavailable => ServerError::ServiceNotReady,
        ErrorKind::Storage => ServerError::Persistence,
        _ => ServerError::Unknown,
    };
    (code, error.to_string())
}

/// Removes a topic without subscriptions, while nobody can open it.
pub(crate) async fn delete(shared: &Shared, topic: &str) -> Result<(), BrokerError> {
    shared.topics.forget(topic);
    shared.broker.delete_topic(topic).await?;
    epochs::forget(shared.broker.as_ref(), topic).await?;
    shared.ledgers.forget(shared.broker.as_ref(), topic).await
}

/// Removes topics outside of any topology that nobody uses, as Pulsar's broker does with `brokerDeleteInactiveTopicsEnabled`, until it is aborted.
pub(crate) async fn clean(shared: Arc<Shared>) {
    let Some(every) = shared.options.inactive_topics else { return };
    let mut unused = HashMap::new();
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = remove_unused(&shared, &mut unused).await {
            tracing::debug!(%error, "topics that nobody uses stay until the next look");
        }
    }
}

/// Removes the topics that were unused at the last look and have got nothing since. `unused` is by name what each of them had got.
async fn remove_unused(shared: &Shared, unused: &mut HashMap<String, u64>) -> Result<(), BrokerError> {
    // Somebody may be just about to use one: then at the next look.
    let Ok(_alone) = shared.topics.opening.try_write() else { return Ok(()) };
    let (all, produced) = (shared.broker.stats().await?, shared.seats.topics());
    // One that keeps messages for whoever comes later is in use as it is.
    let idle = |topic: &TopicStats| {
        topic.spec.kind == TopicKind::Plain
            && topic.spec.retention.is_zero()
            && topic.subscriptions.is_empty()
            && !produced.contains(topic.spec.name.as_str())
    };
    let before = std::mem::take(unused);
    for TopicStats { spec, published, .. } in all.into_iter().filter(idle) {
        // One that somebody has made, and not only named, is there until somebody removes it.
        if super::admin::is_made(shared.broker.as_ref(), &spec.name).await? {
            continue;
        }
        if before.get(&spec.name) != Some(&published) {
            unused.insert(spec.name, published);
            continue;
        }
        tracing::debug!(topic = spec.name, "removed: nobody uses it");
        delete(shared, &spec.name).await?;
    }
    Ok(())
}

/// Removes what readers of an earlier server, which did not end properly, have left.
pub(crate) async fn remove_readers(broker: &dyn Broker) -> Result<(), BrokerError> {
    for topic in broker.stats().await? {
        for (name, stats) in &topic.subscriptions {
            if name.starts_with(READER) && stats.consumers == 0 {
                broker.unsubscribe(&topic.spec.name, name).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_topics_are_made_than_may_be_and_few_looks_are_taken() {
        const LIMIT: usize = 1_000;
        let (mut making, mut there, mut looks) = (Making::default(), 0, 0);
        for number in 0..2 * LIMIT {
            // By naming them, and through the admin API.
            let room = if number % 3 == 0 { &mut making.all } else { &mut making.named };
            let count = async || {
                looks += 1;
                Ok(there)
            };
            let full = room.is_full(LIMIT, count).await.unwrap();
            if let Some(count) = full {
                assert_eq!((count, there), (LIMIT, LIMIT), "topic {number} is refused");
                continue;
            }
            making.make();
            there += 1;
        }
        assert_eq!(there, LIMIT);
        assert!(looks - LIMIT < 40, "{} looks while there was room", looks - LIMIT);
    }
}
