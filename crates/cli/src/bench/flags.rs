//! The flags of `leat bench`.

use crate::args::{Level, Output};
use clap::{Args, ValueEnum, ValueHint};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// How many messages enter the diamond
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: u64,
    /// Bytes of each message
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub(crate) size: u64,
    /// Messages a second while latency is measured
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: u64,
    /// embedded, memory, or pulsar://HOST:PORT to measure one edge on a service
    #[arg(long, default_value = "embedded", value_parser = bench_broker)]
    pub(crate) broker: BenchBroker,
    /// What an acknowledged write survives on the embedded broker
    #[arg(long, value_enum, default_value_t = Level::Power)]
    pub(crate) durability: Level,
    /// Also measure many topics and subscriptions, recovery and start-up; about a minute
    #[arg(long)]
    pub(crate) all: bool,
    /// Also publish so many messages before the first is consumed, and measure memory; 50M takes about 13 GB of disk
    #[arg(long, value_name = "MESSAGES", value_parser = count)]
    pub(crate) backlog: Option<u64>,
    /// Where to make the folder for the journals and the disk's test file, which is removed afterwards; by default here
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Fill a journal and wait to be killed: the other half of measuring recovery
    #[arg(long, hide = true)]
    pub(crate) fill: Option<PathBuf>,
    /// Be the HTTP worker that is called: the other half of measuring the hop to one
    #[arg(long, hide = true, value_enum)]
    pub(crate) serve_worker: Option<WorkerForm>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The broker that is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BenchBroker {
    /// The journal on this machine's disk.
    Embedded,
    /// Memory only.
    Memory,
    /// A Pulsar service, by its address.
    Pulsar(String),
}

/// How an HTTP worker is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkerForm {
    /// Many messages in a request
    Batch,
    /// One JSON message in a request
    Single,
}

/// The broker that `leat bench` is to measure.
fn bench_broker(text: &str) -> Result<BenchBroker, String> {
    match text {
        "embedded" => Ok(BenchBroker::Embedded),
        "memory" => Ok(BenchBroker::Memory),
        url if url.starts_with("pulsar://") || url.starts_with("pulsar+ssl://") => Ok(BenchBroker::Pulsar(url.to_owned())),
        _ => Err("there are `embedded`, `memory`, and `pulsar://HOST:PORT` or `pulsar+ssl://HOST:PORT`".to_owned()),
    }
}

/// A number that may end with `k` for thousands or `M` for millions.
fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix('M') {
        Some(digits) => (digits, 1_000_000),
        None => text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1_000)),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|number| *number > 0);
    number.ok_or_else(|| "not a number such as 500k or 50M".to_owned())
}
