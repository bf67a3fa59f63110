//! Work on the broker itself, without a topology: what writing costs, and what many topics and subscriptions cost.

use super::{
    Failed,
    flags::Bench,
    payload::Payloads,
    phase::{Elision, Profile, Rig, options},
};
use leatworks_broker::{
    Ack, Broker, Consumer, Message, MessageId, Publish, Start, Step, Subscribe, SubscriptionKind, TopicKind, TopicSpec,
};
use serde::Serialize;
use std::{path::Path, sync::Arc};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn},
};

/// Messages of one publish and the most of one acknowledging step.
pub(crate) const BATCH: usize = 500;

/// Publishes that are under way at once, and steps of each consumer: enough that one group gathers while another is synced, and that a single
/// consumer keeps up.
const UNDER_WAY: usize = 16;

/// Messages are acknowledged in the opposite order within windows of this many: consumers that work side by side never finish in order.
const WINDOW: usize = 16;

/// Messages of which the cost of writing is measured.
const WRITE_MESSAGES: usize = 100_000;

/// Deliveries of one measurement of many topics or subscriptions.
const SCALE_HOPS: usize = 200_000;

/// How often each number of topics and subscriptions is measured; the median counts. One run of 0.4 s of CPU varied by a tenth.
const SCALE_ROUNDS: usize = 3;

/// Topics and subscriptions of each that are compared; the first is what the others are compared with.
const SHAPES: [(usize, usize); 6] = [(1, 1), (4, 1), (16, 1), (64, 1), (1, 4), (1, 16)];

/// Topics of one broker, with what it takes to publish to them.
pub(crate) struct Topics {
    broker: Arc<dyn Broker>,
    names: Vec<Arc<str>>,
    payloads: Payloads,
    last_id: u128,
}

impl Topics {
    /// Makes topics, each with so many subscriptions.
    pub(crate) async fn create(
        broker: Arc<dyn Broker>,
        (topics, subscriptions): (usize, usize),
        kind: TopicKind,
        payloads: Payloads,
    ) -> Result<Self, Failed> {
        let names: Vec<Arc<str>> = (0..topics).map(|topic| format!("plain-{topic}").into()).collect();
        for name in &names {
            let spec = TopicSpec { name: name.to_string(), kind, ..TopicSpec::default() };
            broker.create_topic(spec).await?;
            for subscription in 0..subscriptions {
                broker.create_subscription(name, &format!("s-{subscription}"), Start::Earliest).await?;
            }
        }
        Ok(Self { broker, names, payloads, last_id: 0 })
    }

    /// A consumer of one subscription.
    pub(crate) async fn consumer(&self, topic: usize, subscription: usize) -> Result<Box<dyn Consumer>, Failed> {
        join(self.broker.as_ref(), topic, subscription).await
    }

    fn batch(&mut self, topic: usize, count: usize) -> Vec<Publish> {
        let mut message = || {
            self.last_id += 1;
            let id = MessageId(self.last_id);
            let message = Message { id, root: id, payload: self.payloads.next(), ..Message::default() };
            Publish { topic: self.names[topic].clone(), message: message.into(), sequence: None }
        };
        (0..count).map(|_| message()).collect()
    }

    /// Publishes so many messages, each batch to the next topic, with several batches under way.
    pub(crate) async fn publish(&mut self, messages: usize) -> Result<(), Failed> {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        let mut publishing = JoinSet::new();
        for (number, start) in (0..messages).step_by(BATCH).enumerate() {
            let permit = under_way.clone().acquire_owned().await?;
            let batch = self.batch(number % self.names.len(), BATCH.min(messages - start));
            let broker = self.broker.clone();
            publishing.spawn(async move {
                let _permit = permit;
                broker.publish(batch).await.map(drop)
            });
            while let Some(done) = publishing.try_join_next() {
                done??;
            }
        }
        while let Some(done) = publishing.join_next().await {
            done??;
        }
        Ok(())
    }
}

