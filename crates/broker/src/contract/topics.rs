//! Topics and subscriptions: making them, naming them, and not finding them.

use super::{
    Harness,
    rig::{Rig, ok, refused},
};
use crate::{ErrorKind, Position, Publish, Start, Step, SubscriptionKind, TopicKind, TopicSpec};
use std::time::Duration;

/// Names that no broker takes.
const REFUSED_NAMES: [&str; 8] = ["", " ", "a b", "a/b", "ä", "a:b", "a\n", "a\0"];

pub(super) async fn a_topic_is_made_once_and_keeps_what_it_is(harness: Harness) {
    let rig = harness.rig().await;
    let first = rig.spec("made", TopicKind::Route);
    ok(rig.broker.create_topic(first.clone()).await);
    rig.subscription("made", "s", Start::Earliest).await;
    rig.send_texts("made", ["kept"]).await;
    let longer = Duration::from_secs(60);
    let again = TopicSpec { kind: TopicKind::Plain, topology: "another".to_owned(), retention: longer, ..first.clone() };
    ok(rig.broker.create_topic(again).await);
    rig.subscription("made", "s", Start::Latest).await;
    let stats = rig.topic_stats("made").await;
    assert_eq!(stats.spec, TopicSpec { retention: longer, ..first }, "kind and topology are those of the first call");
    assert_eq!(stats.published, 1);
    assert_eq!(rig.topics().await.len(), 1);
    assert_eq!(rig.unsettled("made", "s").await, ["kept"], "making a subscription again does not move it");
}

pub(super) async fn names_that_are_not_allowed_are_refused(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &[]).await;
    let long = "x".repeat(256);
    for name in REFUSED_NAMES.into_iter().chain([long.as_str()]) {
        let spec = TopicSpec { name: name.to_owned(), ..rig.spec("t", TopicKind::Plain) };
        refused(rig.broker.create_topic(spec).await, ErrorKind::Invalid);
        refused(rig.broker.create_subscription(&rig.name("t"), name, Start::Earliest).await, ErrorKind::Invalid);
    }
    let fits = "A.z_0-".repeat(43)[..255].to_owned();
    rig.subscription("t", &fits, Start::Earliest).await;
    let longest = format!("{}{}", rig.name(""), fits)[..255].to_owned();
    ok(rig.broker.create_topic(TopicSpec { name: longest, ..rig.spec("t", TopicKind::Plain) }).await);
    assert_eq!(rig.topics().await.len(), 2);
    assert_eq!(rig.topic_stats("t").await.subscriptions.len(), 1);
}

pub(super) async fn what_does_not_exist_is_not_found(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("there", &["s"]).await;
    let missing = ErrorKind::NotFound;
    refused(rig.broker.create_subscription(&rig.name("gone"), "s", Start::Earliest).await, missing);
    refused(rig.broker.publish(vec![rig.publish_of("gone", rig.message("x"))]).await, missing);
    refused(rig.broker.last_sequence(&rig.name("gone"), "p").await, missing);
    refused(rig.broker.delete_topic(&rig.name("gone")).await, missing);
    for (topic, subscription) in [("gone", "s"), ("there", "gone")] {
        let name = rig.name(topic);
        let subscribe = rig.subscribe_of(topic, subscription, SubscriptionKind::Shared, 1);
        refused(rig.broker.subscribe(subscribe).await.map(|_| ()), missing);
        refused(rig.broker.unsubscribe(&name, subscription).await, missing);
        refused(rig.broker.seek(&name, subscription, Start::Earliest).await, missing);
        refused(rig.broker.peek(&name, subscription, Position(0), 1).await, missing);
        refused(rig.broker.nack(&name, subscription, Position(0), Duration::ZERO).await, missing);
        let acks = vec![rig.ack_of(topic, subscription, Position(0))];
        refused(rig.broker.commit(Step { acks, ..Step::default() }).await, missing);
    }
    if rig.promises().state {
        assert_eq!(ok(rig.broker.state(&rig.name("gone")).await), None);
    }
    assert_eq!(ok(rig.broker.last_sequence(&rig.name("there"), "gone").await), None);
}

