//! From `leat deploy` to the first message through a graph of twenty edges, beside the time that the cluster needs for the same Deployments alone:
//! `cargo xtask bench deploy`.

use super::{
    kubernetes::{apply, define, kubectl},
    median, options,
};
use crate::services::{
    kubernetes::{Cluster, Ours, Size, address, pack, project},
    wait_every,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The cluster of this measurement.
const CLUSTER: &str = "deploy";
const NAMESPACE: &str = "wide";
const TOPOLOGY: &str = "wide";
const IMAGE: &str = "leatworks.test/wide:1";
/// What it has: its edges, that into its first task among them.
const EDGES: usize = 20;
/// Times by chance differ, so each is taken more than once, one beside the other.
const ROUNDS: usize = 3;
/// Thirty pods start within a minute and a half on two cores.
const PATIENCE: Duration = Duration::from_secs(300);
const KUBECTL_PATIENCE: &str = "--timeout=300s";
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `cargo xtask bench deploy [--rounds N] [--leat BINARY]`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (rounds, leat) = options("deploy", args, ROUNDS)?;
    // No cluster waits while it is built.
    let folder = tempfile::tempdir_in("target")?;
    let project = project(TOPOLOGY)?;
    let image = pack(&leat, &project, IMAGE, folder.path())?;
    let cluster = Cluster::named(CLUSTER)?.locked()?;
    cluster.up(Size { nodes: 1, with_pulsar: true })?;
    let measured = measure(Bench { cluster: &cluster, leat: &leat, project }, &image, rounds);
    if measured.is_err() {
        let _ = kubectl(&cluster, &["get", "pods,topologies", "--all-namespaces"], &[])
            .map(|text| print!("{}", String::from_utf8_lossy(&text)));
    }
    cluster.down()?;
    measured
}

fn measure(bench: Bench<'_>, image: &Path, rounds: usize) -> Result<()> {
    let Bench { cluster, leat, .. } = bench;
    cluster.load(image)?;
    define(cluster, leat, NAMESPACE)?;
    let words = ["controller", "--namespace", NAMESPACE, "--lease-namespace", NAMESPACE, "--identity", "one"];
    let folder = cluster.files().join("bench");
    std::fs::create_dir_all(&folder)?;
    let _controller = Ours::start(cluster.ours(leat).args(words).current_dir(&folder), &folder.join("controller.log"))?;
    println!(
        "{:>5}  {:>12} {:>24} {:>22} {:>7}",
        "round", "deployed, s", "first message after, s", "bare Deployments, s", "ratio"
    );
    let ratios = (1..=rounds).map(|round| bench.round(round)).collect::<Result<Vec<_>>>()?;
    println!("the first message after, in parts of the bare Deployments (median): {:.2}", median(ratios));
    Ok(())
}

struct Bench<'a> {
    cluster: &'a Cluster,
    leat: &'a Path,
    project: PathBuf,
}

impl Bench<'_> {
    /// Deploys by the controller, takes it back, and gives the API server the same Deployments without one. Gives how much longer than these it takes until a message is through.
    fn round(&self, round: usize) -> Result<f64> {
        let began = Instant::now();
        self.deploy()?;
        let deployed = began.elapsed();
        self.send()?;
        self.until_through()?;
        let through = began.elapsed();
        let bare = self.deployments()?;
        self.kubectl(&["delete", "topology", TOPOLOGY, "--cascade=foreground", KUBECTL_PATIENCE])?;
        self.until_empty()?;
        let began = Instant::now();
        apply(self.cluster, &bare)?;
        self.kubectl(&["wait", "--for=condition=Available", "deployments", "--all", KUBECTL_PATIENCE])?;
        let bare = began.elapsed();
        self.kubectl(&["delete", "deployments", "--all", "--cascade=foreground", KUBECTL_PATIENCE])?;
        self.until_empty()?;
        let [deployed, through, bare] = [deployed, through, bare].map(|time| time.as_secs_f64());
        println!("{round:>5}  {deployed:>12.1} {through:>24.1} {bare:>22.1} {:>7.2}", through / bare);
        Ok(through / bare)
    }

    fn kubectl(&self, words: &[&str]) -> Result<Vec<u8>> {
        kubectl(self.cluster, &[&["--namespace", NAMESPACE], words].concat(), &[])
    }

    fn leat(&self, words: &[&str]) -> Command {
        let mut command = self.cluster.ours(self.leat);
        command.args(words).current_dir(&self.project).env("LEAT_BROKER__URL", broker());
        command.env("LEATWORKS_HOME", self.cluster.files().join("home"));
        command
    }

    fn deploy(&self) -> Result<()> {
        let broker = broker();
        let words = [
            "deploy",
            TOPOLOGY,
            "--namespace",
            NAMESPACE,
            "--image",
            IMAGE,
            "--pull-policy",
            "never",
            "--broker",
            &broker,
            "--wait",
        ];
        let output = self.leat(&words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`leat deploy` ended with {}: {said}", output.status);
        Ok(())
    }

    fn send(&self) -> Result<()> {
        let status = self.leat(&["send", "wide/enter", "1"]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`leat send` ended with {status}");
        Ok(())
    }

    /// Waits until nothing of the message is on its way any more.
    fn until_through(&self) -> Result<()> {
        wait_every(LOOK_AGAIN, "the message's way through all edges", PATIENCE, || {
            let output = self.leat(&["status", TOPOLOGY, "--output", "json"]).stderr(Stdio::inherit()).output()?;
            let status: Value = serde_json::from_slice(&output.stdout).context("a status is JSON")?;
            let edges = status[0]["edges"].as_array().context("a status has edges")?;
            let pending: u64 =
                edges.iter().flat_map(|edge| [&edge["backlog"], &edge["in_flight"]]).filter_map(Value::as_u64).sum();
            Ok((pending == 0).then_some(()))
        })
    }

    fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", kind, "--output=json"])?;
        let list: Value = serde_json::from_slice(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// What the controller has made, as somebody would make it who has no controller.
    fn deployments(&self) -> Result<Value> {
        let live = self.list("deployments")?;
        let dispatchers =
            live.iter().filter(|object| object["metadata"]["labels"]["app.kubernetes.io/component"] == "dispatcher");
        ensure!(dispatchers.count() == EDGES, "there are not {EDGES} dispatchers");
        let bare = live.iter().map(|object| {
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": object["metadata"]["name"], "namespace": NAMESPACE},
                "spec": object["spec"],
            })
        });
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": bare.collect::<Vec<_>>()}))
    }

    /// Waits until the last pod is gone, and the last Deployment, which may go after it.
    fn until_empty(&self) -> Result<()> {
        wait_every(LOOK_AGAIN, "the end of all pods", PATIENCE, || Ok(self.list("pods,deployments")?.is_empty().then_some(())))
    }
}

fn broker() -> String {
    format!("pulsar://{}:6650", address(1))
}
