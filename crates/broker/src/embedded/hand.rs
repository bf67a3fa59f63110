//! Which messages are in whose hands: what a process that is killed leaves behind, so that the attempts it had begun are counted.
//!
//! Two files of one size beside the journal, written in turn and never synced: they survive the end of the process, which is what counting asks for, at the price of one write
//! for each batch that is handed out. The journal has no record of an attempt that ends well.
//!
//! A message that was handed out before it was written can be lost with the process while the one it came of is not. It then comes again with the same id, and
//! its attempts go on from there; that is why the id is noted, and why it must follow from where the message comes from. Its position may be given to another
//! message meanwhile, so whoever opens the files notes what is lost under positions that no message gets, from the last one down.

mod format;

use crate::{
    ErrorKind,
    engine::Window,
    planted::{self, Bug},
    state::{State, SubscriptionId},
};
use format::{BACK, BLOCK_HEADER_BYTES, HEADER_BYTES, OUT, OUT_RUN, header, read, replay, seal};
use leatworks_journal::{File, FileSystem};
use rustc_hash::FxHashMap;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// The files.
const NAMES: [&str; 2] = ["in-hand-a", "in-hand-b"];

/// A larger one of them while it is made: without space for it the smaller one must still be there.
const LARGER: &str = "in-hand-new";

/// Bytes of each file: at least 15,000 messages in hand at once, of which each takes 33, with as much free for what comes. With more in hand it is made larger. It is
/// read when the broker starts, and its pages stay in memory.
const FILE_BYTES: u64 = 1 << 20;

/// Messages that were lost while they were in hand and have not come again: so many are remembered. Each takes 32 bytes.
const LOST_MAX: u64 = 65_536;

/// The first position that no message gets.
const LOST_FIRST: u64 = u64::MAX - LOST_MAX;

/// A message in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InHand {
    pub(crate) attempt: u32,
    /// None of a message that no crash can take from its position.
    pub(crate) id: Option<u128>,
}

impl InHand {
    fn is(&self, id: u128) -> bool {
        self.id.is_none_or(|known| known == id)
    }
}

/// All that is in hand, by subscription and position.
pub(crate) type AllInHand = BTreeMap<SubscriptionId, Window<InHand>>;

/// What was noted and is not written yet; it lies in the group, under the engine's lock.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    notes: Vec<u8>,
    /// What was handed out last, if it can be told without ids; it is not in `notes` yet.
    run: Option<Run>,
    /// Whether something is in `notes` that must be written before messages are handed out.
    out: bool,
    /// What is back, by the commit group that says so: as long as that one can be lost with the process, this must not be known without it.
    backs: VecDeque<(u64, Run)>,
    /// What the process before had in hand and this one has not handed out yet.
    before: FxHashMap<(SubscriptionId, u64), InHand>,
    /// What was lost with it: under which of the last positions.
    lost: FxHashMap<(SubscriptionId, u128), u64>,
}

/// Messages in a row that were handed out, or are back: settled, or given back with their attempts counted.
#[derive(Clone, Copy, Debug)]
struct Run {
    subscription: SubscriptionId,
    /// To those that are back a later attempt is another matter.
    attempt: u32,
    start: u64,
    end: u64,
}

impl Hand {
    /// What the process before had in hand, as [`sort`] has sorted it.
    pub(crate) fn new(before: &AllInHand) -> Self {
        let mut hand = Self::default();
        for (subscription, position, in_hand) in listed(before) {
            hand.before.insert((subscription, position), in_hand);
            if let Some(id) = in_hand.id.filter(|_| position >= LOST_FIRST) {
                hand.lost.insert((subscription, id), position);
            }
        }
        hand
    }

    pub(crate) fn out(&mut self, subscription: SubscriptionId, position: u64, InHand { attempt, id }: InHand) {
        self.out = true;
        let Some(id) = id else {
            match &mut self.run {
                Some(run) if (run.subscription, run.attempt, run.end) == (subscription, attempt, position) => run.end += 1,
                _ => {
                    self.end_run();
                    self.run = Some(Run { subscription, attempt, start: position, end: position + 1 });
                }
            }
            return;
        };
        self.end_run();
        self.notes.push(OUT);
        self.notes.extend_from_slice(&subscription.0.to_le_bytes());
        self.notes.extend_from_slice(&attempt.to_le_bytes());
        self.notes.extend_from_slice(&position.to_le_bytes());
        self.notes.extend_from_slice(&id.to_le_bytes());
    }

