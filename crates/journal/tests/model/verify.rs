//! What `verify` says of a journal of which any byte is flipped, and that it changes nothing.

use crate::world::{Action, Found, OPTIONS, World};
use leatworks_journal::{
    Journal, Report,
    simulation::{Faults, SimulatedFileSystem},
    verify,
};
use std::{collections::BTreeMap, sync::Arc};

/// A journal with two checkpoints, several lives, a segment that was let go of, and records of all kinds.
fn journal() -> SimulatedFileSystem {
    let mut world = World::new(1, Faults::default());
    for round in 0..4 {
        for size in [0, 7, 400, 1_500, 33] {
            world.act(&Action::Append(size)).unwrap();
            world.act(&Action::Sync).unwrap();
        }
        if round > 0 {
            world.act(&Action::Checkpoint).unwrap();
        }
        world.act(&Action::Kill).unwrap();
    }
    for size in [3_000, 2_000, 2_500, 100] {
        world.act(&Action::Append(size)).unwrap();
    }
    world.journal().close().unwrap();
    world.fs.kill();
    world.fs
}

fn disk(fs: &SimulatedFileSystem) -> BTreeMap<String, Vec<u8>> {
    fs.list_names("").into_iter().map(|name| (name.clone(), fs.bytes_of(&name).unwrap())).collect()
}

/// The bytes of a file that say something: of a checkpoint its header, which has its length, and the snapshot; of a segment its headers and its records.
fn used(name: &str, bytes: &[u8]) -> std::ops::Range<usize> {
    if name.starts_with("checkpoint") {
        return 0..64 + u64::from_le_bytes(bytes[48..56].try_into().unwrap()) as usize;
    }
    let last = bytes[..bytes.len() - 64].iter().rposition(|byte| *byte != 0).unwrap();
    0..last + 1
}

#[test]
fn a_sound_journal_is_sound_and_stays_as_it_is() {
    let fs = journal();
    let before = disk(&fs);
    let report = verify(&fs).unwrap();
    assert_eq!((report.damages.len(), report.torn.clone()), (0, None), "{report:?}");
    assert_eq!(report.checkpoints, 2);
    assert!(report.segments > 2 && report.records > 10 && report.record_bytes > 4_000, "{report:?}");
    assert_eq!(report.file_bytes, before.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(disk(&fs), before);
}

#[test]
fn every_byte_that_says_something_is_checked() {
    let fs = journal();
    let sound = verify(&fs).unwrap();
    let mut kinds = BTreeMap::<&str, usize>::new();
    for (name, bytes) in disk(&fs) {
        if name.starts_with("spare-") {
            continue;
        }
        let range = used(&name, &bytes);
        // The copy of a segment's header.
        let copy = if name.starts_with("segment-") { bytes.len() - 64..bytes.len() } else { 0..0 };
        // The last record of all is the mark of a proper end. It holds nothing, and damage of it is what a crash might have left.
        let is_tail = name == fs.list_names("segment-").pop().unwrap();
        for offset in range.clone().chain(copy.filter(|offset| *offset >= range.end)) {
            let in_mark = is_tail && offset < bytes.len() - 64 && offset + 24 >= range.end;
            let damaged = fs.fork();
            damaged.flip_bit(&name, offset * 8 + offset % 8);
            let report = verify(&damaged).unwrap();
            let found: Vec<_> = report.damages.iter().filter(|damage| damage.file == name).collect();
            assert!(in_mark || found.len() == 1, "byte {offset} of {name}: {report:?}");
            assert_eq!(report.damages.len(), found.len(), "byte {offset} of {name}: {report:?}");
            *kinds.entry(kind(&name, &sound, &report)).or_default() += 1;
        }
    }
    let all: Vec<&str> = kinds.keys().copied().collect();
    assert_eq!(all, ["checkpoint", "header", "nothing lost", "one record lost"], "{kinds:?}");
}

/// What the flip has cost: never more than one record.
fn kind(name: &str, sound: &Report, damaged: &Report) -> &'static str {
    match (name.starts_with("checkpoint"), sound.records - damaged.records) {
        (true, 0) => "checkpoint",
        (false, 0) if damaged.damages.iter().any(|damage| damage.reason.contains("header")) => "header",
        (false, 0) => "nothing lost",
        (false, 1) => "one record lost",
        other => panic!("{other:?}: {damaged:?}"),
    }
}

