//! Broker and dispatchers in one thread, on a simulated disk, with every order and every fault decided by a seed.
//!
//! `LEATWORKS_SIMULATION_SEEDS` says how many seeds are run, 60 if it is not set; `LEATWORKS_SIMULATION_FROM` with which one to begin, and with
//! `LEATWORKS_SIMULATION_TRACE` the trace of a seed that finds something is printed. `LEATWORKS_SIMULATION_BUG` names the only planted bug to look for.

mod bugs;
mod graph;
mod oracle;
mod others;
mod producer;
mod random;
mod shared;
mod worker;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A planted bug is planted in the whole process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")),
        Err(_) => otherwise,
    }
}

#[test]
fn no_seed_finds_anything() {
    let _alone = alone();
    let (first, count) = (number("LEATWORKS_SIMULATION_FROM", 0), number("LEATWORKS_SIMULATION_SEEDS", 60));
    let mut counts = world::Counts::default();
    let mut found = Vec::new();
    for seed in first..first + count {
        let run = world::run(seed);
        match run.result {
            Ok(more) => counts += more,
            Err(finding) => {
                println!("seed {seed}: {}: {}", finding.kind, finding.text);
                if std::env::var_os("LEATWORKS_SIMULATION_TRACE").is_some() {
                    println!("{}", run.trace);
                }
                found.push(seed);
            }
        }
    }
    println!("{count} seeds: {counts:?}");
    assert!(found.is_empty(), "seeds that found something: {found:?}");
    if count >= 50 {
        // A run in which nothing went wrong shows nothing.
        let world::Counts { deliveries, kills, power_cuts, failed_syncs, full_disks, unreadable, .. } = counts;
        assert!(deliveries > count && kills > count && power_cuts > count, "{counts:?}");
        assert!(failed_syncs > 0 && full_disks > 0 && unreadable > 0, "{counts:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let _alone = alone();
    let first = number("LEATWORKS_SIMULATION_FROM", 0);
    for seed in first..first + 8 {
        let (one, two) = (world::run(seed), world::run(seed));
        let differs = one.trace.lines().zip(two.trace.lines()).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one.trace == two.trace && one.trace.len() > 1_000, "seed {seed}");
        assert_eq!(one.result.is_ok(), two.result.is_ok(), "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    let _alone = alone();
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("LEATWORKS_SIMULATION_BUG").ok();
    let mut missed = Vec::new();
    for bug in bugs::all().into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == bug.name())) {
        let began = std::time::Instant::now();
        match bug.hunt() {
            Some((seeds, finding)) => {
                let text: String = finding.text.chars().take(90).collect();
                println!("{:28} {seeds:4} {:?} {}: {text}", bug.name(), began.elapsed(), finding.kind);
            }
            None => {
                println!("{:28} not found {:?}", bug.name(), began.elapsed());
                missed.push(bug.name());
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "bugs that no seed has found: {missed:?}");
}

#[test]
fn the_documentation_lists_every_planted_bug() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/explanation/simulation.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let table = bugs::table();
    assert!(text.contains(&table), "{} must contain this table:\n\n{table}", page.display());
}
