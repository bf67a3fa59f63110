//! The pods of workers, dispatchers and runs: one shape, with the user's templates laid over it, checked when nothing can change it any more.

use super::{
    jobs,
    site::{Part, Site},
};
use crate::{
    crd::{EnvSource, EnvVar, JobFiles, Resources},
    merge, names, security,
};
use serde_json::{Value, json};

/// The user and group of the containers, which exist nowhere else.
const USER: i64 = 65_532;

/// How long a pod may take to end: a dispatcher settles what it has in hand, which takes as long as a task's timeout, 30 s unless it is set.
const GRACE_SECONDS: i64 = 60;

/// Where the data of a task lies, for as long as its pod lives.
const DATA: &str = "/data";

/// Where the configuration is mounted.
pub(super) const CONFIG: &str = "/etc/leatworks";

/// Where secrets of the broker are mounted.
const BROKER: &str = "/etc/leatworks-broker";

/// What is told apart between the pods.
pub(super) struct Pod<'a> {
    pub(super) site: Site<'a>,
    pub(super) role: &'static str,
    pub(super) part: Part<'a>,
    pub(super) image: &'a str,
    pub(super) command: Vec<String>,
    /// The name and number of the port on which it listens.
    pub(super) port: Option<(&'static str, i32)>,
    /// Whether it tells metrics on that port.
    pub(super) scraped: bool,
    pub(super) probes: Value,
    pub(super) env: Vec<(String, String)>,
    pub(super) user_env: &'a [EnvVar],
    pub(super) user_env_from: &'a [EnvSource],
    pub(super) resources: Option<&'a Resources>,
    /// The config map that is mounted, and its content's hash.
    pub(super) config: Option<(String, String)>,
    /// Where jobs keep their files, if it is for them.
    pub(super) files: Option<&'a JobFiles>,
    /// Whether it reaches the broker.
    pub(super) broker: bool,
    /// The service account, where it needs one.
    pub(super) account: Option<&'a str>,
    /// The templates that are laid over it, after that of the topology.
    pub(super) overlays: Vec<&'a Value>,
}

/// The security context of our pods.
pub(super) fn of_pod() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// The security context of each of their containers.
pub(super) fn of_container() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true })
}

