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
            None if new.edges.iter().any(|part| part.name == *edge) => {
                tell("Normal", "EdgeBack", &format!("the edge {edge} is in the graph again, with what waited on it"));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{PartStatus, Retiring};

    fn told(old: &TopologyStatus, new: &TopologyStatus) -> Vec<[String; 3]> {
        let live = json!({ "metadata": { "name": "orders", "namespace": "shop", "resourceVersion": "7" } });
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let events = of(&live, old, new, "one", "2030-01-01T00:00:00Z");
        events.iter().map(|event| [text(event, "type"), text(event, "reason"), text(event, "note")]).collect()
    }

    #[test]
    fn what_becomes_of_a_removed_edge_is_told_once() {
        use RemovedEdges::{Drain, Drop, Park};
        let entry = |policy| Retiring {
            edge: "a-->b".to_owned(),
            policy,
            topic: String::new(),
            subscription: String::new(),
            retry_topic: String::new(),
            until: None,
            closing: false,
        };
        let with = |retiring: Option<RemovedEdges>, is_in_graph: bool| TopologyStatus {
            retiring: retiring.map(entry).into_iter().collect(),
            edges: is_in_graph
                .then(|| PartStatus { name: "a-->b".to_owned(), replicas: 1, ready: 1, message: None })
                .into_iter()
                .collect(),
            ..TopologyStatus::default()
        };
        for (old, new, expected) in [
            (with(None, true), with(Some(Drain), false), Some(("Normal", "EdgeRemoved", "its backlog: Drain"))),
            (with(Some(Drain), false), with(Some(Drain), false), None),
            (
                with(Some(Drain), false),
                with(Some(Park), false),
                Some(("Warning", "EdgeParked", "messages wait on the removed edge a-->b")),
            ),
            (with(Some(Park), false), with(None, false), Some(("Normal", "EdgeGone", "its subscription stays"))),
            (with(Some(Drop), false), with(None, false), Some(("Normal", "EdgeGone", "the removed edge a-->b is gone"))),
            (with(Some(Drain), false), with(None, true), Some(("Normal", "EdgeBack", "in the graph again"))),
        ] {
            let found = told(&old, &new);
            let fits = |(kind, reason, note): (&str, &str, &str)| matches!(&found[..], [[one, two, three]] if one == kind && two == reason && three.contains(note));
            assert!(expected.map_or(found.is_empty(), fits), "{:?} to {:?}: {found:?}", old.retiring, new.retiring);
        }
    }
}
