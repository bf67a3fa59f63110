//! What the templates see of a project: plain records, in the order in which they are written out.

use crate::{
    generate::Package,
    names::{Scope, shout, snake},
    text::{code, doc_lines, fenced, visible},
};
use leatworks_topology::{Builtin, Codec, Edge, Ingress, Project, Task, TaskKind, Topology, draw};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
pub(crate) struct ProjectView {
    project: String,
    version: String,
    pub(crate) topologies: Vec<TopologyView>,
}

#[derive(Serialize)]
pub(crate) struct TopologyView {
    pub(crate) name: String,
    pub(crate) module: String,
    title: String,
    description: String,
    /// The file of its documentation.
    pub(crate) page: String,
    #[serde(skip)]
    pub(crate) docs: Vec<String>,
    codec: &'static str,
    pub(crate) tasks: Vec<TaskView>,
    edges: Vec<EdgeView>,
    markers: Vec<Marker>,
    types: Vec<TypeView>,
    checks: Vec<Check>,
    covers: Vec<Cover>,
    pub(crate) drawings: Vec<Drawing>,
}

#[derive(Serialize)]
pub(crate) struct TaskView {
    pub(crate) name: String,
    pub(crate) constant: String,
    module: String,
    docs: Vec<String>,
    kind: KindView,
    attempts: u32,
    backoff: DurationView,
    max_backoff: DurationView,
    timeout: DurationView,
    parallelism: usize,
    source: Option<BuiltinView>,
    routes: Vec<RouteView>,
    ends: Vec<String>,
}

/// How a task is opened. `open` names the runtime's constructor for Rust types; a source has none of the four.
#[derive(Default, Serialize)]
struct KindView {
    variant: &'static str,
    open: Option<&'static str>,
    url: Option<String>,
    job: Option<String>,
    builtin: Option<BuiltinView>,
}

#[derive(Serialize)]
struct DurationView {
    secs: u64,
    nanos: u32,
}

impl From<Duration> for DurationView {
    fn from(duration: Duration) -> Self {
        Self { secs: duration.as_secs(), nanos: duration.subsec_nanos() }
    }
}

#[derive(Serialize)]
struct BuiltinView {
    kind: String,
    options: String,
}

impl From<&Builtin> for BuiltinView {
    fn from(builtin: &Builtin) -> Self {
        Self { kind: builtin.kind().to_owned(), options: builtin.options().to_string() }
    }
}

#[derive(Serialize)]
struct RouteView {
    label: Option<String>,
    topic: String,
}

#[derive(Serialize)]
struct EdgeView {
    id: String,
    from: Option<String>,
    to: String,
    label: Option<String>,
    topic: String,
    subscription: String,
    retry_topic: String,
    dead_letter_topic: String,
}

#[derive(Serialize)]
struct Marker {
    marker: String,
    doc: String,
}

/// A task's Rust type under a name of its own, so that a missing type is one error and every check is short. A source that only passes
/// on what it reads has no type, but what it gives has.
#[derive(Serialize)]
struct TypeView {
    module: String,
    doc: String,
    path: Option<String>,
    interface: &'static str,
    gives: Option<&'static str>,
}

#[derive(Serialize)]
struct Check {
    doc: String,
    /// The edge as a person names it.
    words: String,
    /// The same with its place.
    told: String,
    place: String,
    marker: String,
    from: String,
    to: String,
    label: Option<String>,
    task: String,
}

/// The check that every variant which a task gives has an edge or ends there.
#[derive(Serialize)]
struct Cover {
    doc: String,
    module: String,
    task: String,
    place: String,
    labels: Vec<String>,
    ends: Vec<String>,
}

/// One drawing of a topology: its field in the definition, its file in the output folder.
#[derive(Serialize)]
pub(crate) struct Drawing {
    field: &'static str,
    pub(crate) file: String,
    #[serde(skip)]
    pub(crate) text: String,
}

impl ProjectView {
    pub(crate) fn new(project: &Project, package: &Package) -> Self {
        let mut modules = Scope::default();
        Self {
            project: project.name().to_owned(),
            version: package.version.clone(),
            topologies: project
                .topologies()
                .iter()
                .map(|topology| topology_view(topology, modules.claim(snake(topology.name().as_str()))))
                .collect(),
        }
    }
}

