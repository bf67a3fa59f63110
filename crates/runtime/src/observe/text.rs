//! The metrics of a dispatcher in Prometheus' text format.

use super::{NEVER, Watch, histogram::BOUNDS, label};
use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

impl Watch {
    /// All of it as Prometheus reads it.
    pub fn text(&self) -> String {
        let labels = format!("topology=\"{}\",edge=\"{}\"", self.topology, label(self.edge.id));
        let mut out = String::new();
        let tally = self.counts.of_edge(self.edge);
        let mut one = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}");
        };
        let taken = self.taken.load(Relaxed);
        let in_flight = taken.saturating_sub(self.done.load(Relaxed));
        let idle = self.now().saturating_sub(self.moved.load(Relaxed));
        let counters = [
            ("received", "Messages that were taken from the edge, again with each attempt.", taken),
            ("handled", "Messages that were handled and settled with what came of them.", tally.task.handled),
            ("outputs", "Outputs of those, whether an edge follows or not.", tally.task.emitted),
            ("failed", "Attempts that failed.", tally.task.failed),
            ("retried", "Failed attempts after which the message was given back to be tried again.", tally.task.retried),
            ("dead_lettered", "Messages that were given up.", tally.dead),
        ];
        for (name, help, value) in counters {
            one(&format!("leatworks_dispatcher_{name}_total"), "counter", help, value.to_string());
        }
        one("leatworks_dispatcher_in_flight", "gauge", "Messages that this dispatcher has in hand.", in_flight.to_string());
        one(
            "leatworks_dispatcher_progress_age_seconds",
            "gauge",
            "How long ago a message was taken, handled or settled.",
            format!("{:.3}", idle as f64 / 1e3),
        );
        let backlog = self.backlog.load(Relaxed);
        if backlog != NEVER {
            let help = "Messages that are not settled on the edge. Each of its dispatchers tells the same number.";
            one("leatworks_edge_backlog", "gauge", help, backlog.to_string());
        }
        let name = "leatworks_dispatcher_handler_duration_seconds";
        let _ = writeln!(out, "# HELP {name} How long a call of the task takes, however it ends.\n# TYPE {name} histogram");
        let (within, count, seconds) = self.latency.cumulated();
        for (bound, within) in BOUNDS.iter().zip(within) {
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {within}");
        }
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {count}"
        );
        out
    }
}
