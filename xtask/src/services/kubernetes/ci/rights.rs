//! The controller needs each of its rights: with one of them taken away it says which one it lacks. With all of them it does its work.

use super::{
    super::{Cluster, ours::Ours},
    Site, answer, apply,
    chart::{CHART, RELEASE},
};
use crate::services::wait_every;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// The namespace of this stage, so that the controller of the others sees nothing of it.
const NAMESPACE: &str = "rights";

/// The secret that its topologies name.
const SECRET: &str = "token";

/// How long the controller may take for one step, or to say what it lacks: its first eight tries are over within 26 s.
const STEP_LIMIT: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One right: a verb on a resource, in one of the roles.
#[derive(Debug)]
pub(super) struct Right {
    role: String,
    group: String,
    resource: String,
    verb: String,
}

impl Right {
    /// How an API server says that it is lacking.
    pub(super) fn complaint(&self) -> String {
        format!("cannot {} resource \"{}\"", self.verb, self.resource)
    }
}

/// Takes away one right after another.
pub(super) fn each_is_needed(site: &Site<'_>) -> Result<()> {
    let folder = site.cluster.folder.join("rights");
    std::fs::create_dir_all(&folder)?;
    apply(site.cluster, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
    let secret = json!({"name": SECRET, "namespace": NAMESPACE});
    apply(site.cluster, &json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"token": "none"}}))?;
    accounts(site.cluster)?;
    let token = kubectl(site.cluster, &["create", "token", RELEASE, "--duration=2h"]).output()?;
    ensure!(token.status.success(), "no token: {}", String::from_utf8_lossy(&token.stderr));
    let kubeconfig =
        site.cluster.kubeconfig_of(String::from_utf8_lossy(&token.stdout).trim(), folder.join("controller.kubeconfig"))?;
    let _broker = Ours::broker(site.cluster, &site.images.program, &folder)?;
    let bench = Bench { site, folder, kubeconfig };
    let roles = answer(&mut kubectl(site.cluster, &["get", "roles", "--output=json"]))?;
    let roles = roles["items"].as_array().context("a list has items")?;
    let rights = rights(roles)?;
    let said = bench.work("all", None)?;
    ensure!(!said.contains("forbidden"), "with all its rights the controller lacks something: {said}");
    for (number, right) in rights.iter().enumerate() {
        let role = roles.iter().find(|role| role["metadata"]["name"] == *right.role).context("its role")?;
        apply(site.cluster, &without(role, right))?;
        until_taken(site.cluster, NAMESPACE, RELEASE, right)?;
        let result = bench.work(&format!("without-{number}"), Some(right));
        apply(site.cluster, &bare(role, role["rules"].clone()))?;
        result.with_context(|| format!("without {right:?}"))?;
    }
    println!("each of the controller's {} rights is needed, and what it lacks without it is said", rights.len());
    Ok(())
}

fn kubectl(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = cluster.kubectl();
    command.args(["--namespace", NAMESPACE]).args(words);
    command
}

/// What the chart makes for a controller of this namespace.
fn accounts(cluster: &Cluster) -> Result<()> {
    let mut helm = cluster.command("helm");
    helm.args(["template", RELEASE, CHART, "--namespace", NAMESPACE, "--show-only", "templates/accounts.yaml"]);
    let mut rendering = helm.stdout(Stdio::piped()).spawn().context("starting helm")?;
    let rendered = rendering.stdout.take().context("helm prints nothing")?;
    let applied = kubectl(cluster, &["apply", "--filename", "-"]).stdin(rendered).stdout(Stdio::null()).status()?;
    ensure!(rendering.wait()?.success() && applied.success(), "the chart's accounts cannot be made");
    Ok(())
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// All rights that the roles give, each by its name.
pub(super) fn rights(roles: &[Value]) -> Result<Vec<Right>> {
    ensure!(!json!(roles).to_string().contains("\"*\""), "a role has a wildcard");
    let mut rights = Vec::new();
    for role in roles {
        for rule in role["rules"].as_array().context("a role has rules")? {
            for resource in texts(&rule["resources"]) {
                rights.extend(texts(&rule["verbs"]).map(|verb| Right {
                    role: role["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                    group: texts(&rule["apiGroups"]).next().unwrap_or_default().to_owned(),
                    resource: resource.to_owned(),
                    verb: verb.to_owned(),
                }));
            }
        }
    }
    Ok(rights)
}

/// A role with other rules.
pub(super) fn bare(role: &Value, rules: Value) -> Value {
    let of = |name: &str| role["metadata"][name].clone();
    let metadata = json!({"name": of("name"), "namespace": of("namespace"), "labels": of("labels")});
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules})
}

