//! The broker itself: one locked core that decides, orders and applies events, over a store that keeps them.
//!
//! The lock is never held across an await and never while a disk is touched: an event is put in order and applied under the lock, and its
//! durability is waited for outside.

mod clock;
mod consumer;
mod delegate;
mod feed;
mod keys;
mod load;
mod plan;
mod producers;
mod queries;
mod store;
mod topics;
mod waves;
mod window;

pub(crate) use clock::Clock;
pub(crate) use consumer::EngineConsumer;
pub(crate) use delegate::broker_by_engine;
pub(crate) use load::LOAD_MESSAGES;
pub(crate) use plan::{OVERHEAD_BYTES as MESSAGE_BYTES_MIN, message_size};
pub(crate) use store::{Noted, Store};
pub(crate) use window::Window;

use crate::{
    BrokerError, Confirm, Consumer, ErrorKind, MessageId, Outcome, Position, Publish, Result, Start, Step, Subscribe,
    planted::{self, Bug},
    state::{Delay, Event, Looked, Span, State, SubscriptionId, TopicId},
};
use feed::Feed;
use leatworks_journal::Effect;
use rustc_hash::FxHashMap;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// What a broker takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of one message in bytes.
    pub message_bytes_max: usize,
    /// The most unsettled messages of one topic; a publish beyond it is refused with [`ErrorKind::Full`]. Dead-letter topics have no limit.
    pub backlog_messages_max: u64,
    /// How long a named producer may publish nothing on a topic before its last sequence there may be forgotten; see [`Publish::sequence`].
    pub producer_inactive: Duration,
    /// The most named producers that are remembered on a topic. Beyond it those are forgotten that have not published for longest.
    pub producers_max: usize,
}

impl Default for Limits {
    /// 5 MiB a message, as Pulsar has it. 100 million messages a topic: what the embedded broker keeps of them in memory takes half a gigabyte. Six hours for a
    /// producer, as Pulsar has it, and 65,536 of them, which take some 8 MB.
    fn default() -> Self {
        Self {
            message_bytes_max: 5 << 20,
            backlog_messages_max: 100_000_000,
            producer_inactive: Duration::from_secs(6 * 3_600),
            producers_max: 1 << 16,
        }
    }
}

/// What a run of attempts takes on disk at most.
const ATTEMPTS_BYTES_MAX: usize = 40;

/// A broker on a store.
pub(crate) struct Engine<S: Store> {
    core: Mutex<Core<S::Handle, S::Group>>,
    pub(crate) store: S,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Held while blocks are loaded for a consumer.
    loading: tokio::sync::Mutex<()>,
}

/// What the lock protects.
pub(crate) struct Core<H, G> {
    pub(crate) state: State<H>,
    pub(crate) group: G,
    pub(crate) feeds: FxHashMap<SubscriptionId, Feed>,
    /// Publishes by topic that were not durable when they were made: the end of their positions, and their event.
    recent: FxHashMap<TopicId, VecDeque<(u64, Noted)>>,
    /// Who waits for a root to finish.
    waiting: FxHashMap<MessageId, Vec<oneshot::Sender<Outcome>>>,
    seats: u64,
    /// When the producers of a topic are to be looked through next, in milliseconds since the Unix epoch.
    look_at_producers: FxHashMap<TopicId, u64>,
    pub(crate) closed: bool,
}

impl<H, G> Core<H, G> {
    fn new(state: State<H>, group: G) -> Self {
        Self {
            state,
            group,
            feeds: FxHashMap::default(),
            recent: FxHashMap::default(),
            waiting: FxHashMap::default(),
            seats: 0,
            look_at_producers: FxHashMap::default(),
            closed: false,
        }
    }

    fn topic(&self, name: &str) -> Result<TopicId> {
        self.state.find_topic(name).ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("topic `{name}` does not exist")))
    }

    fn subscription(&self, topic: &str, name: &str) -> Result<(TopicId, SubscriptionId)> {
        let number = self.topic(topic)?;
        let missing =
            || BrokerError::new(ErrorKind::NotFound, format!("subscription `{name}` of topic `{topic}` does not exist"));
        self.state.find_subscription(number, name).map(|subscription| (number, subscription)).ok_or_else(missing)
    }

    /// Looks again whether messages of a topic pass through this process.
    fn look_whether_passing(&mut self, topic: TopicId) {
        let numbers = &self.state.topics[topic.0 as usize].subscriptions;
        let eager = |number| self.feeds.get(number).is_some_and(Feed::is_eager);
        let passing = !numbers.is_empty() && numbers.iter().all(eager);
        self.state.topics[topic.0 as usize].passing = passing;
    }

    fn idle(&self, subscription: SubscriptionId, topic: &str, name: &str) -> Result<()> {
        match self.feeds.get(&subscription).map_or(0, Feed::consumers) {
            0 => Ok(()),
            count => {
                let text = format!("subscription `{name}` of topic `{topic}` has {count} connected consumers");
                Err(BrokerError::new(ErrorKind::Conflict, text))
            }
        }
    }
}

