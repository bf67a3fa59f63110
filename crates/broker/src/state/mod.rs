//! The broker's durable state as a pure state machine: live calls and recovery apply the same events to it.
//!
//! It never reads a clock, a file or a socket and never awaits. Who is connected and what is handed out is not part of it.

mod anew;
mod event;
mod level;
mod log;
mod missing;
mod net;
mod roots;
mod settled;
mod shelf;
mod spill;

pub(crate) use event::{Attempt, Event, LastSent, Producer, Published, Span, SubscriptionId, TopicId, key_hash};
pub(crate) use log::{BLOCK_MESSAGES, Entry};
pub(crate) use missing::{Looked, Missing};
pub(crate) use net::{Net, RootNote, Survivors, merge};
pub(crate) use roots::{RootImage, UNTRACKED};
pub(crate) use settled::Settled;
pub(crate) use spill::{Index, Indexed, Run, SpilledImage};

use crate::{Account, Durability, MessageId, Outcome, TopicKind, TopicSpec};
use bytes::Bytes;
use log::Log;
use roots::Roots;
use rustc_hash::{FxHashMap, FxHashSet};
use shelf::Shelf;
use std::{collections::BTreeMap, sync::Arc};

/// Topics, subscriptions, what is settled, attempts, delays, producers, keyed state and roots.
#[derive(Debug)]
pub(crate) struct State<H> {
    pub(crate) topics: Vec<Topic<H>>,
    pub(crate) topic_names: FxHashMap<String, TopicId>,
    /// By number; `None` after unsubscribing.
    pub(crate) subscriptions: Vec<Option<Subscription>>,
    pub(crate) keyed: BTreeMap<String, Bytes>,
    pub(crate) roots: Roots,
    /// The roots that are not in `roots`, because a spilled block holds all there is of them.
    pub(crate) shelf: Shelf,
    /// Handles that nobody needs any more; the owner drains it.
    pub(crate) freed: Vec<H>,
    /// The same, of blocks as a whole.
    pub(crate) freed_runs: Vec<Run>,
    /// Roots of which nothing is pending any more; the owner drains it.
    pub(crate) finished: Vec<(MessageId, Outcome)>,
    /// Whether roots have ended that `finished` does not name, because they were in no table: whoever waits for one must look again. The owner resets it.
    pub(crate) ended_unseen: bool,
    /// Roots about which the messages that are left do not tell everything; the owner drains it, if it has asked for them.
    pub(crate) told: Option<Vec<Told>>,
    /// The level of topics that have none of their own, and whether any has another. Not kept.
    pub(crate) usual: Durability,
    pub(crate) leveled: bool,
}

/// Why a record must say something about a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) root: u128,
    /// Where it was sent, if this is about that: only needed if the message is not written.
    pub(crate) sent_at: Option<(TopicId, u64)>,
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic<H> {
    pub(crate) spec: TopicSpec,
    /// The number of its topology in the accounts.
    topology: u32,
    pub(crate) log: Log<H>,
    pub(crate) subscriptions: Vec<SubscriptionId>,
    /// The last that each named producer has sent.
    pub(crate) producers: FxHashMap<Arc<str>, LastSent>,
    /// Not to be delivered before; only of messages that say so.
    pub(crate) deliver_at: FxHashMap<u64, u64>,
    /// Messages that could not be read back, once for each subscription.
    pub(crate) damaged: u64,
    /// Whether each of its subscriptions has a consumer that gets messages before they are durable; not kept.
    pub(crate) passing: bool,
}

/// How long a message that was given back waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    /// When it is due again, in milliseconds since the Unix epoch by the clock of the process that took it back.
    pub(crate) until_ms: u64,
    /// How long it was to wait. With a clock that was set back between two processes it waits no longer than this from the start of the second.
    pub(crate) of_ms: u64,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicId,
    pub(crate) name: String,
    pub(crate) settled: Settled,
    /// Deliveries so far of unsettled messages that have had one.
    pub(crate) attempts: FxHashMap<u64, u32>,
    /// When a message that was given back is due again.
    pub(crate) delays: FxHashMap<u64, Delay>,
}

