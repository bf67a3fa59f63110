//! Runs topologies of typed tasks.
//!
//! A project draws its pipelines in `Project.toml`; generated code names the types below and calls [`main_topology`] or [`main_task`].
//! What a user writes is a [`Task`] (one message in, zero or more out), a [`Fold`] (many messages in, one result at the end), and
//! with `#[derive(Route)]` an enum whose variants are the labels of a task's edges.
//!
//! ```
//! use leatworks::{Context, Route, Task, TaskError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Render { greeting: String }
//!
//! #[derive(Deserialize)]
//! struct User { name: String, subscribed: bool }
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Mail { text: String }
//!
//! #[derive(Route, Serialize, Deserialize, PartialEq, Debug)]
//! enum Rendered { Mail(Mail), Skipped(String) }
//!
//! impl Task for Render {
//!     type In = User;
//!     type Out = Rendered;
//!
//!     async fn run(&self, user: User, _cx: &Context) -> Result<Rendered, TaskError> {
//!         if user.subscribed {
//!             Ok(Rendered::Mail(Mail { text: format!("{} {}", self.greeting, user.name) }))
//!         } else {
//!             Ok(Rendered::Skipped(user.name))
//!         }
//!     }
//! }
//! assert_eq!(Rendered::LABELS, ["mail", "skipped"]);
//! ```

/// Messages are made on one thread and let go of on another, by the million. The C library of Linux keeps a heap for each thread and gives none of it back: with a
/// million roots in flight the heaps held twice of what was in use. Of mimalloc it is version 2, which gives back after a tenth of a second what nobody uses; version 3 waits for a
/// second and longer, and held 320 MiB where version 2 held 256 of the same 150.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod check;
pub mod codec;
pub mod config;
pub mod control;
pub mod def;
pub mod handler;
pub mod observe;
pub mod plan;
pub mod run;
pub mod source;
pub mod standalone;
pub mod topics;
pub mod trace;
pub mod worker;

mod cli;
mod context;
mod counts;
mod dispatch;
mod error;
mod fold;
mod folding;
mod handled;
mod host;
mod ids;
mod job;
mod outputs;
mod route;
mod routes;
mod settings;
mod setup;
mod sink;
mod task;

pub use cli::{EdgeJob, dispatch_edge, log_json};
pub use codec::Codec;
pub use context::Context;
pub use counts::{Counts, TaskTally};
pub use dispatch::DeadLetter;
pub use error::{Cause, Permanent, TaskError};
pub use fold::Fold;
pub use handler::{open_fold, open_fold_routed, open_routed, open_task};
pub use host::{HostError, open_broker};
pub use ids::new_root;
pub use leatworks_broker as broker;
pub use leatworks_jobs as jobs;
pub use leatworks_macros::Route;
pub use outputs::{MAX_OUTPUTS, Outputs, Streamed, stream};
pub use route::{Route, RouteVariant};
pub use setup::Setup;
pub use task::Task;

use std::process::ExitCode;

/// The body of a topology's generated binary: reads the command line and runs, draws, checks or inspects the topology.
pub fn main_topology(topology: &'static def::TopologyDef) -> ExitCode {
    cli::main_topology(topology)
}

/// The body of a task's generated binary: serves the task as an HTTP worker.
pub fn main_task(task: &'static def::TaskDef) -> ExitCode {
    cli::main_task(task)
}

/// Brings in the module `topologies` that the build script has generated. Write it once, in `src/lib.rs`.
#[macro_export]
macro_rules! topologies {
    () => {
        /// The topologies of this project, generated from `Project.toml`.
        pub mod topologies {
            include!(concat!(env!("OUT_DIR"), "/topologies.rs"));
        }
    };
}
