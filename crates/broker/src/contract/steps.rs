//! The step: inputs, outputs and state, all of it or nothing.

use super::{
    Harness,
    rig::{Rig, Tap, numbered, ok, refused, texts},
};
use crate::{Ack, Delivery, ErrorKind, Limits, Message, Publish, Step, SubscriptionStats, TopicKind};
use bytes::Bytes;
use std::sync::Arc;

/// The most bytes of one value of state.
const STATE_BYTES_MAX: usize = 16 << 20;

/// Sees what is under a key, where state is kept.
async fn state_is(rig: &Rig, key: &str, expected: Option<&str>) {
    if rig.promises().state {
        let value = ok(rig.broker.state(&rig.name(key)).await).map(|value| String::from_utf8_lossy(&value).into_owned());
        assert_eq!(value.as_deref(), expected, "state `{key}`");
    }
}

/// These writes, where state is kept.
fn kept(rig: &Rig, writes: Vec<(String, Option<Bytes>)>) -> Vec<(String, Option<Bytes>)> {
    if rig.promises().state { writes } else { Vec::new() }
}

fn put(rig: &Rig, key: &str, value: &str) -> (String, Option<Bytes>) {
    (rig.name(key), Some(Bytes::copy_from_slice(value.as_bytes())))
}

fn remove(rig: &Rig, key: &str) -> (String, Option<Bytes>) {
    (rig.name(key), None)
}

/// `in` with three messages that are held, and `out` with nothing.
async fn input_and_output(rig: &Rig) -> (Tap, Vec<Delivery>) {
    rig.plain("in", &["s"]).await;
    rig.plain("out", &["s"]).await;
    rig.send_apart("in", numbered("m", 3)).await;
    let mut tap = rig.shared("in", "s").await;
    let got = tap.take(3).await;
    (tap, got)
}

fn acks(tap: &Tap, got: &[Delivery]) -> Vec<Ack> {
    got.iter().map(|delivery| tap.ack_of(delivery.position)).collect()
}

fn publishes(rig: &Rig, texts: &[&str]) -> Vec<Publish> {
    texts.iter().map(|text| rig.publish_of("out", rig.message(*text))).collect()
}

pub(super) async fn a_step_settles_publishes_and_writes_together(harness: Harness) {
    let rig = harness.rig().await;
    let (tap, got) = input_and_output(&rig).await;
    let state_of = kept(&rig, vec![put(&rig, "k", "one"), put(&rig, "gone", "x"), remove(&rig, "never")]);
    let step = Step {
        acks: acks(&tap, &got[..2]),
        publishes: publishes(&rig, &["a", "b"]),
        state: state_of,
        guard: true,
        ..Step::default()
    };
    ok(rig.broker.commit(step).await);
    assert_eq!(rig.unsettled("in", "s").await, ["m-2"]);
    assert_eq!(rig.unsettled("out", "s").await, ["a", "b"], "outputs are in their order");
    state_is(&rig, "k", Some("one")).await;
    let writes = vec![put(&rig, "k", "two"), remove(&rig, "gone"), put(&rig, "empty", ""), put(&rig, "k", "three")];
    let state_of = kept(&rig, writes);
    ok(rig.broker.commit(Step { state: state_of, ..Step::default() }).await);
    // The last write of a key in a step holds.
    state_is(&rig, "k", Some("three")).await;
    state_is(&rig, "gone", None).await;
    state_is(&rig, "empty", Some("")).await;
    ok(rig.broker.commit(Step::default()).await);
}

