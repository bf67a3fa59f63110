//! The disk behind the simulated file system: what is written, what is durable, and what comes of a call.

use super::{Faults, SECTOR_BYTES};
use std::{collections::BTreeMap, io, ops::Range};

#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) random: u64,
    pub(super) faults: Faults,
    pub(super) syncs: u64,
    pub(super) creates: u64,
    pub(super) writes: u64,
    pub(super) calls: u64,
    pub(super) misdirected: bool,
    /// File numbers by name, as the process sees them.
    pub(super) names: BTreeMap<String, u64>,
    /// Changes of names that are not durable, in order.
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) next_file: u64,
    /// Counted up by a crash: files opened before it are dead.
    pub(super) life: u64,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Put(String, u64),
    Take(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    pub(super) unsynced: Vec<(usize, Vec<u8>)>,
    /// What cannot be read.
    pub(super) unreadable: Vec<Range<usize>>,
}

impl Content {
    /// A write that covers a sector which cannot be read makes the disk put it somewhere else. One that covers a part of it must read the rest first.
    pub(super) fn make_writable(&mut self, written: Range<usize>) -> io::Result<()> {
        let sectors = written.start.next_multiple_of(SECTOR_BYTES)..written.end / SECTOR_BYTES * SECTOR_BYTES;
        let touched = |range: &&Range<usize>| range.start < written.end && written.start < range.end;
        if self.unreadable.iter().filter(touched).any(|range| range.start < sectors.start || sectors.end < range.end) {
            return Err(unreadable());
        }
        self.unreadable.retain(|range| range.start < sectors.start || sectors.end < range.end);
        Ok(())
    }
}

impl Content {
    /// These bytes stand there from now on, in memory and on the disk: what was to be written there by the next sync is not.
    pub(super) fn damage(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.bytes, offset, bytes);
        put(&mut self.durable, offset, bytes);
        let end = offset + bytes.len();
        let outside = |(start, written): (usize, Vec<u8>)| {
            let until = |place: usize| place.saturating_sub(start).min(written.len());
            [(start, written[..until(offset)].to_vec()), (start.max(end), written[until(end)..].to_vec())]
        };
        self.unsynced =
            std::mem::take(&mut self.unsynced).into_iter().flat_map(outside).filter(|(_, part)| !part.is_empty()).collect();
    }
}

pub(super) fn unreadable() -> io::Error {
    io::Error::other("the disk cannot read this")
}

pub(super) fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
    if bytes.len() < offset + part.len() {
        bytes.resize(offset + part.len(), 0);
    }
    bytes[offset..offset + part.len()].copy_from_slice(part);
}

pub(super) fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file `{name}`"))
}

impl NameChange {
    pub(super) fn apply(self, names: &mut BTreeMap<String, u64>) {
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
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13 | 1;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn used(&self) -> u64 {
        let numbers: std::collections::BTreeSet<&u64> = self.names.values().collect();
        numbers.into_iter().map(|number| self.files[number].bytes.len() as u64).sum()
    }

    /// Files that were open are dead.
    pub(super) fn end_life(&mut self) {
        self.life += 1;
        self.faults.ending_call = None;
    }

    /// Counts a call that changes something, and fails it if the process has ended.
    pub(super) fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.faults.ending_call {
            Some(at) if at <= self.calls => Err(io::Error::other("the process has ended")),
            _ => Ok(()),
        }
    }

    /// Counts a sync, and says what comes of it.
    pub(super) fn sync(&mut self) -> io::Result<Sync> {
        self.call()?;
        self.syncs += 1;
        Ok(match self.faults.failing_sync {
            Some(at) if at == self.syncs && self.faults.dropping_syncs => Sync::Drops,
            Some(at) if at <= self.syncs && !self.faults.dropping_syncs => Sync::Fails,
            _ if self.faults.lying_syncs => Sync::Lies,
            _ => Sync::Works,
        })
    }

    /// Where a write goes: file and offset.
    pub(super) fn place(&mut self, number: u64, offset: usize, bytes: usize) -> (u64, usize) {
        self.writes += 1;
        if self.faults.misdirected_write.is_none_or(|at| at != self.writes) {
            return (number, offset);
        }
        self.misdirected = true;
        let names: Vec<u64> = self.names.values().copied().collect();
        let number = names[self.below(names.len() as u64) as usize];
        let size = self.files[&number].bytes.len();
        // Disks misplace by whole sectors, and never make a file longer.
        let last = size.saturating_sub(bytes);
        let sector = self.below((last / SECTOR_BYTES) as u64 + 1) as usize;
        (number, (sector * SECTOR_BYTES + offset % SECTOR_BYTES).min(last))
    }
}

/// What comes of a sync.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Works,
    /// Nothing, and it says that all is well.
    Lies,
    Fails,
    /// It fails, and what it should have written is forgotten.
    Drops,
}

impl Sync {
    pub(super) fn failed(self) -> io::Result<()> {
        match self {
            Self::Works | Self::Lies => Ok(()),
            Self::Fails | Self::Drops => Err(io::Error::other("the disk failed")),
        }
    }
}
