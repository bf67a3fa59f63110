//! Roots: what is pending of each, what became of it, and the account of a topology.

use super::{
    End, Harness,
    rig::{Rig, Tap, ok, within},
};
use crate::{Delivery, Message, MessageId, Outcome, Publish, Start, Step, TopicKind};
use std::{sync::Arc, time::Duration};

/// Settles an input and gives the outputs of the same root: their topics.
async fn handle(rig: &Rig, tap: &Tap, input: &Delivery, outputs: &[&str]) {
    let output = |topic: &&str| rig.publish_of(topic, rig.child(input.message.root, *topic));
    let publishes: Vec<Publish> = outputs.iter().map(output).collect();
    ok(rig.broker.commit(Step { acks: vec![tap.ack_of(input.position)], publishes, guard: true, ..Step::default() }).await);
}

/// What became of a root, which must be decided.
async fn outcome(rig: &Rig, root: MessageId) -> Outcome {
    ok(within("the outcome of a root", rig.broker.root_outcome(root)).await)
}

/// Sees that a root is not decided.
async fn pending(rig: &Rig, root: MessageId) {
    let waiting = tokio::time::timeout(Duration::from_millis(10), rig.broker.root_outcome(root)).await;
    assert!(waiting.is_err(), "a root of which something is pending has come out: {waiting:?}");
}

/// Publishes roots to the ingress `in`.
async fn roots(rig: &Rig, count: usize) -> Vec<MessageId> {
    let roots: Vec<Message> = (0..count).map(|_| rig.root("root")).collect();
    let ids = roots.iter().map(|root| root.id).collect();
    rig.send("in", roots).await;
    ids
}

pub(super) async fn a_root_is_done_when_nothing_of_it_is_pending(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    rig.topic("in", TopicKind::Ingress, &["a"]).await;
    rig.topic("a.out", TopicKind::Route, &["b"]).await;
    let ids = roots(&rig, 3).await;
    assert_eq!(rig.counts().await, [3, 0, 0, 3]);
    let (mut a, mut b) = (rig.shared("in", "a").await, rig.shared("a.out", "b").await);
    let got = a.take(3).await;
    handle(&rig, &a, &got[0], &[]).await;
    assert_eq!((rig.counts().await, outcome(&rig, ids[0]).await), ([3, 1, 0, 2], Outcome::Done), "giving nothing ends a branch");
    handle(&rig, &a, &got[1], &["a.out", "a.out", "a.out"]).await;
    a.nack(&got[2], Duration::ZERO).await;
    for left in [2, 1, 0] {
        assert_eq!(rig.counts().await, [3, 1, 0, 2]);
        pending(&rig, ids[1]).await;
        let child = b.one().await;
        b.ack(&[child]).await;
        assert_eq!(rig.unsettled("a.out", "b").await.len(), left);
    }
    assert_eq!((rig.counts().await, outcome(&rig, ids[1]).await), ([3, 2, 0, 1], Outcome::Done));
    pending(&rig, ids[2]).await;
    let last = a.one().await;
    handle(&rig, &a, &last, &[]).await;
    assert_eq!((rig.counts().await, outcome(&rig, ids[2]).await), ([3, 3, 0, 0], Outcome::Done));
    assert_eq!(outcome(&rig, rig.id()).await, Outcome::Done, "a root that nobody knows is done");
}

pub(super) async fn a_root_that_is_sent_twice_counts_twice(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    let (mut input, mut retry, mut dead) = with_dead_letters(&rig).await;
    let root = rig.root("twice");
    rig.send("in", [root.clone()]).await;
    rig.send("in", [root.clone(), rig.root("another")]).await;
    assert_eq!(rig.counts().await, [3, 0, 0, 3]);
    let got = input.take(3).await;
    handle(&rig, &input, &got[0], &[]).await;
    assert_eq!(rig.counts().await, [3, 0, 0, 3], "the other half of it is pending");
    handle(&rig, &input, &got[1], &["in-a-DLQ"]).await;
    assert_eq!((rig.counts().await, outcome(&rig, root.id).await), ([3, 0, 2, 1], Outcome::DeadLettered));
    rig.send("in", [root.clone()]).await;
    assert_eq!(rig.counts().await, [4, 0, 0, 4]);
    pending(&rig, root.id).await;
    let again = input.take(1).await;
    input.ack(&again).await;
    assert_eq!(rig.counts().await, [4, 0, 3, 1]);
    let letter = dead.one().await;
    handle(&rig, &dead, &letter, &["in-a-RETRY"]).await;
    let redriven = retry.take(1).await;
    retry.ack(&redriven).await;
    assert_eq!((rig.counts().await, outcome(&rig, root.id).await), ([4, 3, 0, 1], Outcome::Done));
    // And once more, now that nothing of it is left.
    rig.send("in", [root]).await;
    assert_eq!(rig.counts().await, [5, 3, 0, 2]);
}

