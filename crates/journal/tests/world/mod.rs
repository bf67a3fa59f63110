//! The world of the model test: an owner whose state is the numbers it has appended, a simulated disk, and what must hold whenever a journal is opened.

use leatworks_journal::{
    Journal, JournalError, Lost, Options, Record, Recovered, Syncing, Visitor,
    simulation::{Faults, SimulatedFileSystem},
};
use proptest::prelude::*;
use std::{ops::Range, sync::Arc};

pub(crate) const OPTIONS: Options =
    Options { segment_bytes: 4_096, syncing: Syncing::Always, checkpoint_bytes: 9_000, threads: false };

/// What recovery finds: the numbers of all records so far, which are also the owner's snapshot, and what is lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) numbers: Vec<u32>,
    pub(crate) lost: Vec<Lost>,
    pub(crate) recovered: Recovered,
}

impl Visitor for Found {
    fn snapshot(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.numbers = snapshot.chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        self.numbers.push(number(&record.body)?);
        Ok(())
    }

    fn lost(&mut self, lost: Lost) -> Result<(), String> {
        self.lost.push(lost);
        Ok(())
    }
}

impl Found {
    fn reports(&self, sequence: u64) -> bool {
        self.lost.iter().any(|lost| lost.first <= sequence && lost.last.is_none_or(|last| sequence <= last))
    }
}

/// A body is its number, and then a filling that follows from it.
pub(crate) fn body(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(4 + bytes, number as u8);
    body
}

pub(crate) fn number(body: &[u8]) -> Result<u32, String> {
    let number = u32::from_le_bytes(body[..4].try_into().map_err(|_| "short")?);
    match body[4..].iter().all(|byte| *byte == number as u8) {
        true => Ok(number),
        false => panic!("filling of {number} is wrong: a damaged record was delivered"),
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Append(usize),
    Write,
    Sync,
    Kill,
    CutPower,
    Checkpoint,
    /// The process ends at a call soon, by itself or because the power is cut.
    EndSoon(u64, bool),
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        12 => prop_oneof![0..40_usize, 0..900_usize, Just(3_930_usize)].prop_map(Action::Append),
        4 => Just(Action::Write),
        3 => Just(Action::Sync),
        1 => Just(Action::Kill),
        2 => Just(Action::CutPower),
        2 => Just(Action::Checkpoint),
        2 => (1..20_u64, any::<bool>()).prop_map(|(calls, cut)| Action::EndSoon(calls, cut)),
    ];
    prop::collection::vec(action, 1..120)
}

/// What was appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) sequence: u64,
    /// Where it is, from its header to its end.
    pub(crate) address: u64,
    pub(crate) end: u64,
}

pub(crate) struct World {
    pub(crate) fs: SimulatedFileSystem,
    pub(crate) journal: Option<Journal>,
    /// Everything appended in this history that is there, or may be.
    pub(crate) entries: Vec<Entry>,
    next: u32,
    /// Whether what is appended stays alive.
    pub(crate) holding: bool,
    /// Whether the disk has been damaged, so that something may be lost if it is reported.
    pub(crate) damaged: bool,
    /// How the process will end by itself: by the power being cut, or not.
    ending: Option<bool>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let fs = SimulatedFileSystem::new(seed, faults);
        let (journal, entries) = (None, Vec::new());
        let mut world = Self { fs, journal, entries, next: 0, holding: false, damaged: false, ending: None };
        world.open(0).unwrap();
        world
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    /// Opens the journal. What was durable must be there, in order, or be reported as lost; nothing else may be, and nothing may be missing before something
    /// that is there.
    pub(crate) fn open(&mut self, durable: u64) -> Result<Found, JournalError> {
        self.journal = None;
        let mut found = Found::default();
        let (journal, recovered) = match Journal::open(Arc::new(self.fs.clone()), OPTIONS, &mut found) {
            Err(_) if self.fs.has_ended() => {
                // The process has ended while it opened the journal.
                self.end();
                return self.open(durable);
            }
            opened => opened?,
        };
        found.recovered = recovered;
        self.check(&found, durable);
        self.journal = Some(journal);
        self.entries.retain(|entry| found.numbers.contains(&entry.number));
        Ok(found)
    }

