//! One consumer of a subscription.

use super::{
    Engine, Noted, Store,
    feed::{Feed, Taken},
    plan,
};
use crate::{
    BoxFuture, BrokerError, Consumer, Delivery, Durability, ErrorKind, HandOff, Message, Position, Result, Step,
    planted::{self, Bug},
    state::{Attempt, Event, SubscriptionId, TopicId},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How often a consumer looks whether there is space again to note what it is about to hand out.
const FULL_LOOK: Duration = Duration::from_millis(20);

/// A consumer that is connected for as long as it exists.
pub(crate) struct EngineConsumer<S: Store> {
    engine: Arc<Engine<S>>,
    topic: TopicId,
    subscription: SubscriptionId,
    seat: u64,
    notify: Arc<Notify>,
    /// Whether messages are handed out before they are durable.
    eager: bool,
    /// Taken from the subscription, but not handed out: the call that took them was dropped or waits for them to be durable. The next call hands
    /// them out, so that a dropped call costs no attempt.
    prepared: Option<Prepared<S::Handle>>,
}

struct Prepared<H> {
    positions: Vec<u64>,
    handles: Vec<H>,
    /// The event that published the last of them, if it was not durable yet.
    published: Option<Noted>,
}

impl<S: Store> EngineConsumer<S> {
    pub(crate) fn new(
        engine: Arc<Engine<S>>,
        (topic, subscription): (TopicId, SubscriptionId),
        seat: u64,
        notify: Arc<Notify>,
        hand_off: HandOff,
    ) -> Self {
        Self { engine, topic, subscription, seat, notify, eager: hand_off == HandOff::Eager, prepared: None }
    }

    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            match self.hand_out(max).await {
                Ok(Some(deliveries)) => return Ok(deliveries),
                Ok(None) => {}
                // There is no space to note them. What others settle makes some.
                Err(error) if error.kind() == ErrorKind::Full => {
                    drop(self.engine.open()?);
                    tokio::time::sleep(FULL_LOOK).await;
                }
                Err(error) => return Err(error),
            }
            if self.prepared.is_none() {
                self.prepare(max).await?;
            }
        }
    }

    /// Hands out what is prepared as soon as that is allowed, with its attempts noted where they survive the end of the process.
    async fn hand_out(&mut self, max: usize) -> Result<Option<Vec<Delivery>>> {
        let Some(prepared) = &mut self.prepared else { return Ok(None) };
        let store = &self.engine.store;
        if let Some(published) = prepared.published.filter(|_| !self.eager && !planted::is(Bug::HandOverUnsynced)) {
            store.durable(published).await?;
        }
        // An earlier call may have asked for more than this one does.
        let count = max.min(prepared.positions.len());
        let loaded = loop {
            let loaded = store.load(&prepared.handles[..count]).await;
            if loaded.iter().all(std::result::Result::is_ok) {
                break loaded;
            }
            // A message may have been moved since it was taken, and the place where it was used again.
            let core = self.engine.lock();
            let log = core.state.log(self.topic);
            let mut moved = false;
            for (position, handle) in prepared.positions[..count].iter().zip(&mut prepared.handles) {
                if let Some(entry) = log.get(*position).filter(|entry| entry.handle != *handle) {
                    handle.clone_from(&entry.handle);
                    moved = true;
                }
            }
            if !moved {
                break loaded;
            }
        };
        while let Some(time) = self.feed_of(|feed| feed.alone_unsafe()).flatten() {
            store.all_durable().await?;
            self.feed_of(|feed| feed.alone_is_safe(time));
        }
        let Some(prepared) = &mut self.prepared else { return Ok(None) };
        // Nothing is awaited from here on: a call that is dropped has taken nothing out of what is prepared.
        prepared.handles.drain(..count);
        let positions: Vec<u64> = prepared.positions.drain(..count).collect();
        let published = prepared.published.filter(|published| !store.is_durable(*published));
        if prepared.positions.is_empty() {
            self.prepared = None;
        }
        let deliveries = self.number(positions, loaded, published.is_none());
        if !deliveries.is_empty()
            && let Err(error) = self.engine.store.write_hand(|take| take(&mut self.engine.lock().group))
        {
            self.take_back(deliveries, published);
            return Err(error);
        }
        Ok(Some(deliveries).filter(|deliveries| !deliveries.is_empty()))
    }

    fn feed_of<T>(&self, with: impl FnOnce(&mut Feed) -> T) -> Option<T> {
        self.engine.lock().feeds.get_mut(&self.subscription).map(with)
    }

    /// What could not be handed out is still prepared, and no attempt was made.
    fn take_back(&mut self, deliveries: Vec<Delivery>, published: Option<Noted>) {
        let mut prepared = Prepared { positions: Vec::new(), handles: Vec::new(), published };
        if let Some(feed) = self.engine.lock().feeds.get_mut(&self.subscription) {
            for Delivery { position, message, .. } in deliveries {
                feed.hand_out(position.0, self.seat, 0);
                prepared.positions.push(position.0);
                prepared.handles.push(S::Handle::from(message));
            }
        }
        if let Some(rest) = self.prepared.take() {
            prepared.positions.extend(rest.positions);
            prepared.handles.extend(rest.handles);
        }
        self.prepared = Some(prepared);
    }

    /// Gives each message its attempt. What was settled or given back by somebody else since it was taken is not handed out.
    fn number(&self, positions: Vec<u64>, loaded: Vec<Result<Arc<Message>>>, durable: bool) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(positions.len());
        let mut damaged = Vec::new();
        let mut core = self.engine.lock();
        let core = &mut *core;
        // At any other level the loss of power may give a position to another message.
        let stays = durable && core.state.topic_level(self.topic) == Durability::Power;
        let (Some(subscription), Some(feed)) =
            (core.state.subscription_of(self.subscription), core.feeds.get_mut(&self.subscription))
        else {
            return deliveries;
        };
        for (position, message) in positions.into_iter().zip(loaded) {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    damaged.push((position, error));
                    continue;
                }
            };
            let known = if subscription.attempts.is_empty() { None } else { subscription.attempts.get(&position).copied() };
            let before = self.engine.store.attempts_before(&mut core.group, self.subscription, position, message.id);
            let attempt = known.max(before).unwrap_or(0).saturating_add(1);
            // An attempt that is counted already has ended before the process did.
            let ended_with = before > known;
            if ended_with && attempt >= ALONE_FROM && !feed.go_alone(position, self.seat) {
                continue;
            }
            if feed.hand_out(position, self.seat, attempt) {
                self.engine.store.hand_out(&mut core.group, self.subscription, (position, attempt), message.id, stays);
                deliveries.push(Delivery { position: Position(position), attempt, message });
            }
        }
        for (position, error) in damaged {
            self.pass_over(core, position, &error);
        }
        deliveries
    }

    /// A message that cannot be read back must not stop the others, nor be missed in silence: it is settled here, counted, and its root ends as
    /// given up. A failure of the disk as a whole ends the broker elsewhere.
    fn pass_over(&self, core: &mut super::Core<S::Handle, S::Group>, position: u64, error: &BrokerError) {
        let taken = core.feeds.get(&self.subscription).is_some_and(|feed| feed.holds(position));
        if error.kind() != ErrorKind::Storage || self.engine.store.check().is_err() || !taken {
            if let Some(feed) = core.feeds.get_mut(&self.subscription).filter(|_| taken) {
                feed.give_back(position, None);
            }
            return;
        }
        let name = core.state.topics[self.topic.0 as usize].spec.name.clone();
        tracing::error!(topic = name, position, %error, "a damaged message is passed over");
        self.engine.enact(core, Event::Damaged { subscription: self.subscription, position }, plan::size(&Step::default()));
    }

    /// Takes messages, or waits until there may be some.
    async fn prepare(&mut self, max: usize) -> Result<()> {
        let notify = self.notify.clone();
        let mut notified = std::pin::pin!(notify.notified());
        // From here on no notification is missed, whatever happens between looking and waiting.
        notified.as_mut().enable();
        let taken = {
            let mut core = self.engine.open()?;
            let core = &mut *core;
            let now_ms = self.engine.clock.now_ms();
            let topic = &core.state.topics[self.topic.0 as usize];
            let (Some(feed), Some(subscription)) =
                (core.feeds.get_mut(&self.subscription), core.state.subscription_of(self.subscription))
            else {
                return Err(BrokerError::new(ErrorKind::NotFound, "subscription was removed"));
            };
            let taken = feed.take(self.seat, max, (topic, subscription), now_ms, S::size);
            if let Taken::Positions(positions) = &taken {
                self.prepared = Some(self.prepared(core, positions));
            }
            taken
        };
        match taken {
            Taken::Positions(_) => {}
            Taken::Unfinished => tokio::task::yield_now().await,
            Taken::Spilled(from) => self.engine.load_ahead(self.topic, from).await?,
            Taken::Nothing { due_ms: None } => notified.await,
            Taken::Nothing { due_ms: Some(due) } => {
                tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(self.engine.clock.instant(due)) => {}
                }
            }
        }
        Ok(())
    }

    fn prepared(&self, core: &super::Core<S::Handle, S::Group>, taken: &[u64]) -> Prepared<S::Handle> {
        let log = core.state.log(self.topic);
        let mut positions = Vec::with_capacity(taken.len());
        let mut handles = Vec::with_capacity(taken.len());
        for position in taken {
            if let Some(entry) = log.get(*position) {
                handles.push(entry.handle.clone());
                positions.push(*position);
            }
        }
        let last = positions.iter().max().copied().unwrap_or(0);
        let published = core.recent.get(&self.topic).and_then(|recent| {
            let index = recent.partition_point(|(end, _)| *end <= last);
            recent.get(index).map(|(_, noted)| *noted)
        });
        Prepared { positions, handles, published }
    }
}

