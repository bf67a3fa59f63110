//! What is said of a topology, from what is there.

use super::{
    changes::{find, is_rolled_out},
    site::Site,
};
use crate::{
    crd::{Condition, PartStatus, Retiring, State, TopologyStatus},
    graph, names,
};
use serde_json::{Value, json};

/// How a reconciliation went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Why the resource as it stands is refused, if it is.
    pub refused: Option<String>,
    /// Why the topics and subscriptions are not all there, if they are not.
    pub unsubscribed: Option<String>,
    /// Why not everything could be applied, if so.
    pub failed: Option<String>,
    /// The revision that is deployed.
    pub revision: Option<i64>,
}

/// The status of a resource of this generation. `site` is what is deployed, which for a refused resource is an earlier revision, or nothing.
pub fn status(
    generation: Option<i64>,
    site: Option<Site<'_>>,
    objects: &[Value],
    retiring: Vec<Retiring>,
    outcome: &Outcome,
    old: &TopologyStatus,
    now: &str,
) -> TopologyStatus {
    let (mut tasks, mut edges) = (Vec::new(), Vec::new());
    if let Some(site) = site {
        (tasks, edges) = parts(site, objects);
    }
    let ready = |parts: &[PartStatus]| parts.iter().filter(|part| is_ready(part)).count();
    let all = ready(&tasks) == tasks.len() && ready(&edges) == edges.len();
    let state = match outcome {
        Outcome { refused: Some(_), .. } => State::Refused,
        Outcome { unsubscribed: Some(_), .. } | Outcome { failed: Some(_), .. } => State::Failing,
        _ if all && retiring.is_empty() => State::Ready,
        _ => State::Progressing,
    };
    let mut status = TopologyStatus {
        observed_generation: generation,
        state: Some(state),
        revision: outcome.revision,
        graph_hash: site.map(|site| graph::hash(site.graph)),
        tasks_ready: Some(format!("{}/{}", ready(&tasks), tasks.len())),
        edges_ready: Some(format!("{}/{}", ready(&edges), edges.len())),
        conditions: Vec::new(),
        tasks,
        edges,
        retiring,
    };
    status.conditions = conditions(&status, outcome, old, now);
    status
}

fn is_ready(part: &PartStatus) -> bool {
    part.message.is_none() && part.ready >= part.replicas
}

/// Tasks and edges that run here, with how they are.
fn parts(site: Site<'_>, objects: &[Value]) -> (Vec<PartStatus>, Vec<PartStatus>) {
    let run = part("", objects, &names::object(site.name, "run", ""));
    let named = |part: &PartStatus, name: String| PartStatus { name, ..part.clone() };
    let mut tasks = Vec::new();
    for task in site.graph.tasks() {
        let name = task.name().as_str();
        if site.has_worker(name) {
            tasks.push(part(name, objects, &names::object(site.name, "worker", name)));
        } else if !site.is_called(name) {
            tasks.push(named(&run, name.to_owned()));
        }
    }
    let mut edges: Vec<PartStatus> =
        site.dispatched().iter().map(|edge| part(&edge.id, objects, &names::object(site.name, "dispatcher", &edge.id))).collect();
    let by_run = site.graph.edges().iter().filter(|edge| !site.is_called(edge.to().as_str()));
    edges.extend(by_run.map(|edge| named(&run, edge.id())));
    (tasks, edges)
}

fn part(name: &str, objects: &[Value], object: &str) -> PartStatus {
    let wanted = json!({ "kind": "Deployment", "metadata": { "name": object } });
    let Some(live) = find(objects, &wanted) else {
        return PartStatus { name: name.to_owned(), replicas: 1, ready: 0, message: Some("it is not there yet".to_owned()) };
    };
    let number = |pointer: &str| {
        live.pointer(pointer).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok()).unwrap_or_default()
    };
    let replicas =
        live.pointer("/spec/replicas").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok()).unwrap_or(1);
    let current = number("/status/observedGeneration") >= number("/metadata/generation");
    let ready =
        if current { number("/status/updatedReplicas").min(number("/status/availableReplicas")).min(replicas) } else { 0 };
    let message = (!is_rolled_out(live))
        .then(|| stuck(live).unwrap_or_else(|| "its pods are starting, or older ones are ending".to_owned()));
    PartStatus { name: name.to_owned(), replicas, ready, message }
}

/// What the Deployment says of why it has not got its pods.
fn stuck(live: &Value) -> Option<String> {
    let conditions = live.pointer("/status/conditions")?.as_array()?;
    let is = |condition: &&Value, kind: &str, status: &str| condition["type"] == kind && condition["status"] == status;
    let found = conditions
        .iter()
        .find(|condition| is(condition, "ReplicaFailure", "True"))
        .or_else(|| conditions.iter().find(|condition| is(condition, "Progressing", "False")))?;
    Some(found["message"].as_str()?.to_owned())
}

fn conditions(status: &TopologyStatus, outcome: &Outcome, old: &TopologyStatus, now: &str) -> Vec<Condition> {
    let accepted = match &outcome.refused {
        None => ("True", "Valid", "the resource is valid".to_owned()),
        Some(why) if outcome.revision.is_some() => ("False", "Refused", format!("{why}; what was deployed before goes on")),
        Some(why) => ("False", "Refused", why.clone()),
    };
    let subscribed = match &outcome.unsubscribed {
        None if outcome.revision.is_none() => ("Unknown", "NothingDeployed", "nothing is deployed".to_owned()),
        None if status.graph_hash.is_none() => ("Unknown", "NotLookedAt", "what was deployed before is not looked at".to_owned()),
        None => ("True", "AllThere", "all topics and subscriptions are there".to_owned()),
        Some(why) => ("False", "BrokerFailed", why.clone()),
    };
    let ready = match status.state {
        Some(State::Ready) => ("True", "AllReady", "all tasks and edges are ready".to_owned()),
        Some(State::Refused) => ("False", "Refused", accepted.2.clone()),
        Some(State::Failing) => {
            ("False", "Failing", outcome.failed.clone().or_else(|| outcome.unsubscribed.clone()).unwrap_or_default())
        }
        _ => ("False", "Progressing", waiting(status)),
    };
    let all = [("Accepted", accepted), ("SubscriptionsReady", subscribed), ("Ready", ready)];
    all.into_iter()
        .map(|(kind, (value, reason, message))| {
            let before = old.conditions.iter().find(|condition| condition.kind == kind && condition.status == value);
            Condition {
                kind: kind.to_owned(),
                status: value.to_owned(),
                reason: reason.to_owned(),
                message,
                last_transition_time: before.map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
                observed_generation: status.observed_generation,
            }
        })
        .collect()
}

/// How many parts are named that are waited for: a message is read in a table.
const NAMED_MAX: usize = 5;

fn waiting(status: &TopologyStatus) -> String {
    let part = |what: &str, part: &PartStatus| format!("{what} {}", part.name);
    let tasks = status.tasks.iter().filter(|task| !is_ready(task)).map(|task| part("task", task));
    let edges = status.edges.iter().filter(|edge| !is_ready(edge)).map(|edge| part("edge", edge));
    let retiring = status.retiring.iter().map(|entry| format!("removed edge {}", entry.edge));
    let all: Vec<String> = tasks.chain(edges).chain(retiring).collect();
    let more = if all.len() > NAMED_MAX { format!(" and {} more", all.len() - NAMED_MAX) } else { String::new() };
    format!("waiting for {}{more}", all[..all.len().min(NAMED_MAX)].join(", "))
}