    fn check(&self, found: &Found, durable: u64) {
        let mut rest = self.entries.iter();
        for number in &found.numbers {
            for entry in rest.by_ref() {
                if entry.number == *number {
                    break;
                }
                assert!(found.reports(entry.sequence), "{entry:?} is missing before {number}, and nothing was said: {found:?}");
            }
            let known = self.entries.iter().any(|entry| entry.number == *number);
            assert!(known, "{number} was never there, or is there again");
        }
        let there = self.entries.iter().filter(|entry| found.numbers.contains(&entry.number)).map(|entry| entry.number);
        assert!(there.eq(found.numbers.iter().copied()), "out of order: {:?}", found.numbers);
        assert!(self.damaged || found.lost.is_empty(), "nothing is damaged, and yet: {:?}", found.lost);
        for entry in rest.filter(|entry| entry.sequence <= durable) {
            // Of the last records nothing says that they had been durable: when one of them is damaged, it looks torn.
            let silent = self.damaged || found.reports(entry.sequence);
            assert!(silent, "lost: {entry:?} of {durable}, at the end of {} records", found.numbers.len());
        }
        assert_eq!(found.recovered.lost > 0, !found.lost.is_empty());
    }

    fn append(&mut self, bytes: usize) -> Result<(), JournalError> {
        if !self.journal().has_room(4 + bytes, false) {
            self.journal().drive()?;
            // What asks for room has spares made, even if the segment in use has hardly begun.
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let journal = self.journal().clone();
            runtime.block_on(async {
                let mut room = std::pin::pin!(journal.room(4 + bytes, false));
                tokio::select! { biased; told = &mut room => told, () = std::future::ready(()) => journal.drive() }
            })?;
            if !self.journal().has_room(4 + bytes, false) {
                return Ok(());
            }
        }
        self.next += 1;
        let appended = self.journal().append(body(self.next, bytes));
        if self.holding {
            self.journal().hold(std::iter::once((appended.address, bytes)));
        }
        let (address, end) = (appended.address - 24, appended.address + 4 + bytes as u64);
        self.entries.push(Entry { number: self.next, sequence: appended.sequence, address, end });
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.number.to_le_bytes()).collect()
    }

    fn try_to(&mut self, action: &Action) -> Result<(), JournalError> {
        match action {
            Action::Append(bytes) => self.append(*bytes),
            Action::Write => self.journal().drive_writing().map(drop),
            Action::Sync => self.journal().drive(),
            Action::Checkpoint => match self.journal().checkpoint(self.journal().mark(), &self.snapshot()) {
                // Nothing is lost by it: the other one stands.
                Err(JournalError::Full) => Ok(()),
                result => result,
            },
            Action::Kill => {
                let written = self.journal().written_now();
                self.fs.kill();
                self.ending = None;
                self.open(written).map(drop)
            }
            Action::CutPower => {
                let synced = self.journal().synced_now();
                self.fs.cut_power();
                self.ending = None;
                self.open(synced).map(drop)
            }
            // One end at a time.
            Action::EndSoon(..) if self.ending.is_some() => Ok(()),
            Action::EndSoon(calls, cut) => {
                self.ending = Some(*cut);
                self.fs.end_at(self.fs.calls() + calls);
                Ok(())
            }
        }
    }

    fn end(&mut self) {
        match self.ending.take() {
            Some(true) => self.fs.cut_power(),
            _ => self.fs.kill(),
        }
    }

    /// Acts; if that ends the process, opens the journal again.
    pub(crate) fn act(&mut self, action: &Action) -> Result<(), JournalError> {
        match self.try_to(action) {
            Err(_) if self.fs.has_ended() => {
                let durable = match self.ending {
                    Some(true) => self.journal().synced_now(),
                    _ => self.journal().written_now(),
                };
                self.end();
                self.open(durable).map(drop)
            }
            result => result,
        }
    }
}

