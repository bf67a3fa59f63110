//! The objects of a topology: a Deployment and a Service for each worker, a Deployment for each edge, one for the run, settings in config maps.

use super::{
    jobs,
    pod::Pod,
    site::{Part, Refusal, Served, Site},
};
use crate::{
    crd::{Autoscale, TaskKind, TaskSpec},
    names::{self, Kind},
    same,
};
use serde_json::{Value, json};

/// Where the binaries are in an image.
const APP: &str = "/app";

/// How long a worker goes on when its pod is to end, so that the nodes learn not to send to it any more.
const LINGER_SECONDS: i64 = 3;

/// Where a dispatcher tells how it is. Nothing else listens in its pod.
const DISPATCHER_PORT: i32 = 8081;

/// How long a dispatcher may take to answer a probe: it may be busy, on a machine that is.
const PROBE_SECONDS: i64 = 5;

/// How long the backlog must have asked for fewer dispatchers before some go: one that goes settles what it has in hand, and the next burst may be near.
const CALM_SECONDS: i64 = 300;

/// How often the number of dispatchers may double, or halve: as often as an autoscaler looks, and slower on the way down.
const GROW_SECONDS: i64 = 15;
/// See [`GROW_SECONDS`].
const SHRINK_SECONDS: i64 = 60;

/// How many dispatchers may be added at once where doubling would be less.
const GROW_PODS: i64 = 4;

/// The longest list of the edges that a run serves: the API server takes 256 KiB of annotations of an object, and others have theirs too.
const SERVED_MAX: usize = 192 * 1024;

/// The metric by which dispatchers are scaled, which they and the controller export.
pub const BACKLOG_METRIC: &str = "leatworks_edge_backlog";

/// All objects that are to be there, in the order of their making: what others need comes first.
///
/// # Errors
/// All reasons why the resource cannot be deployed.
pub fn desired(site: Site<'_>) -> Result<Vec<Value>, Refusal> {
    let (mut objects, mut refused) = (Vec::new(), Vec::new());
    for task in site.graph.tasks() {
        let name = task.name().as_str();
        match site.task(name) {
            of_resource if of_resource.kind == TaskKind::Job => {
                jobs::adapter(site, &of_resource, task, &mut objects, &mut refused);
            }
            of_resource if site.has_worker(name) => worker(site, &of_resource, &mut objects, &mut refused),
            _ => {}
        }
    }
    if site.has_run() {
        run(site, &mut objects, &mut refused);
    }
    for edge in site.dispatched() {
        dispatcher(site, &edge, &mut objects, &mut refused);
    }
    if !refused.is_empty() {
        return Err(Refusal(refused));
    }
    objects.sort_by_key(|object| object["kind"].as_str().and_then(Kind::of));
    objects.iter_mut().for_each(same::seal);
    Ok(objects)
}

fn worker(site: Site<'_>, task: &TaskSpec, objects: &mut Vec<Value>, refused: &mut Vec<String>) {
    let part = Part::Task(&task.name);
    let name = names::object(site.name, "worker", &task.name);
    let config = config(site, "worker", part, std::slice::from_ref(task), objects, refused);
    let at_once = at_once(site, &task.name);
    let mut env = task_env(site.name, task);
    env.push((variable(site.name, &task.name, "PARALLELISM"), at_once.to_string()));
    let own = task.kind == TaskKind::Rust && task.command.is_empty();
    let pod = Pod {
        site,
        role: "worker",
        part,
        image: task.image.as_deref().unwrap_or(&site.spec.image),
        command: command(task),
        port: Some(("http", task.port)),
        scraped: false,
        probes: probes(own),
        env,
        user_env: &task.env,
        user_env_from: &task.env_from,
        resources: task.resources.as_ref(),
        config,
        files: None,
        broker: false,
        account: None,
        overlays: task.pod_template.iter().collect(),
    };
    objects.push(pod.deployment(Some(task.replicas), false, refused));
    objects.push(service(site, &name, task, part));
}

