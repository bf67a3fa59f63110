//! Notes that are on their way to a ledger, in a file on this machine.
//!
//! The file is written before the messages are handed out, and never synced: it survives the end of the process, also together with the service's. Whoever opens the
//! same ledger next sends what it finds once more; a record that had arrived is passed over by its writer and number.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Bytes of one file. What is on its way at once is some kilobytes; with more, notes are waited for.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How the names of whole files end, and of those that have no beginning yet.
const WHOLE: &str = "notes";
/// See [`WHOLE`].
const NEW: &str = "new";

/// The length and the checksum before each record.
const HEADER_BYTES: usize = 8;

/// The notes of one process for one ledger. It is locked as long as its process lives.
#[derive(Debug)]
pub(crate) struct Notes {
    file: File,
    path: PathBuf,
    /// Where the records begin, and where the next one goes.
    first: u64,
    end: u64,
    frame: Vec<u8>,
}

impl Notes {
    /// A new file in a directory, which is made if it is not there. `of` says which ledger it belongs to, on which service.
    pub(crate) fn create(directory: &Path, of: &str, writer: u64) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{writer:016x}.{WHOLE}"));
        let new = path.with_extension(NEW);
        let file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        // Locked and begun before others can find it.
        file.try_lock()?;
        let mut notes = Self { file, path, first: 0, end: 0, frame: Vec::new() };
        notes.write(of.as_bytes())?;
        notes.first = notes.end;
        std::fs::rename(new, &notes.path)?;
        Ok(notes)
    }

    /// Keeps a record until [`Notes::arrived`]. `false` if there is no room for it.
    pub(crate) fn keep(&mut self, record: &[u8]) -> io::Result<bool> {
        if self.end + (HEADER_BYTES + record.len()) as u64 > FILE_BYTES_MAX {
            return Ok(false);
        }
        self.write(record)?;
        Ok(true)
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.frame.clear();
        self.frame.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.frame.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        self.frame.extend_from_slice(record);
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&self.frame)?;
        self.end += self.frame.len() as u64;
        Ok(())
    }

    /// Everything that was kept is in the ledger: the next record takes its place, and none is found until then.
    pub(crate) fn arrived(&mut self) -> io::Result<()> {
        self.end = self.first;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&[0; HEADER_BYTES])
    }

    /// The file is of no more use.
    pub(crate) fn remove(self) {
        // One that stays is found by whoever opens the ledger next.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a process has left that has ended.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    /// Locked, so that nobody else sends it meanwhile.
    _file: File,
    pub(crate) records: Vec<Vec<u8>>,
}

impl Left {
    /// All of it is in the ledger. A file that stays is sent once more by the next one, and passed over.
    pub(crate) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "notes of attempts that have been sent stay");
        }
    }
}

/// What others have left for a ledger and are not there to send any more. What cannot be read is told in the log: attempts that it tells of are not counted.
pub(crate) fn left(directory: &Path, of: &str) -> Vec<Left> {
    let told = |path: &Path, error: io::Error| {
        // Nothing was ever kept, or somebody else has just sent it.
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "notes of attempts cannot be read");
        }
    };
    let files = std::fs::read_dir(directory).map_err(|error| told(directory, error));
    let paths = files.into_iter().flatten().filter_map(|found| Some(found.ok()?.path()));
    let whole = paths.filter(|path| path.extension().is_some_and(|extension| extension == WHOLE));
    whole.filter_map(|path| take(&path, of).map_err(|error| told(&path, error)).ok().flatten()).collect()
}

/// A file, if it belongs to the ledger and nobody has it.
fn take(path: &Path, of: &str) -> io::Result<Option<Left>> {
    let mut file = File::open(path)?;
    if next(&mut file).is_none_or(|name| name != of.as_bytes()) {
        return Ok(None);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let records = std::iter::from_fn(|| next(&mut file)).collect();
    Ok(Some(Left { path: path.to_owned(), _file: file, records }))
}

/// The next record of a file, unless it ends there or what follows is no whole one.
fn next(file: &mut File) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut record = Vec::new();
    file.take(word(0).into()).read_to_end(&mut record).ok()?;
    (!record.is_empty() && record.len() == word(0) as usize && crc32c::crc32c(&record) == word(4)).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_when_its_process_has_ended_and_by_one_alone() {
        let directory = tempfile::tempdir().unwrap();
        let directory = &directory.path().join("attempts");
        assert!(left(directory, "a").is_empty(), "nothing was ever kept");
        assert!(left(Path::new("/dev/null"), "a").is_empty(), "nothing can be kept");
        let mut notes = Notes::create(directory, "a", 1).unwrap();
        let mut others = Notes::create(directory, "b", 2).unwrap();
        assert!(notes.keep(b"first").unwrap() && notes.keep(b"second").unwrap() && others.keep(b"other").unwrap());
        assert!(left(directory, "a").is_empty(), "its process lives");
        drop((notes, others));
        let mut found = left(directory, "a");
        assert!(left(directory, "a").is_empty(), "somebody else has found it already");
        let found = found.pop().unwrap();
        assert_eq!(found.records, [b"first".to_vec(), b"second".to_vec()]);
        found.remove();
        assert!(left(directory, "a").is_empty());
        assert_eq!(left(directory, "b")[0].records, [b"other".to_vec()]);
    }

    #[test]
    fn what_has_arrived_gives_its_place_to_what_comes() {
        let directory = tempfile::tempdir().unwrap();
        let mut notes = Notes::create(directory.path(), "a", 1).unwrap();
        let room = std::iter::repeat_with(|| notes.keep(&[7; 4 << 10]).unwrap()).take_while(|kept| *kept).count();
        assert!((250..256).contains(&room), "{room} records of 4 KiB");
        notes.arrived().unwrap();
        assert!(notes.keep(b"next").unwrap());
        drop(notes);
        assert_eq!(left(directory.path(), "a")[0].records, [b"next".to_vec()], "the rest does not begin with a record");
    }

    #[test]
    fn a_file_that_was_cut_or_changed_gives_what_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut notes = Notes::create(directory.path(), "a", 1).unwrap();
        assert!(notes.keep(b"first").unwrap() && notes.keep(b"second").unwrap());
        let path = notes.path.clone();
        drop(notes);
        let whole = std::fs::read(&path).unwrap();
        let first = whole.len() - HEADER_BYTES - b"second".len();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let found: Vec<_> = left(directory.path(), "a").into_iter().flat_map(|left| left.records.clone()).collect();
            assert_eq!(found.len(), usize::from(length >= first), "{length} of {} bytes", whole.len());
        }
        // As after a record that has arrived.
        std::fs::write(&path, [&whole[..first], &[0; HEADER_BYTES]].concat()).unwrap();
        assert_eq!(left(directory.path(), "a")[0].records, [b"first".to_vec()]);
        for at in first..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(left(directory.path(), "a")[0].records, [b"first".to_vec()], "byte {at}");
        }
    }
}
