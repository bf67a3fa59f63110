//! Steps that a crash has left half done: with state they are exact, without it what they have published twice is handed out once.

use crate::service;
use bytes::Bytes;
use leatworks_broker::{
    Ack, Broker, Consumer, Delivery, ErrorKind, HandOff, Message, MessageId, Position, Publish, Start, Step, Subscribe,
    SubscriptionKind, TopicKind, TopicSpec,
};
use leatworks_pulsar::PulsarBroker;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long anything that must happen may take.
const DEADLINE: Duration = Duration::from_secs(60);

async fn connected() -> PulsarBroker {
    PulsarBroker::connect(service::options()).await.unwrap()
}

/// A topic of a topology of its own name, with a subscription `s`.
async fn made(broker: &PulsarBroker, kind: TopicKind) -> Arc<str> {
    let topic = service::unique("halves");
    let topology = if kind == TopicKind::Plain { String::new() } else { topic.clone() };
    broker.create_topic(TopicSpec { name: topic.clone(), kind, topology, ..TopicSpec::default() }).await.unwrap();
    broker.create_subscription(&topic, "s", Start::Earliest).await.unwrap();
    topic.into()
}

async fn joined(broker: &PulsarBroker, topic: &str) -> Box<dyn Consumer> {
    let subscribe = Subscribe {
        topic: topic.to_owned(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "c".into(),
        permits: 100,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap()
}

fn publish_of(topic: &Arc<str>, id: u128) -> Publish {
    let message = Message { id: MessageId(id), root: MessageId(id), payload: format!("{id}").into(), ..Message::default() };
    Publish { topic: topic.clone(), message: message.into(), sequence: None }
}

fn acks_of(topic: &Arc<str>, got: &[Delivery]) -> Vec<Ack> {
    let ack = |delivery: &Delivery| Ack {
        topic: topic.clone(),
        subscription: "s".into(),
        position: delivery.position,
        cumulative: false,
    };
    got.iter().map(ack).collect()
}

async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut got = Vec::new();
    let taking = async {
        while got.len() < count {
            got.extend(consumer.receive(count - got.len()).await.unwrap());
        }
    };
    tokio::time::timeout(DEADLINE, taking).await.unwrap_or_else(|_| panic!("{count} messages do not come"));
    got
}

/// Waits until nothing is pending.
async fn until_empty(broker: &PulsarBroker, topic: &str) {
    let start = Instant::now();
    loop {
        if broker.peek(topic, "s", Position(0), 10).await.unwrap().is_empty() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "something stays in `{topic}`");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_half_done_step_has_published_is_handed_out_once_whoever_takes_it() {
    let first = connected().await;
    let (input, output) = (made(&first, TopicKind::Ingress).await, made(&first, TopicKind::Route).await);
    first.publish((1..=20).map(|id| publish_of(&input, id)).collect()).await.unwrap();
    let outputs = |got: &[Delivery]| -> Vec<Publish> {
        got.iter().map(|delivery| publish_of(&output, 1_000 + delivery.message.id.0)).collect()
    };
    // It has published, and dies before it acknowledges.
    let mut consumer = joined(&first, &input).await;
    let got = take(&mut consumer, 20).await;
    first.publish(outputs(&got[..15])).await.unwrap();
    drop((consumer, first));

    let (second, third) = (connected().await, connected().await);
    let mut others = [joined(&second, &output).await, joined(&third, &output).await];
    let mut consumer = joined(&second, &input).await;
    let got = take(&mut consumer, 20).await;
    assert!(got.iter().all(|delivery| delivery.attempt == 2));
    for some in got.chunks(7) {
        let step = Step { acks: acks_of(&input, some), publishes: outputs(some), guard: true, ..Step::default() };
        second.commit(step).await.unwrap();
    }
    let mut came: BTreeMap<u128, usize> = BTreeMap::new();
    let collecting = async {
        while came.len() < 20 {
            let [one, other] = &mut others;
            let (broker, got) = tokio::select! {
                got = one.receive(5) => (&second, got.unwrap()),
                got = other.receive(5) => (&third, got.unwrap()),
            };
            got.iter().for_each(|delivery| *came.entry(delivery.message.id.0).or_default() += 1);
            broker.commit(Step { acks: acks_of(&output, &got), ..Step::default() }).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, collecting).await.expect("all come");
    // A repetition is settled by who finds it, so both have to look: either may have it.
    let rest = async {
        let [one, other] = &mut others;
        tokio::select! {
            got = one.receive(5) => panic!("{got:?}"),
            got = other.receive(5) => panic!("{got:?}"),
            () = until_empty(&second, &output) => {}
        }
    };
    rest.await;
    assert!(came.values().all(|times| *times == 1), "{came:?}");
    drop((consumer, others));
    // Who comes later knows it from the ledger.
    third.publish(vec![publish_of(&output, 1_003), publish_of(&output, 2_000)]).await.unwrap();
    let fourth = connected().await;
    let mut late = joined(&fourth, &output).await;
    assert_eq!(take(&mut late, 1).await[0].message.id, MessageId(2_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_waits_for_nothing_that_was_settled_by_who_died_since() {
    let broker = connected().await;
    let topic = made(&broker, TopicKind::Plain).await;
    broker.publish((1..=6).map(|id| publish_of(&topic, id)).collect()).await.unwrap();
    drop((take(&mut joined(&broker, &topic).await, 6).await, broker));
    // It settles what it has, one after it was given back, and dies before it tells the ledger.
    let broker = connected().await;
    let mut consumer = joined(&broker, &topic).await;
    let got = take(&mut consumer, 6).await;
    assert!(got.iter().all(|delivery| delivery.attempt == 2));
    broker.nack(&topic, "s", got[0].position, Duration::ZERO).await.unwrap();
    let again = take(&mut consumer, 1).await;
    assert_eq!(again[0].attempt, 3);
    broker.commit(Step { acks: acks_of(&topic, &[&got[1..], &again[..]].concat()), ..Step::default() }).await.unwrap();
    drop((consumer, broker));
    let ledger = format!("{topic}-s-ATTEMPTS");
    let entry = |mark: String| mark.split_once(':').and_then(|(_, entry)| entry.parse::<i64>().ok()).unwrap();
    let told =
        serde_json::from_str::<serde_json::Value>(&internal(&ledger)).unwrap()["lastConfirmedEntry"].as_str().map(str::to_owned);
    let told = entry(told.unwrap());
    let broker = connected().await;
    let mut consumer = joined(&broker, &topic).await;
    let start = Instant::now();
    // What was tried again is remembered for some thousands more.
    for first in (100..).step_by(100) {
        broker.publish((first..first + 100).map(|id| publish_of(&topic, id)).collect()).await.unwrap();
        let got = take(&mut consumer, 100).await;
        broker.commit(Step { acks: acks_of(&topic, &got), ..Step::default() }).await.unwrap();
        if entry(mark(&ledger)) >= told {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{} of {told} are let go", mark(&ledger));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_its_id_again_with_a_reason_is_handed_out_again() {
    let broker = connected().await;
    for (kind, twice) in [(TopicKind::Route, false), (TopicKind::DeadLetter, true), (TopicKind::Plain, true)] {
        let topic = made(&broker, kind).await;
        let mut consumer = joined(&broker, &topic).await;
        broker.publish(vec![publish_of(&topic, 1)]).await.unwrap();
        let got = take(&mut consumer, 1).await;
        broker.nack(&topic, "s", got[0].position, Duration::ZERO).await.unwrap();
        let got = take(&mut consumer, 1).await;
        assert_eq!((got[0].message.id, got[0].attempt), (MessageId(1), 2), "what was given back comes again: {kind:?}");
        broker.commit(Step { acks: acks_of(&topic, &got), ..Step::default() }).await.unwrap();
        // A dead letter that was redriven and given up again has its id again.
        broker.publish(vec![publish_of(&topic, 1), publish_of(&topic, 2)]).await.unwrap();
        let first = take(&mut consumer, 1).await[0].message.id;
        assert_eq!(first == MessageId(1), twice, "{kind:?}");
        drop(consumer);
        broker.seek(&topic, "s", Start::Latest).await.unwrap();
        let mut consumer = joined(&broker, &topic).await;
        broker.publish(vec![publish_of(&topic, 1)]).await.unwrap();
        assert_eq!(take(&mut consumer, 1).await[0].message.id, MessageId(1), "a seek forgets: {kind:?}");
    }
}

fn put(topology: &str, value: &str) -> (String, Option<Bytes>) {
    (format!("fold/{topology}/f"), Some(Bytes::copy_from_slice(value.as_bytes())))
}

async fn kept(broker: &PulsarBroker, topology: &str) -> Option<String> {
    let value = broker.state(&format!("fold/{topology}/f")).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_of_a_step_with_state_stay_settled_although_the_service_has_lost_that() {
    let first = connected().await;
    let topic = made(&first, TopicKind::Route).await;
    first.publish((1..=6).map(|id| publish_of(&topic, id)).collect()).await.unwrap();
    let mut consumer = joined(&first, &topic).await;
    let got = take(&mut consumer, 6).await;
    // One was given back before, so it lies elsewhere.
    first.nack(&topic, "s", got[1].position, Duration::ZERO).await.unwrap();
    let again = take(&mut consumer, 1).await;
    let settled = [&got[..1], &got[2..4], &again[..]].concat();
    let step = Step { acks: acks_of(&topic, &settled), state: vec![put(&topic, "four")], guard: true, ..Step::default() };
    first.commit(step).await.unwrap();
    drop((consumer, first));

    // As if it had died before it acknowledged.
    for topic in [topic.to_string(), format!("{topic}-s-RETRY")] {
        reset(&topic).await;
    }
    let second = connected().await;
    assert_eq!(kept(&second, &topic).await.as_deref(), Some("four"));
    let mut consumer = joined(&second, &topic).await;
    let mut ids: Vec<u128> = take(&mut consumer, 2).await.iter().map(|delivery| delivery.message.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [5, 6], "what is in the state is not handed out");
    drop(consumer);
    // A seek means all of them.
    second.seek(&topic, "s", Start::Earliest).await.unwrap();
    second.close().await.unwrap();
    let third = connected().await;
    assert_eq!(kept(&third, &topic).await.as_deref(), Some("four"));
    let mut consumer = joined(&third, &topic).await;
    assert!(take(&mut consumer, 6).await.len() >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_step_with_state_has_settled_of_a_queue_without_consumers_is_acknowledged_by_the_next_who_looks() {
    for settled in [0..1, 1..4, 0..5] {
        let first = connected().await;
        let topic = made(&first, TopicKind::DeadLetter).await;
        first.publish((1..=5).map(|id| publish_of(&topic, id)).collect()).await.unwrap();
        let letters = first.peek(&topic, "s", Position(0), 10).await.unwrap();
        let ack = |(position, _): &(Position, Message)| Ack {
            topic: topic.clone(),
            subscription: "s".into(),
            position: *position,
            cumulative: false,
        };
        let step = |letters: &[(Position, Message)]| Step {
            acks: letters.iter().map(ack).collect(),
            state: vec![put(&topic, "")],
            ..Step::default()
        };
        first.commit(step(&letters[settled.clone()])).await.unwrap();
        drop(first);

        // As if it had died before it acknowledged.
        reset(&topic).await;
        let second = connected().await;
        kept(&second, &topic).await;
        let left = second.peek(&topic, "s", Position(0), 10).await.unwrap();
        let ids: Vec<u128> = left.iter().map(|(_, message)| message.id.0).collect();
        let others: Vec<u128> = (0..5).filter(|index| !settled.contains(index)).map(|index| index as u128 + 1).collect();
        assert_eq!(ids, others, "what is in the state is not shown");
        if !left.is_empty() {
            second.commit(step(&left)).await.unwrap();
        }
        // Who does not know the state sees what the service knows.
        let third = connected().await;
        assert_eq!(third.peek(&topic, "s", Position(0), 10).await.unwrap(), [], "{settled:?} were settled before");
    }
}

/// Has the service forget what was acknowledged, as its end within a second does.
async fn reset(topic: &str) {
    let path = format!("/admin/v2/persistent/public/default/{topic}/subscription/s/resetcursor");
    let body = r#"{"ledgerId": -1, "entryId": -1, "partitionIndex": -1}"#;
    let start = Instant::now();
    // Consumers of the one that is gone may be there for a moment.
    loop {
        let path = path.clone();
        let asking = tokio::task::spawn_blocking(move || service::ask(&service::options(), "POST", &path, body));
        match asking.await {
            Ok(_) => return,
            Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_at_a_time_has_the_state_and_the_next_finds_all_of_it() {
    let topology = service::unique("state");
    let first = connected().await;
    first.commit(Step { state: vec![put(&topology, "a")], ..Step::default() }).await.unwrap();
    let second = connected().await;
    let refused = second.state(&format!("fold/{topology}/f")).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("one writer at a time"), "{refused}");
    let step = Step { state: vec![put(&topology, "b")], ..Step::default() };
    assert_eq!(second.commit(step.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(first);
    let start = Instant::now();
    while let Err(error) = second.commit(step.clone()).await {
        assert!(start.elapsed() < DEADLINE, "{error}");
    }
    second.close().await.unwrap();
    assert_eq!(kept(&connected().await, &topology).await.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_of_state_is_written_anew_and_let_go() {
    let topology = service::unique("state");
    let state = format!("{topology}-STATE");
    let broker = connected().await;
    let small = (format!("run/{topology}"), Some(Bytes::from_static(b"kept")));
    broker.commit(Step { state: vec![small], ..Step::default() }).await.unwrap();
    let begins = mark(&state);
    let mut round = 0_u32;
    let start = Instant::now();
    // Random bytes, so that nothing gets smaller on the way.
    while mark(&state) == begins {
        round += 1;
        let mut value = format!("{round:08}").into_bytes();
        let mut random = u64::from(round);
        value.extend((0..100_000).flat_map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.to_be_bytes()[..1].to_vec()
        }));
        let write = (format!("fold/{topology}/f"), Some(Bytes::from(value)));
        broker.commit(Step { state: vec![write], ..Step::default() }).await.unwrap();
        assert!(start.elapsed() < DEADLINE && round < 200, "{round} records, and none is let go");
    }
    broker.close().await.unwrap();
    let again = connected().await;
    let value = again.state(&format!("fold/{topology}/f")).await.unwrap().unwrap();
    assert_eq!((value.len(), &value[..8]), (100_008, format!("{round:08}").as_bytes()));
    assert_eq!(again.state(&format!("run/{topology}")).await.unwrap().as_deref(), Some(&b"kept"[..]));
}

fn internal(topic: &str) -> String {
    let path = format!("/admin/v2/persistent/public/default/{topic}/internalStats");
    tokio::task::block_in_place(|| service::ask(&service::options(), "GET", &path, ""))
}

/// Up to where the records of a topic are let go.
fn mark(topic: &str) -> String {
    let answer = internal(topic);
    let stats: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    stats["cursors"]["leat"]["markDeletePosition"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_step_settles_messages_of_many_entries_that_nobody_has_in_hand() {
    let broker = connected().await;
    let topic = made(&broker, TopicKind::Plain).await;
    // Each batch is an entry.
    for first in [1, 6, 11, 16] {
        broker.publish((first..first + 5).map(|id| publish_of(&topic, id)).collect()).await.unwrap();
    }
    let all = broker.peek(&topic, "s", Position(0), 100).await.unwrap();
    let step = |indexes: &[usize]| {
        let of =
            |index: &usize| Ack { topic: topic.clone(), subscription: "s".into(), position: all[*index].0, cumulative: false };
        Step { acks: indexes.iter().map(of).collect(), guard: false, ..Step::default() }
    };
    let left = async |broker: &PulsarBroker| -> Vec<u128> {
        let found = broker.peek(&topic, "s", Position(0), 100).await.unwrap();
        found.into_iter().map(|(_, message)| message.id.0).collect()
    };
    // A whole entry, parts of two, and nothing of one between them.
    broker.commit(step(&[4, 0, 5, 6, 7, 8, 9, 17])).await.unwrap();
    assert_eq!(left(&broker).await, [2, 3, 4, 11, 12, 13, 14, 15, 16, 17, 19, 20]);
    // What is settled already, and is gone, is in nobody's way.
    broker.commit(step(&[0, 1, 2, 3, 5, 9, 14])).await.unwrap();
    assert_eq!(left(&broker).await, [11, 12, 13, 14, 16, 17, 19, 20]);
    let mut beyond = step(&[10]);
    let far = Ack { position: Position(all[19].0.0 + (1 << 20)), ..beyond.acks[0].clone() };
    beyond.acks.push(far);
    assert_eq!(broker.commit(beyond).await.unwrap_err().kind(), ErrorKind::NotFound);
    broker.commit(step(&(10..20).collect::<Vec<_>>())).await.unwrap();
    assert_eq!(left(&broker).await, [0; 0]);
    assert_eq!(left(&connected().await).await, [0; 0]);
}