/// The attempts of messages, runs of one number together.
pub(super) fn runs(all: &[(u64, u32)]) -> Vec<Attempt> {
    let mut runs: Vec<Attempt> = Vec::new();
    for (position, attempt) in all {
        match runs.last_mut().filter(|last| last.end == *position && last.attempt == *attempt) {
            Some(last) => last.end += 1,
            None => runs.push(Attempt { start: *position, end: position + 1, attempt: *attempt }),
        }
    }
    runs
}

/// From this attempt on, a message that was in hand when the process ended is in hand alone among its like: the process has ended with it twice, so it may be what
/// ends it. After a first end all may go together, since most ends are nobody's fault and waiting for each other takes time.
const ALONE_FROM: u32 = 3;

/// The most messages of one call, whatever it asks for.
const RECEIVE_MAX: usize = 4_096;

impl<S: Store> Consumer for EngineConsumer<S> {
    fn receive(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(self.next(max.clamp(1, RECEIVE_MAX)))
    }
}

impl<S: Store> Drop for EngineConsumer<S> {
    fn drop(&mut self) {
        let mut core = self.engine.lock();
        let Some(feed) = core.feeds.get_mut(&self.subscription) else { return };
        let handed = feed.leave(self.seat);
        core.look_whether_passing(self.topic);
        if !core.closed {
            self.engine.count_attempts(&mut core, self.subscription, &handed);
        }
    }
}
