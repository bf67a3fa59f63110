//! The embedded broker where the memory broker has nothing to show: its lock, faults of the disk, damage, and the space it takes.

use leatworks_broker::*;
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const SEGMENT_BYTES: u64 = 64 << 10;

fn options(dir: impl Into<std::path::PathBuf>) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: 2 * SEGMENT_BYTES,
        cache_bytes_max: 0,
        ..EmbeddedOptions::new(dir)
    }
}

fn simulated(fs: &SimulatedFileSystem) -> Result<Embedded> {
    Embedded::open_on(Arc::new(fs.clone()), options("simulated"))
}

async fn topic(broker: &Embedded, name: &str) {
    let spec = TopicSpec {
        name: name.into(),
        kind: TopicKind::Plain,
        topology: String::new(),
        retention: Duration::ZERO,
        ..TopicSpec::default()
    };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
}

fn batch(topic: &str, ids: std::ops::Range<u128>, bytes: usize) -> Vec<Publish> {
    let message = |id: u128| Message { id: MessageId(id), payload: vec![id as u8; bytes].into(), ..Message::default() };
    ids.map(|id| Publish { topic: topic.into(), message: message(id).into(), sequence: None }).collect()
}

async fn consumer(broker: &Embedded, topic: &str) -> Box<dyn Consumer> {
    let subscribe = Subscribe {
        topic: topic.into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "test".into(),
        permits: 10_000,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap()
}

fn settle(topic: &str, deliveries: &[Delivery]) -> Step {
    let ack = |delivery: &Delivery| Ack {
        topic: topic.into(),
        subscription: "s".into(),
        position: delivery.position,
        cumulative: false,
    };
    Step { acks: deliveries.iter().map(ack).collect(), ..Step::default() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have come long ago")
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("it should have been refused").kind()
}

#[tokio::test]
async fn a_second_owner_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(options(dir.path())).unwrap();
    let error = Embedded::open(options(dir.path())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    let again = Embedded::open(options(dir.path())).unwrap();
    again.close().await.unwrap();
}

#[tokio::test]
async fn after_a_failed_sync_every_call_fails_and_the_process_is_told() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = simulated(&fs).unwrap();
    topic(&broker, "a").await;
    topic(&broker, "empty").await;
    broker.publish(batch("a", 0..10, 100)).await.unwrap();
    let mut waiting = consumer(&broker, "empty").await;
    let waiting = tokio::spawn(async move { kind(soon(waiting.receive(1)).await) });
    let failed = tokio::spawn(broker.failed());
    fs.set_faults(Faults { failing_sync: Some(0), ..Faults::default() });
    assert_eq!(kind(soon(broker.publish(batch("a", 10..20, 100))).await), ErrorKind::Storage);
    assert_eq!(soon(failed).await.unwrap().kind(), ErrorKind::Storage);
    assert_eq!(soon(waiting).await.unwrap(), ErrorKind::Storage);
    // The disk is well again, which changes nothing: nobody knows what it has lost.
    fs.set_faults(Faults::default());
    assert_eq!(kind(broker.publish(batch("a", 20..30, 100)).await), ErrorKind::Storage);
    assert_eq!(kind(broker.stats().await), ErrorKind::Storage);
    assert_eq!(kind(broker.account("t").await), ErrorKind::Storage);
    fs.cut_power();
    drop(broker);
    let broker = simulated(&fs).unwrap();
    let found = broker.peek("a", "s", Position(0), 100).await.unwrap();
    assert!((10..=20).contains(&found.len()), "10 were acknowledged, {} are there", found.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_publishers_and_passes_when_messages_are_consumed() {
    let fs = SimulatedFileSystem::new(2, Faults { space_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
    let broker = simulated(&fs).unwrap();
    topic(&broker, "a").await;
    for round in 0..3 {
        let mut published = 0;
        let fill = async {
            loop {
                match broker.publish(batch("a", published..published + 10, 1_000)).await {
                    Ok(_) => published += 10,
                    // What the round before has consumed comes back little by little, so being full passes until the disk really is.
                    Err(error) if published <= 200 && error.kind() == ErrorKind::Full => {
                        tokio::time::sleep(Duration::from_millis(5)).await
                    }
                    Err(error) => break error,
                }
            }
        };
        let error = soon(fill).await;
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Full, true), "round {round}: {error}");
        assert!(published > 200, "round {round}: full after {published} messages of 1 kB on {} kB", 12 * SEGMENT_BYTES / 1_000);
        let mut consumer = consumer(&broker, "a").await;
        let mut left = published as usize;
        while left > 0 {
            let got = soon(consumer.receive(50)).await.unwrap();
            soon(broker.commit(settle("a", &got))).await.unwrap();
            left -= got.len();
        }
        // Space comes back by checkpoints, which come by themselves when there is something to write.
        let back = async {
            while let Err(error) = broker.publish(batch("a", 0..1, 1_000)).await {
                assert_eq!(error.kind(), ErrorKind::Full);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(back).await;
        let got = soon(consumer.receive(50)).await.unwrap();
        soon(broker.commit(settle("a", &got))).await.unwrap();
    }
    // And when somebody makes space.
    while soon(broker.publish(batch("a", 0..10, 1_000))).await.is_ok() {}
    fs.set_faults(Faults { space_bytes: Some(40 * SEGMENT_BYTES), ..Faults::default() });
    let back = async {
        while broker.publish(batch("a", 0..10, 1_000)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(back).await;
}

/// What must be there, over several lives of one disk.
#[derive(Default)]
struct Known {
    /// Messages whose publish was acknowledged are below this position.
    acknowledged: u128,
    settled: BTreeSet<u128>,
}

/// Publishes and settles until the power is cut with a publish and a step under way.
async fn live_until_the_power_goes(broker: &Embedded, fs: &SimulatedFileSystem, rounds: u128, known: &mut Known) {
    let mut consumer = consumer(broker, "a").await;
    let mut next = u128::from(broker.stats().await.unwrap()[0].published);
    for round in 0..rounds {
        let publishing = tokio::spawn({
            let broker = broker.clone();
            async move { broker.publish(batch("a", next..next + 10, 300)).await }
        });
        next += 10;
        let got = soon(consumer.receive(9)).await.unwrap();
        let settling = tokio::spawn({
            let (broker, step) = (broker.clone(), settle("a", &got));
            async move { broker.commit(step).await }
        });
        if round + 1 == rounds {
            tokio::task::yield_now().await;
            fs.cut_power();
        }
        // Whatever is acknowledged at the very moment of the cut was durable before it.
        if soon(publishing).await.unwrap().is_ok() {
            known.acknowledged = next;
        }
        if soon(settling).await.unwrap().is_ok() {
            known.settled.extend(got.iter().map(|delivery| delivery.message.id.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_acknowledged() {
    for seed in 1..=12 {
        let fs = SimulatedFileSystem::new(seed, Faults::default());
        let mut known = Known::default();
        for life in 0..6 {
            // Segments of a few batches each, so that the cuts come while they change, are used again, and are checkpointed.
            let options = EmbeddedOptions { segment_bytes: 16 << 10, checkpoint_bytes: 20_000, ..options("simulated") };
            let broker = Embedded::open_on(Arc::new(fs.clone()), options).unwrap();
            topic(&broker, "a").await;
            let published = u128::from(broker.stats().await.unwrap()[0].published);
            let found = broker.peek("a", "s", Position(0), 10_000).await.unwrap();
            assert!(
                published >= known.acknowledged,
                "seed {seed}, life {life}: {} acknowledged, {published} there",
                known.acknowledged
            );
            let unsettled: BTreeSet<u128> = found.iter().map(|(position, _)| u128::from(position.0)).collect();
            assert!(unsettled.is_disjoint(&known.settled), "seed {seed}, life {life}: settled and there again");
            for (position, message) in found {
                let id = u128::from(position.0);
                assert_eq!((message.id.0, message.payload.to_vec()), (id, vec![id as u8; 300]), "seed {seed}, life {life}");
            }
            live_until_the_power_goes(&broker, &fs, 5 + u128::from(seed + life) % 40, &mut known).await;
            drop(broker);
        }
        assert!(known.acknowledged > 200, "seed {seed}: only {} messages", known.acknowledged);
    }
}

#[tokio::test]
async fn damage_is_limited_to_the_message_it_hit() {
    let fs = SimulatedFileSystem::new(3, Faults::default());
    let broker = simulated(&fs).unwrap();
    topic(&broker, "a").await;
    broker.publish(batch("a", 0..5, 1_000)).await.unwrap();
    // With a checkpoint behind it, the record is not replayed, only its messages are read back.
    broker.checkpoint().await.unwrap();
    let bytes = fs.bytes_of("segment-0000000000000000").unwrap();
    let payload = bytes.windows(1_000).position(|window| window.iter().all(|byte| *byte == 3)).unwrap();
    fs.flip_bit("segment-0000000000000000", (payload + 500) * 8);
    let mut consumer = consumer(&broker, "a").await;
    let got = soon(consumer.receive(10)).await.unwrap();
    assert_eq!(got.iter().map(|delivery| delivery.message.id.0).collect::<Vec<_>>(), [0, 1, 2, 4]);
    broker.commit(settle("a", &got)).await.unwrap();
    broker.publish(batch("a", 9..10, 10)).await.unwrap();
    assert_eq!(soon(consumer.receive(10)).await.unwrap().len(), 1);
    let stats = &broker.stats().await.unwrap()[0];
    assert_eq!((stats.damaged, stats.subscriptions["s"].backlog), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_messages_do_not_keep_segments() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Embedded::open(EmbeddedOptions { durability: Durability::Process, ..options(dir.path()) }).unwrap();
    topic(&broker, "a").await;
    topic(&broker, "old").await;
    let mut consumer = consumer(&broker, "a").await;
    // 60 segments of traffic, with an old message in each of the first 20.
    for round in 0..240 {
        if round % 4 == 0 && round < 80 {
            broker.publish(batch("old", round..round + 1, 500)).await.unwrap();
        }
        broker.publish(batch("a", 0..16, 1_000)).await.unwrap();
        let mut left = 16;
        while left > 0 {
            let got = soon(consumer.receive(16)).await.unwrap();
            soon(broker.commit(settle("a", &got))).await.unwrap();
            left -= got.len();
        }
    }
    let settled = async {
        while broker.disk_bytes() > 16 * SEGMENT_BYTES {
            // Each segment written lets one old one be emptied.
            broker.publish(batch("a", 0..16, 1_000)).await.unwrap();
            let got = consumer.receive(16).await.unwrap();
            broker.commit(settle("a", &got)).await.unwrap();
        }
    };
    soon(settled).await;
    drop(consumer);
    broker.close().await.unwrap();
    drop(broker);
    let broker = Embedded::open(options(dir.path())).unwrap();
    let old = broker.peek("old", "s", Position(0), 100).await.unwrap();
    assert_eq!(old.iter().map(|(_, message)| message.id.0).collect::<Vec<_>>(), (0..80).step_by(4).collect::<Vec<_>>());
    assert!(old.iter().all(|(_, message)| message.payload.iter().all(|byte| *byte == message.id.0 as u8)));
}

#[tokio::test]
async fn a_step_that_no_segment_takes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Embedded::open(options(dir.path())).unwrap();
    topic(&broker, "a").await;
    assert_eq!(kind(soon(broker.publish(batch("a", 0..100, 1_000))).await), ErrorKind::TooLarge);
    assert_eq!(broker.stats().await.unwrap()[0].published, 0);
    broker.publish(batch("a", 0..10, 1_000)).await.unwrap();
}

#[tokio::test]
async fn a_closed_broker_has_nothing_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Embedded::open(options(dir.path())).unwrap();
    topic(&broker, "a").await;
    broker.publish(batch("a", 0..50, 1_000)).await.unwrap();
    broker.close().await.unwrap();
    drop(broker);
    let broker = Embedded::open(options(dir.path())).unwrap();
    assert_eq!(broker.recovered().records, 0);
    assert_eq!(broker.peek("a", "s", Position(0), 100).await.unwrap().len(), 50);
}
