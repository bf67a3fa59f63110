//! The journal of the embedded broker: one sequence of records on disk, in segments of one size that are made once and used again.
//!
//! - A record is whole or not there. After any crash the records that are there are a prefix of those that were appended, and it holds at
//!   least every record whose durability was waited for.
//! - Damage costs the damaged record. [`Visitor::lost`] is told what is missing, with the bytes as they are, and decides whether to go on; where going
//!   on would be to guess, opening fails. [`verify()`] finds damage without opening the journal.
//! - What opening has accepted is written again and synced before anything is acknowledged: after a kill or a failed sync it may be in memory only.
//! - Appending never blocks. A writer thread writes what has gathered, a syncing thread syncs what was written: while one sync runs, the next
//!   commit group forms by itself, and its size follows the load without a timer.
//! - A checkpoint holds the owner's state, so that what lies before it is not replayed, and segments that hold nothing alive are used again.
//!   There are two, written in turn, and a segment is only used again when the older one does not need it either.
//! - After a failed sync nothing is acknowledged any more. A full disk is told before anything is accepted, and passes.
//!
//! The bytes are described in the source of `format.rs`; it never reads a clock but for the interval between syncs, and for how long nothing was
//! appended. With the feature `simulation` there is a disk in memory with faults of all kinds, and with `planted` there are bugs for a test to find.

mod driving;
mod error;
mod format;
mod fs;
mod journal;
mod opening;
#[cfg(not(feature = "planted"))]
mod planted;
mod queue;
mod reading;
mod recovery;
mod scan;
mod segment;
mod threads;
mod verify;
mod watermark;
mod work;

#[cfg(feature = "planted")]
pub mod planted;
#[cfg(feature = "simulation")]
pub mod simulation;

pub use error::JournalError;
pub use fs::{File, FileSystem, RealFileSystem};
pub use journal::{Appended, Duty, Journal, Mark, Options, Recovered, Syncing, Usage, Work};
pub use queue::Effect;
pub use recovery::{Reader, Visitor};
pub use verify::{Damage, Report, verify};

use bytes::Bytes;

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes since the journal's beginning, as if its segments lay behind each other.
    pub address: u64,
    /// The sequence of the record that is here or will be.
    pub sequence: u64,
    /// How often the journal had been opened when the record before was written.
    pub epoch: u32,
}

impl Position {
    fn start(epoch: u32) -> Self {
        Self { address: format::SEGMENT_HEADER_BYTES, sequence: 1, epoch }
    }
}

/// One record as recovery finds it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number, one more than that of the record before but for those that opening the journal takes.
    pub sequence: u64,
    /// Where its body is, for [`Journal::read`].
    pub address: u64,
    /// What was appended.
    pub body: Bytes,
}

/// Records that had been durable and are damaged.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The sequence of the first.
    pub first: u64,
    /// The sequence of the last. `None` if the journal's end is cut off: nobody knows how many there were, if any.
    pub last: Option<u64>,
    /// The file in which the first should be.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
    /// The damaged record with its bytes as they are now, if it is one record and its place and length are certain or at least lead exactly to the next
    /// whole one. What in the body has a checksum of its own may be right.
    pub record: Option<Record>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, reason) = (self.first, &self.reason);
        match self.last {
            Some(last) if last == first => write!(f, "record {first} is lost: {reason}"),
            Some(last) => write!(f, "records {first} to {last} are lost: {reason}"),
            None => write!(f, "record {first} and what followed may be lost: {reason}"),
        }
    }
}
