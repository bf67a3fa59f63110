//! R12 on a Pulsar service: one byte below each limit, at it, and one above: taken, taken, and refused with a typed error before anything is sent.

use super::{Finding, Setting, far, service};
use anyhow::Result;
use leatworks_broker::{
    Ack, Broker, BrokerError, ErrorKind, HandOff, Message, MessageId, Position, Publish, Start, Step, Subscribe,
    SubscriptionKind, TopicSpec,
};
use leatworks_pulsar::PulsarBroker;
use std::{sync::Arc, time::Duration};

/// The most bytes of a value of keyed state, and the longest name, as the contract says.
const STATE_BYTES: usize = 16 << 20;
const NAME_BYTES: usize = 255;

/// What a message may have beside the largest payload, as the reference says.
const EXTRAS_BYTES: usize = 8 << 10;

/// What a property takes beside its value here: its name and what is around it.
const PROPERTY_BYTES: usize = 13;

/// Messages of one publish, and the bytes of a property of each: together more than a frame.
const MANY: usize = 1_000;
const PROPERTY: usize = 8_000;

/// More than a client lets be on its way at once, in messages of the largest size.
const SUM_BYTES: usize = 70 << 20;

/// The subscription that sees what was taken.
const SUBSCRIPTION: &str = "s";

/// How long anything may take: whoever waits longer is held up by what was refused.
const HELD_UP: Duration = Duration::from_secs(60);

/// What is tried: a step on a topic of its own, and how it must end.
struct Case {
    what: String,
    step: Step,
    wanted: Option<ErrorKind>,
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    std::fs::create_dir_all(&setting.folder)?;
    let server = service::start()?;
    let options = far::options(service::at(&server, server.port));
    let broker = PulsarBroker::connect(options).await?;
    let mut finding = Finding::default();
    let (mut right, mut total) = (0, 0);
    let mut count = |finding: &mut Finding, what: String, wrong: Option<String>| {
        total += 1;
        right += u64::from(wrong.is_none());
        finding.objections.extend(wrong.map(|wrong| format!("{what}: {wrong}")));
    };
    for (number, case) in cases(broker.max_message_bytes()).into_iter().enumerate() {
        let Case { what, step, wanted } = case;
        let topic: Arc<str> = made(&broker, &format!("sizes-{number}")).await?;
        let wrong = tokio::time::timeout(HELD_UP, one(&broker, &topic, step, wanted)).await;
        count(&mut finding, what, wrong.unwrap_or_else(|_| Ok(Some(format!("it was held up for {HELD_UP:?}"))))?);
    }
    let wrong = tokio::time::timeout(HELD_UP, again(&broker)).await;
    let wrong = wrong.unwrap_or_else(|_| Ok(Some(format!("it was held up for {HELD_UP:?}"))))?;
    count(&mut finding, "the largest message, given back and given up".to_owned(), wrong);
    finding.seen = format!(
        "{right} of {total} cases right: one message, one with properties, a batch, names and keyed state, each at its limit, one below and one above, the sum of a \
         step's outputs, many with large properties, and the largest message given back and given up; of refused ones nothing was there, and nobody was held up"
    );
    broker.close().await?;
    Ok(finding)
}

fn cases(message_bytes: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, step: Step, wanted: Option<ErrorKind>| cases.push(Case { what, step, wanted });
    let sent = |publishes: Vec<Publish>| Step { publishes, ..Step::default() };
    for (more, wanted) in [(-1, None), (0, None), (1, Some(ErrorKind::TooLarge))] {
        let size = |limit: usize| limit.saturating_add_signed(more);
        let at = format!("{more:+} of the limit");
        add(format!("a message at {at}"), sent(vec![publish(size(message_bytes), 0)]), wanted);
        let batch = [10, 10, size(message_bytes)];
        add(format!("a batch whose last message is at {at}"), sent(batch.map(|bytes| publish(bytes, 0)).into()), wanted);
        let with_extras = publish(message_bytes, size(EXTRAS_BYTES - PROPERTY_BYTES));
        add(format!("a message with properties at {at}"), sent(vec![with_extras]), wanted);
        let named = Publish { sequence: Some(("p".repeat(size(NAME_BYTES)).into(), 1)), ..publish(10, 0) };
        add(format!("a producer's name at {at}"), sent(vec![named]), wanted.map(|_| ErrorKind::Invalid));
        let state = vec![("state/sizes/key".to_owned(), Some(vec![7; size(STATE_BYTES)].into()))];
        add(format!("keyed state at {at}"), Step { state, ..Step::default() }, wanted);
    }
    let many = (0..MANY).map(|_| publish(10, PROPERTY)).collect();
    add("many messages with large properties".to_owned(), sent(many), None);
    let sum = (0..SUM_BYTES.div_ceil(message_bytes)).map(|_| publish(message_bytes, 0)).collect();
    add("outputs that are more than may be on their way at once".to_owned(), sent(sum), None);
    cases
}

