//! The `Broker` contract, its test suite, and the brokers that need nothing else installed: memory and embedded.
//!
//! The documentation of [`Broker`] and [`Consumer`] *is* the contract. Every implementation runs the same contract suite.

#[cfg(feature = "contract")]
pub mod contract;
mod durability;
mod embedded;
mod engine;
mod error;
mod memory;
mod message;
#[cfg(not(feature = "planted"))]
mod planted;
mod promises;
mod state;

#[cfg(feature = "planted")]
pub mod planted;

pub use durability::Durability;
#[cfg(feature = "simulation")]
pub use embedded::{Driven, Replayed, Work};
pub use embedded::{Embedded, EmbeddedOptions, STORAGE_EXIT_CODE};
pub use engine::Limits;
pub use error::{BrokerError, ErrorKind};
pub use leatworks_journal::{Damage, File, FileSystem, RealFileSystem, Recovered, Report, verify};
pub use memory::MemoryBroker;
pub use message::{Codec, Delivery, Message, MessageId, Position};
pub use promises::Promises;

use bytes::Bytes;
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

/// A boxed future, so that a broker can stand behind `Arc<dyn Broker>`. One is made per batch, never per message.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What every broker call returns.
pub type Result<T> = std::result::Result<T, BrokerError>;

/// What a topic is for. It decides how the messages on it count in the [`Account`] of its topology.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// A topic outside any topology: nothing is counted.
    #[default]
    Plain,
    /// Where roots enter a topology: each message published here is one more `sent`.
    Ingress,
    /// What a task gives under one of its routes.
    Route,
    /// Messages that were given up. They keep their root out of `done` until they are redriven or dropped.
    DeadLetter,
}

/// A topic as its creator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name, at most 255 bytes of `[A-Za-z0-9._-]`.
    pub name: String,
    /// What it is for.
    pub kind: TopicKind,
    /// The topology whose account its messages count in; empty for [`TopicKind::Plain`].
    pub topology: String,
    /// How long acknowledged messages are kept for [`Broker::seek`]; zero keeps none.
    pub retention: Duration,
    /// How many bytes of payloads are kept at most, within `retention`: the oldest acknowledged messages go first. 0 sets no limit.
    pub retention_bytes: u64,
    /// What an acknowledged write to it survives; `None` is what it was, or for a new topic what the broker's level says. A step that touches topics of several
    /// levels is as durable as the strongest of them. A broker that has one level only takes no notice.
    pub durability: Option<Durability>,
}

/// How the consumers of one subscription share its messages. The names and meanings are Pulsar's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionKind {
    /// One consumer only; a second one is refused with [`ErrorKind::Conflict`].
    Exclusive,
    /// Any consumer gets any message.
    Shared,
    /// One consumer is active, in the order of arrival; the next takes over when it leaves.
    Failover,
    /// Messages of one key go to one consumer as long as no other comes or goes, one at a time and in order, also across redelivery: while a message of a
    /// key is unsettled, later messages of that key wait. When a consumer comes or goes some keys move, each of them not before what its consumer
    /// holds of it is settled or given back. A consumer that takes nothing holds up its own keys only. Messages without a key are treated as
    /// [`SubscriptionKind::Shared`].
    KeyShared,
}

/// When a message may be handed to a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HandOff {
    /// When it is as durable as the level of its topic says: what a consumer does outside can rely on it.
    #[default]
    Durable,
    /// At once, for a consumer in the broker's own process whose effects go through the broker. What follows from the message becomes durable with it or after it,
    /// never without it, so after a crash either both are there or neither. Attempts are counted all the same: a message that was lost with the process and is
    /// published again with the same id goes on counting.
    Eager,
}

/// Where a new subscription starts, or an old one is moved to by [`Broker::seek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest message that the topic still holds.
    Earliest,
    /// After the newest message.
    Latest,
    /// At this message, inclusive.
    At(Position),
    /// At the first message created at or after this time, in milliseconds since the Unix epoch.
    Time(u64),
}

/// A subscription that a consumer joins.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The topic's name.
    pub topic: String,
    /// The subscription's name, at most 255 bytes of `[A-Za-z0-9._-]`.
    pub subscription: String,
    /// How consumers share it. All consumers that are connected at once must agree.
    pub kind: SubscriptionKind,
    /// The consumer's name, for people and statistics.
    pub consumer: String,
    /// Back-pressure: the most messages that this consumer may hold unsettled, at least 1.
    pub permits: usize,
    /// When it gets messages. A broker that knows no eager hand-off takes it as [`HandOff::Durable`].
    pub hand_off: HandOff,
}

