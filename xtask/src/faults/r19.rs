//! R19: graphs are edited at random on a real API server, which is killed now and then, as are two controllers, and these are stopped. What was asked for last is there soon, nothing else
//! is, also on the broker, and a second look writes nothing.
//!
//! The cluster has no nodes, and every part asks for no pods: it is the controller that is looked at.

use super::{Finding, Setting, random::Random};
use crate::{
    clients::server::{Profile, build},
    services::kubernetes::{Cluster, Ours, Size},
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The cluster of this rule.
const CLUSTER: &str = "r19";
/// Where the topologies are.
const NAMESPACE: &str = "edits";
/// How many there are at most.
const TOPOLOGIES: u64 = 3;
/// The tasks that a graph may have.
const TASKS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Where the controllers serve their metrics.
const PORTS: [u16; 2] = [9301, 9302];
/// How soon what was asked for has to be there, after the edit or the end of the fault.
const SOON: Duration = Duration::from_secs(10);
/// How long is waited for it at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a stopped controller is away: longer than its lease, so that another leads when it wakes up.
const AWAY: Duration = Duration::from_secs(17);
/// How long two new controllers have for a look at everything.
const SECOND_LOOK: Duration = Duration::from_secs(20);
/// A resource that no controller can deploy, for the whole time.
const POISON: &str = "poison";

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let leat = std::path::absolute(build("leatworks-cli", "leat", Profile::Dev)?)?;
    let _ = std::fs::remove_dir_all(&setting.folder);
    std::fs::create_dir_all(&setting.folder)?;
    let cluster = Cluster::named(CLUSTER)?.locked()?;
    cluster.up(Size { nodes: 0, with_pulsar: false })?;
    let seen = on_the_cluster(setting, &cluster, &leat).await;
    cluster.down()?;
    seen
}

async fn on_the_cluster(setting: &Setting, cluster: &Cluster, leat: &Path) -> Result<Finding> {
    let mut rig = Rig {
        cluster,
        leat,
        folder: &setting.folder,
        controllers: Vec::new(),
        wanted: BTreeMap::new(),
        removed: Removed::default(),
    };
    rig.prepare()?;
    let _broker = Ours::broker(cluster, leat, &setting.folder)?;
    for number in 0..PORTS.len() {
        let controller = rig.controller(number)?;
        rig.controllers.push(controller);
    }
    rig.apply(&resource(POISON, &[("a", "b"), ("b", "a")], "Drain"))?;
    rig.until_the_cluster_goes_on().await?;
    let mut random = Random::new(setting.seed, "R19");
    let (mut times, mut faults, mut finding) = (Vec::new(), 0_u64, Finding::default());
    let wanted = setting.pick(20, 500);
    let mut edits = 0;
    while edits < wanted && !setting.is_over() {
        edits += 1;
        let edited = rig.edit(&mut random)?;
        // Of each five edits one has a fault at least: a run with fewer would count for nothing.
        let fault = rig.fault(&mut random, faults < edits / 5).await?;
        faults += u64::from(fault.is_some());
        let since = Instant::now();
        rig.note(&format!("edit {edits}: {edited}; {}", fault.unwrap_or_else(|| "no fault".to_owned())))?;
        // The next edit may come before this one is carried out.
        if random.within(0..4) > 0 {
            rig.until_converged().await?;
            times.push(since.elapsed());
            rig.removed.converged();
        }
    }
    rig.until_converged().await?;
    rig.removed.converged();
    let (left, gone) = (rig.subscriptions_left()?, rig.removed.gone.len());
    let [written, counted] = rig.second_look().await?;
    times.sort_unstable();
    let place =
        |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    finding.seen = format!(
        "{edits} edits of {TOPOLOGIES} topologies with two controllers, {faults} of them with a controller killed or stopped or the API server started anew; converged after {:.1} s (median), {:.1} s (99th percentile); {} topologies at the end, nothing left over, nor {} of the {gone} subscriptions that were to go, one refused all the time; a second look made {written} writes, and {counted} by the API server's count",
        place(50).as_secs_f64(),
        place(99).as_secs_f64(),
        rig.wanted.len(),
        left.len(),
    );
    finding.require(place(99) <= SOON, || format!("it took {:.1} s to converge", place(99).as_secs_f64()));
    finding
        .require(written + counted == 0, || format!("a second look made {written} writes, {counted} by the API server's count"));
    finding.require(left.is_empty(), || format!("subscriptions of removed edges are left: {}", left.join(", ")));
    finding.require(gone > 0, || "void: no subscription was to go".to_owned());
    finding.require(edits == wanted, || format!("void: the time was over after {edits} of {wanted} edits"));
    finding.require(faults * 6 >= edits, || format!("only {faults} faults"));
    Ok(finding)
}

