//! A journal without threads: whoever tests it says when something is done.

use crate::{Journal, JournalError};

impl Journal {
    /// Writes, syncs and prepares what there is to, in a journal without threads.
    pub fn drive(&self) -> Result<(), JournalError> {
        while self.drive_writing()? {}
        self.drive_syncing()
    }

    /// Only writes, in a journal without threads.
    pub fn drive_writing(&self) -> Result<bool, JournalError> {
        self.shared.prepare_spares();
        self.shared.write_some()
    }

    /// Only syncs, in a journal without threads.
    pub fn drive_syncing(&self) -> Result<(), JournalError> {
        self.shared.sync()
    }
}
