//! The variables that a worker sees: nothing of this process's secrets.

use crate::{Job, JobError};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// What a program needs to know of the machine. Everything else of our environment stays with us: it may hold tokens.
const PASSED_ON: [&str; 8] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL"];

/// All variables of a job's worker.
pub(super) fn of(job: &Job, work: &Path, project: &Path) -> Result<BTreeMap<OsString, OsString>, JobError> {
    let ours = PASSED_ON.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
    let mut variables: BTreeMap<OsString, OsString> = ours.collect();
    let files = read_files(&job.spec.env_files, project)?;
    variables.extend(files.into_iter().map(|(name, value)| (name.into(), value.into())));
    variables.extend(job.spec.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables.insert("TMPDIR".into(), work.join("tmp").into());
    variables.insert("LEAT_WORK".into(), work.into());
    variables.insert("LEAT_PROJECT".into(), project.into());
    variables.extend(told(job).into_iter().map(|(name, value)| (name.into(), value.into())));
    Ok(variables)
}

/// What a worker is told of its message.
fn told(job: &Job) -> [(&'static str, String); 7] {
    [
        ("LEAT_TOPOLOGY", job.topology.clone()),
        ("LEAT_TASK", job.task.clone()),
        ("LEAT_EDGE", job.edge.clone()),
        ("LEAT_MESSAGE_ID", job.message.clone()),
        ("LEAT_ROOT_ID", job.root.clone()),
        ("LEAT_ATTEMPT", job.attempt.to_string()),
        ("TRACEPARENT", job.traceparent.clone()),
    ]
}

/// Reads files of variables; a later one comes before an earlier one.
pub(super) fn read_files(files: &[PathBuf], project: &Path) -> Result<BTreeMap<String, String>, JobError> {
    let mut variables = BTreeMap::new();
    for file in files {
        let path = project.join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| JobError::failed(format!("reading the env file `{}`: {error}", path.display())))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                let text = format!("line {} of the env file `{}` is not `NAME=value`", number + 1, path.display());
                return Err(JobError::permanent(text));
            };
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(variables)
}
