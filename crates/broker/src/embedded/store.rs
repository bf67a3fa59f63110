//! The engine's events and messages in a journal.

use super::{
    Durability, Lock,
    cache::Cache,
    record::{self, Location},
    snapshot,
};
use crate::{
    BrokerError, ErrorKind, Message, Result,
    engine::Store,
    state::{Event, State},
};
use bytes::Bytes;
use leatworks_journal::{Journal, JournalError, Mark};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most bytes that are read back at once: messages that lie next to each other come with one call.
const READ_BYTES_MAX: u64 = 256 << 10;

/// Keeps events in a journal.
pub(crate) struct JournalStore {
    pub(super) journal: Journal,
    durability: Durability,
    cache: Mutex<Cache>,
    /// Where the journal is, for people.
    directory: String,
    /// Let go of last, also by a close under way that nobody waits for any more.
    lock: Option<Arc<Lock>>,
}

impl JournalStore {
    pub(super) fn new(
        journal: Journal,
        durability: Durability,
        cache_bytes_max: usize,
        directory: String,
        lock: Option<Lock>,
    ) -> Self {
        Self { journal, durability, cache: Mutex::new(Cache::new(cache_bytes_max)), directory, lock: lock.map(Arc::new) }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn error(&self, error: JournalError) -> BrokerError {
        broker_error(&self.directory, error)
    }
}

/// What a journal's failure means to the broker's callers.
pub(super) fn broker_error(directory: &str, error: JournalError) -> BrokerError {
    let kind = match &error {
        JournalError::Full => ErrorKind::Full,
        JournalError::Closed => ErrorKind::Closed,
        JournalError::TooLarge { .. } => ErrorKind::TooLarge,
        _ => ErrorKind::Storage,
    };
    BrokerError::new(kind, format!("journal `{directory}`: {error}"))
}

impl Store for JournalStore {
    type Handle = Location;
    type Snapshot = (Mark, Vec<u8>);

    fn durability(&self) -> &'static str {
        self.durability.name()
    }

    fn check(&self) -> Result<()> {
        self.journal.check().map_err(|error| self.error(error))
    }

    fn has_room(&self, bytes: usize, urgent: bool) -> bool {
        self.journal.has_room(bytes, urgent)
    }

    async fn room(&self, bytes: usize, urgent: bool) -> Result<()> {
        self.journal.room(bytes, urgent).await.map_err(|error| self.error(error))
    }

    fn append(&self, event: Event<Arc<Message>>) -> (u64, Event<Location>) {
        let caching = matches!(event, Event::Step { .. });
        let (body, event) = record::encode(event);
        let appended = self.journal.append(body);
        let mut held = Vec::new();
        let mut cache = self.cache();
        let event = event.map(|placed| {
            let at = Location::new(appended.address + placed.offset as u64, placed.bytes)
                .expect("a message has a checksum, so it has bytes");
            held.push((at.address(), at.bytes()));
            if caching {
                cache.insert(at.address(), placed.message);
            }
            at
        });
        drop(cache);
        if !held.is_empty() {
            self.journal.hold(held.into_iter());
        }
        (appended.sequence, event)
    }

    fn last(&self) -> u64 {
        self.journal.last()
    }

    async fn written(&self, sequence: u64) -> Result<()> {
        match self.durability {
            Durability::Memory => self.check(),
            _ => self.journal.written(sequence).await.map_err(|error| self.error(error)),
        }
    }

    async fn durable(&self, sequence: u64) -> Result<()> {
        match self.durability {
            Durability::Power => self.journal.synced(sequence).await.map_err(|error| self.error(error)),
            _ => self.written(sequence).await,
        }
    }

    fn is_durable(&self, sequence: u64) -> bool {
        match self.durability {
            Durability::Power => self.journal.synced_now() >= sequence,
            Durability::Interval | Durability::Process => self.journal.written_now() >= sequence,
            Durability::Memory => true,
        }
    }

    fn free(&self, handles: &mut Vec<Location>) {
        if handles.is_empty() {
            return;
        }
        self.journal.release(handles.iter().map(|at| (at.address(), at.bytes())));
        let mut cache = self.cache();
        for at in handles.drain(..) {
            cache.remove(at.address());
        }
    }

    async fn load(&self, handles: &[Location]) -> Vec<Result<Message>> {
        let mut loaded: Vec<Option<Result<Message>>> = Vec::with_capacity(handles.len());
        {
            let cache = self.cache();
            loaded.extend(handles.iter().map(|at| cache.get(at.address()).map(|message| Ok(Message::clone(message)))));
        }
        let missing: Vec<Location> =
            handles.iter().zip(&loaded).filter(|(_, found)| found.is_none()).map(|(at, _)| *at).collect();
        if missing.is_empty() {
            return loaded.into_iter().flatten().collect();
        }
        if let Err(error) = self.journal.written(self.journal.last()).await {
            return handles.iter().map(|_| Err(self.error(error.clone()))).collect();
        }
        let (journal, directory) = (self.journal.clone(), self.directory.clone());
        let read = tokio::task::spawn_blocking(move || read_all(&journal, &directory, &missing)).await;
        let closed = || BrokerError::new(ErrorKind::Closed, "the runtime ended while messages were read back");
        let mut read = read.unwrap_or_default().into_iter();
        loaded.into_iter().map(|found| found.or_else(|| read.next()).unwrap_or_else(|| Err(closed()))).collect()
    }

    fn snapshot(&self, state: &State<Location>) -> Self::Snapshot {
        (self.journal.mark(), snapshot::encode(state))
    }

    async fn close(&self, snapshot: Self::Snapshot) -> Result<()> {
        let (journal, lock) = (self.journal.clone(), self.lock.clone());
        let closing = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            let (mark, snapshot) = snapshot;
            // The checkpoint only makes the next start quicker: without space for it, what was acknowledged is as safe.
            match journal.checkpoint(mark, &snapshot) {
                Ok(()) | Err(JournalError::Full) => journal.close(),
                Err(error) => Err(error),
            }
        });
        let ended = || BrokerError::new(ErrorKind::Closed, "the runtime ended while the journal was closed");
        match closing.await.map_err(|_| ended())? {
            Ok(()) | Err(JournalError::Closed) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        // What fails here was acknowledged to nobody.
        let _ = self.journal.close();
    }
}

/// Reads messages back, neighbours together.
fn read_all(journal: &Journal, directory: &str, handles: &[Location]) -> Vec<Result<Message>> {
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

fn read_one(
    journal: &Journal,
    directory: &str,
    bytes: &std::result::Result<Bytes, JournalError>,
    from: u64,
    at: Location,
) -> Result<Message> {
    let bytes = bytes.as_ref().map_err(|error| broker_error(directory, error.clone()))?;
    let start = (at.address() - from) as usize;
    // From a slice, so that the payload is copied: a message that is kept must not keep its neighbours.
    record::decode_message(&bytes[start..start + at.bytes()]).map_err(|reason| {
        let (file, offset) = journal.place(at.address());
        BrokerError::new(ErrorKind::Storage, format!("journal `{directory}`: damaged `{file}` at byte {offset}: {reason}"))
    })
}