/// One message on its way to a topic.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic's name. It must exist.
    pub topic: Arc<str>,
    /// What is published. It is shared, so that a step can be tried again without a copy.
    pub message: Arc<Message>,
    /// A named producer and its sequence number. A sequence that is not greater than the producer's last one *on this
    /// topic* is dropped as a repetition and still reported as published. Survives restarts. A producer that has published nothing on the topic for long (six hours,
    /// unless the broker's limits say otherwise) may be forgotten.
    pub sequence: Option<(Arc<str>, u64)>,
}

/// What becomes of one delivered message in a [`Step`].
#[derive(Clone, Debug)]
pub struct Ack {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The subscription that got it.
    pub subscription: Arc<str>,
    /// The message, or with `cumulative` this and all before it.
    pub position: Position,
    /// Acknowledge everything up to and including `position`. Refused with [`ErrorKind::Invalid`] on `Shared` and `KeyShared`.
    pub cumulative: bool,
}

/// One atomic step: after any crash all of it has happened, or none of it.
///
/// A message whose step has committed is never delivered on that subscription again (short of a seek).
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Inputs that are settled. An input that is settled already is ignored *together with nothing else*: the caller decides
    /// with [`Step::guard`] whether the rest still happens.
    pub acks: Vec<Ack>,
    /// Outputs, in order.
    pub publishes: Vec<Publish>,
    /// Keyed state that is written (`Some`) or removed (`None`), read back with [`Broker::state`]. At most 16 MiB a value.
    pub state: Vec<(String, Option<Bytes>)>,
    /// With `true`, the whole step is refused with [`ErrorKind::Settled`] if any of its acknowledged inputs is settled already, so a
    /// repetition publishes nothing twice.
    pub guard: bool,
    /// When [`Broker::commit`] tells that the step has happened.
    pub confirm: Confirm,
}

/// When a step is told to have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Confirm {
    /// When it is as durable as the level of its topics says.
    #[default]
    Durable,
    /// When it is in order: whatever comes after it becomes durable with it or after it. For a caller who tells nobody outside; a later call that
    /// waits for durability, or [`Broker::close`], covers it. A broker that knows no such difference takes it as [`Confirm::Durable`].
    Applied,
}

/// What became of a root message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing that came of it is pending, and nothing of it was given up.
    Done,
    /// Nothing of it is pending, and at least one message of it lies in a dead-letter topic, or was dropped from one.
    DeadLettered,
}

/// The account of a topology's roots: `sent == done + dead_lettered + in_flight`, at every instant and after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Roots that an ingress topic has accepted.
    pub sent: u64,
    /// Roots of which nothing is pending and nothing was given up.
    pub done: u64,
    /// Roots of which nothing is pending and something was given up.
    pub dead_lettered: u64,
    /// Roots of which something is pending.
    pub in_flight: u64,
}

/// One subscription, as [`Broker::stats`] reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Messages that are neither settled nor handed out.
    pub backlog: u64,
    /// Messages that are handed out and not settled.
    pub in_flight: u64,
    /// Messages that wait for their delay to pass, part of `backlog`.
    pub delayed: u64,
    /// Consumers that are connected.
    pub consumers: usize,
}

/// One topic, as [`Broker::stats`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// The topic as it was created.
    pub spec: TopicSpec,
    /// Messages published since the topic was made.
    pub published: u64,
    /// Messages that could not be read back from a damaged disk and were passed over, once for each subscription that missed one.
    pub damaged: u64,
    /// Its subscriptions by name.
    pub subscriptions: BTreeMap<String, SubscriptionStats>,
}

