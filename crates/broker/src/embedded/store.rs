//! The engine's events and messages in a journal, group by group.

use super::{
    EmbeddedOptions, Lock, commit, duties,
    group::Group,
    hand::{self, Hand, HandFiles, InHand},
    place::{Location, Place},
    read_back::{read_all, read_index},
    syncing,
};
use crate::{
    BrokerError, Durability, ErrorKind, Message, MessageId, Result, TopicSpec,
    engine::{Engine, MESSAGE_BYTES_MIN, Noted, Store, message_size},
    planted::{self, Bug},
    state::{BLOCK_MESSAGES, Event, Index, Indexed, Missing, Run, State, SubscriptionId, TopicId},
};
use leatworks_journal::{Effect, FileSystem, Journal, JournalError, Syncing};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Bytes that a group takes at most before those who want to add to it wait, unless a single step is larger. The disk does not get faster beyond a mebibyte; with
/// eight, a group of 200-byte messages holds 30,000 of them, and a slow disk (120 MB/s) has it in 70 ms.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Keeps events in a journal.
pub(crate) struct JournalStore {
    pub(super) journal: Journal,
    level: Durability,
    /// How often [`Durability::Interval`] syncs.
    sync_interval: Duration,
    cache_bytes_max: usize,
    /// Blocks in memory beyond which some are spilled.
    pub(super) loaded_max: usize,
    /// Where the journal is, for people.
    directory: String,
    /// Messages in hand; none as long as nothing survives the process.
    pub(super) hand: OnceLock<HandFiles>,
    /// What they are made with, and how large.
    hand_in: (Arc<dyn FileSystem>, u64),
    /// The sequence that the open group gets when it is closed. Changed with the engine locked.
    pub(super) open: AtomicU64,
    /// The sequence of the last event that was noted: that of the open group if there is anything in it.
    noted: AtomicU64,
    /// That of the last event that is to survive the end of the process, and that of the last that is to survive the loss of power.
    kept: AtomicU64,
    synced: AtomicU64,
    /// Estimated bytes of a group that is closed and not appended yet.
    pub(super) closed_bytes: AtomicUsize,
    /// Held while a group is closed, appended and placed.
    pub(super) committing: Mutex<()>,
    /// Wakes the committing thread.
    wake: Arc<commit::Wake>,
    /// There may be room in the open group.
    pub(super) closed: Notify,
    /// Let go of last, also by a close under way that nobody waits for any more.
    pub(super) lock: Option<Arc<Lock>>,
    /// Whether there are no threads: a test does their work, and nothing is given to other threads.
    pub(super) driven: bool,
    /// The state as each closed group has left it, for a test that compares it with what is recovered.
    #[cfg(feature = "simulation")]
    pub(super) images: Mutex<Vec<(u64, super::image::Image)>>,
}

/// What lies beside the state, under the engine's lock.
pub(crate) struct JournalGroup {
    pub(super) group: Group,
    pub(super) hand: Hand,
    /// Messages that are in memory although they are written, the oldest first out; some are gone.
    pub(super) cached: VecDeque<(TopicId, u64)>,
    pub(super) cached_bytes: usize,
}

impl JournalGroup {
    pub(super) fn new(group: Group, hand: Hand) -> Self {
        Self { group, hand, cached: VecDeque::new(), cached_bytes: 0 }
    }

    /// Forgets messages of the cache that are gone, when there are many.
    pub(super) fn tidy_cache(&mut self, state: &State<Place>) {
        if self.cached.len() > CACHED_STALE_MIN + 2 * (self.cached_bytes / MEMORY_BYTES_MIN) {
            self.cached.retain(|(topic, position)| {
                let entry = state.topics[topic.0 as usize].log.get(*position);
                entry.is_some_and(|entry| entry.handle.message.is_some() && entry.handle.at.is_some())
            });
        }
    }
}

/// What part of a segment may be pending on a topic to which messages are moved on in the reserve of a full disk, and be moved in one step. Four topics fill half of the
/// two segments then; the messages of more are behind each other, so that hardly all of them are full at once.
const WAVE_PART: u64 = 4;

