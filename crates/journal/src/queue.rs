//! What waits for the writer, where it will go, and what is alive where.

use crate::{
    File, Position,
    format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, body_bytes_max, record_bytes, records_end},
    journal::{Duty, Options, Syncing},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Records that may wait for the writer, in bytes. Two seconds of a slow disk; more would only hide that it is slow.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Spare segments that are kept ready: one to go on with while the next is made, and the reserve, see [`Effect`].
pub(crate) const SPARES_READY: usize = 4;

/// A segment whose live messages take less than so many quarters of it is worth moving them out.
const SPARSE_QUARTERS: u64 = 1;

/// The same on a full disk, where any gain is worth its price. It comes to an end: each segment that is emptied makes the others denser.
const SPARSE_QUARTERS_FULL: u64 = 3;

/// Segments that are emptied for one that is appended, if together they hold no more than one of them may: moving must not become the load. One that holds a dead letter or two
/// costs a few reads, and many of them are gone as soon as they are found. It is a limit because what cannot be moved is tried again each time.
const EMPTIED_MAX: u32 = 8;

/// So many segments at the end are left to empty by themselves, unless the disk is full.
const YOUNG_SEGMENTS: u64 = 4;

/// What a record does to the space that is taken. On a full disk it says how much of the reserve of spare segments the record may use, so that what makes space always
/// finds some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It adds messages. The whole reserve is left.
    Adds,
    /// It adds about as much as it lets go of: messages that are moved on through a graph. It may use two segments of the reserve. By the time they are full it has let go
    /// of what filled one elsewhere, or half of it: small messages that are moved one by one take up to three times their space.
    Moves,
    /// It only lets go of messages, or empties a segment, and may use the last one.
    Frees,
}

impl Effect {
    /// How many spare segments it leaves to others.
    fn leaves(self) -> usize {
        match self {
            Self::Adds => 3,
            Self::Moves => 1,
            Self::Frees => 0,
        }
    }
}

/// What the lock of the queue protects.
pub(crate) struct Queue {
    pub(crate) records: VecDeque<Waiting>,
    pub(crate) bytes: usize,
    /// Where the next record goes.
    pub(crate) tail: Position,
    /// Files that are ready, and how many of them records in the queue have taken.
    pub(crate) spares: VecDeque<String>,
    pub(crate) promised: usize,
    /// The sequence of the last record of which a mark says that it is synced.
    pub(crate) marked_synced: u64,
    pub(crate) wants: Wants,
    pub(crate) next_spare: u64,
    /// Somebody waits for room.
    pub(crate) spare_wanted: bool,
    /// The disk had no space for another spare.
    pub(crate) full: bool,
    /// A checkpoint's file is being made, and the space of a spare that was let go of for it must not become a spare again.
    pub(crate) making_checkpoint: bool,
    /// The disk had no space for the last checkpoint, and nothing was appended since.
    pub(crate) checkpoint_failed: bool,
    pub(crate) live: BTreeMap<u64, Live>,
    /// Something was lost, and the owner's state without it is in no checkpoint yet. Until it is, what could not be read may be found again.
    pub(crate) lost: bool,
    /// Where the last snapshot was taken, and its size.
    pub(crate) marked: u64,
    pub(crate) snapshot_bytes: u64,
    /// Where the tail was when the first of the last few segments was compacted, how many there were since, and what was alive in them.
    pub(crate) compacted: Position,
    pub(crate) emptied: u32,
    pub(crate) moved_bytes: u64,
    /// The segment after the last that was compacted.
    pub(crate) compact_from: u64,
    pub(crate) closing: bool,
    pub(crate) duties_ended: bool,
}

/// What written records want of the syncing thread.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// The sequence of the last that wants a sync at once.
    at_once: u64,
    /// That of the last that wants one within a time, and the shortest time of those that are not synced.
    within: (u64, Duration),
}

impl Wants {
    /// A record is written, when everything up to `synced` is synced.
    pub(crate) fn add(&mut self, sequence: u64, syncing: Syncing, synced: u64) {
        match syncing {
            Syncing::Always => self.at_once = sequence,
            Syncing::Every(time) => {
                let (last, shortest) = self.within;
                let time = if last > synced { time.min(shortest) } else { time };
                self.within = (sequence, time);
            }
            Syncing::Rarely => {}
        }
    }

