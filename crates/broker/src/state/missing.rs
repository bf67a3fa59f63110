//! Which spilled blocks must be loaded before something can be done.

use super::{
    Event, Index, Net, Span, State, Subscription, SubscriptionId, TopicId,
    log::BLOCK_MESSAGES,
    shelf::Ticket,
    spill::{Spilled, range_of},
};
use crate::TopicKind;
use rustc_hash::FxHashSet;

/// A block that must be loaded before something can be done, or looked into for a root.
#[derive(Clone, Debug)]
pub(crate) struct Missing<H> {
    pub(crate) topic: TopicId,
    pub(crate) number: u64,
    pub(crate) handle: H,
    /// It is only to be loaded if it holds this root.
    root: Option<(u128, Ticket)>,
}

/// Blocks that were looked into for a root which was not there: an index never changes.
pub(crate) type Looked = FxHashSet<(u128, Ticket)>;

impl<H: Clone + PartialEq> State<H> {
    /// Which blocks must be loaded before this span can be settled.
    pub(crate) fn missing_for_span(&self, span: Span, missing: &mut Vec<Missing<H>>) {
        let Some(topic) = self.subscription_of(span.subscription).map(|subscription| subscription.topic) else { return };
        for (number, block) in self.log(topic).spilled_within(span.start, span.end) {
            let (start, end) = range_of(number);
            if block.shared || span.start > start || span.end < end {
                miss(topic, number, block, missing);
            }
        }
    }

    /// Which blocks must be loaded before a change of topics or subscriptions.
    pub(crate) fn missing_for(&self, event: &Event<H>) -> Vec<Missing<H>> {
        let mut missing = Vec::new();
        match event {
            Event::Subscription { topic, from, .. } if (topic.0 as usize) < self.topics.len() => {
                self.missing_from(*topic, *from, &mut missing)
            }
            Event::DeleteTopic(topic) => {
                for number in self.topics.get(topic.0 as usize).into_iter().flat_map(|topic| &topic.subscriptions) {
                    self.missing_below(*number, u64::MAX, &mut missing);
                }
            }
            Event::Unsubscribe(number) => self.missing_below(*number, u64::MAX, &mut missing),
            Event::Seek { subscription, to } => {
                self.missing_below(*subscription, *to, &mut missing);
                if let Some(found) = self.subscription_of(*subscription) {
                    self.missing_from(found.topic, *to, &mut missing);
                }
            }
            _ => {}
        }
        missing
    }

    fn missing_from(&self, topic: TopicId, from: u64, missing: &mut Vec<Missing<H>>) {
        for (number, block) in self.log(topic).spilled_within(from, u64::MAX) {
            if block.shared || from > number * BLOCK_MESSAGES {
                miss(topic, number, block, missing);
            }
        }
    }

    fn missing_below(&self, number: SubscriptionId, end: u64, missing: &mut Vec<Missing<H>>) {
        let Some(Subscription { topic, settled, .. }) = self.subscription_of(number) else { return };
        let end = end.min(self.log(*topic).next());
        for (start, end) in settled.unsettled_below(end) {
            self.missing_for_span(Span { subscription: number, start, end }, missing);
        }
    }

    /// Which blocks may hold this root, if it is in none that is in memory.
    pub(crate) fn missing_root(&self, root: u128, looked: &Looked, missing: &mut Vec<Missing<H>>) {
        if root == 0 || self.roots.known(root).is_some() {
            return;
        }
        let mut found = Vec::new();
        self.shelf.find(root, &mut found);
        for (ticket, topic, number) in found {
            let block = self.log(topic).spilled_at(number * BLOCK_MESSAGES).filter(|block| block.ticket == Some(ticket));
            if let Some(block) = block.filter(|_| !looked.contains(&(root, ticket))) {
                missing.push(Missing { topic, number, handle: block.handle.clone(), root: Some((root, ticket)) });
            }
        }
    }

    /// The first spilled blocks, at most so many, of which this holds.
    pub(crate) fn missing_where(&self, count: usize, holds: impl Fn(&Spilled<H>) -> bool) -> Vec<Missing<H>> {
        let mut missing = Vec::new();
        for (topic, found) in self.topics.iter().enumerate() {
            let left = count - missing.len();
            for (number, block) in found.log.all_spilled().filter(|(_, block)| holds(block)).take(left) {
                miss(TopicId(topic as u32), number, block, &mut missing);
            }
        }
        missing
    }

    /// Whether this block is still where it was.
    pub(crate) fn is_missing(&self, missing: &Missing<H>) -> bool {
        self.log(missing.topic).spilled_at(missing.range().0).is_some_and(|block| block.handle == missing.handle)
    }

    /// The spilled blocks within `start..end`, to be loaded.
    pub(crate) fn missing_within(&self, topic: TopicId, start: u64, end: u64) -> Vec<Missing<H>> {
        let mut missing = Vec::new();
        for (number, block) in self.log(topic).spilled_within(start, end) {
            miss(topic, number, block, &mut missing);
        }
        missing
    }

    /// Which blocks must be loaded before a record can be replayed.
    pub(crate) fn missing_for_net(&self, net: &Net<H>, looked: &Looked) -> Vec<Missing<H>> {
        let mut missing = Vec::new();
        for span in &net.settled {
            self.missing_for_span(*span, &mut missing);
        }
        for (topic, position, _) in &net.moved {
            if let Some(block) = self.topics.get(topic.0 as usize).and_then(|topic| topic.log.spilled_at(*position)) {
                miss(*topic, position / BLOCK_MESSAGES, block, &mut missing);
            }
        }
        let tracked = |topic: TopicId| self.topics.get(topic.0 as usize).is_some_and(|topic| topic.spec.kind != TopicKind::Plain);
        let published = net.topics.iter().filter(|survivors| tracked(survivors.topic)).flat_map(|survivors| &survivors.held);
        for root in published.map(|(_, published)| published.root).chain(net.roots.iter().map(|note| note.id)) {
            self.missing_root(root, looked, &mut missing);
        }
        missing
    }
}

impl<H> Missing<H> {
    /// The positions of the block.
    pub(crate) fn range(&self) -> (u64, u64) {
        range_of(self.number)
    }

    /// Whether what was found is what was looked for; takes note of it if not.
    pub(crate) fn is_wanted(&self, index: &Index<H>, looked: &mut Looked) -> bool {
        let Some((root, ticket)) = self.root else { return true };
        let wanted = index.soles().any(|other| other == root);
        if !wanted {
            looked.insert((root, ticket));
        }
        wanted
    }
}

fn miss<H: Clone>(topic: TopicId, number: u64, block: &Spilled<H>, missing: &mut Vec<Missing<H>>) {
    // A step that settles many messages of a block names it once for each.
    if !missing.last().is_some_and(|last| last.topic == topic && last.number == number && last.root.is_none()) {
        missing.push(Missing { topic, number, handle: block.handle.clone(), root: None });
    }
}
