//! A disk that is full of the journal: what lets go of messages, and what moves them on through a graph, goes on until there is space again.

use leatworks_broker::*;
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{sync::Arc, time::Duration};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

const SEGMENT_BYTES: u64 = 64 << 10;

/// A wait between two tries of what was refused for want of space.
const AGAIN: Duration = Duration::from_millis(2);

fn open(fs: &SimulatedFileSystem) -> Embedded {
    let options = EmbeddedOptions {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: 2 * SEGMENT_BYTES,
        cache_bytes_max: 0,
        ..EmbeddedOptions::new("simulated")
    };
    Embedded::open_on(Arc::new(fs.clone()), options).unwrap()
}

async fn topic(broker: &Embedded, name: &str) {
    broker.create_topic(TopicSpec { name: name.into(), ..TopicSpec::default() }).await.unwrap();
    broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
}

fn batch(topic: &str, count: usize, bytes: usize) -> Vec<Publish> {
    let message = Arc::new(Message { id: MessageId(1), payload: vec![7; bytes].into(), ..Message::default() });
    (0..count).map(|_| Publish { topic: topic.into(), message: message.clone(), sequence: None }).collect()
}

async fn consumer(broker: &Embedded, topic: &str) -> Box<dyn Consumer> {
    joined(broker, topic, "s").await
}

async fn joined(broker: &Embedded, topic: &str, subscription: &str) -> Box<dyn Consumer> {
    let subscribe = Subscribe {
        topic: topic.into(),
        subscription: subscription.into(),
        kind: SubscriptionKind::Shared,
        consumer: "test".into(),
        permits: 100,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap()
}

fn settle(topic: &str, deliveries: &[Delivery], publishes: Vec<Publish>) -> Step {
    settle_on(topic, "s", deliveries, publishes)
}

fn settle_on(topic: &str, subscription: &str, deliveries: &[Delivery], publishes: Vec<Publish>) -> Step {
    let ack = |delivery: &Delivery| Ack {
        topic: topic.into(),
        subscription: subscription.into(),
        position: delivery.position,
        cumulative: false,
    };
    Step { acks: deliveries.iter().map(ack).collect(), publishes, ..Step::default() }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: it should have come long ago"))
}

/// Does it again until there is space for it.
async fn when_there_is_space<T>(mut call: impl AsyncFnMut() -> Result<T>) -> T {
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Full => tokio::time::sleep(AGAIN).await,
            done => return done.unwrap(),
        }
    }
}

