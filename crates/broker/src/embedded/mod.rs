//! The broker on this machine's disk: one journal, nothing else to install.

mod anew;
mod block;
mod commit;
#[cfg(test)]
mod damaged_index;
#[cfg(feature = "simulation")]
mod driven;
mod duties;
mod group;
mod hand;
#[cfg(any(test, feature = "simulation"))]
mod image;
mod index;
mod place;
mod read_back;
mod record;
#[cfg(test)]
mod replayed;
#[cfg(test)]
mod side_by_side;
mod snapshot;
mod spill;
#[cfg(test)]
mod spilling;
mod store;
mod topic;

#[cfg(feature = "simulation")]
pub use driven::{Driven, Replayed, Work};

use crate::{
    BrokerError, Durability, ErrorKind, Result,
    engine::{Clock, Engine, Limits},
    state::{Looked, Missing, State},
};
use group::{Group, Part};
use hand::{AllInHand, Hand, HandFiles};
use leatworks_journal::{
    self as journal, FileSystem, Journal, Lost, Options, Reader, RealFileSystem, Record, Recovered, Syncing, Visitor,
};
use place::Place;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{JournalGroup, JournalStore, broker_error};

/// The exit code of a process whose journal has failed: nothing it might still do would be safe. It is `EX_IOERR` of `sysexits.h`.
pub const STORAGE_EXIT_CODE: u8 = 74;

/// The name of the file that the owner of a journal has locked; it holds the owner's process id.
const LOCK_FILE: &str = "lock";

/// Where and how an [`Embedded`] broker keeps its journal.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The journal's directory, made if it is not there.
    pub dir: PathBuf,
    /// What an acknowledged write survives, where a topic says nothing else.
    pub durability: Durability,
    /// How often [`Durability::Interval`] syncs.
    pub sync_interval: Duration,
    /// What the broker takes at most.
    pub limits: Limits,
    /// Bytes of a segment of a new journal, which is also the limit of one step; an existing journal keeps its own.
    pub segment_bytes: u64,
    /// Bytes written after which a checkpoint is taken: what has to be replayed at the start at most, about 0.3 s for each 64 MiB.
    pub checkpoint_bytes: u64,
    /// Bytes of memory for messages that were published and not yet delivered; what is over it is read back from disk.
    pub cache_bytes_max: usize,
    /// Messages of which the broker knows in memory where they are, at most; where the others are is on disk too. Each takes about 85 bytes. What is about to be
    /// read stays in memory, so each subscription adds some 16,000 to it.
    pub index_messages_max: usize,
    /// Whether a message that is published and settled everywhere before its group is written is left out of it.
    pub elision: bool,
}

impl EmbeddedOptions {
    /// The defaults for this directory: `power`, segments of 32 MiB, 32 MiB of cache.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let journal = Options::default();
        Self {
            dir: dir.into(),
            durability: Durability::default(),
            sync_interval: Duration::from_millis(100),
            limits: Limits::default(),
            segment_bytes: journal.segment_bytes,
            checkpoint_bytes: journal.checkpoint_bytes,
            cache_bytes_max: 32 << 20,
            index_messages_max: 128 << 10,
            elision: true,
        }
    }
}

/// The embedded broker. Clones are the same one; it ends when it is closed, or when the last clone and the last consumer are gone.
///
/// One process owns a journal. A step is one record of it, so after any crash a step has happened or has not.
#[derive(Clone)]
pub struct Embedded {
    /// Before the engine, so that nobody else holds it when it goes.
    _duties: Arc<Duties>,
    engine: Arc<Engine<JournalStore>>,
    recovered: Recovered,
}

impl Embedded {
    /// Opens the broker on this directory. Blocks while it reads what is there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another process owns the journal, with its process id; [`ErrorKind::Storage`] if the disk fails or the journal is
    /// damaged; [`ErrorKind::Full`] if there is no space for a new journal.
    pub fn open(options: EmbeddedOptions) -> Result<Self> {
        let failed = |error: std::io::Error| {
            BrokerError::new(ErrorKind::Storage, format!("opening journal `{}`: {error}", options.dir.display()))
        };
        let fs = RealFileSystem::new(&options.dir).map_err(failed)?;
        let lock = Lock::take(&options.dir)?;
        Self::start(Arc::new(fs), options, Some(lock))
    }

    /// Opens the broker on a file system of the caller, such as a simulated one with faults. `options.dir` is only a name then, and nothing is locked.
    ///
    /// # Errors
    /// Those of [`Embedded::open`] but for the conflict.
    pub fn open_on(fs: Arc<dyn FileSystem>, options: EmbeddedOptions) -> Result<Self> {
        Self::start(fs, options, None)
    }

    fn start(fs: Arc<dyn FileSystem>, options: EmbeddedOptions, lock: Option<Lock>) -> Result<Self> {
        let Opened { engine, journal, wake, recovered, .. } = Opened::new(fs, options, lock, None)?;
        let duties = Duties::start(&engine, journal, wake)?;
        Ok(Self { _duties: Arc::new(duties), engine, recovered })
    }

