//! What can go wrong with a journal.

use std::{io, sync::Arc};

/// A journal's failure. None of them passes by itself but [`JournalError::Full`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk has no space for another segment. It passes when there is space again.
    #[error("no space on the disk for another segment of the journal")]
    Full,
    /// The journal has ended.
    #[error("journal is closed")]
    Closed,
    /// A record is larger than a segment takes.
    #[error("record of {bytes} bytes is larger than a segment takes ({max} bytes)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        max: usize,
    },
    /// What was durable once cannot be read back.
    #[error("damaged `{file}` at byte {offset}: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The file system failed.
    #[error("{action} `{file}`: {error}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file's name.
        file: String,
        /// What the file system said.
        error: Arc<io::Error>,
    },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |error| match crate::fs::is_full(&error) {
            true => Self::Full,
            false => Self::Io { action, file, error: Arc::new(error) },
        }
    }

    pub(crate) fn damaged(file: impl Into<String>, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), offset, reason: reason.into() }
    }
}
