//! A cluster in memory, on which plans follow one another.

use leatworks_controller::{
    crd::{Retiring, TopologySpec, TopologyStatus},
    graph,
    plan::{self, Observed, Plan, Queues, Settings, Site, Step},
    revision,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) const UID: &str = "7f2c3a10-0000-4000-8000-000000000001";

pub(crate) fn settings() -> Settings {
    Settings { leat_image: Some("registry.example.org/leat:1".to_owned()), jobs_account: Some("leatworks-jobs".to_owned()) }
}

/// A cluster that does at once what it is asked: Deployments are complete as soon as they are applied, and what is removed is gone.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) objects: Vec<Value>,
    pub(crate) status: TopologyStatus,
    pub(crate) queues: Queues,
    pub(crate) subscribed: BTreeSet<String>,
    revisions: Vec<Value>,
    version: u64,
}

impl Model {
    /// One reconciliation. Gives the plan that it carried out.
    pub(crate) fn pass(&mut self, spec: &TopologySpec) -> Plan {
        let plan = self.pass_until(spec, usize::MAX);
        let gone =
            |entry: &Retiring| plan.steps.iter().any(|step| matches!(step, Step::Unsubscribe(gone) if gone.edge == entry.edge));
        self.status.retiring = plan.retiring.iter().filter(|entry| !gone(entry)).cloned().collect();
        self.status.revision = revision::all(&self.revisions).first().map(|revision| revision.number);
        plan
    }

    /// A reconciliation that is cut off after so many steps, or before it has written its status.
    pub(crate) fn pass_until(&mut self, spec: &TopologySpec, steps: usize) -> Plan {
        let graph = graph::compile("orders", spec).expect("a valid graph");
        let settings = settings();
        let site = Site { name: "orders", namespace: "shop", uid: UID, spec, graph: &graph, settings: &settings };
        let desired = plan::desired(site).expect("it can be deployed");
        let told = self.status.revision;
        let (revision, recorded) = revision::record(site, &self.revisions, &self.revisions);
        let surplus: Vec<Value> = revision::surplus(&self.revisions, 1, told).into_iter().cloned().collect();
        let observed = Observed {
            objects: self.objects.clone(),
            status: self.status.clone(),
            begun: revision::begun(site, &self.revisions, told, revision),
            queues: self.queues.clone(),
            subscribed: graph::edge_ids(&graph).iter().all(|edge| self.subscribed.contains(edge)),
        };
        self.revisions.retain(|known| !surplus.contains(known));
        if let Some((object, _)) = recorded {
            self.revisions.retain(|known| known["metadata"]["name"] != object["metadata"]["name"]);
            self.revisions.push(object);
        }
        let plan = plan::plan(site, &desired, &observed);
        for step in plan.steps.iter().take(steps) {
            self.carry_out(step, &graph);
        }
        plan
    }

    fn carry_out(&mut self, step: &Step, graph: &leatworks_topology::Topology) {
        self.version += 1;
        match step {
            Step::Subscribe => self.subscribed.extend(graph::edge_ids(graph)),
            Step::Unsubscribe(entry) => drop(self.subscribed.remove(&entry.edge)),
            Step::Delete { kind, name, .. } => {
                self.objects.retain(|object| object["kind"] != kind.names().1 || object["metadata"]["name"] != name.as_str());
            }
            Step::Apply { object, .. } => {
                if object["metadata"]["labels"]["app.kubernetes.io/component"] == "dispatcher" {
                    let edge = object["metadata"]["annotations"]["leatworks.dev/edge"].as_str().expect("its edge");
                    assert!(self.subscribed.contains(edge), "`{edge}` has a dispatcher before a subscription");
                }
                let mut live = object.clone();
                live["metadata"]["uid"] = format!("uid-{}", self.version).into();
                live["metadata"]["resourceVersion"] = self.version.to_string().into();
                live["metadata"]["generation"] = 1.into();
                let replicas = live["spec"]["replicas"].clone();
                live["status"] = json!({ "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas });
                self.objects
                    .retain(|known| known["kind"] != live["kind"] || known["metadata"]["name"] != live["metadata"]["name"]);
                self.objects.push(live);
            }
        }
    }

    /// Passes until one has nothing to do.
    pub(crate) fn settle(&mut self, spec: &TopologySpec) {
        for _ in 0..20 {
            let before = self.status.retiring.clone();
            if self.pass(spec).steps.is_empty() && self.status.retiring == before {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// The edges that have dispatchers.
    pub(crate) fn edges(&self) -> Vec<&str> {
        let mut edges: Vec<&str> =
            self.objects.iter().filter_map(|object| object["metadata"]["annotations"]["leatworks.dev/edge"].as_str()).collect();
        edges.sort_unstable();
        edges
    }
}

pub(crate) fn spec(graph: &str, more: Value) -> TopologySpec {
    let mut spec =
        json!({ "graph": format!("flowchart LR\n{graph}\n"), "image": "shop:1", "broker": { "url": "pulsar://pulsar:6650" } });
    leatworks_controller::merge::overlay(&mut spec, &more);
    serde_json::from_value(spec).expect("a spec")
}

/// Steps in a word each.
pub(crate) fn words(plan: &Plan) -> Vec<String> {
    let part = |object: &Value| {
        let metadata = &object["metadata"];
        let edge = metadata["annotations"]["leatworks.dev/edge"].as_str();
        edge.or(metadata["labels"]["leatworks.dev/task"].as_str()).unwrap_or("run").to_owned()
    };
    plan.steps
        .iter()
        .map(|step| match step {
            Step::Subscribe => "subscribe".to_owned(),
            Step::Apply { object, .. } => format!("apply {} {}", object["kind"].as_str().unwrap_or_default(), part(object)),
            Step::Delete { kind, name, .. } => {
                format!("delete {} {}", kind.names().1, name.rsplit_once('-').map_or("", |(name, _)| name))
            }
            Step::Unsubscribe(entry) => format!("unsubscribe {}", entry.edge),
        })
        .collect()
}

/// A graph of whose tasks `s` is a source, `f` a fold and `k` a sink.
pub(crate) fn with_run(graph: &str, more: Value) -> TopologySpec {
    let kinds = [
        json!({ "name": "s", "kind": "Source", "source": { "type": "lines", "path": "/input" } }),
        json!({ "name": "f", "kind": "Fold" }),
        json!({ "name": "k", "kind": "Sink", "sink": { "type": "stdout" } }),
    ];
    let has = |kind: &&Value| graph.split_whitespace().any(|word| kind["name"] == word);
    let mut all = json!({ "tasks": kinds.iter().filter(has).collect::<Vec<_>>() });
    leatworks_controller::merge::overlay(&mut all, &more);
    spec(graph, all)
}

/// The run, which is the only Deployment without a task and an edge.
pub(crate) fn run(model: &mut Model) -> Option<&mut Value> {
    model
        .objects
        .iter_mut()
        .find(|live| live["metadata"]["labels"]["app.kubernetes.io/component"] == "run" && live["kind"] == "Deployment")
}
