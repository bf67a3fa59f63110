//! Whatever is appended, written, synced, checkpointed, killed, cut off and damaged, what is found afterwards is what was appended, in order, and holds
//! everything whose durability was reported, or it is reported as lost.

mod scenarios;
mod verify;
mod world;

use leatworks_journal::simulation::Faults;
use proptest::prelude::*;
use scenarios::damage;
use world::{Action, World, actions, small_actions};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_and_nothing_is_invented(seed: u64, torn: bool, actions in actions()) {
        scenarios::crashes(seed, torn, &actions);
    }

    #[test]
    fn space_that_is_missing_once_ends_nothing(seed: u64, creates in 1..12_u64, actions in actions()) {
        scenarios::full_create(seed, creates, &actions);
    }

    #[test]
    fn what_was_cut_off_never_comes_back(seed: u64, actions in small_actions()) {
        scenarios::crashes(seed, false, &actions);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_reported_durable(
        seed: u64, fails in 1..40_u64, dropping: bool, actions in actions(), later in actions(),
    ) {
        scenarios::failed_sync(seed, fails, dropping, &actions, &later);
    }

    #[test]
    fn damage_is_reported_and_limited_to_what_it_hit(seed: u64, actions in actions(), damage in damage()) {
        scenarios::damaged(seed, &actions, damage);
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
fn a_checkpoint_that_is_not_durable_replaces_none_that_is() {
    scenarios::unsynced_checkpoint();
}

#[test]
fn what_was_told_as_lost_does_not_come_back_when_the_power_is_cut() {
    scenarios::lost_for_good();
}

#[test]
fn a_full_disk_is_told_before_anything_is_accepted_and_passes() {
    scenarios::full_disk();
}
