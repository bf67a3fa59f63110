//! The files by which a worker is told its message and tells what comes of it.

use crate::{FILES_KEY, FileRef, Job, JobError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The folder of what a worker is given.
pub const IN: &str = "in";
/// The folder of what it leaves.
pub const OUT: &str = "out";
/// The message, in [`IN`].
pub const MESSAGE: &str = "message.json";
/// The folder of files, in [`IN`] and in [`OUT`].
pub const DATA: &str = "data";
/// The folder of events, in [`OUT`].
pub const EVENTS: &str = "events";
/// What the worker says about its work, in [`OUT`].
pub const INSIGHTS: &str = "insights.json";

/// The most bytes of all events of a message together: they are held in memory and published in one step.
pub const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// The most events of a message, as for every other task.
const EVENTS_MAX: usize = 65_536;

/// The most bytes of `insights.json`: a few figures about one message.
const INSIGHTS_BYTES_MAX: u64 = 64 << 10;

/// One thing that follows from a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The label of the route or the task behind it; it may be left out if there is one route.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its key; that of the message if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The payload.
    #[serde(default = "nothing")]
    pub data: Value,
    /// The files that travel with it: paths below `out/data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

fn nothing() -> Value {
    json!({})
}

/// What `in/message.json` holds.
pub(crate) fn message(job: &Job) -> Value {
    let files: Vec<Value> = job.files.iter().map(|file| json!({ "path": file.path, "bytes": file.bytes })).collect();
    json!({
        "id": job.message,
        "root": job.root,
        "parent": job.parent,
        "attempt": job.attempt,
        "topology": job.topology,
        "task": job.task,
        "edge": job.edge,
        "key": job.key,
        "traceparent": job.traceparent,
        "data": job.data,
        "files": files,
    })
}

/// Makes the folders that a worker finds.
pub(crate) fn make_folders(work: &Path) -> io::Result<()> {
    for folder in [work.join(IN).join(DATA), work.join(OUT).join(DATA), work.join(OUT).join(EVENTS)] {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

/// Whether the folders that a worker was given are still folders: behind a link could be what is none of the worker's. They may be gone.
pub(crate) fn check_folders(work: &Path) -> Result<(), JobError> {
    for folder in [work.join(OUT), work.join(OUT).join(DATA), work.join(OUT).join(EVENTS)] {
        match fs::symlink_metadata(&folder) {
            Ok(found) if !found.is_dir() => {
                let name = folder.strip_prefix(work).unwrap_or(&folder).display();
                return Err(JobError::permanent(format!("the worker has put something else in place of the folder `{name}`")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the events that a worker has left, in the order of their files' names, and checks each against the graph.
pub(crate) fn events(job: &Job, work: &Path) -> Result<Vec<Event>, JobError> {
    let folder = work.join(OUT).join(EVENTS);
    let mut left = OUTPUT_BYTES_MAX;
    let mut events = Vec::new();
    for path in files_of(&folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if events.len() == EVENTS_MAX {
            return Err(JobError::permanent(format!("one message gave more than {EVENTS_MAX} events")));
        }
        let text = read(&path, left, &format!("`out/events/{name}` and the events before it"))?;
        left -= text.len() as u64;
        let event: Event = serde_json::from_slice(&text).map_err(|error| {
            JobError::permanent(format!(
                "`out/events/{name}` is not `{{\"type\": …, \"key\": …, \"data\": …, \"files\": […]}}`: {error}"
            ))
        })?;
        job.declared.check(job, event.kind.as_deref()).map_err(|error| error.and(format!("it is in `out/events/{name}`")))?;
        if event.data.get(FILES_KEY).is_some() {
            let text =
                format!("`out/events/{name}` has the key `{FILES_KEY}` in its data, which is ours: name files under `files`");
            return Err(JobError::permanent(text));
        }
        if !event.files.is_empty() && !event.data.is_object() {
            let text = format!("`out/events/{name}` has files, so its `data` must be an object");
            return Err(JobError::permanent(text));
        }
        events.push(event);
    }
    Ok(events)
}

/// What the worker says about its work, if it says anything.
pub(crate) fn insights(work: &Path) -> Result<Option<Value>, JobError> {
    let path = work.join(OUT).join(INSIGHTS);
    if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let text = read(&path, INSIGHTS_BYTES_MAX, "`out/insights.json`")?;
    let value =
        serde_json::from_slice(&text).map_err(|error| JobError::permanent(format!("`out/insights.json` is no JSON: {error}")))?;
    Ok(Some(value))
}

/// The `*.json` files of a folder, by name. A worker that has removed the folder has left none.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, JobError> {
    let failed = |error: io::Error| JobError::failed(format!("reading `out/events`: {error}"));
    let mut files = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a plain file of at most this many bytes.
fn read(path: &Path, bytes_max: u64, what: &str) -> Result<Vec<u8>, JobError> {
    let failed = |error: io::Error| JobError::failed(format!("reading {what}: {error}"));
    if !fs::symlink_metadata(path).map_err(failed)?.is_file() {
        return Err(JobError::permanent(format!("{what}: not a plain file")));
    }
    let mut text = Vec::new();
    fs::File::open(path).map_err(failed)?.take(bytes_max + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > bytes_max {
        return Err(JobError::permanent(format!("{what} have more than the {bytes_max} bytes that are taken")));
    }
    Ok(text)
}

/// The payload of an event: its data with its files.
pub(crate) fn payload(data: Value, files: Vec<FileRef>) -> Value {
    match data {
        Value::Object(mut object) if !files.is_empty() => {
            object.insert(FILES_KEY.to_owned(), json!(files));
            Value::Object(object)
        }
        other => other,
    }
}
