//! Asks everybody who may know something of a root.

use super::{Sources, Step, find, steps};
use crate::{
    config::Config,
    control::{Access, AccessError, FailureKind, Filter, Listed, Request, Response, Waiting},
    topics::TopologyRef,
};
use leatworks_jobs::{JobError, Store};
use serde::{Deserialize, Serialize};

/// The most messages of a root that wait, and the most of it in the dead letters, that are asked for.
const LISTED_MAX: usize = 1000;

/// What is known of a root in one topology.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// `leat.trace/v1`.
    pub schema: String,
    /// The topology.
    pub topology: String,
    /// The root.
    pub root: String,
    /// Each message of it on each edge, behind what it came of.
    pub steps: Vec<Step>,
    /// What the picture lacks, in words.
    pub notes: Vec<String>,
}

/// It could not be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// A place of files cannot be used.
    #[error(transparent)]
    Store(#[from] JobError),
    /// Nobody could be asked for what the broker knows.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The broker, or who owns it, says no.
    #[error("{error}")]
    Refused {
        /// Why.
        error: String,
        /// What kind of failure it is.
        kind: FailureKind,
    },
}

/// Finds out what is known of a root by its id, or by that of a message that came of it; nothing, if nothing is.
///
/// # Errors
/// See [`LookError`].
pub async fn look(access: &Access, config: &Config, topology: &TopologyRef, id: &str) -> Result<Option<Traced>, LookError> {
    let records = find(&Store::open(&config.trace.place)?, &topology.name, id).await?;
    let jobs = Store::open(&config.jobs.files)?.trace(&topology.name, id).await?;
    let known = records.root.clone().or_else(|| jobs.first().map(|step| step.root.clone()));
    let wanted = known.clone().unwrap_or_else(|| id.to_owned());
    let waiting = waiting(access, topology, &wanted).await?;
    let letters = letters(access, topology, wanted).await?;
    let waits = || waiting.messages.first().map(|message| message.root.clone());
    let given_up = || letters.letters.first().map(|letter| letter.root.clone());
    let Some(root) = known.or_else(waits).or_else(given_up) else { return Ok(None) };
    let mut notes = Vec::new();
    if !config.trace.enabled {
        let text =
            "steps are not written down here, so only jobs, dead letters and what waits are known: `trace.enabled` in leat.toml";
        notes.push(text.to_owned());
    }
    if records.missed > 0 {
        notes.push(format!("{} records were left out, of this root or of others", records.missed));
    }
    if records.total > records.records.len() as u64 {
        notes.push(format!("{} of {} records are shown", records.records.len(), records.total));
    }
    if waiting.cut || letters.total > letters.letters.len() as u64 {
        notes.push("more of it may wait, or lie in the dead letters, than is shown".to_owned());
    }
    let sources = Sources { records: records.records, jobs, pending: waiting.messages, dead_letters: letters.letters };
    let steps = steps(sources);
    Ok(Some(Traced { schema: "leat.trace/v1".to_owned(), topology: topology.name.clone(), root, steps, notes }))
}

async fn waiting(access: &Access, topology: &TopologyRef, id: &str) -> Result<Waiting, LookError> {
    let request = Request::Pending { topology: topology.clone(), id: id.to_owned(), limit: LISTED_MAX };
    match access.ask(request).await? {
        Response::Pending(waiting) => Ok(waiting),
        other => Err(refused(other)),
    }
}

async fn letters(access: &Access, topology: &TopologyRef, id: String) -> Result<Listed, LookError> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    match access.ask(Request::DeadLetters { topology: topology.clone(), filter, limit: LISTED_MAX }).await? {
        Response::DeadLetters(listed) => Ok(listed),
        other => Err(refused(other)),
    }
}

fn refused(response: Response) -> LookError {
    match response {
        Response::Failed { error, kind } => LookError::Refused { error, kind },
        _ => LookError::Refused {
            error: "the running process answered something else; it may be of another version".to_owned(),
            kind: FailureKind::Conflict,
        },
    }
}
