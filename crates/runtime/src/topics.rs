//! The topics and subscriptions of a topology.

use crate::def::{EdgeDef, TopologyDef};
use leatworks_broker::{Broker, Result, Start, TopicKind, TopicSpec};
use std::time::Duration;

/// The subscription that keeps the messages of a dead-letter topic until somebody redrives or drops them.
pub const DEAD_LETTER_SUBSCRIPTION: &str = "dlq";

/// Makes what is missing of a topology's topics and subscriptions. It is all there before anything is published, since a topic without
/// a subscription keeps nothing.
///
/// # Errors
/// What the broker says.
pub async fn create(broker: &dyn Broker, topology: &TopologyDef) -> Result<()> {
    for edge in topology.edges {
        let kind = if edge.from.is_none() { TopicKind::Ingress } else { TopicKind::Route };
        make(broker, topology, edge.topic, kind, edge.subscription).await?;
        make(broker, topology, edge.retry_topic, TopicKind::Route, edge.subscription).await?;
        make(broker, topology, edge.dead_letter_topic, TopicKind::DeadLetter, DEAD_LETTER_SUBSCRIPTION).await?;
    }
    Ok(())
}

async fn make(broker: &dyn Broker, topology: &TopologyDef, topic: &str, kind: TopicKind, subscription: &str) -> Result<()> {
    let spec = TopicSpec { name: topic.to_owned(), kind, topology: topology.name.to_owned(), retention: Duration::ZERO };
    broker.create_topic(spec).await?;
    broker.create_subscription(topic, subscription, Start::Earliest).await
}

/// Whether nothing is pending on any of these edges, and how much has ever been published on them.
pub(crate) async fn pending(broker: &dyn Broker, edges: &[&'static EdgeDef]) -> Result<Pending> {
    let stats = broker.stats().await?;
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
    Ok(pending)
}

/// How much is pending on some edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Messages that are not settled.
    pub(crate) messages: u64,
    /// Messages ever published, to tell whether something has moved between two looks.
    pub(crate) published: u64,
}
