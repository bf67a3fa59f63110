//! The memory broker by itself: what a first user does with it.

use leatworks_broker::*;
use std::{sync::Arc, time::Duration};

fn message(id: u128, text: &str) -> Message {
    Message { id: MessageId(id), root: MessageId(id), payload: text.to_owned().into(), ..Message::default() }
}

#[tokio::test(start_paused = true)]
async fn a_root_goes_through_and_is_done() {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits::default()));
    for (name, kind) in [("t-in", TopicKind::Ingress), ("t-a.out", TopicKind::Route)] {
        let spec = TopicSpec { name: name.into(), kind, topology: "t".into(), retention: Duration::ZERO, ..TopicSpec::default() };
        broker.create_topic(spec).await.unwrap();
        broker.create_subscription(name, "next", Start::Earliest).await.unwrap();
    }
    let publish = |topic: &str, message: Message| Publish { topic: topic.into(), message: message.into(), sequence: None };
    broker.publish(vec![publish("t-in", message(1, "one")), publish("t-in", message(2, "two"))]).await.unwrap();
    let subscribe = |topic: &str| Subscribe {
        topic: topic.into(),
        subscription: "next".into(),
        kind: SubscriptionKind::Shared,
        consumer: "c".into(),
        permits: 10,
        hand_off: HandOff::Durable,
    };
    let mut first = broker.subscribe(subscribe("t-in")).await.unwrap();
    let mut second = broker.subscribe(subscribe("t-a.out")).await.unwrap();
    let got = first.receive(10).await.unwrap();
    assert_eq!(got.iter().map(|d| (d.position.0, d.attempt)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    for delivery in got {
        let ack = Ack { topic: "t-in".into(), subscription: "next".into(), position: delivery.position, cumulative: false };
        let child = Message { root: delivery.message.root, ..message(delivery.message.id.0 + 10, "child") };
        let step = Step { acks: vec![ack], publishes: vec![publish("t-a.out", child)], guard: true, ..Step::default() };
        broker.commit(step.clone()).await.unwrap();
        assert_eq!(broker.commit(step).await.unwrap_err().kind(), ErrorKind::Settled);
    }
    assert_eq!(broker.account("t").await.unwrap(), Account { sent: 2, done: 0, dead_lettered: 0, in_flight: 2 });
    let children = second.receive(10).await.unwrap();
    broker.nack("t-a.out", "next", children[0].position, Duration::from_secs(60)).await.unwrap();
    let ack = |position| Ack { topic: "t-a.out".into(), subscription: "next".into(), position, cumulative: false };
    broker.commit(Step { acks: vec![ack(children[1].position)], ..Step::default() }).await.unwrap();
    assert_eq!(broker.root_outcome(MessageId(2)).await.unwrap(), Outcome::Done);
    let again = second.receive(10).await.unwrap();
    assert_eq!((again.len(), again[0].attempt, again[0].position.0), (1, 2, 0));
    let wait = broker.root_outcome(MessageId(1));
    let settle = broker.commit(Step { acks: vec![ack(Position(0))], ..Step::default() });
    let (outcome, settled) = tokio::join!(wait, settle);
    settled.unwrap();
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert_eq!(broker.account("t").await.unwrap(), Account { sent: 2, done: 2, dead_lettered: 0, in_flight: 0 });
}
