//! The thinnest way through: a topic, a subscription, a message, and its acknowledgement.

use crate::service;
use leatworks_broker::{
    Ack, Broker, HandOff, Message, MessageId, Position, Publish, Start, Step, Subscribe, SubscriptionKind, TopicSpec,
};
use leatworks_pulsar::PulsarBroker;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_through_and_is_settled() {
    let broker = PulsarBroker::connect(service::options()).await.unwrap();
    let topic = service::unique("thin");
    broker.create_topic(TopicSpec { name: topic.clone(), ..TopicSpec::default() }).await.unwrap();
    broker.create_subscription(&topic, "s", Start::Earliest).await.unwrap();
    let message = |number: u128| Message { id: MessageId(number), created_ms: 5, payload: "hello".into(), ..Message::default() };
    let publish = |number| Publish { topic: topic.as_str().into(), message: message(number).into(), sequence: None };
    let positions = broker.publish(vec![publish(1), publish(2), publish(3)]).await.unwrap();
    assert!(positions.is_sorted());
    let subscribe = Subscribe {
        topic: topic.clone(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "c".into(),
        permits: 10,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe.clone()).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(consumer.receive(10).await.unwrap());
    }
    assert_eq!(got.iter().map(|delivery| delivery.position).collect::<Vec<_>>(), positions);
    assert_eq!(*got[1].message, message(2));
    broker.nack(&topic, "s", got[2].position, Duration::ZERO).await.unwrap();
    let again = consumer.receive(10).await.unwrap().remove(0);
    assert_eq!((again.position, again.attempt), (positions[2], 2));
    let ack = |position| Ack { topic: topic.as_str().into(), subscription: "s".into(), position, cumulative: false };
    broker.commit(Step { acks: vec![ack(positions[0])], guard: true, ..Step::default() }).await.unwrap();
    let peeked = broker.peek(&topic, "s", Position(0), 10).await.unwrap();
    assert_eq!(peeked.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions[1..]);
    broker.commit(Step { acks: vec![ack(positions[1]), ack(positions[2])], ..Step::default() }).await.unwrap();
    assert!(broker.peek(&topic, "s", Position(0), 10).await.unwrap().is_empty());
    drop(consumer);
    broker.close().await.unwrap();
}
