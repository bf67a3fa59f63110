//! R13: the sink is a hundred times slower than the source. Memory stays within its bound, nothing is dropped, the source is slowed, and when what has queued is worked
//! off all is as it was before.

use super::{
    Finding, Setting, log,
    rig::{Rig, Running},
    workload::HOLD_FILE,
};
use anyhow::{Result, bail};
use std::{fs, time::Duration};
use tokio::time::Instant;

/// What the process may take.
const RSS_MAX_KIB: u64 = 256 << 10;

/// How long the rate without a hold is measured, before and after.
const MEASURE: Duration = Duration::from_secs(5);

/// Roots in flight while it is measured: the source's own limit.
const WINDOW: u64 = 16_384;

/// Messages of the sink that are handled at once.
const PARALLELISM: u64 = 64;

/// Topics that are full when the one before the sink is: roots in flight are at least so many times the limit of one.
const QUEUES: u64 = 3;

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (backlog, time) = setting.pick((20_000, Duration::from_secs(15)), (300_000, Duration::from_secs(600)));
    // Measured for moments on a machine with other work, so the short tier only sees that it goes on.
    let recovered = setting.pick(50, 90);
    let mut rig = Rig::new(&setting.folder, None)?;
    let defaults = leatworks_broker::EmbeddedOptions::new("");
    (rig.job.segment_bytes, rig.job.checkpoint_bytes) = (defaults.segment_bytes, defaults.checkpoint_bytes);
    (rig.job.batch, rig.job.window, rig.job.parallelism) = (200, WINDOW, PARALLELISM as usize);
    let base = baseline(&rig).await?;
    // As long as the sink is held, only the limit of the topics holds the source back.
    (rig.job.greedy, rig.job.backlog_max) = (true, backlog);
    rig.job.orders.hold_ms = (PARALLELISM * 1_000 * 100 / base.max(1)).max(1);
    let hold = rig.folder.join(HOLD_FILE);
    fs::write(&hold, "")?;
    let mut running = rig.start()?;
    running.until_open().await?;
    let mut slow = hold_back(&rig, &mut running, time).await?;
    fs::remove_file(&hold)?;
    let draining = rate(&rig, &mut running, MEASURE).await?;
    running.until("that what has queued is worked off", |rig| in_flight(rig) <= WINDOW).await?;
    let after = rate(&rig, &mut running, MEASURE).await?;
    slow.rss_kib = peak_kib(slow.process)?;
    running.kill().await?;
    drop(running);
    rig.job.roots = rig.acked();
    rig.drain().await?;
    let verdict = rig.judge(2)?;
    let mut finding = Finding {
        seen: format!(
            "sink {base}/s without a hold, {}/s with it for {} s, {draining}/s while what had queued was worked off, {after}/s behind that; {} roots in \
             flight at most, the source fell to {} roots/s, the process took {} MiB at most; {}",
            slow.sink,
            time.as_secs(),
            slow.queued,
            slow.source,
            slow.rss_kib >> 10,
            verdict.figures()
        ),
        objections: verdict.objections(),
    };
    finding.require(slow.rss_kib <= RSS_MAX_KIB, || format!("the process took {} MiB", slow.rss_kib >> 10));
    finding.require(slow.queued >= backlog * QUEUES, || format!("only {} roots were queued", slow.queued));
    finding.require(slow.source <= slow.sink * 2, || format!("the source went on at {} roots/s", slow.source));
    finding.require(after * 100 >= base * recovered, || format!("behind all that the sink did {after}/s, before it {base}/s"));
    Ok(finding)
}

/// Messages a second at the sink, with nothing held.
async fn baseline(rig: &Rig) -> Result<u64> {
    let mut running = rig.start()?;
    running.until_open().await?;
    // The first moments are those of a cold start.
    rate(rig, &mut running, MEASURE / 5).await?;
    let base = rate(rig, &mut running, MEASURE).await?;
    running.kill().await?;
    Ok(base)
}

/// Roots that are under way: of each two messages come to the sink, and of one in so many only one.
fn in_flight(rig: &Rig) -> u64 {
    let roots = rig.acked();
    let arrivals = 2 * roots - roots.checked_div(rig.job.orders.permanent_each).unwrap_or(0);
    arrivals.saturating_sub(rig.count(log::OBSERVED)) / 2
}

async fn rate(rig: &Rig, running: &mut Running<'_>, time: Duration) -> Result<u64> {
    let (before, began) = (rig.count(log::OBSERVED), Instant::now());
    if let Some(status) = running.wait(time).await? {
        bail!("the child ended with {status}: {}", rig.last_words());
    }
    Ok(((rig.count(log::OBSERVED) - before) as f64 / began.elapsed().as_secs_f64()) as u64)
}

/// What was seen while the sink was held back.
struct Slow {
    process: u64,
    rss_kib: u64,
    queued: u64,
    sink: u64,
    /// Roots a second that were acknowledged in the last quarter of the time, when the queues are full.
    source: u64,
}

async fn hold_back(rig: &Rig, running: &mut Running<'_>, time: Duration) -> Result<Slow> {
    let process = rig.last_opening()?.get(5).copied().unwrap_or(0);
    let counts = |rig: &Rig| (rig.acked(), rig.count(log::OBSERVED));
    // The time counts from when the source is refused for the first time: all queues before the sink are full then.
    if !running.until("that the queues are full", |rig| rig.count(log::REFUSED) > 0).await? {
        bail!("the child ended while its queues were filled: {}", rig.last_words());
    }
    let (began, start) = (Instant::now(), counts(rig));
    let (mut queued, mut late) = (0, None);
    while began.elapsed() < time {
        if let Some(status) = running.wait(LOOK).await? {
            bail!("the child ended with {status} while its sink was held back: {}", rig.last_words());
        }
        let (acked, observed) = counts(rig);
        queued = queued.max(acked.saturating_sub(observed / 2));
        if late.is_none() && began.elapsed() >= time * 3 / 4 {
            late = Some((Instant::now(), acked));
        }
    }
    let (acked, observed) = counts(rig);
    let (since, before) = late.unwrap_or((began, start.0));
    let per_second = |count: u64, since: Instant| (count as f64 / since.elapsed().as_secs_f64()) as u64;
    Ok(Slow {
        process,
        rss_kib: 0,
        queued,
        sink: per_second(observed - start.1, began),
        source: per_second(acked - before, since),
    })
}

/// The most memory that a process has had.
fn peak_kib(process: u64) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0))
}