/// The role with one right less: a rule for each resource.
pub(super) fn without(role: &Value, right: &Right) -> Value {
    let rules = role["rules"].as_array().into_iter().flatten().flat_map(|rule| {
        texts(&rule["resources"]).map(move |resource| {
            let verbs: Vec<&str> =
                texts(&rule["verbs"]).filter(|verb| resource != right.resource || *verb != right.verb).collect();
            let mut rule = rule.clone();
            (rule["resources"], rule["verbs"]) = (json!([resource]), json!(verbs));
            rule
        })
    });
    bare(role, rules.filter(|rule| rule["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty())).collect())
}

/// Waits until the API server goes by the changed role of an account.
pub(super) fn until_taken(cluster: &Cluster, namespace: &str, account: &str, right: &Right) -> Result<()> {
    let who = format!("--as=system:serviceaccount:{namespace}:{account}");
    let (resource, part) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    let mut what = format!("{resource}.{}", right.group).trim_end_matches('.').to_owned();
    // The rule on leases names the one that it is for.
    if resource == "leases" {
        what += &format!("/{RELEASE}");
    }
    let part = format!("--subresource={part}");
    wait_every(LOOK_AGAIN, "the loss of a right", STEP_LIMIT, || {
        let mut ask = cluster.kubectl();
        ask.args(["--namespace", namespace, "auth", "can-i", &right.verb, &what, &part, &who]);
        Ok((!ask.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success()).then_some(()))
    })
}

struct Bench<'a> {
    site: &'a Site<'a>,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Bench<'_> {
    /// Has a controller do all that it can do. Without a right it has to say, at some step, that it lacks that one. Gives what it has said.
    fn work(&self, name: &str, lacking: Option<&Right>) -> Result<String> {
        let words =
            ["controller", "--namespace", NAMESPACE, "--lease-namespace", NAMESPACE, "--lease", RELEASE, "--identity", "one"];
        let mut command = self.site.cluster.ours(&self.site.images.program);
        command.args(words).env("KUBECONFIG", &self.kubeconfig).current_dir(&self.folder);
        let controller = Ours::start(&mut command, &self.log(name))?;
        let complaint = lacking.map(Right::complaint);
        let complains = |live: &Value| {
            let Some(complaint) = &complaint else { return Ok(false) };
            anyhow::Ok(
                plain(&live["status"]["conditions"].to_string()).contains(complaint) || self.said(name)?.contains(complaint),
            )
        };
        for step in [first(name), second(name)] {
            apply(self.site.cluster, &step)?;
            let done = wait_every(LOOK_AGAIN, "a step of the controller", STEP_LIMIT, || {
                let live = answer(&mut kubectl(self.site.cluster, &["get", "topology", name, "--output=json"]))?;
                let complains = complains(&live)?;
                Ok((complains || is_done(&live)).then_some(complains))
            });
            if done.with_context(|| self.said(name).unwrap_or_default())? {
                break;
            }
        }
        let live = answer(&mut kubectl(self.site.cluster, &["get", "topology", name, "--output=json"]))?;
        let complains = complains(&live)?;
        // It lets go of the lease, so that the next one need not wait for its end.
        controller.end()?;
        let gone = ["delete", "topology", name, "--wait=false"];
        ensure!(kubectl(self.site.cluster, &gone).stdout(Stdio::null()).status()?.success(), "`{name}` cannot be removed");
        let said = self.said(name)?;
        ensure!(complains || complaint.is_none(), "the controller did all its work without saying {complaint:?}: {said}");
        Ok(said)
    }

    /// What a controller has said in its log.
    fn said(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.log(name)).context("reading what a controller says")?;
        Ok(plain(&text))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

/// The API server quotes what is forbidden, and a log or a condition quotes that again.
pub(super) fn plain(text: &str) -> String {
    text.replace('\\', "")
}

/// Whether the controller has done all that a resource asks for. The pods of the first step are never there.
fn is_done(live: &Value) -> bool {
    let (status, generation) = (&live["status"], &live["metadata"]["generation"]);
    let wanted = if live["spec"]["edges"][0]["autoscale"].is_null() { "Ready" } else { "Progressing" };
    status["observedGeneration"] == *generation && status["state"] == wanted
}
/// A topology that needs an object of each kind, and a secret. No node is right for its pods.
fn first(name: &str) -> Value {
    let mut topology = topology(name, "flowchart LR\na --> b --> c\n", &["a", "b", "c"], &["[*]-->a", "a-->b", "b-->c"]);
    topology["spec"]["tasks"][0]["settings"] = json!({"some": "thing"});
    topology["spec"]["edges"][0] =
        json!({"edge": "[*]-->a", "autoscale": {"minReplicas": 1, "maxReplicas": 2, "backlogPerReplica": 100}});
    topology
}

/// The same with less, so that one of each kind has to go.
fn second(name: &str) -> Value {
    topology(name, "flowchart LR\na --> b\n", &["a", "b"], &["[*]-->a", "a-->b"])
}

fn topology(name: &str, graph: &str, tasks: &[&str], edges: &[&str]) -> Value {
    let mut broker = Ours::broker_of_a_topology();
    broker["tokenSecret"] = json!({"name": SECRET, "key": "token"});
    json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "graph": graph,
            "image": "none:1",
            "broker": broker,
            "tasks": tasks.iter().map(|task| json!({"name": task, "replicas": 0})).collect::<Vec<_>>(),
            "edges": edges.iter().map(|edge| json!({"edge": edge, "replicas": 0})).collect::<Vec<_>>(),
            "removedEdges": "Drop",
            "revisionHistoryLimit": 1,
            "podTemplate": {"spec": {"nodeSelector": {"leatworks.test/none": "yes"}}},
        },
    })
}
