//! What a run ends with: the account of its messages.

use crate::counts::{Counts, TaskTally};
use leatworks_broker::Account;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, sync::atomic::Ordering::Relaxed, time::Duration};

/// The account of a run: `sent == done + dead_lettered + in_flight`. As JSON it has the schema `leat.run/v1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The topology.
    pub topology: String,
    /// On a broker that keeps no account, what this process has counted instead. The next four are 0 then, and left out of the JSON.
    pub counted: Option<Counted>,
    /// Roots that were accepted.
    pub sent: u64,
    /// Roots of which nothing is pending and nothing was given up.
    pub done: u64,
    /// Roots of which nothing is pending and something was given up.
    pub dead_lettered: u64,
    /// Roots of which something is pending.
    pub in_flight: u64,
    /// What the tasks have done in this process.
    pub tasks: BTreeMap<String, TaskTally>,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

/// What one process knows of a run on a broker that keeps no account of roots.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counted {
    /// Roots that the sources of this process have given.
    pub given: u64,
    /// Messages that this process has given up.
    pub given_up: u64,
    /// What is pending on each edge on which something is; as the broker counts it, which may be in batches.
    pub backlogs: BTreeMap<String, u64>,
}

impl Report {
    pub(crate) fn new(topology: &str, account: Account, counts: &Counts, elapsed: Duration) -> Self {
        Self {
            counted: None,
            topology: topology.to_owned(),
            sent: account.sent,
            done: account.done,
            dead_lettered: account.dead_lettered,
            in_flight: account.in_flight,
            tasks: counts.tasks(),
            elapsed_s: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
        }
    }

    /// The report where no account is kept.
    pub(crate) fn without_account(topology: &str, counts: &Counts, backlogs: BTreeMap<String, u64>, elapsed: Duration) -> Self {
        let given = counts.roots.load(Relaxed);
        let counted = Counted { given, given_up: counts.dead_letters(), backlogs };
        Self { counted: Some(counted), ..Self::new(topology, Account::default(), counts, elapsed) }
    }

    /// Takes over what was counted since the report was made.
    pub(crate) fn recount(&mut self, counts: &Counts) {
        self.tasks = counts.tasks();
        if let Some(counted) = &mut self.counted {
            counted.given_up = counts.dead_letters();
        }
    }

    /// Roots that were given up; where no account is kept, messages that this process has given up.
    pub fn given_up(&self) -> u64 {
        self.counted.as_ref().map_or(self.dead_lettered, |counted| counted.given_up)
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Roots {
            sent: u64,
            done: u64,
            dead_lettered: u64,
            in_flight: u64,
        }
        #[derive(Serialize)]
        struct View<'a> {
            schema: &'static str,
            topology: &'a str,
            #[serde(flatten)]
            roots: Option<Roots>,
            #[serde(skip_serializing_if = "Option::is_none")]
            counted: Option<&'a Counted>,
            tasks: &'a BTreeMap<String, TaskTally>,
            elapsed_s: f64,
        }
        let Self { topology, counted, sent, done, dead_lettered, in_flight, tasks, elapsed_s } = self;
        let roots = Roots { sent: *sent, done: *done, dead_lettered: *dead_lettered, in_flight: *in_flight };
        View {
            schema: "leat.run/v1",
            topology,
            roots: counted.is_none().then_some(roots),
            counted: counted.as_ref(),
            tasks,
            elapsed_s: *elapsed_s,
        }
        .serialize(serializer)
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.tasks.keys().map(String::len).max().unwrap_or_default().max(4);
        writeln!(f, "{:width$}  {:>10} {:>10} {:>8} {:>8}", "task", "handled", "emitted", "failed", "retried")?;
        for (name, tally) in &self.tasks {
            let TaskTally { handled, emitted, failed, retried } = tally;
            writeln!(f, "{name:width$}  {handled:>10} {emitted:>10} {failed:>8} {retried:>8}")?;
        }
        if let Some(Counted { given, given_up, backlogs }) = &self.counted {
            let pending = backlogs.iter().map(|(edge, backlog)| format!("{edge} {backlog}")).collect::<Vec<_>>().join(", ");
            let pending = if pending.is_empty() { "nothing".to_owned() } else { pending };
            return write!(
                f,
                "this process: {given} roots given, {given_up} messages given up   pending: {pending}   in {:.3} s\n\
                 (this broker keeps no account of roots)",
                self.elapsed_s
            );
        }
        write!(
            f,
            "sent {} = done {} + dead-lettered {} + in flight {}   in {:.3} s",
            self.sent, self.done, self.dead_lettered, self.in_flight, self.elapsed_s
        )
    }
}
