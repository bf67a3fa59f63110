//! R16: the wall clock jumps while messages wait to be tried again, and between two processes. No wait gets longer or shorter, and nothing waits for ever.

use super::{
    Finding, Setting, log,
    random::Random,
    rig::{Rig, Running},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const HOUR: i64 = 3_600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// The places to which the clock jumps, in seconds from where it really is.
const JUMPS: [i64; 5] = [0, HOUR, -HOUR, -300, TEN_YEARS];

/// What moves the clock of a process, built by the C compiler that Rust needs anyway.
const CLOCK: &str = include_str!("clock.c");

/// How long it stays there.
const STAYS: Duration = Duration::from_millis(700);

/// After so many jumps the process is killed, and the next one begins at the next of these times: each must find what the one before has left at another
/// time, an hour and ten years back too. The run ends, without a jump, behind one that began ten years ahead.
const KILL_EACH: u64 = 4;
const STARTS: [i64; 3] = [HOUR, -HOUR, TEN_YEARS];

/// How long a failed message asks to wait, and what a wait may be off by: a tenth, and what a busy machine adds before an attempt begins.
const RETRY_AFTER_MS: u64 = 1_000;
const OFF_MS: u64 = RETRY_AFTER_MS / 10;
const BUSY_MS: u64 = 150;

/// Attempts at each failing message, and how many roots there are for one of them.
const ATTEMPTS: u32 = 4;
const POISON_EACH: u64 = 40;

/// Roots a second.
const RATE: u64 = 200;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let jumps = setting.pick(12, 300);
    let mut finding = Finding::default();
    let mut rig = Rig::new(&setting.folder, None)?;
    let clock = rig.folder.join("clock");
    set(&clock, 0)?;
    rig.environment = environment(&library(&rig.folder)?, &clock);
    (rig.job.batch, rig.job.rate, rig.job.attempts_right) = (4, Some(RATE), ATTEMPTS);
    rig.job.orders.permanent_each = 0;
    rig.job.orders.retry_after_ms = RETRY_AFTER_MS;
    let poison = (1..=jumps * STAYS.as_millis() as u64 * RATE / 1_000 / POISON_EACH).map(|number| number * POISON_EACH);
    rig.job.orders.poison = poison.map(|sequence| (sequence, super::workload::Poison::Error)).collect();
    let mut random = Random::new(setting.seed, "R16");
    let (mut before, mut jumped, mut kills) = (0, 0, 0);
    let mut running = rig.start()?;
    running.until_open().await?;
    for number in 0..jumps {
        stay(&rig, &mut running).await?;
        let to = JUMPS[random.within(0..JUMPS.len() as u64) as usize];
        jumped += u64::from(to != before);
        before = to;
        set(&clock, to)?;
        if number % KILL_EACH == KILL_EACH - 1 {
            running.kill().await?;
            before = STARTS[kills as usize % STARTS.len()];
            set(&clock, before)?;
            kills += 1;
            running = rig.start()?;
            running.until_open().await?;
        }
    }
    stay(&rig, &mut running).await?;
    running.kill().await?;
    drop(running);
    set(&clock, 0)?;
    rig.job.roots = rig.acked();
    rig.drain().await?;
    let verdict = rig.judge(kills + 1)?;
    let waits = waits(&log::read(&rig.folder, log::ATTEMPTS)?);
    let wrong: Vec<u64> = waits
        .iter()
        .copied()
        .filter(|wait| *wait + OFF_MS < RETRY_AFTER_MS || *wait > RETRY_AFTER_MS + OFF_MS + BUSY_MS)
        .collect();
    let (shortest, longest) = (waits.iter().min().copied().unwrap_or(0), waits.iter().max().copied().unwrap_or(0));
    finding.seen = format!(
        "{jumped} jumps, {kills} of them with a new process; {} waits of {RETRY_AFTER_MS} ms took {shortest} to {longest} ms; {}",
        waits.len(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding
        .require(wrong.is_empty(), || format!("{} waits were off, such as {:?} ms", wrong.len(), &wrong[..wrong.len().min(5)]));
    finding.require(jumped * 2 >= jumps, || format!("the clock has only jumped {jumped} times"));
    finding.require(waits.len() as u64 >= jumps, || format!("only {} waits were seen", waits.len()));
    Ok(finding)
}

async fn stay(rig: &Rig, running: &mut Running<'_>) -> Result<()> {
    match running.wait(STAYS).await? {
        None => Ok(()),
        Some(status) => bail!("the child ended with {status}: {}", rig.last_words()),
    }
}

/// Builds the library that lets the clock of a process jump.
fn library(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, CLOCK)?;
    let arguments = ["-shared", "-fPIC", "-O2", "-o"];
    let output = Command::new("cc").args(arguments).arg(&library).arg(&source).output().context("running cc")?;
    if !output.status.success() {
        bail!("cc cannot build {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(library)
}

/// The wall clock follows the file, looked at on each call.
fn environment(library: &Path, clock: &Path) -> Vec<(String, String)> {
    [("LD_PRELOAD", library), ("FAULT_CLOCK", clock)].map(|(name, path)| (name.to_owned(), path.display().to_string())).into()
}

/// Sets the clock. The children have the file mapped, so its eight bytes are written where they are.
fn set(clock: &Path, ahead: i64) -> Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(clock)?;
    file.write_all_at(&ahead.to_ne_bytes(), 0).context("setting the clock")
}

/// The times between two attempts at one message in one process, in milliseconds.
fn waits(lines: &[Vec<String>]) -> Vec<u64> {
    let mut last: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    let mut waits = Vec::new();
    for line in lines {
        let [_, sequence, attempt, ms, process] = line.as_slice() else { continue };
        let (Ok(attempt), Ok(ms)) = (attempt.parse::<u64>(), ms.parse::<u64>()) else { continue };
        if let Some((before, since)) = last.insert((sequence, process), (attempt, ms))
            && attempt == before + 1
        {
            waits.push(ms - since);
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_within_one_process() {
        let lines = ["t 1 1 0 7", "t 2 1 50 7", "t 1 2 1000 7", "t 1 3 5 8", "t 2 2 1100 7", "t 1 4 1010 8"];
        let lines: Vec<Vec<String>> = lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
        assert_eq!(waits(&lines), [1000, 1050, 1005]);
    }
}
