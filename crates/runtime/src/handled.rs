//! What a dispatcher by itself tells of each message that was handled.

use serde::Serialize;
use std::{fmt, sync::Arc};

/// Who is told of each message that was handled.
pub type Log = Arc<dyn Fn(&Handled<'_>) + Send + Sync>;

/// One message that was handled.
#[derive(Debug, Serialize)]
pub struct Handled<'a> {
    /// Its identity.
    #[serde(rename = "messageId")]
    pub message_id: String,
    /// Its type.
    pub task: &'a str,
    /// The status of the answer, such as `200 OK`, or why there is none.
    pub status: String,
    /// How many tasks follow; none if it failed.
    pub new_tasks: Option<usize>,
}

impl fmt::Display for Handled<'_> {
    /// As Trampoline writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_id, task, status, new_tasks } = self;
        write!(f, "messageId:<{message_id}> task:<{task}> status:<{status}> result:<")?;
        match new_tasks {
            Some(1) => write!(f, "Continue:1 new task>"),
            Some(count) => write!(f, "Continue:{count} new tasks>"),
            None => write!(f, "Failed>"),
        }
    }
}
