//! Tasks of kind Job: an adapter that makes a Job for each message, and the template of the pods of these Jobs.

use super::{
    objects::{at_once, probes, service},
    pod::{self, Pod},
    site::{Part, Site},
};
use crate::{
    crd::{Codec, EnvSource, GROUP, JobFiles, NameRef, TaskSpec, VERSION},
    merge,
    names::{self, Kind},
    security,
};
use leatworks::jobs::{Adapter, COMMIT, PREPARE, Route, Spec, WORKER, WORKER_HOME, WORKER_PROJECT};
use leatworks_topology as model;
use serde_json::{Map, Value, json};

/// The file in the config map that says what an adapter serves.
const FILE: &str = "job.json";

/// Where the claim with the files of jobs is mounted.
const FILES: &str = "/files";

/// What is done more at once than the edges ask for: while one dispatcher takes over from another, both have messages in hand.
const SPARE: usize = 2;

/// How long a program may take to end when it is asked to. What it leaves then is not taken, so there is little to do.
const GRACE_SECONDS: i64 = 5;

/// The program of our containers.
const LEAT: &str = "/app/leat";

/// The variables by which `leat` knows where the files of jobs are.
pub(super) fn files_env(files: &JobFiles) -> Vec<(String, String)> {
    let url = files.url.clone().unwrap_or_else(|| format!("file://{FILES}"));
    let keep = files.keep.iter().map(|keep| ("LEAT_JOBS__KEEP".to_owned(), keep.clone()));
    let option =
        |(name, value): (&String, &String)| (format!("LEAT_JOBS__OPTIONS__{}", name.to_ascii_uppercase()), value.clone());
    std::iter::once(("LEAT_JOBS__FILES".to_owned(), url)).chain(keep).chain(files.options.iter().map(option)).collect()
}

/// The volume with the files of jobs, where they are in one.
pub(super) fn files_volume(files: &JobFiles) -> Option<Value> {
    let claim = files.claim.as_ref()?;
    Some(json!({ "name": "files", "persistentVolumeClaim": { "claimName": claim } }))
}

/// Its mount.
pub(super) fn files_mount(files: &JobFiles, read_only: bool) -> Option<Value> {
    files.claim.as_ref()?;
    Some(if read_only {
        json!({ "name": "files", "mountPath": FILES, "readOnly": true })
    } else {
        json!({ "name": "files", "mountPath": FILES })
    })
}

fn secret(name: &str) -> EnvSource {
    EnvSource { secret_ref: Some(NameRef { name: name.to_owned() }), config_map_ref: None, prefix: None }
}

/// The adapter of a task: its Deployment and Service, and the config map that says what it serves.
pub(super) fn adapter(
    site: Site<'_>,
    task: &TaskSpec,
    graph_task: &model::Task,
    objects: &mut Vec<Value>,
    refused: &mut Vec<String>,
) {
    let place = format!("task `{}` is a job", task.name);
    let (Some(image), Some(account)) = (&site.settings.leat_image, &site.settings.jobs_account) else {
        let text =
            "the controller was not told which image holds `leat` and who may create Jobs (`--leat-image`, `--jobs-account`)";
        refused.push(format!("{place}, and {text}"));
        return;
    };
    let Some(files) = &site.spec.jobs else {
        refused.push(format!("{place}: say in `jobs` where jobs keep their files, such as `jobs: {{ claim: NAME }}`"));
        return;
    };
    let spec = match Spec::of_value(task.job.as_ref()) {
        Ok(spec) => spec,
        Err(error) => {
            refused.push(format!("{place}, and its `job` is none: {error}"));
            return;
        }
    };
    if !spec.env_files.is_empty() {
        refused.push(format!(
            "{place}: its `env_files` are on the machine of who builds it; `leat k8s render` takes their variables into `env`, and what is secret belongs into a Secret of `secrets`"
        ));
    }
    let template = Template { site, task, spec: &spec, files, leat: image }.build(refused);
    let served = served(site, graph_task, spec, template);
    let part = Part::Task(&task.name);
    let name = names::object(site.name, "worker", &task.name);
    let text = serde_json::to_string_pretty(&served).unwrap_or_default();
    let mut map = site.object(Kind::ConfigMap, &name, "worker", part);
    map["data"] = json!({ FILE: text });
    objects.push(map);
    let listen = format!("0.0.0.0:{}", task.port);
    let config = format!("{}/{FILE}", pod::CONFIG);
    let words = [LEAT, "jobs", "serve", "--config", &config, "--listen", &listen, "--allow-remote"];
    let secrets: Vec<EnvSource> = files.secrets.iter().map(|name| secret(name)).collect();
    let pod = Pod {
        site,
        role: "worker",
        part,
        image,
        command: words.map(str::to_owned).to_vec(),
        port: Some(("http", task.port)),
        scraped: false,
        probes: probes(true),
        env: Vec::new(),
        user_env: &[],
        user_env_from: &secrets,
        resources: None,
        config: Some((name.clone(), names::hash(&text))),
        files: Some(files),
        broker: false,
        account: Some(account),
        overlays: Vec::new(),
    };
    objects.push(pod.deployment(Some(task.replicas), false, refused));
    objects.push(service(site, &name, task, part));
}

