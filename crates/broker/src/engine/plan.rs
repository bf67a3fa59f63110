//! Turns a caller's step into a decided event, or refuses it before anything is done.

use super::{Clock, Core, Limits, Store};
use crate::{
    Ack, BrokerError, ErrorKind, Message, Position, Publish, Result, Step, SubscriptionKind, TopicKind,
    planted::{self, Bug},
    state::{Event, Producer, Published, Span, SubscriptionId, TopicId},
};
use leatworks_journal::Effect;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The most bytes of one value of keyed state.
const STATE_VALUE_BYTES_MAX: usize = 16 << 20;

/// The most bytes of a topic's, a subscription's or a producer's name.
const NAME_BYTES_MAX: usize = 255;

/// What an event's parts need on disk at most, beside their payloads: lengths, numbers, ids and the record's header.
pub(crate) const OVERHEAD_BYTES: usize = 128;

/// What one range of settled messages takes on disk at most.
const SPAN_BYTES_MAX: usize = 32;

/// A step that can be done.
pub(crate) struct Plan<H> {
    /// What a cumulative acknowledgement takes on disk beyond what [`size`] foresees: it may settle many ranges.
    pub(crate) more_bytes: usize,
    pub(crate) event: Event<H>,
    /// Where each of the publishes goes, or went if it is a repetition.
    pub(crate) positions: Vec<Position>,
    /// Whether there is anything to do at all.
    pub(crate) empty: bool,
}

pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let text = format!("{what} name `{name}` is not 1 to {NAME_BYTES_MAX} characters of `A-Za-z0-9._-`");
        return Err(BrokerError::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

/// The most bytes that this step takes on disk.
pub(crate) fn size(step: &Step) -> usize {
    let producer = |publish: &Publish| publish.sequence.as_ref().map_or(0, |(name, _)| name.len());
    let published = |publish: &Publish| message_size(&publish.message) + producer(publish);
    let publishes: usize = step.publishes.iter().map(published).sum();
    let state: usize =
        step.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |v| v.len()) + OVERHEAD_BYTES).sum();
    publishes + state + (step.acks.len() + 1) * OVERHEAD_BYTES
}

/// What this step does to the space that is taken. One that gives more than it takes is moved on as well: the messages behind it could not be settled otherwise.
pub(crate) fn effect(step: &Step) -> Effect {
    match (step.acks.is_empty(), step.publishes.is_empty()) {
        (true, _) => Effect::Adds,
        (false, false) => Effect::Moves,
        (false, true) => Effect::Frees,
    }
}

/// What a message takes on disk at most, or in memory about.
pub(crate) fn message_size(message: &Message) -> usize {
    let properties: usize = message.properties.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    OVERHEAD_BYTES
        + message.payload.len()
        + message.key.as_ref().map_or(0, String::len)
        + message.trace.as_ref().map_or(0, String::len)
        + properties
}

/// Refuses what can never succeed, without looking at the state.
pub(crate) fn check(limits: &Limits, step: &Step) -> Result<()> {
    for publish in &step.publishes {
        let bytes = publish.message.payload.len();
        if bytes > limits.message_bytes_max {
            let text = format!(
                "message for topic `{}` has {bytes} bytes, at most {} are taken",
                publish.topic, limits.message_bytes_max
            );
            return Err(BrokerError::new(ErrorKind::TooLarge, text));
        }
        if let Some((producer, _)) = &publish.sequence {
            check_name("producer", producer)?;
        }
    }
    for (key, value) in &step.state {
        let bytes = value.as_ref().map_or(0, |value| value.len());
        if bytes > STATE_VALUE_BYTES_MAX {
            let text = format!("state `{key}` has {bytes} bytes, at most {STATE_VALUE_BYTES_MAX} are taken");
            return Err(BrokerError::new(ErrorKind::TooLarge, text));
        }
    }
    Ok(())
}

/// Decides what a step does, or refuses it.
pub(crate) fn plan<S: Store>(
    core: &Core<S::Handle, S::Group>,
    limits: &Limits,
    clock: &Clock,
    step: Step,
) -> Result<Plan<S::Handle>> {
    let settled = plan_acks(core, &step.acks, step.guard)?;
    let more_bytes = settled.len().saturating_sub(step.acks.len()) * SPAN_BYTES_MAX;
    // Only what a named producer sends needs a time.
    let named = step.publishes.iter().any(|publish| publish.sequence.is_some());
    let now_ms = if named { clock.now_ms() } else { 0 };
    let (publishes, positions) = plan_publishes(core, limits, step.publishes, now_ms)?;
    let empty = settled.is_empty() && publishes.is_empty() && step.state.is_empty();
    Ok(Plan { more_bytes, event: Event::Step { settled, publishes, state: step.state }, positions, empty })
}

