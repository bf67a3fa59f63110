//! What a task may return: nothing, one value, an option, a list or a stream.

use crate::TaskError;
use futures_util::{Stream, StreamExt};
use std::{any::TypeId, future::Future, pin::Pin};

/// The most outputs that one message may give. They are published in one atomic step, so they must fit into memory together.
pub const MAX_OUTPUTS: usize = 65_536;

/// What a task returns: `()`, `T`, `Option<T>`, `Vec<T>`, or a [`stream`].
///
/// `()` gives nothing when the task's `Out` is `()`; a task with another `Out` gives nothing by `None` or an empty list.
#[diagnostic::on_unimplemented(
    message = "a task whose `Out` is `{T}` cannot return `{Self}`",
    label = "return `{T}`, `Option<{T}>`, `Vec<{T}>`, or `leatworks::stream(…)` of it"
)]
pub trait Outputs<T> {
    /// Gathers the values in order.
    ///
    /// # Errors
    /// What a stream gives as an error, and a permanent error beyond [`MAX_OUTPUTS`].
    fn gather(self) -> impl Future<Output = Result<Vec<T>, TaskError>> + Send;
}

impl<T: Send + 'static> Outputs<T> for T {
    async fn gather(self) -> Result<Vec<T>, TaskError> {
        if TypeId::of::<T>() == TypeId::of::<()>() { Ok(Vec::new()) } else { Ok(vec![self]) }
    }
}

impl<T: Send> Outputs<T> for Option<T> {
    async fn gather(self) -> Result<Vec<T>, TaskError> {
        Ok(self.into_iter().collect())
    }
}

impl<T: Send> Outputs<T> for Vec<T> {
    async fn gather(self) -> Result<Vec<T>, TaskError> {
        if self.len() > MAX_OUTPUTS {
            return Err(too_many());
        }
        Ok(self)
    }
}

/// A stream of outputs, made by [`stream`].
pub struct Streamed<T>(Pin<Box<dyn Stream<Item = Result<T, TaskError>> + Send>>);

/// Returns a stream from a task. It is gathered before anything is published, because the outputs of one message are one step.
pub fn stream<T>(stream: impl Stream<Item = Result<T, TaskError>> + Send + 'static) -> Streamed<T> {
    Streamed(Box::pin(stream))
}

impl<T: Send> Outputs<T> for Streamed<T> {
    async fn gather(mut self) -> Result<Vec<T>, TaskError> {
        let mut values = Vec::new();
        while let Some(value) = self.0.next().await {
            if values.len() == MAX_OUTPUTS {
                return Err(too_many());
            }
            values.push(value?);
        }
        Ok(values)
    }
}

fn too_many() -> TaskError {
    TaskError::permanent(format!("one message gave more than {MAX_OUTPUTS} outputs"))
}
