//! How long a broker takes until it delivers: after it was killed with a million messages waiting, and with none.

use super::{
    Failed,
    flags::Bench,
    payload::Payloads,
    phase::{Elision, Profile, Rig, options},
    plain::{self, Topics},
    usage::Snapshot,
};
use crate::args::Level;
use leatworks_broker::{Broker, Embedded, TopicKind};
use serde::Serialize;
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Messages that wait when the broker is killed.
const WAITING: usize = 1_000_000;

/// How often each start is measured; the median counts.
const TIMES: usize = 3;

/// What the filling process says when all is published.
const FILLED: &str = "filled";

/// Medians, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Recovery {
    pub(crate) messages: usize,
    /// From opening, after a kill, to the first delivery.
    pub(crate) first_delivery_ms: f64,
    /// The part of it until the broker was open.
    pub(crate) open_ms: f64,
    /// Opening a broker on a directory that is not there yet.
    pub(crate) new_ms: f64,
    /// Opening one that was closed with nothing in it.
    pub(crate) empty_ms: f64,
    /// Of the last recovery.
    pub(crate) profile: Profile,
    /// Of all starts of new and empty brokers.
    pub(crate) starting: Profile,
}

/// Measures recovery and start-up.
pub(crate) async fn measure(args: &Bench, dir: &Path) -> Result<Recovery, Failed> {
    let (mut firsts, mut opens, mut news, mut empties, mut profile) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), None);
    for round in 0..TIMES {
        let path = dir.join(format!("killed-{round}"));
        fill_and_kill(args, &path)?;
        let start = Instant::now();
        let before = Snapshot::take();
        let broker = Embedded::open(options(args, &path, Elision::On))?;
        opens.push(start.elapsed());
        let delivered = plain::join(&broker, 0, 0).await?.receive(1).await?.len();
        firsts.push(start.elapsed());
        profile = Some(Profile { spent: before.spent(), disk: None });
        if delivered == 0 {
            return Err("nothing was delivered".into());
        }
        broker.close().await?;
        drop(broker);
        std::fs::remove_dir_all(&path)?;
    }
    let before = Snapshot::take();
    for round in 0..TIMES {
        let path = dir.join(format!("empty-{round}"));
        for times in [&mut news, &mut empties] {
            let start = Instant::now();
            let broker = Embedded::open(options(args, &path, Elision::On))?;
            times.push(start.elapsed());
            broker.close().await?;
        }
        std::fs::remove_dir_all(&path)?;
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    Ok(Recovery {
        messages: WAITING,
        first_delivery_ms: median(firsts),
        open_ms: median(opens),
        new_ms: median(news),
        empty_ms: median(empties),
        profile: profile.ok_or("recovery was not measured")?,
        starting: Profile { spent: before.spent(), disk: None },
    })
}

/// Has another process fill a journal, and kills it.
fn fill_and_kill(args: &Bench, dir: &Path) -> Result<(), Failed> {
    let level = match args.durability {
        Level::Power => "power",
        Level::Interval => "interval",
        Level::Process => "process",
        Level::Memory => "memory",
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "--durability", level, "--size", &args.size.to_string(), "--fill"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut said)?;
    }
    child.kill()?;
    child.wait()?;
    match said.trim() == FILLED {
        true => Ok(()),
        false => Err("the process that fills a journal has failed".into()),
    }
}

/// Fills a journal, says so, and waits to be killed; the end of the process that waits for it ends it too.
pub(crate) async fn fill(args: &Bench, dir: &Path) -> Result<(), Failed> {
    let rig = Rig::embedded(options(args, dir, Elision::On)).map_err(|failure| failure.message)?;
    let mut topics = Topics::create(rig.broker, (1, 1), TopicKind::Ingress, Payloads::new(args.size)).await?;
    topics.publish(WAITING).await?;
    writeln!(std::io::stdout(), "{FILLED}")?;
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing)?;
    Ok(())
}
