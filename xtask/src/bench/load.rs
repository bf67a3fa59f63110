//! The clients that load a server, and what they print: the program of the `pulsar` crate, and `pulsar-perf`.

use crate::{clients::programs, services};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Bytes of each message.
pub(super) const MESSAGE_BYTES: usize = 200;

/// How much longer than its sender a client may pass messages on, in seconds.
const PASSING_LONGER_S: u32 = 20;

/// Messages a second where latency is measured: far below what any of both servers can do, and what `leat bench` takes.
pub(super) const RATE: u32 = 1_000;

/// How long the crate's program warms up and measures.
const WARM_S: u32 = 3;
/// See [`WARM_S`].
const MEASURED_S: u32 = 15;

/// How long `pulsar-perf` runs: it prints every ten seconds, so the first interval is its warm-up and the second counts. The rest is for starting,
/// which took 7 s on a machine with builds.
const PERF_S: u32 = 35;

/// The intervals of `pulsar-perf` that warm it up.
const PERF_WARM: usize = 1;

/// Messages that `pulsar-perf` has no receipt for yet, at most; the crate's program has the same limit.
const OUTSTANDING_MAX: u32 = 10_000;

/// More than anything here can send in a second: as fast as it goes.
const UNLIMITED: u32 = 10_000_000;

/// A client takes less than a minute, also where starting and stopping are slow. Then it hangs.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// What a client is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Publish batches, as fast as it goes.
    Produce,
    /// Drain what was published before, each message acknowledged by itself.
    Consume,
    /// Both at once.
    Both,
    /// Publish at a fixed rate, without batches, and consume.
    Latency,
}

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Crate,
    Perf,
}

/// Names of figures and what was measured.
pub(super) type Figures = BTreeMap<String, f64>;

/// The clients, built and found.
pub(super) struct Clients {
    program: PathBuf,
    perf: PathBuf,
    logs: PathBuf,
}

impl Job {
    pub(super) const ALL: [Self; 4] = [Self::Produce, Self::Consume, Self::Both, Self::Latency];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Both => "both",
            Self::Latency => "latency",
        }
    }
}

impl Client {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crate => "pulsar crate",
            Self::Perf => "pulsar-perf",
        }
    }
}

impl Clients {
    /// Builds and fetches them.
    pub(super) fn get(cache: &Path) -> Result<Self> {
        programs::rust(cache)?;
        let home = services::pulsar::fetch()?;
        Ok(Self {
            program: programs::rust_program(cache),
            perf: home.join("bin/pulsar-perf"),
            logs: cache.join("clients/perf-logs"),
        })
    }

    /// Makes a client do its job. What is drained is what `Produce` has left on the topic, `backlog` messages.
    pub(super) fn run(&self, client: Client, job: Job, url: &str, topic: &str, backlog: f64) -> Result<Figures> {
        if job != Job::Consume {
            self.load(&["subscribe", topic], url)?;
        }
        match client {
            Client::Crate => {
                let settings = [("bytes", MESSAGE_BYTES as u32), ("rate", RATE), ("warm", WARM_S), ("seconds", MEASURED_S)];
                let settings = settings.map(|(key, value)| format!("{key}={value}"));
                let words: Vec<&str> = [job.name(), topic].into_iter().chain(settings.iter().map(String::as_str)).collect();
                self.load(&words, url)
            }
            Client::Perf => self.perf(job, url, topic, backlog),
        }
    }

    /// Messages a second that the crate passes on from one topic to another, from what it has filled the first with.
    pub(super) fn hop(&self, url: &str, topic: &str, bytes: u64, fill_s: u32, measured_s: u32) -> Result<f64> {
        self.load(&["subscribe", topic], url)?;
        let (bytes, to) = (format!("bytes={bytes}"), format!("to={topic}-out"));
        self.load(&["produce", topic, &bytes, "warm=0", &format!("seconds={fill_s}")], url)?;
        let figures = self.load(&["hop", topic, &to, &bytes, "warm=1", &format!("seconds={measured_s}")], url)?;
        figures.get("hopped_per_s").copied().context("the crate has not said how many it passed on")
    }

