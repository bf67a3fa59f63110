//! Edges that are no longer in the graph: drained, parked or dropped, and with them the workers that only they need.
//!
//! A dispatcher of a removed edge is left as it is, with the image that knows the edge, and what it needs is in its annotations. An edge is let go in two
//! passes: the first writes into the status that it is closing, and only when that is there is something removed. So a controller that acts on an old
//! resource fails at that write.
//!
//! Edges into sources, folds and built-in sinks have no dispatcher: the run serves them, and names them in an annotation. There is one run, which is replaced by
//! that of the new graph, and so is the annotation. So the status names those of its edges that are gone before the run is changed. What waits on such an
//! edge nobody can handle any more.

use super::{
    changes::{Observed, Step, annotation, find, is_going, is_rolled_out, label},
    site::Site,
};
use crate::{
    crd::{RemovedEdges, Retiring},
    graph, names,
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
    /// Whether the run stays as it is, since the status does not yet name all edges that it alone knows of.
    pub(super) holds_run: bool,
}

impl Retired {
    /// Whether an object that is not desired stays nevertheless.
    pub(super) fn keeps(&self, live: &Value) -> bool {
        match label(live, names::ROLE) {
            Some("dispatcher") => {
                live["kind"] == "Deployment"
                    && edge_of(live).is_some_and(|edge| self.staying.iter().any(|staying| staying == edge))
            }
            Some("run") => self.holds_run,
            Some("worker") => label(live, names::TASK).is_some_and(|task| self.needed.iter().any(|needed| needed == task)),
            _ => false,
        }
    }
}

fn edge_of(live: &Value) -> Option<&str> {
    annotation(live, names::EDGE)
}

pub(super) fn retire(site: Site<'_>, desired: &[Value], observed: &Observed, steps: &[Step]) -> Retired {
    let in_graph = graph::edge_ids(site.graph);
    let of_run = of_run(observed, site.spec.removed_edges);
    let entries = entries(&in_graph, observed, &of_run, site.spec.removed_edges);
    let told = |edge: &str| observed.status.retiring.iter().any(|entry| entry.edge == edge);
    let is_untold =
        |entry: &Retiring| entry.policy != RemovedEdges::Park && !in_graph.contains(&entry.edge) && !told(&entry.edge);
    let rollout = Rollout { desired, observed, steps };
    let leftover = dispatchers(&observed.objects).filter(|live| find(desired, live).is_none());
    let mut retired = Retired {
        entries: Vec::new(),
        unsubscribe: Vec::new(),
        staying: Vec::new(),
        // Also those of edges that the run serves from now on: who still has messages in hand can hand them over.
        needed: leftover.filter_map(|live| label(live, names::TASK)).map(str::to_owned).collect(),
        holds_run: of_run.iter().any(is_untold),
    };
    for entry in &entries {
        let mut entry = entry.clone();
        let has_dispatcher = dispatchers(&observed.objects).any(|live| edge_of(live) == Some(&entry.edge));
        match entry.policy {
            _ if entry.closing => {
                if !has_dispatcher && rollout.has_new_run() {
                    retired.unsubscribe.push(entry.clone());
                }
            }
            RemovedEdges::Park => {
                if !has_dispatcher && of_run.iter().all(|served| served.edge != entry.edge) {
                    continue;
                }
            }
            RemovedEdges::Drop => {
                retired.staying.push(entry.edge.clone());
                entry.closing = true;
            }
            RemovedEdges::Drain => {
                retired.staying.push(entry.edge.clone());
                if rollout.is_upstream_quiet(&entry, &entries) {
                    drain(&mut entry, observed, has_dispatcher);
                }
            }
        }
        retired.entries.push(entry);
    }
    retired
}

/// The edges that are there and not in the graph: those that are known, those that were begun, and those that are seen now. Of those that were begun there may be a subscription alone.
fn entries(in_graph: &[String], observed: &Observed, of_run: &[Retiring], policy: RemovedEdges) -> Vec<Retiring> {
    // An edge that had come back before the status could say so is let go anew, with what has come for it since.
    let mut entries = observed.begun.clone();
    let seen = dispatchers(&observed.objects).filter_map(|live| entry(live, policy)).chain(of_run.iter().cloned());
    for seen in observed.status.retiring.iter().cloned().chain(seen) {
        if entries.iter().all(|known| known.edge != seen.edge) {
            entries.push(seen);
        }
    }
    // An edge that somebody else serves now, as when its task has become a fold, is in the graph, and what waits there is theirs.
    entries.retain(|entry| !in_graph.contains(&entry.edge));
    entries.sort_by(|one, other| one.edge.cmp(&other.edge));
    entries
}

