//! The source `directory`: all files below a directory, once, in the order of their paths.

use super::feed::{Feed, Root, SourceError};
use crate::{codec, source::Entry};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};
use tokio::sync::mpsc;

/// The most files that are published in one step.
const BATCH_FILES: usize = 256;

/// The most batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// What the source is told.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Options {
    /// The directory.
    path: PathBuf,
    /// Whether directories below it are read too.
    #[serde(default = "yes")]
    recursive: bool,
}

fn yes() -> bool {
    true
}

/// Where the walk stands: behind this path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    /// In bytes, because a path need not be text.
    last: Option<Vec<u8>>,
    messages: u64,
}

pub(super) fn check(options: &Options) -> Result<(), SourceError> {
    fs::read_dir(&options.path).map(|_| ()).map_err(|error| read_error(&options.path, error))
}

fn read_error(path: &Path, error: io::Error) -> SourceError {
    SourceError::Read { path: path.display().to_string(), error }
}

type Batch = Result<(Vec<Entry>, PathBuf), SourceError>;

pub(super) async fn run(mut feed: Feed, options: Options) -> Result<(), SourceError> {
    let mut position: Position = feed.position().await?.unwrap_or_default();
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let after = position.last.clone().map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    tokio::task::spawn_blocking(move || {
        let mut walk = Walk { options, after, batch: Vec::new(), last: PathBuf::new(), batches: sender.clone() };
        let root = walk.options.path.clone();
        let result = walk.directory(&root).and_then(|()| walk.flush());
        if let Err(Ended::Failed(error)) = result {
            // If nobody listens any more, the run is over and has its own reason.
            let _ = sender.blocking_send(Err(error));
        }
    });
    while let Some(batch) = batches.recv().await {
        let (entries, last) = batch?;
        if !feed.room().await? {
            return Ok(());
        }
        let mut roots = Vec::with_capacity(entries.len());
        for entry in &entries {
            position.messages += 1;
            let payload = codec::encode(feed.codec(), entry)?;
            roots.push(Root { number: position.messages, codec: feed.codec(), payload, cut: None });
        }
        position.last = Some(last.into_os_string().into_vec());
        feed.publish(roots, &position).await?;
    }
    Ok(())
}

/// Why a walk is cut short.
enum Ended {
    /// Nobody wants more of it.
    Unwanted,
    Failed(SourceError),
}

struct Walk {
    options: Options,
    after: Option<PathBuf>,
    batch: Vec<Entry>,
    last: PathBuf,
    batches: mpsc::Sender<Batch>,
}

impl Walk {
    /// Names are sorted at each level, which is the order of paths by component: so "behind this path" is well defined.
    fn directory(&mut self, directory: &Path) -> Result<(), Ended> {
        let failed = |error| Ended::Failed(read_error(directory, error));
        let mut entries = fs::read_dir(directory).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // Links are not followed, so there are no loops.
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && self.options.recursive {
                self.directory(&path)?;
            } else if kind.is_file() && self.after.as_ref().is_none_or(|after| path > *after) {
                self.file(path, &entry)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, entry: &fs::DirEntry) -> Result<(), Ended> {
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read: it is as if it had not been there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Ended::Failed(read_error(&path, error))),
        };
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.batch.push(Entry {
            path: path.to_string_lossy().into_owned(),
            raw_hex: path.to_str().is_none().then(|| super::text::hex(path.as_os_str().as_encoded_bytes())),
            bytes: metadata.len(),
            modified_ms: modified.map_or(0, |since| since.as_millis() as u64),
        });
        self.last = path;
        if self.batch.len() >= BATCH_FILES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = (std::mem::take(&mut self.batch), self.last.clone());
        self.batches.blocking_send(Ok(batch)).map_err(|_| Ended::Unwanted)
    }
}