/// Publishes until the disk is full and stays so for as long as nothing is consumed.
async fn fill(broker: &Embedded, topic: &str, bytes: usize) -> usize {
    let (mut published, mut refused) = (0, 0);
    while refused < 5 {
        match broker.publish(batch(topic, 10, bytes)).await {
            Ok(_) => (published, refused) = (published + 10, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full);
                refused += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_works_off_what_a_full_disk_holds() {
    for (seed, segments, bytes, at_once) in
        [(1, 12, 1_000, 7), (2, 12, 100, 7), (3, 12, 20, 7), (4, 24, 200, 7), (5, 12, 1_200, 7), (6, 12, 40, 1), (7, 16, 200, 1)]
    {
        let fs = SimulatedFileSystem::new(seed, Faults { space_bytes: Some(segments * SEGMENT_BYTES), ..Faults::default() });
        let broker = open(&fs);
        topic(&broker, "a").await;
        topic(&broker, "b").await;
        for round in 0..3 {
            let what = format!("{segments} segments, {bytes} bytes, {at_once} at once, round {round}");
            let published = soon(&what, fill(&broker, "a", bytes)).await;
            assert!(published > 0, "{what}: nothing was taken");
            let both = async {
                tokio::join!(
                    move_all(&broker, ("a", "s"), Some("b"), at_once, bytes, published),
                    move_all(&broker, ("b", "s"), None, 50, bytes, published),
                )
            };
            soon(&what, both).await;
        }
    }
}

/// Moves so many messages that come from one subscription to a topic.
async fn move_all(
    broker: &Embedded,
    (from, subscription): (&str, &str),
    to: Option<&str>,
    at_once: usize,
    bytes: usize,
    total: usize,
) {
    let mut consumer = joined(broker, from, subscription).await;
    let mut left = total;
    while left > 0 {
        let got = consumer.receive(at_once).await.unwrap();
        left -= got.len();
        let out = |count| to.map(|to| batch(to, count, bytes)).unwrap_or_default();
        match broker.commit(settle_on(from, subscription, &got, out(got.len()))).await {
            Err(error) if error.kind() == ErrorKind::Full => {}
            done => {
                done.unwrap();
                continue;
            }
        }
        for one in &got {
            let step = || settle_on(from, subscription, std::slice::from_ref(one), out(1));
            when_there_is_space(async || broker.commit(step()).await).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_that_gives_more_than_it_takes_works_off_what_a_full_disk_holds() {
    for (seed, segments, bytes) in [(1, 14, 200), (2, 20, 400), (3, 14, 60)] {
        let fs = SimulatedFileSystem::new(seed, Faults { space_bytes: Some(segments * SEGMENT_BYTES), ..Faults::default() });
        let broker = open(&fs);
        for (name, subscriptions) in
            [("in", &["start"][..]), ("start", &["left", "right"]), ("side", &["join"]), ("join", &["sink"])]
        {
            broker.create_topic(TopicSpec { name: name.into(), ..TopicSpec::default() }).await.unwrap();
            for subscription in subscriptions {
                broker.create_subscription(name, subscription, Start::Earliest).await.unwrap();
            }
        }
        for round in 0..2 {
            let what = format!("{segments} segments, {bytes} bytes, round {round}");
            let roots = soon(&what, fill(&broker, "in", bytes)).await;
            let all = async {
                tokio::join!(
                    move_all(&broker, ("in", "start"), Some("start"), 20, bytes, roots),
                    move_all(&broker, ("start", "left"), Some("side"), 20, bytes, roots),
                    move_all(&broker, ("start", "right"), Some("side"), 20, bytes, roots),
                    move_all(&broker, ("side", "join"), Some("join"), 20, bytes, 2 * roots),
                    move_all(&broker, ("join", "sink"), None, 20, bytes, 2 * roots),
                )
            };
            soon(&what, all).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_of_old_messages_here_and_there_is_made_room_on() {
    let fs = SimulatedFileSystem::new(1, Faults { space_bytes: Some(16 * SEGMENT_BYTES), ..Faults::default() });
    let broker = open(&fs);
    topic(&broker, "a").await;
    topic(&broker, "old").await;
    let (mut published, mut refused) = (0, 0);
    // Some of each segment stays.
    while refused < 5 {
        let mut both = batch("a", 10, 500);
        both.extend(batch("old", 1, 500));
        match broker.publish(both).await {
            Ok(_) => (published, refused) = (published + 10, 0),
            Err(_) => {
                refused += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    let mut end = consumer(&broker, "a").await;
    let working = async {
        let mut left = published;
        while left > 0 {
            let got = end.receive(50).await.unwrap();
            left -= got.len();
            when_there_is_space(async || broker.commit(settle("a", &got, Vec::new())).await).await;
        }
        // What is left takes a tenth of the disk.
        for _ in 0..published / 20 {
            when_there_is_space(async || broker.publish(batch("a", 1, 500)).await).await;
        }
    };
    soon("room between old messages", working).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_opens_on_a_full_disk_and_works_it_off() {
    for seed in 0..8 {
        let fs = SimulatedFileSystem::new(seed, Faults { space_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
        let broker = open(&fs);
        topic(&broker, "a").await;
        let mut left = soon("fill", fill(&broker, "a", 300 + seed as usize)).await;
        drop(broker);
        fs.kill();
        let mut broker = open(&fs);
        while left > 0 {
            let mut end = consumer(&broker, "a").await;
            let some = async {
                for _ in 0..4 {
                    let got = end.receive(10.min(left)).await.unwrap();
                    when_there_is_space(async || broker.commit(settle("a", &got, Vec::new())).await).await;
                    left -= got.len();
                    if left == 0 {
                        break;
                    }
                }
            };
            soon(&format!("seed {seed}"), some).await;
            drop(end);
            drop(broker);
            fs.kill();
            broker = open(&fs);
        }
        when_there_is_space(async || broker.publish(batch("a", 1, 300)).await).await;
    }
}
