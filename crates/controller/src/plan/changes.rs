//! What is to be done, from what is to be there and what is there.

use super::{
    retire::{self, Queues},
    site::Site,
};
use crate::{
    crd::{Retiring, TopologyStatus},
    names::{self, Kind},
    same,
};
use serde_json::Value;

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects of the topology, of all kinds but revisions.
    pub objects: Vec<Value>,
    /// What the resource's status says.
    pub status: TopologyStatus,
    /// The edges of what was begun and of which the status does not tell, see [`revision::begun`](crate::revision::begun).
    pub begun: Vec<Retiring>,
    /// What the broker says of the edges that are being let go.
    pub queues: Queues,
    /// Whether all topics and subscriptions of the graph are known to be there.
    pub subscribed: bool,
}

/// One thing to be done. Each can be done twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make what is missing of the topics and subscriptions.
    Subscribe,
    /// Make the object, or bring it to this.
    Apply {
        /// The object as it is to be.
        object: Value,
        /// The version of the live object that this was decided on; `None` if there was none.
        seen: Option<String>,
    },
    /// Remove the object.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its own id.
        uid: String,
        /// The version that this was decided on.
        seen: String,
    },
    /// Remove the subscription of an edge whose dispatcher is gone.
    Unsubscribe(Retiring),
}

/// Whether steps that follow each other have nothing to do with each other. What pods read is there before what makes them, so only objects of one kind are such.
pub fn are_side_by_side(one: &Step, next: &Step) -> bool {
    match (one, next) {
        (Step::Apply { object, .. }, Step::Apply { object: other, .. }) => object["kind"] == other["kind"],
        (Step::Unsubscribe(_), Step::Unsubscribe(_)) => true,
        _ => false,
    }
}

/// What is to be done, in this order, and what is then still being let go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps. When one fails, those behind it wait for the next plan.
    pub steps: Vec<Step>,
    /// The edges that are being let go.
    pub retiring: Vec<Retiring>,
}

/// Compares what is to be there with what is there.
pub fn plan(site: Site<'_>, desired: &[Value], observed: &Observed) -> Plan {
    let mut steps = Vec::new();
    // A topic without a subscription keeps nothing, so the subscriptions come before whoever publishes.
    if !observed.subscribed {
        steps.push(Step::Subscribe);
    }
    for object in desired {
        let live = find(&observed.objects, object);
        let seen = live.and_then(|live| text(live, "/metadata/resourceVersion"));
        match live {
            // It comes back when the old one is gone.
            Some(live) if is_going(live) => {}
            Some(live) if same::is_applied(object, live) => {}
            _ => steps.push(Step::Apply { object: object.clone(), seen }),
        }
    }
    let retired = retire::retire(site, desired, observed, &steps);
    if retired.holds_run {
        steps.retain(|step| !retire::changes_run(step));
    }
    let kept = |live: &Value| find(desired, live).is_some() || retired.keeps(live);
    let mut gone: Vec<&Value> = observed.objects.iter().filter(|live| !kept(live) && !is_going(live)).collect();
    // Who takes messages goes before who handles them.
    gone.sort_by_key(|live| label(live, names::ROLE) != Some("dispatcher"));
    steps.extend(gone.into_iter().filter_map(delete));
    steps.extend(retired.unsubscribe.into_iter().map(Step::Unsubscribe));
    Plan { steps, retiring: retired.entries }
}

fn delete(live: &Value) -> Option<Step> {
    Some(Step::Delete {
        kind: Kind::of(live["kind"].as_str()?)?,
        name: text(live, "/metadata/name")?,
        uid: text(live, "/metadata/uid")?,
        seen: text(live, "/metadata/resourceVersion")?,
    })
}

/// The object of the same kind and name.
pub(super) fn find<'a>(objects: &'a [Value], wanted: &Value) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == wanted["kind"] && object["metadata"]["name"] == wanted["metadata"]["name"])
}

/// Whether the object is being removed.
pub(super) fn is_going(live: &Value) -> bool {
    live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

pub(super) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(name)?.as_str()
}

pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name)?.as_str()
}

pub(super) fn text(object: &Value, pointer: &str) -> Option<String> {
    object.pointer(pointer)?.as_str().map(str::to_owned)
}

/// Whether a Deployment has all its pods, of its current template and no other.
pub(super) fn is_rolled_out(live: &Value) -> bool {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let wanted = live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = number("/status/updatedReplicas");
    number("/status/observedGeneration") >= number("/metadata/generation")
        && updated >= wanted
        && number("/status/replicas") == updated
        && number("/status/availableReplicas") >= wanted
}