pub(super) async fn a_guarded_step_that_is_repeated_does_nothing(harness: Harness) {
    let rig = harness.rig().await;
    let (tap, got) = input_and_output(&rig).await;
    let step = |acks: Vec<Ack>, text: &str| {
        let (publishes, state) = (publishes(&rig, &[text]), kept(&rig, vec![put(&rig, "k", text)]));
        Step { acks, publishes, state, guard: true, ..Step::default() }
    };
    let first = step(acks(&tap, &got[1..2]), "first");
    ok(rig.broker.commit(first.clone()).await);
    refused(rig.broker.commit(first).await, ErrorKind::Settled);
    // One settled input is enough, wherever it stands among the others.
    for inputs in [&got[..2], &got[1..], &got[..]] {
        refused(rig.broker.commit(step(acks(&tap, inputs), "again")).await, ErrorKind::Settled);
    }
    assert_eq!(rig.unsettled("in", "s").await, ["m-0", "m-2"]);
    assert_eq!(rig.unsettled("out", "s").await, ["first"]);
    state_is(&rig, "k", Some("first")).await;
    let twice = acks(&tap, &[got[0].clone(), got[0].clone(), got[2].clone(), got[0].clone()]);
    ok(rig.broker.commit(step(twice, "second")).await);
    assert_eq!(rig.stats("in", "s").await, SubscriptionStats { consumers: 1, ..Default::default() });
}

pub(super) async fn a_step_without_guard_ignores_inputs_that_are_settled(harness: Harness) {
    let rig = harness.rig().await;
    let (tap, got) = input_and_output(&rig).await;
    tap.ack(&got[1..2]).await;
    let (inputs, state_of) = (acks(&tap, &got), kept(&rig, vec![put(&rig, "k", "v")]));
    let step = Step { acks: inputs, publishes: publishes(&rig, &["a"]), state: state_of, guard: false, ..Step::default() };
    ok(rig.broker.commit(step.clone()).await);
    ok(rig.broker.commit(step).await);
    assert_eq!(rig.unsettled("in", "s").await.len(), 0);
    assert_eq!(rig.unsettled("out", "s").await, ["a", "a"], "the rest of the step is done each time");
    state_is(&rig, "k", Some("v")).await;
}

pub(super) async fn nothing_of_a_refused_step_has_happened(harness: Harness) {
    if !harness.promises().broker.atomic_step {
        return;
    }
    let rig = harness.rig_with(Limits { message_bytes_max: 100, backlog_messages_max: 5, ..Limits::default() }).await;
    let (tap, got) = input_and_output(&rig).await;
    rig.topic("account", TopicKind::Ingress, &["s"]).await;
    let good = || Step {
        acks: acks(&tap, &got[..1]),
        publishes: vec![rig.publish_of("out", rig.message("a")), rig.publish_of("account", rig.root("root"))],
        state: vec![put(&rig, "k", "v")],
        guard: true,
        ..Step::default()
    };
    let large = Message { payload: vec![0; rig.broker.max_message_bytes() + 1].into(), ..rig.message("") };
    let spoil = |spoil: &dyn Fn(&mut Step)| {
        let mut step = good();
        spoil(&mut step);
        step
    };
    let mut spoilt = vec![
        (ErrorKind::NotFound, spoil(&|step| step.publishes.push(rig.publish_of("missing", rig.message("x"))))),
        (ErrorKind::NotFound, spoil(&|step| step.acks.push(rig.ack_of("in", "missing", got[0].position)))),
        (ErrorKind::NotFound, spoil(&|step| step.acks.push(rig.ack_of("in", "s", crate::Position(3))))),
        (ErrorKind::TooLarge, spoil(&|step| step.publishes.push(rig.publish_of("out", large.clone())))),
        (ErrorKind::TooLarge, spoil(&|step| step.state.push((rig.name("big"), Some(vec![0; STATE_BYTES_MAX + 1].into()))))),
        (ErrorKind::Invalid, spoil(&|step| step.acks.push(Ack { cumulative: true, ..tap.ack_of(got[1].position) }))),
    ];
    if harness.promises().limits {
        spoilt.push((ErrorKind::Full, spoil(&|step| step.publishes.extend(publishes(&rig, &["x"; 5])))));
    }
    for (kind, step) in spoilt {
        refused(rig.broker.commit(step).await, kind);
        assert_eq!(rig.stats("in", "s").await.in_flight, 3, "{kind:?}");
        assert_eq!((rig.topic_stats("out").await.published, rig.topic_stats("account").await.published), (0, 0), "{kind:?}");
        state_is(&rig, "k", None).await;
        assert_eq!(rig.counts().await, [0; 4], "{kind:?}");
    }
    ok(rig.broker.commit(good()).await);
    assert_eq!(rig.counts().await, [1, 0, 0, 1], "the same step without its fault is done");
}

