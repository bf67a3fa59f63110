//! The open commit group: what has changed since the last one was closed. The engine's lock protects it.
//!
//! It holds no messages: those that are to be written are the ones that the state still holds when the group is closed, which is what elision is.

use super::place::Place;
use crate::{
    Account, Durability, Message,
    planted::{self, Bug},
    state::{self, Event, Index, Net, Producer, Published, RootNote, Span, State, SubscriptionId, Survivors, Told, TopicId},
};
use std::{collections::BTreeSet, sync::Arc};

/// A part of a record.
#[derive(Debug)]
pub(crate) enum Part<H> {
    /// A change of topics or subscriptions, and the number of the one that it makes: a change before it may be lost to damage.
    Structure(Event<H>, u32),
    /// What else has changed since the part before.
    Net(Net<H>),
    /// A block's index, so that the block need not be in memory. It changes nothing. Where it is, if it was written.
    Index { topic: TopicId, number: u64, index: Index<H>, at: Option<H> },
}

/// What was noted since the last group was closed.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// What it may take on disk at most, by estimate.
    pub(crate) bytes: usize,
    /// The strongest level of what is in it.
    pub(crate) level: Option<Durability>,
    parts: Vec<Part<Place>>,
    /// The first position that each topic has given away in this group, by number; `UNTOUCHED` for none.
    firsts: Vec<u64>,
    touched: Vec<TopicId>,
    settled: Vec<Span>,
    /// Messages whose attempts or delay have changed.
    marked: Vec<(SubscriptionId, u64)>,
    producers: Vec<(TopicId, Arc<str>)>,
    keyed: BTreeSet<String>,
    moved: Vec<(TopicId, u64)>,
    expired: Vec<(TopicId, u64)>,
    told: Vec<Told>,
    /// The accounts and the dropped roots as the group before has left them.
    accounts: Vec<Account>,
    dropped: u64,
    /// Everything published, if nothing is to be elided.
    published: Option<Vec<(TopicId, u64, Arc<Message>)>>,
    /// Messages on their way through this process: waiting a moment may spare writing them.
    passing: usize,
    dirty: bool,
}

const UNTOUCHED: u64 = u64::MAX;

impl Group {
    /// An empty group on this state.
    pub(crate) fn new(state: &State<Place>, elision: bool) -> Self {
        Self {
            accounts: state.roots.all_accounts().to_vec(),
            dropped: state.roots.dropped_total(),
            published: (!elision).then(Vec::new),
            ..Self::default()
        }
    }

    /// Whether anything is to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether messages of this group are on their way through this process.
    pub(crate) fn is_passing(&self) -> bool {
        self.passing > 0
    }

    /// Takes note of an event that is about to be applied.
    pub(crate) fn note(&mut self, state: &State<Place>, event: &Event<Place>) {
        self.dirty = true;
        match event {
            Event::Topic(_) | Event::DeleteTopic(_) | Event::Subscription { .. } | Event::Unsubscribe(_) | Event::Seek { .. } => {
                self.close_part(state);
                let number = match event {
                    Event::Topic(spec) => state.find_topic(&spec.name).map_or(state.topics.len() as u32, |topic| topic.0),
                    _ => state.subscriptions.len() as u32,
                };
                self.parts.push(Part::Structure(event.clone(), number));
            }
            Event::Step { settled, publishes, state: keyed } => {
                self.settled.extend_from_slice(settled);
                self.note_published(state, publishes);
                self.keyed.extend(keyed.iter().map(|(key, _)| key.clone()));
            }
            Event::Attempts { subscription, attempts } => {
                let positions = attempts.iter().filter(|_| !planted::is(Bug::AttemptNotRecorded));
                let positions = positions.flat_map(|run| run.start..run.end);
                self.marked.extend(positions.map(|position| (*subscription, position)));
            }
            Event::Delay { subscription, position, .. } => self.marked.push((*subscription, *position)),
            Event::Expire { topic, end } => self.expired.push((*topic, *end)),
            Event::Forget { topic, producers } => self.producers.extend(producers.iter().map(|name| (*topic, name.clone()))),
            Event::Moved { messages } => self.moved.extend(messages.iter().map(|(topic, position, _)| (*topic, *position))),
            Event::Damaged { subscription, position } => {
                if let Some(found) = state.subscription_of(*subscription) {
                    self.touch(state, found.topic);
                }
                self.settled.push(Span { subscription: *subscription, start: *position, end: position + 1 });
            }
        }
    }

