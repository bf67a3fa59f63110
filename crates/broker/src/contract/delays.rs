//! Messages that are not to be delivered before a time.

use super::{
    Harness,
    rig::{Rig, now_ms, ok, text, texts},
};
use crate::{Message, SubscriptionKind, SubscriptionStats};
use std::time::{Duration, Instant};

/// An hour: longer than any scenario.
const LONG_MS: u64 = 3_600_000;

fn at(rig: &Rig, deliver_at_ms: u64, text: &str) -> Message {
    Message { deliver_at_ms: Some(deliver_at_ms), ..rig.message(text) }
}

pub(super) async fn a_message_comes_not_before_its_time(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let mut waiting = rig.shared("t", "s").await;
    let (start, now) = (Instant::now(), now_ms());
    let times = [200_u64, 100, 0];
    rig.send("t", times.map(|later| at(&rig, now + later, &later.to_string()))).await;
    rig.send("t", [rig.message("0"), at(&rig, now - LONG_MS, "0")]).await;
    let mut came = 0;
    while came < 5 {
        // Something else that comes meanwhile, and wakes whoever waits, brings nothing before its time.
        rig.send_texts("t", ["meanwhile"]).await;
        let got = waiting.receive(9).await;
        for delivery in got.iter().filter(|delivery| text(&delivery.message) != "meanwhile") {
            let due: u64 = text(&delivery.message).parse().unwrap_or(0);
            // The wall clock was read up to a millisecond after it had ticked.
            assert!(
                start.elapsed() + Duration::from_millis(2) >= Duration::from_millis(due),
                "{due} after {:?}",
                start.elapsed()
            );
            assert_eq!(delivery.attempt, 1);
            came += 1;
        }
        waiting.ack(&got).await;
    }
    // What was sent last may still be on its way.
    let left = rig.unsettled("t", "s").await.len();
    let rest = waiting.take(left).await;
    waiting.ack(&rest).await;
    assert_eq!(rig.unsettled("t", "s").await.len(), 0);
}

pub(super) async fn a_message_that_waits_for_its_time_holds_nothing_up(harness: Harness) {
    let rig = harness.rig().await;
    for (topic, kind) in [("a", SubscriptionKind::Shared), ("b", SubscriptionKind::KeyShared), ("c", SubscriptionKind::Exclusive)]
    {
        rig.plain(topic, &["s"]).await;
        let mut tap = rig.consumer_with(topic, "s", kind, 1).await;
        rig.send(topic, [at(&rig, now_ms() + LONG_MS, "waits"), rig.message("goes"), rig.message("goes too")]).await;
        for expected in ["goes", "goes too"] {
            let got = tap.take(1).await;
            assert_eq!(texts(&got), [expected], "{kind:?}");
            tap.ack(&got).await;
        }
        tap.quiet().await;
        assert_eq!(rig.unsettled(topic, "s").await, ["waits"], "who looks sees it");
        assert_eq!(rig.stats(topic, "s").await, SubscriptionStats { backlog: 1, delayed: 1, in_flight: 0, consumers: 1 });
        drop(tap);
        rig.until_stats_are(topic, "s", SubscriptionStats { backlog: 1, delayed: 1, ..Default::default() }).await;
        rig.consumer(topic, "s", kind).await.quiet().await;
    }
}

pub(super) async fn a_time_is_kept_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        let due_ms = now_ms() + 150;
        rig.send("t", [at(&rig, due_ms, "soon"), at(&rig, due_ms + LONG_MS, "long")]).await;
        let rig = rig.reopen(end).await;
        let mut tap = rig.shared("t", "s").await;
        let got = tap.take(1).await;
        assert_eq!(texts(&got), ["soon"], "{end:?}");
        assert!(now_ms() + 2 >= due_ms, "{end:?}: {} ms early", due_ms - now_ms());
        tap.quiet().await;
        assert_eq!(rig.stats("t", "s").await, SubscriptionStats { backlog: 1, delayed: 1, in_flight: 1, consumers: 1 });
        drop(tap);
        ok(rig.broker.close().await);
    }
}

pub(super) async fn a_delay_is_kept_when_the_broker_is_closed_and_opened_again(harness: Harness) {
    // A crash may lose what is left of a delay, but neither the message nor its attempt.
    for end in harness.ends() {
        let rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        rig.send("t", [rig.keyed("k", "first"), rig.keyed("k", "second"), rig.message("free")]).await;
        let mut tap = rig.consumer("t", "s", SubscriptionKind::KeyShared).await;
        let got = tap.take(2).await;
        assert_eq!(texts(&got), ["first", "free"]);
        tap.nack(&got[0], Duration::from_millis(LONG_MS)).await;
        tap.ack(&got[1..]).await;
        drop(tap);
        let rig = rig.reopen(end).await;
        let mut tap = rig.consumer("t", "s", SubscriptionKind::KeyShared).await;
        match end {
            super::End::Closed if rig.promises().lasting_delays => {
                tap.quiet().await;
                assert_eq!(rig.stats("t", "s").await.delayed, 1);
            }
            _ if rig.stats("t", "s").await.delayed == 1 => tap.quiet().await,
            _ => {
                let again = tap.one().await;
                assert_eq!((text(&again.message).as_str(), again.attempt), ("first", 2));
            }
        }
        drop(tap);
        ok(rig.broker.close().await);
    }
}
