//! The world of the model test: an owner whose state is the numbers it has appended, a simulated disk, and what must hold whenever a journal is opened.

use leatworks_journal::{
    Effect, Journal, JournalError, Lost, Options, Record, Recovered, Syncing, Visitor, Work,
    simulation::{Faults, SimulatedFileSystem},
};
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) const OPTIONS: Options =
    Options { segment_bytes: 4_096, syncing: Syncing::Always, checkpoint_bytes: 9_000, work: Work::Driven };

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
    pub(crate) fn reports(&self, sequence: u64) -> bool {
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
    /// Nothing is appended for a while.
    Rest,
    Kill,
    CutPower,
    Checkpoint,
    Close,
    /// The process ends at a call soon, by itself or because the power is cut.
    EndSoon(u64, bool),
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        12 => prop_oneof![0..40_usize, 0..900_usize, Just(3_930_usize)].prop_map(Action::Append),
        4 => Just(Action::Write),
        3 => Just(Action::Sync),
        2 => Just(Action::Rest),
        1 => Just(Action::Kill),
        2 => Just(Action::CutPower),
        2 => Just(Action::Checkpoint),
        1 => Just(Action::Close),
        2 => (1..20_u64, any::<bool>()).prop_map(|(calls, cut)| Action::EndSoon(calls, cut)),
    ];
    prop::collection::vec(action, 1..120)
}

/// Small records of few sizes, each written by itself, a power cut, a few more, and a kill: what was cut off fits exactly behind what came next.
pub(crate) fn small_actions() -> impl Strategy<Value = Vec<Action>> {
    let records = |most| prop::collection::vec(0..3_usize, 1..most);
    let written = |sizes: Vec<usize>| sizes.into_iter().flat_map(|size| [Action::Append(size * 8), Action::Write]);
    let life = (records(9), records(5)).prop_map(move |(before, after)| {
        written(before).chain([Action::CutPower]).chain(written(after)).chain([Action::Sync, Action::Kill]).collect::<Vec<_>>()
    });
    prop::collection::vec(life, 1..6).prop_map(|lives| lives.concat())
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
    pub(crate) ending: Option<bool>,
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
        if !self.journal().has_room(4 + bytes, Effect::Adds) {
            self.journal().drive()?;
            // What asks for room has spares made, even if the segment in use has hardly begun.
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let journal = self.journal().clone();
            runtime.block_on(async {
                let mut room = std::pin::pin!(journal.room(4 + bytes, Effect::Adds));
                tokio::select! { biased; told = &mut room => told, () = std::future::ready(()) => journal.drive() }
            })?;
            if !self.journal().has_room(4 + bytes, Effect::Adds) {
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
            Action::Rest => self.journal().rest(),
            Action::Checkpoint => match self.journal().checkpoint(self.journal().mark(), &self.snapshot()) {
                // Nothing is lost by it: the other one stands.
                Err(JournalError::Full) => Ok(()),
                result => result,
            },
            Action::Close => {
                self.journal().close()?;
                let synced = self.journal().synced_now();
                assert!(self.entries.last().is_none_or(|entry| entry.sequence <= synced), "closed, and not durable");
                self.fs.kill();
                self.ending = None;
                self.open(synced).map(drop)
            }
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
