//! A broker that counts messages from zero, as the contract suite does, in front of one that has ledgers and entries: it knows the positions of a
//! topic in their order and counts them.

use bytes::Bytes;
use leatworks_broker::{
    Account, BoxFuture, Broker, Consumer, Delivery, Message, MessageId, Outcome, Position, Publish, Result, Start, Step,
    Subscribe, TopicSpec, TopicStats,
};
use leatworks_pulsar::PulsarBroker;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The positions of each topic, in the order in which they became known: that of publishing, but where many publish at once.
#[derive(Default)]
pub(crate) struct Book {
    topics: Mutex<HashMap<String, Page>>,
}

#[derive(Default)]
struct Page {
    positions: Vec<u64>,
    numbers: HashMap<u64, u64>,
    /// A subscription that sees what a step publishes, of which nobody tells the positions.
    subscription: Option<String>,
}

/// Beyond so many messages of a topic, what steps publish is numbered as it comes: many publish at once then, and their order is not looked at.
const LOOKED_AT_MAX: usize = 100;

impl Book {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.topics.lock().unwrap()
    }

    /// Which messages of their topics stand there.
    fn numbers<'a>(&self, all: impl IntoIterator<Item = (&'a str, Position)>) -> Vec<Position> {
        let mut topics = self.topics();
        let number = |(topic, position): (&str, Position)| {
            if position.0 == u64::MAX {
                // A repetition has no place.
                return position;
            }
            let page = topics.entry(topic.to_owned()).or_default();
            let next = page.positions.len() as u64;
            Position(*page.numbers.entry(position.0).or_insert_with(|| {
                page.positions.push(position.0);
                next
            }))
        };
        all.into_iter().map(number).collect()
    }

    fn number(&self, topic: &str, position: Position) -> Position {
        self.numbers([(topic, position)])[0]
    }

    /// Where a message stands; for what is beyond the last, what may stand there.
    fn position(&self, topic: &str, number: Position) -> Position {
        let mut topics = self.topics();
        let known = &topics.entry(topic.to_owned()).or_default().positions;
        let beyond = || {
            let steps = number.0.saturating_sub(known.len() as u64).saturating_add(1).min(1 << 20);
            known.last().map_or(0, |last| (last & !1_023) + (steps << 10))
        };
        Position(known.get(number.0 as usize).copied().unwrap_or_else(beyond))
    }

    fn start(&self, topic: &str, start: Start) -> Start {
        match start {
            Start::At(number) => Start::At(self.position(topic, number)),
            other => other,
        }
    }
}

/// A broker whose positions are counted.
pub(crate) struct Numbered {
    pub(crate) inner: PulsarBroker,
    pub(crate) book: Arc<Book>,
}

struct NumberedConsumer {
    inner: Box<dyn Consumer>,
    topic: String,
    book: Arc<Book>,
}

impl Consumer for NumberedConsumer {
    fn receive(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        let Self { inner, topic, book } = self;
        let received = inner.receive(max);
        Box::pin(async move {
            let number = |delivery: Delivery| Delivery { position: book.number(topic, delivery.position), ..delivery };
            Ok(received.await?.into_iter().map(number).collect())
        })
    }
}

impl Broker for Numbered {
    fn durability(&self) -> &str {
        self.inner.durability()
    }

    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<()>> {
        self.inner.create_topic(spec)
    }

