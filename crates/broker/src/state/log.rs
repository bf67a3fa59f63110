//! The messages that a topic holds: where each one is, and who still needs it.

use crate::planted::{self, Bug};
use std::collections::VecDeque;

/// Messages per block. A block is freed when none of its messages is held, so one old message keeps 512 entries of 24 bytes and no more.
pub(crate) const BLOCK_MESSAGES: u64 = 512;

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
    /// By number from `base` on. An empty block in between costs eight bytes, so one old message before 50 million that are gone costs 800 kB.
    blocks: VecDeque<Option<Box<Block<H>>>>,
    /// The last block that was emptied, so that a topic through which messages only pass allocates nothing.
    spare: Option<Box<Block<H>>>,
}

#[derive(Debug)]
struct Block<H> {
    entries: Vec<Option<Entry<H>>>,
    held: u32,
    pending: u32,
    /// The newest creation time in it, in milliseconds since the Unix epoch.
    newest_ms: u64,
    /// Bytes of all messages that were put in it.
    bytes: u64,
}

impl<H> Default for Block<H> {
    fn default() -> Self {
        Self { entries: Vec::new(), held: 0, pending: 0, newest_ms: 0, bytes: 0 }
    }
}

impl<H> Default for Log<H> {
    fn default() -> Self {
        Self { next: 0, pending: 0, base: 0, blocks: VecDeque::new(), spare: None }
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

    fn block(&self, number: u64) -> Option<&Block<H>> {
        self.blocks.get(usize::try_from(number.checked_sub(self.base)?).ok()?)?.as_deref()
    }

    fn block_mut(&mut self, number: u64) -> Option<&mut Block<H>> {
        self.blocks.get_mut(usize::try_from(number.checked_sub(self.base)?).ok()?)?.as_deref_mut()
    }

    fn block_made(&mut self, number: u64) -> &mut Block<H> {
        if self.blocks.is_empty() {
            self.base = number;
        }
        while number < self.base {
            self.base -= 1;
            self.blocks.push_front(None);
        }
        let index = (number - self.base) as usize;
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, || None);
        }
        let spare = &mut self.spare;
        self.blocks[index].get_or_insert_with(|| spare.take().unwrap_or_default())
    }

    fn drop_block(&mut self, number: u64) {
        let Some(index) = number.checked_sub(self.base) else { return };
        if let Some(mut block) = self.blocks.get_mut(index as usize).and_then(Option::take) {
            block.entries.clear();
            *block = Block { entries: std::mem::take(&mut block.entries), ..Block::default() };
            self.spare = Some(block);
        }
        while self.blocks.front().is_some_and(Option::is_none) {
            self.blocks.pop_front();
            self.base += 1;
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Block<H>)> + '_ {
        self.blocks.iter().zip(self.base..).filter_map(|(block, number)| Some((number, block.as_deref()?)))
    }

    pub(crate) fn get(&self, position: u64) -> Option<&Entry<H>> {
        self.block(position / BLOCK_MESSAGES)?.entries.get((position % BLOCK_MESSAGES) as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut Entry<H>> {
        self.block_mut(position / BLOCK_MESSAGES)?.entries.get_mut((position % BLOCK_MESSAGES) as usize)?.as_mut()
    }

    /// One subscription needs this message (again).
    pub(crate) fn need(&mut self, position: u64) -> Option<&Entry<H>> {
        let entry = self.get_mut(position)?;
        entry.remaining += 1;
        if entry.remaining == 1 {
            self.pending += 1;
            self.block_mut(position / BLOCK_MESSAGES)?.pending += 1;
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

    /// The positions that are held from `from` on, in order.
    pub(crate) fn held(&self, from: u64) -> impl Iterator<Item = (u64, &Entry<H>)> + '_ {
        let skip = usize::try_from((from / BLOCK_MESSAGES).saturating_sub(self.base)).unwrap_or(usize::MAX);
        let blocks = self.blocks.iter().zip(self.base..).skip(skip);
        blocks.filter_map(|(block, number)| Some((number, block.as_deref()?))).flat_map(move |(number, block)| {
            let start = number * BLOCK_MESSAGES;
            let skip = from.saturating_sub(start).min(BLOCK_MESSAGES) as usize;
            let entries = block.entries.iter().enumerate().skip(skip);
            entries.filter_map(move |(index, entry)| Some((start + index as u64, entry.as_ref()?)))
        })
    }

    /// All that is held, with the newest creation time of each one's block.
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
        self.numbered().find(|(_, block)| block.newest_ms >= created_ms).map(|(number, _)| number * BLOCK_MESSAGES)
    }

    /// The end of the blocks at the front in which everything is settled and which are older than this time, or more than so many bytes.
    pub(crate) fn expirable(&self, created_ms: u64, bytes_max: u64) -> Option<u64> {
        let last = self.next / BLOCK_MESSAGES;
        let mut bytes: u64 = match bytes_max {
            u64::MAX => 0,
            _ => self.numbered().map(|(_, block)| block.bytes).sum(),
        };
        let mut end = None;
        for (number, block) in self.numbered() {
            if number >= last
                || (block.pending > 0 && !planted::is(Bug::ExpireUnsettled))
                || (block.newest_ms >= created_ms && bytes <= bytes_max)
            {
                break;
            }
            bytes = bytes.saturating_sub(block.bytes);
            end = Some((number + 1) * BLOCK_MESSAGES);
        }
        end
    }

    /// Frees the settled messages of all blocks before `end`, which is a block's start.
    pub(crate) fn expire(&mut self, end: u64, freed: &mut Vec<H>) {
        for number in self.base..(end / BLOCK_MESSAGES).min(self.base + self.blocks.len() as u64) {
            let Some(block) = self.block_mut(number) else { continue };
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
    }

    /// How many blocks are kept: what a long run must not let grow.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.iter().flatten().count()
    }
}
