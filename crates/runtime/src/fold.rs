//! The trait that a user implements for a fold: many messages in, a result at the end.

use crate::{Context, Outputs, Setup, TaskError};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;

/// A node that gathers: folds each message into a durable state, and gives its result when all input has ended or rests.
///
/// The state is written in the same atomic step as the acknowledgements of the messages that it holds, so after any crash each
/// message is in the state exactly once.
///
/// ```
/// use leatworks::{Context, Fold, TaskError};
///
/// #[derive(serde::Deserialize)]
/// struct Count;
///
/// impl Fold for Count {
///     type In = String;
///     type Out = u64;
///     type State = u64;
///
///     fn fold(&self, count: &mut u64, _line: String, _cx: &Context) -> Result<(), TaskError> {
///         *count += 1;
///         Ok(())
///     }
///
///     async fn finish(&self, count: u64, _cx: &Context) -> Result<u64, TaskError> {
///         Ok(count)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no fold: it does not implement `leatworks::Fold`",
    label = "it lacks `impl leatworks::Fold for {Self}`",
    note = "if it implements `leatworks::Task`, remove `kind = \"fold\"` from its `[[topology.task]]`"
)]
pub trait Fold: DeserializeOwned + Send + Sync + 'static {
    /// What it takes.
    type In: DeserializeOwned + Send;
    /// What it gives at the end. With labelled edges an enum that derives [`Route`](crate::Route); `()` gives nothing.
    type Out: Serialize + Send + 'static;
    /// What it keeps. It is written once per batch of messages and may take up to 16 MiB when encoded.
    type State: Default + Serialize + DeserializeOwned + Send + 'static;

    /// Called once before the first message.
    fn start(&mut self, _setup: &Setup) -> impl Future<Output = Result<(), TaskError>> + Send {
        async { Ok(()) }
    }

    /// Takes one message into the state. If it fails or panics, the state is as if it had not been called.
    ///
    /// # Errors
    /// A retryable error is tried again up to `retry.attempts` times; a permanent one goes to the dead letters at once.
    fn fold(&self, state: &mut Self::State, input: Self::In, cx: &Context) -> Result<(), TaskError>;

    /// Makes the result when all sources have ended and nothing upstream is pending. In a run that goes on (`--serve`, and on a cluster) it makes one whenever that has held for a second and
    /// something was folded since the last one; the state is the default one again then.
    ///
    /// # Errors
    /// A retryable error is tried again up to `retry.attempts` times; then the run ends with the error and the state is kept.
    fn finish(
        &self,
        state: Self::State,
        cx: &Context,
    ) -> impl Future<Output = Result<impl Outputs<Self::Out> + Send, TaskError>> + Send;

    /// The key of an output.
    fn key(_output: &Self::Out) -> Option<String> {
        None
    }
}