/// All that dispatchers may have in hand at once can meet in one worker, and what it does not take in costs an attempt.
pub(super) fn at_once(site: Site<'_>, task: &str) -> usize {
    let edges = site.dispatched().into_iter().filter(|edge| edge.to.name().as_str() == task);
    edges.map(|edge| edge.parallelism() * usize::try_from(edge.replicas_max()).unwrap_or(1)).sum::<usize>().max(1)
}

/// The address of a task's workers.
pub(super) fn service(site: Site<'_>, name: &str, task: &TaskSpec, part: Part<'_>) -> Value {
    let mut service = site.object(Kind::Service, name, "worker", part);
    service["spec"] = json!({
        "selector": site.selector("worker", part),
        "ports": [{ "name": "http", "port": task.port, "protocol": "TCP", "targetPort": "http" }],
    });
    service
}

fn command(task: &TaskSpec) -> Vec<String> {
    if !task.command.is_empty() {
        return task.command.clone();
    }
    let listen = format!("0.0.0.0:{}", task.port);
    let words: &[&str] = match task.kind {
        TaskKind::Rust => &["serve", "--listen", &listen, "--allow-remote", "--log-format", "json"],
        // An image of another language knows what it runs.
        _ => return Vec::new(),
    };
    std::iter::once(format!("{APP}/{}", task.name)).chain(words.iter().map(|word| (*word).to_owned())).collect()
}

/// How the kubelet learns how a worker is. One in another language says nothing of itself but that it listens.
pub(super) fn probes(own: bool) -> Value {
    let get = |path: &str, period: i64| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": period });
    let linger = json!({ "preStop": { "sleep": { "seconds": LINGER_SECONDS } } });
    if own {
        json!({ "readinessProbe": get("/readyz", 2), "livenessProbe": get("/healthz", 10), "lifecycle": linger })
    } else {
        json!({ "readinessProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 2 }, "lifecycle": linger })
    }
}

/// How the kubelet learns how a dispatcher is.
fn dispatcher_probes() -> Value {
    let get = |path: &str, period: i64| json!({ "httpGet": { "path": path, "port": "metrics" }, "periodSeconds": period, "timeoutSeconds": PROBE_SECONDS });
    json!({ "readinessProbe": get("/readyz", 2), "livenessProbe": get("/healthz", 10) })
}

fn dispatcher(site: Site<'_>, edge: &Served<'_>, objects: &mut Vec<Value>, refused: &mut Vec<String>) {
    let target = site.task(edge.to.name().as_str());
    let part = Part::Edge(&edge.id, &target.name);
    let url = target
        .url
        .clone()
        .unwrap_or_else(|| format!("http://{}:{}", names::object(site.name, "worker", &target.name), target.port));
    let mut env = task_env(site.name, &target);
    env.push((variable(site.name, &target.name, "PARALLELISM"), edge.parallelism().to_string()));
    let listen = format!("0.0.0.0:{DISPATCHER_PORT}");
    let words =
        ["dispatch", &edge.id, "--worker", &url, "--topics-are-made", "--listen", &listen, "-o", "json", "--log-format", "json"];
    let pod = Pod {
        site,
        role: "dispatcher",
        part,
        image: &site.spec.image,
        command: std::iter::once(format!("{APP}/{}", site.name)).chain(words.map(str::to_owned)).collect(),
        port: Some(("metrics", DISPATCHER_PORT)),
        scraped: true,
        probes: dispatcher_probes(),
        env,
        user_env: &site.spec.env,
        user_env_from: &site.spec.env_from,
        resources: edge.spec.and_then(|spec| spec.resources.as_ref()),
        config: None,
        files: None,
        broker: true,
        account: None,
        overlays: edge.spec.and_then(|spec| spec.pod_template.as_ref()).into_iter().collect(),
    };
    let autoscale = edge.spec.and_then(|spec| spec.autoscale.as_ref());
    let replicas = autoscale.is_none().then(|| edge.spec.map_or(1, |spec| spec.replicas));
    let mut deployment = pod.deployment(replicas, false, refused);
    let annotations = &mut deployment["metadata"]["annotations"];
    annotations[names::TOPIC] = edge.topic.as_str().into();
    annotations[names::SUBSCRIPTION] = edge.subscription.as_str().into();
    annotations[names::RETRY_TOPIC] = edge.retry_topic.as_str().into();
    let name = deployment["metadata"]["name"].clone();
    objects.push(deployment);
    if let Some(autoscale) = autoscale {
        objects.push(scaler(site, edge, part, name.as_str().unwrap_or_default(), autoscale));
    }
}

/// What decides how many dispatchers an edge has.
fn scaler(site: Site<'_>, edge: &Served<'_>, part: Part<'_>, name: &str, autoscale: &Autoscale) -> Value {
    let mut scaler = site.object(Kind::Autoscaler, name, "dispatcher", part);
    scaler["spec"] = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
        "minReplicas": autoscale.min_replicas,
        "maxReplicas": autoscale.max_replicas,
        "metrics": [{
            "type": "External",
            "external": {
                "metric": {
                    "name": BACKLOG_METRIC,
                    "selector": { "matchLabels": { "topology": site.name, "edge": names::label(&edge.id) } },
                },
                "target": { "type": "AverageValue", "averageValue": autoscale.backlog_per_replica.to_string() },
            },
        }],
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [
                    { "type": "Percent", "value": 100, "periodSeconds": GROW_SECONDS },
                    { "type": "Pods", "value": GROW_PODS, "periodSeconds": GROW_SECONDS },
                ],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": CALM_SECONDS,
                "selectPolicy": "Max",
                "policies": [{ "type": "Percent", "value": 50, "periodSeconds": SHRINK_SECONDS }],
            },
        },
    });
    scaler
}