impl<H> Default for State<H> {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            topic_names: FxHashMap::default(),
            subscriptions: Vec::new(),
            keyed: BTreeMap::new(),
            roots: Roots::default(),
            shelf: Shelf::default(),
            freed: Vec::new(),
            freed_runs: Vec::new(),
            finished: Vec::new(),
            ended_unseen: false,
            told: None,
            usual: Durability::default(),
            leveled: false,
        }
    }
}

impl<H> State<H> {
    /// Applies a change. Blocks that it needs must be loaded: see [`State::missing_for`]. What it frees and finishes is added to [`State::freed`] and [`State::finished`].
    pub(crate) fn apply(&mut self, event: Event<H>) {
        match event {
            Event::Topic(spec) => self.topic(spec),
            Event::DeleteTopic(topic) => self.delete_topic(topic),
            Event::Subscription { topic, name, from } => self.subscription(topic, name, from),
            Event::Unsubscribe(subscription) => self.unsubscribe(subscription),
            Event::Seek { subscription, to } => self.seek(subscription, to),
            Event::Step { settled, publishes, state } => self.step(settled, publishes, state),
            Event::Attempts { subscription, attempts } => self.attempts(subscription, &attempts),
            Event::Delay { subscription, position, delay } => {
                if let Some(subscription) = self.subscriptions[subscription.0 as usize].as_mut() {
                    subscription.delays.insert(position, delay);
                }
            }
            Event::Expire { topic, end } => self.expire(topic, end),
            Event::Moved { messages } => self.moved(messages),
            Event::Forget { topic, producers } => {
                producers.iter().for_each(|name| _ = self.topics[topic.0 as usize].producers.remove(name));
            }
            Event::Damaged { subscription, position } => self.damaged(subscription, position),
        }
        self.roots.evaluate(&mut self.finished);
    }

    /// The topic of this name.
    pub(crate) fn find_topic(&self, name: &str) -> Option<TopicId> {
        self.topic_names.get(name).copied()
    }

    /// The subscription of this name.
    pub(crate) fn find_subscription(&self, topic: TopicId, name: &str) -> Option<SubscriptionId> {
        let numbers = &self.topics[topic.0 as usize].subscriptions;
        numbers.iter().copied().find(|number| self.subscriptions[number.0 as usize].as_ref().is_some_and(|s| s.name == name))
    }

    pub(crate) fn log(&self, topic: TopicId) -> &Log<H> {
        &self.topics[topic.0 as usize].log
    }

    pub(crate) fn subscription_of(&self, subscription: SubscriptionId) -> Option<&Subscription> {
        self.subscriptions.get(subscription.0 as usize)?.as_ref()
    }

    pub(crate) fn account(&self, topology: &str) -> Account {
        self.roots.account(topology)
    }

    fn topic(&mut self, spec: TopicSpec) {
        self.leveled |= spec.durability.is_some_and(|level| level != self.usual);
        if let Some(topic) = self.find_topic(&spec.name) {
            let known = &mut self.topics[topic.0 as usize].spec;
            (known.retention, known.retention_bytes) = (spec.retention, spec.retention_bytes);
            known.durability = spec.durability.or(known.durability);
            return;
        }
        let topic = TopicId(self.topics.len() as u32);
        self.topic_names.insert(spec.name.clone(), topic);
        self.topics.push(Topic::new(spec, &mut self.roots));
    }

    /// Removes a topic. Only its number stays, with an empty name, which no topic can have.
    fn delete_topic(&mut self, topic: TopicId) {
        // There are none, unless what removed them was lost to damage.
        for number in self.topics[topic.0 as usize].subscriptions.clone() {
            self.unsubscribe(number);
        }
        self.expire(topic, u64::MAX);
        let found = &mut self.topics[topic.0 as usize];
        self.topic_names.remove(&found.spec.name);
        *found = Topic { topology: found.topology, ..Topic::new(TopicSpec::default(), &mut self.roots) };
    }

