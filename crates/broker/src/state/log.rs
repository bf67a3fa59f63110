//! The messages that a topic holds: where each one is, and who still needs it.

use super::spill::Spilled;
use crate::planted::{self, Bug};
use std::collections::VecDeque;

/// Messages per block. A block is freed when none of its messages is held, so one old message keeps 512 entries of 40 bytes and no more. The tests of this
/// crate have small ones, so that a few messages fill, spill and load many blocks.
pub(crate) const BLOCK_MESSAGES: u64 = if cfg!(test) { 4 } else { 512 };

/// One held message.
#[derive(Clone, Debug)]
pub(crate) struct Entry<H> {
    /// Where its bytes are.
    pub(crate) handle: H,
    /// The slot of its root, valid while `remaining > 0`.
    pub(crate) root: u32,
    /// A hash of its key, 0 for none. Two keys of one hash are kept in order together, which does no harm.
    pub(crate) key: u32,
    /// Subscriptions that have not settled it.
    pub(crate) remaining: u32,
}

impl<H> Entry<H> {
    /// A message that so many subscriptions need. What nobody needs says nothing of its root, whose slot may be another's when somebody does.
    pub(crate) fn new(handle: H, root: u32, key: u32, remaining: u32) -> Self {
        let root = if remaining == 0 { super::UNTRACKED } else { root };
        Self { handle, root, key, remaining }
    }
}

/// The held messages of one topic by position.
#[derive(Debug)]
pub(crate) struct Log<H> {
    next: u64,
    pending: u64,
    /// The number of the first of the blocks; those before it are empty.
    base: u64,
    /// By number from `base` on. An empty block in between costs 16 bytes, so one old message before 50 million that are gone costs 1.6 MB.
    pub(super) blocks: VecDeque<Slot<H>>,
    /// The last block that was emptied, so that a topic through which messages only pass allocates nothing.
    spare: Option<Box<Block<H>>>,
    /// How many blocks are in memory, and how many are on disk.
    pub(super) loaded: usize,
    pub(super) spilled: usize,
    /// The blocks at which the next look for some to spill begins: for those that are new, and for those that could not be spilled when they were.
    pub(super) spill_from: [u64; 2],
}

/// One block, or none.
#[derive(Debug)]
pub(super) enum Slot<H> {
    Empty,
    Loaded(Box<Block<H>>),
    Spilled(Box<Spilled<H>>),
}

#[derive(Debug)]
pub(super) struct Block<H> {
    pub(super) entries: Vec<Option<Entry<H>>>,
    pub(super) held: u32,
    pub(super) pending: u32,
    /// The newest creation time in it, in milliseconds since the Unix epoch.
    pub(super) newest_ms: u64,
    /// Bytes of all messages that were put in it.
    pub(super) bytes: u64,
    /// Its index is being written, and nothing has changed since.
    pub(super) spilling: bool,
}

impl<H> Default for Block<H> {
    fn default() -> Self {
        Self { entries: Vec::new(), held: 0, pending: 0, newest_ms: 0, bytes: 0, spilling: false }
    }
}

impl<H> Default for Log<H> {
    fn default() -> Self {
        let blocks = VecDeque::new();
        Self { next: 0, pending: 0, base: 0, blocks, spare: None, loaded: 0, spilled: 0, spill_from: [0; 2] }
    }
}

impl<H> Slot<H> {
    fn loaded(&self) -> Option<&Block<H>> {
        match self {
            Self::Loaded(block) => Some(block),
            Self::Empty | Self::Spilled(_) => None,
        }
    }
}

impl<H> Log<H> {
    /// The position that the next message gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Messages that some subscription has not settled.
    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// No fewer than the messages that are held in memory.
    pub(crate) fn loaded_messages_max(&self) -> usize {
        self.loaded * BLOCK_MESSAGES as usize
    }

    /// Appends a message of so many bytes, or only counts its position if nobody keeps it.
    pub(crate) fn push(&mut self, entry: Option<Entry<H>>, created_ms: u64, bytes: usize) -> u64 {
        let position = self.next;
        match entry {
            Some(entry) => self.put(position, entry, created_ms, bytes),
            None => self.set_next(position + 1),
        }
        position
    }

    /// Puts an entry at a position, as a record or a snapshot gives it.
    pub(crate) fn put(&mut self, position: u64, entry: Entry<H>, created_ms: u64, bytes: usize) {
        self.set_next(position + 1);
        let pending = u32::from(entry.remaining > 0);
        let index = (position % BLOCK_MESSAGES) as usize;
        let block = self.block_made(position / BLOCK_MESSAGES);
        if index < block.entries.len() {
            block.entries[index] = Some(entry);
        } else {
            block.entries.resize_with(index, || None);
            block.entries.push(Some(entry));
        }
        block.held += 1;
        block.pending += pending;
        block.bytes += bytes as u64;
        block.newest_ms = block.newest_ms.max(created_ms);
        self.pending += u64::from(pending);
    }

