//! `leat bench`: hops a second, latency, and what they cost, beside the limit that the machine itself sets in the same run.

mod diamond;
mod disk;
mod edge;
mod flags;
mod load;
mod pacer;
mod payload;
mod phase;
mod plain;
mod recovery;
mod report;
mod timed;
mod usage;

use crate::{
    args::{Global, Level, Output},
    exit::{Code, Doing, Failure, Result, say},
};
use diamond::HOPS_PER_ROOT;
use disk::{OneSync, Syncs};
pub(crate) use flags::Bench;
use flags::BenchBroker;
use leatworks_broker::Account;
use load::Load;
use payload::Payloads;
use phase::{Elision, Rig};
use report::{Counted, Report, Throughput};
use std::path::PathBuf;

/// The sizes at which the disk's own limit is measured: one small group, one of about 300 messages, and the journal's largest.
const GROUP_BYTES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

/// The bytes of the sync that latency is compared with: a page, the least that a disk writes.
const ONE_SYNC_BYTES: u64 = 4 << 10;

/// The size of message that the targets are about.
const TARGET_BYTES: u64 = 200;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Measures.
pub(crate) fn run(args: &Bench, global: &Global) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(dir) = &args.fill {
        return runtime.block_on(recovery::fill(args, dir)).map_err(failed);
    }
    if let Some(form) = args.serve_worker {
        return runtime.block_on(edge::serve(form)).map_err(failed);
    }
    let dir = Folder::new(args)?;
    if let BenchBroker::Pulsar(url) = &args.broker {
        let edges = edge::Measuring { args, url, data: &dir.path, quiet: global.quiet };
        let edges = runtime.block_on(edges.measure())?;
        match args.output {
            Output::Json => say!("{}", json(&edges)?),
            Output::Table => edges.print(),
        }
        return Ok(());
    }
    let bench = Measuring { args, dir: &dir, quiet: global.quiet };
    let report = runtime.block_on(bench.measure())?;
    drop(dir);
    match args.output {
        Output::Json => say!("{}", json(&report)?),
        Output::Table => report.print(),
    }
    if report.account.sent != report.account.done {
        return Err(Failure::new(Code::Internal, "the account does not balance: every message that was sent must be done"));
    }
    Ok(())
}

fn json(report: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(report).map_err(|error| Failure::new(Code::Internal, error))
}

/// Says what is being measured.
fn note(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("{:>12} {text}", "Measuring");
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("the benchmark failed: {error}"))
}

