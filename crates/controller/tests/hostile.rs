//! Templates that would weaken a pod are refused before anything is applied, and what the standard allows is not.

use leatworks_controller::{
    crd::TopologySpec,
    graph,
    plan::{self, Settings, Site},
};
use serde_json::{Value, json};

/// The reasons why a topology is refused one of whose workers has this template.
fn refusal(template: Value) -> Vec<String> {
    let spec = json!({ "graph": "flowchart LR\na --> b\n", "image": "shop:1", "broker": { "url": "pulsar://p:6650" }, "tasks": [{ "name": "a", "podTemplate": template }] });
    let spec: TopologySpec = serde_json::from_value(spec).expect("a spec");
    let graph = graph::compile("orders", &spec).expect("a valid graph");
    let settings = Settings::default();
    let site = Site { name: "orders", namespace: "shop", uid: "uid", spec: &spec, graph: &graph, settings: &settings };
    plan::desired(site).map_or_else(|refusal| refusal.0, |_| Vec::new())
}

/// A template that changes the container of workers.
fn container(mut container: Value) -> Value {
    container["name"] = "worker".into();
    json!({ "spec": { "containers": [container] } })
}

/// A template that says by an annotation which AppArmor profile a container has.
fn apparmor(container: &str, profile: &str) -> Value {
    let key = format!("container.apparmor.security.beta.kubernetes.io/{container}");
    json!({ "metadata": { "annotations": { key: profile } } })
}

#[test]
fn hostile_templates_are_refused_with_their_reason() {
    let context = |context: Value| container(json!({ "securityContext": context }));
    let volume = |volume: Value| json!({ "spec": { "volumes": [volume] } });
    let pod = |pod: Value| json!({ "spec": pod });
    let side = |context: Value| pod(json!({ "initContainers": [{ "name": "side", "image": "x", "securityContext": context }] }));
    for (template, reason) in [
        (context(json!({ "privileged": true })), "is privileged"),
        (context(json!({ "allowPrivilegeEscalation": true })), "`allowPrivilegeEscalation` is not false"),
        (context(json!({ "allowPrivilegeEscalation": null })), "`allowPrivilegeEscalation` is not false"),
        (context(json!({ "capabilities": { "add": ["SYS_ADMIN"] } })), "adds the capability \"SYS_ADMIN\""),
        (context(json!({ "capabilities": { "drop": ["NET_RAW"] } })), "does not drop `ALL`"),
        (context(json!({ "capabilities": null })), "does not drop `ALL`"),
        (context(json!({ "runAsUser": 0 })), "runs as root"),
        (context(json!({ "runAsNonRoot": false })), "`runAsNonRoot` is not true"),
        (context(json!({ "seccompProfile": { "type": "Unconfined" } })), "seccomp profile"),
        (context(json!({ "procMount": "Unmasked" })), "`procMount`"),
        (context(json!({ "seLinuxOptions": { "type": "spc_t" } })), "SELinux"),
        (context(json!({ "seLinuxOptions": { "user": "system_u" } })), "SELinux"),
        (context(json!({ "appArmorProfile": { "type": "Unconfined" } })), "AppArmor"),
        (context(json!({ "windowsOptions": { "hostProcess": true } })), "host process"),
        (pod(json!({ "hostNetwork": true })), "`hostNetwork`"),
        (pod(json!({ "hostPID": true })), "`hostPID`"),
        (pod(json!({ "hostIPC": true })), "`hostIPC`"),
        (pod(json!({ "nodeName": "node1" })), "`nodeName`"),
        (pod(json!({ "serviceAccountName": "admin" })), "`serviceAccountName`"),
        (pod(json!({ "serviceAccount": "admin" })), "`serviceAccount`"),
        (pod(json!({ "automountServiceAccountToken": true })), "`automountServiceAccountToken`"),
        (pod(json!({ "securityContext": { "runAsUser": 0 } })), "the pod runs as root"),
        (pod(json!({ "securityContext": { "runAsNonRoot": null } })), "`runAsNonRoot` is not true"),
        (pod(json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } })), "sysctl `kernel.msgmax`"),
        (pod(json!({ "securityContext": null })), "seccomp profile"),
        (side(json!({})), "container `side`"),
        (
            side(json!({ "privileged": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })),
            "container `side` is privileged",
        ),
        (volume(json!({ "name": "root", "hostPath": { "path": "/" } })), "`root` is a `hostPath`"),
        (volume(json!({ "name": "nfs", "nfs": { "server": "x", "path": "/" } })), "`nfs` is a `nfs`"),
        (
            volume(json!({ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } })),
            "token of the service account",
        ),
        (volume(json!({ "name": "data", "hostPath": { "path": "/" } })), "`data` is a `hostPath`"),
        (container(json!({ "ports": [{ "containerPort": 8080, "hostPort": 80 }] })), "port of the node"),
        (
            container(json!({ "livenessProbe": { "httpGet": { "host": "169.254.169.254", "path": "/", "port": 80 } } })),
            "names a host",
        ),
        (container(json!({ "lifecycle": { "postStart": { "tcpSocket": { "host": "db", "port": 1 } } } })), "names a host"),
        (apparmor("worker", "unconfined"), "container `worker`: the annotation says the AppArmor profile \"unconfined\""),
        (apparmor("another", "runtime/other"), "container `another`: the annotation"),
        (json!({ "metadata": { "labels": { "leatworks.dev/topology": "another" } } }), "labels by which it is found"),
        (pod(json!({ "containers": { "name": "worker" } })), "`containers` is no list"),
        (pod(json!({ "volumes": ["data"] })), "`volumes` is no list"),
        (json!({ "spec": 1 }), "the pod is no object"),
        (json!({ "kind": "Pod" }), "a template has `metadata` and `spec`"),
    ] {
        let reasons = refusal(template.clone());
        assert!(reasons.iter().any(|found| found.contains(reason)), "{template}: `{reason}` in {reasons:?}");
    }
}

