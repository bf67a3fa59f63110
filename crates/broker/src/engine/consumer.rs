//! One consumer of a subscription.

use super::{Engine, Store, feed::Taken, plan};
use crate::{
    BoxFuture, BrokerError, Consumer, Delivery, ErrorKind, Position, Result, Step,
    state::{Attempt, Event, SubscriptionId, TopicId},
};
use std::sync::Arc;
use tokio::sync::Notify;

/// A consumer that is connected for as long as it exists.
pub(crate) struct EngineConsumer<S: Store> {
    engine: Arc<Engine<S>>,
    topic: TopicId,
    subscription: SubscriptionId,
    seat: u64,
    notify: Arc<Notify>,
    /// Taken from the subscription, but not handed out: the call that took them was dropped or is still waiting for their attempts to be written. The
    /// next call hands them out, so that a dropped call costs no attempt.
    prepared: Option<Prepared<S::Handle>>,
    /// Told once, and only when nothing else is to be handed out: a damaged message stays in flight and harms no other.
    damaged: Option<BrokerError>,
}

struct Prepared<H> {
    deliveries: Vec<(u64, u32)>,
    handles: Vec<H>,
    /// The event that counts the attempts.
    counted: u64,
    /// The event that published the last of them, if it was not durable yet.
    published: Option<u64>,
}

