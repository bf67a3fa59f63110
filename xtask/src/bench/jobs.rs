//! Jobs that an adapter makes for messages, beside a bare loop that makes the same Jobs: `cargo xtask bench jobs`.
//!
//! The adapter is the one that the controller deploys. In place of a dispatcher this calls it, with many messages at once.

mod calls;

use super::{
    kubernetes::{apply, define, kubectl},
    median, options,
};
use crate::{
    ci::run_command,
    services::{
        kubernetes::{ApiServer, Cluster, Ours, Size, jobs_made, volume},
        wait_every,
    },
};
use anyhow::{Result, ensure};
use calls::{Adapter, Jobs};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

/// The cluster of this measurement.
const CLUSTER: &str = "jobs";
const NAMESPACE: &str = "started";
const TOPOLOGY: &str = "started";
const TASK: &str = "work";
const EDGE: &str = "[*]-->work";
const IMAGE: &str = "leatworks.test/leat:1";
/// The service account of the adapter.
const ACCOUNT: &str = "adapter";
/// The volume with the files of jobs.
const FILES: &str = "job-files";
const NODE: &str = "node1";
/// The port of a worker.
const PORT: u16 = 8080;
/// How many Jobs are made at once where none can start: as many as an edge may well have in hand.
const MADE: usize = 200;
/// How many are made and run: a node on two cores starts about one pod a second.
const RUN: usize = 30;
/// Times by chance differ, so each is taken more than once, one beside the other.
const ROUNDS: usize = 3;
/// How long the adapter has to start, and pods to end.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `cargo xtask bench jobs [--rounds N] [--leat BINARY]`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (rounds, leat) = options("jobs", args, ROUNDS)?;
    let cluster = Cluster::named(CLUSTER)?.locked()?;
    cluster.up(Size { nodes: 1, with_pulsar: false })?;
    let measured = measure(&cluster, &leat, rounds);
    if measured.is_err() {
        let _ = run_command(cluster.kubectl().args(["get", "pods,jobs,topologies", "--all-namespaces"]));
    }
    cluster.down()?;
    measured
}

fn measure(cluster: &Cluster, leat: &Path, rounds: usize) -> Result<()> {
    define(cluster, leat, NAMESPACE)?;
    let folder = cluster.files().join("bench");
    std::fs::create_dir_all(&folder)?;
    load(cluster, leat)?;
    files(cluster)?;
    kubectl(cluster, &["--namespace", NAMESPACE, "create", "serviceaccount", ACCOUNT], &[])?;
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    kubectl(cluster, &["--namespace", NAMESPACE, "create", "rolebinding", ACCOUNT, "--clusterrole=admin", &account], &[])?;
    let _broker = Ours::broker(cluster, leat, &folder)?;
    let words = ["controller", "--namespace", NAMESPACE, "--lease-namespace", NAMESPACE, "--identity", "one"];
    let mut controller = cluster.ours(leat);
    controller.args(words).args(["--leat-image", IMAGE, "--jobs-account", ACCOUNT]).current_dir(&folder);
    let _controller = Ours::start(&mut controller, &folder.join("controller.log"))?;
    apply(cluster, &topology())?;
    let bench = Bench { cluster, address: adapter(cluster)? };
    println!("{:>5}  {:<48} {:>5} {:>9} {:>9}", "round", "Jobs", "", "seconds", "a second");
    let mut all = [(); 4].map(|()| Vec::new());
    for round in 1..=rounds {
        for (rates, rate) in all.iter_mut().zip(bench.round(round)?) {
            rates.push(rate);
        }
    }
    let [made, made_bare, run, run_bare] = all.map(median);
    println!("made by the adapter, in parts of the bare loop (medians): {:.2}", made / made_bare);
    println!("made and run by the adapter, in parts of the bare loop (medians): {:.2}", run / run_bare);
    Ok(())
}

/// The image of leat, which is the adapter's, that of the containers before and behind the program, and here the program's as well.
fn load(cluster: &Cluster, leat: &Path) -> Result<()> {
    let archive = cluster.files().join("leat.tar");
    let mut image = cluster.ours(leat);
    run_command(image.args(["image", "--name", IMAGE, "--file"]).arg(&archive).stdout(Stdio::null()))?;
    cluster.load(&archive)
}

fn files(cluster: &Cluster) -> Result<()> {
    let folder = cluster.files().join(FILES);
    std::fs::create_dir_all(&folder)?;
    // Containers run as a user without rights on this machine.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    volume(FILES, NAMESPACE, &folder).iter().try_for_each(|object| apply(cluster, object))
}

