//! What the scenarios are written with: a broker under unique names, consumers that are waited for, and errors that end the scenario.

use super::{End, Harness};
use crate::{
    Account, Ack, Broker, BrokerError, Consumer, Delivery, ErrorKind, Limits, Message, MessageId, Position, Publish, Result,
    Start, Step, Subscribe, SubscriptionKind, SubscriptionStats, TopicKind, TopicSpec, TopicStats,
};
use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long anything that must happen may take. Never reached by a broker that works, on a machine however busy.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// How long is waited to see that nothing comes. Too short a time can only let a fault pass, it can never make one up.
const QUIET: Duration = Duration::from_millis(25);

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(2);

/// What a call gave, which must not have failed.
#[track_caller]
pub(super) fn ok<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("must succeed, but failed as {:?}: {error}", error.kind()),
    }
}

/// The error of a call that must have been refused as this kind, with a message for people.
#[track_caller]
pub(super) fn refused<T: Debug>(result: Result<T>, kind: ErrorKind) -> BrokerError {
    match result {
        Ok(value) => panic!("must be refused as {kind:?}, but gave {value:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "refused as something else: {error}");
            assert!(!error.to_string().is_empty(), "an error that says nothing");
            assert_eq!(error.is_retryable(), matches!(kind, ErrorKind::Full | ErrorKind::Unavailable));
            error
        }
    }
}

/// What a future gives, which must come before the deadline.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing came within {DEADLINE:?}"),
    }
}

/// Now, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// The payload as text.
pub(super) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// The payloads as text, in order.
pub(super) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(&delivery.message)).collect()
}

/// `prefix-0`, `prefix-1` and so on.
pub(super) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// A broker, and a name space in it.
pub(super) struct Rig {
    pub(super) broker: Arc<dyn Broker>,
    harness: Harness,
    limits: Limits,
    unique: u64,
    ids: AtomicU64,
}

impl Rig {
    pub(super) fn new(harness: Harness, broker: Arc<dyn Broker>, limits: Limits, unique: u64) -> Self {
        Self { broker, harness, limits, unique, ids: AtomicU64::new(0) }
    }

    /// What the broker says of itself.
    pub(super) fn promises(&self) -> crate::Promises {
        self.harness.promises().broker
    }

    /// Ends this broker and opens it again, with the same names. Consumers must be gone already.
    pub(super) async fn reopen(self, end: End) -> Self {
        let Self { broker, harness, limits, unique, ids } = self;
        match end {
            End::Closed => {
                ok(broker.close().await);
                drop(broker);
            }
            End::Crashed => harness.place.crash(broker).await,
        }
        let broker = ok(harness.place.open(limits).await);
        Self { broker, harness, limits, unique, ids }
    }

    /// Opens the broker again that was closed already.
    pub(super) async fn open_again(self) -> Self {
        let Self { broker, harness, limits, unique, ids } = self;
        drop(broker);
        let broker = ok(harness.place.open(limits).await);
        Self { broker, harness, limits, unique, ids }
    }

    /// A name that is this rig's own, for topics, producers and keys of state.
    pub(super) fn name(&self, name: &str) -> String {
        format!("c{:x}-{name}", self.unique)
    }

    /// The topology whose account this rig counts in.
    pub(super) fn topology(&self) -> String {
        self.name("topology")
    }

    /// An id that nobody else uses.
    pub(super) fn id(&self) -> MessageId {
        MessageId((u128::from(self.unique) << 64) | u128::from(self.ids.fetch_add(1, Ordering::Relaxed) + 1))
    }

    pub(super) fn spec(&self, topic: &str, kind: TopicKind) -> TopicSpec {
        let topology = if kind == TopicKind::Plain { String::new() } else { self.topology() };
        TopicSpec { name: self.name(topic), kind, topology, retention: Duration::ZERO, ..TopicSpec::default() }
    }

    /// A topic with these subscriptions.
    pub(super) async fn topic(&self, topic: &str, kind: TopicKind, subscriptions: &[&str]) {
        ok(self.broker.create_topic(self.spec(topic, kind)).await);
        for subscription in subscriptions {
            self.subscription(topic, subscription, Start::Earliest).await;
        }
    }

    /// A plain topic with these subscriptions.
    pub(super) async fn plain(&self, topic: &str, subscriptions: &[&str]) {
        self.topic(topic, TopicKind::Plain, subscriptions).await;
    }

