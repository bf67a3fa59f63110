//! The controller on a real API server, with many topologies of which no pod is asked for: `cargo xtask bench kubernetes`.
//!
//! The API server, its controllers and the broker share the machine's cores with it, so what is seen of time is what a small cluster gives.

use crate::{
    clients::server::{Profile, build},
    services::{
        kubernetes::{Cluster, Metrics, Ours, Size},
        wait_every,
    },
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// The cluster of this measurement.
const CLUSTER: &str = "bench";
/// Where the topologies are.
const NAMESPACE: &str = "many";
/// Where the controller serves its metrics.
const PORT: u16 = 9303;
/// How many topologies there are, one after another.
const SIZES: [usize; 3] = [10, 100, 1000];
/// A thousand topologies are ten thousand objects and a hundred thousand calls, of which an API server on two cores answers some eighty a second.
const PATIENCE: Duration = Duration::from_secs(2400);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a controller that has nothing to do is left alone before its calls are counted again.
const IDLE: Duration = Duration::from_secs(20);
/// How many topologies there are at the end that cannot be made, and for how long they are tried.
const FAILING: usize = 20;
const FAIL: Duration = Duration::from_secs(60);

/// `cargo xtask bench kubernetes [--topologies N,…] [--leat BINARY]`. Without a binary `leat` is built in the release profile.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut sizes, mut leat) = (SIZES.to_vec(), None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("--topologies", Some(given)) => {
                let numbers: std::result::Result<_, _> = given.split(',').map(str::parse).collect();
                sizes = numbers.context("`--topologies` takes numbers with commas between them")?;
            }
            ("--leat", Some(binary)) => leat = Some(PathBuf::from(binary)),
            (other, _) => bail!("`{other}` is not known here: bench kubernetes [--topologies N,…] [--leat BINARY]"),
        }
    }
    sizes.sort_unstable();
    let leat = leat.map_or_else(|| build("leatworks-cli", "leat", Profile::Release), Ok)?;
    let leat = leat.canonicalize().with_context(|| format!("finding `{}`", leat.display()))?;
    let cluster = Cluster::named(CLUSTER)?.locked()?;
    cluster.up(Size { nodes: 0, with_pulsar: false })?;
    let measured = measure(&cluster, &leat, &sizes);
    cluster.down()?;
    measured
}

fn measure(cluster: &Cluster, leat: &Path, sizes: &[usize]) -> Result<()> {
    let folder = cluster.files().join("bench");
    std::fs::create_dir_all(&folder)?;
    define(cluster, leat, NAMESPACE)?;
    let _broker = Ours::broker(cluster, leat, &folder)?;
    let bench = Bench { cluster, leat, folder };
    let mut controller = bench.controller()?;
    let mut there = 0;
    println!(
        "{:>10}  {:<22} {:>8} {:>8} {:>10} {:>10} {:>10} {:>8}",
        "topologies", "what", "seconds", "looks", "ms a look", "API calls", "of writes", "RSS, MB"
    );
    for size in sizes {
        let all: Vec<Value> = (there..*size).map(|number| topology(number, 3)).collect();
        let added = all.len();
        bench.timed(*size, &format!("{added} new ones"), &controller, || {
            apply(cluster, &json!({"apiVersion": "v1", "kind": "List", "items": all}))?;
            bench.until_ready(*size)
        })?;
        there = *size;
        bench.timed(*size, "one edited", &controller, || {
            apply(cluster, &topology(0, 4))?;
            bench.until_edited(0, 4)
        })?;
        apply(cluster, &topology(0, 3))?;
        bench.until_edited(0, 3)?;
        bench.timed(*size, "nothing to do", &controller, || {
            pause(IDLE);
            Ok(())
        })?;
        drop(controller);
        let (began, writes) = (Instant::now(), cluster.writes()?);
        controller = bench.controller()?;
        bench.until_ready(*size)?;
        bench.row(*size, "a new controller", began.elapsed(), &Counted::default(), &controller)?;
        ensure!(cluster.writes()? == writes, "a controller that comes anew writes, where there is nothing to do");
    }
    let failing: Vec<Value> = (there..there + FAILING).map(without_a_broker).collect();
    apply(cluster, &json!({"apiVersion": "v1", "kind": "List", "items": failing}))?;
    for minute in ["first", "second", "third"] {
        bench.timed(there + FAILING, &format!("{FAILING} fail, {minute} minute"), &controller, || {
            pause(FAIL);
            Ok(())
        })?;
    }
    Ok(())
}

fn pause(time: Duration) {
    let began = Instant::now();
    // A pause may end early.
    while began.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(began.elapsed()));
    }
}

/// What a controller has counted.
#[derive(Default)]
struct Counted {
    calls: u64,
    writes: u64,
    looks: u64,
    seconds: f64,
}

struct Bench<'a> {
    cluster: &'a Cluster,
    leat: &'a Path,
    folder: PathBuf,
}