    fn subscription(&mut self, topic: TopicId, name: String, from: u64) {
        let number = SubscriptionId(self.subscriptions.len() as u32);
        let settled = self.open(topic, from, None);
        self.topics[topic.0 as usize].subscriptions.push(number);
        let subscription = Subscription { topic, name, settled, attempts: FxHashMap::default(), delays: FxHashMap::default() };
        self.subscriptions.push(Some(subscription));
    }

    /// Makes every held message from `from` on pending, but for those that are pending `already`. Messages that are gone are settled.
    fn open(&mut self, topic: TopicId, from: u64, already: Option<&Settled>) -> Settled {
        let mut settled = Settled::up_to(from);
        let mut from = from;
        for (start, end) in self.log(topic).held_ranges(from) {
            settled.insert(from, start);
            from = end;
            if already.is_some_and(|already| !spill::was_settled(already, start, end)) {
                continue;
            }
            if self.log(topic).spilled_at(start).is_some() {
                self.need_spilled(topic, start / BLOCK_MESSAGES);
                continue;
            }
            let Topic { log, spec, .. } = &mut self.topics[topic.0 as usize];
            if let Some(entry) = log.need(start).filter(|entry| entry.root != UNTRACKED) {
                match spec.kind {
                    TopicKind::DeadLetter => self.roots.bury(entry.root, 1),
                    _ => self.roots.pend(entry.root, 1),
                }
            }
        }
        settled.insert(from, self.log(topic).next());
        settled
    }

    fn unsubscribe(&mut self, number: SubscriptionId) {
        self.settle_below(number, u64::MAX);
        if let Some(subscription) = self.subscriptions[number.0 as usize].take() {
            self.topics[subscription.topic.0 as usize].subscriptions.retain(|other| *other != number);
        }
    }

    /// No message that was given back waits longer from now on than it was to wait, whatever the clock said when it was given back.
    pub(crate) fn shorten_delays(&mut self, now_ms: u64) {
        for delay in self.subscriptions.iter_mut().flatten().flat_map(|subscription| subscription.delays.values_mut()) {
            delay.until_ms = delay.until_ms.min(now_ms.saturating_add(delay.of_ms));
        }
    }

    fn seek(&mut self, number: SubscriptionId, to: u64) {
        let Some(subscription) = self.subscription_of(number) else { return };
        let (topic, before) = (subscription.topic, subscription.settled.clone());
        let settled = self.open(topic, to, Some(&before));
        self.settle_below(number, to);
        if let Some(subscription) = self.subscriptions[number.0 as usize].as_mut() {
            subscription.settled = settled;
            subscription.attempts.clear();
            subscription.delays.clear();
        }
    }

    fn settle_below(&mut self, number: SubscriptionId, end: u64) {
        let Some(subscription) = self.subscription_of(number) else { return };
        let end = end.min(self.log(subscription.topic).next());
        for (start, end) in subscription.settled.unsettled_below(end) {
            self.settle(Span { subscription: number, start, end }, &FxHashSet::default());
        }
    }

    fn step(&mut self, settled: Vec<Span>, publishes: Vec<Published<H>>, state: Vec<(String, Option<Bytes>)>) {
        // A dead letter that is settled in the step that publishes its root again is redriven; any other is dropped.
        let dead = |span: &Span| {
            let topic = self.subscription_of(span.subscription).map(|subscription| subscription.topic);
            topic.is_some_and(|topic| self.topics[topic.0 as usize].spec.kind == TopicKind::DeadLetter)
        };
        let redriven = match settled.iter().any(dead) {
            true => publishes.iter().map(|published| published.root).collect(),
            false => FxHashSet::default(),
        };
        // Outputs first: a root must not be seen with nothing pending between its input and its outputs.
        for published in publishes {
            self.publish(published);
        }
        for span in settled {
            self.settle(span, &redriven);
        }
        for (key, value) in state {
            match value {
                Some(value) => self.keyed.insert(key, value),
                None => self.keyed.remove(&key),
            };
        }
    }