fn plan_acks<H, G>(core: &Core<H, G>, acks: &[Ack], guard: bool) -> Result<Vec<Span>> {
    let mut spans: Vec<Span> = Vec::new();
    let mut known: Option<(&Ack, SubscriptionId)> = None;
    for ack in acks {
        // Mostly they are the very same texts.
        let alike = |one: &Arc<str>, two: &Arc<str>| Arc::ptr_eq(one, two) || one == two;
        let same = |other: &Ack| alike(&other.subscription, &ack.subscription) && alike(&other.topic, &ack.topic);
        let number = match known.filter(|(other, _)| same(other)) {
            Some((_, number)) => number,
            None => core.subscription(&ack.topic, &ack.subscription)?.1,
        };
        known = Some((ack, number));
        plan_ack(core, ack, number, guard, &mut spans)?;
    }
    Ok(spans)
}

fn plan_ack<H, G>(core: &Core<H, G>, ack: &Ack, number: SubscriptionId, guard: bool, spans: &mut Vec<Span>) -> Result<()> {
    let Some(subscription) = core.state.subscription_of(number) else { return Ok(()) };
    let position = ack.position.0;
    let named = || format!("message {position} of topic `{}` on subscription `{}`", ack.topic, ack.subscription);
    if position >= core.state.log(subscription.topic).next() {
        return Err(BrokerError::new(ErrorKind::NotFound, format!("{} does not exist", named())));
    }
    let settled = subscription.settled.contains(position);
    if settled && guard && !planted::is(Bug::GuardIgnored) {
        return Err(BrokerError::new(ErrorKind::Settled, format!("{} is settled already", named())));
    }
    if ack.cumulative {
        let kind = core.feeds.get(&number).and_then(|feed| feed.kind);
        if matches!(kind, Some(SubscriptionKind::Shared | SubscriptionKind::KeyShared)) {
            let text =
                format!("cumulative acknowledgement on {kind:?} subscription `{}` of topic `{}`", ack.subscription, ack.topic);
            return Err(BrokerError::new(ErrorKind::Invalid, text));
        }
        let open = subscription.settled.unsettled_below(position + 1).into_iter();
        spans.extend(open.map(|(start, end)| Span { subscription: number, start, end }));
    } else if !settled {
        // A message that a step names twice is in two spans; only the first settles it.
        match spans.last_mut().filter(|span| span.subscription == number && span.end == position) {
            Some(span) => span.end += 1,
            None => spans.push(Span { subscription: number, start: position, end: position + 1 }),
        }
    }
    Ok(())
}

type Planned<H> = (Vec<Published<H>>, Vec<Position>);

fn plan_publishes<H: From<Arc<Message>>, G>(
    core: &Core<H, G>,
    limits: &Limits,
    batch: Vec<Publish>,
    now_ms: u64,
) -> Result<Planned<H>> {
    let mut planned = Vec::with_capacity(batch.len());
    let mut positions = Vec::with_capacity(batch.len());
    // A step gives to a handful of topics, so looking through them is quicker than a map.
    let mut added: Vec<(TopicId, u64)> = Vec::new();
    let mut sequences: FxHashMap<(TopicId, Arc<str>), (u64, u64)> = FxHashMap::default();
    let mut known: Option<(Arc<str>, TopicId)> = None;
    for Publish { topic, message, sequence } in batch {
        let number = match &known {
            Some((name, number)) if Arc::ptr_eq(name, &topic) => *number,
            _ => core.topic(&topic)?,
        };
        let index = added.iter().position(|(other, _)| *other == number).unwrap_or_else(|| {
            added.push((number, 0));
            added.len() - 1
        });
        let before = &mut added[index].1;
        let position = core.state.log(number).next() + *before;
        if let Some((producer, next)) = &sequence {
            let named = (number, producer.clone());
            let before =
                || core.state.topics[number.0 as usize].producers.get(producer).map(|last| (last.sequence, last.position));
            let last = sequences.get(&named).copied().or_else(before);
            let again = |last: u64| if planted::is(Bug::SequenceOffByOne) { *next < last } else { *next <= last };
            if let Some((_, position)) = last.filter(|(last, _)| again(*last)) {
                positions.push(Position(position));
                continue;
            }
            sequences.insert(named, (*next, position));
        }
        *before += 1;
        positions.push(Position(position));
        let producer = sequence.map(|(name, sequence)| Producer { name, sequence, now_ms });
        planned.push(Published::new(number, &message, producer, H::from(message.clone())));
        known = Some((topic, number));
    }
    for (number, added) in added {
        let topic = &core.state.topics[number.0 as usize];
        // Giving a message up must always be possible: refusing it would only make its edge go round in circles.
        if topic.log.pending() + added > limits.backlog_messages_max && topic.spec.kind != TopicKind::DeadLetter {
            let text = format!("topic `{}` has its limit of {} pending messages", topic.spec.name, limits.backlog_messages_max);
            return Err(BrokerError::new(ErrorKind::Full, text));
        }
    }
    Ok((planned, positions))
}