    /// How long to wait before a sync, when the last one was so long ago; `None` for as long as nobody asks.
    pub(crate) fn wait(&self, elapsed: Duration, synced: u64) -> Option<Duration> {
        let (last, time) = self.within;
        match self.at_once > synced {
            true => Some(Duration::ZERO),
            false => (last > synced).then(|| time.saturating_sub(elapsed)),
        }
    }
}

/// What is alive in a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Live {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// A record that waits for the writer.
pub(crate) struct Waiting {
    pub(crate) sequence: u64,
    /// Where its header goes.
    pub(crate) address: u64,
    pub(crate) body: Vec<u8>,
    /// When it wants to be synced.
    pub(crate) syncing: Syncing,
}

impl Queue {
    /// Whether a record fits where the tail is, or a spare is there to go on in. `before` is the size of another that is going to be appended before it, 0 if there is none.
    pub(crate) fn has_room(&self, before: usize, bytes: usize, effect: Effect, segment_bytes: u64) -> bool {
        let before = if before > 0 { record_bytes(before) } else { 0 };
        let both = before + record_bytes(bytes);
        if self.closing || self.bytes >= QUEUE_BYTES_MAX || bytes > body_bytes_max(segment_bytes) {
            // A closed journal takes nothing, and says so when it is waited for.
            return false;
        }
        let ready = self.spares.len().saturating_sub(self.promised);
        // Each of the two may need a segment of its own.
        let one = self.fits(before, segment_bytes) || both <= records_end(segment_bytes) - SEGMENT_HEADER_BYTES;
        let needed = if one { 1 } else { 2 };
        // On a full disk the segment in use may be one of the reserve itself.
        let here = self.fits(both, segment_bytes) && (!self.full || ready >= effect.leaves());
        here || ready >= needed + effect.leaves()
    }

    /// Whether the segment in use takes so much more, up to the copy of its header. The address after the last record is still one of this segment.
    pub(crate) fn fits(&self, taken: u64, segment_bytes: u64) -> bool {
        self.tail.address % segment_bytes + taken <= records_end(segment_bytes)
    }

    /// Finds the place of a record, in the next segment if it does not fit in this one.
    pub(crate) fn place(&mut self, body_bytes: usize, segment_bytes: u64) -> u64 {
        let taken = record_bytes(body_bytes);
        if !self.fits(taken, segment_bytes) {
            self.promised += 1;
            let next = (self.tail.address / segment_bytes + 1) * segment_bytes;
            self.tail.address = next + SEGMENT_HEADER_BYTES;
        }
        let address = self.tail.address;
        self.tail.address += taken;
        address
    }

    /// Appends what there is room for, and gives its place.
    pub(crate) fn append(&mut self, body: Vec<u8>, syncing: Syncing, segment_bytes: u64) -> (u64, u64) {
        let (sequence, address) = (self.tail.sequence, self.place(body.len(), segment_bytes));
        self.tail.sequence += 1;
        self.bytes += body.len();
        self.records.push_back(Waiting { sequence, address, body, syncing });
        (sequence, address)
    }

    /// Whether a mark would say something new: the last record that somebody has appended is synced, nothing on disk says so, and there is space.
    pub(crate) fn can_mark(&self, synced: u64, segment_bytes: u64) -> bool {
        let last = self.tail.sequence - 1;
        last == synced && last > self.marked_synced && self.fits(RECORD_HEADER_BYTES, segment_bytes)
    }

    /// Whether the next spare should be made: there are too few, and the segment in use has got somewhere.
    pub(crate) fn spares_short(&self, segment_bytes: u64) -> bool {
        let ready = self.spares.len().saturating_sub(self.promised);
        let used = self.tail.address % segment_bytes > segment_bytes / 4;
        !self.making_checkpoint && (self.spares.len() < self.promised || (ready < SPARES_READY && (used || self.spare_wanted)))
    }

    /// Whether enough was appended since the last checkpoint.
    pub(crate) fn checkpoint_due(&self, options: &Options) -> bool {
        let appended = self.tail.address.saturating_sub(self.marked);
        self.lost || appended >= options.checkpoint_bytes.max(self.snapshot_bytes.saturating_mul(2))
    }

    /// Whether a checkpoint could free something on a full disk: it takes two for a segment that is dead.
    pub(crate) fn checkpoint_frees(&self, segments: &BTreeMap<u64, Arc<dyn File>>, segment_bytes: u64) -> bool {
        let mut sealed = segments.range(..self.tail.address / segment_bytes);
        self.full && !self.checkpoint_failed && !self.duties_ended && sealed.any(|(number, _)| self.is_dead(*number))
    }

