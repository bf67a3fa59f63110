//! A real Kubernetes on one machine: `cargo xtask services up|down|status kubernetes`.
//!
//! Its programs are built from their Go modules, and its nodes are real kubelets on the machine's own containerd and runc. All of it lives in a network
//! namespace of its own, out of which no way leads, and each node in a mount and a process namespace of its own. So there is no port to clash
//! with, no setting of the machine changes, and a node that is killed takes everything that ran on it along.

mod ci;
mod client;
mod control;
mod credentials;
mod daemons;
mod machine;
mod network;
mod node;
mod ours;
mod programs;

pub(crate) use ci::{pack, project, r18, test, volume};
pub(crate) use client::ApiServer;
pub(crate) use control::jobs_made;
pub(crate) use network::{Network, address};
pub(crate) use ours::{Metrics, Ours};

use super::{
    cache,
    pulsar::{ALL_FEATURES, Options, Pulsar},
};
use crate::ci::run_command;
use anyhow::{Context, Result, bail};
use credentials::Credentials;
use daemons::Daemons;
use programs::Programs;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// The cluster that `up` leaves running.
const STANDING: &str = "standing";

/// The addresses of the namespace are written down for this many nodes. Each runs a kubelet and a containerd, about 150 MB together.
const NODES_MAX: usize = 3;

/// What a pod can tell apart as its messages' service; the port is Pulsar's usual one.
const PULSAR_PORTS: [u16; 2] = [6650, 8080];

/// What pulsar's process is called among the daemons.
const PULSAR: &str = "pulsar";

/// A cluster, up or not: its name says where its files, its namespace and its control groups are.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    network: Network,
    daemons: Daemons,
    programs: Programs,
    /// Held as long as somebody changes the cluster.
    _lock: Option<File>,
}

/// What a cluster is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How many nodes, from 1 to 3.
    pub(crate) nodes: usize,
    /// Whether an Apache Pulsar runs in the cluster's network.
    pub(crate) with_pulsar: bool,
}

/// `cargo xtask services up kubernetes …`.
pub(super) fn up(words: &[&str]) -> Result<()> {
    let mut size = Size { nodes: 1, with_pulsar: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--with-pulsar" => size.with_pulsar = true,
            "--nodes" => {
                let number =
                    words.next().and_then(|number| number.parse().ok()).filter(|number| (1..=NODES_MAX).contains(number));
                size.nodes = number.with_context(|| format!("`--nodes` takes a number from 1 to {NODES_MAX}"))?;
            }
            other => bail!("`{other}` is no option of `services up kubernetes`; there are --nodes N and --with-pulsar"),
        }
    }
    machine::check()?;
    if size.with_pulsar {
        // Building the cluster takes a quarter of an hour, after which nobody wants to hear what is missing.
        super::pulsar::can_run()?;
    }
    let cluster = Cluster::named(STANDING)?.locked()?;
    if cluster.is_up() {
        bail!("Kubernetes is up already; `cargo xtask services down kubernetes` ends it");
    }
    cluster.up(size)?;
    println!("run commands in it with `cargo xtask services exec kubernetes kubectl get pods`, or from elsewhere with");
    println!("  nsenter --net={} env KUBECONFIG={} COMMAND", cluster.network.path().display(), cluster.kubeconfig().display());
    if size.with_pulsar {
        let [port, web_port] = PULSAR_PORTS;
        println!("Pulsar, for pods: pulsar://{0}:{port} http://{0}:{web_port}", address(1));
    }
    Ok(())
}

/// Fails with what is missing on this machine to run a cluster.
pub(crate) fn can_run() -> Result<()> {
    machine::check()
}

/// `cargo xtask services down kubernetes`.
pub(super) fn down() -> Result<()> {
    let cluster = Cluster::named(STANDING)?;
    if !cluster.folder.is_dir() {
        println!("Kubernetes is not up");
        return Ok(());
    }
    cluster.locked()?.down()
}

/// Prints whether the standing cluster runs, and its nodes.
pub(super) fn status() -> Result<()> {
    let cluster = Cluster::named(STANDING)?;
    if !cluster.is_up() {
        println!("kubernetes  down");
        return Ok(());
    }
    println!("kubernetes  up, {}", cluster.network.path().display());
    run_command(cluster.kubectl().args(["get", "nodes"]))
}

/// `cargo xtask services exec kubernetes COMMAND …`: a command in the standing cluster's network, with `kubectl` and `helm` of its version.
pub(super) fn exec(words: &[&str]) -> Result<()> {
    let cluster = Cluster::named(STANDING)?;
    if !cluster.is_up() {
        bail!("Kubernetes is not up; `cargo xtask services up kubernetes` starts it");
    }
    let [program, rest @ ..] = words else { bail!("usage: cargo xtask services exec kubernetes COMMAND …") };
    run_command(cluster.command(program).args(rest))
}

/// `cargo xtask services load kubernetes ARCHIVE …`: gives images to every node of the standing cluster.
pub(super) fn load(archives: &[&str]) -> Result<()> {
    let cluster = Cluster::named(STANDING)?;
    archives.iter().try_for_each(|archive| cluster.load(Path::new(archive)))
}

/// Builds the cluster's programs, where that is not done yet.
pub(super) fn fetch() -> Result<()> {
    Programs::named(&cache()?).build()
}