impl Pod<'_> {
    /// The template of the pods. What it must not be goes to `refused`.
    pub(super) fn template(&self, refused: &mut Vec<String>) -> Value {
        let labels = self.site.labels(self.role, self.part);
        let mut template = json!({ "metadata": { "labels": labels, "annotations": {} }, "spec": self.spec() });
        if let Some((_, hash)) = &self.config {
            // A changed configuration is a changed pod.
            template["metadata"]["annotations"]["leatworks.dev/config"] = hash.as_str().into();
        }
        if let Some((_, port)) = self.port.filter(|_| self.scraped) {
            let annotations = &mut template["metadata"]["annotations"];
            annotations["prometheus.io/scrape"] = "true".into();
            annotations["prometheus.io/port"] = port.to_string().into();
            annotations["prometheus.io/path"] = "/metrics".into();
        }
        for over in self.site.spec.pod_template.iter().chain(self.overlays.iter().copied()) {
            merge::overlay(&mut template, over);
        }
        let place =
            format!("the pod of {} `{}`", self.role, if self.part.name().is_empty() { self.site.name } else { self.part.name() });
        for violation in security::violations(&template, self.account) {
            refused.push(format!("{place}: {violation}"));
        }
        let kept = |(name, value): (&String, &Value)| template["metadata"]["labels"].get(name) == Some(value);
        if !labels.as_object().into_iter().flatten().all(kept) {
            refused.push(format!("{place}: its template changes labels by which it is found"));
        }
        let unknown: Vec<&String> = template
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .filter(|key| !matches!(key.as_str(), "metadata" | "spec"))
            .collect();
        if !unknown.is_empty() {
            refused.push(format!("{place}: a template has `metadata` and `spec`, not {unknown:?}"));
        }
        template
    }

    fn spec(&self) -> Value {
        let secrets: Vec<Value> = self.site.spec.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
        let mut spec = json!({
            "automountServiceAccountToken": self.account.is_some(),
            "enableServiceLinks": false,
            "securityContext": of_pod(),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [self.container()],
            "volumes": self.volumes(),
        });
        if !secrets.is_empty() {
            spec["imagePullSecrets"] = secrets.into();
        }
        if let Some(account) = self.account {
            spec["serviceAccountName"] = account.into();
        }
        spec
    }

    fn container(&self) -> Value {
        let mut container = json!({
            "name": self.role,
            "image": self.image,
            "command": self.command,
            "env": self.env(),
            "securityContext": of_container(),
            "volumeMounts": self.mounts(),
        });
        if let Some(policy) = self.site.spec.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if let Some((name, port)) = self.port {
            container["ports"] = json!([{ "name": name, "containerPort": port, "protocol": "TCP" }]);
        }
        if !self.user_env_from.is_empty() {
            container["envFrom"] = json!(self.user_env_from);
        }
        if let Some(resources) = self.resources {
            container["resources"] = json!(resources);
        }
        if let (Value::Object(container), Value::Object(probes)) = (&mut container, &self.probes) {
            container.extend(probes.clone());
        }
        container
    }

    /// Ours first, so that what a user sets under the same name goes over it.
    fn env(&self) -> Value {
        let mut all: Vec<(String, Value)> = Vec::new();
        let mut set = |name: &str, value: Value| match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name.to_owned(), value)),
        };
        let text = |name: &str, value: &str| json!({ "name": name, "value": value });
        set("LEAT_DATA", text("LEAT_DATA", DATA));
        if self.config.is_some() {
            set("LEATWORKS_HOME", text("LEATWORKS_HOME", CONFIG));
        }
        let of_files = self.files.map(jobs::files_env).unwrap_or_default();
        for (name, value) in self.broker_env().into_iter().chain(of_files).chain(self.env.clone()) {
            set(&name, text(&name, &value));
        }
        for variable in self.user_env {
            set(&variable.name, json!(variable));
        }
        all.into_iter().map(|(_, value)| value).collect()
    }

    fn broker_env(&self) -> Vec<(String, String)> {
        if !self.broker {
            return Vec::new();
        }
        let broker = &self.site.spec.broker;
        let pairs = [
            ("URL", Some(broker.url.clone())),
            ("ADMIN_URL", broker.admin_url.clone()),
            ("TENANT", Some(broker.tenant.clone())),
            ("NAMESPACE", Some(broker.namespace.clone())),
            ("TOKEN_FILE", broker.token_secret.as_ref().map(|_| format!("{BROKER}/token"))),
            ("CA_FILE", broker.ca_secret.as_ref().map(|_| format!("{BROKER}/ca.pem"))),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((format!("LEAT_BROKER__{key}"), value?))).collect()
    }

    /// The secrets of the broker as files of one volume.
    fn broker_sources(&self) -> Vec<Value> {
        let broker = &self.site.spec.broker;
        let files = [(&broker.token_secret, "token"), (&broker.ca_secret, "ca.pem")];
        let source = |(secret, path): (&Option<crate::crd::KeyRef>, &str)| {
            let secret = secret.as_ref().filter(|_| self.broker)?;
            Some(json!({ "secret": { "name": secret.name, "items": [{ "key": secret.key, "path": path }] } }))
        };
        files.into_iter().filter_map(source).collect()
    }

    fn volumes(&self) -> Value {
        let mut volumes = vec![json!({ "name": "data", "emptyDir": {} }), json!({ "name": "tmp", "emptyDir": {} })];
        if let Some((name, _)) = &self.config {
            volumes.push(json!({ "name": "config", "configMap": { "name": name } }));
        }
        volumes.extend(self.files.and_then(jobs::files_volume));
        let sources = self.broker_sources();
        if !sources.is_empty() {
            volumes.push(json!({ "name": "broker", "projected": { "sources": sources } }));
        }
        volumes.into()
    }

    fn mounts(&self) -> Value {
        let mut mounts = vec![json!({ "name": "data", "mountPath": DATA }), json!({ "name": "tmp", "mountPath": "/tmp" })];
        if self.config.is_some() {
            mounts.push(json!({ "name": "config", "mountPath": CONFIG, "readOnly": true }));
        }
        mounts.extend(self.files.and_then(|files| jobs::files_mount(files, false)));
        if !self.broker_sources().is_empty() {
            mounts.push(json!({ "name": "broker", "mountPath": BROKER, "readOnly": true }));
        }
        mounts.into()
    }

    /// The Deployment of such pods.
    pub(super) fn deployment(&self, replicas: Option<i32>, recreate: bool, refused: &mut Vec<String>) -> Value {
        let name = names::object(self.site.name, self.role, self.part.name());
        let mut deployment = self.site.object(names::Kind::Deployment, &name, self.role, self.part);
        // A pod goes only when another is there in its place, unless two of them would be in each other's way.
        let strategy = if recreate {
            json!({ "type": "Recreate" })
        } else {
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } })
        };
        deployment["spec"] = json!({
            "selector": { "matchLabels": self.site.selector(self.role, self.part) },
            "strategy": strategy,
            "revisionHistoryLimit": 2,
            "template": self.template(refused),
        });
        if let Some(replicas) = replicas {
            deployment["spec"]["replicas"] = replicas.into();
        }
        deployment
    }
}
