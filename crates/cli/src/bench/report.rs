//! What is printed: figures, and the targets that they meet or miss.

use super::{
    HOPS_PER_ROOT,
    disk::{OneSync, Syncs},
    edge::Hop,
    load::Latency,
    phase::Profile,
    plain::{Backlog, Shape, Writes},
    recovery::Recovery,
};
use crate::exit::say;
use serde::Serialize;

/// All that was measured. A part that was not is null.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    pub(crate) broker: &'static str,
    pub(crate) durability: String,
    pub(crate) messages: u64,
    pub(crate) size_bytes: u64,
    pub(crate) throughput: Throughput,
    /// The same with elision switched off; null for memory, which has none.
    pub(crate) throughput_without_elision: Option<Throughput>,
    pub(crate) latency_ms: Latency,
    /// One sync of the disk right before and right after latency was measured.
    pub(crate) one_sync: Option<OneSync>,
    pub(crate) writes: Option<Writes>,
    pub(crate) scale: Option<Vec<Shape>>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) account: Counted,
    pub(crate) disk_limit: Vec<Syncs>,
    /// The hop to an HTTP worker; with the broker in memory only.
    pub(crate) http: Option<Vec<Hop>>,
    pub(crate) targets: Vec<Target>,
}

/// How fast the diamond was.
#[derive(Serialize)]
pub(crate) struct Throughput {
    pub(crate) edge_hops_per_s: f64,
    pub(crate) cpu_us_per_hop: f64,
    pub(crate) bytes_written_per_hop: Option<f64>,
    /// What the journal wrote a second as a part of what the disk carries at its best group size.
    pub(crate) ratio_to_limit: Option<f64>,
    /// The same as a part of what the disk carries in groups of the size that this run had.
    pub(crate) ratio_to_limit_in_such_groups: Option<f64>,
    pub(crate) profile: Profile,
}

/// The account of every message that was sent through a diamond.
#[derive(Default, Serialize)]
pub(crate) struct Counted {
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) in_flight: u64,
}

/// A target and what was measured.
#[derive(Serialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) met: bool,
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    /// `at least` or `at most`.
    pub(crate) comparison: &'static str,
    pub(crate) target: f64,
    /// Where it is missed: what the process and the disk were doing.
    pub(crate) profile: Option<String>,
}

impl Throughput {
    pub(crate) fn new(messages: u64, best_bytes_per_s: f64, profile: Profile) -> Self {
        let hops = (messages * HOPS_PER_ROOT) as f64;
        let written = profile.spent.written_bytes.filter(|_| profile.disk.is_some()).map(|bytes| bytes as f64);
        Self {
            edge_hops_per_s: hops / profile.spent.elapsed_s,
            cpu_us_per_hop: profile.spent.cpu_s * 1e6 / hops,
            bytes_written_per_hop: written.map(|bytes| bytes / hops),
            ratio_to_limit: written
                .filter(|_| best_bytes_per_s > 0.0)
                .map(|bytes| bytes / profile.spent.elapsed_s / best_bytes_per_s),
            ratio_to_limit_in_such_groups: None,
            profile,
        }
    }
}

pub(crate) const AT_LEAST: &str = "at least";
pub(crate) const AT_MOST: &str = "at most";

