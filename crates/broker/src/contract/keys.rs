//! Key-shared subscriptions: the order of each key, whoever consumes and whatever is redelivered.

use super::{
    Harness,
    rig::{Rig, Tap, ok, text, texts, within},
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

/// Keys that are tried to find some of each consumer: that one of two or three gets none of them happens once in 10^17.
const TRIED: usize = 100;

/// How long one consumer is listened to before the next.
const TURN: Duration = Duration::from_millis(10);

/// Sends a message of each of `TRIED` keys, has them all settled, and gives which consumer got which key.
async fn spread(rig: &Rig, taps: &mut [&mut Tap]) -> Vec<BTreeSet<String>> {
    let keys = (0..TRIED).map(|number| format!("key {number}"));
    rig.send("t", keys.map(|key| rig.keyed(&key, key.clone())).collect::<Vec<_>>()).await;
    let mut got = vec![BTreeSet::new(); taps.len()];
    let all = async {
        while got.iter().map(BTreeSet::len).sum::<usize>() < TRIED {
            for (tap, got) in taps.iter_mut().zip(&mut got) {
                let Ok(received) = tokio::time::timeout(TURN, tap.consumer().receive(TRIED)).await else { continue };
                let received = ok(received);
                tap.ack(&received).await;
                got.extend(texts(&received));
            }
        }
    };
    within("a message of each key", all).await;
    assert!(got.iter().all(|keys| !keys.is_empty()), "some consumer has no key at all: {got:?}");
    got
}

/// Two consumers, and a key of each.
async fn pair(rig: &Rig) -> (Tap, Tap, String, String) {
    let (mut one, mut two) = (joined(rig).await, joined(rig).await);
    let mut keys = spread(rig, &mut [&mut one, &mut two]).await.into_iter().filter_map(|mut keys| keys.pop_first());
    let (a, b) = (keys.next().unwrap_or_default(), keys.next().unwrap_or_default());
    (one, two, a, b)
}

pub(super) async fn a_key_stays_with_its_consumer_as_long_as_the_others_stay(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two) = (joined(&rig).await, joined(&rig).await);
    let before = spread(&rig, &mut [&mut one, &mut two]).await;
    for _ in 0..3 {
        assert_eq!(spread(&rig, &mut [&mut one, &mut two]).await, before);
    }
    let mut three = joined(&rig).await;
    let after = spread(&rig, &mut [&mut one, &mut two, &mut three]).await;
    assert_eq!(spread(&rig, &mut [&mut one, &mut two, &mut three]).await, after);
    drop(three);
    let left = spread(&rig, &mut [&mut one, &mut two]).await;
    assert_eq!(spread(&rig, &mut [&mut two, &mut one]).await, [left[1].clone(), left[0].clone()]);
}

pub(super) async fn a_key_moves_when_nothing_of_it_is_held(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let keys: Vec<String> = (0..TRIED).map(|number| format!("key {number}")).collect();
    let mut one = joined(&rig).await;
    rig.send("t", keys.iter().map(|key| rig.keyed(key, format!("{key} first"))).collect::<Vec<_>>()).await;
    let held = one.take(TRIED).await;
    let mut two = joined(&rig).await;
    rig.send("t", keys.iter().map(|key| rig.keyed(key, format!("{key} second"))).collect::<Vec<_>>()).await;
    two.quiet().await;
    one.quiet().await;
    // Half is settled, half is given back; each way the order holds, and of each half some keys go to the other consumer.
    let (settled, given_back) = held.split_at(TRIED / 2);
    one.ack(settled).await;
    for delivery in given_back {
        one.nack(delivery, Duration::ZERO).await;
    }
    let mut got = Vec::new();
    let all = async {
        while got.len() < TRIED {
            for (number, tap) in [&mut one, &mut two].into_iter().enumerate() {
                let Ok(received) = tokio::time::timeout(TURN, tap.consumer().receive(TRIED)).await else { continue };
                got.extend(texts(&ok(received)).into_iter().map(|text| (number, text)));
            }
        }
    };
    within("the next of each key", all).await;
    for word in ["first", "second"] {
        let count = |number| got.iter().filter(|(by, text)| *by == number && text.ends_with(word)).count();
        assert_eq!(count(0) + count(1), TRIED / 2, "{got:?}");
        assert!(count(0) > 0 && count(1) > 0, "{got:?}");
    }
}

