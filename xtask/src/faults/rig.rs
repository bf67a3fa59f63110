//! Starts the child, waits for what it has done, and ends it: by a kill, or by what was done to its disk.

use super::{
    child::{END_FILE, ENOUGH_FILE, Job, ROLE},
    log,
    oracle::{End, Expected, Logs, Verdict, judge},
    workload::TOPOLOGY,
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

/// How long anything may take without progress before it counts as stuck. A start takes some tenths of a second, also on a machine with other work.
pub(crate) const STUCK: Duration = Duration::from_secs(60);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// The most messages that the edge to the sink holds: what its dispatcher takes ahead and what it handles at once.
const SINK_HOLDS_MAX: u64 = 4096 + 64;

/// This program, wherever it is: a build that goes on meanwhile replaces the file that it was started from.
pub(crate) fn this_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// The folder of one run: the oracle's logs, and what the child says on standard error.
pub(crate) struct Rig {
    pub(crate) folder: PathBuf,
    pub(crate) job: Job,
    /// Words in front of the child's command, such as those of strace.
    pub(crate) wrapper: Vec<String>,
    /// Variables of the child's environment.
    pub(crate) environment: Vec<(String, String)>,
    /// How long anything may take without progress before it counts as stuck.
    pub(crate) stuck: Duration,
}

impl Rig {
    /// A rig in a new folder, with the journal at `journal` or in the folder.
    pub(crate) fn new(folder: &Path, journal: Option<&Path>) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(folder)?;
        let journal = journal.map_or_else(|| folder.join("journal"), Path::to_owned);
        let job = Job::new(journal, folder);
        Ok(Self { folder: folder.to_owned(), job, wrapper: Vec::new(), environment: Vec::new(), stuck: STUCK })
    }

    /// Starts the child.
    pub(crate) fn start(&self) -> Result<Running<'_>> {
        self.start_with(&self.job)
    }

    /// Starts the child with another job.
    pub(crate) fn start_with(&self, job: &Job) -> Result<Running<'_>> {
        let job = serde_json::to_string(job)?;
        let program = this_program();
        let mut words = self.wrapper.iter().map(String::from).chain([program.display().to_string(), ROLE.to_owned(), job]);
        let first = words.next().unwrap_or_default();
        let error = OpenOptions::new().create(true).append(true).open(self.folder.join("stderr"))?;
        let mut command = Command::new(first);
        // Its panics are on purpose, and the places where they come from would only be in the way of what it says last.
        command.env("RUST_BACKTRACE", "0").args(words).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(error).kill_on_drop(true);
        let openings = self.openings()?;
        Ok(Running { rig: self, child: command.spawn().context("starting the child")?, openings })
    }

    /// How many lines one of the logs has.
    pub(crate) fn count(&self, name: &str) -> u64 {
        log::count(&self.folder, name)
    }

    /// How often the broker was opened.
    pub(crate) fn openings(&self) -> Result<u64> {
        let lines = log::read(&self.folder, log::OPENED)?;
        Ok(lines.iter().filter(|line| line.first().is_some_and(|word| word == "o")).count() as u64)
    }

    /// How many roots were acknowledged so far, counted in whole batches.
    pub(crate) fn acked(&self) -> u64 {
        self.count(log::ACKED) * self.job.batch
    }

    /// Ends a source that goes on.
    pub(crate) fn enough(&self) -> Result<()> {
        let path = self.folder.join(ENOUGH_FILE);
        fs::write(&path, []).with_context(|| format!("writing {}", path.display()))
    }

    /// The last opening: sent, done, dead-lettered, in flight, milliseconds, process.
    pub(crate) fn last_opening(&self) -> Result<Vec<u64>> {
        let lines = log::read(&self.folder, log::OPENED)?;
        let last = lines.iter().rev().find(|line| line.first().is_some_and(|word| word == "o"));
        Ok(last.into_iter().flatten().skip(1).map(|word| word.parse().unwrap_or(0)).collect())
    }

    /// Lets everything finish without faults. `Ok` also if it does not: then there is no end, and the oracle says so.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        self.job.drain = true;
        // What was said at the end of an earlier one is not what this one says.
        let end = self.folder.join(END_FILE);
        if end.exists() {
            fs::remove_file(end)?;
        }
        self.start()?.until_drained().await
    }

    /// What the child said last.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// What the child wrote down when all was quiet.
    pub(crate) fn end(&self) -> Result<Option<End>> {
        let path = self.folder.join(END_FILE);
        Ok(if path.exists() { Some(serde_json::from_slice(&fs::read(path)?)?) } else { None })
    }

    /// All logs.
    pub(crate) fn logs(&self) -> Result<Logs> {
        let read = |name| log::read(&self.folder, name);
        Ok(Logs {
            invoked: read(log::INVOKED)?,
            acked: read(log::ACKED)?,
            observed: read(log::OBSERVED)?,
            opened: read(log::OPENED)?,
            end: self.end()?,
        })
    }

    /// Judges the run, in which this many faults may have had messages taken twice.
    pub(crate) fn judge(&self, faults: u64) -> Result<Verdict> {
        self.judge_as(faults, true)
    }

    /// The same for faults that take back what was not synced: the count of attempts survives the end of the process only, as the contract says.
    pub(crate) fn judge_power(&self, faults: u64) -> Result<Verdict> {
        self.judge_as(faults, false)
    }

    fn judge_as(&self, faults: u64, attempts_survive: bool) -> Result<Verdict> {
        let logs = self.logs()?;
        let last = logs.end.as_ref().map_or(0, |end| end.last_sequence);
        let orders = &self.job.orders;
        // At the sink no more can be in flight than is in flight at all: two of each root.
        let held = SINK_HOLDS_MAX.min(self.job.window.saturating_add(self.job.batch).saturating_mul(2));
        let [start, fork, left, join] = ["faults-start", "faults-start.out", "faults-left.out", "faults-join.out"];
        let right = TOPOLOGY.edges[4].topic;
        let expected = Expected {
            poison: (1..=last).filter(|sequence| orders.poison_of(*sequence).is_some()).collect(),
            attempts_max: self.job.attempts,
            attempts_right: self.job.attempts_right,
            sink_waits: self.job.sink_waits,
            // What was handled and taken back by a crash begins anew.
            attempts_survive: attempts_survive && self.job.sink_waits,
            duplicates_max: faults * held,
            // A service counts anew with each start of its own.
            published: match self.job.service {
                Some(_) => Vec::new(),
                None => vec![(start, 1, 1), (fork, 1, 1), (left, 1, 1), (right, 1, 0), (join, 2, 1)],
            },
        };
        Ok(judge(&logs, &expected))
    }
}

