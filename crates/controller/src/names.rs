//! Names and labels of what is made for a topology.

use kube::core::gvk::GroupVersionKind;
use xxhash_rust::xxh3::xxh3_64;

/// The field manager of all that the controller writes.
pub const MANAGER: &str = "leatworks-controller";

/// The field manager of resources that `leat` applies.
pub const DEPLOYER: &str = "leat";

/// Says that an object is the controller's.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`].
pub const LEATWORKS: &str = "leatworks";

/// The topology that an object belongs to.
pub const TOPOLOGY: &str = "leatworks.dev/topology";

/// The task that an object belongs to. On a dispatcher it is the target of the edge.
pub const TASK: &str = "leatworks.dev/task";

/// The edge that an object belongs to: a label, and an annotation with the edge as it stands in the graph.
pub const EDGE: &str = "leatworks.dev/edge";

/// What an object is for: `worker`, `dispatcher`, `run`.
pub const ROLE: &str = "app.kubernetes.io/component";

/// An annotation with the hash of what was applied.
pub const APPLIED: &str = "leatworks.dev/applied";

/// Annotations on a dispatcher that say where its messages are, for when the edge is no longer in the graph.
pub const TOPIC: &str = "leatworks.dev/topic";
/// The subscription on that topic.
pub const SUBSCRIPTION: &str = "leatworks.dev/subscription";
/// Where messages wait to be tried again.
pub const RETRY_TOPIC: &str = "leatworks.dev/retry-topic";

/// An annotation on a run with the edges that it serves, and the same of each of them: a list of lists, as JSON.
pub const EDGES: &str = "leatworks.dev/edges";

/// The longest name of an object: a Deployment appends 17 characters for its pods, whose host name has 63 at most.
const OBJECT_NAME_MAX: usize = 46;

/// The name of what a part of a topology has. Names with hyphens can be put together in several ways, so a hash of the parts tells them apart.
pub fn object(topology: &str, role: &str, part: &str) -> String {
    let hash = hash8(&format!("{topology}\n{role}\n{part}"));
    let words = slug(&format!("{topology}-{part}"));
    let words = cut(&words, OBJECT_NAME_MAX - hash.len() - 1);
    format!("{words}-{hash}")
}

/// An edge as the value of a label, which is that of its metrics too.
pub use leatworks::observe::label;

/// Eight hexadecimal digits of a text's hash.
pub fn hash8(text: &str) -> String {
    format!("{:08x}", xxh3_64(text.as_bytes()) >> 32)
}

/// The hash of a text, as 32 hexadecimal digits.
pub fn hash(text: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// Lower-case letters, digits and single hyphens.
fn slug(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// At most so many bytes, which all are ASCII, without a hyphen or dot at the end.
fn cut(text: &str, max: usize) -> &str {
    text[..text.len().min(max)].trim_end_matches(['-', '.'])
}

/// A kind of object that the controller makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Settings of a task.
    ConfigMap,
    /// The address of a worker.
    Service,
    /// Workers, dispatchers, and the run of a topology.
    Deployment,
    /// The number of dispatchers of an edge.
    Autoscaler,
    /// What was deployed, and can be again.
    Revision,
}

impl Kind {
    /// All of them, in the order in which they are applied.
    pub const ALL: [Self; 5] = [Self::Revision, Self::ConfigMap, Self::Service, Self::Deployment, Self::Autoscaler];

    /// `apiVersion`, `kind`, and the plural of its address.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ConfigMap => ("v1", "ConfigMap", "configmaps"),
            Self::Service => ("v1", "Service", "services"),
            Self::Deployment => ("apps/v1", "Deployment", "deployments"),
            Self::Autoscaler => ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::Revision => ("apps/v1", "ControllerRevision", "controllerrevisions"),
        }
    }

    /// As the client names it.
    pub fn resource(self) -> kube::core::ApiResource {
        let (api_version, kind, plural) = self.names();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        kube::core::ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The kind of an object by its `kind`.
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.names().1 == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_different_parts_have_different_names_that_a_pod_can_bear() {
        let long = "a".repeat(63);
        let parts = [
            ("a-b", "worker", "c"),
            ("a", "worker", "b-c"),
            ("a", "dispatcher", "b-c"),
            (&long, "worker", &long),
            (&long, "run", &long),
        ];
        let names: std::collections::BTreeSet<String> =
            parts.iter().map(|(topology, role, part)| object(topology, role, part)).collect();
        assert_eq!(names.len(), parts.len());
        for name in names {
            assert!(name.len() <= OBJECT_NAME_MAX && !name.contains("--"), "{name}");
        }
        assert!(object("email-pipeline", "dispatcher", "render-->|mail|send").starts_with("email-pipeline-render-mail-send-"));
    }

    #[test]
    fn edges_are_values_of_labels() {
        let long = "b".repeat(63);
        for (edge, expected) in [
            ("a-->b", "a.b"),
            ("render-->|mail|send", "render.mail.send"),
            ("[*]-->start", "0.start"),
            ("count-minutes-->report", "count-minutes.report"),
            ("a-b-->|c-d|e-f", "a-b.c-d.e-f"),
        ] {
            assert_eq!(label(edge), expected);
        }
        let (one, other) = (label(&format!("{long}-->a")), label(&format!("{long}-->b")));
        assert!(one.len() <= 63 && other.len() <= 63 && one != other, "{one} {other}");
    }
}