    fn note_published(&mut self, state: &State<Place>, publishes: &[Published<Place>]) {
        let mut last = None;
        let mut passing = false;
        for published in publishes {
            if last != Some(published.topic) {
                self.touch(state, published.topic);
                last = Some(published.topic);
                passing = state.topics[published.topic.0 as usize].passing;
            }
            self.passing += usize::from(passing);
            if let Some(Producer { name, .. }) = &published.producer
                && self.producers.last().is_none_or(|(topic, known)| *topic != published.topic || known != name)
            {
                self.producers.push((published.topic, name.clone()));
            }
        }
        if let Some(all) = &mut self.published {
            let mut next: Vec<(TopicId, u64)> = Vec::new();
            for published in publishes {
                let position = match next.iter_mut().find(|(topic, _)| *topic == published.topic) {
                    Some((_, position)) => {
                        *position += 1;
                        *position
                    }
                    None => {
                        let position = state.log(published.topic).next();
                        next.push((published.topic, position));
                        position
                    }
                };
                all.extend(published.handle.message.clone().map(|message| (published.topic, position, message)));
            }
        }
    }

    fn touch(&mut self, state: &State<Place>, topic: TopicId) {
        let index = topic.0 as usize;
        if self.firsts.len() <= index {
            self.firsts.resize(index + 1, UNTOUCHED);
        }
        if self.firsts[index] == UNTOUCHED {
            self.firsts[index] = state.log(topic).next();
            self.touched.push(topic);
        }
    }

    /// So many messages of so many bytes were settled before they were written. Tells whether they were the last on their way.
    pub(crate) fn elide(&mut self, messages: usize, bytes: usize) -> bool {
        if self.published.is_none() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        let before = self.passing;
        self.passing = before.saturating_sub(messages);
        before > 0 && self.passing == 0
    }

    /// What applying an event has told of roots.
    pub(crate) fn tell(&mut self, told: &mut Vec<Told>) {
        self.told.append(told);
    }

    /// Closes the group and gives its parts; it is empty then.
    pub(crate) fn close(&mut self, state: &State<Place>) -> Vec<Part<Place>> {
        self.close_part(state);
        (self.dirty, self.bytes, self.level, self.passing) = (false, 0, None, 0);
        std::mem::take(&mut self.parts)
    }

    fn close_part(&mut self, state: &State<Place>) {
        let mut net = Net { topics: self.survivors(state), settled: std::mem::take(&mut self.settled), ..Net::default() };
        state::merge(&mut net.settled);
        if planted::is(Bug::ForgetSettledSpan) {
            net.settled.pop();
        }
        if planted::is(Bug::SplitStep) {
            self.settled.extend(net.settled.pop());
        }
        self.close_marks(state, &mut net);
        self.close_producers(state, &mut net);
        let value = |key: String| {
            let value = state.keyed.get(&key).cloned();
            (key, value)
        };
        net.state = std::mem::take(&mut self.keyed).into_iter().map(value).collect();
        if planted::is(Bug::RemovalNotWritten) {
            net.state.retain(|(_, value)| value.is_some());
        }
        self.moved.sort_unstable();
        self.moved.dedup();
        let unwritten = |topic: TopicId, position: u64| {
            let place = &state.log(topic).get(position)?.handle;
            place.at.is_none().then(|| place.clone())
        };
        net.moved = self.moved.drain(..).filter_map(|(topic, at)| Some((topic, at, unwritten(topic, at)?))).collect();
        if planted::is(Bug::MovedNotWritten) {
            net.moved.clear();
        }
        net.expired = std::mem::take(&mut self.expired);
        self.close_roots(state, &mut net);
        let Net { topics, settled, attempts, delays, producers, state, moved, expired, accounts, roots, dropped } = &net;
        let empty = topics.is_empty() && settled.is_empty() && attempts.is_empty() && delays.is_empty() && producers.is_empty();
        let empty = empty && state.is_empty() && moved.is_empty() && expired.is_empty() && accounts.is_empty();
        if !(empty && roots.is_empty() && dropped.is_empty()) {
            self.parts.push(Part::Net(net));
        }
    }

