//! Looking without taking: peeking and the statistics.

use super::{
    Harness,
    rig::{numbered, ok, text, texts},
};
use crate::{Position, SubscriptionStats, TopicKind};
use std::time::Duration;

pub(super) async fn peeking_takes_nothing(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", numbered("m", 8)).await;
    let mut tap = rig.shared("t", "s").await;
    let got = tap.take(4).await;
    tap.ack(&got[1..2]).await;
    tap.nack(&got[2], Duration::from_secs(3_600)).await;
    let look = async |from: u64, limit: usize| -> Vec<(u64, String)> {
        let peeked = ok(rig.broker.peek(&rig.name("t"), "s", Position(from), limit).await);
        let positions = ok(rig.broker.unsettled(&rig.name("t"), "s", Position(from), limit).await);
        assert!(peeked.iter().map(|(position, _)| position).eq(&positions), "{positions:?}");
        peeked.into_iter().map(|(position, message)| (position.0, text(&message))).collect()
    };
    let all = [0, 2, 3, 4, 5, 6, 7].map(|position| (position, format!("m-{position}")));
    for _ in 0..2 {
        assert_eq!(look(0, 100).await, all, "held, given back and waiting alike");
        assert_eq!(look(0, 3).await, all[..3]);
        assert_eq!(look(1, 2).await, all[1..3]);
        assert_eq!(look(6, 100).await, all[5..]);
        assert_eq!((look(8, 100).await, look(u64::MAX, 1).await, look(0, 0).await), (vec![], vec![], vec![]));
    }
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats { backlog: 5, in_flight: 2, delayed: 1, consumers: 1 });
    let rest = tap.take(4).await;
    assert_eq!(texts(&rest), ["m-4", "m-5", "m-6", "m-7"]);
    assert!(rest.iter().all(|delivery| delivery.attempt == 1), "a look is no attempt");
}

pub(super) async fn statistics_tell_what_there_is(harness: Harness) {
    let rig = harness.rig().await;
    for (topic, kind) in [("b", TopicKind::Route), ("a", TopicKind::Ingress), ("c", TopicKind::Plain)] {
        rig.topic(topic, kind, &["two", "one"]).await;
    }
    rig.send_texts("a", numbered("m", 7)).await;
    rig.send_texts("c", numbered("m", 2)).await;
    let mut one = rig.shared("a", "one").await;
    let _idle = rig.shared("a", "one").await;
    let got = one.take(4).await;
    one.ack(&got[2..3]).await;
    one.nack(&got[3], Duration::from_secs(3_600)).await;
    let topics = rig.topics().await;
    let specs: Vec<_> = topics.iter().map(|topic| topic.spec.clone()).collect();
    assert_eq!(specs, [("a", TopicKind::Ingress), ("b", TopicKind::Route), ("c", TopicKind::Plain)].map(|(t, k)| rig.spec(t, k)));
    assert_eq!(topics.iter().map(|topic| topic.published).collect::<Vec<_>>(), [7, 0, 2]);
    assert!(topics.iter().all(|topic| topic.subscriptions.keys().eq(["one", "two"])));
    for topic in &topics {
        assert_eq!(ok(rig.broker.topic_stats(&topic.spec.name).await).as_ref(), Some(topic), "alone as among all");
    }
    assert_eq!(ok(rig.broker.topic_stats(&rig.name("none")).await), None);
    let idle = SubscriptionStats::default();
    assert_eq!(topics[0].subscriptions["one"], SubscriptionStats { backlog: 4, in_flight: 2, delayed: 1, consumers: 2 });
    assert_eq!(topics[0].subscriptions["two"], SubscriptionStats { backlog: 7, ..idle });
    assert_eq!(topics[1].subscriptions["one"], idle);
    assert_eq!(topics[2].subscriptions["two"], SubscriptionStats { backlog: 2, ..idle });
    drop(one);
    rig.until_stats_are("a", "one", SubscriptionStats { backlog: 6, delayed: 1, in_flight: 0, consumers: 1 }).await;
}

pub(super) async fn a_broker_tells_its_durability_and_its_limit(harness: Harness) {
    let rig = harness.rig().await;
    assert!(!rig.broker.durability().is_empty());
    assert!(rig.broker.max_message_bytes() >= 1 << 20, "a message of one mebibyte must be possible");
    let limits = crate::Limits { message_bytes_max: 12_345, ..crate::Limits::default() };
    ok(rig.broker.close().await);
    drop(rig);
    if harness.promises().limits {
        assert_eq!(harness.rig_with(limits).await.broker.max_message_bytes(), 12_345);
    }
}