    /// What opening has found and replayed.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Resolves when the storage has failed: no call succeeds any more, and the process should end with [`STORAGE_EXIT_CODE`]. Until then, and after a
    /// proper end, it is pending.
    pub fn failed(&self) -> impl Future<Output = BrokerError> + Send + 'static {
        let failed = self.engine.store.journal.failed();
        async move { BrokerError::new(ErrorKind::Storage, format!("the journal has failed: {}", failed.await)) }
    }

    /// Makes a checkpoint now, so that the next start has nothing to replay. It is made from time to time anyway.
    pub async fn checkpoint(&self) -> Result<()> {
        let engine = self.engine.clone();
        let done = tokio::task::spawn_blocking(move || {
            let journal = engine.store.journal.clone();
            duties::checkpoint(&engine, &journal).map_err(|error| engine.store.error(error))
        });
        done.await.unwrap_or_else(|_| Err(BrokerError::new(ErrorKind::Closed, "the runtime has ended")))
    }

    /// What the journal takes on disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        let usage = self.engine.store.journal.usage();
        (usage.segments + usage.spares) as u64 * usage.segment_bytes
    }
}

crate::engine::broker_by_engine!(Embedded);

/// A broker whose threads are not running yet.
struct Opened {
    engine: Arc<Engine<JournalStore>>,
    journal: Journal,
    wake: Arc<commit::Wake>,
    recovered: Recovered,
    /// The state as it was found.
    #[cfg(feature = "simulation")]
    image: image::Image,
}

impl Opened {
    /// Reads what is there. With a time there are no threads, and the clock says that it is this time.
    fn new(fs: Arc<dyn FileSystem>, options: EmbeddedOptions, lock: Option<Lock>, driven_ms: Option<u64>) -> Result<Self> {
        let directory = options.dir.display().to_string();
        let journal_options = journal_options(&options, driven_ms.is_some());
        let mut replay = Replay { state: State::default(), reader: None };
        let opened = Journal::open(fs.clone(), journal_options, &mut replay);
        let (journal, recovered) = opened.map_err(|error| broker_error(&directory, error))?;
        let mut state = replay.state;
        #[cfg(feature = "simulation")]
        let image = image::of(&state);
        state.told = Some(Vec::new());
        state.set_usual(options.durability);
        for topic in &state.topics {
            let held = topic.log.held(0).filter_map(|(_, entry)| entry.handle.at);
            journal.hold(held.map(|at| (at.address(), at.bytes())));
            for (_, block) in topic.log.all_spilled() {
                journal.hold(block.handle.at.iter().map(|at| (at.address(), at.bytes())));
                journal.hold_runs(block.runs.iter().map(|run| (run.segment, run.messages, run.bytes)));
            }
        }
        let (files, before) = hand_files(fs.clone(), &options, &state)?;
        let wake = Arc::new(commit::Wake::default());
        let ends = (lock, driven_ms.is_some());
        let store = JournalStore::new(journal.clone(), &options, directory, (files, fs), wake.clone(), ends);
        let group = JournalGroup::new(Group::new(&state, options.elision), Hand::new(&before));
        let clock = driven_ms.map_or_else(Clock::new, Clock::starting_at);
        state.shorten_delays(clock.now_ms());
        let engine = Engine::new(store, state, group, clock, options.limits);
        Ok(Self {
            engine,
            journal,
            wake,
            recovered,
            #[cfg(feature = "simulation")]
            image,
        })
    }
}

fn journal_options(options: &EmbeddedOptions, driven: bool) -> Options {
    Options {
        segment_bytes: options.segment_bytes,
        checkpoint_bytes: options.checkpoint_bytes,
        syncing: syncing(options.durability, options.sync_interval),
        work: if driven { journal::Work::Driven } else { journal::Work::Owner },
    }
}

/// When what asks for this level is synced.
fn syncing(level: Durability, interval: Duration) -> Syncing {
    match level {
        Durability::Power => Syncing::Always,
        Durability::Interval => Syncing::Every(interval),
        Durability::Process | Durability::Memory => Syncing::Rarely,
    }
}

/// What the process before had in hand, and the files for what this one will have.
fn hand_files(
    fs: Arc<dyn FileSystem>,
    options: &EmbeddedOptions,
    state: &State<Place>,
) -> Result<(Option<HandFiles>, AllInHand)> {
    let mut before = AllInHand::new();
    let levels = state.topics.iter().filter_map(|topic| topic.spec.durability);
    if levels.fold(options.durability, Durability::max) == Durability::Memory {
        return Ok((None, before));
    }
    let opened = HandFiles::open(fs, options.segment_bytes, |all| {
        before = hand::sort(state, &all);
        before.clone()
    });
    let directory = options.dir.display();
    let failed = |error: std::io::Error| {
        BrokerError::new(hand::error_kind(&error), format!("journal `{directory}`: what was in hand: {error}"))
    };
    Ok((Some(opened.map_err(failed)?), before))
}

