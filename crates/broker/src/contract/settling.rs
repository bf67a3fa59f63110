//! Settling: acknowledgements one by one and cumulative, giving back, and attempts that never go back.

use super::{
    Harness,
    rig::{Rig, numbered, ok, refused, texts},
};
use crate::{Delivery, ErrorKind, Position, Step, SubscriptionKind, SubscriptionStats};
use std::time::{Duration, Instant};

pub(super) async fn each_message_is_settled_for_itself(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s", "other"]).await;
    rig.send_texts("t", numbered("m", 6)).await;
    let mut tap = rig.shared("t", "s").await;
    let got = tap.take(6).await;
    tap.ack(&[got[4].clone(), got[1].clone()]).await;
    tap.ack(&got[1..2]).await;
    assert_eq!(rig.unsettled("t", "s").await, ["m-0", "m-2", "m-3", "m-5"]);
    assert_eq!(rig.unsettled("t", "other").await, numbered("m", 6), "another subscription is not concerned");
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats { in_flight: 4, consumers: 1, ..Default::default() });
    drop(tap);
    let mut tap = rig.shared("t", "s").await;
    assert_eq!(texts(&tap.take(4).await), ["m-0", "m-2", "m-3", "m-5"]);
    tap.quiet().await;
    let beyond = vec![rig.ack_of("t", "s", Position(6))];
    refused(rig.broker.commit(Step { acks: beyond, ..Step::default() }).await, ErrorKind::NotFound);
}

pub(super) async fn a_message_can_be_settled_by_who_never_got_it(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", numbered("m", 3)).await;
    let acks = vec![rig.ack_of("t", "s", Position(1))];
    ok(rig.broker.commit(Step { acks, ..Step::default() }).await);
    let mut tap = rig.shared("t", "s").await;
    assert_eq!(texts(&tap.take(2).await), ["m-0", "m-2"]);
    tap.quiet().await;
}

pub(super) async fn a_cumulative_acknowledgement_settles_all_before_it(harness: Harness) {
    let rig = harness.rig().await;
    for (topic, kind) in [("a", SubscriptionKind::Exclusive), ("b", SubscriptionKind::Failover)] {
        rig.plain(topic, &["s", "other"]).await;
        rig.send_texts(topic, numbered("m", 8)).await;
        let mut tap = rig.consumer_with(topic, "s", kind, 6).await;
        let got = tap.take(6).await;
        tap.ack(&got[4..5]).await;
        ok(tap.ack_through(got[3].position).await);
        assert_eq!(rig.unsettled(topic, "s").await, ["m-5", "m-6", "m-7"], "{kind:?}");
        let stats = rig.stats(topic, "s").await;
        assert_eq!((stats.in_flight, stats.backlog), (1, 2), "{kind:?}: permits are free again");
        assert_eq!(texts(&tap.take(2).await), ["m-6", "m-7"], "{kind:?}");
        ok(tap.ack_through(got[2].position).await);
        ok(tap.ack_through(Position(7)).await);
        refused(tap.ack_through(Position(8)).await, ErrorKind::NotFound);
        assert_eq!(rig.stats(topic, "s").await, SubscriptionStats { consumers: 1, ..Default::default() });
        assert_eq!(rig.stats(topic, "other").await.backlog, 8, "{kind:?}");
    }
}

pub(super) async fn a_cumulative_acknowledgement_is_refused_where_messages_are_shared(harness: Harness) {
    let rig = harness.rig().await;
    for (topic, kind) in [("a", SubscriptionKind::Shared), ("b", SubscriptionKind::KeyShared)] {
        rig.plain(topic, &["s"]).await;
        rig.send_texts(topic, numbered("m", 3)).await;
        let mut tap = rig.consumer(topic, "s", kind).await;
        let got = tap.take(3).await;
        refused(tap.ack_through(got[1].position).await, ErrorKind::Invalid);
        assert_eq!(rig.stats(topic, "s").await.in_flight, 3, "{kind:?}");
        tap.ack(&got).await;
        assert_eq!(rig.stats(topic, "s").await.in_flight, 0, "{kind:?}");
    }
}

pub(super) async fn a_message_that_is_given_back_comes_again_not_before_its_delay(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", ["late", "later", "at once"]).await;
    let (mut one, mut two) = (rig.shared("t", "s").await, rig.shared("t", "s").await);
    let got = one.take(3).await;
    let since = Instant::now();
    let delays = [80, 160, 0].map(Duration::from_millis);
    for (delivery, delay) in got.iter().zip(delays) {
        one.nack(delivery, delay).await;
    }
    let mut came = Vec::new();
    while came.len() < 3 {
        // Something else that comes meanwhile, and wakes whoever waits, shortens no delay.
        rig.send_texts("t", ["meanwhile"]).await;
        for tap in [&mut one, &mut two] {
            let Ok(received) = tokio::time::timeout(Duration::from_millis(2), tap.consumer().receive(9)).await else { continue };
            let (again, meanwhile): (Vec<_>, Vec<_>) = ok(received).into_iter().partition(|got| got.position.0 < 3);
            tap.ack(&meanwhile).await;
            for delivery in &again {
                let (waited, delay) = (since.elapsed(), delays[delivery.position.0 as usize]);
                assert!(waited >= delay, "came after {waited:?}, not before {delay:?} it may");
                assert_eq!(delivery.attempt, 2, "its attempt has risen");
            }
            came.extend(again);
        }
    }
    came.sort_by_key(|delivery| delivery.position);
    assert_eq!(texts(&came), ["late", "later", "at once"]);
}

