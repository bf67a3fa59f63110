//! Producers by raw frames: their names, what is a repetition and what is not, and what a client hears when a publish fails.

use crate::support::{Client, Rig, metadata};
use leatworks_broker::{Limits, MemoryBroker, Start, TopicKind, TopicSpec};
use leatworks_pulsar::{ServerOptions, wire::proto::*};
use std::sync::Arc;

const T: &str = "persistent://public/default/orders";

async fn rig(options: ServerOptions) -> (Rig, Client) {
    let rig = Rig::start(options).await;
    let mut client = rig.client().await;
    client.subscribe(9, T, "s", SubType::Shared).await;
    client.flow(9, 100).await;
    (rig, client)
}

fn named(name: Option<&str>, epoch: u64) -> Command {
    let producer_name = name.map(Into::into);
    Command::Producer(Producer {
        topic: T.into(),
        producer_id: 1,
        request_id: 5,
        producer_name,
        epoch: Some(epoch),
        ..Default::default()
    })
}

#[tokio::test]
async fn every_producer_without_a_name_gets_one_of_its_own() {
    let (rig, mut client) = rig(ServerOptions::default()).await;
    let mut names = std::collections::HashSet::new();
    for _ in 0..5 {
        let mut other = rig.client().await;
        names.insert(other.producer(T, None).await.producer_name);
    }
    names.insert(client.producer(T, None).await.producer_name);
    // The same request on the same connection has the same answer.
    names.insert(client.producer(T, None).await.producer_name);
    assert_eq!(names.len(), 6);
    rig.stop().await;
}