/// A topology that asks for no pods.
fn resource(name: &str, edges: &[(&str, &str)], removed: &str) -> Value {
    let graph: String = edges.iter().map(|(from, to)| format!("\n{from} --> {to}")).collect();
    let tasks: Vec<Value> = tasks(edges).iter().map(|task| json!({ "name": task, "replicas": 0 })).collect();
    let parts: Vec<Value> = ids(edges).iter().map(|edge| json!({ "edge": edge, "replicas": 0 })).collect();
    json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": { "name": name },
        "spec": {
            "graph": format!("flowchart LR{graph}\n"),
            "image": "none:1",
            "broker": Ours::broker_of_a_topology(),
            "tasks": tasks,
            "edges": parts,
            "removedEdges": removed,
        },
    })
}

fn tasks<'a>(edges: &[(&'a str, &'a str)]) -> BTreeSet<&'a str> {
    edges.iter().flat_map(|(from, to)| [*from, *to]).collect()
}

/// The edges as the graph names them, with the ways in.
fn ids(edges: &[(&str, &str)]) -> BTreeSet<String> {
    let roots = tasks(edges).into_iter().filter(|task| edges.iter().all(|(_, to)| to != task));
    roots.map(|task| format!("[*]-->{task}")).chain(edges.iter().map(|(from, to)| format!("{from}-->{to}"))).collect()
}

/// The objects that a topology is to have: a kind, and a task or an edge.
type Parts = BTreeSet<(String, String)>;

struct Rig<'a> {
    cluster: &'a Cluster,
    leat: &'a Path,
    folder: &'a Path,
    controllers: Vec<Ours>,
    wanted: BTreeMap<String, Parts>,
    removed: Removed,
}

/// The edges whose subscriptions are to go.
#[derive(Debug, Default)]
struct Removed {
    /// What was removed from a topology since all was last as it was asked for, and whether some of that may stay: it was parked, or its topology was removed. Of two edits in a row the
    /// controllers may have seen the second one alone.
    open: BTreeMap<String, (BTreeSet<String>, bool)>,
    /// Topologies and edges.
    gone: BTreeSet<(String, String)>,
}

impl Removed {
    fn edited(&mut self, topology: &str, before: &BTreeSet<String>, after: &BTreeSet<String>, may_stay: bool) {
        self.gone.retain(|(of, edge)| of != topology || !after.contains(edge));
        let (removed, stays) = self.open.entry(topology.to_owned()).or_default();
        removed.extend(before.iter().cloned());
        removed.retain(|edge| !after.contains(edge));
        *stays |= may_stay;
    }

    fn converged(&mut self) {
        for (topology, (removed, may_stay)) in std::mem::take(&mut self.open) {
            if !may_stay {
                self.gone.extend(removed.into_iter().map(|edge| (topology.clone(), edge)));
            }
        }
    }
}

/// The topic and the subscription of an edge.
fn subscription(topology: &str, edge: &str) -> Option<(String, String)> {
    let (from, to) = edge.split_once("-->")?;
    let topic = if from == "[*]" { format!("{topology}-{to}") } else { format!("{topology}-{from}.out") };
    Some((topic, to.to_owned()))
}