pub(super) async fn a_message_that_is_given_back_is_counted_and_can_be_settled_meanwhile(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", ["a", "b"]).await;
    let mut tap = rig.consumer_with("t", "s", SubscriptionKind::Shared, 2).await;
    let got = tap.take(2).await;
    let long = Duration::from_secs(3_600);
    tap.nack(&got[0], long).await;
    tap.nack(&got[1], long).await;
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats { backlog: 2, delayed: 2, in_flight: 0, consumers: 1 });
    // Given back already: nothing changes, however often.
    tap.nack(&got[0], Duration::ZERO).await;
    tap.quiet().await;
    rig.send_texts("t", ["c"]).await;
    assert_eq!(texts(&tap.take(1).await), ["c"], "a message that waits holds nobody up and needs no permit");
    tap.ack(&got[..1]).await;
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats { backlog: 1, delayed: 1, in_flight: 1, consumers: 1 });
    drop(tap);
    let mut tap = rig.shared("t", "s").await;
    assert_eq!(texts(&tap.take(1).await), ["c"], "a consumer that comes anew shortens no delay");
    tap.quiet().await;
    assert_eq!(rig.unsettled("t", "s").await, ["b", "c"]);
}

/// Takes the only message of `t` and says which attempt it is.
async fn attempt(rig: &Rig, kind: SubscriptionKind) -> (super::rig::Tap, Delivery) {
    let mut tap = rig.consumer("t", "s", kind).await;
    let delivery = tap.one().await;
    (tap, delivery)
}

pub(super) async fn attempts_rise_by_one_with_each_delivery(harness: Harness) {
    let rig = harness.rig().await;
    for (index, kind) in
        [SubscriptionKind::Exclusive, SubscriptionKind::Shared, SubscriptionKind::KeyShared].into_iter().enumerate()
    {
        rig.plain("t", &["s"]).await;
        rig.send("t", [rig.keyed("k", "m")]).await;
        for round in 0..4_u32 {
            let (mut tap, delivery) = attempt(&rig, kind).await;
            assert_eq!((delivery.attempt, delivery.position.0), (round * 3 + 1, index as u64), "{kind:?}");
            tap.nack(&delivery, Duration::ZERO).await;
            let delivery = tap.one().await;
            assert_eq!(delivery.attempt, round * 3 + 2, "{kind:?}");
            tap.nack(&delivery, Duration::from_millis(3)).await;
            let delivery = tap.one().await;
            assert_eq!(delivery.attempt, round * 3 + 3, "{kind:?}");
            let peeked = ok(rig.broker.peek(&rig.name("t"), "s", Position(0), 9).await);
            assert_eq!(peeked.len(), 1, "{kind:?}");
        }
        let acks = vec![rig.ack_of("t", "s", Position(index as u64))];
        ok(rig.broker.commit(Step { acks, ..Step::default() }).await);
    }
}

pub(super) async fn attempts_are_counted_for_each_subscription(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s", "other"]).await;
    rig.send_texts("t", ["a", "b"]).await;
    for _ in 0..3 {
        drop(rig.shared("t", "s").await.one().await);
    }
    let (mut tap, mut other) = (rig.shared("t", "s").await, rig.shared("t", "other").await);
    let attempts = |got: Vec<Delivery>| got.into_iter().map(|delivery| delivery.attempt).collect::<Vec<_>>();
    assert_eq!(attempts(tap.take(2).await), [4, 1]);
    assert_eq!(attempts(other.take(2).await), [1, 1]);
}

pub(super) async fn attempts_and_settlements_are_known_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let mut rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        rig.send_apart("t", numbered("m", 9)).await;
        for round in 0..4_u32 {
            let mut tap = rig.shared("t", "s").await;
            let mut got = tap.take(9 - 2 * round as usize).await;
            if !rig.promises().on_demand {
                // What was given back may come behind what was not.
                got.sort_by_key(|delivery| delivery.position);
            }
            assert_eq!(texts(&got), numbered("m", 9)[2 * round as usize..], "{end:?}");
            assert!(got.iter().all(|delivery| delivery.attempt == 2 * round + 1), "{end:?}, round {round}: {got:?}");
            tap.nack(&got[0], Duration::ZERO).await;
            let again = tap.one().await;
            assert_eq!((again.position, again.attempt), (got[0].position, 2 * round + 2), "{end:?}");
            tap.nack(got.last().unwrap_or(&again), Duration::ZERO).await;
            tap.ack(&got[..2]).await;
            drop(tap);
            // Everything else has had its second attempt when the next round begins.
            let mut tap = rig.shared("t", "s").await;
            let count = 9 - 2 * (round as usize + 1);
            assert!(tap.take(count).await.iter().all(|delivery| delivery.attempt == 2 * round + 2), "{end:?}");
            drop(tap);
            rig = rig.reopen(end).await;
            rig.until_stats_are("t", "s", SubscriptionStats { backlog: count as u64, ..Default::default() }).await;
        }
        ok(rig.broker.close().await);
    }
}

pub(super) async fn a_cumulative_acknowledgement_is_known_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        rig.send_apart("t", numbered("m", 1_000)).await;
        let mut tap = rig.consumer("t", "s", SubscriptionKind::Exclusive).await;
        let got = tap.take(1_000).await;
        tap.ack(&got[995..996]).await;
        ok(tap.ack_through(got[990].position).await);
        drop(tap);
        let rig = rig.reopen(end).await;
        let expected: Vec<String> = numbered("m", 1_000).into_iter().skip(991).filter(|text| text != "m-995").collect();
        assert_eq!(rig.unsettled("t", "s").await, expected, "{end:?}");
        ok(rig.broker.close().await);
    }
}