/// A consumer of a subscription that [`Topics::create`] has made.
pub(crate) async fn join(broker: &dyn Broker, topic: usize, subscription: usize) -> Result<Box<dyn Consumer>, Failed> {
    let subscribe = Subscribe {
        topic: format!("plain-{topic}"),
        subscription: format!("s-{subscription}"),
        kind: SubscriptionKind::Shared,
        consumer: "bench".into(),
        permits: UNDER_WAY * BATCH,
        hand_off: leatworks_broker::HandOff::Durable,
    };
    Ok(broker.subscribe(subscribe).await?)
}

/// Receives and acknowledges so many messages, each by itself, with several steps under way.
pub(crate) async fn consume(
    broker: Arc<dyn Broker>,
    mut consumer: Box<dyn Consumer>,
    topic: Arc<str>,
    subscription: Arc<str>,
    messages: usize,
) -> Result<(), Failed> {
    let (mut left, mut settling) = (messages, JoinSet::new());
    while left > 0 {
        let deliveries = consumer.receive(BATCH).await?;
        left = left.saturating_sub(deliveries.len());
        let ack = |position| Ack { topic: topic.clone(), subscription: subscription.clone(), position, cumulative: false };
        let windows = deliveries.chunks(WINDOW).flat_map(|window| window.iter().rev());
        let step = Step { acks: windows.map(|delivery| ack(delivery.position)).collect(), guard: true, ..Step::default() };
        let broker = broker.clone();
        // The permits bound how many there are.
        settling.spawn(async move { broker.commit(step).await });
        while let Some(done) = settling.try_join_next() {
            done??;
        }
    }
    while let Some(done) = settling.join_next().await {
        done??;
    }
    Ok(())
}

/// What writing costs, without elision.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Writes {
    /// Bytes given to write calls for each payload byte that was published.
    pub(crate) published: Option<f64>,
    /// Bytes given to write calls for each payload byte that was delivered and acknowledged.
    pub(crate) acknowledged: Option<f64>,
    pub(crate) publishing: Profile,
    pub(crate) acknowledging: Profile,
}

/// Measures what publishing writes, and then what delivering and acknowledging writes.
pub(crate) async fn writes(args: &Bench, dir: &Path) -> Result<Writes, Failed> {
    let rig = Rig::embedded(options(args, dir, Elision::Off)).map_err(|failure| failure.message)?;
    let mut topics = Topics::create(rig.broker.clone(), (1, 1), TopicKind::Plain, Payloads::new(args.size)).await?;
    let phase = rig.begin();
    topics.publish(WRITE_MESSAGES).await?;
    let publishing = phase.end();
    let consumer = topics.consumer(0, 0).await?;
    let phase = rig.begin();
    consume(rig.broker.clone(), consumer, topics.names[0].clone(), "s-0".into(), WRITE_MESSAGES).await?;
    let acknowledging = phase.end();
    rig.broker.close().await?;
    let per_byte =
        |profile: &Profile| profile.spent.written_bytes.map(|bytes| bytes as f64 / (WRITE_MESSAGES as u64 * args.size) as f64);
    Ok(Writes { published: per_byte(&publishing), acknowledged: per_byte(&acknowledging), publishing, acknowledging })
}

/// What so many topics, or subscriptions of one, cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shape {
    pub(crate) topics: usize,
    pub(crate) subscriptions: usize,
    pub(crate) deliveries_per_s: f64,
    pub(crate) cpu_us_per_delivery: f64,
    /// CPU for a delivery as a part of what it is with one topic and one subscription: the median of the rounds.
    pub(crate) ratio: f64,
    /// Of the round that this median comes from.
    pub(crate) profile: Profile,
}

