//! `trace`: what has become of a root message.

use super::{
    exit::{CONNECT, Failure, INVALID, NOTHING, OK, USAGE, failure_code},
    output::{self, Output},
};
use crate::{
    config::Config,
    control::Access,
    def::TopologyDef,
    trace::{self, LookError},
};
use leatworks_jobs::Store;

/// Prints every step, attempt, job and file of a root.
pub(super) async fn show(topology: &'static TopologyDef, output: Output, config: &Config, id: &str) -> Result<u8, Failure> {
    let id = trace::id(id).map_err(|error| Failure::new(USAGE, error))?;
    let access = Access::open(config).await?;
    let traced = trace::look(&access, config, &topology.into(), &id).await;
    access.close().await?;
    let Some(traced) = traced? else { return Err(Failure::new(NOTHING, trace::nothing(config, &id))) };
    let files = Store::open(&config.jobs.files).map_err(|error| Failure::new(INVALID, error))?;
    output::show(output, &traced, |traced| traced.text(&files))?;
    if output == Output::Table {
        traced.notes.iter().for_each(|note| output::tell(&format!("{:>12} {note}", "Note")));
    }
    Ok(OK)
}

impl From<LookError> for Failure {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Access(error) => error.into(),
            LookError::Refused { error, kind } => Self::new(failure_code(kind), error),
            error @ LookError::Store(_) => Self::new(CONNECT, error),
        }
    }
}