    /// Messages are back, as this commit group says, up to this attempt.
    pub(crate) fn back(&mut self, group: u64, subscription: SubscriptionId, start: u64, end: u64, attempt: u32) {
        // From here on the state tells.
        match (end - start) as usize > self.before.len() {
            true => self.before.retain(|(of, position), _| *of != subscription || !(start..end).contains(position)),
            false => (start..end).for_each(|position| _ = self.before.remove(&(subscription, position))),
        }
        match self.backs.back_mut() {
            Some((last, run)) if (*last, run.subscription, run.attempt, run.end) == (group, subscription, attempt, start) => {
                run.end = end;
            }
            _ => self.backs.push_back((group, Run { subscription, attempt, start, end })),
        }
    }

    /// Groups up to this one survive the end of the process: what they say is back may be known.
    pub(crate) fn written(&mut self, group: u64) {
        while let Some((_, run)) = self.backs.pop_front_if(|(of, _)| *of <= group || planted::is(Bug::BackTooEarly)) {
            self.note(BACK, run);
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.note(OUT_RUN, run);
        }
    }

    /// What is to be written, in the order in which it was noted.
    fn take_notes(&mut self, block: &mut Vec<u8>) {
        self.end_run();
        block.append(&mut self.notes);
    }

    fn note(&mut self, kind: u8, Run { subscription, attempt, start, end }: Run) {
        self.end_run();
        self.notes.push(kind);
        self.notes.extend_from_slice(&subscription.0.to_le_bytes());
        self.notes.extend_from_slice(&attempt.to_le_bytes());
        self.notes.extend_from_slice(&start.to_le_bytes());
        self.notes.extend_from_slice(&end.to_le_bytes());
    }

    /// Nothing of this subscription is in hand, and that must be known even though nothing is handed out.
    pub(crate) fn forget(&mut self, subscription: SubscriptionId) {
        self.backs.retain(|(_, run)| run.subscription != subscription);
        self.before.retain(|(of, _), _| *of != subscription);
        self.lost.retain(|(of, _), _| *of != subscription);
        self.note(BACK, Run { subscription, attempt: u32::MAX, start: 0, end: u64::MAX });
        self.out = true;
    }

    /// Attempts of a message that the process before had in hand, here or where it was lost.
    pub(crate) fn attempts(&mut self, subscription: SubscriptionId, position: u64, id: u128) -> Option<u32> {
        if self.before.is_empty() {
            return None;
        }
        if let Some(place) = self.lost.remove(&(subscription, id)) {
            // It is noted where it is now, also if it is not handed out yet.
            self.note(BACK, Run { subscription, attempt: u32::MAX, start: place, end: place + 1 });
            let lost = self.before.remove(&(subscription, place));
            let here = self.before.get(&(subscription, position)).filter(|in_hand| in_hand.is(id)).copied();
            if let Some(in_hand) = lost.max(here) {
                self.before.insert((subscription, position), in_hand);
                self.out(subscription, position, in_hand);
            }
        }
        self.before.get(&(subscription, position)).filter(|in_hand| in_hand.is(id)).map(|in_hand| in_hand.attempt)
    }

    /// What the process before had in hand and this one has not handed out.
    pub(crate) fn rest(&self) -> AllInHand {
        let mut rest = AllInHand::new();
        for ((subscription, position), in_hand) in &self.before {
            rest.entry(*subscription).or_default().insert(*position, *in_hand);
        }
        rest
    }
}

/// All that is in hand, in order.
fn listed(all: &AllInHand) -> Vec<(SubscriptionId, u64, InHand)> {
    let each = |(subscription, window): (&SubscriptionId, &Window<InHand>)| {
        let mut held: Vec<_> = window.iter().map(|(position, in_hand)| (*subscription, position, in_hand)).collect();
        held.sort_unstable_by_key(|(_, position, _)| *position);
        held
    };
    all.iter().flat_map(|(subscription, window)| each((subscription, window))).collect()
}

