//! What continuous integration runs on a real cluster.

use super::{Cluster, Size, machine};
use crate::ci::run_command;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// The cluster of these tests, which a standing one does not keep from running.
const NAME: &str = "ci";

/// How long pods have to start, to be moved to another node, or to end. On two quiet cores the longest of it takes 25 s.
const PATIENCE: &str = "--timeout=180s";

/// Starts a cluster, runs everything on it, and ends it. Gives why that cannot be done on this machine, if it cannot.
pub(crate) fn test() -> Result<Option<String>> {
    if let Err(why) = machine::check_rights().and_then(|()| crate::services::GO.check()) {
        return if std::env::var_os("CI").is_some() { Err(why) } else { Ok(Some(why.to_string())) };
    }
    machine::install()?;
    let before = Traces::take()?;
    let cluster = Cluster::named(NAME)?.locked()?;
    cluster.up(Size { nodes: 2, with_pulsar: true })?;
    let result = on_the_cluster(&cluster);
    if let Err(error) = result {
        // What the cluster says of itself is all that there will be to look at.
        let _ = run_command(cluster.kubectl().args(["get", "nodes,pods,events", "--all-namespaces", "--output=wide"]));
        let logs = cluster.daemons.last_words();
        let _ = cluster.down();
        return Err(error.context(format!("on the cluster, whose programs said last:\n{logs}")));
    }
    cluster.down()?;
    let after = Traces::take()?;
    ensure!(before == after, "the cluster has left something behind: {before:?} before, and {after:?} after");
    Ok(None)
}

fn on_the_cluster(cluster: &Cluster) -> Result<()> {
    a_node_is_killed(cluster)
}

/// What of the machine a cluster could change for good.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: Vec<String>,
    settings: Vec<String>,
    devices: Vec<String>,
}

impl Traces {
    fn take() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let mut mounts: Vec<String> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect();
        mounts.sort();
        let read = |setting: &&str| std::fs::read_to_string(Path::new("/proc/sys").join(setting)).context("reading a setting");
        let settings = super::node::KERNEL.iter().map(read).collect::<Result<_>>()?;
        let mut devices: Vec<String> = std::fs::read_dir("/sys/class/net")?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        devices.sort();
        Ok(Self { mounts, settings, devices })
    }
}

/// A node that loses its power: what ran on it runs on the other one, and the node comes back empty.
fn a_node_is_killed(cluster: &Cluster) -> Result<()> {
    let workload = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "waits"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "waits"}},
            "template": {
                "metadata": {"labels": {"app": "waits"}},
                "spec": {"containers": [{"name": "waits", "image": super::node::PAUSE, "imagePullPolicy": "Never"}]},
            },
        },
    });
    apply(cluster, &workload)?;
    run_command(cluster.kubectl().args(["rollout", "status", "deployment/waits", PATIENCE]))?;
    let nodes = ready_pods(cluster)?;
    ensure!(nodes.iter().any(|node| node == "node1") && nodes.iter().any(|node| node == "node2"), "all pods are on {nodes:?}");
    cluster.kill_node(2)?;
    run_command(cluster.kubectl().args(["wait", "--for=condition=Ready=Unknown", PATIENCE, "node/node2"]))?;
    run_command(cluster.kubectl().args(["rollout", "status", "deployment/waits", PATIENCE]))?;
    super::node::start(cluster, 2)?;
    run_command(cluster.kubectl().args(["wait", "--for=condition=Ready", PATIENCE, "node/node2"]))?;
    run_command(cluster.kubectl().args(["delete", "deployment/waits", "--cascade=foreground", PATIENCE]))
}

/// Gives an object to the API server.
fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    let mut command = cluster.kubectl();
    let mut child = command.args(["apply", "--filename", "-"]).stdin(Stdio::piped()).spawn().context("starting kubectl")?;
    child.stdin.take().context("kubectl takes no input")?.write_all(object.to_string().as_bytes())?;
    ensure!(child.wait()?.success(), "the API server refuses {object}");
    Ok(())
}

/// The nodes of the pods that are ready.
fn ready_pods(cluster: &Cluster) -> Result<Vec<String>> {
    let list = answer(cluster.kubectl().args(["get", "pods", "--output=json"]))?;
    let pods = list["items"].as_array().context("a list of pods has items")?;
    let ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    Ok(pods.iter().filter(ready).filter_map(|pod| pod["spec"]["nodeName"].as_str()).map(str::to_owned).collect())
}

/// What a command prints, as JSON.
fn answer(command: &mut Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} prints no JSON"))
}
