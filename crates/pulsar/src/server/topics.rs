//! The broker's topics as a client sees them: found, or made when a client names them first.

use super::Shared;
use crate::wire::proto::ServerError;
use leatworks_broker::{Broker, BrokerError, ErrorKind, TopicKind, TopicSpec};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Subscriptions that end with their consumer are named so on the broker: those that a crash has left are found by it.
pub(crate) const READER: &str = "leat-reader--";

/// A topic that is known to exist.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name on the broker.
    pub(crate) name: Arc<str>,
    /// Whether it belongs to a topology, so that the envelope is read and shown.
    pub(crate) in_topology: bool,
}

/// Topics that are known to exist. The broker never removes one, nor changes its kind.
#[derive(Default)]
pub(crate) struct Topics {
    known: Mutex<HashMap<String, Topic>>,
}

impl Topics {
    fn get(&self, name: &str) -> Option<Topic> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: &str, in_topology: bool) -> Topic {
        let topic = Topic { name: name.into(), in_topology };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert(topic).clone()
    }
}

/// A failure as Pulsar tells it.
pub(crate) type Refusal = (ServerError, String);

/// The topic of a full name, made if it is not there and may be.
pub(crate) async fn open(shared: &Shared, name: &str, create: bool) -> Result<Topic, Refusal> {
    let local = shared.options.namespace.topic(name)?;
    if let Some(topic) = shared.topics.get(local) {
        return Ok(topic);
    }
    let refused = |error: BrokerError| refusal(&error);
    let all = shared.broker.stats().await.map_err(refused)?;
    if let Ok(found) = all.binary_search_by(|topic| topic.spec.name.as_str().cmp(local)) {
        return Ok(shared.topics.put(local, all[found].spec.kind != TopicKind::Plain));
    }
    if !create {
        return Err((ServerError::TopicNotFound, format!("topic `{name}` does not exist")));
    }
    let spec = TopicSpec { name: local.to_owned(), kind: TopicKind::Plain, ..TopicSpec::default() };
    shared.broker.create_topic(spec).await.map_err(refused)?;
    Ok(shared.topics.put(local, false))
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
