//! A file system in memory that loses what was not synced, tears and misplaces writes, fails syncs and reads, rots, runs full, and ends the process at any
//! call, as its seed says. The same seed and the same calls give the same disk, byte for byte.

mod disk;

use crate::{File, FileSystem};
use disk::{Content, Disk, NameChange, Sync, missing, put, unreadable};
use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Writes of one sector are whole or not there; a larger one may be cut between any two.
const SECTOR_BYTES: usize = 512;

/// Faults that a [`SimulatedFileSystem`] makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The sync after so many others fails, and all after it; nothing that they should have made durable is.
    pub failing_sync: Option<u64>,
    /// A failing sync fails once. It takes what it could not write for clean, as the kernel does: it can be read until the power is cut, later syncs have
    /// nothing to write and succeed, and then it is gone. Some of its sectors it could write.
    pub dropping_syncs: bool,
    /// Syncs do nothing and say that all is well: what a disk does that lies, and what shows that a test can fail.
    pub lying_syncs: bool,
    /// Bytes of space on the disk.
    pub space_bytes: Option<u64>,
    /// The creation after so many others finds no space, once.
    pub full_create: Option<u64>,
    /// A power cut, and a sync that fails once, tear writes at any byte, as some disks do, and not between sectors.
    pub torn_bytes: bool,
    /// The write after so many others lands at another place of some file, and not where it should.
    pub misdirected_write: Option<u64>,
    /// The process ends at the call after so many others: it and all that follow fail, until [`SimulatedFileSystem::kill`] or
    /// [`SimulatedFileSystem::cut_power`] says that it has been seen.
    pub ending_call: Option<u64>,
}

/// What was done to a disk by [`SimulatedFileSystem::rot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rot {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedFileSystem {
    disk: Arc<Mutex<Disk>>,
}

impl SimulatedFileSystem {
    /// An empty disk. The same seed and the same calls give the same disk.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: seed, faults, ..Disk::default() })) }
    }

    /// Changes the faults. What they count goes on from where it is: see [`SimulatedFileSystem::syncs`] and its like.
    pub fn set_faults(&self, faults: Faults) {
        let mut disk = self.lock();
        disk.faults = faults;
        disk.misdirected = false;
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
                    let kept = match disk.faults.torn_bytes {
                        true => disk.below(2) * disk.below(sector.len() as u64 + 1),
                        false => disk.below(2) * sector.len() as u64,
                    };
                    put(&mut content.durable, offset + index * SECTOR_BYTES, &sector[..kept as usize]);
                }
            }
            content.bytes = content.durable.clone();
        }
        disk.files = files;
        disk.end_life();
    }

    /// Ends the process without cutting the power: everything that was written is there.
    pub fn kill(&self) {
        self.lock().end_life();
    }

    /// Whether a misdirected write has landed since the faults were set.
    pub fn has_misdirected(&self) -> bool {
        self.lock().misdirected
    }

    /// Ends the process at this call: see [`Faults::ending_call`].
    pub fn end_at(&self, call: u64) {
        self.lock().faults.ending_call = Some(call);
    }

    /// Whether the process has ended by itself, as [`Faults::ending_call`] says.
    pub fn has_ended(&self) -> bool {
        let disk = self.lock();
        disk.faults.ending_call.is_some_and(|at| at <= disk.calls)
    }

    /// Flips one bit of a file, durably.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut disk = self.lock();
        let number = disk.names[name];
        let content = disk.files.get_mut(&number).expect("every name has a file");
        let flipped = content.bytes[bit / 8] ^ 1 << (bit % 8);
        content.damage(bit / 8, &[flipped]);
    }

    /// Damages up to so many bytes somewhere in the files that have this prefix, durably; `None` if none of them holds anything.
    pub fn rot(&self, prefix: &str, bytes_max: u64) -> Option<Rot> {
        let mut disk = self.lock();
        let has_bytes = |(name, number): &(&String, &u64)| name.starts_with(prefix) && !disk.files[*number].bytes.is_empty();
        let files: Vec<(String, u64)> =
            disk.names.iter().filter(has_bytes).map(|(name, number)| (name.clone(), *number)).collect();
        let (file, number) = files.get(disk.below(files.len().max(1) as u64) as usize)?.clone();
        let size = disk.files[&number].bytes.len() as u64;
        let offset = disk.below(size);
        let bytes = (1 + disk.below(bytes_max)).min(size - offset) as usize;
        let offset = offset as usize;
        let flips: Vec<u8> = (0..bytes).map(|_| 1 << disk.below(8)).collect();
        let content = disk.files.get_mut(&number).expect("every name has a file");
        let rotten: Vec<u8> = content.bytes[offset..].iter().zip(flips).map(|(byte, flip)| byte ^ flip).collect();
        content.damage(offset, &rotten);
        Some(Rot { file, offset, bytes })
    }

    /// From now on reading the sectors of these bytes of a file fails, until they are written as a whole.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn make_unreadable(&self, name: &str, range: Range<usize>) {
        let mut disk = self.lock();
        let number = disk.names[name];
        let content = disk.files.get_mut(&number).expect("every name has a file");
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        content.unreadable.extend(sectors.map(|sector| sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES));
    }

    /// Everything can be read again.
    pub fn make_readable(&self) {
        self.lock().files.values_mut().for_each(|content| content.unreadable.clear());
    }

    /// Cuts a file to so many bytes, durably: reading beyond comes up short.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&self, name: &str, bytes: usize) {
        let mut disk = self.lock();
        let number = disk.names[name];
        let content = disk.files.get_mut(&number).expect("every name has a file");
        content.bytes.truncate(bytes);
        content.durable.truncate(bytes);
        content.unsynced.retain(|(offset, written)| offset + written.len() <= bytes);
    }

    /// Removes a file, durably.
    pub fn lose(&self, name: &str) {
        let mut disk = self.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
        // Changes of names that are not durable yet might bring it back.
        disk.durable_names = disk.names.clone();
        disk.unsynced_names.clear();
    }

    /// A copy of the disk as it is now, which goes its own way.
    pub fn fork(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.lock().clone())) }
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

    /// Creations so far.
    pub fn creates(&self) -> u64 {
        self.lock().creates
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Calls so far that change something.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, number: u64, life: u64) -> Arc<dyn File> {
        Arc::new(SimulatedFile { fs: self.clone(), number, life })
    }
}

