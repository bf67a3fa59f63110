//! Many at once: topics, subscriptions, producers, consumers.

use super::{
    Harness,
    rig::{Rig, Tap, numbered, ok, texts, within},
};
use crate::{Delivery, MessageId, Step, SubscriptionKind, TopicKind};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Producers, and consumers of each topic.
const CROWD: usize = 8;

/// Roots that each producer sends.
const PER_PRODUCER: usize = 60;

pub(super) async fn many_topics_and_subscriptions_do_not_disturb_each_other(harness: Harness) {
    const TOPICS: usize = 120;
    let rig = Arc::new(harness.rig().await);
    let mut tasks = Vec::new();
    for topic in numbered("t", TOPICS) {
        let rig = rig.clone();
        tasks.push(tokio::spawn(async move {
            rig.plain(&topic, &["a", "b", "c"]).await;
            rig.send_texts(&topic, numbered(&topic, 5)).await;
            for subscription in ["a", "b"] {
                let mut tap = rig.shared(&topic, subscription).await;
                let got = tap.take(5).await;
                assert_eq!(texts(&got), numbered(&topic, 5));
                tap.ack(&got).await;
            }
        }));
    }
    for task in tasks {
        within("a topic", task).await.expect("no topic may panic");
    }
    let topics = rig.topics().await;
    assert_eq!(topics.len(), TOPICS);
    assert!(topics.is_sorted_by(|a, b| a.spec.name < b.spec.name));
    for topic in topics {
        let backlogs: Vec<u64> = topic.subscriptions.values().map(|stats| stats.backlog).collect();
        assert_eq!((topic.published, backlogs), (5, vec![0, 0, 5]), "{}", topic.spec.name);
    }
}

/// How often each root's child was settled, and how many there were.
#[derive(Default)]
struct Tally {
    by_root: Mutex<BTreeMap<MessageId, usize>>,
    count: AtomicUsize,
}

/// Receives until `tally` has all, and handles each message: some are given back, and now and then the consumer leaves and comes back.
async fn consume(rig: Arc<Rig>, topic: &'static str, who: usize, tally: Arc<Tally>, next: Option<&'static str>) {
    let connect = || rig.consumer_with(topic, "s", SubscriptionKind::Shared, 8);
    let mut tap = connect().await;
    let mut turn = who;
    while tally.count.load(Ordering::Relaxed) < CROWD * PER_PRODUCER {
        let Ok(received) = tokio::time::timeout(Duration::from_millis(10), tap.consumer().receive(5)).await else { continue };
        for delivery in ok(received) {
            turn += 1;
            match turn % 7 {
                0 if delivery.attempt == 1 => tap.nack(&delivery, Duration::from_millis(turn as u64 % 3)).await,
                _ => handle(&rig, &tap, &delivery, &tally, next).await,
            }
        }
        if turn.is_multiple_of(11) {
            // With whatever it still holds; nothing here, but a slower broker may just be handing something out.
            tap = connect().await;
        }
    }
}

async fn handle(rig: &Rig, tap: &Tap, delivery: &Delivery, tally: &Tally, next: Option<&str>) {
    let root = delivery.message.root;
    let publishes = next.iter().map(|topic| rig.publish_of(topic, rig.child(root, "child"))).collect();
    ok(rig.broker.commit(Step { acks: vec![tap.ack_of(delivery.position)], publishes, guard: true, ..Step::default() }).await);
    *tally.by_root.lock().unwrap_or_else(PoisonError::into_inner).entry(root).or_default() += 1;
    tally.count.fetch_add(1, Ordering::Relaxed);
}

pub(super) async fn eight_producers_and_eight_consumers_count_each_message_once(harness: Harness) {
    let rig = Arc::new(harness.rig().await);
    rig.topic("in", TopicKind::Ingress, &["s"]).await;
    rig.topic("out", TopicKind::Route, &["s"]).await;
    let (entered, left) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    let mut tasks = Vec::new();
    for who in 0..CROWD {
        tasks.push(tokio::spawn(consume(rig.clone(), "in", who, entered.clone(), Some("out"))));
        tasks.push(tokio::spawn(consume(rig.clone(), "out", who, left.clone(), None)));
        let rig = rig.clone();
        tasks.push(tokio::spawn(async move {
            for part in 0..PER_PRODUCER / 4 {
                rig.send("in", (0..4).map(|_| rig.root(format!("{who} {part}"))).collect::<Vec<_>>()).await;
                // The account balances at every instant, whatever goes on.
                if rig.promises().accounts {
                    rig.account().await;
                }
            }
        }));
    }
    for task in tasks {
        within("all messages", task).await.expect("nobody may panic");
    }
    for tally in [entered, left] {
        let by_root = tally.by_root.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(by_root.len(), CROWD * PER_PRODUCER);
        assert!(by_root.values().all(|times| *times == 1), "a message was handled twice");
    }
    let all = (CROWD * PER_PRODUCER) as u64;
    if rig.promises().accounts {
        assert_eq!(rig.counts().await, [all, all, 0, 0]);
    }
    for topic in ["in", "out"] {
        rig.until_stats_are(topic, "s", Default::default()).await;
    }
}
