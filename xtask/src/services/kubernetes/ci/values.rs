//! What the chart makes of values that the release of the other stages does not have.

use super::{super::Cluster, NAMESPACE, answer, chart::CHART};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What people rely on of a release.
enum Relies {
    /// An object, by kind, namespace and name, has this at a place; `null` if nothing is there.
    On(&'static str, &'static str, Value),
    /// No object is called so, or is of this kind.
    OnNo(&'static str),
    /// The notes that are printed say this.
    OnNote(&'static str),
}
use Relies::{On, OnNo, OnNote};

/// A release by its name, with values, and what people rely on.
type Release = (&'static str, &'static [&'static str], Vec<Relies>);

/// Where the first argument of the controller is: whose topologies it has.
const WHOSE: &str = "/spec/template/spec/containers/0/args/0";
/// And those that tell it how jobs are run.
const JOBS: [&str; 2] = ["/spec/template/spec/containers/0/args/5", "/spec/template/spec/containers/0/args/6"];
/// Where Helm is told to leave an object alone when the release goes.
const POLICY: &str = "/metadata/annotations/helm.sh~1resource-policy";
/// The definition of the resource.
const DEFINITION: &str = "CustomResourceDefinition topologies.leatworks.dev";
const DEPLOYMENT: &str = "Deployment shop/leatworks";
const NAMESPACE_OF_SUBJECT: &str = "/subjects/0/namespace";

fn releases() -> Vec<Release> {
    [whose(), definitions(), secrets(), jobs()].into_iter().flatten().collect()
}

/// Whose topologies the controller has, with rights in these namespaces and in no other.
fn whose() -> Vec<Release> {
    vec![
        (
            "leatworks",
            &[],
            vec![
                On(DEPLOYMENT, WHOSE, json!("--namespace=shop")),
                On("RoleBinding shop/leatworks", NAMESPACE_OF_SUBJECT, json!("shop")),
                OnNo("ClusterRole"),
                OnNo("ClusterRoleBinding"),
                OnNo("Secret"),
            ],
        ),
        (
            "leatworks",
            &["namespaces={north,south}"],
            vec![
                On(DEPLOYMENT, WHOSE, json!("--namespace=north,south")),
                // The controller is in the namespace of the release, and has its rights in the others.
                On("RoleBinding north/leatworks", NAMESPACE_OF_SUBJECT, json!("shop")),
                On("RoleBinding south/leatworks", NAMESPACE_OF_SUBJECT, json!("shop")),
                On("Role south/leatworks", "/rules/0/resources/0", json!("topologies")),
                // Pods can only have service accounts of their own namespace.
                On("ServiceAccount north/leatworks-jobs", "/kind", json!("ServiceAccount")),
                On("RoleBinding north/leatworks-jobs", NAMESPACE_OF_SUBJECT, json!("north")),
                On("Role shop/leatworks-lease", "/rules/0/resourceNames/0", json!("leatworks")),
                OnNo("Role shop/leatworks"),
                OnNo("ClusterRole"),
                OnNote("the topologies of north, south."),
            ],
        ),
        (
            "leatworks",
            &["allNamespaces=true"],
            vec![
                On(DEPLOYMENT, WHOSE, json!("--all-namespaces")),
                On("ClusterRole shop-leatworks", "/rules/0/resources/0", json!("topologies")),
                On("ClusterRoleBinding shop-leatworks", "/roleRef/name", json!("shop-leatworks")),
                On("ClusterRoleBinding shop-leatworks", NAMESPACE_OF_SUBJECT, json!("shop")),
                On("ServiceAccount shop/leatworks-jobs", "/kind", json!("ServiceAccount")),
                OnNo("Role shop/leatworks"),
                OnNote("the topologies of all namespaces."),
            ],
        ),
    ]
}

/// Whether topologies outlive the release.
fn definitions() -> Vec<Release> {
    vec![
        ("leatworks", &["crd.keep=true"], vec![On(DEFINITION, POLICY, json!("keep")), OnNote("kubectl delete crd")]),
        ("leatworks", &["crd.keep=false"], vec![On(DEFINITION, POLICY, Value::Null)]),
        ("leatworks", &["crd.install=false"], vec![OnNo("CustomResourceDefinition"), OnNo(DEFINITION)]),
    ]
}

/// What is secret of a Pulsar service, under a name that the notes tell.
fn secrets() -> Vec<Release> {
    const TOKEN: &str = "pulsar.token=1234";
    const CA: &str = "pulsar.ca=-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
    let held = |secret: &'static str, note: &'static str| {
        vec![
            // A token of digits alone is a text all the same.
            On(secret, "/stringData/token", json!("1234")),
            On(secret, "/stringData/ca", json!(CA.trim_start_matches("pulsar.ca="))),
            OnNote(note),
        ]
    };
    vec![
        ("leatworks", &[TOKEN, CA], held("Secret shop/leatworks-pulsar", "Secret leatworks-pulsar,")),
        ("main", &[TOKEN, CA], held("Secret shop/main-leatworks-pulsar", "Secret main-leatworks-pulsar,")),
        ("my-leatworks", &[TOKEN, CA], held("Secret shop/my-leatworks-pulsar", "Secret my-leatworks-pulsar,")),
        ("leatworks", &[TOKEN], vec![On("Secret shop/leatworks-pulsar", "/stringData", json!({ "token": "1234" }))]),
        (
            "leatworks",
            &["pulsar.url=pulsar+ssl://pulsar.example:6651"],
            vec![OnNo("Secret"), OnNote("--broker pulsar+ssl://pulsar.example:6651")],
        ),
    ]
}

/// Who may create Jobs.
fn jobs() -> Vec<Release> {
    vec![
        (
            "leatworks",
            &["image.repository=registry.example/leat", "image.tag=7"],
            vec![
                On(DEPLOYMENT, JOBS[0], json!("--leat-image=registry.example/leat:7")),
                On(DEPLOYMENT, JOBS[1], json!("--jobs-account=leatworks-jobs")),
            ],
        ),
        (
            "leatworks",
            &["jobs.enabled=false"],
            vec![
                On(DEPLOYMENT, JOBS[0], Value::Null),
                OnNo("ServiceAccount shop/leatworks-jobs"),
                OnNo("Role shop/leatworks-jobs"),
            ],
        ),
    ]
}

/// Renders each release, and looks for what people rely on.
pub(super) fn are_kept(cluster: &Cluster) -> Result<()> {
    releases().iter().try_for_each(|release| is_kept(cluster, release))
}

fn is_kept(cluster: &Cluster, (name, values, relies): &Release) -> Result<()> {
    let Rendered { objects, notes } = render(cluster, name, values)?;
    let called = |object: &Value| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {namespace}{}", text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or_default())
    };
    for rely in relies {
        match rely {
            On(object, pointer, wanted) => {
                let found = objects.iter().find(|found| called(found) == *object);
                let found = found.with_context(|| format!("the release `{name}` with {values:?} has no {object}"))?;
                let found = found.pointer(pointer).unwrap_or(&Value::Null);
                ensure!(found == wanted, "with {values:?} {object} has {found} at {pointer}, and not {wanted}");
            }
            OnNo(object) => {
                let found = objects.iter().find(|found| called(found) == *object || found["kind"] == *object);
                ensure!(found.is_none(), "the release `{name}` with {values:?} has a {object}");
            }
            OnNote(part) => ensure!(notes.contains(part), "with {values:?} the notes do not say `{part}`: {notes}"),
        }
    }
    Ok(())
}

/// A release that is not made.
struct Rendered {
    objects: Vec<Value>,
    notes: String,
}

fn render(cluster: &Cluster, name: &str, values: &[&str]) -> Result<Rendered> {
    let mut helm = cluster.command("helm");
    helm.args(["install", name, CHART, "--namespace", NAMESPACE, "--dry-run=client", "--output=json"]);
    for value in values {
        // Only texts are given as such: lists and truths have a form of their own.
        helm.args([if value.starts_with("pulsar.") || value.starts_with("image.") { "--set-string" } else { "--set" }, value]);
    }
    let release = answer(&mut helm)?;
    let text = |pointer: &str| release.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"));
    // The API server's client knows YAML, and gives each object as it would send it.
    let file = cluster.folder.join("rendered.yaml");
    std::fs::write(&file, text("/manifest")?)?;
    let words = ["create", "--dry-run=client", "--validate=false", "--output=json", "--filename"];
    let output = cluster.kubectl().args(words).arg(&file).output().context("starting kubectl")?;
    ensure!(output.status.success(), "kubectl does not read {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let objects = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?;
    Ok(Rendered { objects, notes: text("/info/notes")?.to_owned() })
}
