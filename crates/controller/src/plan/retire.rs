//! Edges that are no longer in the graph: drained, parked or dropped, and with them the workers that only they need.
//!
//! A dispatcher of a removed edge is left as it is, with the image that knows the edge, and what it needs is in its annotations. An edge is let go in two
//! passes: the first writes into the status that it is closing, and only when that is there is something removed. So a controller that acts on an old
//! resource fails at that write.

use super::{
    changes::{Observed, Step, annotation, find, is_rolled_out, label},
    site::Site,
};
use crate::{
    crd::{RemovedEdges, Retiring},
    names,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What the broker says of an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeQueue {
    /// Messages ever published on its topic.
    pub published: i64,
    /// Messages on its topic that its subscription has not settled.
    pub pending: i64,
    /// Messages that wait to be tried again, or are.
    pub retrying: i64,
}

/// What the broker says of edges, by the edge.
pub type Queues = BTreeMap<String, EdgeQueue>;

/// What becomes of removed edges.
pub(super) struct Retired {
    /// Those that are still being let go.
    pub(super) entries: Vec<Retiring>,
    /// Those whose subscription is to go.
    pub(super) unsubscribe: Vec<Retiring>,
    /// Edges whose dispatchers stay.
    staying: Vec<String>,
    /// Tasks whose workers are still needed.
    needed: Vec<String>,
}

impl Retired {
    /// Whether an object that is not desired stays nevertheless.
    pub(super) fn keeps(&self, live: &Value) -> bool {
        match label(live, names::ROLE) {
            Some("dispatcher") => {
                live["kind"] == "Deployment"
                    && edge_of(live).is_some_and(|edge| self.staying.iter().any(|staying| staying == edge))
            }
            Some("worker") => label(live, names::TASK).is_some_and(|task| self.needed.iter().any(|needed| needed == task)),
            _ => false,
        }
    }
}

fn edge_of(live: &Value) -> Option<&str> {
    annotation(live, names::EDGE)
}

pub(super) fn retire(site: Site<'_>, desired: &[Value], observed: &Observed, steps: &[Step]) -> Retired {
    let leftover: Vec<&Value> = dispatchers(&observed.objects).filter(|live| find(desired, live).is_none()).collect();
    let in_graph = |edge: &str| dispatchers(desired).any(|object| edge_of(object) == Some(edge));
    let told = &observed.status.retiring;
    let mut entries: Vec<Retiring> = told.iter().filter(|entry| !in_graph(&entry.edge)).cloned().collect();
    for live in &leftover {
        let known = edge_of(live).is_some_and(|edge| entries.iter().any(|entry| entry.edge == edge));
        if !known {
            entries.extend(entry(live, site.spec.removed_edges));
        }
    }
    entries.sort_by(|one, other| one.edge.cmp(&other.edge));
    let has_dispatcher = |edge: &str| leftover.iter().any(|live| edge_of(live) == Some(edge));
    let mut retired = Retired { entries: Vec::new(), unsubscribe: Vec::new(), staying: Vec::new(), needed: Vec::new() };
    for entry in &entries {
        let mut entry = entry.clone();
        let present = has_dispatcher(&entry.edge);
        if present {
            retired.needed.push(entry.subscription.clone());
        }
        match entry.policy {
            _ if entry.closing => {
                if !present {
                    retired.unsubscribe.push(entry.clone());
                }
            }
            RemovedEdges::Park => {
                if !present {
                    continue;
                }
            }
            RemovedEdges::Drop => {
                retired.staying.push(entry.edge.clone());
                entry.closing = true;
            }
            RemovedEdges::Drain => {
                retired.staying.push(entry.edge.clone());
                if is_upstream_quiet(&entry, &entries, desired, observed, steps) {
                    drain(&mut entry, observed);
                }
            }
        }
        retired.entries.push(entry);
    }
    retired
}

/// The removed edges whose backlog has to be known: edge, topic, subscription and retry topic.
pub fn drained(site: Site<'_>, observed: &Observed) -> Vec<(String, String, String, String)> {
    let in_graph: Vec<String> = site.dispatched().into_iter().map(|edge| edge.id).collect();
    let mut entries = observed.status.retiring.clone();
    for live in dispatchers(&observed.objects) {
        if let Some(entry) =
            entry(live, site.spec.removed_edges).filter(|entry| entries.iter().all(|known| known.edge != entry.edge))
        {
            entries.push(entry);
        }
    }
    entries.retain(|entry| entry.policy == RemovedEdges::Drain && !entry.closing && !in_graph.contains(&entry.edge));
    entries.into_iter().map(|entry| (entry.edge, entry.topic, entry.subscription, entry.retry_topic)).collect()
}

fn dispatchers(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|object| object["kind"] == "Deployment" && label(object, names::ROLE) == Some("dispatcher"))
}

/// What is to be known of an edge when it is gone.
fn entry(live: &Value, policy: RemovedEdges) -> Option<Retiring> {
    let text = |name: &str| annotation(live, name).map(str::to_owned);
    Some(Retiring {
        edge: text(names::EDGE)?,
        policy,
        topic: text(names::TOPIC)?,
        subscription: text(names::SUBSCRIPTION)?,
        retry_topic: text(names::RETRY_TOPIC)?,
        until: None,
        closing: false,
    })
}

/// Whether nobody publishes for this edge any more: dispatchers that lead to its task are of the new graph, or gone.
fn is_upstream_quiet(entry: &Retiring, entries: &[Retiring], desired: &[Value], observed: &Observed, steps: &[Step]) -> bool {
    let Some((from, _)) = entry.edge.split_once("-->") else { return true };
    if entries.iter().any(|other| other.edge != entry.edge && other.subscription == from && other.policy != RemovedEdges::Park) {
        return false;
    }
    let leads_there = |object: &&Value| label(object, names::TASK) == Some(from);
    let is_to_change = |object: &Value| {
        steps.iter().any(|step| matches!(step, Step::Apply { object: changed, .. } if changed["metadata"]["name"] == object["metadata"]["name"] && changed["kind"] == object["kind"]))
    };
    dispatchers(desired)
        .filter(leads_there)
        .all(|object| !is_to_change(object) && find(&observed.objects, object).is_some_and(is_rolled_out))
}

/// Notes how far there is to go when nobody publishes any more, and whether that is reached.
fn drain(entry: &mut Retiring, observed: &Observed) {
    let Some(queue) = observed.queues.get(&entry.edge) else { return };
    let until = *entry.until.get_or_insert(queue.published);
    // A service that has started anew counts from zero; then an empty backlog is what tells.
    let reached = queue.pending == 0 || (queue.published >= until && queue.published - queue.pending >= until);
    entry.closing = reached && queue.retrying == 0;
}
