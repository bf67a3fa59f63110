//! What was done with each message, where that is written down, and how it is found again.
//!
//! Dispatchers and folds tell of each handling when its step is made, and a writer of the process puts what they tell into a store of files: lines of JSON, some
//! thousand in an object. No message waits for it. What a process had told and not written when it was killed is missing, as is what came while too much waited; the
//! latter is counted. What jobs have done they write down themselves, and what waits or was given up the broker knows.

mod find;
mod look;
mod record;
mod show;
mod steps;
mod writer;

pub use find::{Found, RECORDS_MAX, find};
pub use look::{LookError, Traced, look};
pub use record::{Outcome, Record};
pub use steps::{Sources, Step, StepState, steps};
pub(crate) use writer::{Tracer, Writer};

use crate::config::Config;

/// The id that a person has written.
///
/// # Errors
/// What an id looks like, if it is none.
pub fn id(text: &str) -> Result<String, String> {
    let id = text.trim().to_ascii_lowercase();
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    Err(format!("`{text}` is no id of a message: those have 32 hexadecimal digits, as `send` and `dlq show` print them"))
}

/// What is said where nothing is known of an id.
pub fn nothing(config: &Config, id: &str) -> String {
    let more = if config.trace.enabled { "" } else { "; with `trace.enabled = true` in leat.toml every step is written down" };
    format!("nothing is known of `{id}`: it was never here, or all that came of it is done and nothing of that is kept{more}")
}

#[cfg(test)]
mod tests;