    /// Moves on to where the next message goes, at least.
    pub(crate) fn set_next(&mut self, next: u64) {
        let left = self.next / BLOCK_MESSAGES;
        self.next = self.next.max(next);
        if self.next / BLOCK_MESSAGES > left && self.block(left).is_some_and(|block| block.held == 0) {
            self.drop_block(left);
        }
    }

    pub(super) fn slot(&self, number: u64) -> Option<&Slot<H>> {
        self.blocks.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    pub(super) fn slot_mut(&mut self, number: u64) -> Option<&mut Slot<H>> {
        self.blocks.get_mut(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    pub(super) fn block(&self, number: u64) -> Option<&Block<H>> {
        self.slot(number)?.loaded()
    }

    pub(super) fn block_mut(&mut self, number: u64) -> Option<&mut Block<H>> {
        match self.slot_mut(number)? {
            Slot::Loaded(block) => Some(block),
            Slot::Empty | Slot::Spilled(_) => None,
        }
    }

    /// The place of a block, made if there is none.
    pub(super) fn slot_made(&mut self, number: u64) -> &mut Slot<H> {
        if self.blocks.is_empty() {
            self.base = number;
        }
        while number < self.base {
            self.base -= 1;
            self.blocks.push_front(Slot::Empty);
        }
        let index = (number - self.base) as usize;
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, || Slot::Empty);
        }
        &mut self.blocks[index]
    }

    fn block_made(&mut self, number: u64) -> &mut Block<H> {
        if !matches!(self.slot(number), Some(Slot::Loaded(_))) {
            let block = self.spare.take().unwrap_or_default();
            *self.slot_made(number) = Slot::Loaded(block);
            self.loaded += 1;
        }
        let Slot::Loaded(block) = &mut self.blocks[(number - self.base) as usize] else { unreachable!("it was made") };
        block
    }

    pub(super) fn drop_block(&mut self, number: u64) {
        if let Some(Slot::Loaded(mut block)) = self.slot_mut(number).map(|slot| std::mem::replace(slot, Slot::Empty)) {
            block.entries.clear();
            *block = Block { entries: std::mem::take(&mut block.entries), ..Block::default() };
            self.spare = Some(block);
            self.loaded -= 1;
        }
        self.trim();
    }

    /// Takes a block out of memory that goes elsewhere; its place stays.
    pub(super) fn drop_loaded(&mut self, number: u64) {
        if let Some(slot) = self.slot_mut(number).filter(|slot| slot.loaded().is_some()) {
            *slot = Slot::Empty;
            self.loaded -= 1;
        }
    }

    /// Lets go of the empty blocks at the front.
    pub(super) fn trim(&mut self) {
        while matches!(self.blocks.front(), Some(Slot::Empty)) {
            self.blocks.pop_front();
            self.base += 1;
        }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn change_pending(&mut self, change: impl FnOnce(u64) -> u64) {
        self.pending = change(self.pending);
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Block<H>)> + '_ {
        self.blocks.iter().zip(self.base..).filter_map(|(slot, number)| Some((number, slot.loaded()?)))
    }

    /// Number, whether anything in it is pending, the newest creation time, and bytes of each block, wherever it is.
    fn outlines(&self) -> impl Iterator<Item = (u64, bool, u64, u64)> + '_ {
        self.blocks.iter().zip(self.base..).filter_map(|(slot, number)| match slot {
            Slot::Empty => None,
            Slot::Loaded(block) => Some((number, block.pending > 0, block.newest_ms, block.bytes)),
            Slot::Spilled(block) => Some((number, block.remaining > 0, block.newest_ms, block.bytes)),
        })
    }

