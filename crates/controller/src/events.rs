//! What is told to those who watch a topology.

use crate::{
    crd::{Condition, RemovedEdges, TopologyStatus},
    names,
};
use serde_json::{Value, json};

/// The longest note of an event that the API server takes.
const NOTE_MAX: usize = 1024;

/// An event for each thing that has changed between two statuses.
pub(crate) fn of(live: &Value, old: &TopologyStatus, new: &TopologyStatus, instance: &str, now: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut tell = |kind: &str, reason: &str, note: &str| events.push(event(live, kind, reason, note, instance, now));
    if new.revision.is_some() && new.revision != old.revision {
        let number = new.revision.unwrap_or_default();
        tell("Normal", "Deployed", &format!("revision {number} is deployed"));
    }
    for condition in &new.conditions {
        let before = old.conditions.iter().find(|before| before.kind == condition.kind);
        let is_news = before.is_none_or(|before| before.status != condition.status || before.reason != condition.reason);
        match condition.status.as_str() {
            "False" if is_news && condition.reason != "Progressing" && is_own(condition) => {
                tell("Warning", &condition.reason, &condition.message)
            }
            "True" if is_news && condition.kind == "Ready" => tell("Normal", "Ready", &condition.message),
            _ => {}
        }
    }
    for entry in new.retiring.iter().filter(|entry| old.retiring.iter().all(|before| before.edge != entry.edge)) {
        tell(
            "Normal",
            "EdgeRemoved",
            &format!("the edge {} is no longer in the graph; its backlog: {:?}", entry.edge, entry.policy),
        );
    }
    for entry in &old.retiring {
        let edge = &entry.edge;
        match new.retiring.iter().find(|after| after.edge == *edge) {
            Some(after) if entry.policy == RemovedEdges::Drain && after.policy == RemovedEdges::Park => tell(
                "Warning",
                "EdgeParked",
                &format!(
                    "messages wait on the removed edge {edge}, and nothing is left that could handle them: its subscription stays, as with `removedEdges: Park`; it goes when the edge comes back and is removed with `Drop`"
                ),
            ),
            Some(_) => {}
            None if entry.policy == RemovedEdges::Park => {
                tell("Normal", "EdgeGone", &format!("nobody serves the removed edge {edge} any more; its subscription stays"))
            }
            None => tell("Normal", "EdgeGone", &format!("the removed edge {edge} is gone")),
        }
    }
    events
}

/// `Ready` repeats what the others say when it is about a refusal.
fn is_own(condition: &Condition) -> bool {
    condition.kind != "Ready" || condition.reason != "Refused"
}

fn event(live: &Value, kind: &str, reason: &str, note: &str, instance: &str, now: &str) -> Value {
    let name = live["metadata"]["name"].as_str().unwrap_or_default();
    let mut end = note.len().min(NOTE_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    let unique = names::hash8(&format!("{reason} {note} {}", live["metadata"]["resourceVersion"]));
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": format!("{name}.{unique}{}", names::hash8(now)), "namespace": live["metadata"]["namespace"] },
        "eventTime": now.replace('Z', ".000000Z"),
        "reportingController": "leatworks.dev/controller",
        "reportingInstance": instance,
        "action": "Reconcile",
        "reason": reason,
        "note": &note[..end],
        "type": kind,
        "regarding": {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "name": live["metadata"]["name"],
            "namespace": live["metadata"]["namespace"],
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
        },
    })
}