    fn delete_topic(&self, topic: &str) -> BoxFuture<'_, Result<()>> {
        let topic = topic.to_owned();
        Box::pin(async move {
            self.inner.delete_topic(&topic).await?;
            self.book.topics().remove(&topic);
            Ok(())
        })
    }

    fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> BoxFuture<'_, Result<()>> {
        self.book.topics().entry(topic.to_owned()).or_default().subscription = Some(subscription.to_owned());
        self.inner.create_subscription(topic, subscription, self.book.start(topic, start))
    }

    fn unsubscribe(&self, topic: &str, subscription: &str) -> BoxFuture<'_, Result<()>> {
        self.book.topics().entry(topic.to_owned()).or_default().subscription = None;
        self.inner.unsubscribe(topic, subscription)
    }

    fn subscribe(&self, subscribe: Subscribe) -> BoxFuture<'_, Result<Box<dyn Consumer>>> {
        Box::pin(async move {
            let topic = subscribe.topic.clone();
            let inner = self.inner.subscribe(subscribe).await?;
            Ok(Box::new(NumberedConsumer { inner, topic, book: self.book.clone() }) as Box<dyn Consumer>)
        })
    }

    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Result<Vec<Position>>> {
        Box::pin(async move {
            let topics: Vec<Arc<str>> = batch.iter().map(|publish| publish.topic.clone()).collect();
            let positions = self.inner.publish(batch).await?;
            Ok(self.book.numbers(topics.iter().map(|topic| &**topic).zip(positions)))
        })
    }

    fn commit(&self, mut step: Step) -> BoxFuture<'_, Result<()>> {
        for ack in &mut step.acks {
            ack.position = self.book.position(&ack.topic, ack.position);
        }
        let mut topics: Vec<Arc<str>> = step.publishes.iter().map(|publish| publish.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        Box::pin(async move {
            self.inner.commit(step).await?;
            for topic in topics {
                let seen_by = self
                    .book
                    .topics()
                    .get(&*topic)
                    .filter(|page| page.positions.len() < LOOKED_AT_MAX)
                    .and_then(|page| page.subscription.clone());
                if let Some(subscription) = seen_by {
                    let peeked = self.inner.peek(&topic, &subscription, Position(0), usize::MAX).await?;
                    self.book.numbers(peeked.iter().map(|(position, _)| (&*topic, *position)));
                }
            }
            Ok(())
        })
    }

    fn nack(&self, topic: &str, subscription: &str, position: Position, delay: Duration) -> BoxFuture<'_, Result<()>> {
        self.inner.nack(topic, subscription, self.book.position(topic, position), delay)
    }

    fn seek(&self, topic: &str, subscription: &str, to: Start) -> BoxFuture<'_, Result<()>> {
        self.inner.seek(topic, subscription, self.book.start(topic, to))
    }

    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Position, Message)>>> {
        let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
        Box::pin(async move {
            let from = if from.0 == 0 { from } else { self.book.position(&topic, from) };
            let peeked = self.inner.peek(&topic, &subscription, from, limit).await?;
            Ok(peeked.into_iter().map(|(position, message)| (self.book.number(&topic, position), message)).collect())
        })
    }

    fn last_sequence(&self, topic: &str, producer: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.last_sequence(topic, producer)
    }

    fn state(&self, key: &str) -> BoxFuture<'_, Result<Option<Bytes>>> {
        self.inner.state(key)
    }

    /// Pulsar counts entries; the messages of a subscription are counted by looking at them.
    fn stats(&self) -> BoxFuture<'_, Result<Vec<TopicStats>>> {
        Box::pin(async move {
            let mut all = self.inner.stats().await?;
            for topic in &mut all {
                for (name, stats) in &mut topic.subscriptions {
                    let unsettled = self.inner.peek(&topic.spec.name, name, Position(0), usize::MAX).await?;
                    stats.backlog = (unsettled.len() as u64).saturating_sub(stats.in_flight);
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
                    let waits = |message: &Message| message.deliver_at_ms.is_some_and(|time| time > now);
                    stats.delayed = stats.delayed.max(unsettled.iter().filter(|(_, message)| waits(message)).count() as u64);
                }
            }
            Ok(all)
        })
    }

    fn account(&self, topology: &str) -> BoxFuture<'_, Result<Account>> {
        self.inner.account(topology)
    }

    fn root_outcome(&self, root: MessageId) -> BoxFuture<'_, Result<Outcome>> {
        self.inner.root_outcome(root)
    }

    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}
