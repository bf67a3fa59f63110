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
    let files = read_env_files(&job.spec.env_files, project)?;
    variables.extend(files.into_iter().map(|(name, value)| (name.into(), value.into())));
    variables.extend(job.spec.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables.insert("TMPDIR".into(), work.join("tmp").into());
    variables.insert("LEAT_WORK".into(), work.into());
    variables.insert("LEAT_PROJECT".into(), project.into());
    variables.extend(job.told().into_iter().map(|(name, value)| (name.into(), value.into())));
    Ok(variables)
}

/// Reads files of variables, `NAME=value` on each line, whose paths are relative to a folder; a later one comes before an earlier one.
///
/// # Errors
/// If one cannot be read, and permanently if a line is none of that form.
pub fn read_env_files(files: &[PathBuf], project: &Path) -> Result<BTreeMap<String, String>, JobError> {
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
