//! What people see of topologies that are ready; and that a controller which looks at all of it writes nothing.

use super::{NAMESPACE, Site, answer, chart::RELEASE};
use crate::{
    ci::run_command,
    services::{kubernetes::Metrics, wait_every},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr, process::Stdio, time::Duration};

/// What a controller makes.
const KINDS: &str = "configmaps,services,deployments,controllerrevisions,horizontalpodautoscalers";

/// The controllers' pods.
const CONTROLLERS: &str = "--selector=app.kubernetes.io/component=controller";

/// The port of a controller's metrics, as the chart has it.
const PORT: u16 = 9090;

/// What `kubectl explain` is asked for, and a field that it has to tell of.
const EXPLAINED: [(&str, &str); 7] = [
    ("topology", "spec"),
    ("topology.spec", "removedEdges"),
    ("topology.spec.broker", "tokenSecret"),
    ("topology.spec.tasks", "podTemplate"),
    ("topology.spec.edges", "autoscale"),
    ("topology.status", "tasksReady"),
    ("topology.status.conditions", "reason"),
];

/// Another controller has the lease within seconds.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) fn tells_and_writes_nothing(site: &Site<'_>) -> Result<()> {
    table(site)?;
    events(site)?;
    EXPLAINED.iter().try_for_each(|(path, field)| explained(site, path, field))?;
    second_look(site)
}

/// What `kubectl get topologies` prints.
fn table(site: &Site<'_>) -> Result<()> {
    let text = printed(site, &["get", "topologies"])?;
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    ensure!(
        rows.next().is_some_and(|head| head == ["NAME", "STATE", "TASKS", "EDGES", "AGE"]),
        "the table has other heads: {text}"
    );
    let is_whole = |count: &str| count.split_once('/').is_some_and(|(ready, all)| ready == all && ready != "0");
    for row in rows {
        let [_, state, tasks, edges, _] = row[..] else { anyhow::bail!("a row has not five columns: {text}") };
        ensure!(state == "Ready" && is_whole(tasks) && is_whole(edges), "a topology that is ready is shown as another: {text}");
    }
    println!("{text}");
    Ok(())
}

/// Events tell that each topology was deployed, and that it was ready.
fn events(site: &Site<'_>) -> Result<()> {
    for topology in objects(site, "topologies", "")? {
        let name = topology["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        for reason in ["Deployed", "Ready"] {
            let selector = format!("--field-selector=involvedObject.kind=Topology,involvedObject.name={name},reason={reason}");
            ensure!(!objects(site, "events", &selector)?.is_empty(), "no event tells that `{name}` is {reason}");
        }
    }
    Ok(())
}

/// `kubectl explain` has a sentence for the thing and for each of its fields.
fn explained(site: &Site<'_>, path: &str, field: &str) -> Result<()> {
    let text = printed(site, &["explain", path])?;
    ensure!(text.contains(&format!("\n  {field}\t")), "`kubectl explain {path}` does not tell of `{field}`: {text}");
    ensure!(
        !text.contains("<no description>") && !text.contains("<empty>"),
        "`kubectl explain {path}` has nothing to say of something: {text}"
    );
    Ok(())
}

/// Ends all controllers. Those that come in their place look at all topologies, and once more when each of these is touched.
fn second_look(site: &Site<'_>) -> Result<()> {
    let before = State::take(site)?;
    run_command(site.kubectl(&["delete", "pods", CONTROLLERS, super::PATIENCE]).stdout(Stdio::null()))?;
    let deployment = format!("deployment/{RELEASE}");
    run_command(site.kubectl(&["rollout", "status", &deployment, super::PATIENCE]).stdout(Stdio::null()))?;
    let all = before.statuses.len() as u64;
    let looks = |metrics: &Metrics| metrics.sum("leatworks_controller_reconciles_total", &["\"done\""]);
    let looked = |times: u64| {
        wait_every(LOOK_AGAIN, "a look at all topologies", LOOK_LIMIT, || {
            Ok(leader(site)?.filter(|metrics| metrics.sum("leatworks_topologies{", &[""]) == all && looks(metrics) >= times))
        })
    };
    let first = looks(&looked(all)?);
    let touch = ["annotate", "topologies", "--all", "leatworks.test/touched=yes"];
    run_command(site.kubectl(&touch).stdout(Stdio::null()))?;
    let second = looked(first + all)?;
    ensure!(
        second.written() == 0,
        "a controller that comes anew writes {} times, where there is nothing to do",
        second.written()
    );
    let after = State::take(site)?;
    ensure!(before == after, "a second look has changed something: {before:?} before, and {after:?} after");
    println!(
        "a new controller has looked {} times at {all} topologies with {} objects and has written nothing",
        looks(&second),
        before.versions.len()
    );
    Ok(())
}

/// What a second look must not change.
#[derive(Debug, PartialEq)]
struct State {
    /// The version of each object of a topology.
    versions: BTreeMap<String, String>,
    statuses: BTreeMap<String, Value>,
}

impl State {
    fn take(site: &Site<'_>) -> Result<Self> {
        let name = |object: &Value| {
            format!("{}/{}", object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default())
        };
        let mut made = objects(site, KINDS, "--selector=app.kubernetes.io/managed-by=leatworks")?;
        // What a graph before has left goes when the last of its pods has gone, whoever looks.
        made.retain(|object| object["metadata"].get("deletionTimestamp").is_none());
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let versions = made.iter().map(|object| (name(object), version(object))).collect::<BTreeMap<_, _>>();
        let topologies = objects(site, "topologies", "")?;
        let statuses = topologies.iter().map(|topology| (name(topology), topology["status"].clone())).collect::<BTreeMap<_, _>>();
        ensure!(!versions.is_empty() && !statuses.is_empty(), "there is nothing to look at");
        Ok(Self { versions, statuses })
    }
}

/// What the controller counts that leads, if there is one.
fn leader(site: &Site<'_>) -> Result<Option<Metrics>> {
    for pod in objects(site, "pods", CONTROLLERS)? {
        let Some(address) = pod["status"]["podIP"].as_str().and_then(|address| address.parse::<Ipv4Addr>().ok()) else {
            continue;
        };
        // A pod that ends does not answer any more.
        let Ok(metrics) = site.cluster.metrics_at((address, PORT).into()) else { continue };
        if metrics.sum("leatworks_controller_leader", &[""]) == 1 {
            return Ok(Some(metrics));
        }
    }
    Ok(None)
}

fn objects(site: &Site<'_>, kinds: &str, selector: &str) -> Result<Vec<Value>> {
    let words: Vec<&str> = ["get", kinds, "--output=json", selector].into_iter().filter(|word| !word.is_empty()).collect();
    let list = answer(&mut site.kubectl(&words))?;
    Ok(list["items"].as_array().context("a list has items")?.clone())
}

fn printed(site: &Site<'_>, words: &[&str]) -> Result<String> {
    let output = site.kubectl(words).stderr(Stdio::inherit()).output().context("starting kubectl")?;
    ensure!(output.status.success(), "kubectl {} in {NAMESPACE} ended with {}", words.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
