//! What a run ends with: the account of its messages.

use crate::counts::{Counts, TaskTally};
use leatworks_broker::Account;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// The account of a run: `sent == done + dead_lettered + in_flight`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The schema of this object: `leat.run/v1`.
    pub schema: &'static str,
    /// The topology.
    pub topology: String,
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

impl Report {
    pub(crate) fn new(topology: &str, account: Account, counts: &Counts, elapsed: Duration) -> Self {
        Self {
            schema: "leat.run/v1",
            topology: topology.to_owned(),
            sent: account.sent,
            done: account.done,
            dead_lettered: account.dead_lettered,
            in_flight: account.in_flight,
            tasks: counts.tasks(),
            elapsed_s: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
        }
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
        write!(
            f,
            "sent {} = done {} + dead-lettered {} + in flight {}   in {:.3} s",
            self.sent, self.done, self.dead_lettered, self.in_flight, self.elapsed_s
        )
    }
}
