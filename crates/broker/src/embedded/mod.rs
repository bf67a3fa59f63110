//! The broker on this machine's disk: one journal, nothing else to install.

mod cache;
mod duties;
mod record;
mod snapshot;
mod store;

use crate::{
    BrokerError, ErrorKind, Result,
    engine::{Clock, Engine, Limits},
    state::State,
};
use leatworks_journal::{FileSystem, Journal, Options, RealFileSystem, Record, Recovered, Syncing, Visitor};
use record::Location;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{JournalStore, broker_error};

/// The exit code of a process whose journal has failed: nothing it might still do would be safe. It is `EX_IOERR` of `sysexits.h`.
pub const STORAGE_EXIT_CODE: u8 = 74;

/// The name of the file that the owner of a journal has locked; it holds the owner's process id.
const LOCK_FILE: &str = "lock";

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power: it is synced before it is acknowledged.
    #[default]
    Power,
    /// The end of the process at any time, and the loss of power but for the last [`EmbeddedOptions::sync_interval`].
    Interval,
    /// The end of the process at any time (`kill -9`). The loss of power may cost whatever the operating system had not written by itself.
    Process,
    /// Nothing but a proper end. The backlog is on disk all the same, so that it does not fill the memory.
    Memory,
}

impl Durability {
    /// Its name: `power`, `interval`, `process` or `memory`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Interval => "interval",
            Self::Process => "process",
            Self::Memory => "memory",
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = BrokerError;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::Power, Self::Interval, Self::Process, Self::Memory];
        let found = all.into_iter().find(|level| level.name() == name);
        let unknown = || format!("durability `{name}` is none of `power`, `interval`, `process`, `memory`");
        found.ok_or_else(|| BrokerError::new(ErrorKind::Invalid, unknown()))
    }
}

/// Where and how an [`Embedded`] broker keeps its journal.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The journal's directory, made if it is not there.
    pub dir: PathBuf,
    /// What an acknowledged write survives.
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
}

impl EmbeddedOptions {
    /// The defaults for this directory: `power`, segments of 32 MiB, 64 MiB of cache.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let journal = Options::default();
        Self {
            dir: dir.into(),
            durability: Durability::default(),
            sync_interval: Duration::from_millis(100),
            limits: Limits::default(),
            segment_bytes: journal.segment_bytes,
            checkpoint_bytes: journal.checkpoint_bytes,
            cache_bytes_max: 64 << 20,
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
        let directory = options.dir.display().to_string();
        let journal_options = Options {
            segment_bytes: options.segment_bytes,
            checkpoint_bytes: options.checkpoint_bytes,
            syncing: match options.durability {
                Durability::Power => Syncing::Always,
                Durability::Interval => Syncing::Every(options.sync_interval),
                Durability::Process | Durability::Memory => Syncing::Rarely,
            },
            threads: true,
        };
        let mut replay = Replay(State::default());
        let opened = Journal::open(fs, journal_options, &mut replay);
        let (journal, recovered) = opened.map_err(|error| broker_error(&directory, error))?;
        let state = replay.0;
        for topic in &state.topics {
            journal.hold(topic.log.held(0).map(|(_, entry)| (entry.handle.address(), entry.handle.bytes())));
        }
        let store = JournalStore::new(journal.clone(), options.durability, options.cache_bytes_max, directory, lock);
        let engine = Engine::new(store, state, Clock::new(), options.limits);
        let weak = Arc::downgrade(&engine);
        let thread = std::thread::Builder::new().name("journal-duties".to_owned());
        let spawned = thread.spawn({
            let journal = journal.clone();
            move || duties::run(&weak, &journal)
        });
        let spawned = spawned.map_err(|error| BrokerError::new(ErrorKind::Storage, format!("starting a thread: {error}")))?;
        Ok(Self { _duties: Arc::new(Duties { journal, thread: Some(spawned) }), engine, recovered })
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

/// The thread that does the duties; it ends with the last handle of the broker.
struct Duties {
    journal: Journal,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Duties {
    fn drop(&mut self) {
        self.journal.end_duties();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Applies what recovery finds.
struct Replay(State<Location>);

impl Visitor for Replay {
    fn snapshot(&mut self, snapshot: &[u8]) -> std::result::Result<(), String> {
        self.0 = snapshot::decode(snapshot)?;
        Ok(())
    }

    fn record(&mut self, record: Record) -> std::result::Result<(), String> {
        self.0.apply(record::decode(&record.body, record.address)?);
        self.0.freed.clear();
        self.0.finished.clear();
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
