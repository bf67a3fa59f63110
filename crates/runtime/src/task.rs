//! The trait that a user implements for a task: one message in, zero or more out.

use crate::{Context, Outputs, Setup, TaskError};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;

/// A node of a topology: takes one message and gives zero or more.
///
/// A task *is* its settings: its fields are read from the runtime configuration (`[topology.<name>.task.<task>] settings = { … }`), so
/// a task without settings is a unit struct. One value serves all messages of its task in a process.
///
/// ```
/// use leatworks::{Context, Task, TaskError};
///
/// #[derive(serde::Deserialize)]
/// struct Split;
///
/// impl Task for Split {
///     type In = String;
///     type Out = String;
///
///     async fn run(&self, line: String, _cx: &Context) -> Result<Vec<String>, TaskError> {
///         Ok(line.split_whitespace().map(str::to_owned).collect())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task: it does not implement `leatworks::Task`",
    label = "it lacks `impl leatworks::Task for {Self}`",
    note = "if it implements `leatworks::Fold`, put `kind = \"fold\"` into its `[[topology.task]]`"
)]
pub trait Task: DeserializeOwned + Send + Sync + 'static {
    /// What it takes.
    type In: DeserializeOwned + Send;
    /// What it gives. With labelled edges an enum that derives [`Route`](crate::Route); `()` gives nothing.
    type Out: Serialize + Send + 'static;

    /// Called once before the first message: opens connections, reads files.
    fn start(&mut self, _setup: &Setup) -> impl Future<Output = Result<(), TaskError>> + Send {
        async { Ok(()) }
    }

    /// Handles one message within the task's `timeout`. It is cancelled at its next `await` when the time is over, and called again
    /// with the same message and a higher [`Context::attempt`] when it fails, panics or runs out of time.
    ///
    /// # Errors
    /// A retryable error is tried again up to `retry.attempts` times; a permanent one goes to the dead letters at once.
    fn run(
        &self,
        input: Self::In,
        cx: &Context,
    ) -> impl Future<Output = Result<impl Outputs<Self::Out> + Send, TaskError>> + Send;

    /// The key of an output, for ordering and for people. With `None` it inherits the key of the input.
    fn key(_output: &Self::Out) -> Option<String> {
        None
    }
}