/// What the adapter is told.
fn served(site: Site<'_>, task: &model::Task, spec: Spec, template: Value) -> Adapter {
    let name = task.name().as_str();
    Adapter {
        topology: site.name.to_owned(),
        task: name.to_owned(),
        codec: if site.spec.codec == Codec::Json { "json" } else { "messagepack" }.to_owned(),
        routes: routes(site.graph, task),
        ends: task.ends().iter().map(|label| label.as_str().to_owned()).collect(),
        edges: edges(site, name),
        timeout_ms: u64::try_from(task.timeout().as_millis()).unwrap_or(u64::MAX),
        parallelism: at_once(site, name) * SPARE,
        attempts: task.retry().attempts,
        spec,
        owner: json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Topology",
            "name": site.name,
            "uid": site.uid,
        }),
        template,
    }
}

fn routes(graph: &model::Topology, task: &model::Task) -> Vec<Route> {
    let targets = |topic: &str| {
        let behind = graph.edges().iter().filter(|edge| edge.from() == task.name() && edge.topic() == topic);
        behind.map(|edge| edge.to().as_str().to_owned()).collect()
    };
    let routes = graph.routes(task);
    let route = |route: &model::Route| Route {
        label: route.label().map(|label| label.as_str().to_owned()),
        targets: targets(route.topic()),
    };
    routes.iter().map(route).collect()
}

fn edges(site: Site<'_>, task: &str) -> std::collections::BTreeMap<String, String> {
    let edges = site.dispatched().into_iter().filter(|edge| edge.to.name().as_str() == task);
    edges.map(|edge| (edge.id.clone(), names::label(&edge.id))).collect()
}

/// What the template of a job's pods is made of.
struct Template<'a> {
    site: Site<'a>,
    task: &'a TaskSpec,
    spec: &'a Spec,
    files: &'a JobFiles,
    leat: &'a str,
}

