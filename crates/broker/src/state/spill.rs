//! Blocks whose index lies on disk: what is known of one without reading it, and what can be done with it like that.
//!
//! A spilled block is full, and each subscription has settled all of it or nothing. So whatever happens to all of it happens to its summary; for
//! anything else it must be loaded first, and [`State`] says which blocks that are. Roots of which a message of it is all there is
//! are not in the table of roots; they count in the account and are found by the [`Shelf`](super::shelf::Shelf).

use super::{
    Entry, Log, Missing, Settled, State, SubscriptionId, TopicId, UNTRACKED,
    log::{BLOCK_MESSAGES, Block, Slot},
    shelf::Ticket,
};
use crate::TopicKind;
use rustc_hash::FxHashMap;

/// A block whose index lies on disk.
#[derive(Debug)]
pub(crate) struct Spilled<H> {
    /// Where its index is.
    pub(crate) handle: H,
    /// Subscriptions that have not settled it.
    pub(crate) remaining: u32,
    /// The newest creation time in it.
    pub(crate) newest_ms: u64,
    /// Bytes of its messages, as the log counts them.
    pub(crate) bytes: u64,
    /// Roots that were sent once and of which its messages are all there is.
    pub(crate) sent: u32,
    /// Whether it has messages of roots that are in the table.
    pub(crate) shared: bool,
    /// How many of its messages are in which segment.
    pub(crate) runs: Box<[Run]>,
    /// `None` if no root is to be found in it.
    pub(super) ticket: Option<Ticket>,
}

/// Messages of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) segment: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What an index on disk says of the messages of a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index<H> {
    pub(crate) newest_ms: u64,
    pub(crate) bytes: u64,
    /// One for each position of the block.
    pub(crate) entries: Vec<Indexed<H>>,
}

/// One message in an index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Indexed<H> {
    pub(crate) handle: H,
    pub(crate) key: u32,
    /// 0 if it is not tracked.
    pub(crate) root: u128,
    /// How often its root was sent, 0 or 1, if this message is all there is of it; `None` if the root is in the table, or none.
    pub(crate) sole: Option<u32>,
}

impl<H> Index<H> {
    /// Roots of which nothing but these messages is there.
    pub(super) fn soles(&self) -> impl Iterator<Item = u128> + '_ {
        self.entries.iter().filter(|entry| entry.sole.is_some()).map(|entry| entry.root)
    }

    fn sent(&self) -> u32 {
        self.entries.iter().filter_map(|entry| entry.sole).sum()
    }

    fn shared(&self) -> bool {
        self.entries.iter().any(|entry| entry.root != 0 && entry.sole.is_none())
    }
}

impl<H> Log<H> {
    /// The spilled block that holds this position.
    pub(crate) fn spilled_at(&self, position: u64) -> Option<&Spilled<H>> {
        if self.spilled == 0 {
            return None;
        }
        match self.slot(position / BLOCK_MESSAGES)? {
            Slot::Spilled(block) => Some(block),
            Slot::Empty | Slot::Loaded(_) => None,
        }
    }

