//! Looking into a subscription: what of it is not settled, without taking it.

use super::{
    Inner,
    pack::Place,
    reader::{Acknowledged, Reading},
    seat::Subscription,
    topics::retry_topic,
};
use leatworks_broker::{Message, Position, Result};
use std::sync::Arc;

/// What was seen.
#[derive(Default)]
pub(super) struct Unsettled {
    /// What is not settled, in the order of the topic.
    pub(super) open: Vec<(Position, Message)>,
    /// What a step with state has settled without the service having heard of it.
    unheard: Vec<Part>,
}

/// Messages of one entry.
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) indexes: Vec<usize>,
    /// How many messages the entry has.
    pub(super) total: usize,
}

impl Inner {
    pub(super) async fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Message)>> {
        self.check()?;
        self.check_subscription(topic, subscription).await?;
        let known = self.subscription(topic, subscription);
        let mut found = self.look(topic, &known, from, limit).await?;
        let retry = retry_topic(topic, subscription);
        if retry != topic && self.visible(&retry).await?.is_none() {
            found.extend(self.look(&retry, &known, Position(0), usize::MAX).await?);
        }
        found.retain(|(position, _)| *position >= from);
        found.sort_by_key(|(position, _)| *position);
        found.truncate(limit);
        Ok(found)
    }

    /// What of a topic is not settled. What steps with state have settled is acknowledged where nobody would take it: who died between his step and its
    /// acknowledgement has left it, and with it the other messages of its entry, to be found by every process that has not opened the state.
    async fn look(
        &self,
        topic: &str,
        known: &Arc<Subscription>,
        from: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Message)>> {
        let Unsettled { open, unheard } = self.unsettled(topic, known, from, limit).await?;
        // A consumer gets it by and by, and acknowledges it then.
        let is_taken = known.hands().kind().is_some();
        if !unheard.is_empty()
            && !is_taken
            && let Err(error) = self.tell_parts(topic, known, unheard).await
        {
            // It stays as it was until somebody looks again.
            tracing::info!(topic, %error, "what is settled could not be acknowledged");
        }
        Ok(open)
    }

    pub(super) async fn unsettled(
        &self,
        topic: &str,
        subscription: &Arc<Subscription>,
        from: Position,
        limit: usize,
    ) -> Result<Unsettled> {
        let internal = self.admin.internal(topic).await?;
        let cursor = internal.cursors.get(&*subscription.name);
        let Some(acknowledged) = cursor.and_then(Acknowledged::read) else { return Ok(Unsettled::default()) };
        let (first, _) = Place::of(from);
        let after = acknowledged.through.max((first.ledger, first.entry as i64 - 1));
        let mut found = Unsettled::default();
        let reading = Reading { pool: &self.consuming, admin: &self.admin, options: &self.options };
        reading
            .entries(topic, after, |place, messages| {
                if acknowledged.has(place) {
                    return true;
                }
                let hands = subscription.hands();
                let mut part = Part { place, indexes: Vec::new(), total: messages.len() };
                for (index, arrived) in messages.into_iter().enumerate().filter(|(index, _)| hands.is_open(place, *index)) {
                    match arrived.again.position.or_else(|| place.position(index)) {
                        Some(position) if hands.is_pinned(position) => part.indexes.push(index),
                        Some(position) => found.open.push((position, arrived.message)),
                        None => {}
                    }
                }
                found.unheard.extend(Some(part).filter(|part| !part.indexes.is_empty()));
                found.open.len() < limit
            })
            .await?;
        Ok(found)
    }
}
