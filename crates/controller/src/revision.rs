//! What was deployed before, kept for when a later resource does not validate, and for `leat rollback`.

use crate::{
    crd::{RemovedEdges, Retiring, TopologySpec},
    graph,
    names::{self, Kind},
    plan::Site,
};
use serde_json::{Value, json};

/// A revision that was deployed.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its number; the highest is the current one.
    pub number: i64,
    /// What was asked for.
    pub spec: TopologySpec,
    /// When it was made, as the API server says.
    pub made: String,
}

/// All revisions that can be read, the newest first. One that cannot be read is passed over.
pub fn all(objects: &[Value]) -> Vec<Revision> {
    let read = |object: &Value| {
        Some(Revision {
            number: object["revision"].as_i64()?,
            spec: serde_json::from_value(object["data"]["spec"].clone()).ok()?,
            made: object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(),
        })
    };
    let mut all: Vec<Revision> = objects.iter().filter_map(read).collect();
    all.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    all
}

/// Those of a resource by its own id. Others are of a removed resource of the same name, and the collector's.
pub fn of(objects: &[Value], uid: &str) -> Vec<Value> {
    objects.iter().filter(|object| object["metadata"]["ownerReferences"][0]["uid"] == uid).cloned().collect()
}

/// The object that records what is deployed now, and the version that was seen of it; `None` if the newest revision is the same. `ours` are those of the resource, see [`of`], among all `objects`.
pub fn record(site: Site<'_>, ours: &[Value], objects: &[Value]) -> (i64, Option<(Value, Option<String>)>) {
    let newest = all(ours).into_iter().next();
    let number = match newest {
        Some(newest) if newest.spec == *site.spec => return (newest.number, None),
        Some(newest) => newest.number + 1,
        None => 1,
    };
    let spec = json!(site.spec);
    let name = names::object(site.name, "revision", &names::hash8(&spec.to_string()));
    let mut object = site.whole(Kind::Revision, &name);
    object["revision"] = number.into();
    object["data"] = json!({ "spec": spec });
    // What was deployed once before is the newest again, and what a removed resource has left is this one's.
    let known = objects.iter().find(|known| known["metadata"]["name"] == name.as_str());
    let seen = known.and_then(|known| known["metadata"]["resourceVersion"].as_str()).map(str::to_owned);
    (number, Some((object, seen)))
}

/// The edges of what was begun to be deployed while the status did not tell of it yet. Their subscriptions may be there, since those come first, with nothing else that would tell of them. Of
/// what later revisions said was to become of them, the most careful counts: a revision that was gone back to has another number, so which of them came next is not known. `site` is what
/// is deployed now, as the revision `current`, and `told` is the revision of the status. What was begun on another broker is left there.
pub fn begun(site: Site<'_>, objects: &[Value], told: Option<i64>, current: i64) -> Vec<Retiring> {
    let mut begun = all(objects);
    begun.retain(|revision| told.is_none_or(|told| told <= revision.number) && revision.number < current);
    begun.retain(|revision| revision.spec.broker == site.spec.broker);
    begun.reverse();
    let mut entries: Vec<Retiring> = Vec::new();
    for (place, revision) in begun.iter().enumerate() {
        let later = begun[place + 1..].iter().map(|later| &later.spec).chain([site.spec]);
        let policy = later.map(|spec| spec.removed_edges).min_by_key(|policy| loses(*policy)).unwrap_or_default();
        // What was deployed once could be compiled; a later controller that cannot leaves it as it is.
        let Ok(graph) = graph::compile(site.name, &revision.spec) else { continue };
        let edges = graph::reference(&graph).edges;
        entries.retain(|entry| edges.iter().all(|edge| edge.id != entry.edge));
        entries.extend(edges.into_iter().map(|edge| Retiring {
            edge: edge.id,
            policy,
            topic: edge.topic,
            subscription: edge.subscription,
            retry_topic: edge.retry_topic,
            until: None,
            closing: false,
        }));
    }
    entries
}

/// How much may be lost by it: the less, the more careful it is.
fn loses(policy: RemovedEdges) -> u8 {
    match policy {
        RemovedEdges::Park => 0,
        RemovedEdges::Drain => 1,
        RemovedEdges::Drop => 2,
    }
}

/// Revisions beyond those that are kept. Those of which the status does not tell yet are kept, however many they are: see [`begun`].
pub fn surplus(objects: &[Value], kept: i32, told: Option<i64>) -> Vec<&Value> {
    let number = |object: &Value| object["revision"].as_i64().unwrap_or_default();
    let mut sorted: Vec<&Value> = objects.iter().collect();
    sorted.sort_by_key(|object| std::cmp::Reverse(number(object)));
    let kept = usize::try_from(kept.max(1)).unwrap_or(1);
    sorted.into_iter().skip(kept).filter(|object| told.is_some_and(|told| number(object) < told)).collect()
}
