//! The control plane: store, API server, controllers, scheduler, the translation of services' addresses, and their names.

use super::{
    Cluster,
    credentials::{Credentials, kubeconfig},
    network::address,
};
use crate::{ci::run_command, services::wait_every};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{fmt::Write as _, path::PathBuf, process::Stdio, time::Duration};

/// What the API server is called among the daemons.
pub(super) const API_SERVER: &str = "kube-apiserver";
/// What its store is called.
pub(super) const STORE: &str = "etcd";
/// Where the store is.
const STORE_URL: &str = "http://127.0.0.1:2379";
/// What the API server writes down: who has made which Job. A watch misses those that come and go while nobody is connected.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
{"level": "RequestResponse", "verbs": ["create"], "resources": [{"group": "batch", "resources": ["jobs"]}]}, {"level": "None"}]}"#;
/// Where it listens.
pub(super) const API_PORT: u16 = 6443;
/// The address that it has as a service.
pub(super) const SERVICE_OF_THE_API: &str = "10.96.0.1";
/// Room for the services of a thousand topologies, which the benchmark of the controller makes.
const SERVICES: &str = "10.96.0.0/16";
/// Where pods are, on all nodes.
const PODS: &str = "10.244.0.0/16";
/// What names of services end in.
pub(super) const DOMAIN: &str = "cluster.local";

/// Seen to need 4 to 10 s on two quiet cores; builds beside it made that 60 s.
const START_LIMIT: Duration = Duration::from_secs(240);
/// Asking takes a tenth of a second of a core, which the one who is asked could use.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a node is silent until it counts as lost. A kubelet reports every 3 s, which two busy cores have been seen to make 8.
const NODE_LOST: &str = "16s";
/// How many seconds pods stay on a lost node: tests wait for it, so it is much less than the usual 300.
const MOVE_AFTER: &str = "3";

/// Starts it, and waits until a service account has been made, which is the last thing that pods need.
pub(super) fn start(cluster: &Cluster, credentials: &Credentials) -> Result<()> {
    store(cluster)?;
    api_server(cluster, credentials)?;
    answers(cluster)?;
    controllers(cluster, credentials)?;
    proxy(cluster)?;
    names(cluster)?;
    run_command(
        cluster.kubectl().args(["wait", "--for=create", "serviceaccount/default", "--timeout=120s"]).stdout(Stdio::null()),
    )
}

/// Kills the API server or its store, starts it again, and waits until both answer.
pub(super) fn restart(cluster: &Cluster, daemon: &str) -> Result<()> {
    cluster.daemons.kill(daemon)?;
    match daemon {
        STORE => store(cluster)?,
        _ => api_server(cluster, &Credentials::of(&cluster.folder))?,
    }
    answers(cluster)
}

fn store(cluster: &Cluster) -> Result<()> {
    let mut etcd = cluster.command("etcd");
    etcd.arg("--data-dir").arg(cluster.folder.join("etcd"));
    // The store ends with the cluster, so no crash of the machine has to be survived.
    etcd.args(["--unsafe-no-fsync", "--listen-client-urls", STORE_URL, "--advertise-client-urls", STORE_URL]);
    etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    cluster.daemons.start(STORE, &mut etcd)
}