/// The removed edges whose backlog has to be known: edge, topic, subscription and retry topic.
pub fn drained(site: Site<'_>, observed: &Observed) -> Vec<(String, String, String, String)> {
    let mut entries = entries(&graph::edge_ids(site.graph), observed, &[], site.spec.removed_edges);
    entries.retain(|entry| entry.policy == RemovedEdges::Drain && !entry.closing);
    entries.into_iter().map(|entry| (entry.edge, entry.topic, entry.subscription, entry.retry_topic)).collect()
}

fn dispatchers(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|object| object["kind"] == "Deployment" && label(object, names::ROLE) == Some("dispatcher"))
}

fn run(objects: &[Value]) -> Option<&Value> {
    objects.iter().find(|object| object["kind"] == "Deployment" && label(object, names::ROLE) == Some("run"))
}

/// Whether a step changes the run.
pub(super) fn changes_run(step: &Step) -> bool {
    matches!(step, Step::Apply { object, .. } if run(std::slice::from_ref(object)).is_some())
}

/// What is to be known of an edge when it is gone.
fn entry(live: &Value, policy: RemovedEdges) -> Option<Retiring> {
    let text = |name: &str| annotation(live, name).map(str::to_owned);
    let served = [text(names::EDGE)?, text(names::TOPIC)?, text(names::SUBSCRIPTION)?, text(names::RETRY_TOPIC)?];
    Some(retiring(served, policy))
}

/// The edges that the run serves, as it says itself.
fn of_run(observed: &Observed, policy: RemovedEdges) -> Vec<Retiring> {
    let text = run(&observed.objects).and_then(|live| annotation(live, names::EDGES)).unwrap_or("[]");
    let served: Vec<[String; 4]> = serde_json::from_str(text).unwrap_or_default();
    served.into_iter().map(|served| retiring(served, policy)).collect()
}

fn retiring([edge, topic, subscription, retry_topic]: [String; 4], policy: RemovedEdges) -> Retiring {
    Retiring { edge, policy, topic, subscription, retry_topic, until: None, closing: false }
}

/// How far what is there has become what is to be there.
struct Rollout<'a> {
    desired: &'a [Value],
    observed: &'a Observed,
    steps: &'a [Step],
}

impl Rollout<'_> {
    /// Whether nobody publishes for this edge any more: the run, and dispatchers that lead to its task, are of the new graph, or gone.
    fn is_upstream_quiet(&self, entry: &Retiring, entries: &[Retiring]) -> bool {
        // The run has sources, folds and what they publish to.
        if !self.has_new_run() {
            return false;
        }
        let Some((from, _)) = entry.edge.split_once("-->") else { return true };
        if entries
            .iter()
            .any(|other| other.edge != entry.edge && other.subscription == from && other.policy != RemovedEdges::Park)
        {
            return false;
        }
        dispatchers(self.desired).filter(|object| label(object, names::TASK) == Some(from)).all(|object| self.is_there(object))
    }

    /// Whether the run is that of the new graph, or there is none any more.
    fn has_new_run(&self) -> bool {
        match run(self.desired) {
            Some(object) => self.is_there(object),
            None => run(&self.observed.objects).is_none(),
        }
    }

    /// Whether a Deployment is as it is to be, and its pods as well.
    fn is_there(&self, object: &Value) -> bool {
        let is_to_change = self.steps.iter().any(|step| matches!(step, Step::Apply { object: changed, .. } if changed["metadata"]["name"] == object["metadata"]["name"] && changed["kind"] == object["kind"]));
        let live = find(&self.observed.objects, object);
        !is_to_change && live.is_some_and(|live| !is_going(live) && is_rolled_out(live))
    }
}

/// Notes how far there is to go when nobody publishes any more, and whether that is reached. Where nobody is left to go there, as behind a run that is another one now, an empty edge
/// can go, and one with a backlog stays as it is.
fn drain(entry: &mut Retiring, observed: &Observed, has_dispatcher: bool) {
    let Some(queue) = observed.queues.get(&entry.edge) else { return };
    let is_empty = queue.pending == 0 && queue.retrying == 0;
    if !has_dispatcher && !is_empty {
        entry.policy = RemovedEdges::Park;
        return;
    }
    let until = *entry.until.get_or_insert(queue.published);
    // A service that has started anew counts from zero; then an empty backlog is what tells.
    let reached = queue.pending == 0 || (queue.published >= until && queue.published - queue.pending >= until);
    entry.closing = reached && queue.retrying == 0;
}
