//! `[jobs]`: where jobs keep their files, and for how long.

use super::{Fault, values};
use leatworks_jobs::{JobError, Location};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long files, logs and records of jobs are kept, unless the configuration says otherwise: long enough to look into what went wrong last week.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where jobs keep their files, and how they are run on this machine.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// Where files, logs and records are.
    pub files: Location,
    /// How long they are kept.
    pub keep: Duration,
    /// The folder of the folders that workers run in.
    pub work: PathBuf,
    /// The folder that paths of commands are below.
    pub project: PathBuf,
}

impl JobsConfig {
    /// As it is without any configuration.
    pub(crate) fn new(data: &Path) -> Self {
        let jobs = data.join("jobs");
        Self {
            // An address that cannot be made is told when it is opened.
            files: Location::folder(&jobs.join("files"))
                .unwrap_or_else(|_| Location { url: jobs.display().to_string(), options: BTreeMap::new() }),
            keep: KEEP,
            work: std::path::absolute(jobs.join("work")).unwrap_or_else(|_| jobs.join("work")),
            project: env::current_dir().unwrap_or_default(),
        }
    }
}

/// A place that a person has written: an address, or a folder.
pub(super) fn location(key: &str, place: String, options: BTreeMap<String, String>) -> Result<Location, Fault> {
    let wrong = |error: JobError| Fault { key: key.to_owned(), text: error.to_string() };
    match place.contains("://") {
        true => Ok(Location { url: place, options }),
        false => Location::folder(Path::new(&place)).map_err(wrong),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobsTable {
    #[serde(deserialize_with = "values::text")]
    files: Option<String>,
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "values::keep")]
    keep: Option<Duration>,
}

impl JobsTable {
    /// This, over what was there.
    pub(super) fn over(self, mut jobs: JobsConfig) -> Result<JobsConfig, Fault> {
        if let Some(place) = self.files {
            jobs.files = location("jobs.files", place, self.options)?;
        }
        if let Some(keep) = self.keep {
            jobs.keep = keep;
        }
        Ok(jobs)
    }
}