    /// The slowest hundredth of what the crate sends, passes on and receives, in milliseconds.
    pub(super) fn hop_p99_ms(&self, url: &str, topic: &str, warm_s: u32, measured_s: u32) -> Result<f64> {
        let (out, to) = (format!("{topic}-out"), format!("to={topic}-out"));
        self.load(&["subscribe", topic], url)?;
        self.load(&["subscribe", &out], url)?;
        let job = |what: &str, seconds: u32| {
            let settings = [("bytes", MESSAGE_BYTES as u32), ("rate", RATE), ("warm", warm_s), ("seconds", seconds)];
            let settings = settings.map(|(key, value)| format!("{key}={value}"));
            let words = [what, topic, &to, "batches=0"].map(str::to_owned).into_iter().chain(settings).collect::<Vec<_>>();
            self.load(&words.iter().map(String::as_str).collect::<Vec<_>>(), url)
        };
        std::thread::scope(|scope| {
            // It ends when nothing has come for a second, so that also what is sent last is passed on.
            let passing = scope.spawn(|| job("hop", measured_s + PASSING_LONGER_S));
            let figures = job("latency", measured_s)?;
            passing.join().map_err(|_| anyhow::anyhow!("passing messages on has panicked"))??;
            figures.get("p99_ms").copied().context("the crate has not said how long messages took")
        })
    }

    /// Messages a second that `pulsar-perf` produces and consumes at once.
    pub(super) fn perf_at_once(&self, url: &str, topic: &str) -> Result<[f64; 2]> {
        self.load(&["subscribe", topic], url)?;
        let figures = self.perf(Job::Both, url, topic, 0.0)?;
        let rate = |name: &str| figures.get(name).copied().with_context(|| format!("pulsar-perf has not said {name}"));
        Ok([rate("produced_per_s")?, rate("consumed_per_s")?])
    }

    fn load(&self, words: &[&str], url: &str) -> Result<Figures> {
        let mut command = Command::new("timeout");
        command.arg(CLIENT_LIMIT.as_secs().to_string()).arg(&self.program).arg("load").args(words);
        let output =
            command.env("PULSAR_URL", url).stdin(Stdio::null()).output().context("starting the pulsar crate's program")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "`load {}` ended with {}: {}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let figures: BTreeMap<String, Value> = serde_json::from_str(said.trim()).with_context(|| format!("reading `{said}`"))?;
        Ok(figures.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect())
    }

    fn perf(&self, job: Job, url: &str, topic: &str, backlog: f64) -> Result<Figures> {
        let produce = |rate: u32, more: &[&str]| {
            let (rate, bytes, outstanding) = (rate.to_string(), MESSAGE_BYTES.to_string(), OUTSTANDING_MAX.to_string());
            let words = ["produce", "-r", &rate, "-s", &bytes, "-o", &outstanding, "-b", "1"];
            self.start(&[&words[..], more].concat(), url, topic)
        };
        let consume = |more: &[&str]| {
            let words = ["consume", "-st", "Shared", "-ss", "s", "-sp", "Earliest"];
            self.start(&[&words[..], more].concat(), url, topic)
        };
        match job {
            Job::Produce => {
                let said = produce(UNLIMITED, &[])?.end()?;
                Ok([("produced_per_s", said.rate()?), ("produced", said.sent()?)].map(owned).into())
            }
            Job::Consume => {
                // It ends with the last message, or after its time.
                let said = consume(&["-m", &backlog.to_string()])?.end()?;
                Ok([("consumed_per_s", said.drained_per_s()?), ("consumed", said.sent()?)].map(owned).into())
            }
            Job::Both => {
                let (consuming, producing) = (consume(&[])?, produce(UNLIMITED, &[])?);
                let (produced, consumed) = (producing.end()?, consuming.end()?);
                Ok([("produced_per_s", produced.rate()?), ("consumed_per_s", consumed.rate()?)].map(owned).into())
            }
            Job::Latency => {
                let (consuming, producing) = (consume(&[])?, produce(RATE, &["-db"])?);
                let (produced, consumed) = (producing.end()?, consuming.end()?);
                let [p50, p99, p999] = consumed.latency()?;
                let [sent_p50, sent_p99, sent_p999] = produced.latency()?;
                let sent = [("sent_p50_ms", sent_p50), ("sent_p99_ms", sent_p99), ("sent_p999_ms", sent_p999)];
                let names = [("messages", consumed.rate()? * 10.0), ("p50_ms", p50), ("p99_ms", p99), ("p999_ms", p999)];
                Ok(names.into_iter().chain(sent).map(owned).collect())
            }
        }
    }

