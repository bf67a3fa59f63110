//! Where a message is: in memory until its group is written, then at an address of the journal, and for a while at both.

use crate::Message;
use std::{num::NonZeroU32, sync::Arc};

/// Where a message's checksum and envelope are. Three numbers of four bytes, so that it takes 12 bytes and not 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    address: [u32; 2],
    bytes: NonZeroU32,
}

impl Location {
    /// These bytes; `None` for no bytes at all.
    pub(crate) fn new(address: u64, bytes: usize) -> Option<Self> {
        let bytes = NonZeroU32::new(u32::try_from(bytes).ok()?)?;
        Some(Self { address: [address as u32, (address >> 32) as u32], bytes })
    }

    pub(crate) fn address(self) -> u64 {
        u64::from(self.address[0]) | (u64::from(self.address[1]) << 32)
    }

    pub(crate) fn bytes(self) -> usize {
        self.bytes.get() as usize
    }
}

/// A message's place. It has at least one of both.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The message itself: as long as it is not written, and then as long as there is memory for it.
    pub(crate) message: Option<Arc<Message>>,
    /// Where it was written.
    pub(crate) at: Option<Location>,
}

impl Place {
    pub(crate) fn at(location: Location) -> Self {
        Self { message: None, at: Some(location) }
    }
}

impl From<Arc<Message>> for Place {
    fn from(message: Arc<Message>) -> Self {
        Self { message: Some(message), at: None }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (&self.message, &other.message) {
            _ if self.at != other.at => false,
            (Some(one), Some(two)) if self.at.is_none() => Arc::ptr_eq(one, two),
            _ => true,
        }
    }
}
