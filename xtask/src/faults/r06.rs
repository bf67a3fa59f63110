//! R6: the disk gets full and has space again, over and over. Senders are told within a second, consumers go on, and nobody restarts anything.

use super::{
    Finding, Setting,
    disk::Mounted,
    log,
    rig::{Rig, Running},
    workload::HOLD_FILE,
};
use anyhow::{Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of the file system. Small, so that it is full soon.
const DISK_BYTES: u64 = 24 << 20;

/// What the filler takes: most of it.
const FILLER_BYTES: u64 = 16 << 20;

/// How long a refusal may take, and how long it may take until senders are served again when there is space.
const TOLD_MAX: Duration = Duration::from_secs(1);
const RESUMED_MAX: Duration = Duration::from_secs(5);

/// Longer than any cycle: a held sink waits as long as it is held.
const HELD_MS: u64 = 3_600_000;

/// Messages that come to the sink while the disk is full, at least.
const CONSUMED_MIN: u64 = 200;

/// How much of what was sent must have come to the sink before the next cycle begins: one in some hundred is given up on purpose.
const PERCENT: u64 = 98;

/// What one cycle took.
struct Cycle {
    consumed: bool,
    resumed: Duration,
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let cycles = setting.pick(5, 50);
    let folder = &setting.folder;
    let mut rig = Rig::new(folder, Some(&folder.join("disk/journal")))?;
    let disk = Mounted::memory(folder, DISK_BYTES)?;
    // Nothing but the disk holds the source back.
    (rig.job.window, rig.job.segment_bytes, rig.job.checkpoint_bytes) = (u64::MAX, 256 << 10, 512 << 10);
    rig.job.orders.hold_ms = HELD_MS;
    let mut finding = Finding::default();
    let (mut slowest, mut starved) = (Duration::ZERO, 0);
    let mut running = rig.start()?;
    let mut done = 0;
    for number in 0..cycles {
        let cycle = match cycle(&rig, &mut running, disk.path()).await {
            Ok(cycle) => cycle,
            Err(error) => {
                finding.objections.push(format!("cycle {number}: {error:#}"));
                break;
            }
        };
        done += 1;
        slowest = slowest.max(cycle.resumed);
        starved += u64::from(!cycle.consumed);
        finding.require(cycle.resumed <= RESUMED_MAX, || {
            format!("cycle {number}: senders were served again after {:?}", cycle.resumed)
        });
    }
    running.kill().await?;
    drop(running);
    let refused = log::read(&rig.folder, log::REFUSED)?;
    let took = refused.iter().filter_map(|line| line.get(3)?.parse::<u64>().ok()).max().unwrap_or(0);
    let others = refused.iter().filter(|line| line.get(2).is_none_or(|kind| kind != "Full")).count();
    rig.job.roots = rig.acked();
    for left in [HOLD_FILE, "disk/filler"] {
        // Whatever happened, the end has a sink that is let go and a disk with space.
        if rig.folder.join(left).exists() {
            fs::remove_file(rig.folder.join(left))?;
        }
    }
    rig.drain().await?;
    let openings = rig.openings()?;
    let verdict = rig.judge(1)?;
    finding.seen = format!(
        "{done} of {cycles} times full and with space again in one process; {} publishes refused, after {took} ms at most; senders served again after {} ms \
         at most; {}",
        refused.len(),
        slowest.as_millis(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(took <= TOLD_MAX.as_millis() as u64, || format!("a refusal took {took} ms"));
    finding.require(others == 0, || format!("{others} refusals do not say that the disk is full"));
    finding.require(starved == 0, || format!("{starved} times consumers stood still while the disk was full"));
    finding.require(openings == 2, || format!("the broker was opened {openings} times, not once and for the end"));
    Ok(finding)
}

/// Fills the disk, sees what happens, and makes space.
async fn cycle(rig: &Rig, running: &mut Running<'_>, disk: &Path) -> Result<Cycle> {
    let (hold, filler) = (rig.folder.join(HOLD_FILE), disk.join("filler"));
    fs::write(&hold, "")?;
    fill(&filler)?;
    until_refused(rig, running).await?;
    // Consumers go on: they need a little space themselves, and get it back by what they settle.
    let before = rig.count(log::OBSERVED);
    fs::remove_file(&hold)?;
    let began = Instant::now();
    let mut consumed = false;
    while !consumed && began.elapsed() < RESUMED_MAX {
        alive(rig, running).await?;
        consumed = rig.count(log::OBSERVED) >= before + CONSUMED_MIN;
    }
    fs::write(&hold, "")?;
    until_refused(rig, running).await?;
    let before = rig.count(log::ACKED);
    fs::remove_file(&filler)?;
    let began = Instant::now();
    running.until("that senders are served again", |rig| rig.count(log::ACKED) > before).await?;
    let resumed = began.elapsed();
    fs::remove_file(&hold)?;
    // The source goes on meanwhile: what is waited for is what was there when the sink was let go.
    let wanted = 2 * rig.acked() * PERCENT / 100;
    running.until("that consumers catch up", |rig| rig.count(log::OBSERVED) >= wanted).await?;
    Ok(Cycle { consumed, resumed })
}

async fn until_refused(rig: &Rig, running: &mut Running<'_>) -> Result<()> {
    // Two in a row: the first may be one whose space came back just then.
    let wanted = rig.count(log::REFUSED) + 2;
    match running.until("a refusal", |rig| rig.count(log::REFUSED) >= wanted).await? {
        true => Ok(()),
        false => bail!("the child ended when the disk was full: {}", rig.last_words()),
    }
}

async fn alive(rig: &Rig, running: &mut Running<'_>) -> Result<()> {
    match running.wait(Duration::from_millis(5)).await? {
        None => Ok(()),
        Some(status) => bail!("the child ended with {status} when the disk was full: {}", rig.last_words()),
    }
}

/// Takes most of the space, or what there is of it.
fn fill(path: &PathBuf) -> Result<()> {
    let file = File::create(path)?;
    let mut bytes = FILLER_BYTES;
    // What the journal has taken already cannot be taken again: half as much each time, down to a page.
    let mut at = 0;
    while bytes >= 4_096 {
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, bytes) {
            Ok(()) => at += bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => {}
        }
        if at >= FILLER_BYTES {
            break;
        }
        bytes = (bytes / 2).min(FILLER_BYTES - at);
    }
    Ok(())
}
