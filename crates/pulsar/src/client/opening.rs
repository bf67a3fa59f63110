//! How the ledger of a subscription is opened, and what is known of its messages by then.

use super::{
    Inner,
    attempts::{self, Ledger},
    error::PulsarError,
    pack::Place,
    reader::{self, Acknowledged},
    seat::Subscription,
    topics::retry_topic,
};
use leatworks_broker::{BrokerError, ErrorKind, Position, Result};
use std::{collections::HashSet, sync::Arc};

/// How many messages of a retry topic are looked at: reading them takes well under a second.
const RETRIED_LOOKED_AT_MAX: usize = 10_000;

/// What is known of the messages of records that were there when a ledger was opened: some were settled by one who could not tell there any
/// more, and would be waited for without end.
pub(crate) struct Before {
    /// The last record that was there.
    pub(crate) last: (u64, i64),
    /// What was acknowledged of the topic itself; none if it is a retry topic, where messages have the places they had first.
    pub(crate) acknowledged: Option<Acknowledged>,
    /// What was unsettled in the retry topic, by where it stood first.
    pub(crate) pending: HashSet<Position>,
    /// The retry topic has consumers of its own, so what waits there goes on there.
    pub(crate) elsewhere: bool,
}

impl Before {
    /// Whether a message was settled that this record tells of.
    pub(crate) fn is_settled(&self, position: Position, record: Position) -> bool {
        let (place, _) = Place::of(record);
        let was_there = (place.ledger, place.entry as i64) <= self.last;
        let acknowledged = |known: &Acknowledged| known.has(Place::of(position).0);
        let settled = || self.acknowledged.as_ref().is_none_or(acknowledged) && !self.pending.contains(&position);
        was_there && (self.has_moved(position) || settled())
    }

    /// Whether a message was given back, and is handed out elsewhere.
    pub(crate) fn has_moved(&self, position: Position) -> bool {
        self.elsewhere && self.pending.contains(&position)
    }
}

impl Inner {
    /// Where the attempts of a subscription are noted.
    pub(super) async fn ledger(&self, subscription: &Arc<Subscription>) -> Result<Arc<Ledger>> {
        let open = async {
            let topic = attempts::ledger_topic(&subscription.topic, &subscription.name);
            let sender = self.sender(&topic, None)?;
            let notes = self.options.notes.as_deref();
            if let Some(notes) = notes {
                // First, so that it is read with all that is there.
                Ledger::send_left(&sender, notes, &self.consuming.place_of(&self.options.full(&topic))).await?;
            }
            let mut internal = self.admin.internal(&topic).await?;
            let cursor = internal.cursors.remove(attempts::CURSOR);
            let through = cursor.and_then(|cursor| reader::place(&cursor.mark_delete_position));
            let through = through.ok_or_else(|| PulsarError::NotFound(format!("topic `{topic}` has lost its subscription")))?;
            let before = match reader::place(&internal.last_confirmed_entry) {
                Some(last) => self.before(subscription, last).await?,
                None => None,
            };
            let (pool, topic) = (self.consuming.clone(), self.options.full(&topic));
            Ledger::open(pool, topic, sender, through, before, notes).await.map_err(BrokerError::from)
        };
        Ok(subscription.ledger.get_or_try_init(|| open).await?.clone())
    }

    /// What is settled of a subscription whose ledger ends with this record. None if too much waits in the retry topic to look at.
    async fn before(&self, subscription: &Arc<Subscription>, last: (u64, i64)) -> Result<Option<Before>> {
        let Subscription { topic, name, .. } = &**subscription;
        let retry = retry_topic(topic, name);
        let acknowledged = match retry == **topic {
            true => None,
            // Before the retry topic: what is given back is there before it is acknowledged here.
            false => match self.admin.internal(topic).await?.cursors.get(&**name).and_then(Acknowledged::read) {
                Some(known) => Some(known),
                None => return Ok(None),
            },
        };
        let waiting = match self.unsettled(&retry, subscription, Position(0), RETRIED_LOOKED_AT_MAX).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            found => found?.open,
        };
        let pending = waiting.iter().map(|(position, _)| *position).collect();
        let elsewhere = self.has_others(&retry, topic).await?;
        Ok((waiting.len() < RETRIED_LOOKED_AT_MAX).then_some(Before { last, acknowledged, pending, elsewhere }))
    }

    /// Whether what is given back has consumers of its own in the graph.
    async fn has_others(&self, retry: &str, topic: &str) -> Result<bool> {
        Ok(retry != topic && self.visible(retry).await?.is_some())
    }

    /// If the graph has consumers of its own for what is given back, nothing more is told of it here; its copy says its attempts. That is noted before it is acknowledged: if the service
    /// loses the acknowledgement, the message is not handed out here beside its copy.
    pub(super) async fn told_by_another(&self, subscription: &Subscription, position: Position) {
        let retry = retry_topic(&subscription.topic, &subscription.name);
        let others = matches!(self.has_others(&retry, &subscription.topic).await, Ok(true));
        if let (true, Some(ledger)) = (others, subscription.ledger.get()) {
            if let Err(error) = ledger.moved(position).await {
                tracing::info!(topic = %subscription.topic, %error, "it is not noted that a message was given back");
            }
            subscription.hands().forget(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::admin::Cursor;

    #[test]
    fn what_was_acknowledged_and_does_not_wait_elsewhere_is_settled() {
        let cursor = Cursor { mark_delete_position: "3:1".to_owned(), ..Cursor::default() };
        let at = |entry| Place { ledger: 3, entry }.position(0).unwrap();
        // 0 and 1 are acknowledged where they stood first; 1 was given back, and waits.
        let before = |own: bool| Before {
            last: (3, 7),
            acknowledged: if own { None } else { Acknowledged::read(&cursor) },
            pending: HashSet::from([at(1), at(6)]),
            elsewhere: false,
        };
        let settled = |own, record| [at(0), at(1), at(5)].map(|position| before(own).is_settled(position, at(record)));
        assert_eq!(settled(false, 7), [true, false, false]);
        assert_eq!(settled(false, 8), [false; 3], "what is noted later is in hand");
        assert_eq!(settled(true, 7), [true, false, true], "in a retry topic only what waits is not settled");
        let elsewhere = Before { elsewhere: true, ..before(false) };
        let gone =
            [at(0), at(1), at(5), at(6)].map(|position| (elsewhere.is_settled(position, at(7)), elsewhere.has_moved(position)));
        assert_eq!(
            gone,
            [(true, false), (true, true), (false, false), (true, true)],
            "what waits for others is not handed out here"
        );
    }
}
