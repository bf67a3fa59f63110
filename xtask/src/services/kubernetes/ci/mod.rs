//! What continuous integration runs on a real cluster.

mod chart;
mod images;
mod pipeline;

use super::{Cluster, Size, machine};
use crate::ci::run_command;
use anyhow::{Context, Result, ensure};
use images::Images;
use serde_json::Value;
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// The cluster of these tests, which a standing one does not keep from running.
const NAME: &str = "ci";

/// The namespace in which everything is.
const NAMESPACE: &str = "shop";

/// How long pods have to start, to be moved to another node, or to end. On two quiet cores the longest of it takes 25 s.
const PATIENCE: &str = "--timeout=240s";

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
    let images = Images::make(cluster)?;
    chart::install(cluster, &images)?;
    pipeline::survives(cluster, &images)?;
    chart::upgrade_and_roll_back(cluster)?;
    chart::uninstall(cluster)
}

/// What of the machine a cluster could change for good.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: Vec<String>,
    settings: Vec<String>,
    devices: Vec<String>,
    files: Vec<String>,
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
        // A folder that the machine did not have may stay, but nothing in it. In the others the machine's own programs write meanwhile.
        let hidden = super::node::HIDDEN.iter().filter(|folder| folder.starts_with("/var/lib/"));
        let entries = hidden.flat_map(std::fs::read_dir).flatten();
        let mut files: Vec<String> = entries.map(|entry| Ok(entry?.path().display().to_string())).collect::<Result<_>>()?;
        files.sort();
        Ok(Self { mounts, settings, devices, files })
    }
}

/// Gives an object to the API server.
fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    let mut command = cluster.kubectl();
    let mut child = command.args(["apply", "--filename", "-"]).stdin(Stdio::piped()).spawn().context("starting kubectl")?;
    child.stdin.take().context("kubectl takes no input")?.write_all(object.to_string().as_bytes())?;
    ensure!(child.wait()?.success(), "the API server refuses {object}");
    Ok(())
}

/// What a command prints, as JSON.
fn answer(command: &mut Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} prints no JSON"))
}