/// What still matters of what the process before had in hand. What was lost with it gets the last positions.
pub(crate) fn sort<H>(state: &State<H>, all: &AllInHand) -> AllInHand {
    let mut sorted = AllInHand::new();
    let mut place = u64::MAX;
    for (subscription, position, in_hand) in listed(all) {
        let Some(found) = state.subscription_of(subscription) else { continue };
        if position < state.log(found.topic).next() {
            if !found.settled.contains(position) {
                sorted.entry(subscription).or_default().insert(position, in_hand);
            }
        } else if place > LOST_FIRST && in_hand.id.is_some() {
            // The last of all is the end of everything that is back.
            place -= 1;
            sorted.entry(subscription).or_default().insert(place, in_hand);
        }
    }
    sorted
}

/// The files.
pub(crate) struct HandFiles {
    fs: Arc<dyn FileSystem>,
    writing: Mutex<Writing>,
}

struct Writing {
    files: [Arc<dyn File>; 2],
    current: usize,
    generation: u64,
    offset: u64,
    file_bytes: u64,
    /// How large the current file is: smaller where there was no space for a larger one.
    room: u64,
    /// What the current file says is in hand. To read it back when the file is full took 60 ms of 16 MiB, in which nothing was handed out.
    held: AllInHand,
    /// Kept between writes, so that nothing is allocated for one.
    block: Vec<u8>,
    /// The last write has failed, and what it should have written is still in `block`.
    unwritten: bool,
}

impl HandFiles {
    /// Opens or makes the files. `sort` gets what the process before had in hand and gives what is to be remembered if this one ends too. `bytes` is the
    /// size of a new file, at most the usual.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, bytes: u64, sort: impl FnOnce(AllInHand) -> AllInHand) -> io::Result<Self> {
        let mut newest: Option<(u64, AllInHand)> = None;
        let mut slot = 0;
        let names = fs.list()?;
        if names.iter().any(|name| name == LARGER) {
            fs.remove(LARGER)?;
        }
        for (index, name) in NAMES.iter().enumerate().filter(|(_, name)| names.iter().any(|other| other == *name)) {
            let file = fs.open(name)?;
            let mut content = vec![0; usize::try_from(file.size()?).unwrap_or(0)];
            // What cannot be read back costs the count of attempts that were under way, never a message.
            if file.read_into_zeros(&mut content, 0).is_err() {
                continue;
            }
            if let Some((generation, all)) = read(&content)
                && newest.as_ref().is_none_or(|(other, _)| *other < generation)
            {
                newest = Some((generation, all));
                slot = index;
            }
        }
        let (generation, all) = newest.unwrap_or_default();
        let file_bytes = bytes.clamp(4_096, FILE_BYTES);
        // The one that holds what is in hand is only replaced when the other one is written.
        let current = 1 - slot;
        let other = match names.iter().any(|name| name == NAMES[slot]) {
            true => fs.open(NAMES[slot])?,
            false => fs.create(NAMES[slot], file_bytes)?,
        };
        let file = match names.iter().any(|name| name == NAMES[current]) {
            // Its space is taken already, and there may be no more: what is in it is told from what comes by its generation.
            true => fs.open(NAMES[current])?,
            false => fs.create(NAMES[current], file_bytes)?,
        };
        let mut files = [file.clone(), other.clone()];
        files[current] = file;
        files[1 - current] = other;
        let mut writing = Writing {
            files,
            current,
            generation,
            offset: 0,
            file_bytes,
            room: 0,
            held: AllInHand::new(),
            block: Vec::new(),
            unwritten: false,
        };
        writing.begin(&fs, current, sort(all))?;
        Ok(Self { fs, writing: Mutex::new(writing) })
    }

    /// Writes what was noted, if messages are to be handed out or much has gathered. Notes are taken under the lock of the files, so that they are written in
    /// the order in which they were made.
    pub(crate) fn write(&self, take: impl FnOnce(&mut dyn FnMut(&mut Hand))) -> io::Result<()> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut block = std::mem::take(&mut writing.block);
        if !writing.unwritten {
            block.clear();
            block.resize(BLOCK_HEADER_BYTES, 0);
        }
        take(&mut |hand: &mut Hand| {
            if std::mem::take(&mut hand.out) {
                hand.take_notes(&mut block);
            }
        });
        let result = match block.len() > BLOCK_HEADER_BYTES {
            true => writing.append(&self.fs, &mut block),
            false => Ok(()),
        };
        // What could not be written belongs to others too: nobody may take it for written.
        writing.unwritten = result.is_err();
        writing.block = block;
        result
    }

    /// Nothing but this is in hand any more.
    pub(crate) fn replace(&self, all: AllInHand) -> io::Result<()> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let other = 1 - writing.current;
        writing.begin(&self.fs, other, all)
    }
}

