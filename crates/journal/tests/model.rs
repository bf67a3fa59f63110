//! Whatever is appended, written, synced, checkpointed, killed, cut off and damaged, what is found afterwards is what was appended, in order, and holds
//! everything whose durability was reported, or it is reported as lost.

mod world;

use leatworks_journal::{JournalError, simulation::Faults};
use proptest::prelude::*;
use world::{Action, World, actions, damage};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_and_nothing_is_invented(seed: u64, torn: bool, actions in actions()) {
        world::crashes(seed, torn, &actions);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_reported_durable(
        seed: u64, fails in 1..40_u64, dropping: bool, actions in actions(), later in actions(),
    ) {
        world::failed_sync(seed, fails, dropping, &actions, &later);
    }

    #[test]
    fn damage_is_reported_and_limited_to_what_it_hit(seed: u64, actions in actions(), damage in damage()) {
        world::damaged(seed, &actions, damage);
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
            world.journal().checkpoint(world.journal().mark(), &world.snapshot()).unwrap();
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
        world.open(u64::MAX).unwrap();
        assert_eq!(world.entries.len(), 300);
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
