//! What a commit group has changed in all: what the journal records, and what recovery applies.
//!
//! Only the effect is recorded, not how it came about: a message that was published and settled everywhere within a group leaves a
//! position that is used up. Numbers are absolute wherever they can be, so that a group that is lost to damage does not falsify the next.

use super::{Delay, Entry, Event, LastSent, Published, Span, State, SubscriptionId, TopicId, UNTRACKED};
use crate::{Account, MessageId, TopicKind, TopicSpec};
use bytes::Bytes;
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// The effect of a commit group, or of the part of one between two changes of topics or subscriptions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Net<H> {
    pub(crate) topics: Vec<Survivors<H>>,
    /// Spans of one subscription are in order and do not touch.
    pub(crate) settled: Vec<Span>,
    /// Deliveries so far of an unsettled message, 0 for none. A delay that is not among the `delays` has gone.
    pub(crate) attempts: Vec<(SubscriptionId, u64, u32)>,
    /// When an unsettled message is due again.
    pub(crate) delays: Vec<(SubscriptionId, u64, Delay)>,
    /// The last that a producer has sent to a topic; `None` if it is forgotten.
    pub(crate) producers: Vec<(TopicId, Arc<str>, Option<LastSent>)>,
    pub(crate) state: Vec<(String, Option<Bytes>)>,
    pub(crate) moved: Vec<(TopicId, u64, H)>,
    /// Up to where settled messages were let go.
    pub(crate) expired: Vec<(TopicId, u64)>,
    /// Accounts that have changed, by number of the topology.
    pub(crate) accounts: Vec<(u32, Account)>,
    /// What the messages that are left do not say of their roots.
    pub(crate) roots: Vec<RootNote>,
    pub(crate) dropped: Vec<MessageId>,
}

/// What one topic has got.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Survivors<H> {
    pub(crate) topic: TopicId,
    /// The position that the first message of the group got.
    pub(crate) first: u64,
    /// The position that the first message after the group gets.
    pub(crate) next: u64,
    /// Messages that could not be read back so far.
    pub(crate) damaged: u64,
    /// The messages that are still held, by position.
    pub(crate) held: Vec<(u64, Published<H>)>,
}

/// What is said of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootNote {
    pub(crate) id: u128,
    pub(crate) topology: u32,
    pub(crate) sent: u32,
    pub(crate) dropped: bool,
}

impl<H> Default for Net<H> {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            settled: Vec::new(),
            attempts: Vec::new(),
            delays: Vec::new(),
            producers: Vec::new(),
            state: Vec::new(),
            moved: Vec::new(),
            expired: Vec::new(),
            accounts: Vec::new(),
            roots: Vec::new(),
            dropped: Vec::new(),
        }
    }
}

impl<H> State<H> {
    /// Applies what a group has changed. What does not fit, because a group before was lost, is passed over.
    pub(crate) fn replay(&mut self, net: Net<H>) {
        let dropped_before = self.roots.dropped_total();
        let redriven = self.redriven_by(&net);
        for survivors in net.topics {
            self.replay_topic(survivors);
        }
        for (topic, producer, last) in net.producers {
            let Some(topic) = self.topics.get_mut(topic.0 as usize) else { continue };
            match last {
                Some(last) => _ = topic.producers.insert(producer, last),
                None => _ = topic.producers.remove(&producer),
            }
        }
        for span in net.settled {
            if self.subscription_of(span.subscription).is_some() {
                self.settle(span, &redriven);
            }
        }
        self.replay_marks(&net.attempts, &net.delays);
        for (key, value) in net.state {
            match value {
                Some(value) => _ = self.keyed.insert(key, value),
                None => _ = self.keyed.remove(&key),
            }
        }
        self.moved(net.moved.into_iter().filter(|(topic, ..)| (topic.0 as usize) < self.topics.len()).collect());
        for (topic, end) in net.expired {
            if (topic.0 as usize) < self.topics.len() {
                self.expire(topic, end);
            }
        }
        for RootNote { id, topology, sent, dropped } in net.roots {
            self.roots.replay_note(id, topology, sent, dropped);
        }
        self.roots.evaluate(&mut self.finished);
        self.roots.replay_accounts(net.accounts);
        self.roots.replay_dropped(dropped_before, net.dropped);
    }

