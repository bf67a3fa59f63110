//! Topics of different levels of durability on one embedded broker.

use leatworks_broker::*;
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{sync::Arc, time::Duration};

/// Messages that are published one by one.
const MESSAGES: u128 = 20;

fn open(fs: &SimulatedFileSystem, durability: Durability) -> Embedded {
    // No sync comes by itself while a test runs.
    let sync_interval = Duration::from_secs(3_600);
    let options = EmbeddedOptions { durability, sync_interval, segment_bytes: 256 << 10, ..EmbeddedOptions::new("simulated") };
    Embedded::open_on(Arc::new(fs.clone()), options).unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it should have come long ago")
}

async fn topic(broker: &Embedded, name: &str, durability: Option<Durability>) {
    broker.create_topic(TopicSpec { name: name.into(), durability, ..TopicSpec::default() }).await.unwrap();
    broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
}

fn publish_of(topic: &str, id: u128) -> Publish {
    let message = Message { id: MessageId(id), payload: vec![id as u8; 100].into(), ..Message::default() };
    Publish { topic: topic.into(), message: message.into(), sequence: None }
}

async fn publish(broker: &Embedded, topic: &str, id: u128) -> Position {
    soon(broker.publish(vec![publish_of(topic, id)])).await.unwrap()[0]
}

/// How many messages a subscription has not settled.
async fn backlog(broker: &Embedded, topic: &str) -> u64 {
    let stats = broker.stats().await.unwrap();
    stats
        .iter()
        .find(|stats| stats.spec.name == topic)
        .and_then(|stats| stats.subscriptions.get("s"))
        .map_or(0, |found| found.backlog)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_waits_for_a_sync_only_if_one_of_its_topics_asks_for_power() {
    let levels = || [None].into_iter().chain(Durability::ALL.map(Some));
    for usual in Durability::ALL {
        let fs = SimulatedFileSystem::new(1, Faults::default());
        let broker = open(&fs, usual);
        let name = |level: Option<Durability>| level.map_or("usual", Durability::name);
        for level in levels() {
            topic(&broker, name(level), level).await;
        }
        let mut id = 0;
        for from in levels() {
            for to in levels() {
                id += 1;
                let before = fs.syncs();
                let position = publish(&broker, name(from), id).await;
                let strong = |level: Option<Durability>| level.unwrap_or(usual) == Durability::Power;
                assert_eq!(fs.syncs() > before, strong(from), "publishing on {from:?}, usual {usual:?}");
                let ack = Ack { topic: name(from).into(), subscription: "s".into(), position, cumulative: false };
                let step = Step { acks: vec![ack], publishes: vec![publish_of(name(to), id << 64)], ..Step::default() };
                let before = fs.syncs();
                soon(broker.commit(step.clone())).await.unwrap();
                assert_eq!(fs.syncs() > before, strong(from) || strong(to), "from {from:?} to {to:?}, usual {usual:?}");
                // What has happened already, and what is only looked at, waits for no sync that nobody asks for.
                soon(broker.commit(Step { publishes: Vec::new(), ..step })).await.unwrap();
                soon(broker.stats()).await.unwrap();
            }
        }
        broker.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_what_its_level_says() {
    let mut lost = 0;
    for seed in 0..20 {
        let fs = SimulatedFileSystem::new(seed, Faults::default());
        let broker = open(&fs, Durability::Power);
        topic(&broker, "strong", None).await;
        topic(&broker, "weak", Some(Durability::Process)).await;
        for id in 0..MESSAGES {
            publish(&broker, "weak", id).await;
        }
        let killed = fs.fork();
        killed.kill();
        assert_eq!(backlog(&open(&killed, Durability::Power), "weak").await, MESSAGES as u64, "seed {seed}, killed");
        let cut = fs.fork();
        cut.cut_power();
        lost += MESSAGES as u64 - backlog(&open(&cut, Durability::Power), "weak").await;
        // What is confirmed at the stronger level is there, and with it whatever came before.
        publish(&broker, "strong", 1).await;
        let cut = fs.fork();
        cut.cut_power();
        let again = open(&cut, Durability::Memory);
        assert_eq!((backlog(&again, "strong").await, backlog(&again, "weak").await), (1, MESSAGES as u64), "seed {seed}, cut");
        let levels: Vec<_> = again.stats().await.unwrap().into_iter().map(|stats| stats.spec.durability).collect();
        assert_eq!(levels, [None, Some(Durability::Process)], "a topic keeps its level");
    }
    assert!(lost > 0, "a weaker level that loses nothing is none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_on_a_topic_that_survives_are_counted_on_a_broker_that_does_not() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let subscribe = || Subscribe {
        topic: "kept".into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "test".into(),
        permits: 10,
        hand_off: HandOff::Durable,
    };
    let broker = open(&fs, Durability::Memory);
    topic(&broker, "kept", Some(Durability::Process)).await;
    publish(&broker, "kept", 7).await;
    let mut fs = fs;
    for attempt in 1..4 {
        let broker = if attempt == 1 { broker.clone() } else { open(&fs, Durability::Memory) };
        let mut consumer = broker.subscribe(subscribe()).await.unwrap();
        let got = consumer.receive(1).await.unwrap();
        assert_eq!((got[0].message.id.0, got[0].attempt), (7, attempt));
        // The next life begins as this one is killed with the message in its hands.
        fs = fs.fork();
        fs.kill();
    }
}
