//! One durable workload on the embedded broker and on the stores that a user would pick instead, so that a journal of our own stays justified by a number.
//!
//! Messages of 200 incompressible bytes are published, read back and checked, acknowledged one by one and deleted, in commits of 1, 100 and 1,000
//! messages, on 1 and on 16 topics. Every store syncs before a commit returns and otherwise has its defaults. `cargo xtask bench stores` runs it.

mod embedded;
mod fjall;
mod measure;
mod redb;
mod sqlite;
mod workload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use workload::{Figures, Load, Opened, PAYLOAD_BYTES};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A store's name, and what opens it.
type Named = (&'static str, fn(&Path, Load) -> Opened);

/// The store that is compared with the others comes first.
const STORES: [Named; 4] =
    [("leatworks", embedded::open), ("fjall", fjall::open), ("redb", redb::open), ("sqlite", sqlite::open)];

/// Messages of one commit.
const GROUPS: [u64; 3] = [1, 100, 1_000];

/// Topics that the messages are spread over.
const TOPICS: [u64; 2] = [1, 16];

/// How long each of the three phases runs at most.
const PHASE: Duration = Duration::from_secs(1);

/// How often all stores take their turn. The sync rate of one disk was seen to change by a factor of 25 within two minutes, so stores are only
/// compared within a round, and what is printed is the median of the rounds.
const ROUNDS: usize = 3;

const USAGE: &str = "\
usage: stores [--seconds N] [--rounds N] [--dir DIR]

  --seconds N   how long each phase runs at most; 1 by default
  --rounds N    how often all stores take their turn; 3 by default, and the median is printed
  --dir DIR     where the stores lie; by default a folder here that is removed afterwards";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    let (mut phase, mut rounds) = (PHASE, ROUNDS);
    let mut dir = PathBuf::from(format!(".leat-stores-{}", std::process::id()));
    let mut args = std::env::args().skip(1);
    while let Some(argument) = args.next() {
        match (argument.as_str(), args.next()) {
            ("--seconds", Some(seconds)) => phase = Duration::try_from_secs_f64(seconds.parse()?)?,
            ("--rounds", Some(number)) => rounds = number.parse::<usize>()?.max(1),
            ("--dir", Some(path)) => dir = path.into(),
            _ => return Err(USAGE.into()),
        }
    }
    std::fs::create_dir_all(&dir)?;
    let result = compare(&dir, phase, rounds);
    // Also after a failure, and only if nothing else lies in it.
    let removed = std::fs::remove_dir(&dir);
    result.and(removed.map_err(Failed::from))
}

fn compare(dir: &Path, phase: Duration, rounds: usize) -> Result<(), Failed> {
    println!("{PAYLOAD_BYTES} bytes a message, each acknowledged by itself; a commit returns when it is synced");
    println!("at most {phase:?} a phase; medians of {rounds} rounds, ratios within a round");
    println!("`disk/s`: writes of 4 KiB with their sync, right before each store took its turn");
    println!("the workload alone: {:.2} µs CPU a message to make and to check it", workload::own_cost_us());
    for topics in TOPICS {
        for group in GROUPS {
            let load = Load { topics, group };
            let measured: Vec<Vec<Figures>> = (0..rounds).map(|_| round(dir, load, phase)).collect::<Result<_, _>>()?;
            print(load, &measured);
        }
    }
    Ok(())
}

/// Lets each store take its turn.
fn round(dir: &Path, load: Load, phase: Duration) -> Result<Vec<Figures>, Failed> {
    let turn = |(name, open): Named| {
        let path = dir.join(name);
        std::fs::create_dir_all(&path)?;
        let figures = workload::run(&path, load, open, phase);
        std::fs::remove_dir_all(&path)?;
        figures.map_err(|error| Failed::from(format!("{name}: {error}")))
    };
    STORES.into_iter().map(turn).collect()
}

fn print(load: Load, rounds: &[Vec<Figures>]) {
    println!("\n{} topics, commits of {} messages", load.topics, load.group);
    println!(
        "{:<10} {:>7} {:>10} {:>10} {:>10} {:>8} {:>9} {:>15}   leatworks against it",
        "store", "disk/s", "publish/s", "both/s", "consume/s", "CPU µs", "written", "MB full > empty"
    );
    for (index, (name, _)) in STORES.iter().enumerate() {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(&round[index])));
        let ratio = |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(&round[0]) / figure(&round[index])));
        let space = format!("{:.0} > {:.0}", of(|figures| figures.full_bytes) / 1e6, of(|figures| figures.empty_bytes) / 1e6);
        let compared = format!(
            "{:.2}, {:.2}, {:.2} times as fast, {:.2} of the CPU, {:.2} of the bytes",
            ratio(|figures| figures.publish),
            ratio(|figures| figures.both),
            ratio(|figures| figures.consume),
            ratio(|figures| figures.cpu_us),
            ratio(|figures| figures.written)
        );
        println!(
            "{name:<10} {:>7.0} {:>10.0} {:>10.0} {:>10.0} {:>8.2} {:>9.2} {space:>15}   {}",
            of(|figures| figures.syncs_per_s),
            of(|figures| figures.publish),
            of(|figures| figures.both),
            of(|figures| figures.consume),
            of(|figures| figures.cpu_us),
            of(|figures| figures.written),
            if index == 0 { "" } else { &compared }
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