    /// Applies a change of topics or subscriptions, unless what it is about was lost. `number` is that of the topic or subscription that it makes: one before it
    /// whose making was lost leaves a gap, so that no message gets into a topic that it was not sent to.
    pub(crate) fn replay_structure(&mut self, event: Event<H>, number: u32) {
        let fits = match &event {
            Event::Topic(_) => {
                while self.topics.len() < number as usize {
                    let spec = TopicSpec { name: format!("lost-{}", self.topics.len()), ..TopicSpec::default() };
                    self.apply(Event::Topic(spec));
                }
                true
            }
            Event::DeleteTopic(topic) => (topic.0 as usize) < self.topics.len(),
            Event::Subscription { topic, .. } => {
                self.subscriptions.resize_with(self.subscriptions.len().max(number as usize), || None);
                (topic.0 as usize) < self.topics.len()
            }
            Event::Unsubscribe(number) | Event::Seek { subscription: number, .. } => {
                (number.0 as usize) < self.subscriptions.len()
            }
            _ => true,
        };
        if fits {
            let dropped_before = self.roots.dropped_total();
            self.apply(event);
            // Roots that it drops are in the part that follows.
            self.roots.replay_dropped(dropped_before, Vec::new());
        }
    }

    /// Every root that was published again: what is said of the others is in the record's notes.
    fn redriven_by(&self, net: &Net<H>) -> FxHashSet<u128> {
        let dead = |span: &Span| {
            let topic = self.subscription_of(span.subscription).map(|subscription| subscription.topic);
            topic.is_some_and(|topic| self.topics[topic.0 as usize].spec.kind == TopicKind::DeadLetter)
        };
        match net.settled.iter().any(dead) {
            true => net.topics.iter().flat_map(|topic| topic.held.iter().map(|(_, published)| published.root)).collect(),
            false => FxHashSet::default(),
        }
    }

    fn replay_topic(&mut self, survivors: Survivors<H>) {
        let Survivors { topic: number, first, next, damaged, held } = survivors;
        let Some(topic) = self.topics.get_mut(number.0 as usize) else { return };
        topic.damaged = damaged;
        let lost = (topic.log.next(), first);
        for (position, published) in held {
            if position < topic.log.next() {
                continue;
            }
            topic.log.set_next(position);
            let Published { root, key, created_ms, deliver_at_ms, bytes, handle, .. } = published;
            let remaining = topic.subscriptions.len() as u32;
            let slot = match (root, topic.spec.kind) {
                (0, _) | (_, TopicKind::Plain) => UNTRACKED,
                _ => self.roots.slot(root, topic.topology),
            };
            match (slot, topic.spec.kind) {
                (UNTRACKED, _) => {}
                (slot, TopicKind::DeadLetter) => self.roots.bury(slot, remaining),
                (slot, kind) => {
                    self.roots.pend(slot, remaining);
                    if kind == TopicKind::Ingress {
                        self.roots.sent(slot);
                    }
                }
            }
            if remaining == 0 && topic.spec.retention.is_zero() {
                self.freed.push(handle);
                continue;
            }
            topic.log.push(Some(Entry::new(handle, slot, key, remaining)), created_ms, bytes);
            if let Some(deliver_at_ms) = deliver_at_ms.filter(|_| remaining > 0) {
                topic.deliver_at.insert(position, deliver_at_ms);
            }
        }
        topic.log.set_next(next);
        // Positions whose group was lost to damage are not waited for.
        if lost.0 < lost.1 {
            for number in topic.subscriptions.clone() {
                if let Some(subscription) = self.subscriptions[number.0 as usize].as_mut() {
                    subscription.settled.insert(lost.0, lost.1);
                }
            }
        }
    }

    fn replay_marks(&mut self, attempts: &[(SubscriptionId, u64, u32)], delays: &[(SubscriptionId, u64, Delay)]) {
        for (number, position, attempt) in attempts {
            let Some(subscription) = self.subscriptions.get_mut(number.0 as usize).and_then(Option::as_mut) else { continue };
            if subscription.settled.contains(*position) {
                continue;
            }
            subscription.delays.remove(position);
            match attempt {
                0 => subscription.attempts.remove(position),
                attempt => subscription.attempts.insert(*position, *attempt),
            };
        }
        for (number, position, delay) in delays {
            let Some(subscription) = self.subscriptions.get_mut(number.0 as usize).and_then(Option::as_mut) else { continue };
            if subscription.settled.contains(*position) {
                continue;
            }
            subscription.delays.insert(*position, *delay);
        }
    }
}

/// Joins spans that touch, in place, and puts them in order.
pub(crate) fn merge(spans: &mut Vec<Span>) {
    spans.sort_unstable_by_key(|span| (span.subscription, span.start));
    spans.dedup_by(|next, before| {
        let touches = next.subscription == before.subscription && next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
}