/// Holds topics and subscriptions.
///
/// # Promises
/// 1. A future of [`publish`](Broker::publish) or [`commit`](Broker::commit) resolves with `Ok` only when what it did is as durable as
///    the strongest of its topics asks for, which is the broker's level ([`durability`](Broker::durability)) unless [`TopicSpec::durability`] says otherwise. If it resolves with a retryable error, it did nothing or all; a repetition is made harmless by
///    [`Publish::sequence`] and [`Step::guard`].
/// 2. A message is delivered to every subscription that existed when it was published, until it is settled there.
/// 3. [`Delivery::attempt`] is 1 for the first delivery and has risen, durably against the end of the process, *before* each delivery is
///    handed out, so that a message that kills its consumer is counted too. It never goes back, not by restart, not by disconnect.
/// 4. Within a topic, one subscription gets messages in the order of publishing, but for redelivered and delayed ones.
/// 5. Dropping a [`Consumer`] returns its unsettled messages to the subscription.
/// 6. A message published with [`Message::deliver_at_ms`] is not delivered before that time.
///
/// An implementation *may* hand a message to a consumer of the same process before it is durable (eager hand-off) as long as a step that
/// depends on it cannot become durable without it, may skip writing what is published and settled in one commit group (elision), and
/// may keep its backlog outside memory.
pub trait Broker: Send + Sync + 'static {
    /// What an acknowledged write survives where a topic says nothing else, for people: `power`, `interval`, `process`, `memory`, or the name of the foreign broker.
    fn durability(&self) -> &str;

    /// Which of the promises above hold in full. All of them, unless another system lies behind.
    fn promises(&self) -> Promises {
        Promises::default()
    }

    /// Creates a topic, or does nothing if it exists. Its kind and topology are those of the first call; the retention is updated, and the durability if one is given.
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<()>>;

    /// Removes a topic with what it keeps. Another one of its name begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] while it has subscriptions.
    fn delete_topic(&self, topic: &str) -> BoxFuture<'_, Result<()>>;

    /// Creates a subscription, or does nothing if it exists. It exists, and gets every message, from then on, with no consumer needed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such topic, [`ErrorKind::Invalid`] if a name is not allowed.
    fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> BoxFuture<'_, Result<()>>;

    /// Removes a subscription with its backlog. [`ErrorKind::Conflict`] while consumers are connected.
    fn unsubscribe(&self, topic: &str, subscription: &str) -> BoxFuture<'_, Result<()>>;

    /// Joins a subscription, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] if the kinds disagree or an exclusive consumer is there already.
    fn subscribe(&self, subscribe: Subscribe) -> BoxFuture<'_, Result<Box<dyn Consumer>>>;

    /// Publishes a batch, atomically, and gives the positions in order.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if a topic does not exist, [`ErrorKind::TooLarge`] if a message is over [`max_message_bytes`](Broker::max_message_bytes),
    /// [`ErrorKind::Full`] if a limit on backlog or disk is reached (retryable). All are decided before anything is written.
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Result<Vec<Position>>>;

    /// Commits one step. With [`Confirm::Applied`] it may still be undone by a crash, together with everything that follows from it.
    fn commit(&self, step: Step) -> BoxFuture<'_, Result<()>>;

    /// Gives a delivered message back, to be delivered again after `delay`. Its attempt count stays.
    fn nack(&self, topic: &str, subscription: &str, position: Position, delay: Duration) -> BoxFuture<'_, Result<()>>;

    /// Moves a subscription; its attempts start over and what was delivered and not settled is returned first.
    /// [`ErrorKind::Conflict`] while consumers are connected.
    fn seek(&self, topic: &str, subscription: &str, to: Start) -> BoxFuture<'_, Result<()>>;

    /// Reads up to `limit` unsettled messages of a subscription from `from` on, without taking them; for people who look into a queue.
    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Position, Message)>>>;

    /// The positions of what [`peek`](Broker::peek) would give; a broker that can does not read the messages for it.
    fn unsettled(&self, topic: &str, subscription: &str, from: Position, limit: usize) -> BoxFuture<'_, Result<Vec<Position>>> {
        let peeked = self.peek(topic, subscription, from, limit);
        Box::pin(async move { Ok(peeked.await?.into_iter().map(|(position, _)| position).collect()) })
    }

    /// The last sequence number that a named producer has published on a topic.
    fn last_sequence(&self, topic: &str, producer: &str) -> BoxFuture<'_, Result<Option<u64>>>;

    /// Keyed state that a [`Step`] has written.
    fn state(&self, key: &str) -> BoxFuture<'_, Result<Option<Bytes>>>;

    /// All topics with their subscriptions, sorted by name.
    fn stats(&self) -> BoxFuture<'_, Result<Vec<TopicStats>>>;

    /// One topic as [`stats`](Broker::stats) reports it, if there is one of this name.
    fn topic_stats(&self, topic: &str) -> BoxFuture<'_, Result<Option<TopicStats>>> {
        let topic = topic.to_owned();
        Box::pin(async move { Ok(self.stats().await?.into_iter().find(|found| found.spec.name == topic)) })
    }

    /// The account of a topology's roots.
    fn account(&self, topology: &str) -> BoxFuture<'_, Result<Account>>;

    /// Waits until nothing of this root is pending. A root that the broker does not know is done.
    fn root_outcome(&self, root: MessageId) -> BoxFuture<'_, Result<Outcome>>;

    /// The largest payload of one message in bytes. A larger one is refused with [`ErrorKind::TooLarge`].
    fn max_message_bytes(&self) -> usize;

    /// Makes everything durable and releases what the broker holds. Calls after it fail with [`ErrorKind::Closed`].
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

/// The most bytes of messages that one call of [`Consumer::receive`] gives, unless the first alone has more: a thousand messages of five mebibytes must not come
/// at once, and a disk does not get faster beyond a mebibyte.
pub const RECEIVE_BYTES_MAX: usize = 8 << 20;

/// One consumer of a subscription.
pub trait Consumer: Send {
    /// Waits for at least one message and gives at most `max`, no more than the permits that are left, and no more than [`RECEIVE_BYTES_MAX`] but for a single message. Cancel-safe: a message that is
    /// handed out by a call whose future was dropped is returned to the subscription.
    fn receive(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>>;
}
