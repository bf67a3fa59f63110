//! Where project files come from: a folder on disk, or texts held in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// The largest file that is read, in bytes. A topology of 1,000 tasks with a table each takes about 150 KiB; the limit keeps a
/// mistaken path, such as a log file, from filling the memory.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The files of a project.
pub trait Sources {
    /// Reads a file whole.
    ///
    /// `relative` is relative to the project's root, has `/` between folders and never leaves the root.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `FileTooLarge` above [`FILE_BYTES_MAX`], `InvalidData` when it is not UTF-8, and whatever
    /// else keeps the file from being read.
    fn read(&self, relative: &str) -> io::Result<String>;
}

/// The files below a folder on disk.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Sources for Folder {
    fn read(&self, relative: &str) -> io::Result<String> {
        let path = self.0.join(relative);
        // Asked before the file is opened, because opening a named pipe waits for a writer.
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    }
}

impl Sources for BTreeMap<String, String> {
    fn read(&self, relative: &str) -> io::Result<String> {
        self.get(relative).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Pairs of a path and a text, for tests and examples.
impl<const N: usize> Sources for [(&str, &str); N] {
    fn read(&self, relative: &str) -> io::Result<String> {
        let found = self.iter().find(|(path, _)| *path == relative);
        found.map(|(_, text)| text.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