pub(super) async fn a_value_of_state_may_have_16_mib_and_no_more(harness: Harness) {
    if !harness.promises().broker.state {
        return;
    }
    let rig = harness.rig().await;
    let sized = |bytes: usize| {
        let state = vec![(rig.name("k"), Some(Bytes::from(vec![7; bytes])))];
        rig.broker.commit(Step { state, ..Step::default() })
    };
    ok(sized(STATE_BYTES_MAX).await);
    refused(sized(STATE_BYTES_MAX + 1).await, ErrorKind::TooLarge);
    let value = ok(rig.broker.state(&rig.name("k")).await).map(|value| value.len());
    assert_eq!(value, Some(STATE_BYTES_MAX), "what was refused has not replaced it");
    ok(rig.broker.commit(Step { state: vec![remove(&rig, "k")], ..Step::default() }).await);
}

pub(super) async fn a_message_is_settled_by_one_of_many_who_try_at_once(harness: Harness) {
    if !harness.promises().broker.atomic_step {
        return;
    }
    let rig = Arc::new(harness.rig().await);
    rig.plain("in", &["s"]).await;
    rig.plain("out", &["s"]).await;
    rig.send_texts("in", numbered("m", 25)).await;
    let mut tap = rig.shared("in", "s").await;
    let got = tap.take(25).await;
    let mut tries = Vec::new();
    for who in 0..4 {
        let (rig, got) = (rig.clone(), got.clone());
        tries.push(tokio::spawn(async move {
            let mut won = 0;
            for delivery in got {
                let publishes = publishes(&rig, &[&format!("{} {who}", delivery.position.0)]);
                let acks = vec![rig.ack_of("in", "s", delivery.position)];
                match rig.broker.commit(Step { acks, publishes, guard: true, ..Step::default() }).await {
                    Ok(()) => won += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Settled),
                }
            }
            won
        }));
    }
    let mut won = 0;
    for task in tries {
        won += task.await.expect("nobody may panic");
    }
    assert_eq!((won, rig.unsettled("out", "s").await.len()), (25, 25));
}

pub(super) async fn steps_and_state_are_there_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        let (tap, got) = input_and_output(&rig).await;
        let state_of = kept(&rig, vec![put(&rig, "k", "one"), put(&rig, "gone", "x"), put(&rig, "empty", "")]);
        let step = Step {
            acks: acks(&tap, &got[..1]),
            publishes: publishes(&rig, &["a", "b"]),
            state: state_of,
            guard: true,
            ..Step::default()
        };
        ok(rig.broker.commit(step.clone()).await);
        let state = kept(&rig, vec![put(&rig, "k", "two"), remove(&rig, "gone")]);
        ok(rig.broker.commit(Step { state, ..Step::default() }).await);
        drop(tap);
        let mut rig = rig.reopen(end).await;
        for _ in 0..2 {
            refused(rig.broker.commit(step.clone()).await, ErrorKind::Settled);
            assert_eq!(rig.unsettled("in", "s").await, ["m-1", "m-2"], "{end:?}");
            assert_eq!(rig.unsettled("out", "s").await, ["a", "b"], "{end:?}");
            state_is(&rig, "k", Some("two")).await;
            state_is(&rig, "gone", None).await;
            state_is(&rig, "empty", Some("")).await;
            rig = rig.reopen(end).await;
        }
        let mut tap = rig.shared("out", "s").await;
        assert_eq!(texts(&tap.take(2).await), ["a", "b"], "{end:?}");
        drop(tap);
        ok(rig.broker.close().await);
    }
}
