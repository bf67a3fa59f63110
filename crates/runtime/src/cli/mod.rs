//! The command lines of the generated binaries: one for a topology, one for a task.

mod check;
mod dispatch;
mod exit;
mod inspect;
mod listen;
mod log;
mod output;
mod processes;
mod progress;
mod signals;
mod task;
mod topology;
mod trace;

pub use dispatch::{EdgeJob, dispatch_edge};
pub use log::log_json;
pub(crate) use task::main as main_task;
pub(crate) use topology::main as main_topology;

use crate::config::Flags;
use log::LogFormat;
use output::Output;
use std::path::PathBuf;

/// The flags that all commands take.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How data is written to standard output
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    /// Directory of the journal and the control socket
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Broker: embedded, memory, or pulsar://HOST:PORT
    #[arg(long, value_name = "BROKER", global = true)]
    broker: Option<String>,
    /// What an acknowledged write survives: power, interval, process or memory
    #[arg(long, value_name = "LEVEL", global = true)]
    durability: Option<String>,
    /// No progress, errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// More log lines; -vv for still more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    /// End with this process, which has started this one
    #[arg(long, value_name = "PID", hide = true, global = true)]
    child_of: Option<u32>,
}

impl Common {
    fn flags(&self) -> Flags {
        Flags { data: self.data.clone(), broker: self.broker.clone(), durability: self.durability.clone() }
    }
}