/// A child that runs. It is killed when this is dropped.
pub(crate) struct Running<'a> {
    rig: &'a Rig,
    child: Child,
    /// How often the broker had been opened when it was started.
    openings: u64,
}

impl Running<'_> {
    /// What it was started by.
    pub(crate) fn rig(&self) -> &Rig {
        self.rig
    }

    /// Waits for its end, but no longer than this.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => Ok(None),
        }
    }

    /// Kills it with SIGKILL. Behind a wrapper the child itself is killed, and the wrapper ends with it.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        // One that has ended already has no number any more.
        if self.child.id().is_none() {
            return Ok(());
        }
        if !self.rig.wrapper.is_empty()
            && self.is_open()
            && let Some(process) = self.rig.last_opening()?.get(5)
        {
            let process = process.to_string();
            // It may have ended by itself just now.
            let _ = std::process::Command::new("kill").args(["-9", &process]).stderr(Stdio::null()).status();
            if self.wait(Duration::from_secs(5)).await?.is_some() {
                return Ok(());
            }
        }
        Ok(self.child.kill().await?)
    }

    /// Whether it has opened the broker.
    pub(crate) fn is_open(&self) -> bool {
        self.rig.openings().is_ok_and(|openings| openings > self.openings)
    }

    /// Waits until this holds; `false` if the child has ended without it.
    ///
    /// # Errors
    /// If it takes too long.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Rig) -> bool) -> Result<bool> {
        let (mut began, mut before) = (Instant::now(), 0);
        loop {
            if holds(self.rig) {
                return Ok(true);
            }
            if self.wait(LOOK).await?.is_some() {
                return Ok(holds(self.rig));
            }
            // As long as something is acknowledged, or comes to the sink, it is only slow.
            let gone_on = self.rig.count(log::ACKED) + self.rig.count(log::OBSERVED);
            if gone_on != before {
                (began, before) = (Instant::now(), gone_on);
            }
            let limit = self.rig.stuck;
            if began.elapsed() > limit {
                bail!("stuck: {what} did not happen, and nothing went on for {limit:?}: {}", self.rig.last_words());
            }
        }
    }

    /// Waits until it has drained and ended by itself. It is killed when nothing goes on any more.
    pub(crate) async fn until_drained(&mut self) -> Result<()> {
        let progress = |rig: &Rig| rig.count(log::OBSERVED) + rig.count(log::ATTEMPTS) + rig.count(log::ACKED);
        let (mut before, mut since) = (progress(self.rig), Instant::now());
        loop {
            if let Some(status) = self.wait(Duration::from_millis(200)).await? {
                if !status.success() {
                    eprintln!("the child that was to drain ended with {status}: {}", self.rig.last_words());
                }
                return Ok(());
            }
            let now = progress(self.rig);
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() > self.rig.stuck {
                return self.kill().await;
            }
        }
    }

    /// Waits until the broker is open; `false` if the child has ended before.
    pub(crate) async fn until_open(&mut self) -> Result<bool> {
        let openings = self.openings;
        self.until("opening", |rig| rig.openings().is_ok_and(|found| found > openings)).await
    }
}