impl JournalStore {
    pub(super) fn new(
        journal: Journal,
        options: &EmbeddedOptions,
        directory: String,
        (hand, fs): (Option<HandFiles>, Arc<dyn FileSystem>),
        wake: Arc<commit::Wake>,
        (lock, driven): (Option<Lock>, bool),
    ) -> Self {
        let last = journal.last();
        Self {
            noted: AtomicU64::new(last),
            kept: AtomicU64::new(last),
            synced: AtomicU64::new(last),
            open: AtomicU64::new(last + 1),
            journal,
            level: options.durability,
            sync_interval: options.sync_interval,
            cache_bytes_max: options.cache_bytes_max,
            loaded_max: options.index_messages_max / BLOCK_MESSAGES as usize,
            directory,
            hand: hand.map(OnceLock::from).unwrap_or_default(),
            hand_in: (fs, options.segment_bytes),
            closed_bytes: AtomicUsize::new(0),
            committing: Mutex::new(()),
            wake,
            closed: Notify::new(),
            lock: lock.map(Arc::new),
            driven,
            #[cfg(feature = "simulation")]
            images: Mutex::default(),
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) fn take_image(&self, state: &State<Place>) {
        if self.driven {
            let mut images = self.images.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            images.push((self.open.load(Ordering::Acquire), super::image::of(state)));
        }
    }

    /// Does what blocks on a thread that may, or at once if there are no threads. `None` if the runtime has ended.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self.driven {
            true => Some(work()),
            false => tokio::task::spawn_blocking(work).await.ok(),
        }
    }

    /// When a group of this level is synced.
    pub(super) fn syncing(&self, level: Option<Durability>) -> Syncing {
        syncing(level.unwrap_or(self.level), self.sync_interval)
    }

    fn hand_error(&self, error: &std::io::Error) -> BrokerError {
        let text = format!("journal `{}`: noting which messages are handed out: {error}", self.directory);
        BrokerError::new(hand::error_kind(error), text)
    }

    /// Whether there is anything in the open group.
    pub(super) fn is_open(&self) -> bool {
        self.noted.load(Ordering::Acquire) == self.open.load(Ordering::Acquire)
    }

    /// The open group is closed, with the engine locked: what comes now is in the next one. Gives the sequence of the one that is closed.
    pub(super) fn next_group(&self) -> u64 {
        self.open.fetch_add(1, Ordering::AcqRel)
    }

    pub(super) fn error(&self, error: JournalError) -> BrokerError {
        broker_error(&self.directory, error)
    }

    /// Puts a message that was written into the cache, and lets the oldest out.
    pub(super) fn cache(&self, group: &mut JournalGroup, state: &mut State<Place>, topic: TopicId, position: u64, bytes: usize) {
        group.cached.push_back((topic, position));
        group.cached_bytes += bytes;
        while group.cached_bytes > self.cache_bytes_max {
            let Some((topic, position)) = group.cached.pop_front() else {
                group.cached_bytes = 0;
                return;
            };
            let entry = state.topics[topic.0 as usize].log.get_mut(position);
            if let Some(message) = entry.filter(|entry| entry.handle.at.is_some()).and_then(|entry| entry.handle.message.take()) {
                group.cached_bytes = group.cached_bytes.saturating_sub(memory_size(&message));
            }
        }
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
    type Handle = Place;
    type Group = JournalGroup;

    fn level(&self) -> Durability {
        self.level
    }

    fn prepare(&self, spec: &mut TopicSpec) -> Result<()> {
        if self.hand.get().is_some() || spec.durability.is_none_or(|level| level == Durability::Memory) {
            return Ok(());
        }
        let (fs, bytes) = self.hand_in.clone();
        // What the files hold is of a life whose attempts nobody has counted on since.
        let files = HandFiles::open(fs, bytes, |_| hand::AllInHand::new()).map_err(|error| self.hand_error(&error))?;
        // Somebody else may have been quicker, with the same files.
        let _ = self.hand.set(files);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.journal.check().map_err(|error| self.error(error))
    }

    fn has_room(&self, group: &JournalGroup, bytes: usize, effect: Effect) -> bool {
        let open = group.group.bytes;
        let fits = open == 0 || open + bytes <= GROUP_BYTES_MAX.min(self.journal.record_bytes_max());
        let closed = self.closed_bytes.load(Ordering::Acquire);
        fits && self.journal.has_room_behind(closed, open + bytes, effect)
    }

    fn wave_bytes(&self) -> Option<u64> {
        // The segments of a journal that was there are as large as they were made, whatever the options say.
        self.journal.is_full().then(|| self.journal.record_bytes_max() as u64 / WAVE_PART)
    }

    async fn room(&self, bytes: usize, effect: Effect) -> Result<()> {
        // The open group may be in the way, or the disk. A group is closed within two syncs.
        let mut closed = std::pin::pin!(self.closed.notified());
        closed.as_mut().enable();
        self.check()?;
        if self.is_open() || self.closed_bytes.load(Ordering::Acquire) > 0 {
            tokio::select! {
                biased;
                () = closed => return Ok(()),
                full = self.journal.room(bytes, effect) => full.map_err(|error| self.error(error))?,
            }
            // There is room for this alone, but maybe not beside what waits to be written: that is soon.
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.journal.room(bytes, effect).await.map_err(|error| self.error(error))
    }

    fn note(&self, group: &mut JournalGroup, state: &State<Place>, event: &Event<Place>, bytes: usize) -> Noted {
        let level = state.level(event);
        group.group.note(state, event);
        group.group.bytes += bytes;
        group.group.level = group.group.level.max(Some(level));
        let sequence = self.open.load(Ordering::Acquire);
        if level > Durability::Memory {
            self.kept.store(sequence, Ordering::Release);
        }
        if level == Durability::Power {
            self.synced.store(sequence, Ordering::Release);
        }
        if self.noted.swap(sequence, Ordering::AcqRel) != sequence {
            self.wake.work();
        }
        Noted { sequence, level }
    }

    fn applied(&self, group: &mut JournalGroup, state: &mut State<Place>) {
        if let Some(told) = &mut state.told {
            group.group.tell(told);
        }
        if !state.freed_runs.is_empty() {
            self.journal.release_runs(state.freed_runs.drain(..).map(|run| (run.segment, run.messages, run.bytes)));
        }
        if state.freed.is_empty() {
            return;
        }
        let mut cached = 0;
        let mut unwritten = 0;
        let mut elided = 0;
        for place in &state.freed {
            let message = place.message.as_ref();
            match place.at {
                Some(_) => cached += message.map_or(0, |message| memory_size(message)),
                None => {
                    unwritten += message.map_or(0, |message| message_size(message));
                    elided += 1;
                }
            }
        }
        group.cached_bytes = group.cached_bytes.saturating_sub(cached);
        if group.group.elide(elided, unwritten) {
            self.wake.passed();
        }
        {
            let written = state.freed.drain(..).filter_map(|place| place.at);
            let mut written = written.map(|at| (at.address(), at.bytes())).peekable();
            if written.peek().is_some() {
                self.journal.release(written);
            }
        }
        group.tidy_cache(state);
    }

    async fn durable(&self, Noted { sequence, level }: Noted) -> Result<()> {
        let durable = match level {
            Durability::Power => self.journal.synced(sequence).await,
            Durability::Interval | Durability::Process => self.journal.written(sequence).await,
            Durability::Memory => return self.check(),
        };
        durable.map_err(|error| self.error(error))
    }

    async fn all_durable(&self) -> Result<()> {
        // Only what asks for a sync gets one, so nothing else may wait for one.
        let (kept, synced) = (self.kept.load(Ordering::Acquire), self.synced.load(Ordering::Acquire));
        self.durable(Noted { sequence: synced, level: Durability::Power }).await?;
        self.durable(Noted { sequence: kept, level: Durability::Process }).await
    }

    fn is_durable(&self, Noted { sequence, level }: Noted) -> bool {
        match level {
            Durability::Power => self.journal.synced_now() >= sequence,
            Durability::Interval | Durability::Process => self.journal.written_now() >= sequence,
            Durability::Memory => true,
        }
    }

    fn attempts_before(
        &self,
        group: &mut JournalGroup,
        subscription: SubscriptionId,
        position: u64,
        id: MessageId,
    ) -> Option<u32> {
        group.hand.attempts(subscription, position, id.0).filter(|_| !planted::is(Bug::LostAttemptsForgotten))
    }

    fn hand_out(
        &self,
        group: &mut JournalGroup,
        subscription: SubscriptionId,
        (position, attempt): (u64, u32),
        id: MessageId,
        stays: bool,
    ) {
        if self.hand.get().is_some() && !planted::is(Bug::AttemptNotNoted) {
            group.hand.out(subscription, position, InHand { attempt, id: (!stays).then_some(id.0) });
        }
    }

    fn hand_back(&self, group: &mut JournalGroup, subscription: SubscriptionId, start: u64, end: u64, attempt: u32) {
        if self.hand.get().is_some() {
            group.hand.back(self.open.load(Ordering::Acquire), subscription, start, end, attempt);
        }
    }

    fn forget_hand(&self, group: &mut JournalGroup, subscription: SubscriptionId) {
        if self.hand.get().is_some() {
            group.hand.forget(subscription);
        }
    }

    fn write_hand(&self, take: impl FnOnce(&mut dyn FnMut(&mut JournalGroup))) -> Result<()> {
        let Some(files) = self.hand.get() else { return Ok(()) };
        let written = self.journal.written_now();
        let notes = |notes: &mut dyn FnMut(&mut Hand)| {
            take(&mut |group: &mut JournalGroup| {
                group.hand.written(written);
                notes(&mut group.hand);
            });
        };
        files.write(notes).map_err(|error| self.hand_error(&error))
    }

    fn size(place: &Place) -> usize {
        match (&place.at, &place.message) {
            (Some(at), _) => at.bytes(),
            (None, message) => message.as_ref().map_or(0, |message| message_size(message)),
        }
    }

    async fn load(&self, handles: &[Place]) -> Vec<Result<Arc<Message>>> {
        let missing: Vec<Location> =
            handles.iter().filter(|place| place.message.is_none()).filter_map(|place| place.at).collect();
        if missing.is_empty() {
            return handles.iter().filter_map(|place| place.message.clone().map(Ok)).collect();
        }
        // What is being written now is waited for only by those who want some of it.
        if !missing.iter().all(|at| self.journal.is_written(at.address(), at.bytes()))
            && let Err(error) = self.journal.written(self.journal.last()).await
        {
            return handles.iter().map(|_| Err(self.error(error.clone()))).collect();
        }
        let (journal, directory) = (self.journal.clone(), self.directory.clone());
        let read = self.blocking(move || read_all(&journal, &directory, &missing)).await;
        let closed = || BrokerError::new(ErrorKind::Closed, "the runtime ended while messages were read back");
        let mut read = read.unwrap_or_default().into_iter();
        let found = handles.iter().map(|place| match &place.message {
            Some(message) => Ok(message.clone()),
            None => read.next().unwrap_or_else(|| Err(closed())),
        });
        found.collect()
    }

    async fn load_indexes(&self, missing: &[Missing<Place>]) -> Result<Vec<Result<Index<Place>>>> {
        let is_written = |at: Location| self.journal.is_written(at.address(), at.bytes());
        if !missing.iter().all(|missing| missing.handle.at.is_none_or(is_written)) {
            self.journal.written(self.journal.last()).await.map_err(|error| self.error(error))?;
        }
        let (journal, directory, missing) = (self.journal.clone(), self.directory.clone(), missing.to_vec());
        let read = move || missing.iter().map(|missing| read_index(&journal, &directory, missing)).collect();
        let closed = || BrokerError::new(ErrorKind::Closed, "the runtime ended while an index was read back");
        self.blocking(read).await.ok_or_else(closed)
    }

    async fn find_anew(&self, missing: &Missing<Place>, runs: Vec<Run>, reason: &BrokerError) -> Result<Vec<Indexed<Place>>> {
        let (journal, topic, number, text) = (self.journal.clone(), missing.topic, missing.number, reason.to_string());
        let find = move || duties::find_anew(&journal, topic, number, &runs, &text);
        let closed = || BrokerError::new(ErrorKind::Closed, "the runtime ended while an index was made anew");
        let found = self.blocking(find).await.ok_or_else(closed)?;
        found.map_err(|error| BrokerError::new(ErrorKind::Storage, error))
    }

    async fn close(engine: &Arc<Engine<Self>>) -> Result<()> {
        let closing = engine.clone();
        let work = move || {
            let _lock = closing.store.lock.clone();
            commit::close(&closing).map_err(|error| closing.store.error(error))
        };
        let ended = || BrokerError::new(ErrorKind::Closed, "the runtime ended while the journal was closed");
        match engine.store.blocking(work).await.ok_or_else(ended)? {
            Err(error) if error.kind() != ErrorKind::Closed => Err(error),
            _ => Ok(()),
        }
    }
}

/// What a message takes in memory beside its payload at least: itself, and 64 bytes for the counts of who holds it and its payload and for what the allocator
/// rounds up.
const MEMORY_BYTES_MIN: usize = size_of::<Message>() + 64;

/// What a message takes in memory, about.
pub(super) fn memory_size(message: &Message) -> usize {
    // What is estimated for the disk has the same parts, and less beside them.
    MEMORY_BYTES_MIN + message_size(message).saturating_sub(MESSAGE_BYTES_MIN)
}

/// Entries of the order of the cache that may belong to messages that are gone, before it is cleaned up.
const CACHED_STALE_MIN: usize = 16_384;

impl Drop for JournalStore {
    fn drop(&mut self) {
        // What fails here was acknowledged to nobody. A test that has killed its broker does not want it to be closed.
        if !self.driven {
            let _ = self.journal.close();
        }
    }
}
