//! The brokers of topologies: their subscriptions, and what waits on edges that are let go.

use crate::{
    cluster::{Cluster, ClusterError},
    crd, graph,
    plan::EdgeQueue,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use leatworks::topics::{self, TopologyRef};
use leatworks_broker::{BoxFuture, Broker, BrokerError, ErrorKind, TopicStats};
use leatworks_pulsar::{PulsarBroker, PulsarError, PulsarOptions, Secret};
use leatworks_topology as model;
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::Mutex;

/// A broker cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A secret of its cannot be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A secret does not hold what it should.
    #[error("secret `{name}` has no key `{key}`")]
    NoSecret {
        /// The secret.
        name: String,
        /// The key.
        key: String,
    },
    /// The certificates cannot be kept in a file.
    #[error("keeping the certificates of the broker in `{path}`: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The service cannot be reached, or says no.
    #[error("the Pulsar service at `{url}`: {error}")]
    Connect {
        /// Its address.
        url: String,
        /// Why.
        error: PulsarError,
    },
    /// Something could not be done there.
    #[error("the broker: {0}")]
    Broker(#[from] BrokerError),
}

impl QueueError {
    /// Whether a new connection may help. What the broker has refused to one topology it would refuse over any, and others use the same connection.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        use ErrorKind::{Conflict, Full, Invalid, NotFound, Settled, TooLarge};
        let Self::Broker(error) = self else { return true };
        !matches!(error.kind(), NotFound | Conflict | Invalid | TooLarge | Full | Settled)
    }
}

/// Opens brokers of topologies.
pub trait Brokers: Send + Sync + 'static {
    /// The broker that a topology of this namespace names.
    fn open<'a>(
        &'a self,
        cluster: &'a Cluster,
        namespace: &'a str,
        broker: &'a crd::Broker,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, QueueError>>;

    /// Forgets a broker that has failed, so that the next one is connected anew.
    fn forget<'a>(&'a self, namespace: &'a str, broker: &'a crd::Broker) -> BoxFuture<'a, ()>;
}

/// Brokers that are Pulsar services, each connected once.
#[derive(Default)]
pub struct Pulsars {
    open: Mutex<HashMap<String, Arc<dyn Broker>>>,
}

/// What tells connections apart: topologies of two namespaces have different secrets.
fn key(namespace: &str, broker: &crd::Broker) -> String {
    format!("{namespace} {broker:?}")
}

impl Brokers for Pulsars {
    fn open<'a>(
        &'a self,
        cluster: &'a Cluster,
        namespace: &'a str,
        broker: &'a crd::Broker,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, QueueError>> {
        Box::pin(async move {
            let key = key(namespace, broker);
            if let Some(open) = self.open.lock().await.get(&key) {
                return Ok(open.clone());
            }
            let options = options(cluster, namespace, broker).await?;
            let url = options.url.clone();
            let opened = PulsarBroker::connect(options).await.map_err(|error| QueueError::Connect { url, error })?;
            let opened: Arc<dyn Broker> = Arc::new(opened);
            Ok(self.open.lock().await.entry(key).or_insert(opened).clone())
        })
    }

    fn forget<'a>(&'a self, namespace: &'a str, broker: &'a crd::Broker) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let gone = self.open.lock().await.remove(&key(namespace, broker));
            if let Some(gone) = gone {
                // Others may still use it; then it is closed when they have failed too.
                let _ = gone.close().await;
            }
        })
    }
}

