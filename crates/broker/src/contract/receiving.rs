//! Receiving: permits, limits, and calls that are given up.

use super::{
    Harness,
    rig::{Rig, Tap, numbered, ok, texts},
};
use crate::{Consumer, Delivery, Limits, Message, RECEIVE_BYTES_MAX, Result, SubscriptionKind};
use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll, time::Duration};

const KINDS: [SubscriptionKind; 4] =
    [SubscriptionKind::Exclusive, SubscriptionKind::Shared, SubscriptionKind::Failover, SubscriptionKind::KeyShared];

pub(super) async fn a_consumer_holds_as_many_as_its_permits_and_no_more(harness: Harness) {
    let rig = harness.rig().await;
    for (topic, kind) in ["a", "b", "c", "d"].into_iter().zip(KINDS) {
        rig.plain(topic, &["s"]).await;
        rig.send_texts(topic, numbered("m", 20)).await;
        let mut tap = rig.consumer_with(topic, "s", kind, 5).await;
        let held = tap.take(5).await;
        assert_eq!(texts(&held), numbered("m", 5), "{kind:?}");
        tap.quiet().await;
        let stats = rig.stats(topic, "s").await;
        assert_eq!((stats.in_flight, stats.backlog), (5, 15), "{kind:?}");
        // Each settled or returned message is one permit, wherever it stood.
        tap.ack(&held[3..4]).await;
        assert_eq!(tap.receive(20).await.len(), 1, "{kind:?}");
        tap.quiet().await;
        if rig.promises().on_demand {
            tap.nack(&held[1], Duration::ZERO).await;
            assert_eq!(texts(&tap.receive(20).await), ["m-1"], "{kind:?}");
            tap.quiet().await;
        }
        // A second acknowledgement, or one of what is not held, frees no second permit.
        tap.ack(&held[3..4]).await;
        tap.quiet().await;
        tap.ack(&held[..1]).await;
        tap.ack(&held[2..3]).await;
        let more = tap.take(2).await;
        assert_eq!(texts(&more), ["m-6", "m-7"], "{kind:?}");
        tap.quiet().await;
    }
}

pub(super) async fn a_single_permit_is_enough_for_everything(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", numbered("m", 40)).await;
    let mut tap = rig.consumer_with("t", "s", SubscriptionKind::Shared, 1).await;
    for expected in numbered("m", 40) {
        let got = tap.receive(10).await;
        assert_eq!(texts(&got), [expected]);
        tap.ack(&got).await;
    }
    tap.quiet().await;
}

pub(super) async fn receive_gives_at_most_what_was_asked_for(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", numbered("m", 30)).await;
    let mut tap = rig.shared("t", "s").await;
    let mut got = Vec::new();
    for max in [1, 2, 3, 4, 5, 6, 7] {
        got.extend(tap.receive(max).await);
    }
    let left = 30 - got.len();
    got.extend(tap.take(left).await);
    assert_eq!(texts(&got), numbered("m", 30), "in order, and nothing between two calls is lost");
    tap.quiet().await;
}