impl<S: Store> Engine<S> {
    pub(crate) fn new(store: S, state: State<S::Handle>, group: S::Group, clock: Clock, limits: Limits) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(Core::new(state, group)), store, clock, limits, loading: tokio::sync::Mutex::default() })
    }

    /// The core, whatever happened to a thread that held it: events are applied whole or not at all.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core<S::Handle, S::Group>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core of an open broker.
    fn open(&self) -> Result<MutexGuard<'_, Core<S::Handle, S::Group>>> {
        let core = self.lock();
        match core.closed {
            true => Err(BrokerError::new(ErrorKind::Closed, "broker is closed")),
            false => self.store.check().map(|()| core),
        }
    }

    /// Lets everybody who waits look again: the store has failed, or the broker is closed.
    pub(crate) fn wake_all(&self) {
        let mut core = self.lock();
        core.waiting.clear();
        for feed in core.feeds.values() {
            feed.notify.notify_waiters();
        }
    }

    /// The core with room for this much.
    async fn open_with_room(&self, bytes: usize, effect: Effect) -> Result<MutexGuard<'_, Core<S::Handle, S::Group>>> {
        loop {
            {
                let core = self.open()?;
                if self.store.has_room(&core.group, bytes, effect) {
                    return Ok(core);
                }
            }
            self.store.room(bytes, effect).await?;
        }
    }

    /// Puts a decided event in order, applies it, and tells whoever is concerned. It takes at most so many bytes.
    pub(crate) fn enact(&self, core: &mut Core<S::Handle, S::Group>, event: Event<S::Handle>, bytes: usize) -> Noted {
        let mut settled: Vec<Span> = Vec::new();
        let mut topics: Vec<TopicId> = Vec::new();
        match &event {
            Event::Step { settled: spans, publishes, .. } => {
                settled.extend_from_slice(spans);
                for published in publishes {
                    if topics.last() != Some(&published.topic) && !topics.contains(&published.topic) {
                        topics.push(published.topic);
                    }
                }
            }
            Event::Damaged { subscription, position } => {
                settled.push(Span { subscription: *subscription, start: *position, end: position + 1 });
            }
            _ => {}
        }
        let keys: Vec<Vec<(u64, u32)>> = settled.iter().map(|span| core.keys(*span)).collect();
        let noted = self.store.note(&mut core.group, &core.state, &event, bytes);
        core.state.apply(event);
        self.store.applied(&mut core.group, &mut core.state);
        for (span, keys) in settled.iter().zip(&keys) {
            self.settled(core, *span, keys);
        }
        self.notify_settled(core, &settled);
        for topic in topics {
            self.published(core, topic, noted.sequence);
        }
        if std::mem::take(&mut core.state.ended_unseen) {
            // Whoever waits for one of them looks again.
            core.waiting.clear();
        }
        for (root, outcome) in core.state.finished.drain(..) {
            if core.waiting.is_empty() {
                continue;
            }
            for waiter in core.waiting.remove(&root).unwrap_or_default() {
                // A waiter that has gone away does not want to know.
                let _ = waiter.send(outcome);
            }
        }
        noted
    }

    fn settled(&self, core: &mut Core<S::Handle, S::Group>, span: Span, keys: &[(u64, u32)]) {
        let Some(feed) = core.feeds.get_mut(&span.subscription) else { return };
        let Some(subscription) = core.state.subscription_of(span.subscription) else { return };
        feed.let_go(span.start, span.end);
        for (position, key) in keys {
            feed.settled(*position, *key, &subscription.settled);
        }
        self.store.hand_back(&mut core.group, span.subscription, span.start, span.end, u32::MAX);
    }

    /// Consumers whose permits were used up, or whose keys were, may go on.
    fn notify_settled(&self, core: &Core<S::Handle, S::Group>, spans: &[Span]) {
        let mut last = None;
        for span in spans {
            if last == Some(span.subscription) {
                continue;
            }
            last = Some(span.subscription);
            if let Some(feed) = core.feeds.get(&span.subscription) {
                feed.notify.notify_waiters();
            }
        }
    }

    /// Attempts that have ended without settling their messages: whatever comes next, they have been used.
    pub(crate) fn count_attempts(
        &self,
        core: &mut Core<S::Handle, S::Group>,
        subscription: SubscriptionId,
        handed: &[(u64, u32)],
    ) {
        let unsettled =
            |position: u64| core.state.subscription_of(subscription).is_some_and(|found| !found.settled.contains(position));
        let handed: Vec<(u64, u32)> = handed.iter().copied().filter(|(position, _)| unsettled(*position)).collect();
        if handed.is_empty() || self.store.check().is_err() {
            return;
        }
        let attempts = consumer::runs(&handed);
        let bytes = plan::size(&Step::default()) + attempts.len() * ATTEMPTS_BYTES_MAX;
        if !self.store.has_room(&core.group, bytes, Effect::Frees) {
            // Nobody waits here. What is not noted as given back counts when the process ends.
            core.state.apply(Event::Attempts { subscription, attempts });
            return;
        }
        for run in &attempts {
            self.store.hand_back(&mut core.group, subscription, run.start, run.end, run.attempt);
        }
        self.enact(core, Event::Attempts { subscription, attempts }, bytes);
    }

    fn published(&self, core: &mut Core<S::Handle, S::Group>, topic: TopicId, sequence: u64) {
        let found = &core.state.topics[topic.0 as usize];
        for subscription in &found.subscriptions {
            if let Some(feed) = core.feeds.get(subscription).filter(|_| !planted::is(Bug::PublishTellsNobody)) {
                feed.notify.notify_waiters();
            }
        }
        // A message is handed out when it is as durable as its topic asks for, also if its step is to be more.
        let noted = Noted { sequence, level: core.state.topic_level(topic) };
        if !self.store.is_durable(noted) {
            let recent = core.recent.entry(topic).or_default();
            while recent.front().is_some_and(|(_, noted)| self.store.is_durable(*noted)) {
                recent.pop_front();
            }
            recent.push_back((found.log.next(), noted));
        }
        self.expire(core, topic);
        self.forget_producers(core, topic);
    }

    /// Lets go of what was kept for seeking and is too old or too much. Also without retention: there may have been some before.
    pub(crate) fn expire(&self, core: &mut Core<S::Handle, S::Group>, topic: TopicId) {
        let found = &core.state.topics[topic.0 as usize];
        let retention_ms = u64::try_from(found.spec.retention.as_millis()).unwrap_or(u64::MAX);
        let bytes_max = match found.spec.retention_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        let Some(end) = found.log.expirable(self.clock.now_ms().saturating_sub(retention_ms), bytes_max) else { return };
        let bytes = plan::size(&Step::default());
        if self.store.has_room(&core.group, bytes, Effect::Frees) {
            self.enact(core, Event::Expire { topic, end }, bytes);
        }
    }

    /// Lets go of what is too old, also on topics where nothing is published.
    pub(crate) fn expire_all(&self) {
        let mut core = self.lock();
        if core.closed {
            return;
        }
        for number in 0..core.state.topics.len() {
            if !core.state.topics[number].spec.retention.is_zero() {
                self.expire(&mut core, TopicId(number as u32));
            }
            self.forget_producers(&mut core, TopicId(number as u32));
        }
    }

    pub(crate) async fn seek(&self, topic: &str, name: &str, to: Start) -> Result<()> {
        let to = self.resolve(topic, to).await?;
        let noted = {
            let needs = |core: &Core<_, _>, _: &Looked| match core.subscription(topic, name) {
                Ok((_, subscription)) => core.state.missing_for(&Event::Seek { subscription, to }),
                Err(_) => Vec::new(),
            };
            let mut core = self.open_loaded(plan::size(&Step::default()), Effect::Frees, needs).await?;
            let (_, subscription) = core.subscription(topic, name)?;
            core.idle(subscription, topic, name)?;
            let core = &mut *core;
            self.store.forget_hand(&mut core.group, subscription);
            self.enact(core, Event::Seek { subscription, to }, plan::size(&Step::default()))
        };
        self.store.write_hand(|take| take(&mut self.lock().group))?;
        self.store.durable(noted).await
    }

    /// Waits until this is as durable as it is to be; if nothing had to be done, then what was done before.
    async fn durable(&self, noted: Option<Noted>) -> Result<()> {
        match noted {
            Some(noted) => self.store.durable(noted).await,
            None => self.store.all_durable().await,
        }
    }

    pub(crate) async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Position>> {
        self.write(Step { publishes: batch, ..Step::default() }).await
    }

    /// Commits a step and gives the positions of its publishes.
    pub(crate) async fn write(&self, step: Step) -> Result<Vec<Position>> {
        plan::check(&self.limits, &step)?;
        let confirm = step.confirm;
        let (noted, positions) = {
            let (bytes, effect) = (plan::size(&step), plan::effect(&step));
            let needs = |core: &Core<_, _>, looked: &Looked| core.missing_for_step(&step, looked);
            let mut core = self.open_for(&step, bytes, effect, needs).await?;
            let plan = plan::plan::<S>(&core, &self.limits, &self.clock, step)?;
            if plan.more_bytes > 0 && !self.store.has_room(&core.group, bytes + plan.more_bytes, effect) {
                return Err(BrokerError::new(ErrorKind::Full, "no room now for a cumulative acknowledgement of many ranges"));
            }
            let noted = (!plan.empty).then(|| self.enact(&mut core, plan.event, bytes + plan.more_bytes));
            (noted, plan.positions)
        };
        match confirm {
            Confirm::Durable if !planted::is(Bug::TellBeforeSync) => self.durable(noted).await?,
            Confirm::Durable | Confirm::Applied => self.store.check()?,
        }
        Ok(positions)
    }

    pub(crate) async fn nack(&self, topic: &str, name: &str, position: Position, delay: Duration) -> Result<()> {
        // For the attempt and for the delay.
        let bytes = 2 * plan::size(&Step::default()) + ATTEMPTS_BYTES_MAX;
        let mut core = self.open_with_room(bytes, Effect::Frees).await?;
        let (_, subscription) = core.subscription(topic, name)?;
        let Some(feed) = core.feeds.get(&subscription).filter(|feed| feed.holds(position.0)) else {
            // It went back with its consumer, or is settled: there is nothing to give back.
            return Ok(());
        };
        if let Some(attempt) = feed.attempt(position.0) {
            self.count_attempts(&mut core, subscription, &[(position.0, attempt)]);
        }
        let due_ms = (!delay.is_zero()).then(|| self.clock.after_ms(delay));
        if let Some(until_ms) = due_ms {
            // Not waited for: what a crash could lose is the rest of the delay.
            let bytes = plan::size(&Step::default());
            let delay = Delay { until_ms, of_ms: until_ms - self.clock.now_ms() };
            self.enact(&mut core, Event::Delay { subscription, position: position.0, delay }, bytes);
        }
        if let Some(feed) = core.feeds.get_mut(&subscription) {
            feed.give_back(position.0, due_ms.filter(|_| !planted::is(Bug::DelayIgnored)));
            feed.notify.notify_waiters();
        }
        Ok(())
    }

    pub(crate) async fn subscribe(self: &Arc<Self>, subscribe: Subscribe) -> Result<Box<dyn Consumer>> {
        let mut core = self.open()?;
        let (topic, subscription) = core.subscription(&subscribe.topic, &subscribe.subscription)?;
        let cursor = core.state.subscription_of(subscription).map_or(0, |found| found.settled.cursor());
        core.seats += 1;
        let seat = core.seats;
        let feed = core.feeds.entry(subscription).or_default();
        feed.join(seat, &subscribe, cursor)?;
        let notify = feed.notify.clone();
        core.look_whether_passing(topic);
        drop(core);
        Ok(Box::new(EngineConsumer::new(self.clone(), (topic, subscription), seat, notify, subscribe.hand_off)))
    }

    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        {
            let mut core = self.lock();
            if core.closed {
                return Ok(());
            }
            let handed: Vec<_> = core.feeds.iter().map(|(number, feed)| (*number, feed.handed(|_| true))).collect();
            for (subscription, mut handed) in handed {
                handed.sort_unstable();
                self.count_attempts(&mut core, subscription, &handed);
            }
            core.closed = true;
        }
        self.wake_all();
        S::close(self).await
    }
}
