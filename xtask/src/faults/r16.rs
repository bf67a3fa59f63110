//! R16: the wall clock jumps while messages wait to be tried again, and between two processes. No wait gets longer or shorter, and nothing waits for ever.

use super::{
    Finding, Setting, log,
    random::Random,
    rig::{Rig, Running},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The places to which the clock jumps, as faketime writes them.
const JUMPS: [&str; 5] = ["+0", "+1h", "-1h", "-5m", "+10y"];

/// How long it stays there.
const STAYS: Duration = Duration::from_millis(700);

/// After so many jumps the process is killed, and the next one begins at the next of these times: each must find what the one before has left at another
/// time, an hour and ten years back too. The run ends, without a jump, behind one that began ten years ahead.
const KILL_EACH: u64 = 4;
const STARTS: [&str; 3] = ["+1h", "-1h", "+10y"];

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
    let Some(library) = library() else { bail!("libfaketime is not installed") };
    let mut rig = Rig::new(&setting.folder, None)?;
    let clock = rig.folder.join("clock");
    rig.environment = environment(&library, &clock);
    (rig.job.batch, rig.job.rate, rig.job.attempts_right) = (4, Some(RATE), ATTEMPTS);
    rig.job.orders.permanent_each = 0;
    rig.job.orders.retry_after_ms = RETRY_AFTER_MS;
    let poison = (1..=jumps * STAYS.as_millis() as u64 * RATE / 1_000 / POISON_EACH).map(|number| number * POISON_EACH);
    rig.job.orders.poison = poison.map(|sequence| (sequence, super::workload::Poison::Error)).collect();
    let mut random = Random::new(setting.seed, "R16");
    let (mut before, mut jumped, mut kills) = ("+0", 0, 0);
    set(&clock, before)?;
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
    set(&clock, "+0")?;
    rig.job.roots = rig.acked();
    rig.drain().await?;
    tidy(&rig)?;
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

/// Where the library lies that lets the clock of a process jump.
pub(crate) fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// The wall clock follows the file, looked at on each call; the monotonic one is left alone, as a jump of a real clock leaves it.
fn environment(library: &Path, clock: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    [
        ("LD_PRELOAD", text(library)),
        ("FAKETIME_TIMESTAMP_FILE", text(clock)),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Removes what faketime leaves of a process that was killed: a little shared memory each.
fn tidy(rig: &Rig) -> Result<()> {
    for line in log::read(&rig.folder, log::OPENED)? {
        let ("o", Some(process)) = (line[0].as_str(), line.get(6)) else { continue };
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let path = Path::new("/dev/shm").join(format!("{name}_{process}"));
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// Sets the clock; the file is replaced as a whole, so that nobody reads half of it.
fn set(clock: &Path, to: &str) -> Result<()> {
    let new = clock.with_extension("new");
    fs::write(&new, format!("{to}\n"))?;
    fs::rename(&new, clock).context("setting the clock")
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
