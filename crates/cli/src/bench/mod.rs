//! `leat bench`: hops a second, latency, and what they cost, beside the limit that the machine itself sets in the same run.

mod diamond;
mod disk;
mod load;
mod usage;

use crate::{
    args::{Bench, BenchBroker, Global, Level, Output},
    exit::{Code, Doing, Failure, Result, say},
};
use diamond::HOPS_PER_ROOT;
use disk::Syncs;
use leatworks_broker::{Account, Broker, Durability, Embedded, EmbeddedOptions, Limits, MemoryBroker};
use load::{Latency, Throughput};
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

/// The sizes at which the disk's own limit is measured: one small group, one of about 300 messages, and the journal's largest.
const GROUP_BYTES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

/// What is printed.
#[derive(Serialize)]
struct Result_ {
    schema: &'static str,
    broker: &'static str,
    durability: String,
    messages: u64,
    size_bytes: u64,
    edge_hops_per_s: f64,
    latency_ms: Latency,
    bytes_written_per_hop: Option<f64>,
    cpu_us_per_hop: Option<f64>,
    peak_rss_bytes: Option<u64>,
    account: Counted,
    disk_limit: Vec<Syncs>,
    /// Bytes that the journal wrote a second, as a part of what the disk carries at its best group size; none for memory.
    ratio_to_limit: Option<f64>,
}

/// The account of every message that was sent, in both parts of the measurement.
#[derive(Serialize)]
struct Counted {
    sent: u64,
    done: u64,
    dead_lettered: u64,
    in_flight: u64,
}

/// Measures.
pub(crate) fn run(args: &Bench, global: &Global) -> Result {
    let dir = Folder::new(args)?;
    let note = |text: &str| {
        if !global.quiet {
            eprintln!("{:>12} {text}", "Measuring");
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let disk_limit = if args.broker == BenchBroker::Embedded {
        note("the disk's own limit");
        disk::measure(&dir.path, &GROUP_BYTES).doing(|| format!("measuring the disk of `{}`", dir.path.display()))?
    } else {
        Vec::new()
    };
    let result = runtime.block_on(async {
        let broker = open(args, &dir)?;
        let load = load::Load::start(broker.clone(), dir.path.clone());
        note(&format!("throughput: {} messages of {} bytes through {HOPS_PER_ROOT} edges each", args.messages, args.size));
        let throughput = load.throughput(args.messages, args.size).await.map_err(failed)?;
        note(&format!("latency at {} messages a second", args.rate));
        let latency = load.latency(args.rate, args.size).await.map_err(failed)?;
        let account = broker.account(diamond::DIAMOND.name).await.map_err(failed)?;
        let durability = broker.durability().to_owned();
        load.stop().await.map_err(failed)?;
        broker.close().await.map_err(failed)?;
        Ok::<_, Failure>(summary(args, durability, throughput, latency, account, disk_limit))
    })?;
    drop(dir);
    match args.output {
        Output::Json => say!("{}", serde_json::to_string(&result).map_err(|error| Failure::new(Code::Internal, error))?),
        Output::Table => print(&result),
    }
    if result.account.sent != result.account.done {
        return Err(Failure::new(Code::Internal, "the account does not balance: every message that was sent must be done"));
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("the benchmark failed: {error}"))
}

/// Where the journal lies. A folder that was made for the measurement goes with it.
struct Folder {
    path: PathBuf,
    own: bool,
}

impl Folder {
    fn new(args: &Bench) -> Result<Self> {
        let (path, own) = match &args.dir {
            Some(path) => (path.clone(), false),
            None => (std::env::current_dir()?.join(format!(".leat-bench-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path).doing(|| format!("making `{}`", path.display()))?;
        Ok(Self { path, own })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.own {
            // What cannot be removed is a folder whose name says whose it was; the figures are right all the same.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn open(args: &Bench, dir: &Folder) -> Result<Arc<dyn Broker>> {
    if args.broker == BenchBroker::Memory {
        return Ok(Arc::new(MemoryBroker::new(Limits::default())));
    }
    let durability = match args.durability {
        Level::Power => Durability::Power,
        Level::Interval => Durability::Interval,
        Level::Process => Durability::Process,
        Level::Memory => Durability::Memory,
    };
    let options = EmbeddedOptions { durability, ..EmbeddedOptions::new(dir.path.join("journal")) };
    Ok(Arc::new(Embedded::open(options).map_err(failed)?))
}

fn summary(
    args: &Bench,
    durability: String,
    throughput: Throughput,
    latency: Latency,
    account: Account,
    disk_limit: Vec<Syncs>,
) -> Result_ {
    let hops = (args.messages * HOPS_PER_ROOT) as f64;
    let written = throughput.written_bytes.filter(|_| args.broker == BenchBroker::Embedded).map(|bytes| bytes as f64);
    let best = disk_limit.iter().map(|syncs| syncs.bytes_per_s).fold(0.0, f64::max);
    Result_ {
        schema: "leat.bench/v1",
        broker: if args.broker == BenchBroker::Embedded { "embedded" } else { "memory" },
        durability,
        messages: args.messages,
        size_bytes: args.size,
        edge_hops_per_s: hops / throughput.elapsed_s,
        latency_ms: latency,
        bytes_written_per_hop: written.map(|bytes| bytes / hops),
        cpu_us_per_hop: throughput.cpu_s.map(|seconds| seconds * 1e6 / hops),
        peak_rss_bytes: usage::peak_rss_bytes(),
        account: Counted {
            sent: account.sent,
            done: account.done,
            dead_lettered: account.dead_lettered,
            in_flight: account.in_flight,
        },
        ratio_to_limit: written.filter(|_| best > 0.0).map(|bytes| bytes / throughput.elapsed_s / best),
        disk_limit,
    }
}

fn print(result: &Result_) {
    let or_none =
        |value: Option<f64>, unit: &str| value.map_or("not measured here".to_owned(), |value| format!("{value:.2} {unit}"));
    say!("broker            {} ({})", result.broker, result.durability);
    say!("messages          {} of {} bytes, {HOPS_PER_ROOT} edges each", result.messages, result.size_bytes);
    say!("edge hops         {:.0} /s", result.edge_hops_per_s);
    let latency = &result.latency_ms;
    say!(
        "latency           p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms through the graph, {} messages at {} /s",
        latency.p50,
        latency.p99,
        latency.p999,
        latency.messages,
        latency.rate
    );
    say!("bytes written     {}", or_none(result.bytes_written_per_hop, "per hop"));
    say!("CPU               {}", or_none(result.cpu_us_per_hop, "µs per hop"));
    say!("peak memory       {}", or_none(result.peak_rss_bytes.map(|bytes| bytes as f64 / (1 << 20) as f64), "MiB"));
    let account = &result.account;
    say!(
        "account           sent {} = done {} + dead-lettered {} + in flight {}",
        account.sent,
        account.done,
        account.dead_lettered,
        account.in_flight
    );
    for syncs in &result.disk_limit {
        say!(
            "disk, {:>4} KiB    {:.0} syncs/s, {:.1} MB/s, p50 {:.2}, p99 {:.2} ms",
            syncs.group_bytes >> 10,
            syncs.syncs_per_s,
            syncs.bytes_per_s / 1e6,
            syncs.p50_ms,
            syncs.p99_ms
        );
    }
    say!("ratio to limit    {} of the disk's best bandwidth", or_none(result.ratio_to_limit, ""));
}
