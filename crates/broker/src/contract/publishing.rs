//! Publishing: batches, positions, the envelope, repetitions, and what is refused.

use super::{
    Harness,
    rig::{Rig, numbered, ok, refused, texts, within},
};
use crate::{Codec, ErrorKind, Limits, Message, Position, Publish, Result, SubscriptionStats};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

pub(super) async fn positions_count_from_zero_without_gaps(harness: Harness) {
    if !harness.promises().broker.counted_positions {
        return;
    }
    let rig = harness.rig().await;
    rig.plain("one", &["s"]).await;
    rig.plain("two", &["s"]).await;
    assert_eq!(ok(rig.broker.publish(Vec::new()).await), [], "an empty batch is no fault");
    assert_eq!(rig.send_texts("one", ["a"]).await, [Position(0)]);
    let mixed = ["one", "two", "one", "one", "two"].map(|topic| rig.publish_of(topic, rig.message(topic)));
    assert_eq!(ok(rig.broker.publish(mixed.into()).await), [1, 0, 2, 3, 1].map(Position));
    // Nobody keeps these, and still they count.
    rig.plain("nobody", &[]).await;
    for batch in 0..4_u64 {
        let positions = rig.send_texts("nobody", numbered("m", 300)).await;
        assert!(positions.into_iter().eq((batch * 300..(batch + 1) * 300).map(Position)));
    }
    rig.subscription("nobody", "s", crate::Start::Earliest).await;
    assert_eq!(rig.send_texts("nobody", ["kept"]).await, [Position(1_200)]);
    assert_eq!(rig.topic_stats("nobody").await.published, 1_201);
    assert_eq!(rig.unsettled("nobody", "s").await, ["kept"]);
}

