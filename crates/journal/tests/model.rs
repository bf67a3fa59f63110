//! Whatever is appended, written, synced, checkpointed, killed and cut off, what is found afterwards is a prefix of what was appended that holds
//! everything whose durability was reported.

use leatworks_journal::{
    Journal, JournalError, Options, Record, Syncing, Visitor,
    simulation::{Faults, SimulatedFileSystem},
};
use proptest::prelude::*;
use std::sync::Arc;

const OPTIONS: Options = Options { segment_bytes: 4_096, syncing: Syncing::Always, checkpoint_bytes: 9_000, threads: false };

/// The owner's state: the numbers of all records so far, which is also its snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
struct Numbers(Vec<u32>);

impl Visitor for Numbers {
    fn snapshot(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = snapshot.chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        self.0.push(number(&record.body)?);
        Ok(())
    }
}

/// A body is its number, and then a filling that follows from it.
fn body(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(4 + bytes, number as u8);
    body
}

fn number(body: &[u8]) -> Result<u32, String> {
    let number = u32::from_le_bytes(body[..4].try_into().map_err(|_| "short")?);
    match body[4..].iter().all(|byte| *byte == number as u8) {
        true => Ok(number),
        false => Err(format!("filling of {number} is wrong")),
    }
}

#[derive(Clone, Debug)]
enum Action {
    Append(usize),
    Write,
    Sync,
    Kill,
    CutPower,
    Checkpoint,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        12 => prop_oneof![0..40_usize, 0..900_usize, Just(3_930_usize)].prop_map(Action::Append),
        4 => Just(Action::Write),
        3 => Just(Action::Sync),
        1 => Just(Action::Kill),
        2 => Just(Action::CutPower),
        2 => Just(Action::Checkpoint),
    ];
    prop::collection::vec(action, 1..120)
}

struct World {
    fs: SimulatedFileSystem,
    journal: Option<Journal>,
    /// Everything appended in this history, with the sequence of each.
    appended: Numbers,
    sequences: Vec<u64>,
    next: u32,
    /// Whether what is appended stays alive.
    holding: bool,
    written: u64,
    synced: u64,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let fs = SimulatedFileSystem::new(seed, faults);
        let mut world = Self {
            fs,
            journal: None,
            appended: Numbers::default(),
            sequences: Vec::new(),
            next: 0,
            holding: false,
            written: 0,
            synced: 0,
        };
        world.open().unwrap();
        world
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn open(&mut self) -> Result<(), JournalError> {
        let mut found = Numbers::default();
        let (journal, _) = Journal::open(Arc::new(self.fs.clone()), OPTIONS, &mut found)?;
        let kept = found.0.len();
        assert_eq!(found.0[..], self.appended.0[..kept], "not a prefix");
        self.appended.0.truncate(kept);
        self.sequences.truncate(kept);
        self.journal = Some(journal);
        Ok(())
    }

