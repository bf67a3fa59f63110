//! Key-shared subscriptions: the order of each key, whoever consumes and whatever is redelivered.

use super::{
    Harness,
    rig::{Rig, Tap, ok, text, texts},
};
use crate::{Delivery, SubscriptionKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Keys in use at once.
const KEYS: usize = 7;

/// Messages of each key.
const PER_KEY: usize = 30;

async fn joined(rig: &Rig) -> Tap {
    rig.consumer("t", "s", SubscriptionKind::KeyShared).await
}

/// `PER_KEY` messages of each key, interleaved; the text is the key and a number that rises by key.
async fn send_interleaved(rig: &Rig) {
    for number in 0..PER_KEY {
        let batch = (0..KEYS).map(|key| rig.keyed(&format!("k{key}"), format!("k{key} {number}")));
        rig.send("t", batch.collect::<Vec<_>>()).await;
    }
}

pub(super) async fn messages_of_a_key_wait_for_the_one_before(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two) = (joined(&rig).await, joined(&rig).await);
    let messages = [("a", "a0"), ("b", "b0"), ("a", "a1"), ("b", "b1"), ("a", "a2")];
    rig.send("t", messages.map(|(key, text)| rig.keyed(key, text))).await;
    let first = one.take(1).await;
    assert_eq!(texts(&first), ["a0"]);
    let second = two.take(1).await;
    assert_eq!(texts(&second), ["b0"], "the other key is free, the first is not");
    one.quiet().await;
    two.quiet().await;
    two.ack(&second).await;
    let second = two.take(1).await;
    assert_eq!(texts(&second), ["b1"]);
    one.ack(&first).await;
    let rest = two.take(1).await;
    assert_eq!(texts(&rest), ["a1"], "a key is not bound to a consumer for longer than a message takes");
    one.quiet().await;
    two.ack(&rest).await;
    assert_eq!(texts(&one.take(1).await), ["a2"]);
}

pub(super) async fn a_message_given_back_stays_at_the_head_of_its_key(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two) = (joined(&rig).await, joined(&rig).await);
    rig.send("t", [("a", "a0"), ("a", "a1"), ("b", "b0")].map(|(key, text)| rig.keyed(key, text))).await;
    let first = one.take(1).await;
    one.nack(&first[0], Duration::from_millis(60)).await;
    let mut again = two.take(2).await;
    again.sort_by_key(|delivery| delivery.position);
    assert_eq!(
        texts(&again),
        ["a0", "b0"],
        "the first of its key comes first, though delayed, and another key does not wait for it"
    );
    assert_eq!(again[0].attempt, 2);
    one.quiet().await;
    two.nack(&again[0], Duration::ZERO).await;
    let third = one.take(1).await;
    assert_eq!((text(&third[0].message).as_str(), third[0].attempt), ("a0", 3));
    drop(one);
    let fourth = two.take(1).await;
    assert_eq!((text(&fourth[0].message).as_str(), fourth[0].attempt), ("a0", 4), "nor does a consumer's leaving change it");
    two.ack(&fourth).await;
    assert_eq!(texts(&two.take(1).await), ["a1"]);
}

pub(super) async fn messages_without_a_key_go_to_anybody(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two) = (joined(&rig).await, joined(&rig).await);
    let mut messages = vec![rig.keyed("a", "a0"), rig.keyed("a", "a1"), rig.keyed("", "empty key")];
    messages.extend((0..4).map(|number| rig.message(format!("free {number}"))));
    rig.send("t", messages).await;
    let got = one.take(4).await;
    assert_eq!(texts(&got), ["a0", "empty key", "free 0", "free 1"]);
    assert_eq!(texts(&two.take(2).await), ["free 2", "free 3"], "unsettled messages without a key hold nobody up");
    two.quiet().await;
}

pub(super) async fn the_order_of_each_key_holds_with_many_consumers_and_failures(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let log = Arc::new(Log::default());
    let mut workers = Vec::new();
    for worker in 0..5 {
        let consumer = rig.consumer_with("t", "s", SubscriptionKind::KeyShared, 3).await;
        let log = log.clone();
        workers.push(tokio::spawn(work(consumer, log, worker)));
    }
    send_interleaved(&rig).await;
    for worker in workers {
        super::rig::within("all messages", worker).await.expect("no worker may panic");
    }
    assert_eq!(rig.stats("t", "s").await, Default::default());
}

/// Which messages have been settled, and which keys are being worked on.
#[derive(Default)]
struct Log(Mutex<(BTreeMap<String, usize>, BTreeSet<String>)>);

impl Log {
    fn done(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.values().sum::<usize>() == KEYS * PER_KEY
    }

    /// Notes that a message was received, which must be the next of its key and alone.
    fn begin(&self, delivery: &Delivery) -> String {
        let text = text(&delivery.message);
        let (key, number) = text.split_once(' ').unwrap_or_default();
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(log.1.insert(key.to_owned()), "`{text}` came while another message of its key was held");
        assert_eq!(log.0.get(key).copied().unwrap_or(0).to_string(), number, "out of order: `{text}`");
        key.to_owned()
    }

    fn end(&self, key: &str, settled: bool) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.1.remove(key);
        *log.0.entry(key.to_owned()).or_default() += usize::from(settled);
    }
}

/// Settles what comes, but gives some of it back the first time.
async fn work(mut consumer: Tap, log: Arc<Log>, worker: u64) {
    while !log.done() {
        let Ok(received) = tokio::time::timeout(Duration::from_millis(20), consumer.consumer().receive(2)).await else {
            continue;
        };
        for delivery in ok(received) {
            let key = log.begin(&delivery);
            let fails = delivery.attempt == 1 && (delivery.position.0 + worker).is_multiple_of(3);
            // What is held ends before the broker hears of it: from then on the next may come.
            log.end(&key, !fails);
            match fails {
                true => consumer.nack(&delivery, Duration::from_millis(delivery.position.0 % 4)).await,
                false => consumer.ack(&[delivery]).await,
            }
        }
    }
}

pub(super) async fn the_order_of_each_key_holds_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let mut rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        send_interleaved(&rig).await;
        let mut next = [0; KEYS];
        for round in 0..6 {
            let mut tap = joined(&rig).await;
            for turn in 0..3 {
                let heads = tap.take(KEYS).await;
                let mut expected: Vec<String> = (0..KEYS).map(|key| format!("k{key} {}", next[key])).collect();
                let mut got = texts(&heads);
                expected.sort();
                got.sort();
                assert_eq!(got, expected, "{end:?}, round {round}: one of each key, the next of it");
                // Settled, given back, or just held when the broker ends: by key and round.
                for (index, delivery) in heads.iter().enumerate() {
                    let key: usize = text(&delivery.message)[1..2].parse().unwrap_or(0);
                    match (key + round) % 3 {
                        0 => tap.nack(delivery, Duration::ZERO).await,
                        1 if turn == 2 => {}
                        _ => {
                            tap.ack(&heads[index..=index]).await;
                            next[key] += 1;
                        }
                    }
                }
            }
            drop(tap);
            rig = rig.reopen(end).await;
        }
        ok(rig.broker.close().await);
    }
}
