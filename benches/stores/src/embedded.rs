//! The embedded broker of Leatworks, level `power`: one step is one commit.

use crate::{
    Failed,
    workload::{Load, Opened, Store, check, check_count, in_windows, payload},
};
use futures_util::future::try_join_all;
use leatworks_broker::{
    Ack, Broker, Consumer, Embedded, EmbeddedOptions, Message, MessageId, Position, Publish, Start, Step, Subscribe,
    SubscriptionKind, TopicKind, TopicSpec,
};
use std::{ops::Range, path::Path, sync::Arc};
use tokio::runtime::{Builder, Runtime};

/// Messages that a consumer may hold: more than the largest group.
const PERMITS: usize = 4_096;

struct Ours {
    runtime: Runtime,
    broker: Embedded,
    load: Load,
    subscription: Arc<str>,
    topics: Vec<(Arc<str>, Box<dyn Consumer>)>,
}

pub(crate) fn open(dir: &Path, load: Load) -> Opened {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let broker = Embedded::open(EmbeddedOptions::new(dir))?;
    let topics = runtime.block_on(async {
        let mut topics: Vec<(Arc<str>, Box<dyn Consumer>)> = Vec::new();
        for topic in 0..load.topics {
            let name = format!("topic-{topic}");
            let spec = TopicSpec { name: name.clone(), kind: TopicKind::Plain, ..TopicSpec::default() };
            broker.create_topic(spec).await?;
            broker.create_subscription(&name, "s", Start::Earliest).await?;
            let subscribe = Subscribe {
                topic: name.clone(),
                subscription: "s".into(),
                kind: SubscriptionKind::Shared,
                consumer: "bench".into(),
                permits: PERMITS,
                hand_off: leatworks_broker::HandOff::Durable,
            };
            topics.push((name.into(), broker.subscribe(subscribe).await?));
        }
        Ok::<_, Failed>(topics)
    })?;
    Ok(Box::new(Ours { runtime, broker, load, subscription: "s".into(), topics }))
}

/// Receives and checks the messages of these keys.
async fn take(consumer: &mut dyn Consumer, topic: u64, keys: Range<u64>) -> Result<Vec<Position>, Failed> {
    let wanted = (keys.end - keys.start) as usize;
    let mut taken = Vec::with_capacity(wanted);
    while taken.len() < wanted {
        for delivery in consumer.receive(wanted - taken.len()).await? {
            check(topic, delivery.position.0, &delivery.message.payload)?;
            taken.push(delivery.position);
        }
    }
    check_count(topic, &keys, taken.len())?;
    Ok(taken)
}

impl Store for Ours {
    fn commit(&mut self, publish: Range<u64>, consume: Range<u64>) -> Result<(), Failed> {
        let Self { runtime, broker, load, subscription, topics } = self;
        runtime.block_on(async {
            let mut step = Step { guard: true, ..Step::default() };
            // All at once, as the dispatchers of a topology do.
            let taking = topics.iter_mut().enumerate().map(|(topic, (_, consumer))| {
                let (topic, keys) = (topic as u64, load.keys(&consume, topic as u64));
                take(consumer.as_mut(), topic, keys)
            });
            for (taken, (name, _)) in try_join_all(taking).await?.into_iter().zip(topics.iter()) {
                let ack = |position| Ack { topic: name.clone(), subscription: subscription.clone(), position, cumulative: false };
                step.acks.extend(in_windows(&taken).map(|position| ack(*position)));
            }
            for number in publish {
                let (topic, key) = (number % load.topics, number / load.topics);
                let message = Message {
                    id: MessageId(u128::from(number) + 1),
                    root: MessageId(u128::from(number) + 1),
                    payload: payload(topic, key).to_vec().into(),
                    ..Message::default()
                };
                step.publishes.push(Publish { topic: topics[topic as usize].0.clone(), message: message.into(), sequence: None });
            }
            Ok(broker.commit(step).await?)
        })
    }

    fn close(self: Box<Self>) -> Result<(), Failed> {
        let Self { runtime, broker, topics, .. } = *self;
        drop(topics);
        Ok(runtime.block_on(broker.close())?)
    }
}
