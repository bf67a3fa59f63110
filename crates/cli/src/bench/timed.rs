//! The machine's file system with a clock at each sync, so that a benchmark tells how long the journal's disk was busy.

use leatworks_broker::{File, FileSystem, RealFileSystem};
use serde::Serialize;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Counts what a journal asks of the disk.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    syncs: AtomicU64,
    nanos: AtomicU64,
    bytes: AtomicU64,
}

/// What was asked of the disk between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct DiskUse {
    /// Syncs of files.
    pub(crate) syncs: u64,
    /// Seconds that they took, one behind the other or side by side.
    pub(crate) sync_s: f64,
    /// Bytes written, which is what the syncs had to carry.
    pub(crate) bytes: u64,
}

impl Clock {
    /// What was asked so far.
    pub(crate) fn read(&self) -> DiskUse {
        DiskUse {
            syncs: self.syncs.load(Relaxed),
            sync_s: self.nanos.load(Relaxed) as f64 / 1e9,
            bytes: self.bytes.load(Relaxed),
        }
    }
}

impl DiskUse {
    /// What was asked since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { syncs: self.syncs - before.syncs, sync_s: self.sync_s - before.sync_s, bytes: self.bytes - before.bytes }
    }
}

/// A directory whose syncs are timed.
pub(crate) struct TimedFileSystem {
    real: RealFileSystem,
    clock: Arc<Clock>,
}

impl TimedFileSystem {
    /// This directory, made if it is not there.
    pub(crate) fn new(directory: &Path, clock: Arc<Clock>) -> io::Result<Self> {
        Ok(Self { real: RealFileSystem::new(directory)?, clock })
    }

    fn timed(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(TimedFile { file, clock: self.clock.clone() })
    }
}

impl FileSystem for TimedFileSystem {
    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        self.real.create(name, bytes).map(|file| self.timed(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.real.open(name).map(|file| self.timed(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.real.sync_directory()
    }
}

struct TimedFile {
    file: Arc<dyn File>,
    clock: Arc<Clock>,
}

impl File for TimedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read(buffer, offset)
    }

    fn read_into_zeros(&self, zeros: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_into_zeros(zeros, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.clock.bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.file.write(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let start = Instant::now();
        let result = self.file.sync();
        self.clock.nanos.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        self.clock.syncs.fetch_add(1, Relaxed);
        result
    }
}