#[tokio::test]
async fn what_a_nameless_producer_sends_again_after_a_lost_connection_is_taken_once() {
    let (rig, mut consumer) = rig(ServerOptions::default()).await;
    let mut first = rig.client().await;
    let name = first.producer(T, None).await.producer_name;
    for sequence in 0..3 {
        first.publish(sequence, &sequence.to_string()).await;
    }
    // It comes back while its lost connection still looks alive.
    let mut second = rig.client().await;
    let again = second.producer(T, Some(&name)).await;
    assert_eq!((again.producer_name.as_str(), again.last_sequence_id), (name.as_str(), Some(2)));
    for sequence in 1..5 {
        let entry = second.publish(sequence, &sequence.to_string()).await;
        assert_eq!(entry == u64::MAX, sequence < 3, "{sequence}");
    }
    assert_eq!(consumer.payloads(5).await, ["0", "1", "2", "3", "4"]);
    // On one connection nothing is a repetition, whatever its sequences are.
    assert_ne!(second.publish(4, "again").await, u64::MAX);
    assert_eq!(consumer.payloads(1).await, ["again"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_producer_with_a_name_of_its_own_may_begin_anew() {
    for deduplicate in [false, true] {
        let (rig, mut consumer) = rig(ServerOptions { deduplicate, ..ServerOptions::default() }).await;
        for run in ["first", "second"] {
            let mut client = rig.client().await;
            let last = client.producer(T, Some("mine")).await.last_sequence_id;
            assert_eq!(last, Some(if deduplicate && run == "second" { 1 } else { -1 }));
            for sequence in 0..2 {
                let entry = client.publish(sequence, &format!("{run} {sequence}")).await;
                assert_eq!(entry == u64::MAX, deduplicate && run == "second");
            }
            let close = Command::CloseProducer(CloseProducer { producer_id: 1, request_id: 8 });
            assert!(matches!(client.ask(close).await, Command::Success(Success { request_id: 8 })));
        }
        let expected = if deduplicate { vec!["first 0", "first 1"] } else { vec!["first 0", "first 1", "second 0", "second 1"] };
        assert_eq!(consumer.payloads(expected.len()).await, expected);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_name_is_for_one_at_a_time_and_goes_to_the_later_epoch_of_its_client() {
    let (rig, mut first) = rig(ServerOptions::default()).await;
    let mut second = rig.client().await;
    assert!(matches!(first.ask(named(Some("mine"), 0)).await, Command::ProducerSuccess(_)));
    assert_eq!(second.ask_in_vain(named(Some("mine"), 0)).await, ServerError::ProducerBusy);
    assert!(matches!(second.ask(named(Some("mine"), 1)).await, Command::ProducerSuccess(_)));
    second.publish(0, "by the later one").await;
    drop(second);
    let mut third = rig.client().await;
    loop {
        // Until the server has seen that the second is gone.
        match third.ask(named(Some("mine"), 0)).await {
            Command::ProducerSuccess(_) => break,
            other => assert!(matches!(other, Command::Error(_)), "{other:?}"),
        }
    }
    rig.stop().await;
}

fn alone(name: Option<&str>, topic_epoch: Option<u64>) -> Command {
    let Command::Producer(producer) = named(name, 0) else { unreachable!() };
    Command::Producer(Producer { access_mode: Some(1), topic_epoch, ..producer })
}

#[tokio::test]
async fn a_topic_that_a_producer_has_for_itself_has_no_other_and_knows_who_has_had_it_since() {
    let rig = Rig::start(ServerOptions::default()).await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    let epoch = |answer| match answer {
        Command::ProducerSuccess(success) => success.topic_epoch,
        other => panic!("{other:?}"),
    };
    let close = || Command::CloseProducer(CloseProducer { producer_id: 1, request_id: 8 });
    assert_eq!(epoch(first.ask(named(None, 0)).await), None);
    assert_eq!(second.ask_in_vain(alone(None, None)).await, ServerError::ProducerFenced, "it is shared now");
    first.ask(close()).await;
    let had = epoch(second.ask(alone(None, None)).await);
    assert!(had.is_some());
    assert_eq!(first.ask_in_vain(named(None, 0)).await, ServerError::ProducerBusy);
    assert_eq!(first.ask_in_vain(alone(None, None)).await, ServerError::ProducerFenced);
    second.ask(close()).await;
    assert_eq!(epoch(second.ask(alone(None, had)).await), had, "nobody has had it since");
    second.ask(close()).await;
    // The server that begins anew on the same broker knows it too.
    let broker = rig.broker.clone();
    rig.stop().await;
    let rig = Rig::on(broker, ServerOptions::default()).await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    let later = epoch(first.ask(alone(None, None)).await);
    assert!(later > had);
    first.ask(close()).await;
    assert_eq!(second.ask_in_vain(alone(None, had)).await, ServerError::ProducerFenced);
    assert_eq!(epoch(second.ask(alone(None, later)).await), later);
    rig.stop().await;
}

#[tokio::test]
async fn what_comes_again_after_a_lost_connection_is_the_same_root() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut ids = Vec::new();
    rig.client().await.producer(T, None).await;
    rig.broker.create_subscription("orders", "s", Start::Earliest).await.unwrap();
    for _ in 0..2 {
        let mut client = rig.client().await;
        client.producer(T, Some("mine")).await;
        client.publish(7, "x").await;
        let close = Command::CloseProducer(CloseProducer { producer_id: 1, request_id: 8 });
        assert!(matches!(client.ask(close).await, Command::Success(_)));
    }
    for (_, message) in rig.broker.peek("orders", "s", leatworks_broker::Position(0), 10).await.unwrap() {
        ids.push((message.id, message.root));
    }
    assert_eq!((ids.len(), ids[0]), (2, ids[1]));
    rig.stop().await;
}

#[tokio::test]
async fn a_full_topic_refuses_and_has_its_producer_come_back() {
    let limits = Limits { backlog_messages_max: 3, ..Limits::default() };
    let rig = Rig::on(Arc::new(MemoryBroker::new(limits)), ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.subscribe(9, T, "s", SubType::Shared).await;
    client.producer(T, None).await;
    for sequence in 0..3 {
        client.publish(sequence, "x").await;
    }
    client.send_message(3, metadata(3), b"too many").await;
    let (Command::SendError(error), _) = client.receive().await else { panic!("taken, though the topic is full") };
    assert_eq!((error.sequence_id, error.error), (3, ServerError::ProducerBlockedQuotaExceeded.into()));
    // What it sends behind the failed one must not overtake it: the producer is closed, and sends both again.
    assert!(matches!(client.receive().await.0, Command::CloseProducer(close) if close.producer_id == 1));
    client.send_message(4, metadata(4), b"behind it").await;
    client.flow(9, 1).await;
    client.message().await;
    assert_eq!(client.ack(9, 0, 0).await, None);
    client.producer(T, None).await;
    assert_eq!(client.publish(3, "now there is room").await, 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_spoils_no_other() {
    let limits = Limits { message_bytes_max: 10, ..Limits::default() };
    let rig = Rig::on(Arc::new(MemoryBroker::new(limits)), ServerOptions::default()).await;
    let mut client = Client::open(rig.address).await;
    assert_eq!(client.connect(None).await.max_message_size, Some(10));
    client.producer(T, None).await;
    for sequence in 0..4 {
        client.send_message(sequence, metadata(sequence), if sequence == 1 { b"eleven byte" } else { b"fine" }).await;
    }
    for sequence in 0..4 {
        match client.receive().await.0 {
            Command::SendReceipt(receipt) => assert_eq!(receipt.sequence_id, sequence),
            Command::SendError(error) => assert_eq!((error.sequence_id, sequence), (1, 1)),
            other => panic!("{other:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn clients_make_only_so_many_topics() {
    let rig = Rig::start(ServerOptions { auto_topics_max: 2, ..ServerOptions::default() }).await;
    // Those of a topology do not count.
    let spec = TopicSpec { name: "p".into(), kind: TopicKind::Ingress, topology: "t".into(), ..TopicSpec::default() };
    rig.broker.create_topic(spec).await.unwrap();
    let mut client = rig.client().await;
    client.subscribe(1, "persistent://public/default/one", "s", SubType::Shared).await;
    client.producer("persistent://public/default/two", None).await;
    let three = "persistent://public/default/three";
    let producer = Producer { topic: three.into(), producer_id: 2, request_id: 90, ..Default::default() };
    assert_eq!(client.ask_in_vain(Command::Producer(producer)).await, ServerError::NotAllowed);
    let subscribe = crate::support::subscribe(2, 91, three, "s", SubType::Shared);
    assert_eq!(client.ask_in_vain(Command::Subscribe(subscribe)).await, ServerError::NotAllowed);
    // What is there is there.
    for (consumer, topic) in [(3, "one"), (4, "two"), (5, "p")] {
        client.subscribe(consumer, &format!("persistent://public/default/{topic}"), "other", SubType::Shared).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_topic_that_nobody_uses_is_removed() {
    let every = Some(std::time::Duration::from_millis(30));
    let rig = Rig::start(ServerOptions { inactive_topics: every, ..ServerOptions::default() }).await;
    let kept = TopicSpec { name: "p".into(), kind: TopicKind::Ingress, topology: "t".into(), ..TopicSpec::default() };
    rig.broker.create_topic(kept).await.unwrap();
    let replayed = TopicSpec { name: "q".into(), retention: std::time::Duration::from_secs(60), ..TopicSpec::default() };
    rig.broker.create_topic(replayed).await.unwrap();
    let topic = |name: &str| format!("persistent://public/default/{name}");
    let mut client = rig.client().await;
    client.subscribe(1, &topic("subscribed"), "s", SubType::Shared).await;
    client.producer(&topic("left"), None).await;
    client.publish(0, "x").await;
    let close = Command::CloseProducer(CloseProducer { producer_id: 1, request_id: 8 });
    assert!(matches!(client.ask(close).await, Command::Success(_)));
    client.producer(&topic("produced"), None).await;
    let names = async || rig.broker.stats().await.unwrap().into_iter().map(|topic| topic.spec.name).collect::<Vec<_>>();
    let removed = async {
        while names().await.contains(&"left".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, removed).await.expect("it goes when nobody uses it");
    assert_eq!(names().await, ["p", "produced", "q", "subscribed"]);
    // It is made again by who names it.
    let mut other = rig.client().await;
    other.producer(&topic("left"), None).await;
    assert_eq!(other.publish(0, "y").await, 0);
    rig.stop().await;
}
