//! A disk that is full of the journal: what lets go of messages, and what moves them on through a graph, goes on until there is space again.

use leatworks_broker::*;
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{sync::Arc, time::Duration};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

const SEGMENT_BYTES: u64 = 16 << 10;

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
    let subscribe = Subscribe {
        topic: topic.into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "test".into(),
        permits: 100,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap()
}

fn settle(topic: &str, deliveries: &[Delivery], publishes: Vec<Publish>) -> Step {
    let ack = |delivery: &Delivery| Ack {
        topic: topic.into(),
        subscription: "s".into(),
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
        [(1, 12, 1_000, 7), (2, 12, 100, 7), (3, 12, 20, 7), (4, 24, 200, 7), (5, 12, 1_200, 7), (6, 12, 20, 1), (7, 16, 200, 1)]
    {
        let fs = SimulatedFileSystem::new(seed, Faults { space_bytes: Some(segments * SEGMENT_BYTES), ..Faults::default() });
        let broker = open(&fs);
        topic(&broker, "a").await;
        topic(&broker, "b").await;
        for round in 0..6 {
            let what = format!("{segments} segments, {bytes} bytes, {at_once} at once, round {round}");
            let published = soon(&what, fill(&broker, "a", bytes)).await;
            assert!(published > 0, "{what}: nothing was taken");
            let (mut middle, mut end) = (consumer(&broker, "a").await, consumer(&broker, "b").await);
            let moving = async {
                let mut left = published;
                while left > 0 {
                    let got = middle.receive(at_once).await.unwrap();
                    left -= got.len();
                    when_there_is_space(async || broker.commit(settle("a", &got, batch("b", got.len(), bytes))).await).await;
                }
            };
            let ending = async {
                let mut left = published;
                while left > 0 {
                    let got = end.receive(50).await.unwrap();
                    left -= got.len();
                    when_there_is_space(async || broker.commit(settle("b", &got, Vec::new())).await).await;
                }
            };
            soon(&what, async { tokio::join!(moving, ending) }).await;
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