async fn options(cluster: &Cluster, namespace: &str, broker: &crd::Broker) -> Result<PulsarOptions, QueueError> {
    let mut options = PulsarOptions {
        url: broker.url.clone(),
        admin_url: broker.admin_url.clone(),
        tenant: broker.tenant.clone(),
        namespace: broker.namespace.clone(),
        ..PulsarOptions::default()
    };
    if let Some(secret) = &broker.token_secret {
        let bytes = read(cluster, namespace, secret).await?;
        options.token = Some(Secret::new(String::from_utf8_lossy(&bytes).trim()));
    }
    if let Some(secret) = &broker.ca_secret {
        let bytes = read(cluster, namespace, secret).await?;
        let hash = crate::names::hash8(&format!("{namespace} {secret:?} {bytes:?}"));
        let path = std::env::temp_dir().join(format!("leatworks-ca-{hash}.pem"));
        tokio::fs::write(&path, bytes).await.map_err(|error| QueueError::File { path: path.clone(), error })?;
        options.ca_file = Some(path);
    }
    Ok(options)
}

async fn read(cluster: &Cluster, namespace: &str, secret: &crd::KeyRef) -> Result<Vec<u8>, QueueError> {
    let found = cluster.secret(namespace, &secret.name, &secret.key).await?;
    found.ok_or_else(|| QueueError::NoSecret { name: secret.name.clone(), key: secret.key.clone() })
}

/// How many edges get their topics at once, or are let go: a Pulsar takes its time for each topic, and most of that is waiting.
pub(crate) const EDGES_AT_ONCE: usize = 8;

/// Makes what is missing of the topics and subscriptions of these edges of a graph.
///
/// # Errors
/// What the broker says. Some edges may have got theirs.
pub async fn subscribe(broker: &dyn Broker, of: &model::Topology, wanted: &BTreeSet<String>) -> Result<(), QueueError> {
    let TopologyRef { name, edges } = graph::reference(of);
    let wanted = edges.into_iter().filter(|edge| wanted.contains(&edge.id));
    let references = wanted.map(|edge| TopologyRef { name: name.clone(), edges: vec![edge] });
    let made = stream::iter(references.collect::<Vec<_>>())
        .map(async |one| topics::create(broker, &one).await)
        .buffer_unordered(EDGES_AT_ONCE);
    Ok(made.try_collect::<()>().await?)
}

/// What waits on an edge.
///
/// # Errors
/// What the broker says.
pub async fn queue(broker: &dyn Broker, topic: &str, subscription: &str, retry_topic: &str) -> Result<EdgeQueue, QueueError> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let pending =
        |stats: &TopicStats| stats.subscriptions.get(subscription).map_or(0, |found| number(found.backlog + found.in_flight));
    // Not at once: a message that is tried again is there before it is gone here, so whoever looks here first sees it in one of them.
    let stats = broker.topic_stats(topic).await?;
    let retries = broker.topic_stats(retry_topic).await?;
    Ok(EdgeQueue {
        published: stats.as_ref().map_or(0, |stats| number(stats.published)),
        pending: stats.as_ref().map_or(0, pending),
        retrying: retries.as_ref().map_or(0, pending),
    })
}

/// Removes the subscription of an edge, and where its messages waited to be tried again. Its dead letters stay.
///
/// # Errors
/// What the broker says, also that somebody still uses them.
pub async fn unsubscribe(broker: &dyn Broker, topic: &str, subscription: &str, retry_topic: &str) -> Result<(), QueueError> {
    for name in [topic, retry_topic] {
        absent(broker.unsubscribe(name, subscription).await)?;
    }
    absent(broker.delete_topic(retry_topic).await)?;
    Ok(())
}

/// What is not there need not go.
fn absent(result: leatworks_broker::Result<()>) -> Result<(), QueueError> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_to_one_topology_costs_the_others_no_connection() {
        for (kind, expected) in [
            (ErrorKind::Invalid, false),
            (ErrorKind::Full, false),
            (ErrorKind::Conflict, false),
            (ErrorKind::Unavailable, true),
            (ErrorKind::Closed, true),
            // The secret may hold another token by now.
            (ErrorKind::Denied, true),
        ] {
            let error = QueueError::Broker(BrokerError::new(kind, "no"));
            assert_eq!(error.is_of_the_connection(), expected, "{kind:?}");
        }
    }
}
