//! What is left when the service moves a topic, or a process ends at once.

use crate::service;
use leatworks_broker::{
    Ack, Broker, HandOff, Message, MessageId, Position, Publish, Start, Step, Subscribe, SubscriptionKind, TopicSpec,
};
use leatworks_pulsar::PulsarBroker;
use std::{
    collections::BTreeMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages that flow while topics are moved.
const MESSAGES: u128 = 3_000;

/// How often each topic is moved meanwhile.
const MOVES: usize = 12;

/// Names the topic to the process that ends at once.
const TOPIC: &str = "LEAT_TEST_TOPIC";

async fn made(broker: &PulsarBroker, name: &str) -> Arc<str> {
    let topic = service::unique(name);
    broker.create_topic(TopicSpec { name: topic.clone(), ..TopicSpec::default() }).await.unwrap();
    broker.create_subscription(&topic, "s", Start::Earliest).await.unwrap();
    topic.into()
}

fn subscribe_to(topic: &str, permits: usize) -> Subscribe {
    Subscribe {
        topic: topic.to_owned(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "c".into(),
        permits,
        hand_off: HandOff::Durable,
    }
}

fn publish_of(topic: &Arc<str>, id: u128) -> Publish {
    let message = Message { id: MessageId(id), root: MessageId(id), payload: format!("{id}").into(), ..Message::default() };
    Publish { topic: topic.clone(), message: message.into(), sequence: None }
}

fn ack_of(topic: &Arc<str>, position: Position) -> Ack {
    Ack { topic: topic.clone(), subscription: "s".into(), position, cumulative: false }
}

async fn unload(topic: &str) {
    let path = format!("/admin/v2/persistent/public/default/{topic}/unload");
    tokio::task::spawn_blocking(move || service::put(&service::options(), &path, "")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_topics_are_moved() {
    let broker = PulsarBroker::connect(service::options()).await.unwrap();
    let (input, output) = (made(&broker, "moved-in").await, made(&broker, "moved-out").await);
    let sending = tokio::spawn({
        let (broker, input) = (broker.clone(), input.clone());
        async move {
            for first in (1..=MESSAGES).step_by(10) {
                broker.publish((first..first + 10).map(|id| publish_of(&input, id)).collect()).await.unwrap();
            }
        }
    });
    let stepping = tokio::spawn({
        let (broker, input, output) = (broker.clone(), input.clone(), output.clone());
        async move {
            let mut consumer = broker.subscribe(subscribe_to(&input, 200)).await.unwrap();
            loop {
                let got = consumer.receive(50).await.unwrap();
                let acks = got.iter().map(|delivery| ack_of(&input, delivery.position)).collect();
                let publishes = got.iter().map(|delivery| publish_of(&output, delivery.message.id.0)).collect();
                // What was handed out and has come again meanwhile is settled by the second of both.
                let _ = broker.commit(Step { acks, publishes, ..Step::default() }).await;
            }
        }
    });
    let moving = tokio::spawn({
        let (input, output) = (input.clone(), output.clone());
        async move {
            for turn in 0..MOVES {
                tokio::time::sleep(Duration::from_millis(150)).await;
                unload(if turn % 2 == 0 { &input } else { &output }).await;
                unload(&format!("{input}-s-ATTEMPTS")).await;
            }
        }
    });
    let mut came: BTreeMap<u128, usize> = BTreeMap::new();
    let mut consumer = broker.subscribe(subscribe_to(&output, 1_000)).await.unwrap();
    let start = Instant::now();
    let collecting = async {
        while came.len() < MESSAGES as usize {
            let got = consumer.receive(1_000).await.unwrap();
            got.iter().for_each(|delivery| *came.entry(delivery.message.id.0).or_default() += 1);
            let acks = got.iter().map(|delivery| ack_of(&output, delivery.position)).collect();
            broker.commit(Step { acks, ..Step::default() }).await.unwrap();
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), collecting).await;
    let repeated = came.values().filter(|times| **times > 1).count();
    println!("{} of {MESSAGES} came in {:?}, {repeated} of them more than once", came.len(), start.elapsed());
    ended.expect("all messages come");
    sending.await.unwrap();
    moving.await.unwrap();
    stepping.abort();
    let _ = stepping.await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_ends_its_process_is_counted() {
    let broker = PulsarBroker::connect(service::options()).await.unwrap();
    let topic = made(&broker, "poison").await;
    broker.publish(vec![publish_of(&topic, 1)]).await.unwrap();
    for expected in 1..=4 {
        let run = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "recovery::ends_its_process", "--nocapture", "--ignored"])
                .env(TOPIC, &*topic)
                .output()
                .unwrap()
        };
        let output = tokio::task::block_in_place(run);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "it ends at once: {text}");
        assert!(
            text.contains(&format!("attempt {expected}\n")),
            "{expected}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        unload(&topic).await;
        unload(&format!("{topic}-s-ATTEMPTS")).await;
    }
    let mut consumer = broker.subscribe(subscribe_to(&topic, 1)).await.unwrap();
    assert_eq!(consumer.receive(1).await.unwrap()[0].attempt, 5);
    drop(consumer);
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of another test, which it ends"]
async fn ends_its_process() {
    let topic = std::env::var(TOPIC).unwrap();
    let broker = PulsarBroker::connect(service::options()).await.unwrap();
    let mut consumer = broker.subscribe(subscribe_to(&topic, 1)).await.unwrap();
    println!("attempt {}", consumer.receive(1).await.unwrap()[0].attempt);
    std::process::abort();
}
