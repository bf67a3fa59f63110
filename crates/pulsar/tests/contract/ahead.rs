//! What is handed out while its attempt is being noted, what waits for that, and what becomes of a note that has not arrived.

use super::service::Service;
use bytes::Bytes;
use leatworks_broker::{
    Ack, Broker, Consumer, Delivery, ErrorKind, HandOff, Limits, Message, MessageId, Position, Publish, Start, Step, Subscribe,
    SubscriptionKind, TopicSpec,
};
use leatworks_pulsar::{PulsarBroker, PulsarOptions};
use std::path::Path;

/// Messages that a topic takes.
const FULL: u64 = 4;

/// The ledger of the subscription, on the service.
const LEDGER: &str = "t-s-ATTEMPTS";

/// What stands in no record, so it is never let go.
const NO_RECORD: Bytes = Bytes::from_static(b"\xff");

fn message(topic: &str, id: u128, payload: Bytes) -> Publish {
    let message = Message { id: MessageId(id), payload, ..Message::default() };
    Publish { topic: topic.into(), message: message.into(), sequence: None }
}

fn ack(topic: &str, subscription: &str, position: Position) -> Step {
    let ack = Ack { topic: topic.into(), subscription: subscription.into(), position, cumulative: false };
    Step { acks: vec![ack], ..Step::default() }
}

/// A service with a topic and a subscription, of which nothing was taken.
async fn service(dir: &Path) -> Service {
    let service = Service::start_with(dir, Limits { backlog_messages_max: FULL, ..Limits::default() }).await;
    let client = PulsarBroker::connect(service.options()).await.unwrap();
    client.create_topic(TopicSpec { name: "t".into(), ..TopicSpec::default() }).await.unwrap();
    client.create_subscription("t", "s", Start::Earliest).await.unwrap();
    client.close().await.unwrap();
    service
}

async fn consumer(client: &PulsarBroker, kind: SubscriptionKind) -> Box<dyn Consumer> {
    let subscribe = Subscribe {
        topic: "t".into(),
        subscription: "s".into(),
        kind,
        consumer: "c".into(),
        permits: 10,
        hand_off: HandOff::default(),
    };
    client.subscribe(subscribe).await.unwrap()
}

/// Takes one message and settles it. Its note has been read back by then, and whatever was in the ledger before.
async fn settle_one(client: &PulsarBroker, consumer: &mut dyn Consumer) {
    client.publish(vec![message("t", 1, Bytes::new())]).await.unwrap();
    let Delivery { position, .. } = consumer.receive(1).await.unwrap().remove(0);
    client.commit(ack("t", "s", position)).await.unwrap();
}

/// What is written until a client has settled its first message: its greeting, the note, and that the message is settled.
const FIRST: u64 = 3;

