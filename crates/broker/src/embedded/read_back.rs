//! Reading messages and indexes back from the journal.

use super::{
    block, index,
    place::{Location, Place},
    store::broker_error,
};
use crate::{
    BrokerError, ErrorKind, Message, Result,
    state::{Index, Missing},
};
use bytes::Bytes;
use leatworks_journal::{Journal, JournalError};
use std::sync::Arc;

/// The most bytes that are read back at once: messages that lie next to each other come with one call.
const READ_BYTES_MAX: u64 = 256 << 10;

/// Reads messages back, neighbours together.
pub(super) fn read_all(journal: &Journal, directory: &str, handles: &[Location]) -> Vec<Result<Arc<Message>>> {
    let mut messages = Vec::with_capacity(handles.len());
    let mut rest = handles;
    while let Some(first) = rest.first() {
        let from = first.address();
        let end = |at: &Location| at.address() + at.bytes() as u64;
        let segment = journal.segment_of(from);
        let near = |at: &&Location| {
            at.address() >= from && end(at) - from <= READ_BYTES_MAX && journal.segment_of(at.address()) == segment
        };
        let count = rest.iter().take_while(near).count().max(1);
        let (group, others) = rest.split_at(count);
        let last = group.iter().map(end).max().unwrap_or(from);
        let bytes = journal.read(from, (last - from) as usize);
        messages.extend(group.iter().map(|at| read_one(journal, directory, &bytes, from, *at)));
        rest = others;
    }
    messages
}

/// Reads the index of a block back.
pub(super) fn read_index(journal: &Journal, directory: &str, missing: &Missing<Place>) -> Result<Index<Place>> {
    let Missing { topic, number, handle, .. } = missing;
    index::read(*topic, *number, handle, |address, bytes| journal.read(address, bytes)).map_err(|reason| {
        let (file, offset) = journal.place(handle.at.map_or(0, Location::address));
        BrokerError::new(ErrorKind::Storage, format!("journal `{directory}`: damaged `{file}` at byte {offset}: {reason}"))
    })
}

fn read_one(
    journal: &Journal,
    directory: &str,
    bytes: &std::result::Result<Bytes, JournalError>,
    from: u64,
    at: Location,
) -> Result<Arc<Message>> {
    let bytes = bytes.as_ref().map_err(|error| broker_error(directory, error.clone()))?;
    let start = (at.address() - from) as usize;
    let found = &bytes[start..start + at.bytes()];
    let damaged = |reason: String| {
        let (file, offset) = journal.place(at.address());
        BrokerError::new(ErrorKind::Storage, format!("journal `{directory}`: damaged `{file}` at byte {offset}: {reason}"))
    };
    if !block::is_whole(found) {
        return Err(damaged("the message's checksum is wrong".to_owned()));
    }
    // From a slice, so that the payload is copied: a message that is kept must not keep its neighbours.
    block::decode(found).map(Arc::new).map_err(damaged)
}