/// Measures several numbers of topics and subscriptions with the same number of deliveries.
pub(crate) async fn scale(args: &Bench, dir: &Path) -> Result<Vec<Shape>, Failed> {
    let mut rounds: Vec<Vec<Shape>> = vec![Vec::new(); SHAPES.len()];
    for round in 0..SCALE_ROUNDS {
        let mut first = None;
        for (index, (topics, subscriptions)) in SHAPES.into_iter().enumerate() {
            let path = dir.join(format!("scale-{round}-{topics}-{subscriptions}"));
            let mut shape = shape(args, &path, topics, subscriptions).await?;
            std::fs::remove_dir_all(&path)?;
            shape.ratio = shape.cpu_us_per_delivery / *first.get_or_insert(shape.cpu_us_per_delivery);
            rounds[index].push(shape);
        }
    }
    let median = |mut shapes: Vec<Shape>| {
        shapes.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        shapes.swap_remove(shapes.len() / 2)
    };
    Ok(rounds.into_iter().map(median).collect())
}

async fn shape(args: &Bench, dir: &Path, topics: usize, subscriptions: usize) -> Result<Shape, Failed> {
    let rig = Rig::embedded(options(args, dir, Elision::On)).map_err(|failure| failure.message)?;
    let mut made =
        Topics::create(rig.broker.clone(), (topics, subscriptions), TopicKind::Plain, Payloads::new(args.size)).await?;
    // Whole batches for each topic, so that each gets the same.
    let each = (SCALE_HOPS / subscriptions / topics).next_multiple_of(BATCH);
    let mut consumers = Vec::new();
    for topic in 0..topics {
        for subscription in 0..subscriptions {
            let name: Arc<str> = format!("s-{subscription}").into();
            consumers.push((made.consumer(topic, subscription).await?, made.names[topic].clone(), name));
        }
    }
    let phase = rig.begin();
    let consuming: Vec<_> = consumers
        .into_iter()
        .map(|(consumer, topic, name)| spawn(consume(rig.broker.clone(), consumer, topic, name, each)))
        .collect();
    made.publish(each * topics).await?;
    for consumer in consuming {
        consumer.await??;
    }
    let profile = phase.end();
    rig.broker.close().await?;
    let deliveries = (each * topics * subscriptions) as f64;
    Ok(Shape {
        topics,
        subscriptions,
        deliveries_per_s: deliveries / profile.spent.elapsed_s,
        cpu_us_per_delivery: profile.spent.cpu_s * 1e6 / deliveries,
        ratio: 1.0,
        profile,
    })
}

/// What a backlog that is far larger than memory does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Backlog {
    pub(crate) messages: usize,
    pub(crate) published_per_s: f64,
    pub(crate) consumed_per_s: f64,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) publishing: Profile,
    pub(crate) consuming: Profile,
}

/// Publishes so many messages before the first is consumed.
pub(crate) async fn backlog(args: &Bench, dir: &Path, messages: usize) -> Result<Backlog, Failed> {
    let mut options = options(args, dir, Elision::On);
    options.limits.backlog_messages_max = messages as u64;
    let rig = Rig::embedded(options).map_err(|failure| failure.message)?;
    let mut topics = Topics::create(rig.broker.clone(), (1, 1), TopicKind::Plain, Payloads::new(args.size)).await?;
    let own_peak = super::usage::forget_peak_rss();
    let phase = rig.begin();
    topics.publish(messages).await?;
    let publishing = phase.end();
    let consumer = topics.consumer(0, 0).await?;
    let phase = rig.begin();
    consume(rig.broker.clone(), consumer, topics.names[0].clone(), "s-0".into(), messages).await?;
    let consuming = phase.end();
    let peak_rss_bytes = super::usage::peak_rss_bytes().filter(|_| own_peak);
    rig.broker.close().await?;
    let rate = |profile: &Profile| messages as f64 / profile.spent.elapsed_s;
    Ok(Backlog {
        messages,
        published_per_s: rate(&publishing),
        consumed_per_s: rate(&consuming),
        peak_rss_bytes,
        publishing,
        consuming,
    })
}
