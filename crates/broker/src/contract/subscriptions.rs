//! The four kinds of subscription, and what becomes of messages when consumers come and go.

use super::{
    Harness,
    rig::{Tap, numbered, ok, refused, texts, within},
};
use crate::{ErrorKind, Position, Start, SubscriptionKind, SubscriptionStats};
use std::{collections::BTreeSet, time::Duration};

const KINDS: [SubscriptionKind; 4] =
    [SubscriptionKind::Exclusive, SubscriptionKind::Shared, SubscriptionKind::Failover, SubscriptionKind::KeyShared];

pub(super) async fn consumers_of_one_subscription_agree_on_its_kind(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    for kind in KINDS {
        let first = rig.consumer("t", "s", kind).await;
        for other in KINDS {
            let second = rig.broker.subscribe(rig.subscribe_of("t", "s", other, 1)).await;
            match other == kind && kind != SubscriptionKind::Exclusive {
                true => drop(ok(second)),
                false => drop(refused(second.map(|_| ()), ErrorKind::Conflict)),
            }
        }
        // Who was refused or has left is not there.
        rig.until_stats("t", "s", |stats| stats.consumers == 1).await;
        drop(first);
        rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
    }
    refused(rig.broker.subscribe(rig.subscribe_of("t", "s", SubscriptionKind::Shared, 0)).await.map(|_| ()), ErrorKind::Invalid);
}

pub(super) async fn every_subscription_gets_every_message_in_order(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &[]).await;
    for (index, kind) in KINDS.into_iter().enumerate() {
        rig.subscription("t", &format!("s{index}"), Start::Earliest).await;
        let mut tap = rig.consumer("t", &format!("s{index}"), kind).await;
        tap.quiet().await;
        drop(tap);
    }
    let sent = numbered("m", 50);
    for batch in sent.chunks(7) {
        rig.send_texts("t", batch.iter().map(String::as_str)).await;
    }
    rig.subscription("t", "late", Start::Latest).await;
    rig.send_texts("t", ["last"]).await;
    for (index, kind) in KINDS.into_iter().enumerate() {
        let mut tap = rig.consumer("t", &format!("s{index}"), kind).await;
        let got = tap.take(51).await;
        assert_eq!(texts(&got)[..50], sent, "{kind:?}");
        assert!(got.iter().all(|delivery| delivery.attempt == 1), "{kind:?}");
        assert!(got.iter().map(|delivery| delivery.position.0).eq(0..51), "{kind:?}");
        tap.ack(&got).await;
        tap.quiet().await;
    }
    assert_eq!(rig.unsettled("t", "late").await, ["last"], "a subscription gets what comes after it was made");
}

pub(super) async fn shared_consumers_each_get_some_and_none_twice(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let mut taps = Vec::new();
    for _ in 0..4 {
        taps.push(rig.consumer_with("t", "s", SubscriptionKind::Shared, 5).await);
    }
    rig.send_texts("t", numbered("m", 20)).await;
    let mut seen = BTreeSet::new();
    for tap in &mut taps {
        // Five permits each and twenty messages: each gets five, whoever asks first.
        for delivery in tap.take(5).await {
            assert!(seen.insert(delivery.position), "{:?} was given to two consumers", delivery.position);
        }
    }
    assert_eq!(seen, (0..20).map(Position).collect());
}

pub(super) async fn what_a_consumer_held_goes_to_the_others_when_it_leaves(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    for (topic, kind) in ["shared", "keyed"].into_iter().zip([SubscriptionKind::Shared, SubscriptionKind::KeyShared]) {
        rig.plain(topic, &["s"]).await;
        let mut leaves = rig.consumer(topic, "s", kind).await;
        let mut stays = rig.consumer(topic, "s", kind).await;
        rig.send_texts(topic, numbered("m", 6)).await;
        let held = leaves.take(6).await;
        leaves.ack(&held[..2]).await;
        stays.quiet().await;
        drop(leaves);
        let again = stays.take(4).await;
        assert_eq!(texts(&again), ["m-2", "m-3", "m-4", "m-5"], "{kind:?}");
        assert!(again.iter().all(|delivery| delivery.attempt == 2), "{kind:?}");
        stays.quiet().await;
        // A consumer that is gone can still settle what it had got.
        stays.ack(&again).await;
        assert_eq!(rig.stats(topic, "s").await, SubscriptionStats { consumers: 1, ..Default::default() });
    }
}