pub(super) async fn a_fan_out_is_pending_until_every_subscription_has_settled(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    rig.topic("in", TopicKind::Ingress, &["a", "b", "c"]).await;
    let ids = roots(&rig, 2).await;
    let mut taps = [rig.shared("in", "a").await, rig.shared("in", "b").await, rig.shared("in", "c").await];
    for (index, tap) in taps.iter_mut().enumerate() {
        assert_eq!(rig.counts().await, [2, 0, 0, 2], "{index} have settled");
        pending(&rig, ids[0]).await;
        let got = tap.take(2).await;
        tap.ack(&got).await;
    }
    assert_eq!(rig.counts().await, [2, 2, 0, 0]);
    // Nobody listens: there is nothing to wait for.
    rig.topic("deaf", TopicKind::Ingress, &[]).await;
    let alone = rig.root("x");
    rig.send("deaf", [alone.clone()]).await;
    assert_eq!((rig.counts().await, outcome(&rig, alone.id).await), ([3, 3, 0, 0], Outcome::Done));
}

pub(super) async fn a_diamond_is_done_when_both_branches_are_also_if_one_gives_nothing(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    rig.topic("in", TopicKind::Ingress, &["a"]).await;
    rig.topic("a.out", TopicKind::Route, &["b", "c"]).await;
    rig.topic("b.out", TopicKind::Route, &["d"]).await;
    rig.topic("c.out", TopicKind::Route, &["d"]).await;
    let (mut a, mut b) = (rig.shared("in", "a").await, rig.shared("a.out", "b").await);
    let (mut c, mut from_b) = (rig.shared("a.out", "c").await, rig.shared("b.out", "d").await);
    let mut from_c = rig.shared("c.out", "d").await;
    for (round, c_gives) in [&["c.out"][..], &[]].into_iter().enumerate() {
        let id = roots(&rig, 1).await[0];
        let before = [round as u64 + 1, round as u64, 0, 1];
        let input = a.one().await;
        handle(&rig, &a, &input, &["a.out"]).await;
        let (to_b, to_c) = (b.one().await, c.one().await);
        handle(&rig, &b, &to_b, &["b.out"]).await;
        let join = from_b.one().await;
        from_b.ack(&[join]).await;
        assert_eq!(rig.counts().await, before, "the slower branch is still to come");
        pending(&rig, id).await;
        handle(&rig, &c, &to_c, c_gives).await;
        if !c_gives.is_empty() {
            assert_eq!(rig.counts().await, before);
            let join = from_c.one().await;
            from_c.ack(&[join]).await;
        }
        assert_eq!((rig.counts().await, outcome(&rig, id).await), ([round as u64 + 1, round as u64 + 1, 0, 0], Outcome::Done));
    }
}

/// An ingress, a retry topic and a dead-letter topic.
async fn with_dead_letters(rig: &Rig) -> (Tap, Tap, Tap) {
    rig.topic("in", TopicKind::Ingress, &["a"]).await;
    rig.topic("in-a-RETRY", TopicKind::Route, &["a"]).await;
    rig.topic("in-a-DLQ", TopicKind::DeadLetter, &["dead"]).await;
    (rig.shared("in", "a").await, rig.shared("in-a-RETRY", "a").await, rig.shared("in-a-DLQ", "dead").await)
}

pub(super) async fn a_dead_letter_keeps_its_root_dead_lettered_until_it_is_redriven(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    let (mut input, mut retry, mut dead) = with_dead_letters(&rig).await;
    let id = roots(&rig, 1).await[0];
    let first = input.one().await;
    handle(&rig, &input, &first, &["in-a-DLQ"]).await;
    assert_eq!((rig.counts().await, outcome(&rig, id).await), ([1, 0, 1, 0], Outcome::DeadLettered));
    for round in 0..3 {
        let letter = dead.one().await;
        assert_eq!(rig.counts().await, [1, 0, 1, 0], "a look at it changes nothing");
        handle(&rig, &dead, &letter, &["in-a-RETRY"]).await;
        assert_eq!(rig.counts().await, [1, 0, 0, 1], "redriven");
        pending(&rig, id).await;
        let again = retry.one().await;
        let outputs: &[&str] = if round < 2 { &["in-a-DLQ"] } else { &[] };
        handle(&rig, &retry, &again, outputs).await;
    }
    assert_eq!((rig.counts().await, outcome(&rig, id).await), ([1, 1, 0, 0], Outcome::Done));
    assert_eq!(rig.stats("in-a-DLQ", "dead").await.in_flight, 0);
}

