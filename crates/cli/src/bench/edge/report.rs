//! What is printed of edges on Pulsar and of hops to HTTP workers.

use super::{
    Target,
    flow::{By, Rate},
    latency::Times,
};
use crate::{
    bench::{
        flags::WorkerForm,
        report::{AT_LEAST, AT_MOST, target},
    },
    exit::say,
};
use serde::Serialize;

/// The part of what the client alone does that the dispatcher has to reach.
const OF_CLIENT: f64 = 0.9;

/// What the dispatcher may add to the slowest hundredth, in milliseconds.
const ADDED_MS: f64 = 1.0;

/// All that was measured on a Pulsar service.
#[derive(Serialize)]
pub(crate) struct Edges {
    schema: &'static str,
    broker: String,
    messages: u64,
    edges: Vec<Sized>,
    /// By who was between.
    pub(super) latency_ms: Vec<(&'static str, Times)>,
    pub(super) http: Vec<Hop>,
    targets: Vec<Target>,
}

/// Messages of one size.
#[derive(Serialize)]
struct Sized {
    size_bytes: u64,
    client: Rate,
    dispatcher: Rate,
    sequential: Rate,
    /// The dispatcher's rate as a part of the client's.
    ratio: f64,
}

/// The hop to an HTTP worker in one form.
#[derive(Serialize)]
pub(crate) struct Hop {
    form: &'static str,
    target_per_s: f64,
    rate: Rate,
}

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dispatcher => "by the dispatcher",
            Self::Client => "by the client alone",
            Self::Sequential => "one at a time",
        }
    }
}

impl WorkerForm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch form",
            Self::Single => "one JSON message a request",
        }
    }
}

impl Hop {
    pub(super) fn new(form: WorkerForm, rate: Rate) -> Self {
        let target_per_s = match form {
            WorkerForm::Batch => 30_000.0,
            WorkerForm::Single => 8_000.0,
        };
        Self { form: form.name(), target_per_s, rate }
    }

    /// The target that it has.
    pub(crate) fn target(&self) -> Option<Target> {
        let rate = &self.rate;
        target(format!("HTTP hop, {}", self.form), Some(rate.per_s), (AT_LEAST, self.target_per_s), "/s", &rate.profile)
    }

    pub(crate) fn print(&self) {
        let Rate { per_s, cpu_us, profile } = &self.rate;
        say!("HTTP hop          {per_s:.0} /s, {}, {cpu_us:.1} µs CPU each of the dispatcher and its broker", self.form);
        say!("                  {}", profile.describe());
    }
}

impl Edges {
    pub(super) fn new(url: &str, messages: u64) -> Self {
        Self {
            schema: "leat.bench-edge/v1",
            broker: url.to_owned(),
            messages,
            edges: Vec::new(),
            latency_ms: Vec::new(),
            http: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// What was measured with messages of one size, in the order of measuring.
    pub(super) fn add(&mut self, size_bytes: u64, rates: Vec<Rate>) {
        let Ok([client, dispatcher, sequential]) = <[Rate; 3]>::try_from(rates) else { return };
        let ratio = dispatcher.per_s / client.per_s;
        self.edges.push(Sized { size_bytes, client, dispatcher, sequential, ratio });
    }

    /// What the dispatcher adds to the slowest hundredth.
    fn added_p99(&self) -> Option<f64> {
        let p99 = |by: By| self.latency_ms.iter().find(|(name, _)| *name == by.name()).map(|(_, times)| times.p99);
        Some(p99(By::Dispatcher)? - p99(By::Client)?)
    }

    pub(super) fn judge(&mut self) {
        let mut all = Vec::new();
        for edge in &self.edges {
            let name = format!("of the client, {} bytes", edge.size_bytes);
            all.push(target(name, Some(edge.ratio), (AT_LEAST, OF_CLIENT), "", &edge.dispatcher.profile));
        }
        if let Some(last) = self.edges.last() {
            let profile = &last.dispatcher.profile;
            all.push(target("p99 added by the dispatcher", self.added_p99(), (AT_MOST, ADDED_MS), "ms", profile));
        }
        all.extend(self.http.iter().map(Hop::target));
        self.targets = all.into_iter().flatten().collect();
    }

    /// Prints it for people.
    pub(crate) fn print(&self) {
        say!("broker            {}, {} messages for each rate", self.broker, self.messages);
        for Sized { size_bytes, client, dispatcher, sequential, ratio } in &self.edges {
            say!("{size_bytes} bytes");
            for (by, rate) in [(By::Client, client), (By::Dispatcher, dispatcher), (By::Sequential, sequential)] {
                let Rate { per_s, cpu_us, profile } = rate;
                say!("  {:<19} {per_s:>8.0} /s, {cpu_us:.1} µs CPU each", by.name());
                say!("                      {}", profile.describe());
            }
            let times = dispatcher.per_s / sequential.per_s;
            say!("  the dispatcher      {ratio:.2} of the client alone, {times:.0} times one at a time");
        }
        for (name, times) in &self.latency_ms {
            let Times { messages, p50, p99, p999 } = times;
            say!("latency             p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2} ms, {name}, {messages} messages");
        }
        self.http.iter().for_each(Hop::print);
        self.targets.iter().for_each(Target::print);
    }
}