    fn survivors(&mut self, state: &State<Place>) -> Vec<Survivors<Place>> {
        let all = self.published.as_mut().map(std::mem::take);
        let mut topics = Vec::with_capacity(self.touched.len());
        self.touched.sort_unstable();
        for topic in self.touched.drain(..) {
            let first = std::mem::replace(&mut self.firsts[topic.0 as usize], UNTOUCHED);
            let found = &state.topics[topic.0 as usize];
            let survivor = |position: u64, message: &Arc<Message>| {
                (position, Published::new(topic, message, None, Place::from(message.clone())))
            };
            let mut held: Vec<_> = match &all {
                Some(all) => {
                    let ours = all.iter().filter(|(other, ..)| *other == topic);
                    ours.map(|(_, position, message)| survivor(*position, message)).collect()
                }
                None => {
                    let held = found.log.held(first).filter_map(|(at, entry)| Some((at, entry.handle.message.as_ref()?)));
                    held.map(|(position, message)| survivor(position, message)).collect()
                }
            };
            if planted::is(Bug::ElideHalfSettled) {
                let all = found.subscriptions.len() as u32;
                held.retain(|(position, _)| found.log.get(*position).is_none_or(|entry| entry.remaining == all));
            }
            let next = match planted::is(Bug::PositionReused) {
                true => held.last().map_or(first, |(position, _)| position + 1),
                false => found.log.next(),
            };
            topics.push(Survivors { topic, first, next, damaged: found.damaged, held });
        }
        topics
    }

    fn close_marks(&mut self, state: &State<Place>, net: &mut Net<Place>) {
        self.marked.sort_unstable();
        self.marked.dedup();
        for (number, position) in self.marked.drain(..) {
            let Some(found) = state.subscription_of(number).filter(|found| !found.settled.contains(position)) else { continue };
            net.attempts.push((number, position, found.attempts.get(&position).copied().unwrap_or(0)));
            if planted::is(Bug::DelayNotWritten) {
                continue;
            }
            net.delays.extend(found.delays.get(&position).map(|delay| (number, position, *delay)));
        }
    }

    fn close_producers(&mut self, state: &State<Place>, net: &mut Net<Place>) {
        self.producers.sort_unstable();
        self.producers.dedup();
        for (topic, name) in self.producers.drain(..) {
            let last = state.topics[topic.0 as usize].producers.get(&name).copied();
            net.producers.push((topic, name, last));
        }
    }

    fn close_roots(&mut self, state: &State<Place>, net: &mut Net<Place>) {
        let written = |(topic, position): (TopicId, u64)| {
            let survivors = net.topics.iter().find(|survivors| survivors.topic == topic);
            survivors.is_some_and(|found| found.held.binary_search_by_key(&position, |(at, _)| *at).is_ok())
        };
        let mut roots: Vec<u128> =
            self.told.drain(..).filter(|told| !told.sent_at.is_some_and(written)).map(|told| told.root).collect();
        roots.sort_unstable();
        roots.dedup();
        let note = |id: u128| {
            let (topology, sent, dropped) = state.roots.note(id)?;
            Some(RootNote { id, topology, sent, dropped })
        };
        net.roots = roots.into_iter().filter_map(note).collect();
        let accounts = state.roots.all_accounts();
        for (number, account) in accounts.iter().enumerate() {
            if self.accounts.get(number) != Some(account) {
                net.accounts.push((number as u32, *account));
            }
        }
        self.accounts.clear();
        self.accounts.extend_from_slice(accounts);
        net.dropped = state.roots.dropped_last(state.roots.dropped_total() - self.dropped);
        self.dropped = state.roots.dropped_total();
        for (bug, clear) in [
            (Bug::AccountNotWritten, (|net| net.accounts.clear()) as fn(&mut Net<Place>)),
            (Bug::RootNoteLeftOut, |net| net.roots.clear()),
            (Bug::DroppedNotWritten, |net| net.dropped.clear()),
        ] {
            if planted::is(bug) {
                clear(net);
            }
        }
    }
}