fn topology_view(topology: &Topology, module: String) -> TopologyView {
    let mut constants = Scope::default();
    let mut modules = Scope::default();
    let tasks: Vec<TaskView> = topology
        .tasks()
        .iter()
        .map(|task| {
            let name = task.name().as_str();
            task_view(topology, task, constants.claim(shout(name)), modules.claim(snake(name)))
        })
        .collect();
    let mut markers = Scope::default();
    let marked: Vec<(&Edge, String)> = topology.edges().iter().map(|edge| (edge, markers.claim(marker(edge)))).collect();
    let ingresses = topology.roots().map(|task| ingress_view(&topology.ingress(task)));
    TopologyView {
        name: topology.name().to_string(),
        title: format!(" The topology {} of {}.", code(topology.name().as_str()), code(topology.file())),
        description: topology.description().unwrap_or_default().to_owned(),
        page: format!("{}.md", topology.name()),
        docs: topology_docs(topology),
        codec: match topology.codec() {
            Codec::Json => "Json",
            Codec::MessagePack => "MessagePack",
        },
        edges: ingresses.chain(topology.edges().iter().map(edge_view)).collect(),
        markers: marked.iter().map(|(edge, marker)| Marker { marker: marker.clone(), doc: edge_doc(topology, edge) }).collect(),
        types: topology.tasks().iter().zip(&tasks).filter_map(|(task, view)| type_view(topology, task, view)).collect(),
        checks: marked.iter().filter_map(|(edge, marker)| check(topology, &tasks, edge, marker)).collect(),
        covers: topology.tasks().iter().zip(&tasks).filter_map(|(task, view)| cover(topology, task, view)).collect(),
        drawings: drawings(topology),
        module,
        tasks,
    }
}

fn topology_docs(topology: &Topology) -> Vec<String> {
    let mut docs = doc_lines(topology.description().unwrap_or("A topology of this project."));
    docs.push(String::new());
    docs.extend(fenced("mermaid", topology.graph_source().trim_matches('\n')));
    docs.push(String::new());
    docs.extend(fenced("text", draw::text(topology, true).trim_matches('\n')));
    docs
}

fn drawings(topology: &Topology) -> Vec<Drawing> {
    let draw = |field, ending, text| {
        let file = format!("{}.{ending}", topology.name());
        Drawing { field, file, text }
    };
    vec![
        draw("mermaid", "mermaid", draw::mermaid(topology)),
        draw("dot", "dot", draw::dot(topology)),
        draw("svg", "svg", draw::svg(topology)),
        draw("text", "txt", draw::text(topology, true)),
    ]
}

fn task_view(topology: &Topology, task: &Task, constant: String, module: String) -> TaskView {
    let mut docs = vec![format!(" The task {} ({}).", code(task.name().as_str()), visible(&place(topology, task.line())))];
    if let Some(text) = task.text() {
        docs.push(String::new());
        docs.extend(doc_lines(text));
    }
    TaskView {
        name: task.name().to_string(),
        constant,
        module,
        docs,
        kind: kind_view(topology, task),
        attempts: task.retry().attempts,
        backoff: task.retry().backoff.into(),
        max_backoff: task.retry().max_backoff.into(),
        timeout: task.timeout().into(),
        parallelism: task.parallelism(),
        source: task.source().map(BuiltinView::from),
        routes: topology
            .routes(task)
            .iter()
            .map(|route| RouteView { label: route.label().map(ToString::to_string), topic: route.topic().to_owned() })
            .collect(),
        ends: task.ends().iter().map(ToString::to_string).collect(),
    }
}

fn kind_view(topology: &Topology, task: &Task) -> KindView {
    match task.kind() {
        TaskKind::Rust { fold, .. } => {
            let (variant, open) = match (fold, is_routed(topology, task)) {
                (false, false) => ("Rust", "open_task"),
                (false, true) => ("Rust", "open_routed"),
                (true, false) => ("Fold", "open_fold"),
                (true, true) => ("Fold", "open_fold_routed"),
            };
            KindView { variant, open: Some(open), ..KindView::default() }
        }
        TaskKind::Worker { url } => KindView { url: Some(url.clone()), ..KindView::default() },
        TaskKind::Job(job) => KindView { job: Some(job.options().to_string()), ..KindView::default() },
        TaskKind::Source => KindView::default(),
        TaskKind::Sink(sink) => KindView { builtin: Some(sink.into()), ..KindView::default() },
    }
}

/// Whether what the task gives is told apart by label.
fn is_routed(topology: &Topology, task: &Task) -> bool {
    !task.ends().is_empty() || topology.outgoing(task.name().as_str()).any(|edge| edge.label().is_some())
}

