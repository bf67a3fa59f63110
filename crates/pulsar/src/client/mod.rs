//! The `Broker` contract on a real Apache Pulsar.
//!
//! What holds there and what does not is told by [`Broker::promises`] and written down in `docs/reference/pulsar-broker.md`.

mod admin;
mod attempts;
mod entries;
mod error;
mod feed;
mod hands;
mod limits;
mod link;
mod net;
mod opening;
mod options;
mod pack;
mod peek;
mod pool;
mod publish;
mod reader;
mod seat;
mod seen;
mod sender;
mod settle;
mod state;
mod topics;

use error::Answer;
pub use error::PulsarError;
pub use options::{PulsarOptions, Secret};
pub(crate) use pack::ENTRY_BITS;

use admin::Admin;
use leatworks_broker::{
    Account, BoxFuture, Broker, BrokerError, Consumer, ErrorKind, Message, MessageId, Outcome, Position, Promises, Publish,
    Result, Start, Step, Subscribe, TopicSpec, TopicStats,
};
use limits::PENDING_BYTES_MAX;
use pool::Pool;
use seat::Subscription;
use sender::Sender;
use state::Store;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{OnceCell, Semaphore};

/// A Pulsar service as a broker.
#[derive(Clone)]
pub struct PulsarBroker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: Arc<PulsarOptions>,
    admin: Admin,
    /// Consuming and producing have connections of their own: a consumer that reads much must not hold up receipts.
    consuming: Arc<Pool>,
    producing: Arc<Pool>,
    message_bytes_max: usize,
    room: Arc<Semaphore>,
    closed: AtomicBool,
    next_seat: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    topics: HashMap<String, TopicSpec>,
    /// Topics that are this client's own, and when that was seen.
    internal: HashMap<String, Instant>,
    senders: HashMap<(String, Option<Arc<str>>), Sender>,
    subscriptions: HashMap<(String, String), Arc<Subscription>>,
    stores: HashMap<String, Arc<OnceCell<Arc<Store>>>>,
}

impl PulsarBroker {
    /// Connects to the service.
    ///
    /// # Errors
    /// Whatever stands in the way, at once: a caller who wants to wait for a service that is away asks again while
    /// [`PulsarError::is_retryable`] says so.
    pub async fn connect(options: PulsarOptions) -> Answer<Self> {
        let options = Arc::new(options);
        let consuming = Arc::new(Pool::new(options.clone()));
        let producing = Arc::new(Pool::new(options.clone()));
        let message_bytes_max = producing.service().await?.message_bytes_max();
        let inner = Inner {
            admin: Admin::new(options.clone())?,
            options,
            consuming,
            producing,
            message_bytes_max,
            room: Arc::new(Semaphore::new(PENDING_BYTES_MAX)),
            closed: AtomicBool::new(false),
            next_seat: AtomicU64::new(0),
            known: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl PulsarBroker {
    /// What of the contract a Pulsar keeps.
    pub fn promised() -> Promises {
        let mut promises = Promises::default();
        promises.atomic_step = false;
        promises.accounts = false;
        promises.on_demand = false;
        promises.counted_positions = false;
        promises.exact_retention = false;
        promises.lasting_delays = false;
        promises.parts_of_batches = false;
        promises.sequence_max = publish::SEQUENCE_MAX;
        promises
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check(&self) -> Answer<()> {
        if self.closed.load(Relaxed) { Err(PulsarError::Closed) } else { Ok(()) }
    }

    /// What this process knows of a subscription.
    fn subscription(&self, topic: &str, name: &str) -> Arc<Subscription> {
        let key = (topic.to_owned(), name.to_owned());
        self.known().subscriptions.entry(key).or_insert_with(|| Arc::new(Subscription::new(topic, name))).clone()
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Relaxed) {
            return Err(PulsarError::Closed.into());
        }
        let Known { senders, subscriptions, stores, .. } = std::mem::take(&mut *self.known());
        drop(senders);
        for cell in stores.into_values() {
            // A step that is under way lets go of it when it has ended.
            if let Some(store) = Arc::into_inner(cell).and_then(OnceCell::into_inner).and_then(Arc::into_inner) {
                store.close().await;
            }
        }
        for subscription in subscriptions.values() {
            subscription.hands().wake_all();
        }
        for subscription in subscriptions.into_values() {
            subscription.settle_down().await;
            if let Some(ledger) = subscription.ledger.get() {
                ledger.close().await;
            }
        }
        self.consuming.close().await;
        self.producing.close().await;
        Ok(())
    }
}

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| now_ms())
}

fn unsupported(what: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Invalid, format!("{what} on Pulsar"))
}

impl Broker for PulsarBroker {
    fn durability(&self) -> &str {
        "pulsar"
    }

    fn promises(&self) -> Promises {
        Self::promised()
    }

    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.inner.create_topic(spec))
    }

    fn delete_topic(&self, topic: &str) -> BoxFuture<'_, Result<()>> {
        let topic = topic.to_owned();
        Box::pin(async move { self.inner.delete_topic(&topic).await })
    }

    fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> BoxFuture<'_, Result<()>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move { self.inner.create_subscription(&topic, &subscription, start).await })
    }

    fn unsubscribe(&self, topic: &str, subscription: &str) -> BoxFuture<'_, Result<()>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move { self.inner.unsubscribe(&topic, &subscription).await })
    }

    fn subscribe(&self, subscribe: Subscribe) -> BoxFuture<'_, Result<Box<dyn Consumer>>> {
        Box::pin(self.inner.clone().subscribe(subscribe))
    }

    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Result<Vec<Position>>> {
        Box::pin(self.inner.publish(batch))
    }

    fn commit(&self, step: Step) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.inner.clone().commit(step))
    }

    fn nack(&self, topic: &str, subscription: &str, position: Position, delay: Duration) -> BoxFuture<'_, Result<()>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move { self.inner.clone().nack(&topic, &subscription, position, delay).await })
    }

    fn seek(&self, topic: &str, subscription: &str, to: Start) -> BoxFuture<'_, Result<()>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move { self.inner.seek(&topic, &subscription, to).await })
    }

    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Position, Message)>>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move { self.inner.peek(&topic, &subscription, from, limit).await })
    }

    fn last_sequence(&self, topic: &str, producer: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        let (topic, producer) = (topic.to_owned(), producer.to_owned());
        Box::pin(async move { self.inner.last_sequence(&topic, &producer).await })
    }

    fn state(&self, key: &str) -> BoxFuture<'_, Result<Option<bytes::Bytes>>> {
        let key = key.to_owned();
        Box::pin(async move { self.inner.state(&key).await })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<TopicStats>>> {
        Box::pin(self.inner.stats())
    }

    fn topic_stats(&self, topic: &str) -> BoxFuture<'_, Result<Option<TopicStats>>> {
        let topic = topic.to_owned();
        Box::pin(async move { self.inner.topic_stats(&topic).await })
    }

    fn account(&self, _topology: &str) -> BoxFuture<'_, Result<Account>> {
        Box::pin(async { self.inner.check().map_err(BrokerError::from).and(Err(unsupported("no account is kept"))) })
    }

    fn root_outcome(&self, _root: MessageId) -> BoxFuture<'_, Result<Outcome>> {
        Box::pin(async { self.inner.check().map_err(BrokerError::from).and(Err(unsupported("no outcomes are kept"))) })
    }

    fn max_message_bytes(&self) -> usize {
        self.inner.message_bytes_max
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.inner.close())
    }
}