/// A topic that keeps what is settled, with a producer that is known, and then without its subscription.
async fn left(rig: &Rig) -> String {
    let name = rig.name("t");
    let spec = TopicSpec { retention: Duration::from_secs(600), ..rig.spec("t", TopicKind::Plain) };
    ok(rig.broker.create_topic(spec).await);
    rig.subscription("t", "s", Start::Earliest).await;
    refused(rig.broker.delete_topic(&name).await, ErrorKind::Conflict);
    let sequence = Some((rig.name("p").into(), 9));
    ok(rig.broker.publish(vec![Publish { sequence, ..rig.publish_of("t", rig.message("m")) }]).await);
    let mut tap = rig.shared("t", "s").await;
    let got = tap.take(1).await;
    tap.ack(&got).await;
    drop(tap);
    rig.until_stats("t", "s", |stats| stats.consumers == 0).await;
    ok(rig.broker.unsubscribe(&name, "s").await);
    name
}

/// A topic of the same name knows nothing of the one that was removed.
async fn begins_anew(rig: &Rig) {
    rig.plain("t", &["s"]).await;
    let stats = rig.topic_stats("t").await;
    assert_eq!((stats.published, stats.spec), (0, rig.spec("t", TopicKind::Plain)));
    assert_eq!(ok(rig.broker.last_sequence(&rig.name("t"), &rig.name("p")).await), None);
    assert_eq!(rig.send_texts("t", ["new"]).await, [Position(0)]);
    assert_eq!(rig.unsettled("t", "s").await, ["new"]);
}

pub(super) async fn a_topic_is_removed_when_nobody_subscribes_to_it(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("other", &["s"]).await;
    let name = left(&rig).await;
    ok(rig.broker.delete_topic(&name).await);
    refused(rig.broker.delete_topic(&name).await, ErrorKind::NotFound);
    refused(rig.broker.publish(vec![rig.publish_of("t", rig.message("x"))]).await, ErrorKind::NotFound);
    assert_eq!(rig.topics().await.len(), 1);
    begins_anew(&rig).await;
    assert_eq!(rig.topics().await.len(), 2);
}

pub(super) async fn a_topic_that_was_removed_is_gone_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let mut rig = harness.rig().await;
        let name = left(&rig).await;
        rig.plain("later", &["s"]).await;
        ok(rig.broker.delete_topic(&name).await);
        // The second time from what the first has kept.
        for _ in 0..2 {
            rig = rig.reopen(end).await;
            assert_eq!(rig.topics().await.len(), 1, "{end:?}");
        }
        begins_anew(&rig).await;
        rig.send_texts("later", ["a"]).await;
        rig = rig.reopen(end).await;
        assert_eq!((rig.unsettled("t", "s").await, rig.unsettled("later", "s").await), (vec!["new".into()], vec!["a".into()]));
        ok(rig.broker.close().await);
    }
}

pub(super) async fn topics_and_subscriptions_are_there_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        let spec = TopicSpec { retention: Duration::from_secs(9), ..rig.spec("t", TopicKind::Ingress) };
        ok(rig.broker.create_topic(spec.clone()).await);
        rig.subscription("t", "one", Start::Earliest).await;
        rig.subscription("t", "two", Start::Latest).await;
        rig.send_texts("t", ["a", "b"]).await;
        ok(rig.broker.unsubscribe(&rig.name("t"), "one").await);
        let rig = rig.reopen(end).await;
        let stats = rig.topic_stats("t").await;
        assert_eq!((stats.spec, stats.published), (spec, 2), "{end:?}");
        assert_eq!(stats.subscriptions.into_keys().collect::<Vec<_>>(), ["two"], "{end:?}");
        assert_eq!(rig.unsettled("t", "two").await, ["a", "b"], "{end:?}");
        ok(rig.broker.close().await);
    }
}
