//! Where a subscription starts, moving it, and what a topic keeps.

use super::{
    Harness,
    rig::{Rig, numbered, ok, refused, texts},
};
use crate::{ErrorKind, Message, Position, Start, TopicKind, TopicSpec};
use std::time::Duration;

/// Messages made at the times 1,000 ms, 2,000 ms and so on after this one; in the past, but within what is kept.
async fn kept(rig: &Rig, count: usize, apart: bool) -> u64 {
    let retention = Duration::from_secs(86_400);
    ok(rig.broker.create_topic(TopicSpec { retention, ..rig.spec("t", TopicKind::Plain) }).await);
    let base = super::rig::now_ms() - 3_600_000;
    let messages = numbered("m", count).into_iter().enumerate();
    let messages = messages.map(|(index, text)| Message { created_ms: base + 1_000 * (index as u64 + 1), ..rig.message(text) });
    match apart {
        true => rig.send_each("t", messages.collect()).await,
        false => drop(rig.send("t", messages.collect::<Vec<_>>()).await),
    }
    base
}

/// Where to start, and how many of ten messages are passed over.
fn starts(base: u64) -> [(Start, usize); 11] {
    [
        (Start::Earliest, 0),
        (Start::Latest, 10),
        (Start::At(Position(0)), 0),
        (Start::At(Position(7)), 7),
        (Start::At(Position(9)), 9),
        (Start::At(Position(10)), 10),
        (Start::At(Position(1_000)), 10),
        (Start::Time(0), 0),
        (Start::Time(base + 4_000), 3),
        (Start::Time(base + 4_001), 4),
        (Start::Time(base + 3_600_000_000), 10),
    ]
}

pub(super) async fn a_new_subscription_starts_where_it_is_told(harness: Harness) {
    let rig = harness.rig().await;
    let base = kept(&rig, 10, false).await;
    for (index, (start, skipped)) in starts(base).into_iter().enumerate() {
        let name = format!("s{index}");
        rig.subscription("t", &name, start).await;
        assert_eq!(rig.unsettled("t", &name).await, numbered("m", 10)[skipped..], "{start:?}");
        assert_eq!(rig.stats("t", &name).await.backlog, 10 - skipped as u64, "{start:?}");
    }
    rig.send_texts("t", ["after"]).await;
    for (index, (start, skipped)) in starts(base).into_iter().enumerate() {
        let mut tap = rig.shared("t", &format!("s{index}")).await;
        let got = tap.take(11 - skipped).await;
        assert_eq!(texts(&got).last().map(String::as_str), Some("after"), "{start:?}");
        assert_eq!(texts(&got)[..10 - skipped], numbered("m", 10)[skipped..], "{start:?}");
    }
}

pub(super) async fn a_subscription_is_moved_back_and_forth(harness: Harness) {
    let rig = harness.rig().await;
    let base = kept(&rig, 10, false).await;
    rig.subscription("t", "s", Start::Earliest).await;
    rig.subscription("t", "other", Start::Latest).await;
    for (start, skipped) in starts(base) {
        // Settled, held twice, given back and untouched: all of it starts over.
        let mut tap = rig.shared("t", "s").await;
        if !rig.unsettled("t", "s").await.is_empty() {
            let got = tap.receive(3).await;
            tap.ack(&got[..1]).await;
            if let [_, .., last] = &got[..] {
                tap.nack(last, Duration::from_secs(3_600)).await;
            }
        }
        refused(rig.broker.seek(&rig.name("t"), "s", start).await, ErrorKind::Conflict);
        drop(tap);
        rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
        ok(rig.broker.seek(&rig.name("t"), "s", start).await);
        let expected = numbered("m", 10)[skipped..].to_vec();
        assert_eq!(rig.unsettled("t", "s").await, expected, "{start:?}");
        let mut tap = rig.shared("t", "s").await;
        let got = tap.take(expected.len()).await;
        assert_eq!(texts(&got), expected, "{start:?}");
        assert!(got.iter().all(|delivery| delivery.attempt == 1), "{start:?}: attempts start over");
        tap.quiet().await;
    }
    assert_eq!(rig.unsettled("t", "other").await.len(), 0, "another subscription stays where it is");
}

