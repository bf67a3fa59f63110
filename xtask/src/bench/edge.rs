//! One edge by the dispatcher, beside what the `pulsar` crate and `pulsar-perf` reach on the same service: `cargo xtask bench edge`.
//!
//! `leat bench --broker` measures the dispatcher and the client that it is built on; here follow the clients that nobody here wrote.

use super::load::{Clients, MESSAGE_BYTES};
use crate::{
    clients::server::{Profile, build},
    services,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

/// The service that `services up pulsar` leaves running.
const STANDING: &str = "pulsar://127.0.0.1:6650";

/// What the dispatcher has to reach of what the crate does when it passes messages on by itself.
const OF_CRATE: f64 = 0.9;

/// What it has to reach of what `pulsar-perf` produces and consumes at once, with batches.
const OF_PERF: f64 = 0.8;

/// What the dispatcher may add to the slowest hundredth over the crate, in milliseconds.
const ADDED_MS: f64 = 1.0;

/// How long the crate fills a topic, and passes on what is measured, in seconds.
const FILL_S: u32 = 5;
/// See [`FILL_S`].
const MEASURED_S: u32 = 4;

/// How long its latency is measured, in seconds: as `leat bench` does it.
const LATENCY_S: u32 = 20;

/// `cargo xtask bench edge [--url pulsar://HOST:PORT] [--leat BINARY]`. Without a binary `leat` is built in the release profile.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut url, mut leat) = (STANDING, None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("--url", Some(given)) => url = given,
            ("--leat", Some(binary)) => leat = Some(PathBuf::from(binary)),
            (other, _) => bail!("`{other}` is not known here: bench edge [--url pulsar://HOST:PORT] [--leat BINARY]"),
        }
    }
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    std::net::TcpStream::connect(address)
        .with_context(|| format!("no Pulsar service at `{url}`: `cargo xtask services up pulsar` starts one"))?;
    let leat = leat.map_or_else(|| build("leatworks-cli", "leat", Profile::Release), Ok)?;
    let clients = Clients::get(&services::cache()?)?;
    let ours = ours(&leat, url)?;
    for edge in ours["edges"].as_array().context("`leat bench` says nothing of edges")? {
        let bytes = edge["size_bytes"].as_u64().context("the size of messages")?;
        let dispatcher = edge["dispatcher"]["per_s"].as_f64().context("the dispatcher's rate")?;
        let by_crate = clients.hop(url, &topic(), bytes, FILL_S, MEASURED_S)?;
        println!("{bytes} bytes           {dispatcher:.0} /s by the dispatcher, {by_crate:.0} /s by the pulsar crate");
        let rate = |by: &str, key: &str| edge[by][key].as_f64().with_context(|| format!("`{key}` of {by}"));
        let (client, one, cpu) = (rate("client", "per_s")?, rate("sequential", "per_s")?, rate("dispatcher", "cpu_us")?);
        println!(
            "                    {client:.0} /s by the client alone, {one:.0} /s one at a time; {cpu:.1} µs CPU each by the dispatcher"
        );
        judge(&format!("of the crate, {bytes} bytes"), dispatcher / by_crate, OF_CRATE, true);
        if bytes == MESSAGE_BYTES as u64 {
            let [produced, consumed] = clients.perf_at_once(url, &topic())?;
            println!("                    {produced:.0} /s produced and {consumed:.0} /s consumed at once by pulsar-perf");
            judge(&format!("of pulsar-perf, {bytes} bytes"), dispatcher / produced.min(consumed), OF_PERF, true);
        }
    }
    let found = ours["latency_ms"].as_array().and_then(|all| all.iter().find(|each| each[0] == "by the dispatcher"));
    let by_dispatcher = found.and_then(|each| each[1]["p99"].as_f64()).context("the dispatcher's latency")?;
    let by_crate = clients.hop_p99_ms(url, &topic(), FILL_S, LATENCY_S)?;
    println!("latency             p99 {by_dispatcher:.2} ms by the dispatcher, {by_crate:.2} ms by the pulsar crate");
    judge("p99 added to the crate's, ms", by_dispatcher - by_crate, ADDED_MS, false);
    for hop in ours["http"].as_array().context("`leat bench` says nothing of HTTP workers")? {
        let form = hop["form"].as_str().context("the form of a hop")?;
        let number = |value: &Value| value.as_f64().with_context(|| format!("the figures of the hop, {form}"));
        let (per_s, cpu, target) =
            (number(&hop["rate"]["per_s"])?, number(&hop["rate"]["cpu_us"])?, number(&hop["target_per_s"])?);
        println!("HTTP hop            {per_s:.0} /s, {form}, {cpu:.1} µs CPU each of the dispatcher and its broker");
        judge(&format!("HTTP hop, {form}"), per_s, target, true);
    }
    Ok(())
}

/// What `leat bench` says. It prints what it does meanwhile.
fn ours(leat: &Path, url: &str) -> Result<Value> {
    let mut command = Command::new(leat);
    command.args(["bench", "--broker", url, "--output", "json"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("starting `{}`", leat.display()))?;
    ensure!(output.status.success(), "`leat bench` ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("reading what `leat bench` says")
}

/// A topic that is new.
fn topic() -> String {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
    format!("bench-edge-{stamp:x}")
}

fn judge(name: &str, figure: f64, target: f64, at_least: bool) {
    let met = if at_least { figure >= target } else { figure <= target };
    let (word, comparison) = (if met { "met" } else { "missed" }, if at_least { "at least" } else { "at most" });
    println!("{word:<7} {name:<31} {figure:.2}, {comparison} {target}");
}
