//! Subscriptions by raw frames: who gets what, who takes over, seeking, readers, and what stays when a client leaves.

use crate::support::{Rig, id, subscribe};
use leatworks_broker::{Start, TopicKind, TopicSpec};
use leatworks_pulsar::{ServerOptions, wire::proto::*};
use std::time::Duration;

const T: &str = "persistent://public/default/orders";

async fn with_messages(count: u64) -> (Rig, crate::support::Client) {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    rig.broker.create_subscription("orders", "s", Start::Earliest).await.unwrap();
    for sequence in 0..count {
        client.publish(sequence, &sequence.to_string()).await;
    }
    (rig, client)
}

#[tokio::test]
async fn nothing_comes_without_permits_and_no_more_than_they_say() {
    let (rig, mut client) = with_messages(5).await;
    client.subscribe(1, T, "s", SubType::Shared).await;
    assert!(matches!(client.ask(Command::Ping(Nothing {})).await, Command::Pong(_)), "no permits, no message");
    client.flow(1, 2).await;
    assert_eq!(client.payloads(2).await, ["0", "1"]);
    let stats = client.ask(Command::ConsumerStats(ConsumerStats { request_id: 4, consumer_id: 1 })).await;
    let Command::ConsumerStatsResponse(stats) = stats else { panic!("{stats:?}") };
    assert_eq!((stats.request_id, stats.available_permits, stats.unacked, stats.backlog), (4, Some(0), Some(2), Some(5)));
    client.flow(1, 100).await;
    assert_eq!(client.payloads(3).await, ["2", "3", "4"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_what_it_holds() {
    let (rig, mut client) = with_messages(3).await;
    let mut leaver = rig.client().await;
    leaver.subscribe(1, T, "s", SubType::Exclusive).await;
    leaver.flow(1, 10).await;
    assert_eq!(leaver.payloads(3).await, ["0", "1", "2"]);
    // Acknowledged without waiting, and gone at once.
    leaver.send(Command::Ack(Ack { consumer_id: 1, message_ids: vec![id(1)], ..Default::default() })).await;
    drop(leaver);
    rig.until("orders", "s", |stats| stats.consumers == 0).await;
    client.subscribe(1, T, "s", SubType::Exclusive).await;
    client.flow(1, 10).await;
    for expected in ["0", "2"] {
        let (deliver, _, payload) = client.message().await;
        assert_eq!((payload.as_str(), deliver.redelivery_count), (expected, Some(1)));
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_exclusive_subscription_is_for_one_and_a_failover_one_goes_on() {
    let (rig, mut first) = with_messages(2).await;
    let mut second = rig.client().await;
    first.subscribe(1, T, "s", SubType::Exclusive).await;
    let wanted = |kind| Command::Subscribe(subscribe(2, 1, T, "s", kind));
    assert_eq!(second.ask_in_vain(wanted(SubType::Exclusive)).await, ServerError::ConsumerBusy);
    assert_eq!(second.ask_in_vain(wanted(SubType::Shared)).await, ServerError::ConsumerBusy);
    let close = Command::CloseConsumer(OfConsumer { consumer_id: 1, request_id: 50 });
    assert!(matches!(first.ask(close.clone()).await, Command::Success(Success { request_id: 50 })));

    first.subscribe(1, T, "s", SubType::Failover).await;
    let active = |command: Command| match command {
        Command::ActiveConsumerChange(change) => change.is_active,
        other => panic!("{other:?}"),
    };
    assert_eq!(active(first.receive().await.0), Some(true));
    second.subscribe(2, T, "s", SubType::Failover).await;
    assert_eq!(active(second.receive().await.0), Some(false));
    second.flow(2, 10).await;
    first.flow(1, 1).await;
    assert_eq!(first.payloads(1).await, ["0"]);
    assert!(matches!(first.ask(close).await, Command::Success(_)));
    assert_eq!(active(second.receive().await.0), Some(true));
    assert_eq!(second.payloads(2).await, ["0", "1"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_subscription_is_moved_by_id_and_by_time() {
    let rig = Rig::start(ServerOptions::default()).await;
    let retention = Duration::from_secs(3_600);
    let spec = TopicSpec { name: "orders".into(), kind: TopicKind::Plain, retention, ..TopicSpec::default() };
    rig.broker.create_topic(spec).await.unwrap();
    let mut client = rig.client().await;
    let mut other = rig.client().await;
    client.producer(T, None).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    for sequence in 0..4 {
        let metadata = MessageMetadata { publish_time: now - 1_000 + sequence * 100, ..crate::support::metadata(sequence) };
        client.send_message(sequence, metadata, sequence.to_string().as_bytes()).await;
        assert!(matches!(client.receive().await.0, Command::SendReceipt(_)));
    }
    let seek = |message_id, publish_time| Seek { consumer_id: 1, request_id: 70, message_id, publish_time };
    let earliest = MessageIdData { ledger: u64::MAX, entry: u64::MAX, ..Default::default() };
    let latest = MessageIdData { ledger: i64::MAX as u64, entry: i64::MAX as u64, ..Default::default() };
    for (seek, expected) in [
        (seek(Some(id(2)), None), vec!["2", "3"]),
        (seek(Some(earliest), None), vec!["0", "1", "2", "3"]),
        // The third message of a batch whose receipt named the first.
        (seek(Some(MessageIdData { batch_index: Some(2), ..id(1) }), None), vec!["3"]),
        (seek(Some(latest), None), vec![]),
        (seek(None, Some(now - 850)), vec!["2", "3"]),
    ] {
        client.subscribe(1, T, "s", SubType::Shared).await;
        other.subscribe(9, T, "s", SubType::Shared).await;
        // As with Pulsar all consumers are closed first, and come back.
        let answer = client.ask(Command::Seek(seek.clone())).await;
        assert!(matches!(answer, Command::CloseConsumer(close) if close.consumer_id == 1), "{answer:?}");
        assert!(matches!(client.receive().await.0, Command::Success(Success { request_id: 70 })), "{seek:?}");
        assert!(matches!(other.receive().await.0, Command::CloseConsumer(close) if close.consumer_id == 9));
        client.subscribe(1, T, "s", SubType::Shared).await;
        client.flow(1, 10).await;
        assert_eq!(client.payloads(expected.len()).await, expected, "{seek:?}");
        let close = Command::CloseConsumer(OfConsumer { consumer_id: 1, request_id: 50 });
        assert!(matches!(client.ask(close).await, Command::Success(_)));
    }
    client.subscribe(1, T, "s", SubType::Shared).await;
    assert!(matches!(client.ask(Command::Seek(seek(None, None))).await, Command::Error(_)), "a seek to nowhere");
    rig.stop().await;
}

#[tokio::test]
async fn the_last_message_and_what_is_settled_are_told() {
    let (rig, mut client) = with_messages(3).await;
    client.subscribe(1, T, "s", SubType::Shared).await;
    let last = Command::GetLastMessageId(OfConsumer { consumer_id: 1, request_id: 8 });
    let entries = |command| match command {
        Command::GetLastMessageIdResponse(found) => (found.last_message_id.entry, found.mark_delete.unwrap().entry),
        other => panic!("{other:?}"),
    };
    assert_eq!(entries(client.ask(last.clone()).await), (2, u64::MAX));
    client.ack(1, 0, 0).await;
    assert_eq!(entries(client.ask(last.clone()).await), (2, 0));
    client.subscribe(2, "persistent://public/default/empty", "s", SubType::Shared).await;
    let empty = Command::GetLastMessageId(OfConsumer { consumer_id: 2, request_id: 8 });
    assert_eq!(entries(client.ask(empty).await), (u64::MAX, u64::MAX));
    rig.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_when_it_is_told_to_and_a_readers_with_its_client() {
    let (rig, mut client) = with_messages(2).await;
    client.subscribe(1, T, "s", SubType::Shared).await;
    client.subscribe(2, T, "s", SubType::Shared).await;
    let unsubscribe = |consumer_id| Command::Unsubscribe(OfConsumer { consumer_id, request_id: 5 });
    assert_eq!(client.ask_in_vain(unsubscribe(1)).await, ServerError::ConsumerBusy);
    assert!(matches!(client.receive().await.0, Command::CloseConsumer(_)));
    assert!(matches!(client.ask(unsubscribe(2)).await, Command::Success(Success { request_id: 5 })));
    let names = async |rig: &Rig| -> Vec<String> { rig.broker.stats().await.unwrap()[0].subscriptions.keys().cloned().collect() };
    assert!(names(&rig).await.is_empty());

    let mut reader = rig.client().await;
    let wanted = Subscribe { durable: Some(false), ..subscribe(1, 1, T, "r", SubType::Exclusive) };
    assert!(matches!(reader.ask(Command::Subscribe(wanted.clone())).await, Command::Success(_)));
    assert_eq!(names(&rig).await, ["leat-reader--r"]);
    reader.flow(1, 10).await;
    client.publish(2, "2").await;
    assert_eq!(reader.payloads(1).await, ["2"]);
    let close = Command::CloseConsumer(OfConsumer { consumer_id: 1, request_id: 50 });
    assert!(matches!(reader.ask(close).await, Command::Success(_)));
    assert!(names(&rig).await.is_empty(), "a reader leaves nothing behind");

    // What a server that was killed has left of its readers goes with the next start.
    rig.broker.create_subscription("orders", "leat-reader--lost", Start::Earliest).await.unwrap();
    let broker = rig.broker.clone();
    rig.stop().await;
    let rig = Rig::on(broker, ServerOptions::default()).await;
    assert!(names(&rig).await.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn messages_of_a_key_wait_for_the_one_before() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    client.subscribe(1, T, "s", SubType::KeyShared).await;
    client.subscribe(2, T, "s", SubType::KeyShared).await;
    for (sequence, key) in ["a", "a", "b"].into_iter().enumerate() {
        // The ordering key is what orders, if there is one.
        let metadata = MessageMetadata {
            partition_key: Some(format!("{sequence}")),
            ordering_key: Some(key.as_bytes().to_vec().into()),
            ..crate::support::metadata(sequence as u64)
        };
        client.send_message(sequence as u64, metadata, sequence.to_string().as_bytes()).await;
        assert!(matches!(client.receive().await.0, Command::SendReceipt(_)));
    }
    client.flow(1, 10).await;
    client.flow(2, 10).await;
    let mut first = [client.message().await, client.message().await];
    first.sort_by_key(|(deliver, ..)| deliver.message_id.entry);
    let (deliver, metadata, payload) = &first[0];
    assert_eq!((deliver.message_id.entry, payload.as_str()), (0, "0"));
    assert_eq!((metadata.partition_key.as_deref(), metadata.ordering_key.as_deref()), (Some("0"), Some(&b"a"[..])));
    assert_eq!(first[1].2, "2", "the other key does not wait");
    assert_eq!(client.ack(deliver.consumer_id, 0, 0).await, None);
    let (next, _, payload) = client.message().await;
    assert_eq!((next.consumer_id, payload.as_str()), (deliver.consumer_id, "1"), "a key stays with its consumer");
    rig.stop().await;
}
