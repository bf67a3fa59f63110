//! The Pod Security Standard `restricted`, checked on a pod as it is after all merging, and what we refuse besides.
//!
//! The API server checks it only where a namespace is labelled so, and only when the pods are made; here it is checked before anything is applied,
//! so that a template that would not do changes nothing.

use serde_json::{Map, Value};

/// The volumes that a restricted pod may have.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// The sysctls that are namespaced and known to be safe.
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];

/// The types of SELinux that are confined.
const SELINUX: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Before the name of a container, an annotation that says which AppArmor profile it has, as before there was a field for that. Clusters still go by it.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod of this template must not have. `account` is the service account that it is given, if any.
pub fn violations(template: &Value, account: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(pod) = template["spec"].as_object() else { return vec!["the pod is no object".to_owned()] };
    annotations(&template["metadata"]["annotations"], &mut found);
    host(pod, &mut found);
    identity(pod, account, &mut found);
    volumes(pod, &mut found);
    let of_pod = pod.get("securityContext").and_then(Value::as_object);
    context(of_pod, "the pod", &mut found);
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    for list in lists.iter().chain(&["volumes"]) {
        if pod.get(*list).is_some_and(|value| !value.as_array().is_some_and(|list| list.iter().all(Value::is_object))) {
            found.push(format!("`{list}` is no list of objects"));
        }
    }
    for container in lists.iter().filter_map(|list| pod.get(*list)?.as_array()).flatten() {
        check_container(container, of_pod, &mut found);
    }
    found
}

/// What annotations say of the security of containers.
fn annotations(annotations: &Value, found: &mut Vec<String>) {
    for (key, profile) in annotations.as_object().into_iter().flatten() {
        let Some(container) = key.strip_prefix(APPARMOR) else { continue };
        let is_allowed = |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
        if !profile.as_str().is_some_and(is_allowed) {
            found.push(format!(
                "container `{container}`: the annotation says the AppArmor profile {profile}, which is neither `runtime/default` nor `localhost/…`"
            ));
        }
    }
}

/// What would reach the node.
fn host(pod: &Map<String, Value>, found: &mut Vec<String>) {
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.get(key).is_some_and(|value| *value != Value::Bool(false)) {
            found.push(format!("`{key}` reaches the node"));
        }
    }
    if pod.contains_key("nodeName") {
        found.push("`nodeName` goes past the scheduler; use `nodeSelector`".to_owned());
    }
    let sysctls = pod.get("securityContext").and_then(|context| context.get("sysctls")).and_then(Value::as_array);
    for sysctl in sysctls.into_iter().flatten() {
        let name = sysctl.get("name").and_then(Value::as_str).unwrap_or_default();
        if !SYSCTLS.contains(&name) {
            found.push(format!("the sysctl `{name}` is not a safe one"));
        }
    }
}

/// Who the pod is for the API server.
fn identity(pod: &Map<String, Value>, account: Option<&str>, found: &mut Vec<String>) {
    for key in ["serviceAccountName", "serviceAccount"] {
        if let Some(name) = pod.get(key).filter(|name| name.as_str() != account) {
            found.push(format!("`{key}` {name} is not for a template to choose"));
        }
    }
    if account.is_none() && pod.get("automountServiceAccountToken") != Some(&Value::Bool(false)) {
        found.push("`automountServiceAccountToken` is false: the pod has no business with the API server".to_owned());
    }
}

fn volumes(pod: &Map<String, Value>, found: &mut Vec<String>) {
    for volume in pod.get("volumes").and_then(Value::as_array).into_iter().flatten() {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        for kind in volume.as_object().into_iter().flatten().map(|(kind, _)| kind).filter(|kind| *kind != "name") {
            if !VOLUMES.contains(&kind.as_str()) {
                found.push(format!("the volume `{name}` is a `{kind}`"));
            }
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        if sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some()) {
            found.push(format!("the volume `{name}` holds a token of the service account"));
        }
    }
}

