//! Each bug that can be planted in a journal is found by the scenarios of the model test. A model that cannot see a bug would prove nothing by passing.

#[path = "../model/scenarios.rs"]
mod scenarios;
#[path = "../model/world.rs"]
mod world;

use leatworks_journal::planted::{Bug, plant};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Cases of each scenario until a bug counts as not found.
const CASES: u32 = 2_000;

/// The cases that a scenario needs to find what is planted; `None` if it does not.
fn cases_until_found<S: proptest::strategy::Strategy>(strategy: S, scenario: impl Fn(S::Value)) -> Option<u32> {
    // The shortest case is not looked for: one is enough.
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cases = std::cell::Cell::new(0);
    let result = runner.run(&strategy, |value| {
        cases.set(cases.get() + 1);
        scenario(value);
        Ok(())
    });
    matches!(result, Err(TestError::Fail(..))).then(|| cases.get())
}

/// Which scenario finds it, and after how many cases.
fn find() -> Option<(&'static str, u32)> {
    use proptest::prelude::any;
    let actions = world::actions;
    let crashes = || {
        cases_until_found((any::<u64>(), any::<bool>(), actions()), |(seed, torn, actions)| {
            scenarios::crashes(seed, torn, &actions);
        })
    };
    let failed = || {
        let strategy = (any::<u64>(), 1..40_u64, any::<bool>(), actions(), actions());
        cases_until_found(strategy, |(seed, fails, dropping, actions, later)| {
            scenarios::failed_sync(seed, fails, dropping, &actions, &later);
        })
    };
    let damaged = || {
        cases_until_found((any::<u64>(), actions(), scenarios::damage()), |(seed, actions, damage)| {
            scenarios::damaged(seed, &actions, damage);
        })
    };
    let small = || {
        cases_until_found((any::<u64>(), world::small_actions()), |(seed, actions)| {
            scenarios::crashes(seed, false, &actions);
        })
    };
    let full = || cases_until_found(0..1_u8, |_| scenarios::full_disk());
    let checkpoint = || cases_until_found(0..1_u8, |_| scenarios::unsynced_checkpoint());
    let all: [(&str, &dyn Fn() -> Option<u32>); 6] = [
        ("full disk", &full),
        ("a checkpoint that is not durable", &checkpoint),
        ("small records", &small),
        ("crashes", &crashes),
        ("failed sync", &failed),
        ("damage", &damaged),
    ];
    all.iter().find_map(|(name, scenario)| Some((*name, scenario()?)))
}

#[test]
fn every_planted_bug_is_found() {
    // Thousands of expected panics would bury what is worth reading.
    std::panic::set_hook(Box::new(|_| {}));
    let results: Vec<(Bug, Option<(&str, u32)>)> = Bug::ALL
        .iter()
        .map(|bug| {
            plant(Some(*bug));
            let found = find();
            println!("{bug:?}: {found:?}");
            (*bug, found)
        })
        .collect();
    plant(None);
    let _ = std::panic::take_hook();
    for (bug, found) in &results {
        match found {
            Some((scenario, cases)) => println!("{bug:?}: found by {scenario} in case {cases}"),
            None => println!("{bug:?}: NOT FOUND"),
        }
    }
    let missed: Vec<&Bug> = results.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
