//! One worker as a process group, from its start to the end of everything that it has started.

use super::memory;
use crate::log::Log;
use crate::{Job, JobError};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{net::unix::pipe, process::Child, time::Instant};

/// How often a worker's memory is looked at: what it can take in between is about what a machine fills in that time, 100 MB.
const MEMORY_EVERY: Duration = Duration::from_millis(50);

/// How long the end of a log is waited for when all of the group has been killed: only what has left the group can still hold it open.
const LOG_END_MAX: Duration = Duration::from_secs(1);

/// What comes before the worker in its process. It waits for the word to begin, which is given when limits are set. Beside the worker it leaves
/// a reader of the same pipe, which ends when we do, however that happens: then it kills the group.
const GATE: &str = r#"read -r go || exit 125
exec 3<&0
(read -r gone <&3; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-"#;

/// How a worker has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// By us, when its time was over.
    Late,
    /// By us, when it used this many bytes of memory.
    Memory(u64),
}

/// Runs a worker in its folder until it ends, its time is over or it uses too much memory; then nothing of its group is left. Dropping the
/// future kills the group, too.
pub(super) async fn run(
    job: &Job,
    work: &Path,
    project: &Path,
    variables: BTreeMap<OsString, OsString>,
) -> Result<(Ended, Log), JobError> {
    let failed = |error: io::Error| JobError::failed(format!("starting the worker: {error}"));
    std::fs::create_dir_all(work.join("tmp")).map_err(failed)?;
    let (said, saying) = io::pipe().map_err(failed)?;
    let (gate, go) = io::pipe().map_err(failed)?;
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-c").arg(GATE).arg("sh").args(arguments(job, project));
    command.current_dir(work).env_clear().envs(variables).process_group(0);
    command.stdin(Stdio::from(gate)).stdout(Stdio::from(saying.try_clone().map_err(failed)?)).stderr(Stdio::from(saying));
    let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
    let mut group = Group::new(child)?;
    limit(job, group.id).map_err(failed)?;
    let mut go = go;
    go.write_all(b"\n").map_err(failed)?;
    let mut log = Log::new(job.spec.log);
    let said = pipe::Receiver::from_owned_fd(said.into()).map_err(failed)?;
    let ended = {
        let mut reading = std::pin::pin!(log.read(said));
        let (ended, read) = {
            let mut watching = std::pin::pin!(watch(job, &mut group));
            tokio::select! {
                biased;
                ended = &mut watching => (ended, false),
                // The worker may have closed its outputs and go on.
                _ = &mut reading => (watching.await, true),
            }
        };
        group.kill();
        if !matches!(ended, Ok(Ended::Exit(_) | Ended::Signal(_))) {
            group.child.wait().await.map_err(failed)?;
        }
        if !read {
            // What is read is kept in any case.
            let _ = tokio::time::timeout(LOG_END_MAX, reading).await;
        }
        ended
    };
    drop(go);
    Ok((ended.map_err(failed)?, log))
}

/// The command, with paths of the project in place of those that begin with `./`.
fn arguments(job: &Job, project: &Path) -> Vec<OsString> {
    let of = |argument: &String| match argument.strip_prefix("./") {
        Some(path) => PathBuf::from(project).join(path).into(),
        None => argument.into(),
    };
    job.spec.command.iter().map(of).collect()
}

/// Sets what one process may take: no file longer than all files together may be and one byte more, no core dump, and as a hard limit beside
/// the watch twice the memory. By that byte a file that was cut here is seen to be too long when it is committed, also where the worker
/// has not noticed.
#[cfg(target_os = "linux")]
fn limit(job: &Job, id: Pid) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, prlimit};
    let most = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(id), Resource::Core, most(0))?;
    prlimit(Some(id), Resource::Fsize, most(job.spec.output.saturating_add(1)))?;
    if let Some(memory) = job.spec.memory {
        prlimit(Some(id), Resource::Data, most(memory.saturating_mul(2)))?;
    }
    Ok(())
}

/// Elsewhere a process cannot set the limits of another.
#[cfg(not(target_os = "linux"))]
fn limit(_job: &Job, _id: Pid) -> io::Result<()> {
    Ok(())
}

async fn watch(job: &Job, group: &mut Group) -> io::Result<Ended> {
    let late = tokio::time::sleep_until(Instant::now() + job.deadline);
    let id = group.id.as_raw_nonzero().get();
    let too_much = async {
        let Some(limit) = job.spec.memory else { return std::future::pending().await };
        loop {
            tokio::time::sleep(MEMORY_EVERY).await;
            match tokio::task::spawn_blocking(move || memory::used(id)).await {
                Ok(Some(used)) if used > limit => return used,
                Ok(Some(_)) => {}
                _ => return std::future::pending().await,
            }
        }
    };
    tokio::select! {
        biased;
        status = group.child.wait() => Ok(ended(status?)),
        used = too_much => Ok(Ended::Memory(used)),
        () = late => Ok(Ended::Late),
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

/// A process group that does not outlive this value.
struct Group {
    child: Child,
    id: Pid,
}

impl Group {
    fn new(child: Child) -> Result<Self, JobError> {
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or_else(|| JobError::failed("starting the worker: it ended at once"))?;
        Ok(Self { child, id })
    }

    /// Kills all that is left of the group. The reader beside the worker is in it until then, so its number is not given to another group.
    fn kill(&self) {
        // All of it may have been killed by somebody else.
        let _ = kill_process_group(self.id, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After the group was killed and the child waited for, the number could be another's.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}