    pub(crate) fn get(&self, position: u64) -> Option<&Entry<H>> {
        self.block(position / BLOCK_MESSAGES)?.entries.get((position % BLOCK_MESSAGES) as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut Entry<H>> {
        self.block_mut(position / BLOCK_MESSAGES)?.entries.get_mut((position % BLOCK_MESSAGES) as usize)?.as_mut()
    }

    /// Where the messages from `start` on end that have so many bytes together, but not before one message and not after `end`.
    pub(crate) fn end_of_bytes(&self, start: u64, end: u64, bytes_max: usize, size: impl Fn(&H) -> usize) -> u64 {
        // Mostly all messages of these blocks together have fewer.
        let blocks = start / BLOCK_MESSAGES..end.div_ceil(BLOCK_MESSAGES);
        if blocks.filter_map(|number| self.block(number)).map(|block| block.bytes).sum::<u64>() <= bytes_max as u64 {
            return end;
        }
        let mut bytes = 0;
        let over = |position: &u64| {
            bytes += self.get(*position).map_or(0, |entry| size(&entry.handle));
            bytes > bytes_max && *position > start
        };
        (start..end).find(over).unwrap_or(end)
    }

    /// One subscription needs this message (again).
    pub(crate) fn need(&mut self, position: u64) -> Option<&Entry<H>> {
        let block = self.block_mut(position / BLOCK_MESSAGES)?;
        block.spilling = false;
        let entry = block.entries.get_mut((position % BLOCK_MESSAGES) as usize)?.as_mut()?;
        entry.remaining += 1;
        if entry.remaining == 1 {
            block.pending += 1;
            self.pending += 1;
        }
        self.get(position)
    }

    /// One subscription needs this message no more. Gives its root's slot, and its handle if it is freed because nobody needs it and `keep`
    /// does not ask for it.
    pub(crate) fn release(&mut self, position: u64, keep: bool) -> Option<(u32, Option<H>)> {
        let number = position / BLOCK_MESSAGES;
        let block = self.block_mut(number)?;
        let place = block.entries.get_mut((position % BLOCK_MESSAGES) as usize)?;
        let entry = place.as_mut()?;
        let root = entry.root;
        block.spilling = false;
        entry.remaining = entry.remaining.saturating_sub(1);
        if entry.remaining > 0 {
            return Some((root, None));
        }
        entry.root = super::roots::UNTRACKED;
        block.pending = block.pending.saturating_sub(1);
        let handle = match keep {
            true => None,
            false => {
                block.held -= 1;
                place.take().map(|entry| entry.handle)
            }
        };
        let empty = block.held == 0;
        self.pending = self.pending.saturating_sub(1);
        // The last block is kept: the next message goes there.
        if empty && number != self.next / BLOCK_MESSAGES {
            self.drop_block(number);
        }
        Some((root, handle))
    }

    /// A message is somewhere else now; gives where it was, or the new place if nobody needs the message any more.
    pub(crate) fn replace(&mut self, position: u64, handle: H) -> H {
        let Some(block) = self.block_mut(position / BLOCK_MESSAGES) else { return handle };
        block.spilling = false;
        match block.entries.get_mut((position % BLOCK_MESSAGES) as usize).and_then(Option::as_mut) {
            Some(entry) => std::mem::replace(&mut entry.handle, handle),
            None => handle,
        }
    }

    /// The positions that are held in memory from `from` on, in order.
    pub(crate) fn held(&self, from: u64) -> impl Iterator<Item = (u64, &Entry<H>)> + '_ {
        let skip = usize::try_from((from / BLOCK_MESSAGES).saturating_sub(self.base)).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().zip(self.base..).skip(skip);
        blocks.filter_map(|(slot, number)| Some((number, slot.loaded()?))).flat_map(move |(number, block)| {
            let start = number * BLOCK_MESSAGES;
            let skip = from.saturating_sub(start).min(BLOCK_MESSAGES) as usize;
            let entries = block.entries.iter().enumerate().skip(skip);
            entries.filter_map(move |(index, entry)| Some((start + index as u64, entry.as_ref()?)))
        })
    }

    /// All that is held in memory, with the newest creation time of each one's block.
    pub(crate) fn held_with_time(&self) -> impl Iterator<Item = (u64, &Entry<H>, u64)> + '_ {
        self.numbered().flat_map(|(number, block)| {
            let entries = block.entries.iter().enumerate();
            entries.filter_map(move |(index, entry)| {
                Some((number * BLOCK_MESSAGES + index as u64, entry.as_ref()?, block.newest_ms))
            })
        })
    }

    /// The first position of the first block that may hold a message created at or after this time.
    pub(crate) fn first_since(&self, created_ms: u64) -> Option<u64> {
        self.outlines().find(|(_, _, newest_ms, _)| *newest_ms >= created_ms).map(|(number, ..)| number * BLOCK_MESSAGES)
    }

    /// The end of the blocks at the front in which everything is settled and which are older than this time, or more than so many bytes.
    pub(crate) fn expirable(&self, created_ms: u64, bytes_max: u64) -> Option<u64> {
        let last = self.next / BLOCK_MESSAGES;
        let mut bytes: u64 = match bytes_max {
            u64::MAX => 0,
            _ => self.outlines().map(|(_, _, _, bytes)| bytes).sum(),
        };
        let mut end = None;
        for (number, pending, newest_ms, block_bytes) in self.outlines() {
            let pending = pending && !planted::is(Bug::ExpireUnsettled);
            if number >= last || pending || (newest_ms >= created_ms && bytes <= bytes_max) {
                break;
            }
            bytes = bytes.saturating_sub(block_bytes);
            end = Some((number + 1) * BLOCK_MESSAGES);
        }
        end
    }

    /// Frees the settled messages of a block.
    pub(super) fn expire_block(&mut self, number: u64, freed: &mut Vec<H>) {
        let Some(block) = self.block_mut(number) else { return };
        block.spilling = false;
        for place in &mut block.entries {
            if let Some(entry) = place.take_if(|entry| entry.remaining == 0 || planted::is(Bug::ExpireUnsettled)) {
                freed.push(entry.handle);
                block.held -= 1;
            }
        }
        if block.held == 0 {
            self.drop_block(number);
        }
    }

    /// How many blocks are kept: what a long run must not let grow.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> usize {
        self.loaded + self.spilled
    }
}