pub(super) async fn a_consumer_that_takes_nothing_holds_up_its_own_keys_only(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two) = (rig.consumer_with("t", "s", SubscriptionKind::KeyShared, 1).await, joined(&rig).await);
    let keys = spread(&rig, &mut [&mut one, &mut two]).await;
    let mut own = keys[0].iter().cycle().take(20).zip(0..).map(|(key, number)| (key, format!("one {number}")));
    let others = keys[1].iter().cycle().take(40).zip(0..).map(|(key, number)| (key, format!("two {number}")));
    // The first of what goes to the one who has a single permit, then all the rest of it before what goes to the other.
    let first = own.next().map(|(key, text)| rig.keyed(key, text));
    rig.send("t", first).await;
    let held = one.take(1).await;
    rig.send("t", own.chain(others).map(|(key, text)| rig.keyed(key, text)).collect::<Vec<_>>()).await;
    let mut got = Vec::new();
    while got.len() < 40 {
        let received = two.receive(7).await;
        got.extend(texts(&received));
        two.ack(&received).await;
    }
    assert!(got.iter().all(|text| text.starts_with("two ")), "{got:?}");
    two.quiet().await;
    one.quiet().await;
    assert_eq!(rig.stats("t", "s").await.backlog, 19);
    one.ack(&held).await;
    let mut rest = Vec::new();
    for _ in 0..19 {
        let received = one.take(1).await;
        rest.extend(texts(&received));
        one.ack(&received).await;
    }
    rest.sort();
    let mut expected: Vec<String> = (1..20).map(|number| format!("one {number}")).collect();
    expected.sort();
    assert_eq!(rest, expected);
}

pub(super) async fn messages_of_a_key_wait_for_the_one_before(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two, a, b) = pair(&rig).await;
    let messages = [(&a, "a0"), (&b, "b0"), (&a, "a1"), (&b, "b1"), (&a, "a2")];
    rig.send("t", messages.map(|(key, text)| rig.keyed(key, text))).await;
    let first = one.take(1).await;
    assert_eq!(texts(&first), ["a0"]);
    let second = two.take(1).await;
    assert_eq!(texts(&second), ["b0"], "the other key is free, the first is not");
    one.quiet().await;
    two.quiet().await;
    two.ack(&second).await;
    assert_eq!(texts(&two.take(1).await), ["b1"]);
    one.quiet().await;
    one.ack(&first).await;
    let rest = one.take(1).await;
    assert_eq!(texts(&rest), ["a1"]);
    one.quiet().await;
    one.ack(&rest).await;
    assert_eq!(texts(&one.take(1).await), ["a2"]);
    two.quiet().await;
}

pub(super) async fn a_message_given_back_stays_at_the_head_of_its_key(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two, a, b) = pair(&rig).await;
    rig.send("t", [(&a, "a0"), (&a, "a1"), (&b, "b0")].map(|(key, text)| rig.keyed(key, text))).await;
    let first = one.take(1).await;
    one.nack(&first[0], Duration::from_millis(60)).await;
    assert_eq!(texts(&two.take(1).await), ["b0"], "another key does not wait for what is given back");
    let again = one.take(1).await;
    assert_eq!(
        (text(&again[0].message).as_str(), again[0].attempt),
        ("a0", 2),
        "the first of its key comes first, though delayed"
    );
    one.nack(&again[0], Duration::ZERO).await;
    let third = one.take(1).await;
    assert_eq!((text(&third[0].message).as_str(), third[0].attempt), ("a0", 3));
    one.quiet().await;
    drop(one);
    let fourth = two.take(1).await;
    assert_eq!((text(&fourth[0].message).as_str(), fourth[0].attempt), ("a0", 4), "nor does a consumer's leaving change it");
    two.quiet().await;
    two.ack(&fourth).await;
    assert_eq!(texts(&two.take(1).await), ["a1"]);
}

pub(super) async fn messages_without_a_key_go_to_anybody(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let (mut one, mut two, a, _) = pair(&rig).await;
    let mut messages = vec![rig.keyed(&a, "a0"), rig.keyed(&a, "a1"), rig.keyed("", "empty key")];
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
        within("all messages", worker).await.expect("no worker may panic");
    }
    rig.until_stats_are("t", "s", Default::default()).await;
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