#[test]
fn what_the_standard_allows_is_not_refused() {
    for template in [
        json!({ "spec": { "nodeSelector": { "a": "b" }, "tolerations": [{ "operator": "Exists" }], "priorityClassName": "high" } }),
        json!({ "metadata": { "labels": { "team": "mail" }, "annotations": { "a": "b" } } }),
        json!({ "spec": { "volumes": [{ "name": "input", "persistentVolumeClaim": { "claimName": "input" } }] } }),
        json!({ "spec": { "securityContext": { "runAsUser": 1000, "sysctls": [{ "name": "net.ipv4.tcp_syncookies", "value": "1" }] } } }),
        container(
            json!({ "securityContext": { "capabilities": { "add": ["NET_BIND_SERVICE"] }, "readOnlyRootFilesystem": false } }),
        ),
        apparmor("worker", "runtime/default"),
        apparmor("worker", "localhost/strict"),
        container(json!({ "resources": { "limits": { "nvidia.com/gpu": "1" } } })),
        json!({ "spec": { "initContainers": [{ "name": "fetch", "image": "x", "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }] } }),
    ] {
        assert_eq!(refusal(template.clone()), Vec::<String>::new(), "{template}");
    }
}

/// The reasons why a topology is refused one of whose jobs is this.
fn refusal_of_job(job: Value, template: Value, files: Value) -> Vec<String> {
    let task = json!({ "name": "a", "kind": "Job", "job": job, "podTemplate": template });
    let mut spec = json!({ "graph": "flowchart LR\na --> b\n", "image": "shop:1", "broker": { "url": "pulsar://p:6650" }, "tasks": [task], "jobs": files });
    if spec["jobs"].is_null() {
        spec.as_object_mut().expect("an object").remove("jobs");
    }
    let spec: TopologySpec = serde_json::from_value(spec).expect("a spec");
    let graph = graph::compile("orders", &spec).expect("a valid graph");
    let settings = Settings { leat_image: Some("leat:1".to_owned()), jobs_account: Some("jobs".to_owned()) };
    let site = Site { name: "orders", namespace: "shop", uid: "uid", spec: &spec, graph: &graph, settings: &settings };
    plan::desired(site).map_or_else(|refusal| refusal.0, |_| Vec::new())
}

#[test]
fn jobs_that_cannot_be_run_safely_are_refused_with_their_reason() {
    let good = || json!({ "command": ["true"] });
    let claim = || json!({ "claim": "files" });
    let pod = |pod: Value| json!({ "spec": pod });
    let worker = |mut more: Value| {
        more["name"] = "worker".into();
        pod(json!({ "containers": [more] }))
    };
    for (job, template, files, reason) in [
        (good(), worker(json!({ "securityContext": { "privileged": true } })), claim(), "container `worker` is privileged"),
        (good(), pod(json!({ "hostNetwork": true })), claim(), "`hostNetwork`"),
        (good(), apparmor("worker", "unconfined"), claim(), "the AppArmor profile \"unconfined\""),
        (good(), pod(json!({ "serviceAccountName": "leatworks-jobs" })), claim(), "`serviceAccountName`"),
        (
            good(),
            pod(json!({ "volumes": [{ "name": "files", "hostPath": { "path": "/" } }] })),
            claim(),
            "`files` is a `hostPath`",
        ),
        (good(), pod(json!({ "containers": [{ "name": "side", "image": "x" }] })), claim(), "adds containers"),
        (
            good(),
            pod(json!({ "initContainers": [{ "name": "prepare", "$x": 1 }, { "name": "late", "image": "x" }] })),
            claim(),
            "adds containers",
        ),
        (good(), json!({ "spec": 1 }), claim(), "the pod is no object"),
        (good(), json!({}), Value::Null, "say in `jobs` where"),
        (json!({ "command": ["true"], "memory": "64MiB" }), json!({}), claim(), "its `job` is none"),
        (json!({ "comand": ["true"] }), json!({}), claim(), "its `job` is none"),
        (json!({ "command": ["true"], "env_files": ["secret.env"] }), json!({}), claim(), "`env_files`"),
    ] {
        let reasons = refusal_of_job(job.clone(), template.clone(), files);
        assert!(reasons.iter().any(|found| found.contains(reason)), "{job} {template}: {reason} in {reasons:?}");
    }
    let relaxed = worker(json!({ "securityContext": { "runAsUser": 1000, "readOnlyRootFilesystem": false } }));
    assert_eq!(refusal_of_job(good(), relaxed, claim()), Vec::<String>::new());
}
