//! What can happen to a journal, each as one function that panics if a promise is broken.

use crate::world::{Action, Entry, Found, World};
use leatworks_journal::{Effect, JournalError, simulation::Faults};
use proptest::prelude::*;
use std::ops::Range;

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
    let kept = |action: &&Action| !matches!(action, Action::Kill | Action::CutPower | Action::Close | Action::EndSoon(..));
    let Some(error) = actions.iter().filter(kept).find_map(|action| world.act(action).err()) else {
        // It may have failed all the same, while spares were made.
        world.fs.set_faults(Faults::default());
        return world.act(&Action::CutPower).unwrap();
    };
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    let journal = world.journal().clone();
    let (synced, written) = (journal.synced_now(), journal.written_now());
    world.fs.set_faults(Faults::default());
    let syncs = world.fs.syncs();
    for _ in 0..2 {
        assert!(journal.drive().is_err() && journal.check().is_err(), "it went on after a failed sync");
        assert!(journal.checkpoint(journal.mark(), &world.snapshot()).is_err());
    }
    assert!(journal.close().is_err());
    assert_eq!((journal.synced_now(), world.fs.syncs()), (synced, syncs), "acknowledged, or tried again, after a failed sync");
    drop(journal);
    if seed.is_multiple_of(4) {
        world.fs.cut_power();
        world.open(synced).unwrap();
    } else {
        world.fs.kill();
        world.open(written).unwrap();
    }
    for action in later {
        world.act(action).unwrap();
    }
    let all = later.len().is_multiple_of(2);
    if all {
        world.act(&Action::Sync).unwrap();
    }
    world.act(&Action::CutPower).unwrap();
}

/// The disk has no space for one file, and then it has: whatever it was, nothing ends and nothing is lost.
pub(crate) fn full_create(seed: u64, creates: u64, actions: &[Action]) {
    let mut world = World::new(seed, Faults::default());
    let at = world.fs.creates() + creates;
    world.fs.set_faults(Faults { full_create: Some(at), ..Faults::default() });
    // Ends that are planned set the faults anew; opening a journal has nobody to wait for space, and says so.
    for action in actions.iter().filter(|action| !matches!(action, Action::EndSoon(..))) {
        match world.act(action) {
            Err(JournalError::Full) if matches!(action, Action::Kill | Action::CutPower | Action::Close) => {
                world.open(0).unwrap();
            }
            Err(JournalError::Full) => {}
            result => result.unwrap(),
        }
    }
    world.act(&Action::Append(100)).unwrap();
    world.act(&Action::Sync).unwrap();
    let sequence = world.entries.last().unwrap().sequence;
    assert!(world.journal().synced_now() >= sequence, "it has not recovered");
    world.act(&Action::CutPower).unwrap();
}

/// The sync of a checkpoint fails, and the checkpoint is in memory only. While the next one is made the power is cut at each call in turn: one that can be
/// started from is always there, and the segments that it needs.
pub(crate) fn unsynced_checkpoint() {
    // Two writes, a sync, and a sync of the directory, each of them with what chance leaves of them.
    for (call, seed) in (1..5).flat_map(|call| (0..8).map(move |seed| (call, seed))) {
        let mut world = World::new(seed, Faults::default());
        for _ in 0..4 {
            for _ in 0..12 {
                world.act(&Action::Append(900)).unwrap();
            }
            world.act(&Action::Checkpoint).unwrap();
        }
        world.act(&Action::Append(900)).unwrap();
        world.act(&Action::Sync).unwrap();
        let next = world.fs.syncs() + 1;
        let torn = Faults { torn_bytes: true, ..Faults::default() };
        world.fs.set_faults(Faults { failing_sync: Some(next), dropping_syncs: true, ..torn });
        world.act(&Action::Checkpoint).unwrap_err();
        world.fs.set_faults(torn);
        world.act(&Action::Kill).unwrap();
        world.act(&Action::Append(900)).unwrap();
        world.act(&Action::Sync).unwrap();
        world.act(&Action::EndSoon(call, true)).unwrap();
        world.act(&Action::Checkpoint).unwrap();
        world.act(&Action::CutPower).unwrap();
    }
}