/// The threads that commit and do the duties; they end with the last handle of the broker.
struct Duties {
    journal: Journal,
    wake: Arc<commit::Wake>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Duties {
    fn start(engine: &Arc<Engine<JournalStore>>, journal: Journal, wake: Arc<commit::Wake>) -> Result<Self> {
        let mut duties = Self { journal: journal.clone(), wake: wake.clone(), threads: Vec::new() };
        let (one, two) = (Arc::downgrade(engine), Arc::downgrade(engine));
        duties.spawn("journal-commit", move || commit::run(&one, &wake))?;
        duties.spawn("journal-duties", move || duties::run(&two, &journal))?;
        Ok(duties)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let failed = |error| BrokerError::new(ErrorKind::Storage, format!("starting a thread: {error}"));
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failed)?);
        Ok(())
    }
}

impl Drop for Duties {
    fn drop(&mut self) {
        self.wake.end();
        self.journal.end_duties();
        for thread in self.threads.drain(..) {
            // A panic in it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Applies what recovery finds.
struct Replay {
    state: State<Place>,
    reader: Option<Reader>,
}

impl Replay {
    fn reader(&self) -> std::result::Result<Reader, String> {
        self.reader.clone().ok_or_else(|| "nothing can be read back yet".to_owned())
    }

    fn load(&mut self, missing: Vec<Missing<Place>>, looked: &mut Looked) -> std::result::Result<(), String> {
        let reader = self.reader()?;
        for missing in missing {
            let index = match index::replay(&reader, missing.topic, missing.number, &missing.handle) {
                Ok(index) => index,
                Err(reason) => {
                    let runs = self.state.runs_of(&missing).unwrap_or_default();
                    let found = index::find_anew(&reader, missing.topic, missing.number, &runs, &reason)?;
                    self.state.missing_anew(&missing, found).ok_or(reason)?
                }
            };
            if missing.is_wanted(&index, looked) {
                self.state.load(&missing, index);
            }
        }
        Ok(())
    }

    fn part(&mut self, part: Part<Place>) -> std::result::Result<(), String> {
        match part {
            Part::Structure(event, number) => {
                let missing = self.state.missing_for(&event);
                self.load(missing, &mut Looked::default())?;
                self.state.replay_structure(event, number);
            }
            Part::Net(net) => {
                let mut looked = Looked::default();
                loop {
                    let missing = self.state.missing_for_net(&net, &looked);
                    if missing.is_empty() {
                        break;
                    }
                    self.load(missing, &mut looked)?;
                }
                self.state.replay(net);
            }
            Part::Index { topic, number, index, at } => {
                let reader = self.reader()?;
                let runs = index::runs(&index, |address| reader.segment_of(address));
                if let Some(at) = at {
                    self.state.replay_spill(topic, number, &index, at, runs);
                }
            }
        }
        self.state.freed.clear();
        self.state.freed_runs.clear();
        self.state.finished.clear();
        Ok(())
    }
}

impl Visitor for Replay {
    fn begin(&mut self, reader: Reader) {
        self.reader = Some(reader);
    }

    fn snapshot(&mut self, snapshot: &[u8]) -> std::result::Result<(), String> {
        let reader = self.reader()?;
        self.state = snapshot::decode(snapshot, &reader)?;
        Ok(())
    }

    fn record(&mut self, record: Record) -> std::result::Result<(), String> {
        for part in record::decode(&record.body, record.address, true)? {
            self.part(part)?;
        }
        Ok(())
    }

    /// What is damaged is lost and told; nothing else is. A group whose head is whole has only lost the messages that were hit, which is told when they are to be
    /// delivered. What a lost group had settled comes again.
    fn lost(&mut self, lost: Lost) -> std::result::Result<(), String> {
        let saved = lost.record.as_ref().and_then(|record| record::decode(&record.body, record.address, false).ok());
        tracing::error!(file = lost.file, offset = lost.offset, saved = saved.is_some(), "the journal is damaged: {lost}");
        for part in saved.into_iter().flatten() {
            self.part(part)?;
        }
        Ok(())
    }
}

/// The lock of a journal's directory, held as long as this exists.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let failed =
            |error: std::io::Error| BrokerError::new(ErrorKind::Storage, format!("locking `{}`: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                // Whoever owns it may be just about to write its id.
                let _ = file.read_to_string(&mut owner);
                let owner = if owner.trim().is_empty() { "another process" } else { &format!("process {}", owner.trim()) };
                let text = format!("journal `{}` is in use by {owner}: end it, or use another directory", dir.display());
                return Err(BrokerError::new(ErrorKind::Conflict, text));
            }
            Err(error) => return Err(failed(error.into())),
        }
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        Ok(Self { _file: file })
    }
}
