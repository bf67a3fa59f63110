//! Steps: outputs are there before inputs are acknowledged, and inputs are acknowledged entry by entry.

use super::{
    Inner,
    error::{Answer, PulsarError},
    feed::{Feed, FeedOptions, Sink},
    hands::{Acks, Barred, Taken},
    limits::STILL_MAX,
    pack::{Again, NO_POSITION, Outgoing, Place},
    peek::Part,
    reader::Reading,
    seat::Subscription,
    state::{self, Runs, Settles, Store},
    topics::{retry_topic, sub_type},
};
use crate::wire::{frame::Entry, proto::Deliver};
use futures_util::future::join_all;
use leatworks_broker::{Ack, BrokerError, ErrorKind, Message, Position, Result, Step, SubscriptionKind};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The inputs of a step on one subscription.
struct Inputs {
    subscription: Arc<Subscription>,
    /// Those that are settled through the hands of this process.
    held: Vec<Position>,
    /// Those that this process never got.
    unknown: Vec<Position>,
}

/// Inputs that are being settled. If nothing comes of it, also because nobody waits for it any more, they are as they were.
struct Begun(Vec<Inputs>);

impl Begun {
    /// What is settled, and where it lies.
    fn settles(&self) -> Vec<Settles> {
        let of = |Inputs { subscription, held, unknown }: &Inputs| {
            let hands = subscription.hands();
            let positions = held.iter().chain(unknown).map(|position| (*position, hands.lies_at(*position))).collect();
            Settles { topic: subscription.topic.clone(), subscription: subscription.name.clone(), positions }
        };
        self.0.iter().map(of).collect()
    }

    /// Sends notes of the inputs again that were refused: a step that cannot be ended publishes nothing.
    async fn send_refused(&self) -> Result<()> {
        for Inputs { subscription, held, .. } in &self.0 {
            if let Some(ledger) = subscription.ledger.get() {
                ledger.send_refused(held).await?;
            }
        }
        Ok(())
    }

