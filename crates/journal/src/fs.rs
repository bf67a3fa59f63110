//! What the journal asks of a file system, and the real one.

use std::{
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One directory of a file system. Names are plain file names.
pub trait FileSystem: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new file, replacing one of that name, with this many bytes of zeros whose space is taken already: a later write within it cannot
    /// fail for want of space.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] if there is no space; nothing is left behind then.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading, where writing may not be allowed.
    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }

    /// A number that a new journal tells its records from all others by. It is random enough to be no number that somebody has put in a payload.
    fn salt(&self) -> u64 {
        RandomState::new().hash_one(std::process::id())
    }

    /// Renames a file, replacing one of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// One open file.
pub trait File: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from this offset on.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills a buffer that holds zeros. What was never written may be left as it is: the most of a young file of 32 MiB, which takes as long to read as all else
    /// that a start does.
    fn read_into_zeros(&self, zeros: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(zeros, offset)
    }

    /// Writes all bytes at this offset.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything that was written before durable. After a failure nobody knows what is durable, and trying again would not tell: the kernel may have
    /// dropped what it could not write.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the machine's own file system.
#[derive(Clone, Debug)]
pub struct RealFileSystem {
    directory: PathBuf,
}

impl RealFileSystem {
    /// This directory, made with its parents if it is not there. The parents' entries are synced, so that the journal cannot vanish with them.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        fs::create_dir_all(directory)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// This directory, which is there: nothing is made.
    pub fn existing(directory: &Path) -> io::Result<Self> {
        match fs::metadata(directory)?.is_dir() {
            true => Ok(Self { directory: directory.to_owned() }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl FileSystem for RealFileSystem {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        if let Err(error) = allocate(&file, bytes) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::open(self.directory.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }
}

/// Takes the space of a new file. Asking the file system for it takes no time; where it cannot, zeros are written.
fn allocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    loop {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system in memory gives up whenever a signal is pending.
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => break,
            other => return Ok(other?),
        }
    }
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut offset = 0;
    while offset < bytes {
        let length = (bytes - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..length as usize], offset)?;
        offset += length;
    }
    Ok(())
}

struct RealFile(fs::File);

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_into_zeros(&self, zeros: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + zeros.len() as u64;
        if self.size()? < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        while at < end {
            let (from, to) = match data(&self.0, at) {
                Ok(Some((from, to))) => (from.min(end), to.min(end)),
                Ok(None) => break,
                // A file system that does not know: all of it.
                Err(_) => (at, end),
            };
            self.read(&mut zeros[(from - offset) as usize..(to - offset) as usize], from)?;
            at = to;
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Where there is something written from this offset on, and where that ends.
#[cfg(target_os = "linux")]
fn data(file: &fs::File, from: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that there is no space, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_reads_as_zeros_either_way() {
        const SIZE: u64 = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let file = RealFileSystem::new(folder.path()).unwrap().create("file", SIZE).unwrap();
        // Runs of several pages, one byte, and the last bytes, with space that was never written between them.
        for (offset, length) in [(0, 64), (100_000, 30_000), (500_001, 1), (SIZE - 64, 64)] {
            file.write(&vec![7; length], offset).unwrap();
        }
        for (offset, length) in
            [(0, SIZE), (0, 1), (50_000, 60_000), (110_000, 5_000), (500_001, 1), (600_000, 4_096), (SIZE - 1, 1)]
        {
            let (mut all, mut some) = (vec![1; length as usize], vec![0; length as usize]);
            file.read(&mut all, offset).unwrap();
            file.read_into_zeros(&mut some, offset).unwrap();
            assert!(all == some, "{length} bytes from {offset}");
        }
        let error = file.read_into_zeros(&mut [0; 2], SIZE - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