/// Fills the ledger after so many records of clients, which write no others by themselves: no note arrives from here on.
async fn fill(service: &Service, written: u64) {
    until(async || service.broker.topic_stats(LEDGER).await.unwrap().unwrap().published >= written).await;
    until(async || {
        // What the client has written is let go one by one, and makes room.
        let _ = service.broker.publish(vec![message(LEDGER, 2, NO_RECORD)]).await;
        let there = service.broker.peek(LEDGER, "leat", Position(0), 10).await.unwrap();
        there.iter().filter(|(_, message)| message.payload == NO_RECORD).count() as u64 == FULL
    })
    .await;
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

async fn pending(client: &PulsarBroker) -> Vec<u128> {
    client.peek("t", "s", Position(0), 10).await.unwrap().iter().map(|(_, message)| message.id.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_had_before_is_handed_out_without_its_note_and_not_settled_without_it() {
    use SubscriptionKind::{Exclusive, Failover, KeyShared, Shared};
    for (kind, keeps_notes, was_there, goes_ahead) in [
        (Shared, true, false, true),
        (KeyShared, true, false, true),
        (Exclusive, true, false, true),
        (Failover, true, false, false),
        (Shared, false, false, false),
        (Shared, true, true, false),
    ] {
        let what = format!("{kind:?}, keeps notes: {keeps_notes}, was there: {was_there}");
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path()).await;
        let options = service.options();
        let notes = options.notes.clone().filter(|_| keeps_notes);
        let client = PulsarBroker::connect(PulsarOptions { notes, ..options }).await.unwrap();
        let mut taking = consumer(&client, kind).await;
        settle_one(&client, &mut *taking).await;
        fill(&service, FIRST).await;
        if was_there {
            drop(taking);
            client.publish(vec![message("t", 7, Bytes::new())]).await.unwrap();
            taking = consumer(&client, kind).await;
        } else {
            client.publish(vec![message("t", 7, Bytes::new())]).await.unwrap();
        }
        match taking.receive(1).await {
            Ok(deliveries) => {
                assert!(goes_ahead, "{what}: handed out");
                assert_eq!((deliveries.len(), deliveries[0].attempt), (1, 1), "{what}");
                let refused = client.commit(ack("t", "s", deliveries[0].position)).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Full, "{what}: {refused}");
            }
            Err(error) => {
                assert!(!goes_ahead, "{what}: {error}");
                assert_eq!(error.kind(), ErrorKind::Full, "{what}: {error}");
            }
        }
        assert_eq!(pending(&client).await, [7], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_another_process_all_wait_and_not_when_it_has_left() {
    for leaves in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path()).await;
        let client = PulsarBroker::connect(service.options()).await.unwrap();
        let mut taking = consumer(&client, SubscriptionKind::Shared).await;
        let other = PulsarBroker::connect(service.options()).await.unwrap();
        let others = consumer(&other, SubscriptionKind::Shared).await;
        // Two greetings, and the answer of the one who was there first.
        let written = async |records: u64| service.broker.topic_stats(LEDGER).await.unwrap().unwrap().published >= records;
        until(async || written(3).await).await;
        // From here on everything comes to that one.
        drop(others);
        settle_one(&client, &mut *taking).await;
        until(async || written(FIRST + 2).await).await;
        if leaves {
            other.close().await.unwrap();
            settle_one(&client, &mut *taking).await;
        }
        fill(&service, if leaves { FIRST + 5 } else { FIRST + 2 }).await;
        client.publish(vec![message("t", 7, Bytes::new())]).await.unwrap();
        let came = taking.receive(1).await.map(|deliveries| deliveries.len()).map_err(|error| error.kind());
        assert_eq!(came, if leaves { Ok(1) } else { Err(ErrorKind::Full) }, "the other leaves: {leaves}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_that_was_refused_is_sent_again_before_anything_comes_of_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path()).await;
    let client = PulsarBroker::connect(service.options()).await.unwrap();
    client.create_topic(TopicSpec { name: "out".into(), ..TopicSpec::default() }).await.unwrap();
    client.create_subscription("out", "s", Start::Earliest).await.unwrap();
    let mut taking = consumer(&client, SubscriptionKind::Shared).await;
    settle_one(&client, &mut *taking).await;
    fill(&service, FIRST).await;
    client.publish(vec![message("t", 7, Bytes::new())]).await.unwrap();
    let position = taking.receive(1).await.unwrap()[0].position;
    let step = || Step { publishes: vec![message("out", 8, Bytes::new())], ..ack("t", "s", position) };
    let out = async || client.peek("out", "s", Position(0), 100).await.unwrap().len();
    assert_eq!(client.commit(step()).await.unwrap_err().kind(), ErrorKind::Full);
    let published = out().await;
    for _ in 0..3 {
        assert_eq!(client.commit(step()).await.unwrap_err().kind(), ErrorKind::Full);
    }
    assert_eq!(out().await, published, "a step that cannot be ended publishes nothing");
    for (record, _) in service.broker.peek(LEDGER, "leat", Position(0), 10).await.unwrap() {
        service.broker.commit(ack(LEDGER, "leat", record)).await.unwrap();
    }
    client.commit(step()).await.unwrap();
    assert_eq!((pending(&client).await, out().await), (vec![], published + 1));
}

/// What a process leaves that is killed now. As long as it lives nobody takes its file.
fn leave(kept: &Path, left: &Path) {
    std::fs::create_dir(left).unwrap();
    for file in std::fs::read_dir(kept).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, left.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_counts_once_that_ended_with_its_process_whether_or_not_its_note_had_arrived() {
    for arrives in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path()).await;
        let client = PulsarBroker::connect(service.options()).await.unwrap();
        let mut first = consumer(&client, SubscriptionKind::Shared).await;
        settle_one(&client, &mut *first).await;
        if !arrives {
            fill(&service, FIRST).await;
        }
        client.publish(vec![message("t", 7, Bytes::new())]).await.unwrap();
        assert_eq!(first.receive(1).await.unwrap()[0].attempt, 1);
        let left = dir.path().join("left");
        // In the file it is as soon as it is handed out, whatever the service does.
        leave(&service.options().notes.unwrap(), &left);
        drop(first);
        client.close().await.unwrap();
        let service = service.restart_with(dir.path(), Limits::default()).await;
        for (notes, attempt) in [(left.clone(), 2), (dir.path().join("none"), 3)] {
            let options = PulsarOptions { notes: Some(notes), ..service.options() };
            let client = PulsarBroker::connect(options).await.unwrap();
            let mut next = consumer(&client, SubscriptionKind::Shared).await;
            let came = next.receive(1).await.unwrap().remove(0);
            assert_eq!((came.message.id, came.attempt), (MessageId(7), attempt), "arrives: {arrives}");
            drop(next);
            client.close().await.unwrap();
        }
        assert_eq!(std::fs::read_dir(left).unwrap().count(), 0, "it was sent, and is let go of");
    }
}