/// The edges whose dispatchers are scaled by their backlog: edge, topic, subscription and retry topic.
pub fn scaled(site: Site<'_>) -> Vec<(String, String, String, String)> {
    let edges = site.dispatched().into_iter().filter(|edge| edge.spec.is_some_and(|spec| spec.autoscale.is_some()));
    edges.map(|edge| (edge.id, edge.topic, edge.subscription, edge.retry_topic)).collect()
}

/// The run of the topology: its sources, folds and built-in sinks. Two of them would be in each other's way.
fn run(site: Site<'_>, objects: &mut Vec<Value>, refused: &mut Vec<String>) {
    let tasks: Vec<TaskSpec> = site.graph.tasks().iter().map(|task| site.task(task.name().as_str())).collect();
    let config = config(site, "run", Part::Whole, &tasks, objects, refused);
    let words = ["run", "--serve", "--elsewhere", "--log-format", "json"];
    let mine = tasks.iter().filter(|task| !site.is_called(&task.name));
    without_effect(site, refused);
    let pod = Pod {
        site,
        role: "run",
        part: Part::Whole,
        image: &site.spec.image,
        command: std::iter::once(format!("{APP}/{}", site.name)).chain(words.map(str::to_owned)).collect(),
        port: None,
        scraped: false,
        probes: json!({}),
        env: tasks.iter().flat_map(|task| task_env(site.name, task)).collect(),
        user_env: &site.spec.env,
        user_env_from: &site.spec.env_from,
        resources: mine.clone().find_map(|task| task.resources.as_ref()),
        config,
        files: None,
        broker: true,
        account: None,
        overlays: mine.filter_map(|task| task.pod_template.as_ref()).collect(),
    };
    let mut deployment = pod.deployment(Some(1), true, refused);
    let served: Vec<[String; 4]> =
        site.run_here().into_iter().map(|edge| [edge.id, edge.topic, edge.subscription, edge.retry_topic]).collect();
    let served = json!(served).to_string();
    if served.len() > SERVED_MAX {
        refused.push(format!(
            "the edges into sources, folds and sinks, with their topics, take {} bytes of an annotation, of which there are {SERVED_MAX}: use shorter names or fewer edges",
            served.len()
        ));
    }
    deployment["metadata"]["annotations"][names::EDGES] = served.into();
    objects.push(deployment);
}