    fn publish(&mut self, published: Published<H>) {
        let Published { topic: number, root, key, created_ms, deliver_at_ms, producer, bytes, handle } = published;
        let topic = &mut self.topics[number.0 as usize];
        let remaining = topic.subscriptions.len() as u32;
        let slot = match (root, topic.spec.kind) {
            (0, _) | (_, TopicKind::Plain) => UNTRACKED,
            _ => self.roots.slot(root, topic.topology),
        };
        if slot != UNTRACKED {
            match topic.spec.kind {
                TopicKind::DeadLetter => self.roots.bury(slot, remaining),
                _ => self.roots.pend(slot, remaining),
            }
        }
        let mut told = match (slot, topic.spec.kind) {
            (UNTRACKED, _) => None,
            (slot, TopicKind::Ingress) => {
                self.roots.sent(slot);
                Some(Some((number, topic.log.next())))
            }
            (_, TopicKind::DeadLetter) if remaining == 0 => Some(None),
            _ => None,
        };
        if let (Some(sent_at), Some(list)) = (told.take(), self.told.as_mut()) {
            list.push(Told { root, sent_at });
        }
        let position = match remaining == 0 && topic.spec.retention.is_zero() {
            true => {
                self.freed.push(handle);
                topic.log.push(None, created_ms, bytes)
            }
            false => topic.log.push(Some(Entry::new(handle, slot, key, remaining)), created_ms, bytes),
        };
        if let Some(deliver_at_ms) = deliver_at_ms.filter(|_| remaining > 0) {
            topic.deliver_at.insert(position, deliver_at_ms);
        }
        if let Some(Producer { name, sequence, now_ms }) = producer {
            topic.producers.insert(name, LastSent { sequence, position, used_ms: now_ms });
        }
    }

    fn settle(&mut self, span: Span, redriven: &FxHashSet<u128>) {
        let Some(topic) = self.subscription_of(span.subscription).map(|subscription| subscription.topic) else { return };
        let spilled: Vec<u64> = self.log(topic).spilled_within(span.start, span.end).map(|(number, _)| number).collect();
        let mut from = span.start;
        for number in spilled {
            let (start, end) = (number * BLOCK_MESSAGES, (number + 1) * BLOCK_MESSAGES);
            if from < start {
                self.settle_loaded(Span { start: from, end: start, ..span }, redriven);
            }
            self.settle_spilled(span.subscription, topic, number);
            from = end;
        }
        if from < span.end {
            self.settle_loaded(Span { start: from, ..span }, redriven);
        }
    }

    fn settle_loaded(&mut self, span: Span, redriven: &FxHashSet<u128>) {
        let Some(subscription) = self.subscriptions[span.subscription.0 as usize].as_mut() else { return };
        let topic = &mut self.topics[subscription.topic.0 as usize];
        let keep = !topic.spec.retention.is_zero();
        for position in span.start..span.end {
            if subscription.settled.contains(position) {
                continue;
            }
            if !subscription.attempts.is_empty() {
                subscription.attempts.remove(&position);
            }
            if !subscription.delays.is_empty() {
                subscription.delays.remove(&position);
            }
            let Some((root, freed)) = topic.log.release(position, keep) else { continue };
            if let Some(handle) = freed {
                self.freed.push(handle);
                topic.deliver_at.remove(&position);
            }
            match (root, topic.spec.kind) {
                (UNTRACKED, _) => {}
                (slot, TopicKind::DeadLetter) => {
                    let root = self.roots.id(slot);
                    self.roots.unbury(slot, redriven.contains(&root));
                    if let Some(told) = self.told.as_mut() {
                        told.push(Told { root, sent_at: None });
                    }
                }
                (root, _) => self.roots.settle(root),
            }
        }
        subscription.settled.insert(span.start, span.end);
    }

    fn attempts(&mut self, number: SubscriptionId, attempts: &[Attempt]) {
        let Some(subscription) = self.subscriptions[number.0 as usize].as_mut() else { return };
        for Attempt { start, end, attempt } in attempts {
            for position in *start..*end {
                subscription.delays.remove(&position);
                match attempt {
                    0 => subscription.attempts.remove(&position),
                    attempt => subscription.attempts.insert(position, *attempt),
                };
            }
        }
    }