/// Opens a copy of the disk with whatever was done to it.
fn recover(fs: SimulatedFileSystem) -> Found {
    let mut found = Found::default();
    let (journal, recovered) = Journal::open(Arc::new(fs), OPTIONS, &mut found).unwrap();
    drop(journal);
    Found { recovered, ..found }
}

#[test]
fn a_flip_of_any_byte_costs_at_most_its_record() {
    let fs = journal();
    let all = recover(fs.fork()).numbers;
    let mut flips = 0;
    for (name, bytes) in disk(&fs).into_iter().filter(|(name, _)| !name.starts_with("spare-")) {
        for offset in (0..bytes.len()).step_by(3) {
            let damaged = fs.fork();
            damaged.flip_bit(&name, offset * 8 + offset % 8);
            let found = recover(damaged);
            let lost: Vec<&u32> = all.iter().filter(|number| !found.numbers.contains(number)).collect();
            assert!(found.numbers.iter().all(|number| all.contains(number)) && found.numbers.is_sorted(), "{found:?}");
            // One that held nothing may seem to have held something.
            assert!(
                lost.len() as u64 <= found.recovered.lost && found.recovered.lost <= 1,
                "byte {offset} of {name}: {lost:?}, {found:?}"
            );
            // The damaged record comes with its bytes, unless the flip was in its header.
            assert!(found.lost.iter().all(|lost| lost.record.is_some() || lost.offset + 24 > offset as u64), "{found:?}");
            flips += 1;
        }
    }
    assert!(flips > 4_096, "{flips}");
}

#[test]
fn a_journal_that_is_cut_at_any_byte_says_so() {
    let fs = journal();
    let all = recover(fs.fork()).numbers;
    for name in fs.list_names("segment-") {
        for bytes in (64..4_096).step_by(5) {
            let damaged = fs.fork();
            damaged.cut(&name, bytes);
            let found = recover(damaged.fork());
            let lost: Vec<&u32> = all.iter().filter(|number| !found.numbers.contains(number)).collect();
            assert!(found.numbers.is_sorted() && found.numbers.iter().all(|number| all.contains(number)), "{found:?}");
            assert!(lost.is_empty() || !found.lost.is_empty(), "{name} cut at {bytes}: {lost:?}, {found:?}");
            let report = verify(&damaged).unwrap();
            assert!(report.damages.iter().any(|damage| damage.file == name), "{name} cut at {bytes}: {report:?}");
        }
    }
}

#[test]
fn what_is_missing_cut_or_unreadable_is_told() {
    let fs = journal();
    let segments = fs.list_names("segment-");
    let middle = &segments[segments.len() - 2];
    let disks = [(); 5].map(|()| fs.fork());
    disks[0].lose(middle);
    disks[1].cut(middle, 3_000);
    disks[2].make_unreadable(middle, 100..600);
    disks[3].make_unreadable("checkpoint-a", 0..1);
    disks[4].cut("checkpoint-b", 70);
    let told = [
        "there is no file `segment-",
        "bytes and should have 4096",
        "the disk cannot read this",
        "the disk cannot read this",
        "its checksum is wrong",
    ];
    for (damaged, words) in disks.into_iter().zip(told) {
        let report = verify(&damaged).unwrap();
        assert!(report.damages.iter().any(|damage| damage.reason.contains(words)), "`{words}`: {report:?}");
    }
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    for seed in 0..300 {
        let mut world = World::new(seed, Faults { torn_bytes: seed % 2 == 0, ..Faults::default() });
        for step in 0..60 {
            let size = (seed * 7 + step * 131) % 900;
            world.act(&Action::Append(size as usize)).unwrap();
            match (seed + step) % 7 {
                0 => world.act(&Action::Sync).unwrap(),
                1 | 2 => world.act(&Action::Write).unwrap(),
                3 if step % 3 == 0 => world.act(&Action::Checkpoint).unwrap(),
                4 if step % 5 == 0 => world.act(&Action::EndSoon(step % 13, step % 2 == 0)).unwrap(),
                _ => {}
            }
        }
        world.fs.cut_power();
        let report = verify(&world.fs).unwrap();
        assert_eq!(report.damages, [], "seed {seed}: {report:?}");
    }
}