pub(super) async fn a_waiting_consumer_hears_of_what_is_published(harness: Harness) {
    let rig = Arc::new(harness.rig().await);
    rig.plain("t", &["s"]).await;
    let mut tap = rig.shared("t", "s").await;
    let sender = tokio::spawn({
        let rig = rig.clone();
        async move {
            for text in numbered("m", 200) {
                rig.send_texts("t", [text]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut got = Vec::new();
    while got.len() < 200 {
        let some = tap.receive(3).await;
        tap.ack(&some).await;
        got.extend(texts(&some));
    }
    assert_eq!(got, numbered("m", 200));
    sender.await.expect("the sender must not panic");
}

/// Polls a call of `receive` a few times and gives it up if it has not given anything by then.
async fn give_up_after(consumer: &mut Box<dyn Consumer>, max: usize, polls: usize) -> Option<Result<Vec<Delivery>>> {
    let mut call = consumer.receive(max);
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        if let Poll::Ready(received) = polled {
            return Some(received);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Receives and settles until everything has come, giving up most calls, and notes how often each position came.
async fn receive_fitfully(mut tap: Tap, count: usize, seed: u64) -> BTreeMap<u64, u32> {
    let mut came = BTreeMap::new();
    let mut random = super::rig::Random(seed);
    while came.len() < count {
        let (max, polls) = (1 + random.below(4), random.below(4));
        let received = match random.below(3) {
            0 => tokio::time::timeout(Duration::from_micros(random.below(300) as u64), tap.consumer().receive(max)).await.ok(),
            1 => Some(Ok(super::rig::within("a message", tap.receive(max)).await)),
            _ => give_up_after(tap.consumer(), max, polls).await,
        };
        let received = received.map(ok).unwrap_or_default();
        assert!(received.len() <= max, "asked for {max} after asking for others, got {}", received.len());
        for delivery in &received {
            *came.entry(delivery.position.0).or_default() += 1;
        }
        tap.ack(&received).await;
    }
    came
}

pub(super) async fn a_call_that_is_given_up_loses_nothing_and_repeats_nothing(harness: Harness) {
    let rig = Arc::new(harness.rig().await);
    for (seed, kind) in KINDS.into_iter().enumerate() {
        let topic = format!("t{seed}");
        rig.plain(&topic, &["s"]).await;
        let tap = rig.consumer_with(&topic, "s", kind, 7).await;
        let receiver = tokio::spawn(receive_fitfully(tap, 120, seed as u64 + 1));
        for part in 0..40 {
            rig.send_texts(&topic, numbered(&part.to_string(), 3)).await;
            tokio::task::yield_now().await;
        }
        let came = super::rig::within("all messages", receiver).await.expect("the receiver must not panic");
        assert!(came.iter().map(|(position, times)| (*position, *times)).eq((0..120).map(|position| (position, 1))), "{came:?}");
        rig.until_stats_are(&topic, "s", Default::default()).await;
    }
}

pub(super) async fn what_a_call_that_was_given_up_had_goes_to_the_next_consumer(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let mut count = 0;
    for round in 0..60_usize {
        rig.send_texts("t", ["m"]).await;
        count += 1;
        let mut leaves = rig.consumer_with("t", "s", SubscriptionKind::Shared, 9).await;
        // What it gets is not settled, and so returns as well.
        drop(give_up_after(leaves.consumer(), 2, round % 5).await);
        drop(leaves);
        if round % 4 == 3 {
            let mut tap = rig.shared("t", "s").await;
            let got = tap.take(count).await;
            assert!(got.iter().map(|delivery| delivery.position).is_sorted(), "{got:?}");
            tap.ack(&got).await;
            tap.quiet().await;
            count = 0;
        }
    }
    rig.until_stats_are("t", "s", Default::default()).await;
}

pub(super) async fn what_is_settled_is_not_handed_out_by_a_call_that_was_under_way(harness: Harness) {
    let rig = harness.rig().await;
    for round in 0..40_usize {
        let topic = format!("t{round}");
        rig.plain(&topic, &["s"]).await;
        rig.send_texts(&topic, ["settled late", "other"]).await;
        let mut first = rig.shared(&topic, "s").await;
        let got = first.one().await;
        drop(first);
        // The second consumer's call may have the message in its hands when the first one's acknowledgement arrives.
        let mut second = rig.consumer_with(&topic, "s", SubscriptionKind::Shared, 2).await;
        let early = give_up_after(second.consumer(), 2, round % 6).await.map(ok).unwrap_or_default();
        settle(&rig, &topic, &got).await;
        if !texts(&early).contains(&"other".to_owned()) {
            assert_eq!(texts(&second.take(1).await), ["other"], "round {round}");
        }
        assert!(rig.unsettled(&topic, "s").await.iter().all(|text| text == "other"));
        second.quiet().await;
    }
}

async fn settle(rig: &Rig, topic: &str, delivery: &Delivery) {
    let acks = vec![rig.ack_of(topic, "s", delivery.position)];
    ok(rig.broker.commit(crate::Step { acks, ..crate::Step::default() }).await);
}

pub(super) async fn receive_gives_at_most_so_many_bytes_and_at_least_one_message(harness: Harness) {
    let limits = Limits { message_bytes_max: RECEIVE_BYTES_MAX + 1, ..Limits::default() };
    let rig = harness.rig_with(limits).await;
    let large = if harness.promises().limits { limits.message_bytes_max } else { rig.broker.max_message_bytes() };
    rig.plain("t", &["s"]).await;
    // A message as large as may be, some small ones, and some of which two are too much at once.
    let sizes = [large, 1, 2, 3, RECEIVE_BYTES_MAX / 2 + 1, RECEIVE_BYTES_MAX / 2 + 1, 4, large, 5];
    let sizes: Vec<usize> = sizes.into_iter().map(|bytes| bytes.min(large)).collect();
    for (number, bytes) in sizes.iter().enumerate() {
        let payload = vec![number as u8; *bytes].into();
        rig.send("t", [Message { payload, ..rig.message("") }]).await;
    }
    // First as they were published, then as they were given back.
    for kind in [SubscriptionKind::Shared, SubscriptionKind::KeyShared] {
        let mut tap = rig.consumer("t", "s", kind).await;
        let mut got: Vec<Delivery> = Vec::new();
        while got.len() < sizes.len() {
            let received = tap.receive(100).await;
            let bytes: usize = received.iter().map(|delivery| delivery.message.payload.len()).sum();
            assert!(bytes <= RECEIVE_BYTES_MAX || received.len() == 1, "{} messages with {bytes} bytes", received.len());
            got.extend(received);
        }
        let found: Vec<usize> = got.iter().map(|delivery| delivery.message.payload.len()).collect();
        assert_eq!(found, sizes, "{kind:?}");
        for delivery in &got {
            tap.nack(delivery, Duration::ZERO).await;
        }
        drop(tap);
        rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
    }
}
