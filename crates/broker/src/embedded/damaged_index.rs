//! Whichever index of a spilled block is damaged, nothing is lost: neither while the broker runs nor when it is opened.

use super::{Embedded, EmbeddedOptions};
use crate::{
    Account, Ack, Broker, Durability, HandOff, Message, MessageId, Outcome, Publish, Start, Step, Subscribe, SubscriptionKind,
    TopicKind, TopicSpec,
};
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{sync::Arc, time::Duration};

/// Messages: blocks have four here, so these are in 16 of them.
const MESSAGES: u128 = 64;

fn open(fs: &SimulatedFileSystem) -> Embedded {
    let options = EmbeddedOptions {
        durability: Durability::Process,
        cache_bytes_max: 0,
        segment_bytes: 16 << 10,
        index_messages_max: 0,
        ..EmbeddedOptions::new("simulated")
    };
    Embedded::open_on(Arc::new(fs.clone()), options).unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it should have come long ago")
}

fn message(id: u128, root: u128) -> Message {
    let key = id.is_multiple_of(3).then(|| format!("key {id}"));
    Message { id: MessageId(id), root: MessageId(root), key, payload: vec![id as u8; 300].into(), ..Message::default() }
}

/// Roots of which some have a second message elsewhere, all of them spilled and in a checkpoint.
async fn filled(fs: &SimulatedFileSystem) -> Embedded {
    let broker = open(fs);
    for (name, kind) in [("in", TopicKind::Ingress), ("more", TopicKind::Route)] {
        let spec = TopicSpec { name: name.into(), kind, topology: "t".into(), ..TopicSpec::default() };
        broker.create_topic(spec).await.unwrap();
        broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
    }
    let publish = |topic: &str, message: Message| Publish { topic: topic.into(), message: message.into(), sequence: None };
    for id in 1..=MESSAGES {
        broker.publish(vec![publish("in", message(id, id))]).await.unwrap();
        if id % 5 == 0 {
            broker.publish(vec![publish("more", message(id + 1_000, id))]).await.unwrap();
        }
    }
    // Each commit group spills what was written before it.
    let spilled = async {
        let mut id = 2_000;
        while indexes(&broker).len() < MESSAGES as usize / 4 {
            id += 1;
            let step = Step { state: vec![("k".into(), Some(id.to_string().into()))], ..Step::default() };
            broker.commit(step).await.unwrap();
        }
    };
    soon(spilled).await;
    broker.checkpoint().await.unwrap();
    broker
}

/// File, and first and last byte, of each index of the ingress.
fn indexes(broker: &Embedded) -> Vec<(String, usize, usize)> {
    let core = broker.engine.lock();
    let at = core.state.topics[0].log.all_spilled().filter_map(|(_, block)| block.handle.at);
    at.map(|at| {
        let (file, offset) = broker.engine.store.journal.place(at.address());
        (file, offset as usize, offset as usize + at.bytes() - 1)
    })
    .collect()
}

/// Receives and settles everything, and sees that all of it is there and accounted for.
async fn whole(broker: &Embedded, what: &str) {
    let account = broker.account("t").await.unwrap();
    assert_eq!(account, Account { sent: MESSAGES as u64, done: 0, dead_lettered: 0, in_flight: MESSAGES as u64 }, "{what}");
    for (topic, expected) in
        [("in", (1..=MESSAGES).collect::<Vec<_>>()), ("more", (1..=MESSAGES / 5).map(|id| id * 5 + 1_000).collect())]
    {
        let subscribe = Subscribe {
            topic: topic.into(),
            subscription: "s".into(),
            kind: SubscriptionKind::Shared,
            consumer: "test".into(),
            permits: 1_000,
            hand_off: HandOff::Durable,
        };
        let mut consumer = broker.subscribe(subscribe).await.unwrap();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let received = tokio::time::timeout(Duration::from_secs(20), consumer.receive(7)).await;
            let stats = broker.stats().await.unwrap();
            let received = received.unwrap_or_else(|_| panic!("{what}: {} are there, {stats:?}", got.len())).unwrap();
            let ack = |position| Ack { topic: topic.into(), subscription: "s".into(), position, cumulative: false };
            let acks = received.iter().map(|delivery| ack(delivery.position)).collect();
            broker.commit(Step { acks, guard: true, ..Step::default() }).await.unwrap();
            got.extend(received);
        }
        assert!(got.iter().map(|delivery| delivery.message.id.0).eq(expected), "{what}: all, in order");
        let root = |id: u128| if topic == "in" { id } else { id - 1_000 };
        let alike = got.iter().all(|delivery| *delivery.message == message(delivery.message.id.0, root(delivery.message.id.0)));
        assert!(alike, "{what}: as they were sent");
    }
    let account = broker.account("t").await.unwrap();
    assert_eq!(account, Account { sent: MESSAGES as u64, done: MESSAGES as u64, dead_lettered: 0, in_flight: 0 }, "{what}");
    let damaged: u64 = broker.stats().await.unwrap().iter().map(|topic| topic.damaged).sum();
    assert_eq!(damaged, 0, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_any_index_loses_nothing() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let all = indexes(&filled(&fs).await);
    for (number, (file, first, last)) in all.iter().enumerate() {
        for byte in [*first, (first + last) / 2, *last] {
            // While it runs: the same calls give the same disk.
            let fs = SimulatedFileSystem::new(1, Faults::default());
            let broker = filled(&fs).await;
            let (file_now, first_now, last_now) = indexes(&broker)[number].clone();
            fs.flip_bit(&file_now, (byte - first).min(last_now - first_now) * 8 + first_now * 8);
            whole(&broker, &format!("block {number}, byte {byte} of `{file}`, while it runs")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_is_found_when_the_broker_is_opened() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = filled(&fs).await;
    for (number, (file, first, last)) in indexes(&broker).into_iter().enumerate() {
        for byte in [first, (first + last) / 2, last] {
            let copy = fs.fork();
            copy.kill();
            copy.flip_bit(&file, byte * 8 + number % 8);
            let what = format!("block {number}, byte {byte} of `{file}`, opened");
            let again = open(&copy);
            let root = MessageId(number as u128 * 4 + 1);
            let pending = tokio::time::timeout(Duration::from_millis(1), again.root_outcome(root)).await;
            assert!(pending.is_err(), "{what}: {pending:?}");
            whole(&again, &what).await;
            assert_eq!(soon(again.root_outcome(root)).await.unwrap(), Outcome::Done, "{what}");
        }
    }
    // All of them at once.
    let copy = fs.fork();
    copy.kill();
    for (file, first, last) in indexes(&broker) {
        copy.flip_bit(&file, (first + last) / 2 * 8);
    }
    whole(&open(&copy), "all blocks").await;
}
