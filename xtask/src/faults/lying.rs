//! File systems that lie: with them the product breaks its promises, and the oracle must say so. A harness that passes on these has no teeth.

use leatworks_journal::{File, FileSystem, RealFileSystem};
use serde::{Deserialize, Serialize};
use std::{io, path::Path, sync::Arc};

/// How a file system lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lie {
    /// It says that it has synced and does nothing, as a disk with a volatile cache does.
    NeverSyncs,
    /// It syncs, and says that all is well when that has failed.
    HidesFailures,
}

/// The real file system but for one lie.
pub(crate) struct Lying {
    inner: RealFileSystem,
    lie: Lie,
}

impl Lying {
    pub(crate) fn new(directory: &Path, lie: Lie) -> io::Result<Self> {
        Ok(Self { inner: RealFileSystem::new(directory)?, lie })
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(LyingFile { inner, lie: self.lie })
    }
}

impl Lie {
    fn sync(self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::NeverSyncs => Ok(()),
            // What went wrong is exactly what is to be hidden.
            Self::HidesFailures => Ok(_ = sync()),
        }
    }
}

impl FileSystem for Lying {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        self.inner.create(name, bytes).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.inner.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.lie.sync(|| self.inner.sync_directory())
    }
}

struct LyingFile {
    inner: Arc<dyn File>,
    lie: Lie,
}

impl File for LyingFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.lie.sync(|| self.inner.sync())
    }
}
