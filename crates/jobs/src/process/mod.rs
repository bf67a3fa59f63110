//! The executor for one machine: each attempt is a process group of its own.

mod environment;
mod group;
mod memory;

use crate::{Attempt, BoxFuture, Cause, Commit, Executor, Job, JobError, Store, commit, ending, prepare};
pub use environment::read_env_files;
use group::Ended;
use rustix::process::Signal;
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Runs workers as processes of this machine.
#[derive(Debug)]
pub struct Process {
    store: Store,
    work: PathBuf,
    project: PathBuf,
}

impl Process {
    /// Works in folders below `work`, which it makes and removes. Paths of a command that begin with `./` are below `project`.
    pub fn new(store: Store, work: impl Into<PathBuf>, project: impl Into<PathBuf>) -> Self {
        Self { store, work: work.into(), project: project.into() }
    }

    /// Whether a job can be started here.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, spec: &crate::Spec) -> Result<(), JobError> {
        if spec.command.is_empty() {
            return Err(JobError::permanent("`job` has no `command`, and an image runs only on Kubernetes"));
        }
        read_env_files(&spec.env_files, &self.project).map(drop)
    }

    /// Removes work folders that a process has left which was killed this long ago.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn sweep(&self, older: Duration) -> io::Result<usize> {
        let Some(limit) = SystemTime::now().checked_sub(older) else { return Ok(0) };
        let entries = match std::fs::read_dir(&self.work) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries.flatten() {
            let old = entry.metadata().and_then(|found| found.modified()).is_ok_and(|modified| modified < limit);
            if old && std::fs::remove_dir_all(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn attempt(&self, job: &Job, attempt: &mut Attempt) -> Result<Commit, JobError> {
        let folder = Folder(self.work.join(&attempt.name));
        folder.remove();
        prepare(&self.store, job, &folder.0).await?;
        let variables = environment::of(job, &folder.0, &self.project)?;
        let (ended, log) = group::run(job, &folder.0, &self.project, variables).await?;
        if let Ended::Exit(code) = ended {
            attempt.exit_code = Some(code);
        }
        let last = log.last_line();
        attempt.keep_log(&self.store, job, log.into_bytes()).await?;
        judge(job, &ended, &last)?;
        commit(&self.store, job, attempt.round, &folder.0, None).await
    }
}

impl Executor for Process {
    fn execute<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Commit, JobError>> {
        Box::pin(async move {
            if let Some(commit) = Commit::of(&self.store, job).await? {
                return Ok(commit);
            }
            let mut attempt = Attempt::begin(&self.store, job, "process").await?;
            let result = self.attempt(job, &mut attempt).await;
            let result = result.map_err(|error| match &attempt.log {
                Some(log) => error.and(format!("log: {}", self.store.shown(log))),
                None => error,
            });
            attempt.end(&self.store, job, result.as_ref()).await?;
            result
        })
    }
}

/// Whether a worker has met the limit of a file, itself or as a shell whose program has.
fn is_file_too_long(ended: &Ended) -> bool {
    let signal = Signal::XFSZ.as_raw();
    matches!(ended, Ended::Signal(by) if *by == signal) || matches!(ended, Ended::Exit(code) if *code == 128 + signal)
}

/// What the end of a worker means.
fn judge(job: &Job, ended: &Ended, last: &str) -> Result<(), JobError> {
    let said = ending::said(last);
    match ended {
        Ended::Exit(0) => Ok(()),
        ended if is_file_too_long(ended) => {
            let text = format!("the worker wrote a file of more than the {} bytes that `output` allows{said}", job.spec.output);
            Err(JobError::permanent(text))
        }
        Ended::Exit(code) => Err(ending::by_exit_code(&job.spec, *code, last)),
        Ended::Signal(signal) => Err(JobError::failed(format!("the worker was ended by signal {signal}{said}"))),
        Ended::Late => {
            let text = format!("the worker was ended, since it took longer than its timeout of {:?}{said}", job.deadline);
            Err(JobError::new(Cause::Timeout, text))
        }
        Ended::Memory(bytes) => {
            let limit = job.spec.memory.unwrap_or_default();
            let text = format!("the worker was ended, since it used {bytes} bytes of memory and may use {limit}{said}");
            Err(JobError::new(Cause::Memory, text))
        }
    }
}

/// A work folder that is gone when its attempt is.
struct Folder(PathBuf);

impl Folder {
    fn remove(&self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %shown(&self.0), %error, "a work folder cannot be removed");
            }
            _ => {}
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.remove();
    }
}