/// What is done to the disk while nobody uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    Rot(u64),
    RotCheckpoint(u64),
    Unreadable(usize),
    Cut(prop::sample::Index),
    LoseFile(prop::sample::Index),
    Misdirect(u64),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        8 => (1..600_u64).prop_map(Damage::Rot),
        1 => (1..30_u64).prop_map(Damage::RotCheckpoint),
        2 => (1..3_000_usize).prop_map(Damage::Unreadable),
        2 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => any::<prop::sample::Index>().prop_map(Damage::LoseFile),
        4 => (1..60_u64).prop_map(Damage::Misdirect),
    ]
}

/// Crashes of every kind at every call: nothing durable is lost, nothing is invented.
pub(crate) fn crashes(seed: u64, torn_bytes: bool, actions: &[Action]) {
    let mut world = World::new(seed, Faults { torn_bytes, ..Faults::default() });
    for action in actions {
        world.act(action).unwrap();
    }
    world.act(&Action::CutPower).unwrap();
}

/// One sync fails. Nothing is acknowledged from then on; what a new process finds and acknowledges is there after a power cut.
pub(crate) fn failed_sync(seed: u64, fails: u64, dropping_syncs: bool, actions: &[Action], later: &[Action]) {
    let mut world = World::new(seed, Faults::default());
    let at = world.fs.syncs() + fails;
    world.fs.set_faults(Faults { failing_sync: Some(at), dropping_syncs, ..Faults::default() });
    // Only the sync ends a process here; the disk goes on failing unless it drops.
    let kept = |action: &&Action| !matches!(action, Action::Kill | Action::CutPower | Action::EndSoon(..));
    let Some(error) = actions.iter().filter(kept).find_map(|action| world.act(action).err()) else { return };
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    let journal = world.journal().clone();
    let (synced, written) = (journal.synced_now(), journal.written_now());
    world.fs.set_faults(Faults::default());
    for _ in 0..2 {
        assert!(journal.drive().is_err() && journal.check().is_err(), "it went on after a failed sync");
        assert!(journal.checkpoint(journal.mark(), &world.snapshot()).is_err());
    }
    assert_eq!(journal.synced_now(), synced, "acknowledged after a failed sync");
    drop(journal);
    if seed.is_multiple_of(4) {
        world.fs.cut_power();
        world.open(synced).unwrap();
    } else {
        world.fs.kill();
        world.open(written).unwrap();
    }
    for action in later.iter().filter(kept) {
        world.act(action).unwrap();
    }
    let all = later.len().is_multiple_of(2);
    if all {
        world.act(&Action::Sync).unwrap();
    }
    world.act(&Action::CutPower).unwrap();
}

/// The disk is damaged: what is lost is what was hit, and it is reported.
pub(crate) fn damaged(seed: u64, actions: &[Action], damage: Damage) {
    let mut world = World::new(seed, Faults::default());
    let (before, after) = actions.split_at(actions.len() * 3 / 4);
    for action in before {
        world.act(action).unwrap();
    }
    world.act(&Action::Sync).unwrap();
    world.ending = None;
    world.damaged = true;
    let mut hit = None;
    match damage {
        Damage::Misdirect(writes) => {
            let at = world.fs.writes() + writes;
            world.fs.set_faults(Faults { misdirected_write: Some(at), ..Faults::default() });
            for action in after {
                if !acceptable(world.act(action)) {
                    return;
                }
            }
        }
        _ => hit = hurt(&mut world, damage),
    }
    // An end that has come and was not seen yet.
    if !acceptable(world.act(&Action::Sync)) {
        return;
    }
    world.fs.set_faults(Faults::default());
    let durable = world.journal().synced_now();
    world.fs.kill();
    let before = world.entries.clone();
    let opened = world.open(durable);
    let Ok(found) = opened else {
        let error = opened.unwrap_err();
        assert!(!matches!(damage, Damage::Rot(_)), "rot in {hit:?} ended the journal: {error}");
        acceptable(Err(error));
        return;
    };
    if let Some((file, range)) = hit {
        limited(&before, &found, &file, range);
    }
    // It goes on as if nothing had been, and says the same again.
    world.fs.kill();
    let again = match world.open(u64::MAX) {
        // What cannot be read may come to lie where the journal ends.
        Err(JournalError::Io { .. }) if matches!(damage, Damage::Unreadable(_)) => return,
        again => again.unwrap(),
    };
    assert_eq!(again.numbers, found.numbers, "{found:?} and then {again:?}");
    let appended = world.act(&Action::Append(10)).and_then(|()| world.act(&Action::Sync));
    match appended {
        // Nor can a part of what cannot be read be written.
        Err(JournalError::Io { .. }) if matches!(damage, Damage::Unreadable(_)) => return,
        appended => appended.unwrap(),
    }
    world.fs.cut_power();
    match world.open(u64::MAX) {
        Err(JournalError::Io { .. }) if matches!(damage, Damage::Unreadable(_)) => {}
        last => assert_eq!(last.unwrap().numbers.len(), found.numbers.len() + 1),
    }
}

