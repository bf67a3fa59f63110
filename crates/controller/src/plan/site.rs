//! What a plan is made from.

use crate::{
    crd::{EdgeSpec, TaskKind, TaskSpec, TopologySpec},
    names,
};
use leatworks_topology as model;
use serde_json::{Value, json};

/// What the controller knows besides the resource.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The image that holds `leat`, for what runs jobs.
    pub leat_image: Option<String>,
    /// The service account that may create jobs.
    pub jobs_account: Option<String>,
}

/// A resource cannot be deployed as it stands, for these reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refusal(pub Vec<String>);

/// One topology and where it is deployed.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its name, which is that of the resource.
    pub name: &'a str,
    /// The namespace of the resource.
    pub namespace: &'a str,
    /// The resource's own id: its objects go with it.
    pub uid: &'a str,
    /// What is asked for.
    pub spec: &'a TopologySpec,
    /// Its graph, which is valid.
    pub graph: &'a model::Topology,
    /// What the controller knows besides.
    pub settings: &'a Settings,
}

/// An edge, with where its messages are.
#[derive(Clone, Debug)]
pub(super) struct Served<'a> {
    pub(super) id: String,
    pub(super) to: &'a model::Task,
    pub(super) topic: String,
    pub(super) subscription: String,
    pub(super) retry_topic: String,
    pub(super) spec: Option<&'a EdgeSpec>,
}

impl Served<'_> {
    /// How many dispatchers it may have at once.
    pub(super) fn replicas_max(&self) -> i32 {
        self.spec.map_or(1, |spec| spec.autoscale.as_ref().map_or(spec.replicas, |autoscale| autoscale.max_replicas))
    }

    /// How many messages each of them has in hand.
    pub(super) fn parallelism(&self) -> usize {
        let own = self.spec.and_then(|spec| usize::try_from(spec.parallelism?).ok());
        own.unwrap_or_else(|| self.to.parallelism())
    }
}

impl<'a> Site<'a> {
    /// What the resource says of a task; a node that it does not name is a Rust task.
    pub(super) fn task(&self, name: &str) -> TaskSpec {
        let named = self.spec.tasks.iter().find(|task| task.name == name);
        let mut task = named.cloned().unwrap_or_else(|| TaskSpec::named(name));
        // What stands on every container comes first, so that the task's own goes over it.
        task.env = self.spec.env.iter().chain(&task.env).cloned().collect();
        task.env_from = self.spec.env_from.iter().chain(&task.env_from).cloned().collect();
        task
    }

    /// Whether a task is called over HTTP, by dispatchers of their own.
    pub(super) fn is_called(&self, name: &str) -> bool {
        matches!(self.task(name).kind, TaskKind::Rust | TaskKind::Worker | TaskKind::Job)
    }

    /// Whether a worker of this task runs here.
    pub(super) fn has_worker(&self, name: &str) -> bool {
        let task = self.task(name);
        self.is_called(name) && task.url.is_none()
    }

    /// Whether anything is left for the topology's own run: sources, folds and built-in sinks.
    pub(super) fn has_run(&self) -> bool {
        self.graph.tasks().iter().any(|task| !self.is_called(task.name().as_str()) || task.source().is_some())
    }

    /// The edges that have dispatchers, with the ways in.
    pub(super) fn dispatched(&self) -> Vec<Served<'a>> {
        self.edges().into_iter().filter(|edge| self.is_called(edge.to.name().as_str())).collect()
    }

    /// The edges that the run serves, with the ways in: those that lead to sources, folds and built-in sinks.
    pub(super) fn run_here(&self) -> Vec<Served<'a>> {
        self.edges().into_iter().filter(|edge| !self.is_called(edge.to.name().as_str())).collect()
    }

    fn edges(&self) -> Vec<Served<'a>> {
        let settings = |id: &str| self.spec.edges.iter().find(|edge| edge.edge == id);
        let ways_in = self.graph.roots().map(|task| {
            let way = self.graph.ingress(task);
            Served {
                spec: settings(&way.id()),
                id: way.id(),
                to: task,
                topic: way.topic(),
                subscription: way.subscription().to_owned(),
                retry_topic: way.retry_topic(),
            }
        });
        let edges = self.graph.edges().iter().filter_map(|edge| {
            Some(Served {
                spec: settings(&edge.id()),
                id: edge.id(),
                to: self.graph.task(edge.to().as_str())?,
                topic: edge.topic(),
                subscription: edge.subscription().to_owned(),
                retry_topic: edge.retry_topic(),
            })
        });
        ways_in.chain(edges).collect()
    }

    /// An object of the topology as a whole, without its content.
    pub(crate) fn whole(&self, kind: names::Kind, name: &str) -> Value {
        self.object(kind, name, "topology", Part::Whole)
    }

    /// An object without its content.
    pub(super) fn object(&self, kind: names::Kind, name: &str, role: &str, part: Part<'_>) -> Value {
        let (api_version, kind, _) = kind.names();
        json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": self.labels(role, part),
                "annotations": part.annotations(),
                "ownerReferences": [{
                    "apiVersion": format!("{}/{}", crate::crd::GROUP, crate::crd::VERSION),
                    "kind": "Topology",
                    "name": self.name,
                    "uid": self.uid,
                    "controller": true,
                }],
            },
        })
    }

    /// The labels of an object, by which it is found again.
    pub(super) fn labels(&self, role: &str, part: Part<'_>) -> Value {
        let mut labels = self.selector(role, part);
        labels[names::MANAGED_BY] = names::LEATWORKS.into();
        if let Part::Edge(_, target) = part {
            labels[names::TASK] = target.into();
        }
        labels
    }

    /// What tells the pods of a part from others. It never changes, since a Deployment's cannot.
    pub(super) fn selector(&self, role: &str, part: Part<'_>) -> Value {
        let mut labels = json!({ names::TOPOLOGY: self.name, names::ROLE: role });
        match part {
            Part::Whole => {}
            Part::Task(task) => labels[names::TASK] = task.into(),
            Part::Edge(edge, _) => labels[names::EDGE] = names::label(edge).into(),
        }
        labels
    }
}

/// What an object is a part of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// The topology.
    Whole,
    /// A task.
    Task(&'a str),
    /// An edge, and its target.
    Edge(&'a str, &'a str),
}

impl Part<'_> {
    fn annotations(self) -> Value {
        match self {
            Part::Edge(edge, _) => json!({ names::EDGE: edge }),
            Part::Whole | Part::Task(_) => json!({}),
        }
    }

    /// The name that it has in the names of objects.
    pub(super) fn name(&self) -> &str {
        match self {
            Part::Whole => "",
            Part::Task(name) | Part::Edge(name, _) => name,
        }
    }
}