impl FileSystem for SimulatedFileSystem {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let mut disk = self.lock();
        disk.call()?;
        disk.creates += 1;
        let replaced = disk.names.get(name).map_or(0, |number| disk.files[number].bytes.len() as u64);
        let no_space = disk.faults.space_bytes.is_some_and(|space| disk.used() - replaced + bytes > space);
        if no_space || disk.faults.full_create == Some(disk.creates) {
            // Nothing is left behind, not even what was to be replaced.
            if disk.names.contains_key(name) {
                disk.change(NameChange::Take(name.to_owned()));
            }
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
        disk.call()?;
        disk.names.get(from).ok_or_else(|| missing(from))?;
        disk.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.call()?;
        disk.names.get(name).ok_or_else(|| missing(name))?;
        disk.change(NameChange::Take(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.lock();
        let sync = disk.sync()?;
        if sync == Sync::Works {
            for change in std::mem::take(&mut disk.unsynced_names) {
                change.apply(&mut disk.durable_names);
            }
        }
        // Changes of names are never forgotten: a file system whose own journal fails takes no more changes, and is as it was when it is mounted again.
        sync.failed()
    }

    /// Another in each journal, and the same with the same seed.
    fn salt(&self) -> u64 {
        self.lock().below(u64::MAX)
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
            let end = offset + buffer.len();
            if content.unreadable.iter().any(|range| range.start < end && offset < range.end) {
                return Err(unreadable());
            }
            let part = content.bytes.get(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })
    }

    fn write(&self, bytes: &[u8], place: u64) -> io::Result<()> {
        self.with(|_| Ok(()))?;
        let (number, offset) = {
            let mut disk = self.fs.lock();
            disk.call()?;
            disk.place(self.number, place as usize, bytes.len())
        };
        let misdirected = (number, offset as u64) != (self.number, place);
        let file = Self { fs: self.fs.clone(), number, life: self.life };
        file.with(|content| {
            content.make_writable(offset..offset + bytes.len())?;
            match misdirected {
                // Whoever syncs, and whenever the power is cut: it stays.
                true => content.damage(offset, bytes),
                false => {
                    put(&mut content.bytes, offset, bytes);
                    content.unsynced.push((offset, bytes.to_vec()));
                }
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let (sync, drops) = {
            let mut disk = self.fs.lock();
            let sync = disk.sync()?;
            (sync, if sync == Sync::Drops { Some((disk.below(u64::MAX), disk.faults.torn_bytes)) } else { None })
        };
        self.with(|content| {
            match sync {
                // Only what was written since: what a sync has dropped stays out.
                Sync::Works => {
                    for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                        put(&mut content.durable, offset, &bytes);
                    }
                    let size = content.bytes.len();
                    content.durable.resize(size.max(content.durable.len()), 0);
                }
                // Some of it is on the disk.
                Sync::Drops => {
                    let (mut chance, torn) = drops.unwrap_or_default();
                    for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                        for (index, part) in bytes.chunks(SECTOR_BYTES).enumerate() {
                            chance = chance.rotate_right(1);
                            let kept = match torn {
                                true => chance as usize % (part.len() + 1),
                                false => (chance as usize & 1) * part.len(),
                            };
                            put(&mut content.durable, offset + index * SECTOR_BYTES, &part[..kept]);
                        }
                    }
                }
                Sync::Lies | Sync::Fails => {}
            }
            sync.failed()
        })
    }
}