/// Waits until the API server says that it and its store are ready.
fn answers(cluster: &Cluster) -> Result<()> {
    wait_every(LOOK_AGAIN, "the API server's first answer", START_LIMIT, || {
        cluster.daemons.check(STORE)?;
        cluster.daemons.check(API_SERVER)?;
        let mut ask = cluster.kubectl();
        ask.args(["get", "--raw", "/readyz", "--request-timeout", "2s"]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(ask.status()?.success().then_some(()))
    })
}

/// Where the API server writes down what [`AUDIT`] says, a line for each.
fn audited(cluster: &Cluster) -> PathBuf {
    cluster.folder.join("audit.log")
}

/// What the API server has written down of the Jobs that were made so far.
pub(crate) fn jobs_made(cluster: &Cluster) -> Result<Vec<Value>> {
    let path = audited(cluster);
    let text = std::fs::read(&path).with_context(|| format!("reading `{}`", path.display()))?;
    // A server that was killed may have left half a line.
    let events = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(events.filter(|event| event["responseStatus"]["code"] == 201).collect())
}

fn api_server(cluster: &Cluster, credentials: &Credentials) -> Result<()> {
    let policy = cluster.folder.join("audit.json");
    std::fs::write(&policy, AUDIT)?;
    let mut command = cluster.command(API_SERVER);
    let own = address(1);
    let mut flag = |name: &str, value: &str| _ = command.arg(format!("--{name}={value}"));
    for (name, file) in [
        ("tls-cert-file", "api.crt"),
        ("tls-private-key-file", "api.key"),
        ("client-ca-file", "ca.crt"),
        ("token-auth-file", "tokens.csv"),
        ("service-account-key-file", "accounts.key"),
        ("service-account-signing-key-file", "accounts.key"),
    ] {
        flag(name, &credentials.file(file).display().to_string());
    }
    for (name, value) in [
        ("etcd-servers", STORE_URL),
        ("audit-policy-file", &policy.display().to_string()),
        ("audit-log-path", &audited(cluster).display().to_string()),
        ("bind-address", &own),
        ("advertise-address", &own),
        ("secure-port", &API_PORT.to_string()),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-cluster-ip-range", SERVICES),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("allow-privileged", "true"),
        // Logs and commands in pods go to the kubelets by address: nobody answers for the nodes' names.
        ("kubelet-preferred-address-types", "InternalIP"),
        ("default-not-ready-toleration-seconds", MOVE_AFTER),
        ("default-unreachable-toleration-seconds", MOVE_AFTER),
    ] {
        flag(name, value);
    }
    cluster.daemons.start(API_SERVER, &mut command)
}

/// The controllers end when the API server does not answer at their start, so they come after it.
fn controllers(cluster: &Cluster, credentials: &Credentials) -> Result<()> {
    let mut command = cluster.command("kube-controller-manager");
    let file = |name: &str| credentials.file(name).display().to_string();
    for (name, value) in [
        ("kubeconfig", kubeconfig(&cluster.folder, "controller-manager").display().to_string()),
        ("service-account-private-key-file", file("accounts.key")),
        ("root-ca-file", file("ca.crt")),
        ("cluster-signing-cert-file", file("ca.crt")),
        ("cluster-signing-key-file", file("ca.key")),
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("node-monitor-grace-period", NODE_LOST.to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        // Each controller may make so many calls a second, as on clusters with many Deployments. With the usual 20 of them 90 topologies of six Deployments took 107 s.
        ("kube-api-qps", "100".to_owned()),
        ("kube-api-burst", "200".to_owned()),
        // It makes this folder, wherever it is told to.
        ("flex-volume-plugin-dir", cluster.folder.join("volume-plugins").display().to_string()),
    ] {
        command.arg(format!("--{name}={value}"));
    }
    cluster.daemons.start("kube-controller-manager", &mut command)?;
    let mut scheduler = cluster.command("kube-scheduler");
    scheduler.arg("--kubeconfig").arg(kubeconfig(&cluster.folder, "scheduler"));
    scheduler.args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    cluster.daemons.start("kube-scheduler", &mut scheduler)
}

/// One for all nodes, which share the network. Its limits on connections are left as they are: they belong to the machine.
fn proxy(cluster: &Cluster) -> Result<()> {
    let configuration = cluster.folder.join("proxy.json");
    let text = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig(&cluster.folder, "proxy")},
        "mode": "iptables",
        "hostnameOverride": "node1",
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    std::fs::write(&configuration, text.to_string())?;
    let mut command = cluster.command("kube-proxy");
    command.arg("--config").arg(configuration);
    cluster.daemons.start("kube-proxy", &mut command)
}

fn names(cluster: &Cluster) -> Result<()> {
    let configuration = cluster.folder.join("Corefile");
    let mut text = format!(".:53 {{\n  bind {}\n  errors\n  cache 5\n", address(1));
    let administrator = cluster.kubeconfig();
    writeln!(text, "  kubernetes {DOMAIN} in-addr.arpa {{\n    kubeconfig {}\n  }}\n}}", administrator.display())?;
    std::fs::write(&configuration, text)?;
    let mut command = cluster.command("coredns");
    command.arg("-conf").arg(configuration);
    cluster.daemons.start("coredns", &mut command)
}