    /// The spilled blocks that hold something of `start..end`, with their numbers.
    pub(crate) fn spilled_within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Spilled<H>)> + '_ {
        let first = (start / BLOCK_MESSAGES).max(self.base());
        let skip = usize::try_from(first - self.base()).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().skip(if self.spilled == 0 { usize::MAX } else { skip });
        let within = blocks.zip(first..).take_while(move |(_, number)| number * BLOCK_MESSAGES < end);
        within.filter_map(|(slot, number)| match slot {
            Slot::Spilled(block) => Some((number, &**block)),
            Slot::Empty | Slot::Loaded(_) => None,
        })
    }

    /// How far nothing of `start..end` is spilled.
    pub(crate) fn loaded_until(&self, start: u64, end: u64) -> u64 {
        if self.spilled == 0 {
            return end;
        }
        self.spilled_within(start, end).next().map_or(end, |(number, _)| start.max(number * BLOCK_MESSAGES))
    }

    /// All spilled blocks.
    pub(crate) fn all_spilled(&self) -> impl Iterator<Item = (u64, &Spilled<H>)> + '_ {
        self.spilled_within(0, u64::MAX)
    }

    /// The first position that is held, wherever.
    pub(crate) fn first_held(&self) -> Option<u64> {
        let spilled = self.all_spilled().next().map(|(number, _)| number * BLOCK_MESSAGES);
        let loaded = self.held(0).next().map(|(position, _)| position);
        spilled.into_iter().chain(loaded).min()
    }

    /// Whether a message is held, wherever.
    pub(super) fn holds(&self, position: u64) -> bool {
        self.get(position).is_some() || self.spilled_at(position).is_some()
    }

    /// What is held from `from` on: positions in memory one by one, spilled blocks as ranges.
    pub(super) fn held_ranges(&self, from: u64) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = self.held(from).map(|(position, _)| (position, position + 1)).collect();
        let loaded = ranges.len();
        ranges.extend(self.spilled_within(from, u64::MAX).map(|(number, _)| range_of(number)));
        if ranges.len() > loaded && loaded > 0 {
            ranges.sort_unstable();
        }
        ranges
    }

    fn spilled_mut(&mut self, number: u64) -> Option<&mut Spilled<H>> {
        match self.slot_mut(number)? {
            Slot::Spilled(block) => Some(block),
            Slot::Empty | Slot::Loaded(_) => None,
        }
    }

    /// Puts a spilled block in its place.
    pub(crate) fn put_spilled(&mut self, number: u64, spilled: Spilled<H>) {
        self.set_next((number + 1) * BLOCK_MESSAGES);
        if spilled.remaining > 0 {
            self.change_pending(|pending| pending + BLOCK_MESSAGES);
        }
        self.spilled += 1;
        *self.slot_made(number) = Slot::Spilled(Box::new(spilled));
    }

    /// Takes a spilled block out of its place.
    fn take_spilled(&mut self, number: u64) -> Option<Box<Spilled<H>>> {
        self.spilled_mut(number)?;
        let Slot::Spilled(block) = std::mem::replace(self.slot_mut(number)?, Slot::Empty) else { return None };
        self.spilled -= 1;
        if block.remaining > 0 {
            self.change_pending(|pending| pending - BLOCK_MESSAGES);
        }
        Some(block)
    }

    /// Entries of a block that is full and of which all messages are needed by equally many, and how many these are.
    fn uniform(&self, number: u64) -> Option<(&Block<H>, u32)> {
        let block = self.block(number).filter(|block| u64::from(block.held) == BLOCK_MESSAGES)?;
        let remaining = block.entries.first()?.as_ref()?.remaining;
        let alike = |entry: &Option<Entry<H>>| entry.as_ref().is_some_and(|entry| entry.remaining == remaining);
        block.entries.iter().all(alike).then_some((block, remaining))
    }
}

pub(super) fn range_of(number: u64) -> (u64, u64) {
    (number * BLOCK_MESSAGES, (number + 1) * BLOCK_MESSAGES)
}

impl<H> State<H> {
    /// How many blocks are spilled.
    pub(crate) fn spilled(&self) -> usize {
        self.topics.iter().map(|topic| topic.log.spilled).sum()
    }

    /// How many blocks are in memory.
    pub(crate) fn loaded(&self) -> usize {
        self.topics.iter().map(|topic| topic.log.loaded).sum()
    }

    /// A subscription settles a spilled block, all of it, if it has not done so before.
    pub(super) fn settle_spilled(&mut self, subscription: SubscriptionId, topic: TopicId, number: u64) {
        let (start, end) = range_of(number);
        let Some(subscription) = self.subscriptions[subscription.0 as usize].as_mut() else { return };
        if subscription.settled.all_or_nothing(start, end) == Some(true) {
            return;
        }
        forget_marks(&mut subscription.attempts, start, end);
        forget_marks(&mut subscription.delays, start, end);
        subscription.settled.insert(start, end);
        let found = &mut self.topics[topic.0 as usize];
        let Some(block) = found.log.spilled_mut(number).filter(|block| block.remaining > 0) else { return };
        block.remaining -= 1;
        if block.remaining > 0 {
            return;
        }
        let sent = std::mem::take(&mut block.sent);
        block.shared = false;
        if let Some(ticket) = block.ticket.take() {
            self.shelf.remove(ticket);
            self.ended_unseen = true;
        }
        found.log.change_pending(|pending| pending - BLOCK_MESSAGES);
        self.roots.finish(found.topology, u64::from(sent));
        if found.spec.retention.is_zero() {
            self.drop_spilled(topic, number);
        }
    }

    /// Lets go of a spilled block that nobody needs.
    pub(super) fn drop_spilled(&mut self, topic: TopicId, number: u64) {
        let found = &mut self.topics[topic.0 as usize];
        let Some(block) = found.log.take_spilled(number) else { return };
        self.freed.push(block.handle);
        self.freed_runs.extend_from_slice(&block.runs);
        let (start, end) = range_of(number);
        if !found.deliver_at.is_empty() {
            found.deliver_at.retain(|position, _| !(start..end).contains(position));
        }
        found.log.trim();
    }

    /// One more subscription needs a spilled block, all of it.
    pub(super) fn need_spilled(&mut self, topic: TopicId, number: u64) {
        let log = &mut self.topics[topic.0 as usize].log;
        let Some(block) = log.spilled_mut(number) else { return };
        block.remaining += 1;
        if block.remaining == 1 {
            log.change_pending(|pending| pending + BLOCK_MESSAGES);
        }
    }
}