/// A message whose topic and ids are put in when it is sent.
fn publish(bytes: usize, property: usize) -> Publish {
    let properties = if property == 0 { Vec::new() } else { vec![("p".to_owned(), "x".repeat(property))] };
    let payload = (0..bytes).map(|place| (place % 251) as u8).collect::<Vec<u8>>();
    let message = Message { properties, payload: payload.into(), ..Message::default() };
    Publish { topic: "".into(), message: message.into(), sequence: None }
}

async fn made(broker: &PulsarBroker, name: &str) -> Result<Arc<str>> {
    broker.create_topic(TopicSpec { name: name.to_owned(), ..TopicSpec::default() }).await?;
    broker.create_subscription(name, SUBSCRIPTION, Start::Earliest).await?;
    Ok(name.into())
}

/// Tries one step, and says what is wrong with how it ended.
async fn one(broker: &PulsarBroker, topic: &Arc<str>, mut step: Step, wanted: Option<ErrorKind>) -> Result<Option<String>> {
    for (number, publish) in (1..).zip(&mut step.publishes) {
        let message = Message { id: MessageId(number), root: MessageId(number), ..Message::clone(&publish.message) };
        (publish.topic, publish.message) = (topic.clone(), message.into());
    }
    let sent: Vec<_> = step.publishes.iter().map(|publish| publish.message.clone()).collect();
    let result = broker.commit(step).await;
    let kind = result.as_ref().err().map(BrokerError::kind);
    if kind != wanted {
        return Ok(Some(format!("{result:?} where {wanted:?} is right")));
    }
    let there = broker.peek(topic, SUBSCRIPTION, Position(0), usize::MAX).await?;
    let kept = if wanted.is_none() { &sent[..] } else { &[] };
    let whole = there
        .iter()
        .zip(kept)
        .all(|((_, found), sent)| (found.id, &found.payload, &found.properties) == (sent.id, &sent.payload, &sent.properties));
    if there.len() != kept.len() || !whole {
        return Ok(Some(format!("{} messages are there, whole: {whole}, where {} are right", there.len(), kept.len())));
    }
    // Nobody waits behind what was refused.
    let behind = Publish { topic: topic.clone(), ..publish(10, 0) };
    Ok(broker.publish(vec![behind]).await.err().map(|error| format!("the next message was refused too: {error}")))
}

/// Gives the largest message back and then up, with the longest reason, as a dispatcher does. Says what is wrong.
async fn again(broker: &PulsarBroker) -> Result<Option<String>> {
    let (topic, dead) = (made(broker, "sizes-again").await?, made(broker, "sizes-dead").await?);
    let sent = Publish { topic: topic.clone(), ..publish(broker.max_message_bytes(), 0) };
    broker.publish(vec![sent.clone()]).await?;
    let subscribe = Subscribe {
        topic: topic.to_string(),
        subscription: SUBSCRIPTION.to_owned(),
        kind: SubscriptionKind::Shared,
        consumer: "sizes".to_owned(),
        permits: 10,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await?;
    let first = consumer.receive(1).await?.remove(0);
    broker.nack(&topic, SUBSCRIPTION, first.position, Duration::ZERO).await?;
    let second = consumer.receive(1).await?.remove(0);
    if (second.attempt, &second.message.payload) != (2, &sent.message.payload) {
        return Ok(Some(format!("attempt {} of {} bytes came", second.attempt, second.message.payload.len())));
    }
    let properties = vec![("leat-error".to_owned(), "x".repeat(4_096)), ("leat-cause".to_owned(), "error".to_owned())];
    let letter = Message { properties, ..Message::clone(&second.message) };
    let ack = Ack { topic, subscription: SUBSCRIPTION.into(), position: second.position, cumulative: false };
    let publishes = vec![Publish { topic: dead.clone(), message: letter.into(), sequence: None }];
    broker.commit(Step { acks: vec![ack], publishes, guard: true, ..Step::default() }).await?;
    let letters = broker.peek(&dead, SUBSCRIPTION, Position(0), 10).await?;
    let whole = letters.len() == 1 && letters[0].1.payload == sent.message.payload;
    Ok((!whole).then(|| format!("{} letters are there, and not as they were", letters.len())))
}
