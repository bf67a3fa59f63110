//! R5: the n-th sync fails. Nothing is acknowledged from then on, no sync is tried again, and the process ends with its documented code.

use super::{Finding, Setting, disk::Mounted, log, lying::Lie, product, random::Random, rig::Rig};
use anyhow::Result;
use leatworks_broker::STORAGE_EXIT_CODE;
use std::{fs, path::Path, time::Duration};

/// The last sync that fails.
const POSITIONS: u64 = 200;

/// What was on its way when the sync failed may still be written down within this time: the log of the oracle is not the broker's.
const ON_ITS_WAY_MS: u64 = 50;

/// How long until the process says that its storage has failed, and until it has ended.
const TOLD_MAX_MS: u64 = 1_000;

/// How long it takes at most to come to the last position and to end: each sync takes some milliseconds.
const ENDED_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let count = if setting.teeth { 1 } else { setting.pick(20, POSITIONS) };
    let folder = &setting.folder;
    let mut rig = Rig::new(folder, Some(&folder.join("disk/journal")))?;
    let mut disk = Mounted::ext4(folder)?;
    if setting.teeth {
        rig.job.lie = Some(Lie::HidesFailures);
    }
    let mut random = Random::new(setting.seed, "R5");
    let mut finding = Finding::default();
    let (mut landed, mut slowest_ms) = (0, 0);
    for number in 0..count {
        let position =
            if count == POSITIONS { number + 1 } else { number * POSITIONS / count + 1 + random.within(0..POSITIONS / count) };
        match one(&mut rig, position).await? {
            None => {}
            Some(failure) => {
                landed += 1;
                slowest_ms = slowest_ms.max(failure.told_ms);
                finding.objections.extend(failure.objections.into_iter().map(|text| format!("sync {position}: {text}")));
            }
        }
        // What the kernel still has in memory would hide what a failed sync has lost.
        disk.cut()?;
        disk.restart()?;
    }
    let code = if setting.teeth { None } else { product::code_after_failed_sync(&folder.join("product")).await? };
    let is_told = code == Some(i32::from(STORAGE_EXIT_CODE));
    finding.require(is_told || setting.teeth, || format!("the generated binary ended with {code:?}"));
    rig.wrapper.clear();
    rig.job.lie = None;
    rig.job.roots = rig.acked();
    rig.drain().await?;
    let verdict = rig.judge_power(count)?;
    finding.seen = format!(
        "{landed} of {count} syncs failed, each followed by a power cut; ended with {STORAGE_EXIT_CODE} at most {slowest_ms} ms after it, and the \
         generated binary with {code:?}; {}",
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(landed * 10 >= count * 9, || format!("only {landed} of {count} failures landed"));
    finding.require(verdict.acked >= count * 100, || format!("only {} roots were acknowledged", verdict.acked));
    Ok(finding)
}

/// What came of one failed sync.
struct Failure {
    told_ms: u64,
    objections: Vec<String>,
}

/// Runs the child until its `position`-th sync fails; nothing if that never came.
async fn one(rig: &mut Rig, position: u64) -> Result<Option<Failure>> {
    let trace = rig.folder.join("trace");
    let inject = format!("inject=fdatasync:error=EIO:when={position}");
    let words = ["strace", "-f", "--seccomp-bpf", "-q", "-ttt", "-e", "trace=fdatasync", "-e", &inject, "-o"];
    rig.wrapper = words.iter().map(|word| (*word).to_owned()).chain([trace.display().to_string()]).collect();
    let acked = rig.count(log::ACKED);
    let mut running = rig.start()?;
    let status = running.wait(ENDED_MAX).await?;
    if status.is_none() {
        running.kill().await?;
    }
    drop(running);
    let Some(failed_ms) = failed_at(&trace)? else { return Ok(None) };
    let mut objections = Vec::new();
    let ended_ms = ended_at(&trace)?.unwrap_or_else(log::now_ms);
    match status.map(|status| status.code()) {
        None => objections.push("the process goes on".to_owned()),
        Some(code) if code != Some(i32::from(STORAGE_EXIT_CODE)) => {
            objections.push(format!("the process ended with {code:?}: {}", rig.last_words()));
        }
        Some(_) if ended_ms.saturating_sub(failed_ms) > TOLD_MAX_MS => {
            objections.push(format!("the process ended {} ms after it", ended_ms - failed_ms));
        }
        Some(_) => {}
    }
    let lines = log::read(&rig.folder, log::ACKED)?;
    let late = lines.iter().skip(acked as usize).filter(|line| line[0] == "a" && time(line.get(3)) > failed_ms + ON_ITS_WAY_MS);
    let late = late.count();
    if late > 0 {
        objections.push(format!("{late} batches were acknowledged after it"));
    }
    let again = syncs_after(&trace, failed_ms + ON_ITS_WAY_MS)?;
    if again > 0 {
        objections.push(format!("{again} more syncs were tried after it"));
    }
    Ok(Some(Failure { told_ms: ended_ms.saturating_sub(failed_ms), objections }))
}

fn time(word: Option<&String>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The lines of a trace with their times in milliseconds.
fn trace_lines(trace: &Path) -> Result<Vec<(u64, String)>> {
    let text = fs::read_to_string(trace)?;
    let line = |line: &str| {
        let (_process, rest) = line.split_once(' ')?;
        let (seconds, call) = rest.trim_start().split_once(' ')?;
        Some(((seconds.parse::<f64>().ok()? * 1e3) as u64, call.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn failed_at(trace: &Path) -> Result<Option<u64>> {
    Ok(trace_lines(trace)?.into_iter().find(|(_, call)| call.contains("INJECTED")).map(|(ms, _)| ms))
}

fn ended_at(trace: &Path) -> Result<Option<u64>> {
    Ok(trace_lines(trace)?.into_iter().rev().find(|(_, call)| call.contains("+++ exited")).map(|(ms, _)| ms))
}

fn syncs_after(trace: &Path, after_ms: u64) -> Result<usize> {
    Ok(trace_lines(trace)?.into_iter().filter(|(ms, call)| *ms > after_ms && call.starts_with("fdatasync(")).count())
}