impl Template<'_> {
    /// The template with the user's over it, checked when nothing can change it any more but what an adapter knows of a message.
    fn build(&self, refused: &mut Vec<String>) -> Value {
        let mut template = json!({ "metadata": { "labels": {}, "annotations": {} }, "spec": self.pod() });
        for over in [self.site.spec.pod_template.as_ref(), self.task.pod_template.as_ref()].into_iter().flatten() {
            merge::overlay(&mut template, &of_a_job(over));
        }
        let place = format!("the pod of the job `{}`", self.task.name);
        for violation in security::violations(&template, None) {
            refused.push(format!("{place}: {violation}"));
        }
        let order = |list: &str| -> Vec<String> {
            let containers = template["spec"][list].as_array().into_iter().flatten();
            containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
        };
        // The program is between the two that are ours, and nothing else decides whether its work is taken.
        if order("containers") != [COMMIT] || order("initContainers") != [PREPARE, WORKER] {
            refused.push(format!(
                "{place}: its template adds containers, of which it has exactly `{PREPARE}`, `{WORKER}` and `{COMMIT}`"
            ));
        }
        template
    }

    fn pod(&self) -> Value {
        let mut volumes = vec![json!({ "name": "work", "emptyDir": {} }), json!({ "name": "tmp", "emptyDir": {} })];
        volumes.extend(files_volume(self.files));
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod::of_pod(),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "initContainers": [self.ours(PREPARE, "prepare", true), self.worker()],
            "containers": [self.ours(COMMIT, "commit", false)],
            "volumes": volumes,
        });
        let secrets = self.site.spec.image_pull_secrets.iter().chain(&self.spec.pull_secrets);
        let secrets: Vec<Value> = secrets.map(|name| json!({ "name": name })).collect();
        if !secrets.is_empty() {
            spec["imagePullSecrets"] = secrets.into();
        }
        if !self.spec.node_selector.is_empty() {
            spec["nodeSelector"] = json!(self.spec.node_selector);
        }
        spec
    }

    fn container(&self, name: &str, image: &str, mounts: Vec<Value>) -> Value {
        let mut container =
            json!({ "name": name, "image": image, "securityContext": pod::of_container(), "volumeMounts": mounts });
        if let Some(policy) = self.site.spec.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        container
    }

    /// A container of leat's, which reaches the files of all jobs and sees nothing of the program's secrets.
    fn ours(&self, name: &str, word: &str, lays_out: bool) -> Value {
        let mut mounts = vec![json!({ "name": "work", "mountPath": WORKER_HOME }), json!({ "name": "tmp", "mountPath": "/tmp" })];
        if !lays_out {
            mounts[0]["readOnly"] = true.into();
        }
        mounts.extend(files_mount(self.files, lays_out));
        let mut container = self.container(name, self.leat, mounts);
        container["command"] = json!([LEAT, "jobs", word]);
        let text = |(name, value): (String, String)| json!({ "name": name, "value": value });
        let mut env: Vec<Value> = files_env(self.files).into_iter().map(text).collect();
        env.push(json!({ "name": "LEAT_DATA", "value": "/tmp/data" }));
        env.push(json!({ "name": "LEAT_POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }));
        container["env"] = env.into();
        if !self.files.secrets.is_empty() {
            container["envFrom"] = json!(self.files.secrets.iter().map(|name| secret(name)).collect::<Vec<_>>());
        }
        container
    }

    /// The program's container. It sees its own work folder, and nothing of the files of others.
    fn worker(&self) -> Value {
        let mounts = vec![json!({ "name": "work", "mountPath": WORKER_HOME }), json!({ "name": "tmp", "mountPath": "/tmp" })];
        let image = self.task.image.as_deref().or(self.spec.image.as_deref()).unwrap_or(&self.site.spec.image);
        let mut container = self.container(WORKER, image, mounts);
        container["workingDir"] = WORKER_HOME.into();
        container["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
        let command: Vec<String> = self.spec.command.iter().map(|word| in_image(word)).collect();
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        let mut env: Vec<Value> = self.spec.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        env.extend(self.task.env.iter().map(|variable| json!(variable)));
        container["env"] = env.into();
        let sources: Vec<EnvSource> =
            self.task.env_from.iter().cloned().chain(self.spec.secrets.iter().map(|name| secret(name))).collect();
        if !sources.is_empty() {
            container["envFrom"] = json!(sources);
        }
        container["resources"] = self.resources();
        container
    }

    /// What the project says is asked for; all but processor time is a limit as well, since Kubernetes wants that for devices, and the program is to be kept to its memory.
    fn resources(&self) -> Value {
        let mut requests: Map<String, Value> = Map::new();
        if let Some(bytes) = self.spec.memory {
            requests.insert("memory".to_owned(), bytes.to_string().into());
        }
        requests.extend(self.spec.resources.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())));
        let mut limits = requests.clone();
        limits.remove("cpu");
        if let Some(own) = &self.task.resources {
            requests.extend(own.requests.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())));
            limits.extend(own.limits.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())));
        }
        json!({ "requests": requests, "limits": limits })
    }
}

/// A word of a command: a path below the project's folder is one below the folder of the programs in the image.
fn in_image(word: &str) -> String {
    word.strip_prefix("./").map_or_else(|| word.to_owned(), |path| format!("{WORKER_PROJECT}/{path}"))
}

/// A template of a user's as one of a job's: the container `worker` is an init container there.
fn of_a_job(over: &Value) -> Value {
    let mut over = over.clone();
    let Some(spec) = over.get_mut("spec").and_then(Value::as_object_mut) else { return over };
    let Some(Value::Array(containers)) = spec.remove("containers") else { return over };
    let (workers, others): (Vec<Value>, Vec<Value>) = containers.into_iter().partition(|container| container["name"] == WORKER);
    if !others.is_empty() {
        spec.insert("containers".to_owned(), others.into());
    }
    if let Value::Array(inits) = spec.entry("initContainers").or_insert_with(|| json!([])) {
        inits.extend(workers);
    }
    over
}
