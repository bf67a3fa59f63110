//! R7: a process is killed with a long backlog, and started again. How long it takes until the first message is delivered.

use super::{Finding, Setting, log, rig::Rig};
use anyhow::{Result, bail};

/// A short backlog, as of a dispatcher that was restarted in the middle of its work.
const SHORT: u64 = 1_000;

/// The limits of both.
const LONG_MAX_MS: u64 = 2_000;
const SHORT_MAX_MS: u64 = 500;

/// Letters of a message: with its envelope it has about 200 bytes.
const PAYLOAD: usize = 120;

/// Messages in one publish while the backlog is filled.
const BATCH: u64 = 1_000;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (messages, starts) = setting.pick((100_000, 5), (1_000_000, 100));
    let mut finding = Finding::default();
    let long = measure(setting, "long", messages, starts).await?;
    let short = measure(setting, "short", SHORT, starts).await?;
    for (count, times, max_ms) in [(messages, &long, LONG_MAX_MS), (SHORT, &short, SHORT_MAX_MS)] {
        let (middle, slow) = (percentile(times, 50), percentile(times, 99));
        finding.seen += &format!(
            "{}with {count} unacknowledged messages, {starts} kills: first delivery after {middle} ms (median) and {slow} ms (99th percentile)",
            if finding.seen.is_empty() { "" } else { "; " }
        );
        // Without optimization recovery takes several times as long, and nobody runs that.
        finding.require(slow <= max_ms || cfg!(debug_assertions), || {
            format!("with {count} messages the first delivery took {slow} ms, not {max_ms}")
        });
    }
    if cfg!(debug_assertions) {
        finding.seen += "; not optimized, so only the release build is measured by the target";
    }
    Ok(finding)
}

/// Fills a backlog, then starts, waits for the first delivery, and kills, again and again. Gives the sorted times in milliseconds.
async fn measure(setting: &Setting, name: &str, messages: u64, starts: u64) -> Result<Vec<u64>> {
    let mut rig = Rig::new(&setting.folder.join(name), None)?;
    // As the product has it, but for the source.
    let defaults = leatworks_broker::EmbeddedOptions::new("");
    (rig.job.segment_bytes, rig.job.checkpoint_bytes) = (defaults.segment_bytes, defaults.checkpoint_bytes);
    (rig.job.roots, rig.job.batch, rig.job.window, rig.job.bytes) = (messages, BATCH, u64::MAX, PAYLOAD);
    rig.job.dispatch = false;
    let batches = messages.div_ceil(BATCH);
    let mut running = rig.start()?;
    // The log begins with a line for the opening.
    if !running.until("the backlog", |rig| rig.count(log::ACKED) > batches).await? {
        bail!("the child ended while it filled the backlog: {}", rig.last_words());
    }
    running.kill().await?;
    drop(running);
    // What is delivered stays in flight: the backlog is as long the next time.
    rig.job.dispatch = true;
    rig.job.roots = 0;
    let mut times = Vec::new();
    for _ in 0..starts {
        let before = rig.count(log::OPENED);
        let began = log::now_ms();
        let mut running = rig.start()?;
        let first = |rig: &Rig| first_after(rig, before).ok().flatten();
        if !running.until("the first delivery", |rig| first(rig).is_some()).await? {
            bail!("the child ended before the first delivery: {}", rig.last_words());
        }
        times.push(first(&rig).unwrap_or(u64::MAX).saturating_sub(began));
        running.kill().await?;
    }
    times.sort_unstable();
    Ok(times)
}

/// When the first message was handled that came after so many lines of the log.
fn first_after(rig: &Rig, lines: u64) -> Result<Option<u64>> {
    let found = log::read(&rig.folder, log::OPENED)?.into_iter().skip(lines as usize).find(|line| line[0] == "d");
    Ok(found.and_then(|line| line.get(1)?.parse().ok()))
}

/// The value below or at which this part of the sorted values lies.
fn percentile(sorted: &[u64], part: usize) -> u64 {
    let index = (sorted.len() * part).div_ceil(100).max(1) - 1;
    sorted.get(index).copied().unwrap_or(0)
}