    pub(super) async fn subscription(&self, topic: &str, subscription: &str, start: Start) {
        ok(self.broker.create_subscription(&self.name(topic), subscription, start).await);
    }

    /// A message that comes of no root.
    pub(super) fn message(&self, text: impl Into<String>) -> Message {
        Message { id: self.id(), created_ms: now_ms(), payload: text.into().into(), ..Message::default() }
    }

    /// A message that is a root.
    pub(super) fn root(&self, text: impl Into<String>) -> Message {
        let message = self.message(text);
        Message { root: message.id, ..message }
    }

    /// A message that comes of this root.
    pub(super) fn child(&self, root: MessageId, text: impl Into<String>) -> Message {
        Message { root, ..self.message(text) }
    }

    /// A message with a key.
    pub(super) fn keyed(&self, key: &str, text: impl Into<String>) -> Message {
        Message { key: Some(key.to_owned()), ..self.message(text) }
    }

    pub(super) fn publish_of(&self, topic: &str, message: Message) -> Publish {
        Publish { topic: self.name(topic).into(), message: message.into(), sequence: None }
    }

    /// Publishes messages in one batch.
    pub(super) async fn send(&self, topic: &str, messages: impl IntoIterator<Item = Message>) -> Vec<Position> {
        let batch = messages.into_iter().map(|message| self.publish_of(topic, message)).collect();
        ok(self.broker.publish(batch).await)
    }

    /// Publishes texts in one batch.
    pub(super) async fn send_texts<T: Into<String>>(&self, topic: &str, texts: impl IntoIterator<Item = T>) -> Vec<Position> {
        let messages: Vec<Message> = texts.into_iter().map(|text| self.message(text)).collect();
        self.send(topic, messages).await
    }

    /// Publishes texts; each for itself where a part of a batch is not settled for everybody.
    pub(super) async fn send_apart(&self, topic: &str, texts: Vec<String>) {
        let messages: Vec<Message> = texts.into_iter().map(|text| self.message(text)).collect();
        self.send_each(topic, messages).await;
    }

    /// The same with messages.
    pub(super) async fn send_each(&self, topic: &str, messages: Vec<Message>) {
        let at_once = if self.promises().parts_of_batches { messages.len() } else { 1 };
        for messages in messages.chunks(at_once) {
            self.send(topic, messages.iter().cloned()).await;
        }
    }

    pub(super) fn subscribe_of(&self, topic: &str, subscription: &str, kind: SubscriptionKind, permits: usize) -> Subscribe {
        let (topic, consumer) = (self.name(topic), self.name("consumer"));
        Subscribe { topic, subscription: subscription.to_owned(), kind, consumer, permits, hand_off: crate::HandOff::Durable }
    }

    /// A consumer with as many permits as any scenario needs.
    pub(super) async fn consumer(&self, topic: &str, subscription: &str, kind: SubscriptionKind) -> Tap {
        self.consumer_with(topic, subscription, kind, 1_000).await
    }

    pub(super) async fn consumer_with(&self, topic: &str, subscription: &str, kind: SubscriptionKind, permits: usize) -> Tap {
        let consumer = ok(self.broker.subscribe(self.subscribe_of(topic, subscription, kind, permits)).await);
        Tap {
            consumer: Mutex::new(consumer),
            broker: self.broker.clone(),
            topic: self.name(topic).into(),
            subscription: subscription.into(),
        }
    }

    /// A shared consumer.
    pub(super) async fn shared(&self, topic: &str, subscription: &str) -> Tap {
        self.consumer(topic, subscription, SubscriptionKind::Shared).await
    }

    pub(super) fn ack_of(&self, topic: &str, subscription: &str, position: Position) -> Ack {
        Ack { topic: self.name(topic).into(), subscription: subscription.into(), position, cumulative: false }
    }

    pub(super) async fn account(&self) -> Account {
        let account = ok(self.broker.account(&self.topology()).await);
        let Account { sent, done, dead_lettered, in_flight } = account;
        assert_eq!(sent, done + dead_lettered + in_flight, "the account does not balance: {account:?}");
        account
    }

    /// The account as sent, done, dead-lettered, in flight.
    pub(super) async fn counts(&self) -> [u64; 4] {
        let Account { sent, done, dead_lettered, in_flight } = self.account().await;
        [sent, done, dead_lettered, in_flight]
    }

