//! Spilling: when the broker knows of many messages where they are, it writes that down, block by block, and keeps only a summary of each block.
//!
//! The indexes of blocks go into the record of a commit group, behind what the group has changed, so that they are true where they stand. A block whose
//! index is written is let go of when it has not changed meanwhile; the index is alive like a message until the block is loaded or settled.

use super::{
    group::Part,
    index,
    place::{Location, Place},
    record::PlacedIndex,
    store::{JournalGroup, JournalStore, memory_size},
};
use crate::{engine::Core, state::BLOCK_MESSAGES};
use leatworks_journal::{Effect, Journal};

/// Messages ahead of where a subscription's consumers have got that stay in memory: twice what is loaded at once.
const AHEAD_MESSAGES: u64 = if cfg!(test) { 0 } else { 2 * crate::engine::LOAD_MESSAGES };

/// Blocks that are spilled with one group at most. A group of eight mebibytes brings 80 full blocks of 200-byte messages, so that spilling keeps up; it takes the
/// engine's lock for some 50 us for each.
const SPILL_BLOCKS_MAX: usize = 128;

/// Bytes of a block's index at most.
const INDEX_BYTES_MAX: usize = index::HEAD_BYTES_MAX + BLOCK_MESSAGES as usize * index::ENTRY_BYTES_MAX;

/// Chooses what to spill with a group that takes so many bytes, and gives the bytes that come to it at most.
pub(super) fn choose(
    store: &JournalStore,
    core: &mut Core<Place, JournalGroup>,
    bytes: usize,
    parts: &mut Vec<Part<Place>>,
) -> usize {
    let over = core.state.loaded().saturating_sub(store.loaded_max);
    if over == 0 {
        return 0;
    }
    let room = |count: usize| {
        let all = bytes + count * INDEX_BYTES_MAX;
        all <= store.journal.record_bytes_max() && store.journal.has_room(all, Effect::Adds)
    };
    let count = over.min(SPILL_BLOCKS_MAX);
    let Some(count) = [count, count.div_ceil(8), 1].into_iter().find(|count| room(*count)) else { return 0 };
    let Core { state, feeds, .. } = core;
    let near = |subscription| feeds.get(&subscription).map_or(0, |feed| feed.next_position());
    let mut taken = 0;
    state.spillable(near, AHEAD_MESSAGES, count, |state, topic, number| {
        // Only what is written has a place on disk.
        let Some(index) = state.index(topic, number, |place| place.at.map(Place::at)) else { return false };
        parts.push(Part::Index { topic, number, index, at: None });
        taken += 1;
        true
    });
    taken * INDEX_BYTES_MAX
}

/// Lets go of the blocks whose indexes are in a record at this address.
pub(super) fn put_away(store: &JournalStore, core: &mut Core<Place, JournalGroup>, address: u64, indexes: Vec<PlacedIndex>) {
    for PlacedIndex { topic, number, offset, bytes, index } in indexes {
        let near = |subscription| core.feeds.get(&subscription).map_or(0, |feed| feed.next_position());
        // A consumer may have got there while the record was made.
        if !core.state.is_far(topic, number, &near, 0) {
            core.state.set_spilling(topic, number, false);
            continue;
        }
        let Some(at) = Location::new(address + offset as u64, bytes) else { continue };
        let runs = index::runs(&index, |address| segment_of(&store.journal, address));
        let Some(entries) = core.state.spill(topic, number, &index, Place::at(at), runs) else {
            core.state.set_spilling(topic, number, false);
            continue;
        };
        store.journal.hold(std::iter::once((at.address(), at.bytes())));
        let cached = entries.iter().flatten().filter_map(|entry| entry.handle.message.as_ref());
        let cached: usize = cached.map(|message| memory_size(message)).sum();
        core.group.cached_bytes = core.group.cached_bytes.saturating_sub(cached);
    }
    core.group.tidy_cache(&core.state);
}

fn segment_of(journal: &Journal, address: u64) -> u64 {
    journal.segment_of(address)
}