impl<H: Clone + PartialEq> State<H> {
    /// Looks for at most `count` blocks that can be spilled and are not to be read soon: `near` tells up to where the consumers of a subscription have
    /// got, and `ahead` how many messages further they may get. Looks through some blocks only, and goes on there the next time.
    pub(crate) fn spillable(
        &mut self,
        near: impl Fn(SubscriptionId) -> u64,
        ahead: u64,
        count: usize,
        mut take: impl FnMut(&Self, TopicId, u64) -> bool,
    ) {
        let mut left = count;
        for topic in 0..self.topics.len() {
            let topic = TopicId(topic as u32);
            let log = self.log(topic);
            let (base, end) = (log.base(), log.next() / BLOCK_MESSAGES);
            let from = log.spill_from.map(|from| if (base..end).contains(&from) { from } else { base });
            // Most can be spilled when their turn comes. The others are looked at again, some at a time.
            let looked = from.map(|from| {
                let until = end.min(from + LOOK_BLOCKS_MAX);
                let mut number = from;
                while number < until && left > 0 {
                    if self.may_spill(topic, number, &near, ahead) && take(self, topic, number) {
                        left -= 1;
                        self.set_spilling(topic, number, true);
                    }
                    number += 1;
                }
                number
            });
            self.topics[topic.0 as usize].log.spill_from = looked;
        }
    }

    fn may_spill(&self, topic: TopicId, number: u64, near: &impl Fn(SubscriptionId) -> u64, ahead: u64) -> bool {
        let block = self.log(topic).block(number).filter(|block| !block.spilling);
        block.is_some() && self.is_far(topic, number, near, ahead) && self.log(topic).uniform(number).is_some()
    }

    /// Notes whether the index of a block is being written.
    pub(crate) fn set_spilling(&mut self, topic: TopicId, number: u64, spilling: bool) {
        if let Some(block) = self.topics[topic.0 as usize].log.block_mut(number) {
            block.spilling = spilling;
        }
    }

    /// Whether no consumer has got so near to this block that it is to be read soon, or holds something of it.
    pub(crate) fn is_far(&self, topic: TopicId, number: u64, near: &impl Fn(SubscriptionId) -> u64, ahead: u64) -> bool {
        let (start, end) = range_of(number);
        let far = |number: &SubscriptionId| {
            let Some(subscription) = self.subscription_of(*number) else { return true };
            match subscription.settled.all_or_nothing(start, end) {
                None => false,
                Some(true) => true,
                Some(false) => start >= near(*number).max(subscription.settled.cursor()).saturating_add(ahead),
            }
        };
        self.topics[topic.0 as usize].subscriptions.iter().all(far)
    }

    /// What the index of a block says; `None` if it cannot be spilled as it is. `place` gives where a message lies, if it does.
    pub(crate) fn index(&self, topic: TopicId, number: u64, place: impl Fn(&H) -> Option<H>) -> Option<Index<H>> {
        let found = &self.topics[topic.0 as usize];
        let (block, remaining) = found.log.uniform(number)?;
        let indexed = |entry: &Entry<H>| {
            let handle = place(&entry.handle)?;
            let tracked = entry.root != UNTRACKED && remaining > 0;
            let root = if tracked { self.roots.id(entry.root) } else { 0 };
            // A dead letter's root is known by its name wherever it ends, so it stays in the table.
            let sole = match found.spec.kind {
                TopicKind::DeadLetter => None,
                _ if !tracked => None,
                _ => self.roots.sole(entry.root, remaining, found.topology),
            };
            Some(Indexed { handle, key: entry.key, root, sole })
        };
        let entries = block.entries.iter().flatten().map(indexed).collect::<Option<Vec<_>>>()?;
        Some(Index { newest_ms: block.newest_ms, bytes: block.bytes, entries })
    }

    /// Replays that an index was written; it is passed over if it is not that of what is there.
    pub(crate) fn replay_spill(&mut self, topic: TopicId, number: u64, index: &Index<H>, handle: H, runs: Vec<Run>) {
        if let Some(block) = self.topics.get_mut(topic.0 as usize).and_then(|topic| topic.log.block_mut(number)) {
            block.spilling = true;
            self.spill(topic, number, index, handle, runs);
        }
    }