/// A task of kind Job. Its dispatcher finds no node: this is in its place.
fn topology() -> Value {
    let nowhere = json!({"spec": {"nodeSelector": {"leatworks.test/none": "yes"}}});
    let job = json!({"command": ["/app/leat", "--version"]});
    json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": TOPOLOGY, "namespace": NAMESPACE},
        "spec": {
            "graph": format!("flowchart LR\n{TASK}\n"),
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "broker": Ours::broker_of_a_topology(),
            "jobs": {"claim": FILES},
            "tasks": [{"name": TASK, "kind": "Job", "job": job, "timeout": "1m"}],
            "edges": [{"edge": EDGE, "parallelism": MADE, "podTemplate": nowhere}],
        },
    })
}

/// Waits until the adapter serves, and gives its address.
fn adapter(cluster: &Cluster) -> Result<String> {
    wait_every(LOOK_AGAIN, "the adapter's start", PATIENCE, || {
        let words = ["--namespace", NAMESPACE, "get", "pods", "--output=json", "--selector=app.kubernetes.io/component=worker"];
        let list: Value = serde_json::from_slice(&kubectl(cluster, &words, &[])?)?;
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(pods.iter().find_map(|pod| {
            let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            let ready = pod["status"]["conditions"].as_array()?.iter().any(is_ready);
            Some(format!("{}:{PORT}", pod["status"]["podIP"].as_str().filter(|_| ready)?))
        }))
    })
}

struct Bench<'a> {
    cluster: &'a Cluster,
    address: String,
}

impl Bench<'_> {
    /// Rates by the adapter and by the loop: of Jobs that are made while no pod can start, and of those that are made and run.
    fn round(&self, round: usize) -> Result<[f64; 4]> {
        let row = |what: &str, count: usize, time: Duration| {
            let rate = count as f64 / time.as_secs_f64();
            println!("{round:>5}  {what:<48} {count:>5} {:>9.2} {rate:>9.1}", time.as_secs_f64());
            rate
        };
        kubectl(self.cluster, &["cordon", NODE], &[])?;
        let (time, objects) =
            self.audited(|| self.inside(|| Adapter { address: &self.address, round }.until_made(&self.jobs()?, MADE)))?;
        let made = row("made by the adapter, all messages at once", MADE, time);
        ensure!(objects.len() == MADE, "{} Jobs were made, where {MADE} were asked for", objects.len());
        self.clear()?;
        let time = self.inside(|| self.jobs()?.make(&objects, false))?;
        let made_bare = row("made by a bare loop", MADE, time);
        self.clear()?;
        kubectl(self.cluster, &["uncordon", NODE], &[])?;
        let (time, objects) = self.audited(|| self.inside(|| Adapter { address: &self.address, round }.until_answered(RUN)))?;
        let run = row("made, run and answered by the adapter", RUN, time);
        ensure!(objects.len() == RUN, "{} Jobs were made, where {RUN} were asked for", objects.len());
        self.clear()?;
        let time = self.inside(|| self.jobs()?.make(&objects, true))?;
        let run_bare = row("made by a bare loop, and run", RUN, time);
        self.clear()?;
        Ok([made, made_bare, run, run_bare])
    }

    fn jobs(&self) -> Result<Jobs> {
        Ok(Jobs { server: ApiServer::of(self.cluster)?, namespace: NAMESPACE })
    }

    /// Does something in the cluster's network.
    fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.cluster.network().inside(act)
    }

    /// Does something, and gives the Jobs that were asked for meanwhile, as they were asked for.
    fn audited<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Value>)> {
        let before = jobs_made(self.cluster)?.len();
        let done = act()?;
        let made = jobs_made(self.cluster)?.split_off(before);
        Ok((done, made.into_iter().map(|mut event| event["requestObject"].take()).collect()))
    }

    /// Removes all Jobs, and waits until nothing of them is left.
    fn clear(&self) -> Result<()> {
        let namespace = ["--namespace", NAMESPACE];
        let delete = [&namespace[..], &["delete", "jobs", "--all", "--cascade=foreground", "--timeout=240s"]].concat();
        kubectl(self.cluster, &delete, &[])?;
        wait_every(LOOK_AGAIN, "the end of all pods of Jobs", PATIENCE, || {
            let words = ["get", "jobs,pods", "--output=name", "--selector=app.kubernetes.io/component=job"];
            Ok(kubectl(self.cluster, &[&namespace[..], &words].concat(), &[])?.is_empty().then_some(()))
        })
    }
}