pub(super) async fn positions_follow_the_order_of_publishing_when_many_publish(harness: Harness) {
    let rig = Arc::new(harness.rig().await);
    rig.plain("t", &["s"]).await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let rig = rig.clone();
        writers.push(tokio::spawn(async move {
            let mut last = None;
            for number in 0..25 {
                let positions = rig.send_texts("t", (0..3).map(|part| format!("{writer} {number} {part}"))).await;
                assert!(positions.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "a batch lies together: {positions:?}");
                assert!(last < Some(positions[0]), "a later batch has later positions");
                last = positions.last().copied();
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no writer may panic");
    }
    let all = rig.unsettled("t", "s").await;
    assert_eq!(all.len(), 300);
    for batch in all.chunks(3) {
        let (writer, number) = batch[0].rsplit_once(' ').map_or("", |(rest, _)| rest).split_once(' ').unwrap_or_default();
        assert_eq!(batch, [0, 1, 2].map(|part| format!("{writer} {number} {part}")), "batches are not mixed");
    }
}

pub(super) async fn a_message_comes_out_as_it_went_in(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let full = Message {
        id: rig.id(),
        root: rig.id(),
        key: Some("Schlüssel/\0".to_owned()),
        created_ms: 1_234_567_890_123,
        deliver_at_ms: Some(1),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        codec: Codec::MessagePack,
        properties: vec![("cause".to_owned(), "it was ✗".to_owned()), ("cause".to_owned(), String::new())],
        payload: bytes.into(),
    };
    let bare = Message { id: rig.id(), created_ms: u64::MAX, ..Message::default() };
    let sent = vec![full, bare, rig.keyed("", ""), rig.root("root")];
    rig.send("t", sent.clone()).await;
    let peeked = ok(rig.broker.peek(&rig.name("t"), "s", Position(0), 9).await);
    assert!(peeked.iter().map(|(_, message)| message).eq(&sent));
    let got = rig.shared("t", "s").await.take(4).await;
    assert!(got.iter().map(|delivery| &*delivery.message).eq(&sent));
}

pub(super) async fn messages_of_every_size_are_whole_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        let max = rig.broker.max_message_bytes();
        let around = (0..=24).map(|power| 1_usize << power).flat_map(|size| [size - 1, size, size + 1]);
        let mut sizes: Vec<usize> = around.filter(|size| *size < max).collect();
        sizes.push(max);
        let message = |size: &usize| Message { payload: (0..*size).map(|at| (at + size) as u8).collect(), ..rig.message("") };
        let sent: Vec<Message> = sizes.iter().map(message).collect();
        // Each for itself first, then many in one batch.
        for message in &sent {
            rig.send("t", [message.clone()]).await;
        }
        rig.send("t", sent.iter().filter(|message| message.payload.len() < 100_000).cloned()).await;
        let rig = rig.reopen(end).await;
        let got = rig.shared("t", "s").await.take(sent.len()).await;
        assert!(got.iter().map(|delivery| &*delivery.message).eq(&sent), "{end:?}");
        assert_eq!(rig.unsettled("t", "s").await.len(), sent.len() + sent.iter().filter(|m| m.payload.len() < 100_000).count());
        ok(rig.broker.close().await);
    }
}

pub(super) async fn a_message_that_is_too_large_refuses_its_whole_batch(harness: Harness) {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let rig = harness.rig_with(limits).await;
    let max = rig.broker.max_message_bytes();
    assert!(max == 1_000 || !harness.promises().limits);
    rig.plain("t", &["s"]).await;
    let sized = |bytes: usize| rig.publish_of("t", Message { payload: Bytes::from(vec![7; bytes]), ..rig.message("") });
    let too_large = refused(rig.broker.publish(vec![sized(1), sized(max + 1), sized(2)]).await, ErrorKind::TooLarge);
    assert!(too_large.to_string().contains(&rig.name("t")), "it names the topic: {too_large}");
    refused(rig.broker.publish(vec![sized(max + 1)]).await, ErrorKind::TooLarge);
    assert_eq!(rig.topic_stats("t").await.published, 0, "nothing of a refused batch is there");
    ok(rig.broker.publish(vec![sized(max - 1), sized(max), sized(0)]).await);
    let got = rig.shared("t", "s").await.take(3).await;
    assert_eq!(got.iter().map(|delivery| delivery.message.payload.len()).collect::<Vec<_>>(), [max - 1, max, 0]);
}

pub(super) async fn a_batch_to_a_missing_topic_does_nothing_to_the_others(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    let named = sequenced(&rig, "t", "p", 1);
    let batch = vec![named.clone(), rig.publish_of("missing", rig.message("x")), rig.publish_of("t", rig.message("y"))];
    refused(rig.broker.publish(batch).await, ErrorKind::NotFound);
    assert_eq!(rig.stats("t", "s").await, SubscriptionStats::default());
    assert_eq!(ok(rig.broker.last_sequence(&rig.name("t"), &rig.name("p")).await), None, "its sequence is not used up");
    ok(rig.broker.publish(vec![named]).await);
    assert_eq!(rig.unsettled("t", "s").await, ["p 1"]);
}

/// A message of a named producer, whose text is the producer and the sequence.
fn sequenced(rig: &super::Rig, topic: &str, producer: &str, sequence: u64) -> Publish {
    let message = rig.message(format!("{producer} {sequence}"));
    Publish { sequence: Some((rig.name(producer).into(), sequence)), ..rig.publish_of(topic, message) }
}

pub(super) async fn repetitions_of_a_named_producer_are_dropped(harness: Harness) {
    let rig = harness.rig().await;
    rig.plain("t", &["s"]).await;
    rig.plain("other", &["s"]).await;
    let publish = async |topic: &str, producer: &str, sequences: &[u64]| -> Result<Vec<Position>> {
        rig.broker.publish(sequences.iter().map(|sequence| sequenced(&rig, topic, producer, *sequence)).collect()).await
    };
    let last = async |topic: &str, producer: &str| ok(rig.broker.last_sequence(&rig.name(topic), &rig.name(producer)).await);
    // From zero on, with gaps, and with a repetition within one batch.
    assert_eq!(ok(publish("t", "p", &[0, 1, 1, 5]).await).len(), 4, "a repetition is reported as published");
    assert_eq!(last("t", "p").await, Some(5));
    for again in [&[0][..], &[5], &[1, 5], &[4]] {
        assert_eq!(ok(publish("t", "p", again).await).len(), again.len());
    }
    ok(publish("t", "p", &[4, 6, 2, 7, 6]).await);
    assert_eq!(rig.unsettled("t", "s").await, ["p 0", "p 1", "p 5", "p 6", "p 7"]);
    assert_eq!(last("t", "p").await, Some(7));
    // Another producer, another topic and no producer at all are not concerned.
    ok(publish("t", "q", &[3]).await);
    ok(publish("other", "p", &[2]).await);
    rig.send_texts("t", ["free", "free"]).await;
    assert_eq!(rig.unsettled("t", "s").await[5..], ["q 3", "free", "free"]);
    assert_eq!((last("t", "q").await, last("other", "p").await, last("other", "q").await), (Some(3), Some(2), None));
    ok(rig.broker.publish(vec![sequenced(&rig, "t", "r", 9), sequenced(&rig, "other", "r", 1)]).await);
    assert_eq!(rig.unsettled("other", "s").await, ["p 2", "r 1"], "nor in one batch");
    // What is settled and gone is remembered all the same.
    let mut tap = rig.shared("t", "s").await;
    let got = tap.take(9).await;
    tap.ack(&got).await;
    ok(publish("t", "p", &[7, 8]).await);
    assert_eq!(texts(&tap.take(1).await), ["p 8"]);
    tap.quiet().await;
    let max = rig.promises().sequence_max;
    ok(publish("t", "max", &[max, max]).await);
    assert_eq!(texts(&tap.take(1).await), [format!("max {max}")]);
}

pub(super) async fn a_named_producer_is_known_when_the_broker_is_opened_again(harness: Harness) {
    for end in harness.ends() {
        let rig = harness.rig().await;
        rig.plain("t", &["s"]).await;
        ok(rig.broker.publish(vec![sequenced(&rig, "t", "p", 1), sequenced(&rig, "t", "p", 4)]).await);
        let mut rig = rig.reopen(end).await;
        for _ in 0..2 {
            assert_eq!(ok(rig.broker.last_sequence(&rig.name("t"), &rig.name("p")).await), Some(4), "{end:?}");
            let batch = [1, 3, 4, 5].map(|sequence| sequenced(&rig, "t", "p", sequence));
            let batch = batch.into_iter().filter(|publish| publish.sequence.as_ref().is_some_and(|(_, sequence)| *sequence < 5));
            assert_eq!(ok(rig.broker.publish(batch.collect()).await).len(), 3, "{end:?}");
            assert_eq!(rig.unsettled("t", "s").await, ["p 1", "p 4"], "{end:?}");
            rig = rig.reopen(end).await;
        }
        ok(rig.broker.publish(vec![sequenced(&rig, "t", "p", 5)]).await);
        assert_eq!(rig.unsettled("t", "s").await, ["p 1", "p 4", "p 5"], "{end:?}");
        ok(rig.broker.close().await);
    }
}

pub(super) async fn a_full_topic_refuses_and_recovers_when_it_is_drained(harness: Harness) {
    if !harness.promises().limits {
        return;
    }
    let rig = harness.rig_with(Limits { backlog_messages_max: 4, ..Limits::default() }).await;
    rig.plain("t", &["fast", "slow"]).await;
    rig.topic("dead", crate::TopicKind::DeadLetter, &["s"]).await;
    rig.send_texts("t", numbered("m", 3)).await;
    let texts_of = |count| numbered("x", count).into_iter().map(|text| rig.publish_of("t", rig.message(text)));
    refused(rig.broker.publish(texts_of(2).collect()).await, ErrorKind::Full);
    assert_eq!(rig.topic_stats("t").await.published, 3, "a batch that does not fit is refused whole");
    rig.send_texts("t", ["m-3"]).await;
    refused(rig.broker.publish(texts_of(1).collect()).await, ErrorKind::Full);
    rig.send_texts("dead", numbered("d", 10)).await;
    let (mut fast, mut slow) = (rig.shared("t", "fast").await, rig.shared("t", "slow").await);
    let got = fast.take(4).await;
    fast.ack(&got).await;
    refused(rig.broker.publish(texts_of(1).collect()).await, ErrorKind::Full);
    let got = slow.take(4).await;
    slow.nack(&got[3], Duration::ZERO).await;
    refused(rig.broker.publish(texts_of(1).collect()).await, ErrorKind::Full);
    slow.ack(&got[..2]).await;
    rig.send_texts("t", ["m-4", "m-5"]).await;
    refused(rig.broker.publish(texts_of(1).collect()).await, ErrorKind::Full);
    assert_eq!(texts(&fast.take(2).await), ["m-4", "m-5"]);
}

pub(super) async fn a_producer_that_publishes_nothing_for_long_is_forgotten(harness: Harness) {
    if !harness.promises().limits {
        return;
    }
    let mut rig = harness.rig_with(Limits { producer_inactive: Duration::from_millis(40), ..Limits::default() }).await;
    rig.plain("t", &["s"]).await;
    let topic = rig.name("t");
    let of = |rig: &Rig, producer: &str, sequence: u64| {
        let sequence = Some((rig.name(producer).into(), sequence));
        Publish { sequence, ..rig.publish_of("t", rig.message(producer)) }
    };
    ok(rig.broker.publish(vec![of(&rig, "silent", 7)]).await);
    let mut sequence = 0;
    let forgotten = async {
        while ok(rig.broker.last_sequence(&topic, &rig.name("silent")).await).is_some() {
            sequence += 1;
            ok(rig.broker.publish(vec![of(&rig, "busy", sequence)]).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("a silent producer to be forgotten", forgotten).await;
    for end in harness.ends() {
        rig = rig.reopen(end).await;
        assert_eq!(ok(rig.broker.last_sequence(&topic, &rig.name("silent")).await), None, "{end:?}");
    }
    let before = rig.topic_stats("t").await.published;
    ok(rig.broker.publish(vec![of(&rig, "silent", 1)]).await);
    assert_eq!(rig.topic_stats("t").await.published, before + 1, "whoever was forgotten starts anew");
}

pub(super) async fn of_too_many_producers_those_are_forgotten_that_were_silent_for_longest(harness: Harness) {
    if !harness.promises().limits {
        return;
    }
    let rig = harness.rig_with(Limits { producers_max: 32, ..Limits::default() }).await;
    rig.plain("t", &["s"]).await;
    let topic = rig.name("t");
    for number in 0..100 {
        let sequence = Some((rig.name(&format!("p{number}")).into(), 5));
        ok(rig.broker.publish(vec![Publish { sequence, ..rig.publish_of("t", rig.message("m")) }]).await);
        // Each at a time of its own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut known = Vec::new();
    for number in 0..100 {
        let last = ok(rig.broker.last_sequence(&topic, &rig.name(&format!("p{number}"))).await);
        known.extend(last.map(|_| number));
    }
    assert!(known.len() <= 32 && known.len() >= 16, "{known:?}");
    assert!(known.iter().copied().eq(100 - known.len()..100), "the last are known: {known:?}");
}