    fn expire(&mut self, topic: TopicId, end: u64) {
        let log = self.log(topic);
        for number in log.base()..(end / BLOCK_MESSAGES).min(log.next().div_ceil(BLOCK_MESSAGES)) {
            match self.log(topic).spilled_at(number * BLOCK_MESSAGES).map(|block| block.remaining) {
                Some(0) => self.drop_spilled(topic, number),
                Some(_) => {}
                None => self.topics[topic.0 as usize].log.expire_block(number, &mut self.freed),
            }
        }
        let Topic { log, deliver_at, .. } = &mut self.topics[topic.0 as usize];
        deliver_at.retain(|position, _| log.holds(*position));
    }

    fn damaged(&mut self, number: SubscriptionId, position: u64) {
        let Some(subscription) = self.subscription_of(number) else { return };
        let topic = subscription.topic;
        let found = self.topics[topic.0 as usize].log.get(position).map(|entry| entry.root);
        self.topics[topic.0 as usize].damaged += 1;
        if let Some(slot) = found.filter(|slot| *slot != UNTRACKED) {
            self.roots.bury(slot, 0);
            let root = self.roots.id(slot);
            if let Some(told) = self.told.as_mut() {
                told.push(Told { root, sent_at: None });
            }
        }
        self.settle(Span { subscription: number, start: position, end: position + 1 }, &FxHashSet::default());
    }

    fn moved(&mut self, messages: Vec<(TopicId, u64, H)>) {
        for (topic, position, handle) in messages {
            self.freed.push(self.topics[topic.0 as usize].log.replace(position, handle));
        }
    }
}

impl<H> Topic<H> {
    /// An empty topic.
    pub(crate) fn new(spec: TopicSpec, roots: &mut Roots) -> Self {
        Self {
            topology: roots.topology(&spec.topology),
            spec,
            log: Log::default(),
            subscriptions: Vec::new(),
            producers: FxHashMap::default(),
            deliver_at: FxHashMap::default(),
            damaged: 0,
            passing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: TopicId = TopicId(0);
    const OUT: TopicId = TopicId(1);
    const FIRST: SubscriptionId = SubscriptionId(0);

    fn two_topics() -> State<u64> {
        let mut state = State::default();
        for (name, kind) in [("in", TopicKind::Ingress), ("out", TopicKind::Route)] {
            state.apply(Event::Topic(TopicSpec { name: name.into(), kind, topology: "t".into(), ..TopicSpec::default() }));
        }
        for topic in [IN, OUT] {
            state.apply(Event::Subscription { topic, name: "s".into(), from: 0 });
        }
        state
    }

    fn publish(topic: TopicId, root: u128, handle: u64) -> Published<u64> {
        Published { topic, root, key: 0, created_ms: 0, deliver_at_ms: None, producer: None, bytes: 0, handle }
    }

    fn step(settled: &[(SubscriptionId, u64)], publishes: Vec<Published<u64>>) -> Event<u64> {
        let span =
            |(subscription, start): &(SubscriptionId, u64)| Span { subscription: *subscription, start: *start, end: *start + 1 };
        Event::Step { settled: settled.iter().map(span).collect(), publishes, state: Vec::new() }
    }

    #[test]
    fn a_message_is_freed_when_the_last_subscription_has_settled_it() {
        let mut state = two_topics();
        state.apply(Event::Subscription { topic: IN, name: "other".into(), from: 0 });
        state.apply(step(&[], vec![publish(IN, 1, 10), publish(IN, 2, 11)]));
        state.apply(step(&[(FIRST, 1), (FIRST, 0)], Vec::new()));
        assert!(state.freed.is_empty() && state.finished.is_empty());
        state.apply(step(&[(SubscriptionId(2), 1)], Vec::new()));
        assert_eq!((state.freed.as_slice(), state.finished.as_slice()), (&[11][..], &[(MessageId(2), Outcome::Done)][..]));
        state.apply(Event::Moved { messages: vec![(IN, 0, 20), (IN, 1, 21)] });
        assert_eq!(state.freed, [11, 10, 21]);
        state.apply(Event::Unsubscribe(SubscriptionId(2)));
        assert_eq!((state.freed.as_slice(), state.log(IN).pending()), (&[11, 10, 21, 20][..], 0));
    }
}