/// The disk is damaged: what is lost is what was hit, and it is reported.
pub(crate) fn damaged(seed: u64, actions: &[Action], damage: Damage) {
    let mut world = World::new(seed, Faults::default());
    let (before, after) = actions.split_at(actions.len() * 3 / 4);
    for action in before {
        world.act(action).unwrap();
    }
    world.act(&Action::Sync).unwrap();
    if seed.is_multiple_of(2) {
        world.act(&Action::Rest).unwrap();
    }
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
            let torn = found.recovered.torn.is_some() || before[end..].iter().all(is_hit) || found.reports(entry.sequence);
            assert!(torn || is_hit(&before[end]), "{entry:?} is missing at the end, and nothing was said");
        }
    }
    for lost in found.lost.iter().filter_map(|lost| lost.record.as_ref()) {
        let entry = before.iter().find(|entry| entry.sequence == lost.sequence);
        // Where its header was hit, nobody can know how long it was.
        let header = |entry: &Entry| base + range.start < entry.address + 24 && entry.address < base + range.end;
        if let Some(entry) = entry.filter(|entry| !header(entry)) {
            assert_eq!((lost.address - 24, lost.address + lost.body.len() as u64), (entry.address, entry.end));
        }
    }
}

/// A process is killed while it writes a checkpoint over one that knew a record, and the record is damaged: for the next one it is lost. The disk has the checkpoint still, and
/// a power cut must not bring the record back among what has happened without it.
pub(crate) fn lost_for_good() {
    let mut lost = 0;
    for (seed, calls) in (1..20).flat_map(|seed| (1..8).map(move |calls| (seed, calls))) {
        let mut world = World::new(seed, Faults::default());
        for action in
            [Action::Append(100), Action::Checkpoint, Action::Append(100), Action::Checkpoint, Action::Append(100), Action::Sync]
        {
            world.act(&action).unwrap();
        }
        let known = world.entries[1];
        // Whoever finds two checkpoints replaces the newer one, which may be in memory only.
        world.act(&Action::Kill).unwrap();
        world.fs.end_at(world.fs.calls() + calls);
        // It ends somewhere in this, or behind it.
        let _ = world.journal().checkpoint(world.journal().mark(), &world.snapshot());
        world.fs.kill();
        world.fs.flip_bit("segment-0000000000000000", (known.address as usize + 60) * 8);
        world.damaged = true;
        let found = world.open(u64::MAX).unwrap();
        lost += u32::from(found.reports(known.sequence));
        world.act(&Action::Append(10)).unwrap();
        world.act(&Action::Sync).unwrap();
        world.fs.cut_power();
        let last = world.open(u64::MAX).unwrap();
        assert_eq!(last.numbers.len(), found.numbers.len() + 1, "{found:?} and then {last:?}");
    }
    assert!(lost > 10, "the record was lost {lost} times only");
}

/// A disk without space is told before anything is accepted, and it passes.
pub(crate) fn full_disk() {
    let mut world = World::new(4, Faults { space_bytes: Some(4 * 4_096), ..Faults::default() });
    world.holding = true;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let full = |world: &World| {
        let journal = world.journal().clone();
        runtime.block_on(async {
            let mut room = std::pin::pin!(journal.room(1_000, Effect::Adds));
            tokio::select! {
                biased;
                told = &mut room => told.err(),
                () = std::future::ready(()) => { journal.drive().unwrap(); room.await.err() }
            }
        })
    };
    let mut accepted = 0;
    while world.journal().has_room(1_000, Effect::Adds) || full(&world).is_none() {
        world.act(&Action::Append(900)).unwrap();
        world.journal().drive().unwrap();
        accepted += 1;
    }
    assert!(matches!(full(&world), Some(JournalError::Full)), "after {accepted}");
    assert!(world.journal().has_room(100, Effect::Frees), "what frees messages still has room");
    world.fs.set_faults(Faults { space_bytes: Some(40 * 4_096), ..Faults::default() });
    world.journal().drive().unwrap();
    assert!(full(&world).is_none());
    world.act(&Action::Append(900)).unwrap();
    world.act(&Action::CutPower).unwrap();
}
