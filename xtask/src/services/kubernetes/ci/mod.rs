//! What continuous integration runs on a real cluster: one cluster, and on it one stage after another, each of which begins with what those before it have left.

mod chart;
mod commands;
mod diamond;
mod images;
mod jobs;
mod look;
mod pipeline;
mod results;
mod rights;
mod stopwatch;
mod values;

use super::{Cluster, PULSAR_PORTS, Size, address, machine};
use crate::ci::run_command;
use anyhow::{Context, Result, bail, ensure};
pub(crate) use diamond::project;
use images::Images;
pub(crate) use images::pack;
pub(crate) use results::volume;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};
use stopwatch::Stopwatch;

pub(crate) use jobs::on_a_cluster_of_its_own as r18;

/// The cluster of these tests, which a standing one does not keep from running.
const NAME: &str = "ci";

/// The namespace in which everything is.
const NAMESPACE: &str = "shop";

/// How long pods have to start, to be moved to another node, or to end. On two quiet cores the longest of it takes 25 s.
const PATIENCE: &str = "--timeout=240s";

/// What the tests make themselves is told by this label from what the controller and the chart have made.
const OWN: &str = "leatworks.test/own";

/// A part of the test that can be left out.
struct Stage {
    name: &'static str,
    run: fn(&Site<'_>) -> Result<()>,
}

/// The stages. Those between the installation of the chart and its end find a controller.
const STAGES: &[Stage] = &[
    Stage { name: INSTALL, run: chart::install },
    Stage { name: "pipeline", run: pipeline::survives },
    Stage { name: "commands", run: commands::tell },
    Stage { name: "diamond", run: diamond::changes },
    Stage { name: "look", run: look::tells_and_writes_nothing },
    Stage { name: "jobs", run: jobs::each_attempt_has_one },
    Stage { name: "rights", run: rights::each_is_needed },
    Stage { name: "upgrade", run: chart::upgrade_and_roll_back },
    Stage { name: UNINSTALL, run: chart::uninstall },
];

/// The stages that are never left out.
const INSTALL: &str = "install";
const UNINSTALL: &str = "uninstall";

/// Where a stage runs.
struct Site<'a> {
    cluster: &'a Cluster,
    images: Images,
}

/// Gives why no cluster can be started on this machine, if none can. Where `CI` is set that fails, and what is missing is installed.
fn prepare() -> Result<Option<String>> {
    let in_ci = std::env::var_os("CI").is_some();
    let able = if in_ci { machine::check_rights().and_then(|()| crate::services::GO.check()) } else { machine::check() };
    let why_not = unless_able(able.and_then(|()| crate::services::pulsar::can_run()), in_ci)?;
    if why_not.is_none() {
        machine::install()?;
    }
    Ok(why_not)
}

/// What a machine lacks is told, and is a failure in continuous integration, where nobody would read it.
fn unless_able(able: Result<()>, in_ci: bool) -> Result<Option<String>> {
    match able {
        Err(why) if !in_ci => Ok(Some(format!("{why:#}"))),
        other => other.map(|()| None),
    }
}

/// Starts a cluster, runs the named stages on it, or all, and ends it. Gives why that cannot be done on this machine, if it cannot.
pub(crate) fn test(names: &[&str]) -> Result<Option<String>> {
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|stage| stage.name != **name)) {
        let all: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("no stage is called `{unknown}`; there are {}", all.join(", "));
    }
    if let Some(why) = prepare()? {
        return Ok(Some(why));
    }
    let before = Traces::take()?;
    let cluster = Cluster::named(NAME)?.locked()?;
    let mut stopwatch = Stopwatch::default();
    let result = on_a_cluster(&cluster, names, &mut stopwatch);
    if result.is_err() && cluster.is_up() {
        // What the cluster says of itself is all that there will be to look at.
        let _ = run_command(cluster.kubectl().args(["get", "nodes,pods,topologies", "--all-namespaces", "--output=wide"]));
        let logs = ["--namespace", NAMESPACE, "logs", "--selector=app.kubernetes.io/name=leatworks", "--prefix", "--tail=20"];
        let _ = run_command(cluster.kubectl().args(logs));
        println!("the cluster's programs said last:\n{}", cluster.daemons.last_words());
    }
    let down = stopwatch.time("down", || cluster.down());
    println!("{stopwatch}");
    result.and(down)?;
    let after = Traces::take()?;
    ensure!(before == after, "the cluster has left something behind: {before:?} before, and {after:?} after");
    Ok(None)
}

