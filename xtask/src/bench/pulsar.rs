//! `leat broker` beside the real Pulsar over the same protocol, on the same disk, with the same clients: `cargo xtask bench pulsar`.
//!
//! Only one server is up at a time, with an empty store. Each round has both, the second in the other order, so that a disk or a machine that
//! gets slower shows.

use super::{
    load::{Client, Clients, Figures, Job, MESSAGE_BYTES, RATE},
    machine::{self, Busy, Snapshot},
    table,
};
use crate::{
    clients::server::Against,
    services::{self, pulsar},
};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::Path;

/// Rounds without `--rounds`: one in each order.
const ROUNDS: usize = 2;

/// Ours has to produce and consume as many times what theirs does.
const THROUGHPUT_TARGET: f64 = 3.0;

/// Our slowest hundredth has to take at most this part of theirs.
const LATENCY_TARGET: f64 = 1.0 / 3.0;

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    schema: &'static str,
    pub(super) message_bytes: usize,
    pub(super) rate_per_s: u32,
    pub(super) pulsar: String,
    pub(super) leat: String,
    pub(super) disk: Vec<Disk>,
    pub(super) runs: Vec<Run>,
    pub(super) targets: Vec<Target>,
}

/// What a sync took right before a server was measured.
#[derive(Serialize)]
pub(super) struct Disk {
    pub(super) round: usize,
    pub(super) before: &'static str,
    pub(super) sync_p50_ms: f64,
    pub(super) sync_p99_ms: f64,
}

/// One job of one client on one server.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) round: usize,
    pub(super) server: &'static str,
    pub(super) client: &'static str,
    pub(super) job: &'static str,
    pub(super) figures: Figures,
    pub(super) busy: Busy,
}

/// Something that has to be reached.
#[derive(Serialize)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) met: bool,
    /// Ours divided by theirs, each the mean of all rounds.
    pub(super) figure: f64,
    pub(super) comparison: &'static str,
    pub(super) target: f64,
    pub(super) leat: f64,
    pub(super) pulsar: f64,
    /// What was busy, where it is missed.
    pub(super) profile: Option<String>,
}

fn name(server: Against) -> &'static str {
    match server {
        Against::Leat => "leat",
        Against::Pulsar => "pulsar",
    }
}

/// `cargo xtask bench pulsar [--rounds N] [--only leat|pulsar] [--output FILE]`. One server alone is compared with nothing.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut rounds, mut output, mut only) = (ROUNDS, None, None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("--rounds", Some(count)) => rounds = count.parse().context("reading the number of rounds")?,
            ("--output", Some(file)) => output = Some(*file),
            ("--only", Some(&"leat")) => only = Some(Against::Leat),
            ("--only", Some(&"pulsar")) => only = Some(Against::Pulsar),
            (other, _) => bail!("`{other}` is not known here: bench pulsar [--rounds N] [--only leat|pulsar] [--output FILE]"),
        }
    }
    let cache = services::cache()?;
    let clients = Clients::get(&cache)?;
    let mut report = Report::new();
    for round in 0..rounds {
        let order = if round % 2 == 0 { [Against::Leat, Against::Pulsar] } else { [Against::Pulsar, Against::Leat] };
        for server in order.into_iter().filter(|server| only.is_none_or(|only| only == *server)) {
            report.measure(round, server, &clients, &cache)?;
        }
    }
    if only.is_none() {
        report.judge();
    }
    table::print(&report);
    if let Some(file) = output {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n").with_context(|| format!("writing `{file}`"))?;
    }
    Ok(())
}

impl Report {
    fn new() -> Self {
        Self {
            schema: "leat.bench-pulsar/v1",
            message_bytes: MESSAGE_BYTES,
            rate_per_s: RATE,
            pulsar: format!(
                "Apache Pulsar {} standalone as shipped, but for journalSyncData=true, loopback and {}",
                pulsar::VERSION,
                pulsar::MEMORY_SHIPPED
            ),
            leat: "leat broker, release profile, durability power".to_owned(),
            disk: Vec::new(),
            runs: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// All jobs of all clients on one server, alone on the machine.
    fn measure(&mut self, round: usize, server: Against, clients: &Clients, cache: &Path) -> Result<()> {
        let [sync_p50_ms, sync_p99_ms] = machine::sync_ms(cache)?;
        self.disk.push(Disk { round, before: name(server), sync_p50_ms, sync_p99_ms });
        let running = server.start_for_measurements()?;
        for client in [Client::Crate, Client::Perf] {
            let mut backlog = 0.0;
            for job in Job::ALL {
                // What is drained is what was produced right before.
                let of = if job == Job::Consume { Job::Produce } else { job };
                let topic = format!("bench-{}-{}", client.name().replace(' ', "-"), of.name());
                let before = Snapshot::take(running.pid())?;
                let figures = clients
                    .run(client, job, &running.url(), &topic, backlog)
                    .with_context(|| format!("{} of {} on {}", job.name(), client.name(), name(server)))?;
                let busy = before.busy()?;
                backlog = figures.get("produced").copied().unwrap_or_default();
                let run = Run { round, server: name(server), client: client.name(), job: job.name(), figures, busy };
                table::tell(&run);
                self.runs.push(run);
            }
        }
        Ok(())
    }

    /// Compares the means of all rounds with what has to be reached.
    fn judge(&mut self) {
        let rates = ["produced_per_s", "consumed_per_s"];
        let judged: [(Job, &[&str]); 4] = [
            (Job::Produce, &rates[..1]),
            (Job::Consume, &rates[1..]),
            (Job::Both, &rates),
            (Job::Latency, &["p99_ms", "sent_p99_ms"]),
        ];
        for client in [Client::Crate, Client::Perf] {
            for (job, figures) in judged {
                let target = |figure: &&str| self.target(client, job, figure);
                let targets: Vec<Target> = figures.iter().map(target).collect();
                self.targets.extend(targets);
            }
        }
    }

    fn target(&self, client: Client, job: Job, figure: &str) -> Target {
        let [leat, pulsar] =
            [Against::Leat, Against::Pulsar].map(|server| self.mean(name(server), client.name(), job.name(), figure));
        let ratio = leat / pulsar;
        let (met, comparison, target) = match job {
            Job::Latency => (ratio <= LATENCY_TARGET, "at most", LATENCY_TARGET),
            _ => (ratio >= THROUGHPUT_TARGET, "at least", THROUGHPUT_TARGET),
        };
        let profile = (!met).then(|| {
            let servers = ["leat", "pulsar"];
            servers.map(|server| self.profile(server, client.name(), job.name())).join("; ")
        });
        let name = format!("{} / {} / {figure}", client.name(), job.name());
        Target { name, met, figure: ratio, comparison, target, leat, pulsar, profile }
    }

    fn of<'a>(&'a self, server: &'a str, client: &'a str, job: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.server == server && run.client == client && run.job == job)
    }

    /// One figure of each round.
    pub(super) fn rounds(&self, server: &str, client: &str, job: &str, figure: &str) -> Vec<f64> {
        self.of(server, client, job).filter_map(|run| run.figures.get(figure).copied()).collect()
    }

    fn mean(&self, server: &str, client: &str, job: &str, figure: &str) -> f64 {
        let rounds = self.rounds(server, client, job, figure);
        rounds.iter().sum::<f64>() / rounds.len() as f64
    }

    /// What was busy in the last round.
    fn profile(&self, server: &str, client: &str, job: &str) -> String {
        let busy = self.of(server, client, job).last().map(|run| table::busy(&run.busy));
        format!("with {server}: {}", busy.unwrap_or_default())
    }
}