    /// So many messages in this segment are alive.
    pub(crate) fn hold(&mut self, segment: u64, messages: u64, bytes: u64) {
        let live = self.live.entry(segment).or_default();
        live.messages += messages;
        live.bytes += bytes;
    }

    /// So many messages in this segment, held before, are dead.
    pub(crate) fn release(&mut self, segment: u64, messages: u64, bytes: u64) {
        if let Some(live) = self.live.get_mut(&segment) {
            live.messages = live.messages.saturating_sub(messages);
            live.bytes = live.bytes.saturating_sub(bytes);
        }
    }

    /// Whether nothing in this segment is alive.
    pub(crate) fn is_dead(&self, number: u64) -> bool {
        self.live.get(&number).is_none_or(|live| live.messages == 0)
    }

    pub(crate) fn duty(
        &mut self,
        options: &Options,
        segments: &BTreeMap<u64, Arc<dyn File>>,
        segment_bytes: u64,
    ) -> Option<Duty> {
        if self.checkpoint_due(options) || self.checkpoint_frees(segments, segment_bytes) {
            return Some(Duty::Checkpoint);
        }
        let tail = self.tail.address / segment_bytes;
        let (quarters, young) = if self.full { (SPARSE_QUARTERS_FULL, 0) } else { (SPARSE_QUARTERS, YOUNG_SEGMENTS) };
        // One that could be emptied in part only would use up what is left.
        let rest = records_end(segment_bytes).saturating_sub(self.tail.address % segment_bytes);
        let ready = self.spares.len().saturating_sub(self.promised) as u64;
        let room = (rest + ready * segment_bytes) / 4 * 3;
        let live_max = (segment_bytes / 4 * quarters).min(room);
        let sparse = |(_, live): &(&u64, &Live)| live.messages > 0 && live.bytes < live_max;
        let end = tail.saturating_sub(young);
        // In turn: one whose messages cannot be moved must not keep the others.
        let from = self.compact_from.min(end);
        let mut old = self.live.range(from..end).chain(self.live.range(..from));
        // On a full disk nothing else makes space; there it is enough that something was appended since, lest one whose messages cannot be moved be tried without end.
        let anew = match self.full {
            true => self.tail.sequence > self.compacted.sequence,
            false => tail > self.compacted.address / segment_bytes,
        };
        let (number, live) = old.find(sparse)?;
        let (number, moved_bytes) = (*number, live.bytes);
        if anew {
            (self.compacted, self.emptied, self.moved_bytes) = (self.tail, 0, 0);
        } else if self.full || self.emptied >= EMPTIED_MAX || self.moved_bytes + moved_bytes > live_max {
            return None;
        }
        self.emptied += 1;
        self.moved_bytes += moved_bytes;
        self.compact_from = number + 1;
        Some(Duty::Compact(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_record_is_synced_as_it_asks_and_never_later_than_the_others() {
        let (always, second, minute, rarely) =
            (Syncing::Always, Syncing::Every(SECOND), Syncing::Every(60 * SECOND), Syncing::Rarely);
        // What was written, from sequence 1 on; what of it is synced; how long the wait is 0.4 s after the last sync.
        let cases: [(&[Syncing], u64, Option<u64>); 9] = [
            (&[], 0, None),
            (&[rarely, rarely], 0, None),
            (&[always], 0, Some(0)),
            (&[always, rarely], 0, Some(0)),
            (&[always, rarely], 1, None),
            (&[second, rarely], 0, Some(600)),
            (&[minute, second, minute], 0, Some(600)),
            (&[second, always, rarely], 2, None),
            (&[always, minute], 1, Some(59_600)),
        ];
        for (written, synced, wait) in cases {
            let mut wants = Wants::default();
            for (sequence, syncing) in (1..).zip(written) {
                wants.add(sequence, *syncing, 0);
            }
            let told = wants.wait(Duration::from_millis(400), synced);
            assert_eq!(told, wait.map(Duration::from_millis), "{written:?}, {synced} synced");
        }
    }

    #[test]
    fn a_time_that_was_asked_for_is_forgotten_with_the_sync() {
        let mut wants = Wants::default();
        wants.add(1, Syncing::Every(SECOND), 0);
        wants.add(2, Syncing::Every(60 * SECOND), 1);
        assert_eq!(wants.wait(Duration::ZERO, 1), Some(60 * SECOND));
    }
}