    fn start(&self, words: &[&str], url: &str, topic: &str) -> Result<Perf> {
        // A tool that hangs is ended by the one that waits for it.
        let mut command = Command::new("timeout");
        command.arg(CLIENT_LIMIT.as_secs().to_string()).arg(&self.perf).args(words);
        command.args(["-time", &PERF_S.to_string(), "-u", url, topic]);
        command.env("PULSAR_LOG_DIR", &self.logs);
        command.env("PULSAR_GC_LOG", "-Xlog:disable").env("PULSAR_EXTRA_OPTS", "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Perf(command.spawn().context("starting pulsar-perf")?))
    }
}

fn owned((name, figure): (&str, f64)) -> (String, f64) {
    (name.to_owned(), figure)
}

/// `pulsar-perf` as it runs.
struct Perf(Child);

impl Perf {
    /// Hears it until it ends. What it prints fits into a pipe, so another one may be heard first.
    fn end(mut self) -> Result<Said> {
        let output = self.0.stdout.take().context("the tool's output is a pipe")?;
        let lines = BufReader::new(output).lines().map_while(Result::ok).map(|line| (Instant::now(), line)).collect();
        // It ends with an error when its time is over, so only what it said counts.
        self.0.wait()?;
        Ok(Said(lines))
    }
}

/// What `pulsar-perf` has printed, and when.
struct Said(Vec<(Instant, String)>);

impl Said {
    fn first(&self, text: &str) -> Result<&(Instant, String)> {
        let found = self.0.iter().find(|(_, line)| line.contains(text));
        found.with_context(|| format!("pulsar-perf did not say `{text}` but: {:?}", self.0.last()))
    }

    /// The interval that counts.
    fn interval(&self) -> Result<&str> {
        let mut intervals = self.0.iter().filter(|(_, line)| line.contains(" - Throughput "));
        Ok(&intervals.nth(PERF_WARM).context("pulsar-perf ended before its second interval")?.1)
    }

    /// Messages a second in it.
    fn rate(&self) -> Result<f64> {
        before(self.interval()?, "msg/s")
    }

    /// The three quantiles of it in milliseconds. What was received is counted in whole milliseconds, as messages are stamped with these.
    fn latency(&self) -> Result<[f64; 3]> {
        let line = self.interval()?;
        Ok([after(line, "med:")?, after(line, " 99pct:")?, after(line, "99.9pct:")?])
    }

    /// All that was sent or received.
    fn sent(&self) -> Result<f64> {
        before(&self.first("Aggregated throughput")?.1, "records")
    }

    /// Messages a second from the first that could come until the last has, or until the time is over.
    fn drained_per_s(&self) -> Result<f64> {
        let start = self.first("Start receiving")?.0;
        let end = self.first("DONE").or_else(|_| self.first("Aggregated throughput"))?.0;
        Ok(self.sent()? / (end - start).as_secs_f64())
    }
}

/// The number before a word.
fn before(line: &str, word: &str) -> Result<f64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at =
        words.iter().position(|found| *found == word).filter(|at| *at > 0).with_context(|| format!("no {word} in {line}"))?;
    words[at - 1].parse().with_context(|| format!("reading {line}"))
}

/// The number after a text.
fn after(line: &str, text: &str) -> Result<f64> {
    let rest = line.split_once(text).with_context(|| format!("no {text} in {line}"))?.1;
    rest.split_whitespace().next().unwrap_or_default().parse().with_context(|| format!("reading {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_pulsar_perf_are_read_as_it_prints_them() -> Result<()> {
        let lines = [
            "x [main] INFO  y - Throughput produced: 2256671 msg --- 225439.0 msg/s ---    344.0 Mbit/s  --- failure      0.0 msg/s --- \
             Latency: mean:  23.222 ms - med:  21.663 - 95pct:  44.386 - 99pct:  68.181 - 99.9pct:  93.830 - 99.99pct: 128.650 - Max: 128.950",
            "x [main] INFO  y - Throughput received: 5 msg ---  39078.6  msg/s ---   59.3  Mbit/s  --- \
             Latency: mean: 2.5 ms - med: 2 - 95pct: 4 - 99pct: 8 - 99.9pct: 93 - 99.99pct: 128 - Max: 130",
            "x [perf-client-shutdown] INFO  y - Aggregated throughput stats --- 7806070 records sent --- 257924.102 msg/s --- 393.561 Mbit/s ",
        ];
        let said = Said(lines.map(|line| (Instant::now(), line.to_owned())).into());
        assert_eq!(said.rate()?, 39_078.6);
        assert_eq!(said.latency()?, [2.0, 8.0, 93.0]);
        assert_eq!(said.sent()?, 7_806_070.0);
        assert_eq!(before(lines[0], "msg/s")?, 225_439.0);
        Ok(())
    }
}