pub(super) async fn a_waiting_consumer_hears_of_what_another_returns(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    for (topic, kind) in ["a", "b", "c"].into_iter().zip(&KINDS[1..]) {
        rig.plain(topic, &["s"]).await;
        let mut first = rig.consumer(topic, "s", *kind).await;
        let mut second = rig.consumer(topic, "s", *kind).await;
        rig.send_texts(topic, ["m"]).await;
        first.one().await;
        let waiting = tokio::spawn(async move { second.one().await });
        tokio::task::yield_now().await;
        drop(first);
        let delivery = within("the returned message", waiting).await.expect("the waiting consumer must not panic");
        assert_eq!((delivery.position, delivery.attempt), (Position(0), 2), "{kind:?}");
    }
}

pub(super) async fn a_failover_subscription_has_one_active_consumer_and_a_successor(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let mut taps: Vec<Tap> = Vec::new();
    for _ in 0..4 {
        taps.push(rig.consumer("t", "s", SubscriptionKind::Failover).await);
    }
    rig.send_texts("t", numbered("m", 9)).await;
    for tap in &mut taps[1..] {
        tap.quiet().await;
    }
    let got = taps[0].take(4).await;
    assert_eq!(texts(&got), numbered("m", 4));
    ok(taps[0].ack_through(got[1].position).await);
    // A stand-by that leaves changes nothing; the active one that leaves is followed by the next in the order of arrival.
    drop(taps.remove(1));
    assert_eq!(texts(&taps[0].take(1).await), ["m-4"]);
    taps[1].quiet().await;
    drop(taps.remove(0));
    let got = taps[0].take(7).await;
    assert_eq!(texts(&got), numbered("m", 9)[2..], "the successor goes on in order from what is not settled");
    assert_eq!(got.iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), [2, 2, 2, 1, 1, 1, 1]);
    taps[1].quiet().await;
    let mut late = rig.consumer("t", "s", SubscriptionKind::Failover).await;
    late.quiet().await;
}

pub(super) async fn an_exclusive_consumer_is_followed_by_another(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", numbered("m", 5)).await;
    for round in 1..=3_u32 {
        let mut tap = rig.consumer("t", "s", SubscriptionKind::Exclusive).await;
        let got = tap.take(5).await;
        assert_eq!(texts(&got), numbered("m", 5), "in order again");
        assert!(got.iter().all(|delivery| delivery.attempt == round));
        drop(tap);
        rig.until_stats("t", "s", |stats| stats.consumers == 0 && stats.in_flight == 0 && stats.backlog == 5).await;
    }
}

pub(super) async fn unsubscribing_removes_the_backlog_and_waits_for_no_consumer(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s", "other"]).await;
    rig.send_texts("t", ["a", "b"]).await;
    let tap = rig.shared("t", "s").await;
    refused(rig.broker.unsubscribe(&rig.name("t"), "s").await, ErrorKind::Conflict);
    drop(tap);
    rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
    ok(rig.broker.unsubscribe(&rig.name("t"), "s").await);
    refused(rig.broker.unsubscribe(&rig.name("t"), "s").await, ErrorKind::NotFound);
    refused(rig.broker.subscribe(rig.subscribe_of("t", "s", SubscriptionKind::Shared, 1)).await.map(|_| ()), ErrorKind::NotFound);
    assert_eq!(rig.topic_stats("t").await.subscriptions.into_keys().collect::<Vec<_>>(), ["other"]);
    assert_eq!(rig.unsettled("t", "other").await, ["a", "b"]);
    rig.subscription("t", "s", Start::Latest).await;
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats::default(), "the name stands for a new subscription");
    let mut tap = rig.shared("t", "s").await;
    rig.send_texts("t", ["c"]).await;
    assert_eq!(texts(&tap.take(1).await), ["c"]);
}

pub(super) async fn a_consumer_may_outlive_much_coming_and_going(harness: Harness) {
    if !harness.promises().broker.on_demand {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let mut stays = rig.consumer("t", "s", SubscriptionKind::Shared).await;
    for round in 0..30_u64 {
        let mut guest = rig.consumer("t", "s", SubscriptionKind::Shared).await;
        rig.send_texts("t", ["m"]).await;
        let got = guest.one().await;
        if round % 2 == 0 {
            guest.nack(&got, Duration::ZERO).await;
        }
        drop(guest);
        let again = stays.one().await;
        assert_eq!((again.position, again.attempt), (Position(round), 2));
        stays.ack(&[again]).await;
    }
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats { consumers: 1, ..Default::default() });
}