/// A figure that may not have been measured, beside its target.
pub(crate) fn target(
    name: impl Into<String>,
    figure: Option<f64>,
    (comparison, target): (&'static str, f64),
    unit: &'static str,
    profile: &Profile,
) -> Option<Target> {
    let figure = figure?;
    let met = if comparison == AT_LEAST { figure >= target } else { figure <= target };
    let profile = (!met).then(|| profile.describe());
    Some(Target { name: name.into(), met, figure, unit, comparison, target, profile })
}

impl Report {
    /// The targets of two cores, level `power`, 200-byte messages and the diamond of four edges, as far as they were measured.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let with = &self.throughput;
        let mut all =
            vec![target("edge hops with elision", Some(with.edge_hops_per_s), (AT_LEAST, 1_000_000.0), "/s", &with.profile)];
        if let Some(without) = &self.throughput_without_elision {
            let (speed, profile) = (Some(without.edge_hops_per_s), &without.profile);
            all.push(target("edge hops without elision", speed, (AT_LEAST, 400_000.0), "/s", profile));
            all.push(target("of the disk's best bandwidth", without.ratio_to_limit, (AT_LEAST, 0.6), "", profile));
        }
        all.push(target("CPU for a hop", Some(with.cpu_us_per_hop), (AT_MOST, 1.0), "µs", &with.profile));
        if let Some(sync) = self.one_sync.map(OneSync::ms) {
            let latency = &self.latency_ms;
            all.push(target("latency p50", Some(latency.p50 / sync), (AT_MOST, 1.5), "syncs", &latency.profile));
            all.push(target("latency p99", Some(latency.p99 / sync), (AT_MOST, 3.0), "syncs", &latency.profile));
        }
        if let Some(writes) = &self.writes {
            all.push(target("written to publish a byte", writes.published, (AT_MOST, 1.2), "bytes", &writes.publishing));
            all.push(target("written to acknowledge one", writes.acknowledged, (AT_MOST, 0.15), "bytes", &writes.acknowledging));
        }
        for shape in self.scale.iter().flatten().skip(1) {
            let name = match (shape.topics, shape.subscriptions) {
                (topics, 1) => format!("CPU with {topics} topics"),
                (_, subscriptions) => format!("CPU with {subscriptions} subscriptions"),
            };
            all.push(target(name, Some(shape.ratio), (AT_MOST, 1.2), "times that of 1", &shape.profile));
        }
        if let Some(recovery) = &self.recovery {
            let figure = Some(recovery.first_delivery_ms / 1e3);
            all.push(target("recovery to the first delivery", figure, (AT_MOST, 2.0), "s", &recovery.profile));
            all.push(target("start of a new broker", Some(recovery.new_ms), (AT_MOST, 50.0), "ms", &recovery.starting));
            all.push(target("start of an empty broker", Some(recovery.empty_ms), (AT_MOST, 50.0), "ms", &recovery.starting));
        }
        if let Some(backlog) = &self.backlog {
            let figure = backlog.peak_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
            all.push(target("peak memory with the backlog", figure, (AT_MOST, 512.0), "MiB", &backlog.publishing));
        }
        all.into_iter().flatten().collect()
    }

    /// Prints it for people.
    pub(crate) fn print(&self) {
        let or_none =
            |value: Option<f64>, unit: &str| value.map_or("not measured here".to_owned(), |value| format!("{value:.2} {unit}"));
        say!("broker            {} ({})", self.broker, self.durability);
        say!("messages          {} of {} bytes, {HOPS_PER_ROOT} edges each", self.messages, self.size_bytes);
        self.throughput.print("edge hops");
        if let Some(without) = &self.throughput_without_elision {
            without.print("without elision");
        }
        self.print_latency();
        if let Some(writes) = &self.writes {
            let (published, acknowledged) = (or_none(writes.published, ""), or_none(writes.acknowledged, ""));
            say!(
                "bytes written     {published}for each byte published, {acknowledged}for its delivery and acknowledgement, without elision"
            );
        }
        self.print_more();
        say!("peak memory       {}", or_none(self.peak_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), "MiB"));
        let Counted { sent, done, dead_lettered, in_flight } = self.account;
        say!("account           sent {sent} = done {done} + dead-lettered {dead_lettered} + in flight {in_flight}");
        for syncs in &self.disk_limit {
            say!(
                "disk, {:>4} KiB    {:.0} syncs/s, {:.1} MB/s, p50 {:.2}, p99 {:.2} ms",
                syncs.group_bytes >> 10,
                syncs.syncs_per_s,
                syncs.bytes_per_s / 1e6,
                syncs.p50_ms,
                syncs.p99_ms
            );
        }
        self.http.iter().flatten().for_each(Hop::print);
        self.targets.iter().for_each(Target::print);
    }

    fn print_latency(&self) {
        let latency = &self.latency_ms;
        say!(
            "latency           p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms through the graph, {} messages at {} /s, sent late by p50 {:.2}, p99 {:.2} ms",
            latency.p50,
            latency.p99,
            latency.p999,
            latency.messages,
            latency.rate,
            latency.late_p50,
            latency.late_p99
        );
        say!("                  {}", latency.profile.describe());
        if let Some(sync) = &self.one_sync {
            let (before, after) = (sync.before_p50_ms, sync.after_p50_ms);
            say!(
                "one sync          {:.2} ms: p50 {before:.2} before and {after:.2} after, p99 {:.2} and {:.2}",
                sync.ms(),
                sync.before_p99_ms,
                sync.after_p99_ms
            );
        }
    }

    fn print_more(&self) {
        for shape in self.scale.iter().flatten() {
            say!(
                "{:>2} topics x {:>2}     {:.0} deliveries/s, {:.2} µs CPU each, {:.2} of that of 1 x 1",
                shape.topics,
                shape.subscriptions,
                shape.deliveries_per_s,
                shape.cpu_us_per_delivery,
                shape.ratio
            );
        }
        if let Some(recovery) = &self.recovery {
            let Recovery { messages, first_delivery_ms, open_ms, new_ms, empty_ms, .. } = recovery;
            say!(
                "recovery          {first_delivery_ms:.0} ms to the first delivery with {messages} waiting, {open_ms:.0} ms of it to open"
            );
            say!("start-up          {new_ms:.1} ms for a new broker, {empty_ms:.1} ms for an empty one");
        }
        if let Some(backlog) = &self.backlog {
            let Backlog { messages, published_per_s, consumed_per_s, .. } = backlog;
            say!(
                "backlog           {messages} messages, published at {published_per_s:.0} /s, then consumed at {consumed_per_s:.0} /s"
            );
        }
    }
}

impl Throughput {
    fn print(&self, name: &str) {
        let Self { edge_hops_per_s, cpu_us_per_hop, .. } = self;
        let written = self.bytes_written_per_hop.map_or(String::new(), |bytes| format!(", {bytes:.0} bytes written for a hop"));
        say!("{name:<17} {edge_hops_per_s:.0} /s, {cpu_us_per_hop:.2} µs CPU for a hop{written}");
        say!("                  {}", self.profile.describe());
        if let Some((best, such)) = self.ratio_to_limit.zip(self.ratio_to_limit_in_such_groups) {
            say!("                  {best:.2} of the disk's best bandwidth, {such:.2} of what it carries in groups of this size");
        }
    }
}

impl Target {
    pub(crate) fn print(&self) {
        let Self { name, met, figure, unit, comparison, target, profile } = self;
        let digits = if *figure >= 1_000.0 { 0 } else { 2 };
        let word = if *met { "met" } else { "missed" };
        say!("{word:<7} {name:<31} {figure:.digits$} {unit}, {comparison} {target}");
        if let Some(profile) = profile {
            say!("        {profile}");
        }
    }
}