    /// The topics of this rig.
    pub(super) async fn topics(&self) -> Vec<TopicStats> {
        let own = self.name("");
        ok(self.broker.stats().await).into_iter().filter(|topic| topic.spec.name.starts_with(&own)).collect()
    }

    pub(super) async fn topic_stats(&self, topic: &str) -> TopicStats {
        let name = self.name(topic);
        let found = self.topics().await.into_iter().find(|topic| topic.spec.name == name);
        found.unwrap_or_else(|| panic!("topic `{topic}` is not in the statistics"))
    }

    pub(super) async fn stats(&self, topic: &str, subscription: &str) -> SubscriptionStats {
        let found = self.topic_stats(topic).await.subscriptions.remove(subscription);
        found.unwrap_or_else(|| panic!("subscription `{subscription}` of `{topic}` is not in the statistics"))
    }

    /// Waits until the statistics of a subscription are as said. A consumer that is dropped leaves in the background, and so
    /// does one that was refused: what depends on who is there is waited for.
    pub(super) async fn until_stats(&self, topic: &str, subscription: &str, holds: impl Fn(&SubscriptionStats) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = within("the statistics", self.stats(topic, subscription)).await;
            if holds(&stats) {
                break;
            }
            assert!(Instant::now() < deadline, "the statistics of `{topic}` and `{subscription}` stay at {stats:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the statistics of a subscription are these.
    pub(super) async fn until_stats_are(&self, topic: &str, subscription: &str, expected: SubscriptionStats) {
        self.until_stats(topic, subscription, |stats| *stats == expected).await;
    }

    /// What a subscription has not settled, as texts.
    pub(super) async fn unsettled(&self, topic: &str, subscription: &str) -> Vec<String> {
        let peeked = ok(self.broker.peek(&self.name(topic), subscription, Position(0), usize::MAX).await);
        peeked.iter().map(|(_, message)| text(message)).collect()
    }
}

/// A consumer that is waited for, and settles what it got.
pub(super) struct Tap {
    /// Never locked: it only lets a shared reference to this cross threads, which a consumer alone does not.
    consumer: Mutex<Box<dyn Consumer>>,
    broker: Arc<dyn Broker>,
    topic: Arc<str>,
    subscription: Arc<str>,
}

impl Tap {
    /// The consumer itself.
    pub(super) fn consumer(&mut self) -> &mut Box<dyn Consumer> {
        self.consumer.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives once, and sees that the call keeps its limits.
    pub(super) async fn receive(&mut self, max: usize) -> Vec<Delivery> {
        let received = ok(within("a message", self.consumer().receive(max)).await);
        assert!(!received.is_empty(), "`receive` gave nothing instead of waiting");
        assert!(received.len() <= max, "`receive` gave {} messages, asked for {max}", received.len());
        assert!(received.iter().all(|delivery| delivery.attempt >= 1), "an attempt of 0");
        received
    }

    /// Receives until there are this many.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(self.receive(count - taken.len()).await);
        }
        taken
    }

    pub(super) async fn one(&mut self) -> Delivery {
        self.receive(1).await.remove(0)
    }

    /// Sees that nothing comes.
    pub(super) async fn quiet(&mut self) {
        if let Ok(received) = tokio::time::timeout(QUIET, self.consumer().receive(1_000)).await {
            panic!("nothing may come now, but this did: {:?}", ok(received));
        }
    }

    pub(super) fn ack_of(&self, position: Position) -> Ack {
        Ack { topic: self.topic.clone(), subscription: self.subscription.clone(), position, cumulative: false }
    }

    /// Settles these, each for itself, in one step.
    pub(super) async fn ack(&self, deliveries: &[Delivery]) {
        let acks = deliveries.iter().map(|delivery| self.ack_of(delivery.position)).collect();
        ok(self.broker.commit(Step { acks, ..Step::default() }).await);
    }

    /// Settles everything up to here.
    pub(super) async fn ack_through(&self, position: Position) -> Result<()> {
        let ack = Ack { cumulative: true, ..self.ack_of(position) };
        self.broker.commit(Step { acks: vec![ack], ..Step::default() }).await
    }

    pub(super) async fn nack(&self, delivery: &Delivery, delay: Duration) {
        ok(self.broker.nack(&self.topic, &self.subscription, delivery.position, delay).await);
    }
}

/// Numbers that look random and are the same each time.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}
