//! Takes what a worker has left.

use crate::{
    Commit, DATA, Event, FileRef, Job, JobError, OUT, Store, contract, file,
    record::{self, Committed},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Takes what a worker has left below `work`: checks all of it, copies the files that events name into the store, and then commits, unless
/// this message was committed before. Gives what counts. `writer` tells those apart that may make the same round of an attempt at once: none writes over the
/// files of another.
///
/// # Errors
/// A permanent failure if an event is not of the right form or not declared in the graph; one that may pass if a file is missing or the
/// store fails. Then nothing is committed.
pub async fn commit(store: &Store, job: &Job, round: u32, work: &Path, writer: Option<&str>) -> Result<Commit, JobError> {
    let (events, insights, files) = {
        let (job, work) = (job.clone(), work.to_owned());
        let look = move || look(&job, &work);
        tokio::task::spawn_blocking(look)
            .await
            .map_err(|error| JobError::failed(format!("looking at what is there: {error}")))??
    };
    let mut folder = format!("{}/{DATA}", record::folder(job, round));
    if let Some(writer) = writer {
        folder = format!("{folder}-{writer}");
    }
    let mut kept: BTreeMap<String, FileRef> = BTreeMap::new();
    for (path, from) in files {
        let file = store.put_file(&from, &format!("{folder}/{path}"), &path).await?;
        kept.insert(path, file);
    }
    let events = events
        .into_iter()
        .map(|event| {
            let files = event.files.iter().filter_map(|path| kept.get(path).cloned()).collect();
            Committed { kind: event.kind, key: event.key, payload: contract::payload(event.data, files) }
        })
        .collect();
    Commit { attempt: job.attempt, round, events, insights }.make(store, job).await
}

type Looked = (Vec<Event>, Option<serde_json::Value>, BTreeMap<String, PathBuf>);

/// Reads and checks everything, before anything is written.
fn look(job: &Job, work: &Path) -> Result<Looked, JobError> {
    contract::check_folders(work)?;
    let events = contract::events(job, work)?;
    let insights = contract::insights(work)?;
    let data = work.join(OUT).join(DATA);
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    for path in events.iter().flat_map(|event| &event.files) {
        if files.contains_key(path) {
            continue;
        }
        let at = file::below(&data, path)?;
        bytes += std::fs::metadata(&at).map_err(|error| JobError::failed(format!("reading the file `{path}`: {error}")))?.len();
        if bytes > job.spec.output {
            let text = format!("its files have more than the {} bytes that `output` allows", job.spec.output);
            return Err(JobError::permanent(text));
        }
        files.insert(path.clone(), at);
    }
    Ok((events, insights, files))
}
