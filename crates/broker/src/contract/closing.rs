//! The end of a broker.

use super::{
    Harness,
    rig::{ok, refused, within},
};
use crate::{ErrorKind, Position, Start, Step, SubscriptionKind, TopicKind};
use std::{sync::Arc, time::Duration};

pub(super) async fn every_call_after_closing_is_refused(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.send_texts("t", ["m", "n"]).await;
    let mut tap = rig.shared("t", "s").await;
    tap.one().await;
    ok(rig.broker.close().await);
    let (name, closed) = (rig.name("t"), ErrorKind::Closed);
    refused(tap.consumer().receive(1).await, closed);
    refused(rig.broker.create_topic(rig.spec("t", TopicKind::Plain)).await, closed);
    refused(rig.broker.create_topic(rig.spec("new", TopicKind::Plain)).await, closed);
    refused(rig.broker.delete_topic(&name).await, closed);
    refused(rig.broker.create_subscription(&name, "s", Start::Latest).await, closed);
    refused(rig.broker.create_subscription(&name, "new", Start::Earliest).await, closed);
    refused(rig.broker.unsubscribe(&name, "s").await, closed);
    refused(rig.broker.subscribe(rig.subscribe_of("t", "s", SubscriptionKind::Shared, 1)).await.map(|_| ()), closed);
    refused(rig.broker.publish(vec![rig.publish_of("t", rig.message("x"))]).await, closed);
    let acks = vec![rig.ack_of("t", "s", Position(0))];
    refused(rig.broker.commit(Step { acks, ..Step::default() }).await, closed);
    refused(rig.broker.nack(&name, "s", Position(0), Duration::ZERO).await, closed);
    refused(rig.broker.seek(&name, "s", Start::Earliest).await, closed);
    refused(rig.broker.peek(&name, "s", Position(0), 1).await, closed);
    refused(rig.broker.last_sequence(&name, "p").await, closed);
    refused(rig.broker.state("k").await, closed);
    refused(rig.broker.stats().await, closed);
    refused(rig.broker.account("t").await, closed);
    refused(rig.broker.root_outcome(rig.id()).await, closed);
    drop(tap);
}

pub(super) async fn who_waits_hears_of_the_end(harness: Harness) {
    let rig = Arc::new(harness.rig().await);
    rig.topic("in", TopicKind::Ingress, &["a"]).await;
    rig.plain("empty", &["s"]).await;
    rig.plain("stand-by", &["s"]).await;
    let root = rig.root("root");
    rig.send("in", [root.clone()]).await;
    let _active = rig.consumer("stand-by", "s", SubscriptionKind::Failover).await;
    let mut full = rig.consumer_with("in", "a", SubscriptionKind::Shared, 1).await;
    full.one().await;
    let waiting = [rig.shared("empty", "s").await, full, rig.consumer("stand-by", "s", SubscriptionKind::Failover).await];
    let receivers: Vec<_> = waiting
        .map(|mut tap| tokio::spawn(async move { drop(refused(tap.consumer().receive(1).await, ErrorKind::Closed)) }))
        .into();
    let outcome = rig.promises().accounts.then(|| {
        let rig = rig.clone();
        tokio::spawn(async move { drop(refused(rig.broker.root_outcome(root.id).await, ErrorKind::Closed)) })
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    ok(rig.broker.close().await);
    for task in receivers.into_iter().chain(outcome) {
        within("the end", task).await.expect("who waits must hear that the broker is closed");
    }
}

pub(super) async fn what_was_under_way_when_the_broker_was_closed_is_there_or_not_at_all(harness: Harness) {
    for round in 0..4_u64 {
        let rig = Arc::new(harness.rig().await);
        rig.plain("t", &["s"]).await;
        let writer = tokio::spawn({
            let rig = rig.clone();
            async move {
                let mut written = 0;
                loop {
                    let batch = (0..3).map(|_| rig.publish_of("t", rig.message(written.to_string()))).collect();
                    match rig.broker.publish(batch).await {
                        Ok(_) => written += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed);
                            return written;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        ok(rig.broker.close().await);
        let written = within("the end", writer).await.expect("the writer must not panic");
        let Ok(rig) = Arc::try_unwrap(rig) else { panic!("somebody still holds the broker") };
        let rig = rig.open_again().await;
        let found = rig.unsettled("t", "s").await;
        assert!(found.len() % 3 == 0 && found.len() / 3 >= written, "{written} batches were written, {found:?} are there");
        assert!(found.len() / 3 <= written + 1, "one batch at most was under way");
        ok(rig.broker.close().await);
    }
}
