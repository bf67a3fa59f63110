//! One measured piece of work with what it cost, and the broker that it ran on.

use super::{
    failed,
    timed::{Clock, DiskUse, TimedFileSystem},
    usage::{Snapshot, Spent},
};
use crate::{
    args::Level,
    bench::flags::{Bench, BenchBroker},
    exit::{Code, Failure, Result},
};
use leatworks_broker::{Broker, Durability, Embedded, EmbeddedOptions, Limits, MemoryBroker};
use serde::Serialize;
use std::{fmt::Write, path::Path, sync::Arc};

/// A broker under measurement, with the clock at its disk.
pub(crate) struct Rig {
    pub(crate) broker: Arc<dyn Broker>,
    clock: Option<Arc<Clock>>,
}

/// Whether the embedded broker may leave out what is published and settled within one commit group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elision {
    On,
    Off,
}

/// The options of an embedded broker on this directory.
pub(crate) fn options(args: &Bench, dir: &Path, elision: Elision) -> EmbeddedOptions {
    let durability = match args.durability {
        Level::Power => Durability::Power,
        Level::Interval => Durability::Interval,
        Level::Process => Durability::Process,
        Level::Memory => Durability::Memory,
    };
    EmbeddedOptions { durability, elision: elision == Elision::On, ..EmbeddedOptions::new(dir) }
}

impl Rig {
    /// A new broker on a new directory.
    pub(crate) fn open(args: &Bench, dir: &Path, elision: Elision) -> Result<Self> {
        match &args.broker {
            BenchBroker::Pulsar(url) => Err(Failure::new(Code::Internal, format!("`{url}` has no diamond"))),
            BenchBroker::Memory => Ok(Self { broker: Arc::new(MemoryBroker::new(Limits::default())), clock: None }),
            BenchBroker::Embedded => Self::embedded(options(args, dir, elision)),
        }
    }

    /// An embedded broker with these options.
    pub(crate) fn embedded(options: EmbeddedOptions) -> Result<Self> {
        let clock = Arc::new(Clock::default());
        let fs = TimedFileSystem::new(&options.dir, clock.clone())?;
        Ok(Self { broker: Arc::new(Embedded::open_on(Arc::new(fs), options).map_err(failed)?), clock: Some(clock) })
    }

    /// Begins to measure.
    pub(crate) fn begin(&self) -> Phase {
        let disk = self.clock.as_ref().map(|clock| (clock.clone(), clock.read()));
        Phase { before: Snapshot::take(), disk }
    }
}

/// A piece of work that is being measured.
pub(crate) struct Phase {
    before: Snapshot,
    disk: Option<(Arc<Clock>, DiskUse)>,
}

impl Phase {
    /// Begins to measure what has no disk of its own.
    pub(crate) fn begin() -> Self {
        Self { before: Snapshot::take(), disk: None }
    }

    /// What it took.
    pub(crate) fn end(self) -> Profile {
        let spent = self.before.spent();
        Profile { disk: self.disk.map(|(clock, before)| clock.read().since(before)), spent }
    }
}

/// What the process and its disk did in a piece of work.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Profile {
    #[serde(flatten)]
    pub(crate) spent: Spent,
    /// None for a broker without a disk.
    pub(crate) disk: Option<DiskUse>,
}

impl Profile {
    /// What was busy, in one line.
    pub(crate) fn describe(&self) -> String {
        let Spent { elapsed_s, cpu_s, user_s, system_s, others_cores, threads, .. } = &self.spent;
        let mut text = format!("{:.2} cores busy", cpu_s / elapsed_s);
        if let (Some(user), Some(system)) = (user_s, system_s)
            && user + system > 0.0
        {
            let part = |seconds: &f64| 100.0 * seconds / (user + system);
            write!(text, " ({:.0} % user, {:.0} % system)", part(user), part(system)).expect("a string takes all");
        }
        for busy in threads.iter().filter(|busy| busy.cores >= 0.005) {
            write!(text, ", {} {:.2}", busy.name, busy.cores).expect("a string takes all");
        }
        if let Some(others) = others_cores {
            write!(text, "; other processes {others:.2}").expect("a string takes all");
        }
        let waits: u64 = threads.iter().map(|busy| busy.waits).sum();
        write!(text, "; {:.0} waits/s", waits as f64 / elapsed_s).expect("a string takes all");
        if let Some(disk) = self.disk.filter(|disk| disk.syncs > 0) {
            let syncs = disk.syncs as f64;
            write!(
                text,
                "; {:.0} syncs/s of {:.1} KiB, {:.2} ms each, disk busy {:.0} %",
                syncs / elapsed_s,
                disk.bytes as f64 / syncs / 1024.0,
                disk.sync_s / syncs * 1e3,
                100.0 * disk.sync_s / elapsed_s
            )
            .expect("a string takes all");
        }
        text
    }
}
