//! How many producers have had a topic for themselves, so that one that comes back knows whether another has had it since.

use super::topics::{self, Refusal};
use crate::wire::proto::ServerError;
use leatworks_broker::{Broker, BrokerError, Step};

fn key(topic: &str) -> String {
    format!("leat-pulsar/epoch/{topic}")
}

/// The number of a producer that has taken a topic for itself: the one that it has had if nobody has come since, or else a new one. It is durable, so
/// that also a server that begins anew knows.
pub(crate) async fn next(broker: &dyn Broker, topic: &str, had: Option<u64>) -> Result<u64, Refusal> {
    let refused = |error: BrokerError| topics::refusal(&error);
    let text = broker.state(&key(topic)).await.map_err(refused)?;
    let last = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).unwrap_or(0);
    match had {
        Some(had) if had < last => {
            Err((ServerError::ProducerFenced, format!("another producer has had topic `{topic}` for itself since epoch {had}")))
        }
        Some(had) if had == last => Ok(had),
        had => {
            let next = had.unwrap_or(last + 1);
            let state = vec![(key(topic), Some(next.to_string().into()))];
            broker.commit(Step { state, ..Step::default() }).await.map_err(refused)?;
            Ok(next)
        }
    }
}

/// The topic is gone.
pub(crate) async fn forget(broker: &dyn Broker, topic: &str) -> Result<(), BrokerError> {
    let key = key(topic);
    match broker.state(&key).await? {
        Some(_) => broker.commit(Step { state: vec![(key, None)], ..Step::default() }).await,
        None => Ok(()),
    }
}