impl Writing {
    fn append(&mut self, fs: &Arc<dyn FileSystem>, block: &mut [u8]) -> io::Result<()> {
        seal(block, self.generation);
        if self.offset + block.len() as u64 > self.room {
            let mut all = self.held.clone();
            replay(&block[BLOCK_HEADER_BYTES..], &mut all);
            all.retain(|_, window| window.len() > 0);
            let other = 1 - self.current;
            return self.begin(fs, other, all);
        }
        self.files[self.current].write(block, self.offset)?;
        self.offset += block.len() as u64;
        replay(&block[BLOCK_HEADER_BYTES..], &mut self.held);
        Ok(())
    }

    /// Goes on in this file, which begins with all that is in hand.
    fn begin(&mut self, fs: &Arc<dyn FileSystem>, slot: usize, all: AllInHand) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut hand = Hand::default();
        for (subscription, window) in &all {
            window.iter().for_each(|(position, in_hand)| hand.out(*subscription, position, in_hand));
        }
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        hand.take_notes(&mut block);
        seal(&mut block, generation);
        // With less than half of a file free there would soon be the next change.
        let needed = (HEADER_BYTES + 2 * block.len()) as u64;
        let bytes = if needed > self.file_bytes { needed.next_power_of_two() } else { self.file_bytes };
        // It is larger already where more was in hand once.
        let mut room = self.files[slot].size()?.min(bytes);
        if room == bytes {
            self.file_bytes = bytes;
        } else {
            match larger(fs, slot, bytes) {
                Ok(file) => {
                    self.files[slot] = file;
                    (self.file_bytes, room) = (bytes, bytes);
                }
                // Consumers go on, and make space, as long as what is in hand has a place.
                Err(error) if error_kind(&error) == ErrorKind::Full && (HEADER_BYTES + block.len()) as u64 <= room => {}
                Err(error) => return Err(error),
            }
        }
        // The block first: without its header the file is not taken for the newer one.
        self.files[slot].write(&block, HEADER_BYTES as u64)?;
        self.files[slot].write(&header(generation), 0)?;
        (self.current, self.generation, self.offset) = (slot, generation, (HEADER_BYTES + block.len()) as u64);
        (self.room, self.held) = (room, all);
        Ok(())
    }
}

/// A larger file in this place.
fn larger(fs: &Arc<dyn FileSystem>, slot: usize, bytes: u64) -> io::Result<Arc<dyn File>> {
    let file = fs.create(LARGER, bytes)?;
    fs.rename(LARGER, NAMES[slot])?;
    Ok(file)
}