impl<S: Store> EngineConsumer<S> {
    pub(crate) fn new(
        engine: Arc<Engine<S>>,
        topic: TopicId,
        subscription: SubscriptionId,
        seat: u64,
        notify: Arc<Notify>,
    ) -> Self {
        Self { engine, topic, subscription, seat, notify, prepared: None, damaged: None }
    }

    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            if let Some(deliveries) = self.hand_out(max).await? {
                return Ok(deliveries);
            }
            // What is damaged is told before there is anything to wait for.
            if self.prepared.is_none() && self.damaged.is_none() {
                self.prepare(max).await?;
            }
        }
    }

    /// Hands out what is prepared as soon as its attempts survive the end of the process.
    async fn hand_out(&mut self, max: usize) -> Result<Option<Vec<Delivery>>> {
        let Some(prepared) = &mut self.prepared else { return self.damaged.take().map_or(Ok(None), Err) };
        let store = &self.engine.store;
        store.written(prepared.counted).await?;
        if let Some(published) = prepared.published {
            store.durable(published).await?;
        }
        // An earlier call may have asked for more than this one does.
        let count = max.min(prepared.deliveries.len());
        let loaded = loop {
            let loaded = store.load(&prepared.handles[..count]).await;
            if loaded.iter().all(std::result::Result::is_ok) {
                break loaded;
            }
            // A message may have been moved since it was taken, and the place where it was used again.
            let core = self.engine.lock();
            let log = core.state.log(self.topic);
            let mut moved = false;
            for ((position, _), handle) in prepared.deliveries[..count].iter().zip(&mut prepared.handles) {
                if let Some(entry) = log.get(*position).filter(|entry| entry.handle != *handle) {
                    handle.clone_from(&entry.handle);
                    moved = true;
                }
            }
            if !moved {
                break loaded;
            }
        };
        // Nothing is awaited from here on: a call that is dropped has taken nothing out of what is prepared.
        let core = self.engine.lock();
        let feed = core.feeds.get(&self.subscription);
        // What was settled or given back by somebody else since it was taken is not to be handed out, nor missed.
        let held = |position: u64| feed.is_some_and(|feed| feed.holds_for(position, self.seat));
        let mut deliveries = Vec::with_capacity(count);
        prepared.handles.drain(..count);
        for ((position, attempt), message) in prepared.deliveries.drain(..count).zip(loaded).filter(|((p, _), _)| held(*p)) {
            match message {
                Ok(message) => deliveries.push(Delivery { position: Position(position), attempt, message }),
                Err(error) => self.damaged = Some(error),
            }
        }
        if prepared.deliveries.is_empty() {
            self.prepared = None;
        }
        Ok(Some(deliveries).filter(|deliveries| !deliveries.is_empty()))
    }

    /// Takes messages and counts their attempts, or waits until there may be some.
    async fn prepare(&mut self, max: usize) -> Result<()> {
        let notify = self.notify.clone();
        let mut notified = std::pin::pin!(notify.notified());
        // From here on no notification is missed, whatever happens between looking and waiting.
        notified.as_mut().enable();
        let taken = {
            let mut core = self.engine.open_with_room(plan::size(&Step::default()) + max * ATTEMPT_BYTES_MAX, true).await?;
            let core = &mut *core;
            let now_ms = self.engine.clock.now_ms();
            let topic = &core.state.topics[self.topic.0 as usize];
            let (Some(feed), Some(subscription)) =
                (core.feeds.get_mut(&self.subscription), core.state.subscription_of(self.subscription))
            else {
                return Err(BrokerError::new(ErrorKind::NotFound, "subscription was removed"));
            };
            let taken = feed.take(self.seat, max, topic, subscription, now_ms);
            if let Taken::Positions(positions) = &taken {
                self.prepared = Some(self.count(core, positions));
            }
            taken
        };
        match taken {
            Taken::Positions(_) => {}
            Taken::Unfinished => tokio::task::yield_now().await,
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

    fn count(&self, core: &mut super::Core<S::Handle>, positions: &[u64]) -> Prepared<S::Handle> {
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut deliveries = Vec::with_capacity(positions.len());
        let mut handles = Vec::with_capacity(positions.len());
        for position in positions {
            let subscription = core.state.subscription_of(self.subscription);
            let attempt =
                subscription.and_then(|found| found.attempts.get(position)).map_or(1, |before| before.saturating_add(1));
            if let Some(entry) = core.state.log(self.topic).get(*position) {
                handles.push(entry.handle.clone());
                deliveries.push((*position, attempt));
            }
            match attempts.last_mut().filter(|last| last.end == *position && last.attempt == attempt) {
                Some(last) => last.end += 1,
                None => attempts.push(Attempt { start: *position, end: *position + 1, attempt }),
            }
        }
        let last = positions.iter().max().copied().unwrap_or(0);
        let published = core.recent.get(&self.topic).and_then(|recent| {
            let index = recent.partition_point(|(end, _)| *end <= last);
            recent.get(index).map(|(_, sequence)| *sequence)
        });
        let counted = self.engine.enact(core, Event::Attempts { subscription: self.subscription, attempts });
        Prepared { deliveries, handles, counted, published }
    }

    /// What was prepared and never handed out was no attempt.
    fn uncount(&self, core: &mut super::Core<S::Handle>, prepared: &Prepared<S::Handle>) {
        let feed = core.feeds.get(&self.subscription);
        let held = |position: u64| feed.is_some_and(|feed| feed.holds_for(position, self.seat));
        let never = prepared.deliveries.iter().filter(|(position, _)| held(*position));
        let attempts: Vec<Attempt> =
            never.map(|(position, attempt)| Attempt { start: *position, end: *position + 1, attempt: attempt - 1 }).collect();
        let bytes = plan::size(&Step::default()) + attempts.len() * ATTEMPT_BYTES_MAX;
        if !core.closed && !attempts.is_empty() && self.engine.store.has_room(bytes, true) {
            self.engine.enact(core, Event::Attempts { subscription: self.subscription, attempts });
        }
    }
}

/// What counting one attempt takes on disk at most.
const ATTEMPT_BYTES_MAX: usize = 32;

/// The most messages of one call, whatever it asks for: their attempts are one record, which must fit in a segment.
const RECEIVE_MAX: usize = 1_024;

impl<S: Store> Consumer for EngineConsumer<S> {
    fn receive(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(self.next(max.clamp(1, RECEIVE_MAX)))
    }
}

impl<S: Store> Drop for EngineConsumer<S> {
    fn drop(&mut self) {
        let prepared = self.prepared.take();
        let mut core = self.engine.lock();
        if let Some(prepared) = prepared {
            self.uncount(&mut core, &prepared);
        }
        if let Some(feed) = core.feeds.get_mut(&self.subscription) {
            feed.leave(self.seat);
        }
    }
}