fn type_view(topology: &Topology, task: &Task, view: &TaskView) -> Option<TypeView> {
    let (path, interface, gives) = match task.kind() {
        TaskKind::Rust { path, fold: true } => (Some(path.clone()), "Fold", None),
        TaskKind::Rust { path, fold: false } => (Some(path.clone()), "Task", None),
        TaskKind::Source => (None, "", Some(gives(task)?)),
        TaskKind::Worker { .. } | TaskKind::Job(_) | TaskKind::Sink(_) => return None,
    };
    let doc = format!(" Task {} ({}).", code(&view.name), visible(&place(topology, task.line())));
    Some(TypeView { module: view.module.clone(), doc, path, interface, gives })
}

/// The type of what a task's source gives. JSON lines have none.
fn gives(task: &Task) -> Option<&'static str> {
    match task.source()?.kind() {
        "lines" => Some("::leatworks::source::Line"),
        "directory" => Some("::leatworks::source::Entry"),
        "interval" => Some("::leatworks::source::Tick"),
        _ => None,
    }
}

/// Types are checked where both ends have one: what a worker or a job gives or takes is known only at run time, and a sink takes anything.
fn check(topology: &Topology, tasks: &[TaskView], edge: &Edge, marker: &str) -> Option<Check> {
    let find = |name: &str| {
        let at = topology.tasks().iter().position(|task| task.name().as_str() == name)?;
        Some((&topology.tasks()[at], tasks[at].module.clone()))
    };
    let is_rust = |task: &Task| matches!(task.kind(), TaskKind::Rust { .. });
    let (from, from_module) = find(edge.from().as_str())?;
    let (to, to_module) = find(edge.to().as_str())?;
    let known = is_rust(from) || matches!(from.kind(), TaskKind::Source) && gives(from).is_some();
    (known && is_rust(to)).then(|| Check {
        doc: edge_doc(topology, edge),
        words: edge_words(edge),
        told: format!("{} ({})", edge_words(edge), place(topology, edge.line())),
        place: place(topology, edge.line()),
        marker: marker.to_owned(),
        from: from_module,
        to: to_module,
        label: edge.label().map(ToString::to_string),
        task: edge.from().to_string(),
    })
}

fn cover(topology: &Topology, task: &Task, view: &TaskView) -> Option<Cover> {
    if !matches!(task.kind(), TaskKind::Rust { .. }) || !is_routed(topology, task) {
        return None;
    }
    Some(Cover {
        doc: format!(" Every variant that {} gives has an edge or ends there.", code(&view.name)),
        module: view.module.clone(),
        task: view.name.clone(),
        place: place(topology, task.line()),
        labels: topology.routes(task).iter().filter_map(|route| route.label().map(ToString::to_string)).collect(),
        ends: view.ends.clone(),
    })
}

fn edge_words(edge: &Edge) -> String {
    let arrow = edge.label().map_or("-->".to_owned(), |label| format!("-->|{label}|"));
    format!("{} {arrow} {}", edge.from(), edge.to())
}

fn edge_doc(topology: &Topology, edge: &Edge) -> String {
    format!(" Edge {} ({}).", code(&edge_words(edge)), visible(&place(topology, edge.line())))
}

/// Where something is declared, `topologies/email.toml:9`.
fn place(topology: &Topology, line: usize) -> String {
    format!("{}:{line}", topology.file())
}

fn marker(edge: &Edge) -> String {
    let parts = [Some(edge.from().as_str()), edge.label().map(AsRef::as_ref), Some(edge.to().as_str())];
    snake(&parts.into_iter().flatten().collect::<Vec<_>>().join("--"))
}

fn ingress_view(ingress: &Ingress) -> EdgeView {
    EdgeView {
        id: ingress.id(),
        from: None,
        to: ingress.to().to_string(),
        label: None,
        topic: ingress.topic(),
        subscription: ingress.subscription().to_owned(),
        retry_topic: ingress.retry_topic(),
        dead_letter_topic: ingress.dead_letter_topic(),
    }
}

fn edge_view(edge: &Edge) -> EdgeView {
    EdgeView {
        id: edge.id(),
        from: Some(edge.from().to_string()),
        to: edge.to().to_string(),
        label: edge.label().map(ToString::to_string),
        topic: edge.topic(),
        subscription: edge.subscription().to_owned(),
        retry_topic: edge.retry_topic(),
        dead_letter_topic: edge.dead_letter_topic(),
    }
}
