//! Runs a program for each message, without a library of ours in it.
//!
//! A task of kind `job` is a command that finds its message in `in/message.json` and the files that came with it in `in/data/`, and leaves what
//! follows in `out/events/*.json`, with files in `out/data/`. An [`Executor`] runs one attempt at one message in three parts, in this
//! order: *prepare* lays the message and its files into a folder, the *worker* runs there, and *commit* takes what it has left. When the
//! worker fails nothing is committed. The first commit of a message counts, however often it is repeated.
//!
//! Files lie in a [`Store`]: a folder, or a bucket of an object store. What is there beside them tells what became of every attempt.

mod adapter;
mod commit;
mod contract;
mod ending;
mod error;
mod executor;
mod file;
mod job;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod log;
mod prepare;
mod process;
mod record;
mod spec;
mod store;
mod trace;

pub use adapter::{Adapter, COMMIT, PREPARE, Route, WORKER, WORKER_HOME, WORKER_PROJECT, answer_max};
pub use commit::commit;
pub use contract::{DATA, EVENTS, Event, IN, INSIGHTS, MESSAGE, OUT, OUTPUT_BYTES_MAX};
pub use error::{Cause, JobError};
pub use executor::{BoxFuture, Executor};
pub use file::{FILES_KEY, FileRef};
pub use job::{Declared, Job};
pub use prepare::prepare;
pub use process::{Process, read_env_files};
pub use record::{Attempt, Commit, Committed, State};
pub use spec::Spec;
pub use store::{Location, Store};
pub use trace::JobStep;
