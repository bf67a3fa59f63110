//! Workers: tasks behind HTTP, in any language. The client calls one, the server is one.

use crate::{TaskError, handler::Handler, plan::TaskPlan};
use std::sync::Arc;

/// The handler of a task that is an HTTP worker.
pub(crate) fn client(url: &str, _task: &TaskPlan) -> Result<Arc<dyn Handler>, TaskError> {
    Err(TaskError::permanent(format!("no worker at {url}")))
}
