//! The oracle's own logs. They lie outside of the disk that fails, and a kill cannot tear them: all lines have one length that divides a page, so
//! each is one write into one page.

use anyhow::{Context, Result};
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes of a line. The longest one has two numbers of twenty digits beside an id of 32; 128 divides a page of 4,096.
pub(crate) const LINE_BYTES: usize = 128;

/// What the source has begun to publish: `i <from> <count> <ms>`.
pub(crate) const INVOKED: &str = "invoked";

/// What the broker has acknowledged: `a <from> <count> <ms>`, `o <last sequence>` whenever the broker was opened,
/// and `x <ms>` when the power was cut.
pub(crate) const ACKED: &str = "acked";

/// What the broker has refused: `f <from> <kind> <ms it took>`.
pub(crate) const REFUSED: &str = "refused";

/// What the sink has seen: `s <sequence> <way> <id> <attempt> <ms>`; `c <sequence>` for a payload that is not what was sent; `o <last sequence>` and `x <ms>` as above.
pub(crate) const OBSERVED: &str = "observed";

/// Attempts at messages that fail on purpose: `t <sequence> <attempt> <ms, monotonic> <process>`.
pub(crate) const ATTEMPTS: &str = "attempts";

/// What was found at each opening: `o <sent> <done> <dead-lettered> <in flight> <ms>`; `h <ms>` when the storage was
/// reported as failed; `d <ms>` when the first message was handled.
pub(crate) const OPENED: &str = "opened";

/// One log that is written.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    /// Opens or makes it.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Ok(Self(file.with_context(|| format!("opening {}", path.display()))?))
    }

    /// Appends a line. Without its log the oracle is blind, so a failure ends the process.
    pub(crate) fn append(&self, text: &str) {
        debug_assert!(text.len() < LINE_BYTES, "a line of {} bytes", text.len());
        let line = format!("{text:<width$}\n", width = LINE_BYTES - 1);
        let written = (&self.0).write(line.as_bytes());
        assert_eq!(written.ok(), Some(LINE_BYTES), "the oracle's log takes every line");
    }
}

/// The lines of a log, split into words; none if it was never written.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Vec<Vec<String>>> {
    let path = folder.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// How many lines a log has.
pub(crate) fn count(folder: &Path, name: &str) -> u64 {
    std::fs::metadata(PathBuf::from(folder).join(name)).map_or(0, |file| file.len() / LINE_BYTES as u64)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_whole_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!((count(folder.path(), ACKED), read(folder.path(), ACKED).unwrap().len()), (0, 0));
        for number in 0..100 {
            // As several processes after each other do.
            Log::open(folder.path(), ACKED).unwrap().append(&format!("a {number} {}", u64::MAX));
        }
        let lines = read(folder.path(), ACKED).unwrap();
        assert_eq!((count(folder.path(), ACKED), lines.len()), (100, 100));
        assert_eq!(lines[7], ["a", "7", "18446744073709551615"]);
    }
}