impl Bench<'_> {
    fn controller(&self) -> Result<Ours> {
        let listen = format!("127.0.0.1:{PORT}");
        let words =
            ["controller", "--namespace", NAMESPACE, "--lease-namespace", NAMESPACE, "--identity", "one", "--listen", &listen];
        let mut command = self.cluster.ours(self.leat);
        Ours::start(command.args(words).current_dir(&self.folder), &self.folder.join("controller.log"))
    }

    fn counted(&self) -> Result<Counted> {
        let metrics = wait_every(LOOK_AGAIN, "the controller's start", PATIENCE, || Ok(self.cluster.metrics(PORT).ok()))?;
        let (looks, seconds) = metrics.reconciled();
        Ok(Counted { calls: calls(&metrics), writes: metrics.written(), looks, seconds })
    }

    /// Waits until this many are ready, by the controller's own count: to list them all would be work for the API server.
    fn until_ready(&self, count: usize) -> Result<()> {
        wait_every(LOOK_AGAIN, "the end of the controller's work", PATIENCE, || {
            let Ok(metrics) = self.cluster.metrics(PORT) else { return Ok(None) };
            Ok((metrics.sum("leatworks_topologies{", &["\"Ready\""]) >= count as u64).then_some(()))
        })
    }

    /// Waits until a topology is ready with so many tasks.
    fn until_edited(&self, number: usize, tasks: usize) -> Result<()> {
        let name = name(number);
        wait_every(LOOK_AGAIN, "the end of an edit", PATIENCE, || {
            let text = kubectl(self.cluster, &["--namespace", NAMESPACE, "get", "topology", &name, "--output=json"], &[])?;
            let live: Value = serde_json::from_slice(&text)?;
            let status = &live["status"];
            let is_current = status["observedGeneration"] == live["metadata"]["generation"];
            Ok((is_current && status["state"] == "Ready" && status["tasksReady"] == format!("{tasks}/{tasks}")).then_some(()))
        })
    }

    fn timed(&self, size: usize, what: &str, controller: &Ours, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let (before, began) = (self.counted()?, Instant::now());
        act()?;
        self.row(size, what, began.elapsed(), &before, controller)
    }

    fn row(&self, size: usize, what: &str, took: Duration, before: &Counted, controller: &Ours) -> Result<()> {
        let after = self.counted()?;
        let looks = after.looks - before.looks;
        println!(
            "{size:>10}  {what:<22} {:>8.1} {looks:>8} {:>10.1} {:>10} {:>10} {:>8.1}",
            took.as_secs_f64(),
            (after.seconds - before.seconds) * 1000.0 / (looks as f64).max(1.0),
            after.calls - before.calls,
            after.writes - before.writes,
            resident_mb(controller.id())?
        );
        Ok(())
    }
}

/// Calls to the API server but those of the watches and of the lease, which do not depend on what is there.
fn calls(metrics: &Metrics) -> u64 {
    metrics.sum("leatworks_controller_api_calls_total", &["\"get\"", "\"list\""]) + metrics.written()
}

fn name(number: usize) -> String {
    format!("t{number}")
}

/// A chain of so many tasks, without pods.
fn topology(number: usize, tasks: usize) -> Value {
    let tasks: Vec<String> = (0..tasks).map(|task| format!("task{task}")).collect();
    let edges = tasks.windows(2).map(|pair| format!("{}-->{}", pair[0], pair[1]));
    let edges: Vec<String> = std::iter::once("[*]-->task0".to_owned()).chain(edges).collect();
    json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {
            "graph": format!("flowchart LR\n{}\n", tasks.join(" --> ")),
            "image": "none:1",
            "broker": Ours::broker_of_a_topology(),
            "tasks": tasks.iter().map(|task| json!({"name": task, "replicas": 0})).collect::<Vec<_>>(),
            "edges": edges.iter().map(|edge| json!({"edge": edge, "replicas": 0})).collect::<Vec<_>>(),
        },
    })
}

/// Tells the API server of the resource, and makes a namespace for topologies.
pub(super) fn define(cluster: &Cluster, leat: &Path, namespace: &str) -> Result<()> {
    let definition = cluster.ours(leat).args(["k8s", "crd"]).output()?;
    kubectl(cluster, &["apply", "--server-side", "-f", "-"], &definition.stdout)?;
    kubectl(cluster, &["wait", "--for=condition=Established", "crd/topologies.leatworks.dev"], &[])?;
    kubectl(cluster, &["create", "namespace", namespace], &[]).map(drop)
}

/// One whose broker is not there.
fn without_a_broker(number: usize) -> Value {
    let mut topology = topology(number, 3);
    topology["spec"]["broker"] = json!({"url": "pulsar://127.0.0.1:1", "adminUrl": "http://127.0.0.1:1"});
    topology
}

/// Gives an object to the API server.
pub(super) fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    kubectl(cluster, &["apply", "--server-side", "--force-conflicts", "--filename=-"], object.to_string().as_bytes()).map(drop)
}

/// `kubectl` with an input. Gives what it prints.
pub(super) fn kubectl(cluster: &Cluster, words: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut command = cluster.kubectl();
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().context("starting kubectl")?;
    let mut to = child.stdin.take().context("its input")?;
    let output = std::thread::scope(|scope| {
        // A long input and a long output would wait for each other.
        let written = scope.spawn(move || to.write_all(input));
        let output = child.wait_with_output();
        written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(output)
    })?;
    ensure!(output.status.success(), "kubectl {} ended with {}", words.join(" "), output.status);
    Ok(output.stdout)
}

/// What a process has in memory.
fn resident_mb(process: u32) -> Result<f64> {
    let status =
        std::fs::read_to_string(format!("/proc/{process}/status")).context("reading what the controller has in memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has a size")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("a size in kB")?;
    Ok(kilobytes / 1024.0)
}
