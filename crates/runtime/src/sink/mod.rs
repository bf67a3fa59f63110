//! The sinks that come with the runtime: a JSON lines file, standard output, a Maildir.
//!
//! A sink's effect is outside the journal, so after a crash a message can reach it again. `maildir` makes that harmless by the file's name;
//! `jsonl` and `stdout` may then hold the lines of the last moment twice. What is settled is on the disk: a batch is written and synced
//! before it is committed.

mod console;
mod maildir;

pub(crate) use console::Console;

use crate::{
    Codec, Context, TaskError, codec,
    handler::{Handled, Handler, Output},
    plan::Builtin,
};
use leatworks_broker::{BoxFuture, Message};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// The `type`s of the sinks.
pub(crate) const KINDS: [&str; 3] = ["jsonl", "stdout", "maildir"];

/// Opens a sink.
pub(crate) async fn open(sink: &Builtin, console: &Console) -> Result<Arc<dyn Handler>, TaskError> {
    match sink.kind.as_str() {
        "jsonl" => {
            let FileOptions { path } = sink.options("sink")?;
            let file = open_file(&path)?;
            // A process that was killed may have left half a line.
            let torn = is_torn(&file);
            Ok(Arc::new(Lines { out: Arc::new(Mutex::new(Out::File { file, torn })), on_console: false }))
        }
        "stdout" => {
            let NoOptions {} = sink.options("sink")?;
            Ok(Arc::new(Lines { out: Arc::new(Mutex::new(Out::Console(console.clone()))), on_console: true }))
        }
        "maildir" => {
            let FileOptions { path } = sink.options("sink")?;
            Ok(Arc::new(maildir::Maildir::open(&path)?))
        }
        other => Err(unknown(other)),
    }
}

/// Whether the kind and the options of a sink are known, and what it writes to can be opened as far as that is known without making anything.
pub(crate) fn check(sink: &Builtin) -> Result<(), TaskError> {
    match sink.kind.as_str() {
        "jsonl" => sink.options::<FileOptions>("sink").and_then(|options| writable(&options.path, false)),
        "maildir" => sink.options::<FileOptions>("sink").and_then(|options| writable(&options.path, true)),
        "stdout" => sink.options::<NoOptions>("sink").map(|_| ()),
        other => Err(unknown(other)),
    }
}

fn unknown(kind: &str) -> TaskError {
    TaskError::permanent(format!("unknown sink type `{kind}`{}", crate::settings::hint(kind, &KINDS)))
}

/// Whether a file, or a folder, is there and may be written, or can be made: then the first folder above it that is there may be written.
fn writable(path: &Path, is_folder: bool) -> Result<(), TaskError> {
    let wrong = |error: String| TaskError::permanent(format!("opening `{}`: {error}", path.display()));
    for (above, found) in path.ancestors().enumerate() {
        let found = if found.as_os_str().is_empty() { Path::new(".") } else { found };
        let Ok(metadata) = fs::metadata(found) else { continue };
        return match (metadata.is_dir(), above > 0 || is_folder) {
            (true, false) => Err(wrong("it is a folder".to_owned())),
            (false, true) => Err(wrong(format!("`{}` is no folder", found.display()))),
            _ => rustix::fs::access(found, rustix::fs::Access::WRITE_OK).map_err(|error| wrong(error.to_string())),
        };
    }
    Ok(())
}

#[derive(Deserialize)]
struct FileOptions {
    /// The file or directory. It is made if it is missing.
    path: PathBuf,
}

#[derive(Deserialize)]
struct NoOptions {}

fn open_file(path: &Path) -> Result<File, TaskError> {
    let failed = |error: io::Error| TaskError::retryable(format!("opening `{}`: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let is_new = !path.exists();
    let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
    if is_new {
        // The name survives a loss of power only when its directory is written too.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    Ok(file)
}

/// Whether the last line of a file has no end.
fn is_torn(file: &File) -> bool {
    let length = file.metadata().map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 });
    let mut last = [b'\n'];
    length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != [b'\n']
}

/// One line of JSON per message.
struct Lines {
    /// One batch is written at a time, in the order in which they come.
    out: Arc<Mutex<Out>>,
    on_console: bool,
}

enum Out {
    File {
        file: File,
        /// Whether the last line has no end, so that the next one needs a new line.
        torn: bool,
    },
    Console(Console),
}

impl Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File { file, torn } => {
                if *torn {
                    file.write_all(b"\n")?;
                }
                *torn = true;
                file.write_all(lines)?;
                *torn = false;
                // A pipe or a device has nothing to sync.
                if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
            }
            Self::Console(console) => console.write(lines),
        }
    }
}

impl Handler for Lines {
    /// Only finds out whether there is a line: it is written with the others of its batch.
    fn handle<'a>(&'a self, message: &'a Message, _cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move { json(message).map(|_| Vec::new()) })
    }

    fn flush<'a>(&'a self, messages: Handled<'a>) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            for message in messages {
                lines.append(&mut json(&message)?);
                lines.push(b'\n');
            }
            let mut out = self.out.clone().lock_owned().await;
            // It waits for the disk or for who reads, which no thread of the runtime may.
            match tokio::task::spawn_blocking(move || out.write(&lines)).await? {
                // Nothing is wrong with the messages. The run ends now, and the next one takes them again.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.on_console => std::future::pending().await,
                written => Ok(written?),
            }
        })
    }
}

/// The message as JSON on one line.
pub(crate) fn json(message: &Message) -> Result<Vec<u8>, TaskError> {
    if message.codec == Codec::Json {
        let json: &RawValue = crate::handler::decode_borrowed(&message.payload)?;
        // A line break never stands within a text of JSON, so without it the value is the same.
        return Ok(json.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect());
    }
    let value: Value = crate::handler::decode(message.codec, &message.payload)?;
    Ok(codec::encode(Codec::Json, &value)?.to_vec())
}