/// The edges among the parts of a topology.
fn edges(parts: Option<&Parts>) -> BTreeSet<String> {
    parts.into_iter().flatten().filter(|(_, part)| part.contains("-->")).map(|(_, part)| part.clone()).collect()
}

impl Rig<'_> {
    fn prepare(&self) -> Result<()> {
        let output = self.cluster.ours(self.leat).args(["k8s", "crd"]).output()?;
        self.kubectl(&["apply", "--server-side", "-f", "-"], Some(&output.stdout))?;
        self.kubectl(&["wait", "--for=condition=Established", "crd/topologies.leatworks.dev"], None)?;
        self.kubectl(&["create", "namespace", NAMESPACE], None).map(drop)
    }

    fn controller(&self, number: usize) -> Result<Ours> {
        let listen = format!("127.0.0.1:{}", PORTS[number]);
        let identity = format!("controller-{number}");
        let words = [
            "controller",
            "--namespace",
            NAMESPACE,
            "--lease-namespace",
            NAMESPACE,
            "--identity",
            &identity,
            "--listen",
            &listen,
        ];
        let mut command = self.cluster.ours(self.leat);
        Ours::start(command.args(words).current_dir(self.folder), &self.folder.join(format!("{identity}.log")))
    }

    fn kubectl(&self, words: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut command: Command = self.cluster.kubectl();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl")?;
        child.stdin.take().context("its input")?.write_all(input.unwrap_or_default())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    fn list(&self, kinds: &str) -> Result<Vec<Value>> {
        let answer: Value =
            serde_json::from_slice(&self.kubectl(&["get", kinds, "--namespace", NAMESPACE, "--output=json"], None)?)?;
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    fn apply(&self, resource: &Value) -> Result<()> {
        let words = ["apply", "--server-side", "--force-conflicts", "--namespace", NAMESPACE, "--filename=-"];
        self.kubectl(&words, Some(resource.to_string().as_bytes())).map(drop)
    }

    /// Another graph for one topology, or none any more.
    fn edit(&mut self, random: &mut Random) -> Result<String> {
        let name = format!("t{}", random.within(0..TOPOLOGIES));
        if self.wanted.contains_key(&name) && random.within(0..8) == 0 {
            let before = edges(self.wanted.remove(&name).as_ref());
            self.removed.edited(&name, &before, &BTreeSet::new(), true);
            self.kubectl(&["delete", "topology", &name, "--namespace", NAMESPACE, "--wait=false"], None)?;
            return Ok(format!("{name} removed"));
        }
        let mut graph = BTreeSet::new();
        for _ in 0..random.within(1..10) {
            let from = random.within(0..TASKS.len() as u64 - 1);
            let to = random.within(from + 1..TASKS.len() as u64);
            graph.insert((TASKS[from as usize], TASKS[to as usize]));
        }
        let graph: Vec<(&str, &str)> = graph.into_iter().collect();
        let removed = ["Drain", "Park", "Drop"][random.within(0..3) as usize];
        self.apply(&resource(&name, &graph, removed))?;
        let workers =
            tasks(&graph).into_iter().flat_map(|task| ["Deployment", "Service"].map(|kind| (kind.to_owned(), task.to_owned())));
        let ids = ids(&graph);
        let before = edges(self.wanted.get(&name));
        self.removed.edited(&name, &before, &ids, removed == "Park");
        let dispatchers = ids.iter().map(|edge| ("Deployment".to_owned(), edge.clone()));
        let edited = format!("{name} is {}, what goes is to {removed}", ids.iter().cloned().collect::<Vec<_>>().join(" "));
        self.wanted.insert(name, workers.chain(dispatchers).collect());
        Ok(edited)
    }

    /// Perhaps kills a controller or the API server, which is started again, or stops a controller for a while; surely if it is due. What was done.
    async fn fault(&mut self, random: &mut Random, is_due: bool) -> Result<Option<String>> {
        let number = random.within(0..PORTS.len() as u64) as usize;
        let done = match random.within(0..if is_due { 7 } else { 24 }) {
            0..=3 => {
                tokio::time::sleep(random.below(Duration::from_secs(1))).await;
                self.controllers[number].kill()?;
                self.controllers[number] = self.controller(number)?;
                "killed"
            }
            4 | 5 => {
                tokio::time::sleep(random.below(Duration::from_secs(1))).await;
                self.controllers[number].signal(Signal::STOP)?;
                tokio::time::sleep(AWAY).await;
                self.controllers[number].signal(Signal::CONT)?;
                "stopped"
            }
            6 => {
                tokio::time::sleep(random.below(Duration::from_secs(1))).await;
                self.cluster.restart_api_server()?;
                self.until_the_cluster_goes_on().await?;
                return Ok(Some("API server killed".to_owned()));
            }
            _ => return Ok(None),
        };
        Ok(Some(format!("controller {number} {done}")))
    }

    /// Waits until the cluster's own controllers have taken up a Deployment, and removed it when the topology was gone that it was made for. After a start of the API server they are first told
    /// that they may watch nothing, and ask again when they like; and what belongs to a kind that is new to the collector it finds out within half a minute.
    async fn until_the_cluster_goes_on(&self) -> Result<()> {
        const OWN: &str = "own";
        self.apply(&resource(OWN, &[("a", "b"), ("b", "a")], "Drop"))?;
        let own = self.list("topologies")?.into_iter().find(|one| one["metadata"]["name"] == OWN).context("it was applied")?;
        let owner = json!({"apiVersion": own["apiVersion"], "kind": own["kind"], "name": OWN, "uid": own["metadata"]["uid"]});
        let labels = json!({"leatworks.test/own": "yes"});
        let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "none", "image": "none:1"}]}});
        self.apply(&json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OWN, "ownerReferences": [owner]},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod},
        }))?;
        let since = Instant::now();
        let mut is_removed = false;
        while since.elapsed() < PATIENCE {
            match self.list("deployments")?.into_iter().find(|one| one["metadata"]["name"] == OWN) {
                None => return Ok(()),
                Some(own) if !is_removed && own["status"]["observedGeneration"].is_u64() => {
                    self.kubectl(&["delete", "topology", OWN, "--namespace", NAMESPACE, "--wait=false"], None)?;
                    is_removed = true;
                }
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        bail!("the cluster's own controllers take nothing up after {PATIENCE:?}")
    }

    /// Writes down what happened, to be looked into when a run takes too long.
    fn note(&self, what: &str) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.folder.join("edits.log"))?;
        // By the clock of the controllers' logs.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (seconds, millis) = (now.as_secs(), now.subsec_millis());
        Ok(writeln!(file, "{:02}:{:02}:{:02}.{millis:03} {what}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)?)
    }

    async fn until_converged(&self) -> Result<()> {
        let since = Instant::now();
        let mut before = Vec::new();
        loop {
            let objections = self.objections()?;
            if objections != before {
                self.note(&format!("  after {:.1} s: {}", since.elapsed().as_secs_f64(), objections.join("; ")))?;
                before.clone_from(&objections);
            }
            if objections.is_empty() {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("not converged after {PATIENCE:?}: {}", objections.join("; "));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What is not as it was asked for.
    fn objections(&self) -> Result<Vec<String>> {
        let mut objections = Vec::new();
        let mut unseen: BTreeSet<&str> = self.wanted.keys().map(String::as_str).chain([POISON]).collect();
        for topology in self.list("topologies")? {
            let name = topology["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if !unseen.remove(name.as_str()) {
                objections.push(format!("{name} is still there"));
            }
            let status = &topology["status"];
            let state = if name == POISON { "Refused" } else { "Ready" };
            let is_current = status["observedGeneration"] == topology["metadata"]["generation"];
            if !is_current || status["state"] != state || status.get("retiring").is_some() {
                objections.push(format!("{name} is {}: {}", status["state"], status["conditions"]));
            }
        }
        objections.extend(unseen.into_iter().map(|name| format!("{name} is not there")));
        let mut found: BTreeMap<String, Parts> = BTreeMap::new();
        for object in self.list("deployments,services,configmaps,horizontalpodautoscalers")? {
            let metadata = &object["metadata"];
            let Some(topology) = metadata["labels"]["leatworks.dev/topology"].as_str() else { continue };
            let part =
                metadata["annotations"]["leatworks.dev/edge"].as_str().or(metadata["labels"]["leatworks.dev/task"].as_str());
            let part = (object["kind"].as_str().unwrap_or_default().to_owned(), part.unwrap_or_default().to_owned());
            found.entry(topology.to_owned()).or_default().insert(part);
        }
        if found != self.wanted {
            objections.push(format!("there is {found:?} in place of {:?}", self.wanted));
        }
        Ok(objections)
    }

    /// The subscriptions that are left and were to go. Those of the edges that are there have to be there.
    fn subscriptions_left(&self) -> Result<Vec<String>> {
        let there = |topology: &str, edge: &str| {
            let (topic, subscription) = subscription(topology, edge).with_context(|| format!("`{edge}` is no edge"))?;
            anyhow::Ok(self.cluster.subscriptions(&topic)?.contains(&subscription))
        };
        for (topology, parts) in &self.wanted {
            for edge in edges(Some(parts)) {
                ensure!(there(topology, &edge)?, "{topology} has no subscription of `{edge}`");
            }
        }
        let mut left = Vec::new();
        for (topology, edge) in &self.removed.gone {
            if there(topology, edge)? {
                left.push(format!("`{edge}` of {topology}"));
            }
        }
        Ok(left)
    }

    /// Starts both controllers anew, and counts what they write when there is nothing to do: by their own word, and by that of the API server.
    async fn second_look(&mut self) -> Result<[u64; 2]> {
        self.controllers.clear();
        let before = self.cluster.writes()?;
        for number in 0..PORTS.len() {
            let controller = self.controller(number)?;
            self.controllers.push(controller);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let (mut written, mut looked) = (0, 0);
        for port in PORTS {
            let metrics = self.cluster.metrics(port)?;
            written += metrics.written();
            looked += metrics.sum("leatworks_controller_reconciles_total", &["\"done\""]);
        }
        if looked <= self.wanted.len() as u64 {
            bail!("within {SECOND_LOOK:?} only {looked} topologies were looked at");
        }
        Ok([written, self.cluster.writes()? - before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_to_go_unless_it_may_stay() {
        let set = |edges: &[&str]| edges.iter().map(|edge| (*edge).to_owned()).collect::<BTreeSet<_>>();
        let mut removed = Removed::default();
        let gone = |removed: &Removed| removed.gone.iter().map(|(_, edge)| edge.clone()).collect::<Vec<_>>();
        removed.edited("t", &set(&["a", "b", "c"]), &set(&["a"]), false);
        assert!(gone(&removed).is_empty(), "nobody has seen it yet");
        removed.converged();
        assert_eq!(gone(&removed), ["b", "c"]);
        // One comes back, and one goes that may stay.
        removed.edited("t", &set(&["a"]), &set(&["b"]), true);
        removed.converged();
        assert_eq!(gone(&removed), ["c"]);
        // Only the second of two edits may have been seen.
        removed.edited("t", &set(&["b"]), &set(&[]), false);
        removed.edited("t", &set(&[]), &set(&["d"]), true);
        removed.converged();
        assert_eq!(gone(&removed), ["c"]);
        assert_eq!(subscription("t", "[*]-->a"), Some(("t-a".to_owned(), "a".to_owned())));
        assert_eq!(subscription("t", "a-->b"), Some(("t-a.out".to_owned(), "b".to_owned())));
    }
}
