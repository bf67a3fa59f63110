//! Each bug that can be planted in a journal is found by the scenarios of the model test. A model that cannot see a bug would prove nothing by passing.

#[path = "../model/scenarios.rs"]
mod scenarios;
#[path = "../model/world.rs"]
mod world;

use leatworks_journal::planted::{Bug, plant};
use proptest::{
    prelude::any,
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rounds until a bug counts as not found. The slowest to be found needs a fifth of them, and the others less than sixty.
const ROUNDS: u32 = 4_000;

/// What can happen, with a name: draws a case, runs it, and panics if a promise is broken.
type Scenario = (&'static str, Box<dyn Fn(&mut TestRunner)>);

fn scenario<S: Strategy + 'static>(name: &'static str, strategy: S, run: impl Fn(S::Value) + 'static) -> Scenario {
    let draw = move |runner: &mut TestRunner| strategy.new_tree(runner).expect("nothing is rejected").current();
    (name, Box::new(move |runner| run(draw(runner))))
}

fn all() -> Vec<Scenario> {
    let (seed, torn, actions, small) = (any::<u64>, any::<bool>, world::actions, world::small_actions);
    let failed = (seed(), 1..40_u64, any::<bool>(), actions(), actions());
    vec![
        scenario("a crash", (seed(), torn(), actions()), |(seed, torn, actions)| scenarios::crashes(seed, torn, &actions)),
        scenario("a crash among small records", (seed(), small()), |(seed, actions)| scenarios::crashes(seed, false, &actions)),
        scenario("a failed sync", failed, |(seed, fails, dropping, actions, later)| {
            scenarios::failed_sync(seed, fails, dropping, &actions, &later);
        }),
        scenario("space that is missing once", (seed(), 1..12_u64, actions()), |(seed, creates, actions)| {
            scenarios::full_create(seed, creates, &actions);
        }),
        scenario("damage", (seed(), actions(), scenarios::damage()), |(seed, actions, damage)| {
            scenarios::damaged(seed, &actions, damage);
        }),
    ]
}

/// Which scenario finds what is planted, and in which round; round 0 has what leaves nothing to chance.
fn find(all: &[Scenario]) -> Option<(&'static str, u32)> {
    let breaks = |run: &dyn Fn()| catch_unwind(AssertUnwindSafe(run)).is_err();
    if breaks(&scenarios::full_disk) {
        return Some(("a full disk", 0));
    }
    if breaks(&scenarios::unsynced_checkpoint) {
        return Some(("a checkpoint that is not durable", 0));
    }
    if breaks(&scenarios::lost_for_good) {
        return Some(("a power cut behind damage", 0));
    }
    // In turns: a bug that only the last of them can see is found as soon.
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (1..ROUNDS).find_map(|round| {
        let found = all.iter().find(|(_, run)| catch_unwind(AssertUnwindSafe(|| run(&mut runner))).is_err());
        found.map(|(name, _)| (*name, round))
    })
}

#[test]
fn every_planted_bug_is_found() {
    // Expected panics would bury what is worth reading.
    std::panic::set_hook(Box::new(|_| {}));
    let all = all();
    let results: Vec<(Bug, Option<(&str, u32)>)> = Bug::ALL
        .iter()
        .map(|bug| {
            plant(Some(*bug));
            (*bug, find(&all))
        })
        .collect();
    plant(None);
    let _ = std::panic::take_hook();
    for (bug, found) in &results {
        match found {
            Some((scenario, round)) => println!("{bug:?}: found by {scenario} in round {round}"),
            None => println!("{bug:?}: NOT FOUND"),
        }
    }
    let missed: Vec<&Bug> = results.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
