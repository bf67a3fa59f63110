//! The messages that a topic holds: where each one is, and who still needs it.

use std::collections::BTreeMap;

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

/// The held messages of one topic by position.
#[derive(Debug)]
pub(crate) struct Log<H> {
    next: u64,
    pending: u64,
    blocks: BTreeMap<u64, Block<H>>,
}

#[derive(Debug)]
struct Block<H> {
    entries: Vec<Option<Entry<H>>>,
    held: u32,
    pending: u32,
    /// The newest creation time in it, in milliseconds since the Unix epoch.
    newest_ms: u64,
}

impl<H> Default for Log<H> {
    fn default() -> Self {
        Self { next: 0, pending: 0, blocks: BTreeMap::new() }
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

    /// Appends a message, or only counts its position if nobody keeps it.
    pub(crate) fn push(&mut self, entry: Option<Entry<H>>, created_ms: u64) -> u64 {
        let position = self.next;
        self.next += 1;
        if let Some(entry) = entry {
            self.put(position, entry, created_ms);
        }
        let number = position / BLOCK_MESSAGES;
        if self.next.is_multiple_of(BLOCK_MESSAGES) && self.blocks.get(&number).is_some_and(|block| block.held == 0) {
            self.blocks.remove(&number);
        }
        position
    }

    /// Puts an entry at a position, as a snapshot gives it.
    pub(crate) fn put(&mut self, position: u64, entry: Entry<H>, created_ms: u64) {
        let block = self.blocks.entry(position / BLOCK_MESSAGES).or_insert_with(|| Block {
            entries: Vec::new(),
            held: 0,
            pending: 0,
            newest_ms: 0,
        });
        let pending = u32::from(entry.remaining > 0);
        let index = (position % BLOCK_MESSAGES) as usize;
        block.entries.resize_with(block.entries.len().max(index), || None);
        if index < block.entries.len() {
            block.entries[index] = Some(entry);
        } else {
            block.entries.push(Some(entry));
        }
        block.held += 1;
        block.pending += pending;
        block.newest_ms = block.newest_ms.max(created_ms);
        self.pending += u64::from(pending);
        self.next = self.next.max(position + 1);
    }

    /// Sets where the next message goes, as a snapshot says it.
    pub(crate) fn set_next(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    pub(crate) fn get(&self, position: u64) -> Option<&Entry<H>> {
        self.blocks.get(&(position / BLOCK_MESSAGES))?.entries.get((position % BLOCK_MESSAGES) as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut Entry<H>> {
        self.blocks.get_mut(&(position / BLOCK_MESSAGES))?.entries.get_mut((position % BLOCK_MESSAGES) as usize)?.as_mut()
    }

    /// One subscription needs this message (again).
    pub(crate) fn need(&mut self, position: u64) -> Option<&Entry<H>> {
        let block = self.blocks.get_mut(&(position / BLOCK_MESSAGES))?;
        let entry = block.entries.get_mut((position % BLOCK_MESSAGES) as usize)?.as_mut()?;
        entry.remaining += 1;
        if entry.remaining == 1 {
            block.pending += 1;
            self.pending += 1;
        }
        Some(entry)
    }

    /// One subscription needs this message no more. Gives its root's slot, and its handle if it is freed because nobody needs it and `keep`
    /// does not ask for it.
    pub(crate) fn release(&mut self, position: u64, keep: bool) -> Option<(u32, Option<H>)> {
        let number = position / BLOCK_MESSAGES;
        let block = self.blocks.get_mut(&number)?;
        let place = block.entries.get_mut((position % BLOCK_MESSAGES) as usize)?;
        let entry = place.as_mut()?;
        let root = entry.root;
        entry.remaining = entry.remaining.saturating_sub(1);
        if entry.remaining > 0 {
            return Some((root, None));
        }
        entry.root = super::roots::UNTRACKED;
        block.pending -= 1;
        self.pending -= 1;
        if keep {
            return Some((root, None));
        }
        let handle = place.take().map(|entry| entry.handle);
        block.held -= 1;
        // The last block is kept: the next message goes there, and its memory is used again.
        if block.held == 0 && number != self.next / BLOCK_MESSAGES {
            self.blocks.remove(&number);
        }
        Some((root, handle))
    }

    /// The positions that are held from `from` on, in order.
    pub(crate) fn held(&self, from: u64) -> impl Iterator<Item = (u64, &Entry<H>)> + '_ {
        self.blocks.range(from / BLOCK_MESSAGES..).flat_map(move |(number, block)| {
            let entries = block.entries.iter().enumerate();
            entries
                .filter_map(move |(index, entry)| Some((number * BLOCK_MESSAGES + index as u64, entry.as_ref()?)))
                .filter(move |(position, _)| *position >= from)
        })
    }

    /// Like [`Log::held`], with the newest creation time of each one's block.
    pub(crate) fn held_with_time(&self) -> impl Iterator<Item = (u64, &Entry<H>, u64)> + '_ {
        self.blocks.iter().flat_map(|(number, block)| {
            let entries = block.entries.iter().enumerate();
            entries.filter_map(move |(index, entry)| {
                Some((number * BLOCK_MESSAGES + index as u64, entry.as_ref()?, block.newest_ms))
            })
        })
    }

    /// The first position of the first block that may hold a message created at or after this time.
    pub(crate) fn first_since(&self, created_ms: u64) -> Option<u64> {
        self.blocks.iter().find(|(_, block)| block.newest_ms >= created_ms).map(|(number, _)| number * BLOCK_MESSAGES)
    }

    /// The end of the blocks at the front in which everything is settled and nothing was created at or after this time.
    pub(crate) fn expirable(&self, created_ms: u64) -> Option<u64> {
        let last = self.next / BLOCK_MESSAGES;
        let expired = |(number, block): &(&u64, &Block<H>)| **number < last && block.pending == 0 && block.newest_ms < created_ms;
        self.blocks.iter().take_while(expired).last().map(|(number, _)| (number + 1) * BLOCK_MESSAGES)
    }

    /// Frees the settled messages of all blocks before `end`, which is a block's start.
    pub(crate) fn expire(&mut self, end: u64, freed: &mut Vec<H>) {
        let kept = self.blocks.split_off(&(end / BLOCK_MESSAGES));
        for (number, mut block) in std::mem::replace(&mut self.blocks, kept) {
            for place in &mut block.entries {
                if let Some(entry) = place.take_if(|entry| entry.remaining == 0) {
                    freed.push(entry.handle);
                    block.held -= 1;
                }
            }
            if block.held > 0 {
                self.blocks.insert(number, block);
            }
        }
    }

    /// How many blocks are kept: what a long run must not let grow.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}
