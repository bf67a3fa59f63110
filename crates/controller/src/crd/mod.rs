//! The `Topology` custom resource: what a user writes, and what the controller answers.

mod environment;
mod jobs;
mod reference;
mod spec;
mod status;

pub use environment::{EnvSource, EnvVar, KeyRef, NameRef, ValueFrom};
pub use jobs::JobFiles;
pub use reference::reference_markdown;
pub use spec::{
    Autoscale, Broker, Codec, EdgeSpec, PullPolicy, REVISIONS_KEPT, RemovedEdges, Resources, Retry, TaskKind, TaskSpec, Topology,
    TopologySpec,
};
pub use status::{Condition, PartStatus, Retiring, State, TopologyStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of the resource.
pub const GROUP: &str = "leatworks.dev";

/// Its version.
pub const VERSION: &str = "v1alpha1";

/// The definition of the resource, as `leat k8s crd` prints it.
pub fn definition() -> CustomResourceDefinition {
    Topology::crd()
}
