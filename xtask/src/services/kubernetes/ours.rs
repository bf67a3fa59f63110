//! Processes of this project in the cluster's network.

use super::Cluster;
use crate::services::wait_for;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Where the embedded broker listens for Pulsar clients, and its admin API: beside those of a Pulsar in the same network.
const BROKER: [&str; 2] = ["127.0.0.1:6651", "127.0.0.1:8081"];

/// A controller lets go of its lease first, which takes a call to the API server, of 4 s at most.
const END_LIMIT: Duration = Duration::from_secs(20);

/// How long a controller may take to tell its counters, which it has in memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A process of this project, which ends with this.
pub(crate) struct Ours(Child);

impl Ours {
    /// Starts `leat` with what is set on the command. What it says is added to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("opening `{}`", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Ok(Self(command.spawn().with_context(|| format!("starting {command:?}"))?))
    }

    /// The embedded broker in the cluster's network, with its journal and its log in a folder.
    pub(crate) fn broker(cluster: &Cluster, leat: &Path, folder: &Path) -> Result<Self> {
        let words = ["broker", "--listen", BROKER[0], "--admin", BROKER[1], "--dir", "journal", "--durability", "process"];
        // A thousand topologies of three edges have seven for each.
        let more = ["--topics-max", "100000"];
        Self::start(cluster.ours(leat).args(words).args(more).current_dir(folder), &folder.join("broker.log"))
    }

    /// How a topology names that broker.
    pub(crate) fn broker_of_a_topology() -> serde_json::Value {
        serde_json::json!({"url": format!("pulsar://{}", BROKER[0]), "adminUrl": format!("http://{}", BROKER[1])})
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        wait_for("the end of a process", END_LIMIT, || Ok(self.0.try_wait()?.map(drop)))
    }

    /// Kills it, and waits until it has ended: whoever takes its place wants its port.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait().context("waiting for the end of a process").map(drop)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a process without a number")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The counters of a controller.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum over those of a name that have one of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let lines = self.0.lines().filter(|line| line.starts_with(name) && labels.iter().any(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// How many reconciliations there were, and the seconds that all of them took.
    pub(crate) fn reconciled(&self) -> (u64, f64) {
        let name = "leatworks_controller_reconcile_seconds_sum ";
        let seconds = self.0.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default();
        (self.sum("leatworks_controller_reconcile_seconds_count", &[""]), seconds)
    }

    /// What it has written.
    pub(crate) fn written(&self) -> u64 {
        self.sum("leatworks_controller_api_calls_total", &["\"apply\"", "\"delete\"", "\"status\"", "\"event\""])
    }
}

/// What a controller writes: the group and the resource. Events are left out, since others tell them as well.
const WRITTEN: [(&str, &str); 6] = [
    ("", "configmaps"),
    ("", "services"),
    ("apps", "deployments"),
    ("apps", "controllerrevisions"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("leatworks.dev", "topologies"),
];

/// The verbs that write, as the API server counts them.
const WRITING: [&str; 6] = ["APPLY", "PATCH", "POST", "PUT", "DELETE", "DELETECOLLECTION"];

impl Cluster {
    /// How many writes the API server has counted, by whomever, on the kinds of objects that a controller writes.
    pub(crate) fn writes(&self) -> Result<u64> {
        let output = self.kubectl().args(["get", "--raw", "/metrics"]).output().context("starting kubectl")?;
        anyhow::ensure!(output.status.success(), "the API server tells no metrics: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(written).sum())
    }

    /// What a controller that listens on this port of the cluster's loopback counts.
    pub(crate) fn metrics(&self, port: u16) -> Result<Metrics> {
        self.metrics_at((Ipv4Addr::LOCALHOST, port).into())
    }

    /// What a controller counts that listens on this address of the cluster's network, such as a pod's.
    pub(crate) fn metrics_at(&self, address: SocketAddr) -> Result<Metrics> {
        self.get(address, "/metrics").map(Metrics)
    }

    /// The subscriptions of a topic on the embedded broker, none if there is no such topic.
    pub(crate) fn subscriptions(&self, topic: &str) -> Result<Vec<String>> {
        let answer = self.get(BROKER[1].parse()?, &format!("/admin/v2/persistent/public/default/{topic}/subscriptions"))?;
        if answer.starts_with("HTTP/1.1 404") {
            return Ok(Vec::new());
        }
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer}"))?;
        serde_json::from_str(body).with_context(|| format!("these are no subscriptions: {answer}"))
    }

    /// What is answered in the cluster's network, with its head.
    fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        self.network().inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).with_context(|| format!("reaching {address}"))?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// A file for clients who are known by a token.
    pub(crate) fn kubeconfig_of(&self, token: &str, file: PathBuf) -> Result<PathBuf> {
        let mut configuration: serde_json::Value = serde_json::from_slice(&std::fs::read(self.kubeconfig())?)?;
        configuration["users"][0]["user"] = serde_json::json!({"token": token});
        std::fs::write(&file, configuration.to_string())?;
        Ok(file)
    }
}

/// How many writes a line of the API server's metrics counts, if it is about such.
fn written(line: &str) -> Option<u64> {
    let (labels, count) = line.strip_prefix("apiserver_request_total{")?.rsplit_once("} ")?;
    let label = |name: &str| labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
    let ours = WRITTEN.contains(&(label("group")?, label("resource")?)) && WRITING.contains(&label("verb")?);
    ours.then(|| count.parse::<f64>().map_or(0, |count| count as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_on_our_kinds_are_counted() {
        let line = |group: &str, resource: &str, subresource: &str, verb: &str| {
            format!(
                "apiserver_request_total{{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",scope=\"resource\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"v1\"}} 1.2e+01"
            )
        };
        for (text, count) in [
            (line("apps", "deployments", "", "APPLY"), Some(12)),
            (line("leatworks.dev", "topologies", "status", "APPLY"), Some(12)),
            (line("apps", "deployments", "", "LIST"), None),
            (line("coordination.k8s.io", "leases", "", "PUT"), None),
            ("# HELP apiserver_request_total a".to_owned(), None),
        ] {
            assert_eq!(written(&text), count, "{text}");
        }
    }
}