/// Where the journals lie; it goes with the measurement.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(args: &Bench) -> Result<Self> {
        let parent = args.dir.clone().map_or_else(std::env::current_dir, Ok)?;
        let path = parent.join(format!(".leat-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).doing(|| format!("making `{}`", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a folder whose name says whose it was; the figures are right all the same.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// One run of the benchmark.
struct Measuring<'a> {
    args: &'a Bench,
    dir: &'a Folder,
    quiet: bool,
}

impl Measuring<'_> {
    fn note(&self, text: &str) {
        note(self.quiet, text);
    }

    fn has_disk(&self) -> bool {
        self.args.broker == BenchBroker::Embedded
    }

    async fn measure(&self) -> Result<Report> {
        let Bench { messages, size, rate, .. } = *self.args;
        let disk_limit = if self.has_disk() { self.disk_limit()? } else { Vec::new() };
        let best = disk_limit.iter().map(|syncs| syncs.bytes_per_s).fold(0.0, f64::max);
        let mut account = Counted::default();
        let rig = self.rig("journal", Elision::On)?;
        let mut load = Load::start(&rig, self.dir.path.clone(), Payloads::new(size));
        self.note(&format!("throughput: {messages} messages of {size} bytes through {HOPS_PER_ROOT} edges each"));
        let throughput = load.throughput(messages).await.map_err(failed)?;
        self.note(&format!("latency at {rate} messages a second"));
        let before = self.one_sync()?;
        let latency_ms = load.latency(rate).await.map_err(failed)?;
        let after = self.one_sync()?;
        account.add(load.stop().await.map_err(failed)?);
        let durability = rig.broker.durability().to_owned();
        let mut report = Report {
            schema: "leat.bench/v2",
            broker: if self.has_disk() { "embedded" } else { "memory" },
            durability,
            messages,
            size_bytes: size,
            throughput: self.throughput(throughput, best)?,
            throughput_without_elision: None,
            latency_ms,
            one_sync: before.zip(after).map(|(before, after)| OneSync::of(&before, &after)),
            writes: None,
            scale: None,
            recovery: None,
            backlog: None,
            peak_rss_bytes: usage::peak_rss_bytes(),
            account,
            disk_limit,
            http: None,
            targets: Vec::new(),
        };
        if self.has_disk() {
            self.measure_disk_bound(&mut report, best).await?;
            if self.args.durability == Level::Power && size == TARGET_BYTES {
                report.targets = report.targets();
            }
        } else {
            let hops = edge::hops(messages, size, &self.dir.path, self.quiet).await?;
            report.targets = hops.iter().filter_map(edge::Hop::target).collect();
            report.http = Some(hops);
        }
        Ok(report)
    }

    /// What only a broker with a disk has.
    async fn measure_disk_bound(&self, report: &mut Report, best: f64) -> Result {
        let Bench { messages, size, .. } = *self.args;
        self.note("throughput without elision");
        let rig = self.rig("journal-all", Elision::Off)?;
        let mut load = Load::start(&rig, self.dir.path.clone(), Payloads::new(size));
        let throughput = load.throughput(messages).await.map_err(failed)?;
        report.account.add(load.stop().await.map_err(failed)?);
        report.throughput_without_elision = Some(self.throughput(throughput, best)?);
        self.note("what writing costs");
        report.writes = Some(plain::writes(self.args, &self.dir.path.join("writes")).await.map_err(failed)?);
        if self.args.all {
            self.note("many topics and subscriptions");
            report.scale = Some(plain::scale(self.args, &self.dir.path).await.map_err(failed)?);
            self.note("recovery after a kill, and start-up");
            report.recovery = Some(recovery::measure(self.args, &self.dir.path).await.map_err(failed)?);
        }
        if let Some(messages) = self.args.backlog {
            self.note(&format!("a backlog of {messages} messages"));
            let path = self.dir.path.join("backlog");
            report.backlog = Some(plain::backlog(self.args, &path, messages as usize).await.map_err(failed)?);
        }
        Ok(())
    }

    fn rig(&self, name: &str, elision: Elision) -> Result<Rig> {
        Rig::open(self.args, &self.dir.path.join(name), elision)
    }

    fn disk_limit(&self) -> Result<Vec<Syncs>> {
        self.note("the disk's own limit");
        let path = &self.dir.path;
        disk::measure(path, &GROUP_BYTES).doing(|| format!("measuring the disk of `{}`", path.display()))
    }

    /// One sync of the disk as it is now.
    fn one_sync(&self) -> Result<Option<Syncs>> {
        let path = &self.dir.path;
        let measure = || disk::measure_one(path, ONE_SYNC_BYTES).doing(|| format!("measuring the disk of `{}`", path.display()));
        self.has_disk().then(measure).transpose()
    }

    /// Puts what was measured beside what the disk does in groups of that size.
    fn throughput(&self, profile: phase::Profile, best: f64) -> Result<Throughput> {
        let disk = profile.disk.filter(|disk| disk.syncs > 0);
        let mut throughput = Throughput::new(self.args.messages, best, profile);
        if let Some(disk) = disk {
            let path = &self.dir.path;
            let limit = disk::measure_one(path, disk.bytes / disk.syncs)
                .doing(|| format!("measuring the disk of `{}`", path.display()))?;
            let written = disk.bytes as f64 / throughput.profile.spent.elapsed_s;
            throughput.ratio_to_limit_in_such_groups = Some(written / limit.bytes_per_s);
        }
        Ok(throughput)
    }
}

impl Counted {
    fn add(&mut self, account: Account) {
        self.sent += account.sent;
        self.done += account.done;
        self.dead_lettered += account.dead_lettered;
        self.in_flight += account.in_flight;
    }
}
