//! The chart: checked, installed, upgraded, rolled back and uninstalled.

use super::{super::Cluster, Images, NAMESPACE, Site, answer, apply};
use crate::ci::run_command;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

pub(super) const CHART: &str = "charts/leatworks";
pub(super) const RELEASE: &str = "leatworks";

/// How long a release may take until all of it is ready.
const PATIENCE: &str = "--timeout=5m";

/// Values that the chart's schema refuses.
const WRONG: [&str; 5] = ["replicas=0", "pulsar.url=kafka://host", "logFormat=xml", "image.pullPolicy=Sometimes", "typo=1"];

/// Kinds of which a release that is gone must have left none. Events are not among them: they are kept for an hour, whatever they were about.
const KINDS: &str = "deployments,replicasets,pods,services,endpointslices,secrets,configmaps,serviceaccounts,roles,rolebindings,leases,\
                     horizontalpodautoscalers,controllerrevisions,jobs,persistentvolumeclaims";

/// What every namespace has.
const OF_EVERY_NAMESPACE: [&str; 2] = ["ServiceAccount/default", "ConfigMap/kube-root-ca.crt"];

fn helm(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = cluster.command("helm");
    command.args(["--namespace", NAMESPACE]).args(words);
    command
}

/// Checks the chart and installs it, in a namespace that takes no pod with more rights than it needs.
pub(super) fn install(site: &Site<'_>) -> Result<()> {
    let Site { cluster, images } = site;
    run_command(helm(cluster, &["lint", "--strict", CHART]).stdout(Stdio::null()))?;
    for value in WRONG {
        let mut wrong = helm(cluster, &["template", CHART, "--set", value]);
        let output = wrong.output().context("starting helm")?;
        ensure!(!output.status.success(), "the chart takes `{value}`");
    }
    super::values::are_kept(cluster)?;
    let definition = as_a_plugin(cluster, images)?.args(["leat", "k8s", "crd"]).output()?;
    let packed = std::fs::read(format!("{CHART}/files/topologies.yaml"))?;
    ensure!(definition.stdout == packed, "the chart's definition is not what `leat k8s crd` prints");
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    apply(cluster, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}))?;
    let image = format!("image.repository={}", images.leat);
    let tag = format!("image.tag={}", images.tag);
    let words = ["install", RELEASE, CHART, "--wait", PATIENCE, "--set", &image, "--set", &tag, "--set", "crd.keep=false"];
    run_command(helm(cluster, &words).stdout(Stdio::null()))
}

/// `kubectl` with leat beside it under the name by which `kubectl leat` finds it.
fn as_a_plugin(cluster: &Cluster, images: &Images) -> Result<Command> {
    let folder = cluster.folder.join("plugins");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(&images.program, folder.join("kubectl-leat")).context("naming the plugin")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path)))?;
    let mut kubectl = cluster.kubectl();
    kubectl.env("PATH", path);
    Ok(kubectl)
}

/// Changes the release and takes the change back. Topologies must not notice.
pub(super) fn upgrade_and_roll_back(site: &Site<'_>) -> Result<()> {
    let cluster = site.cluster;
    let before = topologies(cluster)?;
    let upgrade =
        ["upgrade", RELEASE, CHART, "--wait", PATIENCE, "--reuse-values", "--set", "replicas=1", "--set", "logFormat=text"];
    run_command(helm(cluster, &upgrade).stdout(Stdio::null()))?;
    ensure!(controllers(cluster)? == 1, "an upgrade changes the number of controllers");
    run_command(helm(cluster, &["rollback", RELEASE, "1", "--wait", PATIENCE]).stdout(Stdio::null()))?;
    ensure!(controllers(cluster)? == 2, "a rollback restores the number of controllers");
    let after = topologies(cluster)?;
    ensure!(before == after, "topologies were changed by the chart: {before:?} before, and {after:?} after");
    Ok(())
}

/// Uninstalls the release, after which nothing of it may be left.
pub(super) fn uninstall(site: &Site<'_>) -> Result<()> {
    let cluster = site.cluster;
    run_command(site.kubectl(&["delete", "topologies", "--all", "--cascade=foreground", super::PATIENCE]).stdout(Stdio::null()))?;
    site.clean()?;
    run_command(helm(cluster, &["uninstall", RELEASE, "--wait", PATIENCE]).stdout(Stdio::null()))?;
    run_command(&mut site.kubectl(&["wait", "--for=delete", "pods", "--all", super::PATIENCE]))?;
    let left = answer(&mut site.kubectl(&["get", KINDS, "--output=json"]))?;
    let left: Vec<String> = items(&left)?
        .iter()
        .map(|object| format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"])))
        .filter(|object| !OF_EVERY_NAMESPACE.contains(&object.as_str()))
        .collect();
    ensure!(left.is_empty(), "uninstalling leaves {left:?}");
    let definitions = answer(cluster.kubectl().args(["get", "customresourcedefinitions,clusterroles", "--output=json"]))?;
    let ours = |object: &&Value| text(&object["metadata"]["name"]).contains("leatworks");
    ensure!(!items(&definitions)?.iter().any(|object| ours(&object)), "uninstalling leaves something of the whole cluster");
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("a list has items")
}

/// How many controllers are ready.
fn controllers(cluster: &Cluster) -> Result<u64> {
    let words = ["--namespace", NAMESPACE, "get", "deployment", RELEASE, "--output=json"];
    Ok(answer(cluster.kubectl().args(words))?["status"]["readyReplicas"].as_u64().unwrap_or_default())
}

/// The topologies' versions: a change of what is asked for makes another.
fn topologies(cluster: &Cluster) -> Result<Vec<(String, u64)>> {
    let list = answer(cluster.kubectl().args(["--namespace", NAMESPACE, "get", "deployments", "--output=json"]))?;
    let ours = items(&list)?.iter().filter(|object| text(&object["metadata"]["name"]) != RELEASE);
    Ok(ours
        .map(|object| {
            (text(&object["metadata"]["name"]).to_owned(), object["metadata"]["generation"].as_u64().unwrap_or_default())
        })
        .collect())
}