fn check_container(container: &Value, of_pod: Option<&Map<String, Value>>, found: &mut Vec<String>) {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
    let place = format!("container `{name}`");
    let own = container.get("securityContext").and_then(Value::as_object);
    context(own, &place, found);
    let setting = |key: &str| own.and_then(|own| own.get(key));
    let inherited = |key: &str| setting(key).or_else(|| of_pod.and_then(|of_pod| of_pod.get(key)));
    if setting("privileged").is_some_and(|value| *value != Value::Bool(false)) {
        found.push(format!("{place} is privileged"));
    }
    if setting("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        found.push(format!("{place}: `allowPrivilegeEscalation` is not false"));
    }
    if inherited("runAsNonRoot") != Some(&Value::Bool(true)) {
        found.push(format!("{place}: `runAsNonRoot` is not true"));
    }
    let profile = inherited("seccompProfile").and_then(|profile| profile.get("type")).and_then(Value::as_str);
    if !matches!(profile, Some("RuntimeDefault" | "Localhost")) {
        found.push(format!("{place}: the seccomp profile is neither `RuntimeDefault` nor `Localhost`"));
    }
    capabilities(setting("capabilities"), &place, found);
    if setting("procMount").is_some_and(|value| value != "Default") {
        found.push(format!("{place}: `procMount` is not `Default`"));
    }
    let ports = container.get("ports").and_then(Value::as_array);
    if ports.into_iter().flatten().any(|port| port.get("hostPort").is_some_and(|port| port != 0)) {
        found.push(format!("{place} has a port of the node"));
    }
    let hooks = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| container.get(probe));
    let lifecycle = ["postStart", "preStop"].map(|hook| container.get("lifecycle").and_then(|lifecycle| lifecycle.get(hook)));
    for hook in hooks.into_iter().chain(lifecycle).flatten() {
        if ["httpGet", "tcpSocket"]
            .iter()
            .any(|kind| hook.get(kind).and_then(|action| action.get("host")).is_some_and(|host| host != ""))
        {
            found.push(format!("{place}: a probe or hook names a host"));
        }
    }
}

fn capabilities(capabilities: Option<&Value>, place: &str, found: &mut Vec<String>) {
    let list = |key: &str| capabilities.and_then(|all| all.get(key)).and_then(Value::as_array).cloned().unwrap_or_default();
    if !list("drop").iter().any(|name| name == "ALL") {
        found.push(format!("{place} does not drop `ALL` capabilities"));
    }
    for added in list("add").iter().filter(|name| *name != "NET_BIND_SERVICE") {
        found.push(format!("{place} adds the capability {added}"));
    }
}

/// What a security context of a pod or a container must not say.
fn context(context: Option<&Map<String, Value>>, place: &str, found: &mut Vec<String>) {
    let Some(context) = context else { return };
    if context.get("runAsNonRoot").is_some_and(|value| *value != Value::Bool(true)) {
        found.push(format!("{place}: `runAsNonRoot` is not true"));
    }
    if context.get("runAsUser").is_some_and(|user| user == 0) {
        found.push(format!("{place} runs as root"));
    }
    let kind = |key: &str| context.get(key).and_then(|value| value.get("type")).and_then(Value::as_str);
    if kind("seccompProfile").is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost")) {
        found.push(format!("{place}: the seccomp profile is neither `RuntimeDefault` nor `Localhost`"));
    }
    if kind("appArmorProfile").is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost")) {
        found.push(format!("{place}: the AppArmor profile is neither `RuntimeDefault` nor `Localhost`"));
    }
    if let Some(options) = context.get("seLinuxOptions") {
        let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
        if !SELINUX.contains(&text("type")) || !text("user").is_empty() || !text("role").is_empty() {
            found.push(format!("{place}: the SELinux options are not confined ones"));
        }
    }
    if context
        .get("windowsOptions")
        .and_then(|options| options.get("hostProcess"))
        .is_some_and(|value| *value != Value::Bool(false))
    {
        found.push(format!("{place} is a host process"));
    }
}