fn on_a_cluster(cluster: &Cluster, names: &[&str], stopwatch: &mut Stopwatch) -> Result<()> {
    stopwatch.time("programs", || cluster.programs.build())?;
    stopwatch.time("cluster", || cluster.up(Size { nodes: 2, with_pulsar: true }))?;
    let images = stopwatch.time("images", || Images::make(cluster))?;
    let site = Site { cluster, images };
    let is_asked_for = |stage: &&Stage| names.is_empty() || [names, &[INSTALL, UNINSTALL]].concat().contains(&stage.name);
    STAGES.iter().filter(is_asked_for).try_for_each(|stage| stopwatch.time(stage.name, || (stage.run)(&site)))
}

impl Site<'_> {
    /// The messages' service, as pods and people reach it.
    fn broker(&self) -> String {
        format!("pulsar://{}:{}", address(1), PULSAR_PORTS[0])
    }

    /// `leat`, as a person uses it who can reach the cluster, in the folder of a project.
    fn leat(&self, project: &Path, words: &[&str]) -> Command {
        let mut command = self.cluster.command(&self.images.program.display().to_string());
        command.args(words).current_dir(project);
        command.env("LEAT_BROKER__URL", self.broker()).env("LEATWORKS_HOME", self.cluster.folder.join("home"));
        command
    }

    /// The selectors of the pods of each Deployment of a topology.
    fn parts(&self, topology: &str) -> Result<Vec<String>> {
        let selector = format!("--selector=leatworks.dev/topology={topology}");
        let list = answer(&mut self.kubectl(&["get", "deployments", &selector, "--output=json"]))?;
        let part = |object: &Value| {
            let labels = object["spec"]["selector"]["matchLabels"].as_object().context("a Deployment selects by labels")?;
            let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            Ok(pairs.collect::<Vec<_>>().join(","))
        };
        list["items"].as_array().context("a list has items")?.iter().map(part).collect()
    }

    /// `kubectl` in the namespace of the tests.
    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", NAMESPACE]).args(words);
        command
    }

    /// Gives an object of the test's own to the API server.
    fn apply(&self, mut object: Value) -> Result<()> {
        object["metadata"]["labels"][OWN] = "yes".into();
        apply(self.cluster, &object)
    }

    /// Removes what the tests have made themselves.
    fn clean(&self) -> Result<()> {
        let own = format!("--selector={OWN}");
        run_command(
            self.kubectl(&["delete", "configmaps,persistentvolumeclaims,secrets", &own, PATIENCE]).stdout(Stdio::null()),
        )?;
        run_command(self.kubectl(&["delete", "persistentvolumes", &own, PATIENCE]).stdout(Stdio::null()))
    }

    /// `leat deploy` of a topology of a project, with an overlay.
    fn deploy(&self, project: &Path, topology: &str, image: &str, overlay: &Value, more: &[&str]) -> Result<Command> {
        let file = self.cluster.folder.join(format!("{topology}.overlay.json"));
        let broker = self.broker();
        let words =
            ["deploy", topology, "--namespace", NAMESPACE, "--image", image, "--pull-policy", "never", "--broker", &broker];
        let mut command = self.leat(project, &words);
        std::fs::write(&file, json!({ topology: overlay }).to_string())?;
        command.arg("--overlay").arg(file).args(more);
        Ok(command)
    }

    /// What waits in a topology, and what it has given up.
    fn status(&self, project: &Path, topology: &str) -> Result<Waiting> {
        let status = answer(&mut self.leat(project, &["status", topology, "--output", "json"]))?;
        let edges = status[0]["edges"].as_array().with_context(|| format!("a status has edges: {status}"))?;
        let sum = |key: &str| edges.iter().filter_map(|edge| edge[key].as_u64()).sum::<u64>();
        Ok(Waiting { pending: sum("backlog") + sum("in_flight"), dead_letters: sum("dead_letters") })
    }
}

/// What `leat status` says of all edges together.
struct Waiting {
    pending: u64,
    dead_letters: u64,
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
        // Other clusters of this machine come and go meanwhile.
        let ours = |mount: &&str| !mount.contains("/kubernetes-") || mount.contains(&format!("/kubernetes-{NAME}/"));
        let mut mounts: Vec<String> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(ours).map(str::to_owned).collect();
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
    command.args(["apply", "--filename", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("starting kubectl")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_told_and_fails_in_continuous_integration() {
        let lacks = || Err(anyhow::anyhow!("no such file").context("Kubernetes needs root"));
        assert_eq!(
            unless_able(lacks(), false).expect("it is no failure"),
            Some("Kubernetes needs root: no such file".to_owned())
        );
        assert_eq!(unless_able(lacks(), true).expect_err("it is a failure").to_string(), "Kubernetes needs root");
        for in_ci in [false, true] {
            assert_eq!(unless_able(Ok(()), in_ci).expect("nothing is missing"), None);
        }
    }
}
