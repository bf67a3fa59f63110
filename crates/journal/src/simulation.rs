//! A file system in memory that loses what was not synced, tears writes, fails syncs, and runs full, as its seed says.

use crate::{File, FileSystem};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Writes of one sector are whole or not there; a larger one may be cut between any two.
const SECTOR_BYTES: usize = 512;

/// Faults that a [`SimulatedFileSystem`] makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The sync after so many others fails; nothing that it should have made durable is.
    pub failing_sync: Option<u64>,
    /// Syncs do nothing and say that all is well: what a disk does that lies, and what shows that a test can fail.
    pub lying_syncs: bool,
    /// Bytes of space on the disk.
    pub space_bytes: Option<u64>,
}

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedFileSystem {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    random: u64,
    faults: Faults,
    syncs: u64,
    /// File numbers by name, as the process sees them.
    names: BTreeMap<String, u64>,
    /// Changes of names that are not durable, in order.
    unsynced_names: Vec<NameChange>,
    durable_names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Counted up by a crash: files opened before it are dead.
    life: u64,
}

#[derive(Clone)]
enum NameChange {
    Put(String, u64),
    Take(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl SimulatedFileSystem {
    /// An empty disk. The same seed and the same calls give the same disk.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: seed, faults, ..Disk::default() })) }
    }

    /// Changes the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Cuts the power. Of what was not synced, each sector of each write is there or not by chance, and of the changes of names a prefix.
    pub fn cut_power(&self) {
        let mut disk = self.lock();
        let changed = disk.unsynced_names.len() as u64;
        let kept = disk.below(changed + 1) as usize;
        let changes: Vec<NameChange> = disk.unsynced_names.drain(..).take(kept).collect();
        for change in changes {
            change.apply(&mut disk.durable_names);
        }
        disk.names = disk.durable_names.clone();
        let mut files = std::mem::take(&mut disk.files);
        for content in files.values_mut() {
            for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if disk.below(2) == 0 {
                        put(&mut content.durable, offset + index * SECTOR_BYTES, sector);
                    }
                }
            }
            content.bytes = content.durable.clone();
        }
        disk.files = files;
        disk.life += 1;
    }

    /// Ends the process without cutting the power: everything that was written is there.
    pub fn kill(&self) {
        self.lock().life += 1;
    }

    /// Flips one bit of a file, durably.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut disk = self.lock();
        let number = disk.names[name];
        let content = disk.files.get_mut(&number).expect("every name has a file");
        content.bytes[bit / 8] ^= 1 << (bit % 8);
        content.durable = content.bytes.clone();
    }

    /// The bytes of a file as the process sees it.
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.lock();
        disk.names.get(name).map(|number| disk.files[number].bytes.clone())
    }

    /// The names of all files that begin so, in order.
    pub fn list_names(&self, prefix: &str) -> Vec<String> {
        self.lock().names.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, number: u64, life: u64) -> Arc<dyn File> {
        Arc::new(SimulatedFile { fs: self.clone(), number, life })
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
    if bytes.len() < offset + part.len() {
        bytes.resize(offset + part.len(), 0);
    }
    bytes[offset..offset + part.len()].copy_from_slice(part);
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file `{name}`"))
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(name, number) => _ = names.insert(name, number),
            Self::Take(name) => _ = names.remove(&name),
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(&from) {
                    names.insert(to, number);
                }
            }
        }
    }
}

impl Disk {
    /// A number below this one, by xorshift.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13 | 1;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn used(&self) -> u64 {
        let numbers: std::collections::BTreeSet<&u64> = self.names.values().collect();
        numbers.into_iter().map(|number| self.files[number].bytes.len() as u64).sum()
    }

    /// Counts a sync, and says whether it really happens.
    fn sync(&mut self) -> io::Result<bool> {
        self.syncs += 1;
        match self.faults.failing_sync {
            Some(at) if at <= self.syncs => Err(io::Error::other("the disk failed")),
            _ => Ok(!self.faults.lying_syncs),
        }
    }
}

impl FileSystem for SimulatedFileSystem {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let mut disk = self.lock();
        let replaced = disk.names.get(name).map_or(0, |number| disk.files[number].bytes.len() as u64);
        if disk.faults.space_bytes.is_some_and(|space| disk.used() - replaced + bytes > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.next_file += 1;
        let number = disk.next_file;
        disk.files.insert(number, Content { bytes: vec![0; bytes as usize], ..Content::default() });
        disk.change(NameChange::Put(name.to_owned(), number));
        let life = disk.life;
        drop(disk);
        Ok(self.file(number, life))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.lock();
        let (number, life) = (*disk.names.get(name).ok_or_else(|| missing(name))?, disk.life);
        drop(disk);
        Ok(self.file(number, life))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.names.get(from).ok_or_else(|| missing(from))?;
        disk.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.names.get(name).ok_or_else(|| missing(name))?;
        disk.change(NameChange::Take(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.sync()? {
            for change in std::mem::take(&mut disk.unsynced_names) {
                change.apply(&mut disk.durable_names);
            }
        }
        Ok(())
    }
}

struct SimulatedFile {
    fs: SimulatedFileSystem,
    number: u64,
    life: u64,
}

impl SimulatedFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.fs.lock();
        if disk.life != self.life {
            return Err(io::Error::other("the process has ended"));
        }
        disk.files.get_mut(&self.number).map_or_else(|| Err(missing("removed")), work)
    }
}

impl File for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.bytes.len() as u64))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|content| {
            let offset = offset as usize;
            let part = content.bytes.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|content| {
            put(&mut content.bytes, offset as usize, bytes);
            content.unsynced.push((offset as usize, bytes.to_vec()));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        if !self.fs.lock().sync()? {
            return Ok(());
        }
        self.with(|content| {
            content.durable = content.bytes.clone();
            content.unsynced.clear();
            Ok(())
        })
    }
}