    /// Waits until the ledgers have what was noted of the inputs: what is settled is known there. With `alone` none of them may be a repetition.
    async fn arrived(&self, alone: bool) -> Result<()> {
        for Inputs { subscription, held, .. } in &self.0 {
            if let Some(ledger) = subscription.ledger.get() {
                ledger.arrived(held, alone).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for Inputs { subscription, held, .. } in &self.0 {
            let mut hands = subscription.hands();
            held.iter().for_each(|position| hands.undo(*position));
        }
    }
}

/// Nothing that comes is wanted.
pub(super) struct Nobody;

impl Sink for Nobody {
    fn arrived(&self, _: &Arc<Feed>, _: Deliver, _: Entry) {}
    fn lost(&self, _: &Arc<Feed>) {}
    fn failed(&self, _: &Arc<Feed>, _: PulsarError) {}
}

/// A consumer that can acknowledge; its own one gets nothing, and has to leave.
pub(super) struct Acker {
    pub(super) feed: Arc<Feed>,
    is_own: bool,
}

impl Acker {
    pub(super) async fn leave(self) {
        if self.is_own {
            self.feed.close().await;
        }
    }
}

impl Inner {
    pub(super) async fn commit(self: Arc<Self>, step: Step) -> Result<()> {
        self.check()?;
        let state = state::check(&step.state)?;
        self.check_publishes(&step.publishes).await?;
        let mut named: Option<(&str, &str)> = None;
        for Ack { topic, subscription, position, cumulative } in &step.acks {
            // Mostly they are all of one subscription, and the service is asked about it.
            if named.replace((topic, subscription)) != Some((topic.as_ref(), subscription.as_ref())) {
                self.check_named(topic, subscription).await?;
            }
            let known = self.subscription(topic, subscription).hands().holds(*position);
            if *cumulative && !known && self.is_beyond(topic, Place::of(*position).0).await? {
                return Err(missing(topic, *position));
            }
        }
        let store = match state {
            Some(topic) => Some(self.store(&topic).await?),
            None => None,
        };
        let begun = self.begin(&step.acks, step.guard)?;
        begun.send_refused().await?;
        let Some(store) = store else {
            if !step.publishes.is_empty() {
                self.publish_checked(step.publishes).await?;
            }
            begun.arrived(false).await?;
            return self.acknowledge(begun).await;
        };
        // It is gone through with, whether or not the caller waits for it: an input that is given back while its step is being written would
        // be in the state twice.
        let stepping = tokio::spawn(async move { self.step_with_state(&store, step, begun).await });
        stepping.await.unwrap_or_else(|_| Err(PulsarError::Closed.into()))
    }

    /// Outputs first, then the record that is the step, then the acknowledgements.
    async fn step_with_state(&self, store: &Store, step: Step, begun: Begun) -> Result<()> {
        if !step.publishes.is_empty() {
            self.publish_checked(step.publishes).await?;
        }
        begun.arrived(true).await?;
        let settles = begun.settles();
        let number = store.step(self, step.state, &settles).await?;
        match self.acknowledge(begun).await {
            Ok(()) => store.told(number),
            Err(error) => {
                // The step has happened. Its inputs are acknowledged when they come again.
                tracing::info!(%error, "a step is not acknowledged");
                for Settles { topic, subscription, positions } in settles {
                    let settled = Runs::of(positions.into_iter().map(|(position, _)| position));
                    self.subscription(&topic, &subscription).hands().pin(settled);
                }
            }
        }
        Ok(())
    }

    async fn acknowledge(&self, mut begun: Begun) -> Result<()> {
        let mut acks: Acks = Vec::new();
        for Inputs { subscription, held, unknown } in std::mem::take(&mut begun.0) {
            acks.extend(subscription.settle(&held));
            self.settle_elsewhere(&subscription, unknown).await?;
        }
        self.tell(acks).await
    }

    /// Takes the inputs, so that nobody else settles them meanwhile.
    fn begin(&self, acks: &[Ack], guard: bool) -> Result<Begun> {
        let mut inputs: HashMap<(Arc<str>, Arc<str>), Inputs> = HashMap::new();
        let mut barred = None;
        for ack in acks {
            let key = (ack.topic.clone(), ack.subscription.clone());
            let of = inputs.entry(key).or_insert_with(|| Inputs {
                subscription: self.subscription(&ack.topic, &ack.subscription),
                held: Vec::new(),
                unknown: Vec::new(),
            });
            let mut hands = of.subscription.hands();
            if ack.cumulative {
                if !matches!(hands.kind(), Some(SubscriptionKind::Exclusive | SubscriptionKind::Failover)) {
                    barred =
                        Some(BrokerError::new(ErrorKind::Invalid, "a cumulative acknowledgement needs a consumer that is alone"));
                    break;
                }
                let through = hands.through(ack.position);
                of.held.extend(through.into_iter().filter(|position| hands.begin(*position).is_ok()));
                continue;
            }
            if of.held.contains(&ack.position) {
                continue;
            }
            match hands.begin(ack.position) {
                Ok(()) => of.held.push(ack.position),
                Err(_) if guard => {
                    let text = format!("a message of `{}` is settled already, or in other hands", ack.topic);
                    barred = Some(BrokerError::new(ErrorKind::Settled, text));
                    break;
                }
                Err(Barred::Settled) => {}
                Err(Barred::Unknown) => of.unknown.push(ack.position),
            }
        }
        let begun = Begun(inputs.into_values().collect());
        barred.map_or(Ok(begun), Err)
    }

    /// Tells the service what is settled, and waits for its answers.
    async fn tell(&self, acks: Acks) -> Result<()> {
        let telling = acks.into_iter().map(|(feed, ids)| async move { (feed.ack(ids.clone()).await, feed, ids) });
        for (told, feed, ids) in join_all(telling).await {
            match told {
                Ok(()) => {}
                // Its consumer has left meanwhile, so another one says it.
                Err(error) if error.is_retryable() => {
                    let acker = self.acker_like(&feed).await?;
                    let told = acker.ack(ids).await;
                    acker.close().await;
                    told?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A consumer that gets nothing and can acknowledge.
    async fn acker_like(&self, feed: &Feed) -> Answer<Arc<Feed>> {
        let options = FeedOptions { window: 0, ..feed.options().clone() };
        Feed::open(self.consuming.clone(), options, Arc::new(Nobody)).await
    }

    /// Who acknowledges on a topic what this process has not in hand.
    pub(super) async fn acker(&self, subscription: &Subscription, topic: &str) -> Answer<Acker> {
        let full = self.options.full(topic);
        let (known, kind) = {
            let hands = subscription.hands();
            (hands.feed_of(&full), hands.kind().unwrap_or(SubscriptionKind::Shared))
        };
        if let Some(feed) = known {
            return Ok(Acker { feed, is_own: false });
        }
        subscription.settle_down().await;
        let options = FeedOptions {
            topic: full,
            subscription: subscription.name.to_string(),
            kind: sub_type(kind),
            consumer: "leatworks".to_owned(),
            window: 0,
            still_max: STILL_MAX,
            from: None,
        };
        let feed = Feed::open(self.consuming.clone(), options, Arc::new(Nobody)).await?;
        Ok(Acker { feed, is_own: true })
    }

    /// Settles messages of some entries that this process has not in hand: how large the entries are has to be looked up. Gives what is of entries that are
    /// not there.
    pub(super) async fn settle_unknown(
        &self,
        subscription: &Arc<Subscription>,
        topic: &str,
        mut wanted: BTreeMap<Place, Vec<usize>>,
    ) -> Result<BTreeMap<Place, Vec<usize>>> {
        let (Some((first, _)), Some((last, _))) = (wanted.first_key_value(), wanted.last_key_value()) else {
            return Ok(wanted);
        };
        let (after, last) = ((first.ledger, first.entry as i64 - 1), *last);
        let mut parts = Vec::new();
        let reading = Reading { pool: &self.consuming, admin: &self.admin, options: &self.options };
        reading
            .entries(topic, after, |place, messages| {
                if let Some(mut indexes) = wanted.remove(&place) {
                    let total = messages.len();
                    indexes.retain(|index| *index < total);
                    parts.push(Part { place, indexes, total });
                }
                place < last
            })
            .await?;
        if !parts.is_empty() {
            self.tell_parts(topic, subscription, parts).await?;
        }
        Ok(wanted)
    }

    /// Settles parts of entries through a consumer of their topic, all with one acknowledgement.
    pub(super) async fn tell_parts(&self, topic: &str, subscription: &Arc<Subscription>, parts: Vec<Part>) -> Answer<()> {
        let acker = self.acker(subscription, topic).await?;
        let ids: Vec<_> = {
            let mut hands = subscription.hands();
            let settle = |part: Part| hands.settle_unknown(&acker.feed, part.place, &part.indexes, part.total);
            parts.into_iter().filter_map(settle).collect()
        };
        let told = acker.feed.ack(ids).await;
        acker.leave().await;
        told
    }

    /// Settles messages that are in nobody's hands here. Each is looked for where it lies, and all of a topic together: to read and acknowledge takes some
    /// milliseconds for one and for hundreds.
    async fn settle_elsewhere(&self, subscription: &Arc<Subscription>, positions: Vec<Position>) -> Result<()> {
        let (mut own, mut copies) = (BTreeMap::<Place, Vec<usize>>::new(), BTreeMap::<Place, Vec<usize>>::new());
        {
            let hands = subscription.hands();
            for position in positions {
                let moved = hands.moved(position);
                let (place, index) = Place::of(moved.unwrap_or(position));
                let lie = if moved.is_some() { &mut copies } else { &mut own };
                lie.entry(place).or_default().push(index);
            }
        }
        // A copy that is gone was acknowledged.
        self.settle_unknown(subscription, &retry_topic(&subscription.topic, &subscription.name), copies).await?;
        let gone = self.settle_unknown(subscription, &subscription.topic, own).await?;
        // Either it was acknowledged long ago and is gone, or it never was.
        match gone.last_key_value() {
            Some((place, indexes)) if self.is_beyond(&subscription.topic, *place).await? => {
                let position = place.position(indexes[0]).unwrap_or(NO_POSITION);
                Err(missing(&subscription.topic, position))
            }
            _ => Ok(()),
        }
    }

    /// Whether a topic has nothing at this place yet.
    async fn is_beyond(&self, topic: &str, place: Place) -> Result<bool> {
        let last = self.admin.internal(topic).await.map_err(BrokerError::from)?.last_confirmed_entry;
        Ok(super::reader::place(&last).is_none_or(|last| (place.ledger, place.entry as i64) > last))
    }

    /// Gives a message back. Where any consumer may get it, it goes to the retry topic, with its attempt; where one consumer has it for
    /// itself, or its key, it is kept here in its place.
    pub(super) async fn nack(self: Arc<Self>, topic: &str, name: &str, position: Position, delay: Duration) -> Result<()> {
        self.check()?;
        self.check_named(topic, name).await?;
        let subscription = self.subscription(topic, name);
        let kind = subscription.hands().kind();
        if kind != Some(SubscriptionKind::Shared) {
            subscription.hands().keep(position, Instant::now() + delay);
            return Ok(());
        }
        let Some(taken) = subscription.hands().move_away(position) else { return Ok(()) };
        // It is gone through with, whether or not the caller waits for it: half of it would leave two messages.
        let moving = tokio::spawn(async move {
            let Taken { message, attempt, place, index } = taken;
            match self.publish_again(&subscription, position, &message, attempt, delay).await {
                Ok(()) => {
                    let acks = subscription.hands().moved_away(position, place, index);
                    subscription.ledger.get().into_iter().for_each(|ledger| ledger.left(position));
                    self.told_by_another(&subscription, position).await;
                    self.tell(acks).await
                }
                Err(error) => {
                    subscription.hands().undo(position);
                    Err(error)
                }
            }
        });
        moving.await.unwrap_or_else(|_| Err(PulsarError::Closed.into()))
    }

    async fn publish_again(
        &self,
        subscription: &Subscription,
        position: Position,
        message: &Message,
        attempt: u32,
        delay: Duration,
    ) -> Result<()> {
        let mut message = message.clone();
        if !delay.is_zero() {
            message.deliver_at_ms = Some(super::now_ms() + delay.as_millis() as u64);
        }
        let room = self.room(message.payload.len()).await?;
        let outgoing = Outgoing { message: message.into(), sequence: None, again: Again { attempt, position: Some(position) } };
        let retry = retry_topic(&subscription.topic, &subscription.name);
        let to = self.sender(&retry, None)?.publish(vec![outgoing], Some(room)).await?;
        to.first().into_iter().for_each(|to| subscription.hands().note_moved(position, *to));
        Ok(())
    }
}

fn missing(topic: &str, position: Position) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("there is no message at {} in `{topic}`", position.0))
}