/// Refuses what is said of tasks and edges that the run has, and would have no effect: it has one pod, with one container, and no dispatchers.
fn without_effect(site: Site<'_>, refused: &mut Vec<String>) {
    let mine = || site.spec.tasks.iter().filter(|task| !site.is_called(&task.name));
    let usual = TaskSpec::named("");
    for task in mine() {
        let place = format!("task `{}` is of kind {:?}, which the run of the topology has:", task.name, task.kind);
        let is_built_in = matches!(task.kind, TaskKind::Source | TaskKind::Sink);
        for (field, is_set, remedy) in [
            ("settings", is_built_in && task.settings.is_some(), "take it out; it is told by `source` or `sink`"),
            ("image", task.image.is_some(), "take it out; the run has the topology's `image`"),
            ("command", !task.command.is_empty(), "take it out; the run has one command for all of them"),
            ("port", task.port != usual.port, "take it out; nobody calls it"),
            ("replicas", task.replicas != usual.replicas, "take it out; there is one run"),
            ("env", !task.env.is_empty(), "say it in `podTemplate` of the task, for the container `run`"),
            ("envFrom", !task.env_from.is_empty(), "say it in `podTemplate` of the task, for the container `run`"),
        ] {
            if is_set {
                refused.push(format!("{place} its `{field}` has no effect; {remedy}"));
            }
        }
    }
    let with_resources: Vec<&str> = mine().filter(|task| task.resources.is_some()).map(|task| task.name.as_str()).collect();
    if with_resources.len() > 1 {
        refused.push(format!(
            "the tasks `{}` share the one container of the run, and each says its `resources`; say the sum at one of them",
            with_resources.join("`, `")
        ));
    }
    let served: Vec<String> = site.run_here().into_iter().map(|edge| edge.id).collect();
    for edge in site.spec.edges.iter().filter(|edge| served.contains(&edge.edge)) {
        refused.push(format!(
            "`edges` names `{}`, which the run of the topology serves without a dispatcher, so nothing that is said there has an effect; take it out",
            edge.edge
        ));
    }
}

/// The config map with the settings of some tasks, if any has some: its name, and the hash of what it holds.
fn config(
    site: Site<'_>,
    role: &str,
    part: Part<'_>,
    tasks: &[TaskSpec],
    objects: &mut Vec<Value>,
    refused: &mut Vec<String>,
) -> Option<(String, String)> {
    let mut of_tasks = toml::Table::new();
    for task in tasks {
        let mut of_task = toml::Table::new();
        for (key, said) in [("settings", &task.settings), ("source", &task.source), ("sink", &task.sink)] {
            let Some(said) = said else { continue };
            match toml::Value::try_from(said) {
                Ok(said) => drop(of_task.insert(key.to_owned(), said)),
                Err(error) => {
                    refused.push(format!("`{key}` of task `{}` is not for a configuration file: {error}", task.name));
                }
            }
        }
        if !of_task.is_empty() {
            of_tasks.insert(task.name.clone(), of_task.into());
        }
    }
    if of_tasks.is_empty() {
        return None;
    }
    let nest = |key: &str, value: toml::Table| toml::Table::from_iter([(key.to_owned(), toml::Value::Table(value))]);
    let text = nest("topology", nest(site.name, nest("task", of_tasks))).to_string();
    let name = names::object(site.name, role, part.name());
    let mut map = site.object(Kind::ConfigMap, &name, role, part);
    map["data"] = json!({ "config.toml": text });
    objects.push(map);
    Some((name, names::hash(&text)))
}

/// What the resource says of retries and time, as the binaries read it.
fn task_env(topology: &str, task: &TaskSpec) -> Vec<(String, String)> {
    let retry = task.retry.as_ref();
    let pairs = [
        ("TIMEOUT", task.timeout.clone()),
        ("RETRY__ATTEMPTS", retry.and_then(|retry| Some(retry.attempts?.to_string()))),
        ("RETRY__BACKOFF", retry.and_then(|retry| retry.backoff.clone())),
        ("RETRY__MAX_BACKOFF", retry.and_then(|retry| retry.max_backoff.clone())),
    ];
    pairs.into_iter().filter_map(|(key, value)| Some((variable(topology, &task.name, key), value?))).collect()
}

/// The variable that sets something of a task: in the names `_` stands for `-`.
fn variable(topology: &str, task: &str, key: &str) -> String {
    let word = |name: &str| name.replace('-', "_").to_ascii_uppercase();
    format!("LEAT_TOPOLOGY__{}__TASK__{}__{key}", word(topology), word(task))
}
