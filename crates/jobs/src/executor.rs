//! What runs jobs.

use crate::{Commit, Job, JobError};
use std::{future::Future, pin::Pin};

/// A future on the heap, as a trait object can give it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs one attempt at one message: prepare, worker, commit, in this order.
pub trait Executor: Send + Sync + 'static {
    /// Runs the attempt and gives what was committed for its message, by this attempt or an earlier one. Nothing is committed when the worker
    /// fails. The future may be dropped at any `await`: then the worker is ended, if it is a child of this process.
    ///
    /// # Errors
    /// Why the attempt has failed. The text says where its log lies.
    fn execute<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Commit, JobError>>;
}