/// Whether a call succeeded, or said in a typed error what is damaged or cannot be read.
fn acceptable(result: Result<(), JournalError>) -> bool {
    match result {
        Ok(()) => true,
        Err(JournalError::Damaged { .. } | JournalError::Io { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Does it; for rot, says where.
fn hurt(world: &mut World, damage: Damage) -> Option<(String, Range<u64>)> {
    let pick = |index: prop::sample::Index, prefix: &str| {
        let names = world.fs.list_names(prefix);
        names.get(index.index(names.len().max(1))).cloned()
    };
    match damage {
        Damage::Rot(bytes) => {
            let rot = world.fs.rot("segment-", bytes)?;
            return Some((rot.file, rot.offset as u64..(rot.offset + rot.bytes) as u64));
        }
        Damage::RotCheckpoint(bytes) => return world.fs.rot("checkpoint-", bytes).map(|rot| (rot.file, 0..0)),
        Damage::Misdirect(_) => {}
        Damage::Unreadable(bytes) => {
            let names = world.fs.list_names("");
            let name = &names[bytes % names.len()];
            world.fs.make_unreadable(name, bytes / 2..bytes);
        }
        Damage::Cut(index) => {
            if let Some(name) = pick(index, "segment-") {
                world.fs.cut(&name, index.index(4_096));
            }
        }
        Damage::LoseFile(index) => {
            if let Some(name) = pick(index, "") {
                world.fs.lose(&name);
            }
        }
    }
    None
}

/// What was not hit is there, but for what follows it at the very end: that looks torn. What was hit and is told comes with its bytes.
fn limited(before: &[Entry], found: &Found, file: &str, range: Range<u64>) {
    let segment = file.strip_prefix("segment-").and_then(|number| u64::from_str_radix(number, 16).ok());
    let base = segment.map_or(0, |number| number * 4_096);
    let is_hit = |entry: &Entry| entry.address < base + range.end && base + range.start < entry.end.next_multiple_of(8);
    let missing: Vec<&Entry> = before.iter().filter(|entry| !found.numbers.contains(&entry.number)).collect();
    let last_found = before.iter().rposition(|entry| found.numbers.contains(&entry.number));
    let end = last_found.map_or(0, |index| index + 1);
    for (index, entry) in before.iter().enumerate().filter(|(_, entry)| missing.iter().any(|other| other.number == entry.number))
    {
        assert!(is_hit(entry) || index >= end, "{entry:?} was not hit by rot in {file} {range:?}, and is missing: {found:?}");
        if index >= end {
            let torn = found.recovered.torn.is_some()
                || before[end..].iter().all(|entry| is_hit(entry))
                || found.reports(entry.sequence);
            assert!(torn || is_hit(&before[end]), "{entry:?} is missing at the end, and nothing was said");
        }
    }
    for lost in found.lost.iter().filter_map(|lost| lost.record.as_ref()) {
        let entry = before.iter().find(|entry| entry.sequence == lost.sequence);
        if let Some(entry) = entry {
            assert_eq!((lost.address - 24, lost.address + lost.body.len() as u64), (entry.address, entry.end));
        }
    }
}
