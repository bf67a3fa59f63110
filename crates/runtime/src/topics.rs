//! The topics and subscriptions of a topology.

use crate::def::{EdgeDef, TopologyDef};
use leatworks_broker::{Broker, Durability, Result, Start, TopicKind, TopicSpec, TopicStats};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The subscription that keeps the messages of a dead-letter topic until somebody redrives or drops them.
pub const DEAD_LETTER_SUBSCRIPTION: &str = "dlq";

/// A topology as the broker knows it: what is needed to look into its queues, without its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyRef {
    /// Its name.
    pub name: String,
    /// Its edges.
    pub edges: Vec<EdgeRef>,
}

/// An edge as the broker knows it; the fields are those of [`EdgeDef`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "described at EdgeDef")]
pub struct EdgeRef {
    pub id: String,
    pub ingress: bool,
    pub topic: String,
    pub subscription: String,
    pub retry_topic: String,
    pub dead_letter_topic: String,
}

impl From<&TopologyDef> for TopologyRef {
    fn from(topology: &TopologyDef) -> Self {
        let edges = topology.edges.iter().map(|edge| EdgeRef {
            id: edge.id.to_owned(),
            ingress: edge.from.is_none(),
            topic: edge.topic.to_owned(),
            subscription: edge.subscription.to_owned(),
            retry_topic: edge.retry_topic.to_owned(),
            dead_letter_topic: edge.dead_letter_topic.to_owned(),
        });
        Self { name: topology.name.to_owned(), edges: edges.collect() }
    }
}

/// Makes what is missing of a topology's topics and subscriptions. It is all there before anything is published, since a topic without
/// a subscription keeps nothing.
///
/// # Errors
/// What the broker says.
pub async fn create(broker: &dyn Broker, topology: &TopologyRef) -> Result<()> {
    create_at(broker, topology, None).await
}

/// The same with a level of durability. Without one it stays what it is, which at first is the broker's.
pub(crate) async fn create_at(broker: &dyn Broker, topology: &TopologyRef, durability: Option<Durability>) -> Result<()> {
    let topic = |name: &str, kind| TopicSpec {
        name: name.to_owned(),
        kind,
        topology: topology.name.clone(),
        durability,
        ..TopicSpec::default()
    };
    for edge in &topology.edges {
        let kind = if edge.ingress { TopicKind::Ingress } else { TopicKind::Route };
        make(broker, topic(&edge.topic, kind), &edge.subscription).await?;
        make(broker, topic(&edge.retry_topic, TopicKind::Route), &edge.subscription).await?;
        make(broker, topic(&edge.dead_letter_topic, TopicKind::DeadLetter), DEAD_LETTER_SUBSCRIPTION).await?;
    }
    Ok(())
}

async fn make(broker: &dyn Broker, spec: TopicSpec, subscription: &str) -> Result<()> {
    let topic = spec.name.clone();
    broker.create_topic(spec).await?;
    broker.create_subscription(&topic, subscription, Start::Earliest).await
}

/// What is pending on each edge on which something is.
pub(crate) async fn backlogs(broker: &dyn Broker, edges: &'static [EdgeDef]) -> Result<BTreeMap<String, u64>> {
    let stats = broker.stats().await?;
    let backlog = |edge: &'static EdgeDef| (edge.id.to_owned(), pending_in(&stats, &[edge]).messages);
    Ok(edges.iter().map(backlog).filter(|(_, messages)| *messages > 0).collect())
}

/// Whether nothing is pending on any of these edges, and how much has ever been published on them.
pub(crate) async fn pending(broker: &dyn Broker, edges: &[&'static EdgeDef]) -> Result<Pending> {
    Ok(pending_in(&broker.stats().await?, edges))
}

/// The same by what the broker has told already.
pub(crate) fn pending_in(stats: &[TopicStats], edges: &[&'static EdgeDef]) -> Pending {
    let mut pending = Pending::default();
    for edge in edges {
        for name in [edge.topic, edge.retry_topic] {
            let Ok(found) = stats.binary_search_by(|topic| topic.spec.name.as_str().cmp(name)) else { continue };
            pending.published += stats[found].published;
            if let Some(subscription) = stats[found].subscriptions.get(edge.subscription) {
                pending.messages += subscription.backlog + subscription.in_flight;
            }
        }
    }
    pending
}

/// How much is pending on some edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Messages that are not settled.
    pub(crate) messages: u64,
    /// Messages ever published, to tell whether something has moved between two looks.
    pub(crate) published: u64,
}