impl Cluster {
    /// The cluster of this name. Nothing of it is started.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let cache = cache()?;
        let folder = cache.join(format!("kubernetes-{name}"));
        let network = Network::at(folder.join("network"));
        let daemons = Daemons::in_folder(folder.join("run"));
        Ok(Self { folder, network, daemons, programs: Programs::named(&cache), _lock: None })
    }

    /// Keeps other processes from changing the same cluster, until this is dropped.
    pub(crate) fn locked(mut self) -> Result<Self> {
        let path = self.folder.with_extension("lock");
        let file = File::create(&path).with_context(|| format!("making `{}`", path.display()))?;
        if file.try_lock().is_err() {
            bail!("another process starts, uses or ends this cluster: it holds `{}`", path.display());
        }
        self._lock = Some(file);
        Ok(self)
    }

    fn is_up(&self) -> bool {
        self.daemons.is_alive(control::API_SERVER)
    }

    /// Where its files are, which go with it.
    pub(crate) fn files(&self) -> &Path {
        &self.folder
    }

    /// Where the administrator's configuration for clients is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        credentials::kubeconfig(&self.folder, credentials::ADMINISTRATOR)
    }

    /// Starts it and waits until its nodes are ready. What was left of an earlier one of this name is removed first, and so is all of it
    /// when something does not start.
    pub(crate) fn up(&self, size: Size) -> Result<()> {
        self.programs.build()?;
        self.down()?;
        let start = Instant::now();
        let result = self.start(size);
        if let Err(error) = result {
            let logs = self.daemons.last_words();
            let _ = self.down();
            return Err(error.context(format!("Kubernetes did not start; the last words of its programs:\n{logs}")));
        }
        println!("Kubernetes {}, {} ready after {:.0} s", programs::VERSION, nodes(size.nodes), start.elapsed().as_secs_f64());
        Ok(())
    }

    fn start(&self, size: Size) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        self.network.create(NODES_MAX)?;
        let credentials = Credentials::create(&self.folder, NODES_MAX)?;
        let pulsar = size.with_pulsar.then(|| self.spawn_pulsar()).transpose()?;
        control::start(self, &credentials)?;
        for number in 1..=size.nodes {
            node::start(self, number)?;
        }
        for number in 1..=size.nodes {
            node::wait_until_ready(self, number)?;
        }
        if let Some(mut pulsar) = pulsar {
            pulsar.wait_until_ready(None)?;
            // It is among the daemons now, and ends with them.
            std::mem::forget(pulsar);
        }
        Ok(())
    }

    /// A real Pulsar where pods can reach it.
    fn spawn_pulsar(&self) -> Result<Pulsar> {
        let options = Options { settings: ALL_FEATURES, network: Some(&self.network), ..Options::default() };
        let pulsar = Pulsar::spawn_standing(self.folder.join(PULSAR), PULSAR_PORTS, &options)?;
        self.daemons.adopt(PULSAR, pulsar.pid())?;
        Ok(pulsar)
    }

    /// Ends every process of it and removes what they have left. Of a cluster that is not up it removes what there is.
    pub(crate) fn down(&self) -> Result<()> {
        for number in 1..=NODES_MAX {
            node::end(self, number)?;
        }
        self.daemons.kill_all()?;
        self.network.remove()?;
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).with_context(|| format!("removing `{}`", self.folder.display()))?;
        }
        Ok(())
    }

    /// Ends a node as a power cut does: its kubelet, its containerd and all containers at once.
    pub(crate) fn kill_node(&self, number: usize) -> Result<()> {
        node::end(self, number)
    }

    /// A command in the cluster's network, as its administrator.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.network.command(self.programs.path(program));
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", self.programs.search_path());
        // What these remember stays with the cluster, and not in the user's folders.
        command.env("HELM_CACHE_HOME", self.folder.join("helm")).env("HELM_CONFIG_HOME", self.folder.join("helm"));
        command.env("HELM_DATA_HOME", self.folder.join("helm")).env("KUBECACHEDIR", self.folder.join("kubectl"));
        command
    }

    /// A program of this project in the cluster's network, as its administrator.
    pub(crate) fn ours(&self, program: &Path) -> Command {
        let mut command = self.network.command(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// The cluster's network.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// `kubectl`, as the administrator.
    pub(crate) fn kubectl(&self) -> Command {
        self.command("kubectl")
    }

    /// Kills the API server, starts it again, and waits until it answers.
    pub(crate) fn restart_api_server(&self) -> Result<()> {
        control::restart(self, control::API_SERVER)
    }

    /// Gives an image on every node that is up a second name.
    pub(crate) fn name(&self, image: &str, other: &str) -> Result<()> {
        (1..=NODES_MAX).filter(|number| node::is_up(self, *number)).try_for_each(|number| {
            run_command(node::containers(self, number).args(["images", "tag", "--force", image, other]).stdout(Stdio::null()))
        })
    }

    /// Gives the images in an archive to every node that is up.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        (1..=NODES_MAX).filter(|number| node::is_up(self, *number)).try_for_each(|number| node::load(self, number, archive))
    }
}

fn nodes(number: usize) -> String {
    if number == 1 { "1 node".to_owned() } else { format!("{number} nodes") }
}