pub(super) async fn a_dead_letter_that_is_dropped_keeps_its_root_dead_lettered(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    let (mut input, mut retry, mut dead) = with_dead_letters(&rig).await;
    let ids = roots(&rig, 3).await;
    let got = input.take(3).await;
    // One branch of the first is given up, and another is pending; the second is given up twice; the third is done.
    handle(&rig, &input, &got[0], &["in-a-DLQ", "in-a-RETRY"]).await;
    assert_eq!(rig.counts().await, [3, 0, 0, 3], "what is pending comes first");
    pending(&rig, ids[0]).await;
    handle(&rig, &input, &got[1], &["in-a-DLQ", "in-a-DLQ"]).await;
    handle(&rig, &input, &got[2], &[]).await;
    assert_eq!(rig.counts().await, [3, 1, 1, 1]);
    let branch = retry.one().await;
    handle(&rig, &retry, &branch, &[]).await;
    assert_eq!((rig.counts().await, outcome(&rig, ids[0]).await), ([3, 1, 2, 0], Outcome::DeadLettered));
    let letters = dead.take(3).await;
    for letter in &letters[..2] {
        dead.ack(std::slice::from_ref(letter)).await;
        assert_eq!(rig.counts().await, [3, 1, 2, 0], "dropped is not done");
    }
    assert_eq!(outcome(&rig, ids[0]).await, Outcome::DeadLettered);
    // One letter of the second was dropped: redriving the other one does not undo that.
    handle(&rig, &dead, &letters[2], &["in-a-RETRY"]).await;
    assert_eq!(rig.counts().await, [3, 1, 1, 1]);
    let again = retry.one().await;
    handle(&rig, &retry, &again, &[]).await;
    assert_eq!((rig.counts().await, outcome(&rig, ids[1]).await), ([3, 1, 2, 0], Outcome::DeadLettered));
    assert_eq!(outcome(&rig, ids[2]).await, Outcome::Done);
}

pub(super) async fn messages_without_a_root_and_plain_topics_count_in_no_account(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    for (topic, kind) in [("in", TopicKind::Ingress), ("out", TopicKind::Route), ("dead", TopicKind::DeadLetter)] {
        rig.topic(topic, kind, &["s"]).await;
        rig.send_texts(topic, ["untracked"]).await;
        let mut tap = rig.shared(topic, "s").await;
        let got = tap.take(1).await;
        assert_eq!((rig.counts().await, got[0].message.root), ([0; 4], MessageId(0)));
        tap.ack(&got).await;
    }
    rig.plain("plain", &["s"]).await;
    let root = rig.root("x");
    rig.send("plain", [root.clone()]).await;
    assert_eq!((rig.counts().await, outcome(&rig, root.id).await), ([0; 4], Outcome::Done));
    assert_eq!(outcome(&rig, MessageId(0)).await, Outcome::Done);
    assert_eq!(ok(rig.broker.account(&rig.name("unheard-of")).await), Default::default());
}

pub(super) async fn who_waits_for_a_root_hears_of_its_outcome(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = Arc::new(harness.rig().await);
    let (mut input, mut retry, _dead) = with_dead_letters(&rig).await;
    let ids = roots(&rig, 2).await;
    let got = input.take(2).await;
    handle(&rig, &input, &got[0], &["in-a-RETRY"]).await;
    let waiting: Vec<_> = [ids[0], ids[1], ids[0], ids[0]]
        .map(|id| {
            let rig = rig.clone();
            tokio::spawn(async move { outcome(&rig, id).await })
        })
        .into();
    // One that does not wait any longer harms nobody.
    waiting[3].abort();
    pending(&rig, ids[0]).await;
    handle(&rig, &input, &got[1], &["in-a-DLQ"]).await;
    let again = retry.one().await;
    retry.ack(&[again]).await;
    for (task, expected) in waiting.into_iter().zip([Outcome::Done, Outcome::DeadLettered, Outcome::Done]) {
        assert_eq!(within("the outcome", task).await.expect("who waits must not panic"), expected);
    }
}