    /// Everything up to this sequence must be there.
    fn reopen(&mut self, durable: u64) -> Result<(), JournalError> {
        self.journal = None;
        let expected = self.sequences.iter().filter(|sequence| **sequence <= durable).count();
        self.open()?;
        assert!(self.appended.0.len() >= expected, "lost: {} of {expected} records", self.appended.0.len());
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), JournalError> {
        match action {
            Action::Append(bytes) => {
                if !self.journal().has_room(4 + bytes, false) {
                    self.journal().drive()?;
                    // What asks for room has spares made, even if the segment in use has hardly begun.
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let journal = self.journal().clone();
                    runtime.block_on(async {
                        let mut room = std::pin::pin!(journal.room(4 + bytes, false));
                        tokio::select! { biased; _ = &mut room => {}, () = std::future::ready(()) => journal.drive().unwrap() }
                    });
                }
                self.next += 1;
                let appended = self.journal().append(body(self.next, *bytes));
                if self.holding {
                    self.journal().hold(std::iter::once((appended.address, *bytes)));
                }
                self.appended.0.push(self.next);
                self.sequences.push(appended.sequence);
            }
            Action::Write => _ = self.journal().drive_writing()?,
            Action::Sync => self.journal().drive()?,
            Action::Checkpoint => {
                let snapshot: Vec<u8> = self.appended.0.iter().flat_map(|number| number.to_le_bytes()).collect();
                self.journal().checkpoint(self.journal().mark(), &snapshot)?;
            }
            Action::Kill => {
                self.written = self.journal().written_now();
                self.fs.kill();
                self.reopen(self.written)?;
            }
            Action::CutPower => {
                self.synced = self.journal().synced_now();
                self.fs.cut_power();
                self.reopen(self.synced)?;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_and_nothing_is_invented(seed: u64, actions in actions()) {
        let mut world = World::new(seed, Faults::default());
        for action in &actions {
            world.act(action).unwrap();
        }
        world.act(&Action::CutPower).unwrap();
    }

    #[test]
    fn after_a_failed_sync_nothing_is_reported_durable(seed: u64, fails in 3..40_u64, actions in actions()) {
        let mut world = World::new(seed, Faults::default());
        world.fs.set_faults(Faults { failing_sync: Some(fails), ..Faults::default() });
        let failed = actions.iter().find_map(|action| world.act(action).err());
        if failed.is_some() {
            let synced = world.journal.as_ref().map(Journal::synced_now);
            world.fs.set_faults(Faults::default());
            if let (Some(synced), Some(journal)) = (synced, world.journal.clone()) {
                prop_assert!(journal.drive().is_err(), "it went on after a failed sync");
                prop_assert_eq!(journal.synced_now(), synced);
                world.fs.cut_power();
                drop(journal);
                world.reopen(synced).unwrap();
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_delivered(seed: u64, sizes in prop::collection::vec(0..300_usize, 1..60), at: prop::sample::Index) {
        let mut world = World::new(seed, Faults::default());
        for size in &sizes {
            world.act(&Action::Append(*size)).unwrap();
            world.act(&Action::Sync).unwrap();
        }
        world.fs.kill();
        let names = world.fs.list_names("segment-");
        let name = &names[at.index(names.len())];
        let bits = world.fs.bytes_of(name).unwrap().len() * 8;
        world.fs.flip_bit(name, at.index(bits));
        // Either it is told, or what is found is a prefix that lacks at most the last record: of that one nobody can know that it was synced.
        world.journal = None;
        let before = world.appended.0.len();
        match world.open() {
            Err(JournalError::Damaged { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
            Ok(()) => prop_assert!(world.appended.0.len() + 1 >= before, "{} of {before}", world.appended.0.len()),
        }
    }
}

#[test]
fn a_disk_that_lies_loses_something() {
    // The same world with syncs that do nothing must fail the test above, or the test proves nothing.
    let lost = (1..200_u64).any(|seed| {
        std::panic::catch_unwind(|| {
            let mut world = World::new(seed, Faults { lying_syncs: true, ..Faults::default() });
            for _ in 0..30 {
                world.act(&Action::Append(100)).unwrap();
                world.act(&Action::Sync).unwrap();
            }
            world.act(&Action::CutPower).unwrap();
        })
        .is_err()
    });
    assert!(lost);
}

#[test]
fn segments_are_used_again_and_the_disk_use_stays() {
    let mut world = World::new(1, Faults::default());
    let mut most = 0;
    for round in 0..2_000 {
        world.act(&Action::Append(200)).unwrap();
        if round % 10 == 0 {
            world.act(&Action::Sync).unwrap();
        }
        if world.journal().duty_now().is_some() {
            // What is in the state is in the snapshot, so no segment holds anything alive. A short snapshot keeps the test quick.
            let snapshot: Vec<u8> = world.appended.0.iter().flat_map(|number| number.to_le_bytes()).collect();
            world.journal().checkpoint(world.journal().mark(), &snapshot).unwrap();
        }
        let usage = world.journal().usage();
        most = most.max(usage.segments + usage.spares);
    }
    assert!(most <= 20, "{most} segments for 2,000 records of 228 bytes in segments of 4 KiB");
    world.act(&Action::CutPower).unwrap();
}

#[test]
fn a_damaged_checkpoint_loses_nothing() {
    for name in ["checkpoint-a", "checkpoint-b"] {
        let mut world = World::new(3, Faults::default());
        for _ in 0..5 {
            for _ in 0..60 {
                world.act(&Action::Append(150)).unwrap();
            }
            world.act(&Action::Checkpoint).unwrap();
        }
        world.act(&Action::Sync).unwrap();
        world.fs.kill();
        world.fs.flip_bit(name, 777);
        world.reopen(u64::MAX).unwrap();
        assert_eq!(world.appended.0.len(), 300);
    }
}

#[test]
fn a_full_disk_is_told_before_anything_is_accepted_and_passes() {
    let mut world = World::new(4, Faults { space_bytes: Some(4 * 4_096), ..Faults::default() });
    world.holding = true;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let full = |world: &World| {
        let journal = world.journal().clone();
        runtime.block_on(async {
            let mut room = std::pin::pin!(journal.room(1_000, false));
            tokio::select! {
                biased;
                told = &mut room => told.err(),
                () = std::future::ready(()) => { journal.drive().unwrap(); room.await.err() }
            }
        })
    };
    let mut accepted = 0;
    while world.journal().has_room(1_000, false) || full(&world).is_none() {
        world.act(&Action::Append(900)).unwrap();
        world.journal().drive().unwrap();
        accepted += 1;
    }
    assert!(matches!(full(&world), Some(JournalError::Full)), "after {accepted}");
    assert!(world.journal().has_room(100, true), "what frees messages still has room");
    world.fs.set_faults(Faults { space_bytes: Some(40 * 4_096), ..Faults::default() });
    world.journal().drive().unwrap();
    assert!(full(&world).is_none());
    world.act(&Action::Append(900)).unwrap();
    world.act(&Action::CutPower).unwrap();
}