pub(super) async fn what_is_settled_is_kept_only_where_a_topic_keeps_it(harness: Harness) {
    if !harness.promises().broker.exact_retention {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("t", &["s", "slow"]).await;
    rig.send_texts("t", numbered("m", 5)).await;
    let (mut tap, mut slow) = (rig.shared("t", "s").await, rig.shared("t", "slow").await);
    let got = tap.take(5).await;
    tap.ack(&got).await;
    let got = slow.take(5).await;
    slow.ack(&got[..3]).await;
    drop((tap, slow));
    rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
    ok(rig.broker.seek(&rig.name("t"), "s", Start::Earliest).await);
    assert_eq!(rig.unsettled("t", "s").await, ["m-3", "m-4"], "the oldest message that the topic still holds is another's");
    rig.subscription("t", "new", Start::Earliest).await;
    assert_eq!(rig.unsettled("t", "new").await, ["m-3", "m-4"]);
    for name in ["s", "slow", "new"] {
        rig.until_stats("t", name, |stats| stats.consumers == 0).await;
        ok(rig.broker.seek(&rig.name("t"), name, Start::Latest).await);
    }
    rig.subscription("t", "none", Start::At(Position(0))).await;
    assert_eq!(rig.unsettled("t", "none").await.len(), 0);
}

pub(super) async fn what_is_kept_is_let_go_after_its_time(harness: Harness) {
    if !harness.promises().broker.exact_retention {
        return;
    }
    let rig = harness.rig().await;
    let retention = Duration::from_secs(60);
    ok(rig.broker.create_topic(TopicSpec { retention, ..rig.spec("t", TopicKind::Plain) }).await);
    rig.subscription("t", "s", Start::Earliest).await;
    let made_ms = super::rig::now_ms() - 3_600_000;
    let old = |count| (0..count).map(|_| Message { created_ms: made_ms, ..rig.message("old") }).collect::<Vec<_>>();
    rig.send("t", old(1)).await;
    let mut tap = rig.consumer_with("t", "s", crate::SubscriptionKind::Shared, 5_000).await;
    let first = tap.take(1).await;
    rig.send("t", old(3_999)).await;
    let rest = tap.take(3_999).await;
    tap.ack(&rest).await;
    rig.send_texts("t", ["new"]).await;
    rig.subscription("t", "before", Start::Earliest).await;
    assert!(rig.unsettled("t", "before").await.len() >= 2, "what is not settled somewhere is never let go, nor is what is new");
    tap.ack(&first).await;
    rig.send_texts("t", ["new"]).await;
    ok(rig.broker.unsubscribe(&rig.name("t"), "before").await);
    rig.send_texts("t", ["new"]).await;
    rig.subscription("t", "last", Start::Earliest).await;
    let left = rig.unsettled("t", "last").await;
    assert!(left.len() < 2_000, "{} messages are kept an hour after their minute", left.len());
    assert!(left.ends_with(&["new".to_owned(), "new".to_owned(), "new".to_owned()]));
}

pub(super) async fn times_out_of_order_are_found_by_the_first_that_fits(harness: Harness) {
    if !harness.promises().broker.exact_retention {
        return;
    }
    let rig = harness.rig().await;
    let retention = Duration::from_secs(86_400);
    ok(rig.broker.create_topic(TopicSpec { retention, ..rig.spec("t", TopicKind::Plain) }).await);
    let base = super::rig::now_ms() - 3_600_000;
    // Enough that one look does not cover them, with the time that is sought only near the end.
    let times = (0..1_300_u64).map(|index| if index == 1_200 { base + 50 } else { base + index % 7 });
    rig.send("t", times.map(|created_ms| Message { created_ms, ..rig.message("m") }).collect::<Vec<_>>()).await;
    for (index, (time, backlog)) in [(base + 50, 100), (base + 7, 100), (base + 6, 1_294), (base + 51, 0)].into_iter().enumerate()
    {
        rig.subscription("t", &index.to_string(), Start::Time(time)).await;
        assert_eq!(rig.stats("t", &index.to_string()).await.backlog, backlog, "{}", time - base);
    }
}

pub(super) async fn a_moved_subscription_and_what_is_kept_are_there_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        let base = kept(&rig, 10, true).await;
        rig.subscription("t", "s", Start::Earliest).await;
        let mut tap = rig.shared("t", "s").await;
        let got = tap.take(10).await;
        tap.ack(&got).await;
        drop(tap);
        rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
        let mut rig = rig.reopen(end).await;
        assert_eq!(rig.unsettled("t", "s").await.len(), 0, "{end:?}");
        for (start, skipped) in [(Start::At(Position(4)), 4), (Start::Time(base + 8_000), 7), (Start::Earliest, 0)] {
            ok(rig.broker.seek(&rig.name("t"), "s", start).await);
            rig = rig.reopen(end).await;
            assert_eq!(rig.unsettled("t", "s").await, numbered("m", 10)[skipped..], "{end:?}, {start:?}");
            let mut tap = rig.shared("t", "s").await;
            let got = tap.take(10 - skipped).await;
            assert!(got.iter().all(|delivery| delivery.attempt == 1), "{end:?}, {start:?}");
            drop(tap);
        }
        ok(rig.broker.close().await);
    }
}