pub(super) async fn removing_or_moving_a_subscription_settles_its_part(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    let rig = harness.rig().await;
    rig.topic("in", TopicKind::Ingress, &["a", "b"]).await;
    let ids = roots(&rig, 4).await;
    let mut a = rig.shared("in", "a").await;
    let got = a.take(4).await;
    a.ack(&got[..2]).await;
    drop(a);
    rig.until_stats("in", "a", |stats| stats.consumers == 0).await;
    assert_eq!(rig.counts().await, [4, 0, 0, 4]);
    ok(rig.broker.unsubscribe(&rig.name("in"), "b").await);
    assert_eq!((rig.counts().await, outcome(&rig, ids[1]).await), ([4, 2, 0, 2], Outcome::Done));
    pending(&rig, ids[3]).await;
    ok(rig.broker.seek(&rig.name("in"), "a", Start::At(got[3].position)).await);
    assert_eq!((rig.counts().await, outcome(&rig, ids[2]).await), ([4, 3, 0, 1], Outcome::Done), "passed over is settled");
    // A subscription that is made now gets what is still held, and its root waits for it as well.
    rig.subscription("in", "late", Start::Earliest).await;
    ok(rig.broker.seek(&rig.name("in"), "a", Start::Latest).await);
    assert_eq!(rig.counts().await, [4, 3, 0, 1]);
    pending(&rig, ids[3]).await;
    let mut late = rig.shared("in", "late").await;
    let got = late.take(1).await;
    late.ack(&got).await;
    assert_eq!(rig.counts().await, [4, 4, 0, 0]);
}

pub(super) async fn accounts_and_outcomes_are_known_when_the_broker_is_opened_again(harness: Harness) {
    if !harness.promises().broker.accounts {
        return;
    }
    for end in harness.ends() {
        let rig = harness.rig().await;
        let (mut input, _retry, mut dead) = with_dead_letters(&rig).await;
        let ids = roots(&rig, 5).await;
        let got = input.take(5).await;
        handle(&rig, &input, &got[0], &[]).await;
        handle(&rig, &input, &got[1], &["in-a-DLQ"]).await;
        handle(&rig, &input, &got[2], &["in-a-DLQ"]).await;
        handle(&rig, &input, &got[3], &["in-a-RETRY", "in-a-DLQ"]).await;
        let letter = dead.one().await;
        dead.ack(&[letter]).await;
        let before = rig.counts().await;
        assert_eq!(before, [5, 1, 2, 2], "{end:?}");
        drop((input, _retry, dead));
        let mut rig = rig.reopen(end).await;
        for _ in 0..2 {
            assert_eq!(rig.counts().await, before, "{end:?}");
            for (id, expected) in ids.iter().zip([Outcome::Done, Outcome::DeadLettered, Outcome::DeadLettered]) {
                assert_eq!(outcome(&rig, *id).await, expected, "{end:?}");
            }
            pending(&rig, ids[3]).await;
            pending(&rig, ids[4]).await;
            rig = rig.reopen(end).await;
        }
        go_on(&rig, end, &ids).await;
        ok(rig.broker.close().await);
    }
}

/// The second half of the above: what was pending is finished, and what was given up is redriven.
async fn go_on(rig: &Rig, end: End, ids: &[MessageId]) {
    let (mut input, mut retry, mut dead) = with_dead_letters(rig).await;
    let last = input.one().await;
    handle(rig, &input, &last, &[]).await;
    let branch = retry.one().await;
    handle(rig, &retry, &branch, &[]).await;
    assert_eq!(rig.counts().await, [5, 2, 3, 0], "{end:?}");
    for letter in dead.take(2).await {
        handle(rig, &dead, &letter, &["in-a-RETRY"]).await;
    }
    let redriven = retry.take(2).await;
    retry.ack(&redriven).await;
    assert_eq!(rig.counts().await, [5, 4, 1, 0], "{end:?}: the one that was dropped remains");
    for (index, id) in ids.iter().enumerate() {
        let expected = if index == 1 { Outcome::DeadLettered } else { Outcome::Done };
        assert_eq!(outcome(rig, *id).await, expected, "{end:?}, root {index}");
    }
}
