//! Reading back what was written, and telling where it is.

use crate::{
    Journal, JournalError, Record,
    segment::{self, segment_name},
};
use bytes::Bytes;
use std::sync::PoisonError;

impl Journal {
    /// Reads bytes back. Blocks; they must have been written.
    pub fn read(&self, address: u64, bytes: usize) -> Result<Bytes, JournalError> {
        let number = address / self.shared.segment_bytes;
        let name = segment_name(number);
        let find = || self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let gone = || JournalError::damaged(&name, address % self.shared.segment_bytes, "there is no such segment");
        let file = find().ok_or_else(gone)?;
        let mut buffer = vec![0; bytes];
        file.read(&mut buffer, address % self.shared.segment_bytes).map_err(JournalError::io("reading", &name))?;
        // A segment that was let go of meanwhile may be in use again: the bytes could be whole and another record's.
        find().ok_or_else(gone)?;
        Ok(buffer.into())
    }

    /// The records of a segment, in order, and whether each is whole. Of one that is not, only what in its body has a checksum of its own may be right. Blocks, and takes as
    /// much memory as the segment.
    ///
    /// # Errors
    /// If there is no such segment, or the disk fails.
    pub fn records_of(&self, segment: u64) -> Result<Vec<(Record, bool)>, JournalError> {
        let find = || self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned();
        let gone = || JournalError::damaged(segment_name(segment), 0, "there is no such segment");
        let file = find().ok_or_else(gone)?;
        let records = segment::records_of(&*file, segment, self.shared.segment_bytes, self.shared.salt)?;
        find().ok_or_else(gone)?;
        Ok(records)
    }

    /// The name of the file and the offset in it, for people.
    pub fn place(&self, address: u64) -> (String, u64) {
        (segment_name(address / self.shared.segment_bytes), address % self.shared.segment_bytes)
    }

    /// The number of the segment that this address is in, as [`Duty::Compact`](crate::Duty::Compact) names it.
    pub fn segment_of(&self, address: u64) -> u64 {
        address / self.shared.segment_bytes
    }

    /// The address of a segment's first byte, where there never is anything of a record.
    pub fn start_of(&self, segment: u64) -> u64 {
        segment * self.shared.segment_bytes
    }
}