/// What a failure to note what is in hand means to the broker's callers: a full disk passes.
pub(crate) fn error_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Storage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leatworks_journal::simulation::{Faults, SimulatedFileSystem};

    const SUB: SubscriptionId = SubscriptionId(3);

    fn as_map(all: &AllInHand) -> BTreeMap<(SubscriptionId, u64), InHand> {
        listed(all).into_iter().map(|(subscription, position, in_hand)| ((subscription, position), in_hand)).collect()
    }

    #[test]
    fn what_is_in_hand_survives_the_process_over_many_changes_of_files() {
        let fs = SimulatedFileSystem::new(1, Faults::default());
        let mut expected = BTreeMap::new();
        let mut hand = Hand::default();
        for life in 0..5_u64 {
            let check = |found: AllInHand| {
                assert_eq!(as_map(&found), expected, "life {life}");
                found
            };
            let files = HandFiles::open(Arc::new(fs.clone()), 4_096, check).unwrap();
            for round in 0..200_u64 {
                let position = life * 1_000 + round;
                let id = (round % 3 == 0).then_some(u128::from(position) << 64);
                let in_hand = InHand { attempt: 1 + round as u32 / 10, id };
                hand.out(SUB, position, in_hand);
                expected.insert((SUB, position), in_hand);
                if round >= 5 {
                    hand.back(1, SUB, position - 5, position - 4, u32::MAX);
                    hand.written(1);
                    expected.remove(&(SUB, position - 5));
                }
                files.write(|take| take(&mut hand)).unwrap();
            }
            fs.kill();
        }
        assert_eq!(expected.len(), 25);
        let files = HandFiles::open(Arc::new(fs.clone()), 4_096, |all| all).unwrap();
        files.replace(AllInHand::new()).unwrap();
        let none = |found: AllInHand| {
            assert!(as_map(&found).is_empty());
            found
        };
        HandFiles::open(Arc::new(fs), 4_096, none).unwrap();
    }

    #[test]
    fn without_space_for_larger_files_it_goes_on_in_those_that_there_are() {
        // For both files and nothing more.
        let fs = SimulatedFileSystem::new(1, Faults { space_bytes: Some(2 * 4_096), ..Faults::default() });
        let files = HandFiles::open(Arc::new(fs.clone()), 4_096, |all| all).unwrap();
        let mut hand = Hand::default();
        // More than half of a file, so that a larger one is wanted with each change.
        const HELD: u64 = 80;
        for position in 0..400 {
            hand.out(SUB, position, InHand { attempt: 1, id: Some(7) });
            if position >= HELD {
                hand.back(1, SUB, position - HELD, position - HELD + 1, u32::MAX);
                hand.written(1);
            }
            files.write(|take| take(&mut hand)).unwrap();
        }
        fs.kill();
        HandFiles::open(Arc::new(fs.clone()), 4_096, |all| {
            let found: Vec<u64> = listed(&all).into_iter().map(|(_, position, _)| position).collect();
            assert_eq!(found, (400 - HELD..400).collect::<Vec<_>>());
            all
        })
        .unwrap();
        // What is beyond the file is refused, and taken when there is space.
        let files = HandFiles::open(Arc::new(fs.clone()), 4_096, |all| all).unwrap();
        (400..600).for_each(|position| hand.out(SUB, position, InHand { attempt: 1, id: Some(7) }));
        assert_eq!(error_kind(&files.write(|take| take(&mut hand)).unwrap_err()), ErrorKind::Full);
        fs.set_faults(Faults::default());
        files.write(|take| take(&mut hand)).unwrap();
    }

    #[test]
    fn whatever_is_in_the_files_is_read_up_to_where_it_makes_sense() {
        let fs = SimulatedFileSystem::new(1, Faults::default());
        let files = HandFiles::open(Arc::new(fs.clone()), 4_096, |all| all).unwrap();
        let mut hand = Hand::default();
        for position in 0..4 {
            hand.out(SUB, position, InHand { attempt: 1, id: Some(1).filter(|_| position < 2) });
            files.write(|take| take(&mut hand)).unwrap();
        }
        let name =
            NAMES.into_iter().max_by_key(|name| read(&fs.bytes_of(name).unwrap()).map(|(generation, _)| generation)).unwrap();
        let content = fs.bytes_of(name).unwrap();
        for bit in 0..400 * 8 {
            let mut damaged = content.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_none_or(|(_, all)| as_map(&all).len() <= 4), "bit {bit}");
        }
        for length in 0..400 {
            let found = read(&content[..length]).map_or(0, |(_, all)| as_map(&all).len());
            assert!(found <= 4, "{length} bytes");
        }
    }
}