    /// Puts a block away whose index has been written at `handle`, unless it has changed since. Gives the entries that were in memory.
    pub(crate) fn spill(
        &mut self,
        topic: TopicId,
        number: u64,
        index: &Index<H>,
        handle: H,
        runs: Vec<Run>,
    ) -> Option<Vec<Option<Entry<H>>>> {
        let found = &mut self.topics[topic.0 as usize];
        let (block, remaining) = found.log.uniform(number).filter(|(block, _)| block.spilling)?;
        // A root may have got something elsewhere meanwhile.
        let mut both = block.entries.iter().flatten().zip(&index.entries);
        let same = both.all(|(entry, indexed)| {
            let sole = indexed.sole.is_none_or(|sent| self.roots.sole(entry.root, remaining, found.topology) == Some(sent));
            sole && entry.handle == indexed.handle
        });
        if !same || index.entries.len() as u64 != BLOCK_MESSAGES {
            return None;
        }
        for (entry, indexed) in block.entries.iter().flatten().zip(&index.entries) {
            if indexed.sole.is_some() {
                self.roots.forget(entry.root);
            }
        }
        let entries = found.log.block_mut(number).map(|block| std::mem::take(&mut block.entries))?;
        if remaining > 0 {
            found.log.change_pending(|pending| pending - BLOCK_MESSAGES);
        }
        found.log.drop_loaded(number);
        self.shelve(topic, number, remaining, index, handle, runs);
        Some(entries)
    }

    fn shelve(&mut self, topic: TopicId, number: u64, remaining: u32, index: &Index<H>, handle: H, runs: Vec<Run>) {
        let mut soles = index.soles().peekable();
        let ticket = soles.peek().is_some().then(|| self.shelf.add(topic, number, index.soles()));
        let spilled = Spilled {
            handle,
            remaining,
            newest_ms: index.newest_ms,
            bytes: index.bytes,
            sent: index.sent(),
            shared: index.shared(),
            runs: runs.into(),
            ticket,
        };
        self.topics[topic.0 as usize].log.put_spilled(number, spilled);
    }

    /// Puts a spilled block of a snapshot in its place. `index` is what it says if there are roots to be found in it.
    pub(crate) fn restore_spilled(&mut self, topic: TopicId, number: u64, image: SpilledImage<H>, index: Option<&Index<H>>) {
        let SpilledImage { handle, remaining, newest_ms, bytes, sent, shared, runs } = image;
        let ticket = index.map(|index| self.shelf.add(topic, number, index.soles()));
        let spilled = Spilled { handle, remaining, newest_ms, bytes, sent, shared, runs: runs.into(), ticket };
        self.topics[topic.0 as usize].log.put_spilled(number, spilled);
    }

    /// Brings a block back that is still where it was when this was read.
    pub(crate) fn load(&mut self, missing: &Missing<H>, index: Index<H>) {
        let Missing { topic, number, handle, .. } = missing;
        let found = &mut self.topics[topic.0 as usize];
        if found.log.spilled_mut(*number).is_none_or(|block| block.handle != *handle) {
            return;
        }
        let Some(spilled) = found.log.take_spilled(*number) else { return };
        if let Some(ticket) = spilled.ticket {
            self.shelf.remove(ticket);
        }
        let (start, topology) = (number * BLOCK_MESSAGES, found.topology);
        let remaining = spilled.remaining;
        let tracked = spilled.shared || spilled.ticket.is_some();
        for (position, Indexed { handle, key, root, sole }) in (start..).zip(index.entries) {
            let root = match sole {
                _ if root == 0 || !tracked => UNTRACKED,
                Some(sent) => self.roots.recall(root, topology, sent, remaining),
                None => self.roots.known(root).unwrap_or(UNTRACKED),
            };
            let log = &mut self.topics[topic.0 as usize].log;
            log.put(position, Entry { handle, root, key, remaining }, index.newest_ms, 0);
        }
        if let Some(block) = self.topics[topic.0 as usize].log.block_mut(*number) {
            block.bytes = index.bytes;
        }
        self.freed.push(spilled.handle);
        self.roots.evaluate(&mut self.finished);
    }
}

/// A spilled block as a snapshot holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpilledImage<H> {
    pub(crate) handle: H,
    pub(crate) remaining: u32,
    pub(crate) newest_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) sent: u32,
    pub(crate) shared: bool,
    pub(crate) runs: Vec<Run>,
}

impl<H> Spilled<H> {
    /// Whether roots are to be found in it.
    pub(crate) fn has_roots(&self) -> bool {
        self.ticket.is_some()
    }
}

/// Blocks that are looked at in one look for some that can be spilled: the engine is locked meanwhile.
const LOOK_BLOCKS_MAX: u64 = 1_024;

/// Forgets attempts and delays of a range.
pub(super) fn forget_marks<V>(marks: &mut FxHashMap<u64, V>, start: u64, end: u64) {
    if !marks.is_empty() {
        marks.retain(|position, _| !(start..end).contains(position));
    }
}

/// Whether a subscription had settled a spilled block.
pub(super) fn was_settled(settled: &Settled, start: u64, end: u64) -> bool {
    settled.all_or_nothing(start, end) == Some(true)
}
