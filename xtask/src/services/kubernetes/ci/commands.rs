//! What `leat deploy` and `leat rollback` tell people beside what they do, and what the API server itself refuses of a resource.

use super::{NAMESPACE, PATIENCE, Site, answer, diamond};
use crate::ci::run_command;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The project of another stage, which is not built for this one.
const TOPOLOGY: &str = "diamond";

/// No node has this image, and none may pull it.
const NOWHERE: &str = "leatworks.test/nowhere:1";

/// How `leat` ends when it has waited for so long.
const TIMED_OUT: i32 = 8;
/// How it ends when there is nothing of the name.
const NOTHING: i32 = 4;
const WAITED: &str = "45s";

pub(super) fn tell(site: &Site<'_>) -> Result<()> {
    let [before, after] = [diamond::project("before")?, diamond::project("after")?];
    unready(site, &before)?;
    previews(site, &before, &after)?;
    revisions(site, &before)?;
    run_command(site.kubectl(&["delete", "topology", TOPOLOGY, PATIENCE]).stdout(Stdio::null()))?;
    let selector = format!("--selector=leatworks.dev/topology={TOPOLOGY}");
    let gone = ["wait", "--for=delete", PATIENCE, "deployments,controllerrevisions", &selector];
    run_command(site.kubectl(&gone).stdout(Stdio::null()))?;
    for (what, part, value) in refused() {
        refuses(site, what, part, &value)?;
    }
    println!(
        "`leat deploy` and `leat rollback` tell what would change, what is not ready and what was before; the API server refuses {} resources",
        refused().len()
    );
    Ok(())
}

/// A deployment that cannot become ready says which parts are not, and why.
fn unready(site: &Site<'_>, project: &Path) -> Result<()> {
    let output = run(&mut site.deploy(project, TOPOLOGY, NOWHERE, &json!({}), &["--wait", "--timeout", WAITED])?)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(TIMED_OUT), "waiting ended with {}: {said}", output.status);
    let parts = [
        &format!("is not ready after {WAITED}"),
        "Waiting diamond: waiting for task enter, ",
        "\n  pod diamond-",
        "ErrImageNeverPull: ",
    ];
    for part in parts {
        ensure!(said.contains(part), "waiting does not say `{part}`: {said}");
    }
    Ok(())
}

/// What would be done is told, and nothing is done.
fn previews(site: &Site<'_>, before: &Path, after: &Path) -> Result<()> {
    let twice = json!({"tasks": [{"name": "left", "replicas": 2}]});
    let generation = generation(site)?;
    for (project, overlay, expected) in [
        (before, json!({}), vec!["nothing changes"]),
        (before, twice, vec!["  ~ Deployment diamond-left-", "  (left)\n      ~ spec.replicas: 1 -> 2\n"]),
        (after, json!({}), vec!["  + Deployment diamond-audit-", "  - edge right-->meet: its backlog: Drain\n"]),
    ] {
        let output = run(&mut site.deploy(project, TOPOLOGY, NOWHERE, &overlay, &["--dry-run", "--diff"])?)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "a dry run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        for part in expected {
            ensure!(said.contains(part), "a dry run with {overlay} does not say `{part}`: {said}");
        }
    }
    ensure!(self::generation(site)? == generation, "a dry run has changed the resource");
    Ok(())
}

/// Each revision is listed with its image, and one can be gone back to by its number.
fn revisions(site: &Site<'_>, project: &Path) -> Result<()> {
    let first = revision(site)?;
    let other = "leatworks.test/nowhere:2";
    run_command(site.deploy(project, TOPOLOGY, other, &json!({}), &[])?.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let told = format!("--for=jsonpath={{.status.revision}}={}", first + 1);
    run_command(site.kubectl(&["wait", &told, PATIENCE, "topology", TOPOLOGY]).stdout(Stdio::null()))?;
    let roll_back =
        |words: &[&str]| run(&mut site.leat(project, &[&["rollback", TOPOLOGY, "--namespace", NAMESPACE], words].concat()));
    let listed = roll_back(&["--list"])?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let found: Vec<(&str, &str)> = rows.iter().filter_map(|row| Some((*row.first()?, *row.last()?))).collect();
    let numbers = [(first + 1).to_string(), first.to_string()];
    ensure!(found == [(numbers[0].as_str(), other), (numbers[1].as_str(), NOWHERE)], "the revisions are listed as {text}");
    let unknown = roll_back(&["--to", "999"])?;
    let said = String::from_utf8_lossy(&unknown.stderr);
    ensure!(unknown.status.code() == Some(NOTHING) && said.contains("no revision 999 is kept"), "{}: {said}", unknown.status);
    ensure!(roll_back(&["--to", &numbers[1]])?.status.success(), "revision {first} cannot be gone back to");
    let image = resource(site)?["spec"]["image"].clone();
    ensure!(image == NOWHERE, "after going back the image is {image}");
    Ok(())
}

fn resource(site: &Site<'_>) -> Result<Value> {
    answer(&mut site.kubectl(&["get", "topology", TOPOLOGY, "--output=json"]))
}

fn generation(site: &Site<'_>) -> Result<Value> {
    Ok(resource(site)?["metadata"]["generation"].clone())
}

fn revision(site: &Site<'_>) -> Result<i64> {
    resource(site)?["status"]["revision"].as_i64().context("a status has a revision")
}

fn run(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().context("starting leat")
}

/// What the API server refuses by the rules of the definition: what it says, and where in a good resource what stands.
fn refused() -> Vec<(&'static str, &'static str, Value)> {
    let task = |mut task: Value| {
        task["name"] = "a".into();
        json!([task])
    };
    let env = |variable: Value| task(json!({"env": [variable]}));
    vec![
        ("a topology is called by lower-case letters", "/metadata/name", json!("1st")),
        ("the address of a Pulsar service is", "/spec/broker/url", json!("http://pulsar:8080")),
        ("the admin API is at", "/spec/broker/adminUrl", json!("pulsar:8080")),
        ("files of jobs are either in a `claim` or at a `url`", "/spec/jobs", json!({"claim": "files", "url": "s3://files"})),
        ("only a task of kind Worker has a `url`", "/spec/tasks", task(json!({"url": "http://a"}))),
        ("has either the `url` of a server that runs already", "/spec/tasks", task(json!({"kind": "Worker"}))),
        ("a task of kind Source says what its `source` is", "/spec/tasks", task(json!({"kind": "Source"}))),
        ("a task of kind Sink, and no other", "/spec/tasks", task(json!({"kind": "Sink"}))),
        ("a task of kind Sink, and no other", "/spec/tasks", task(json!({"sink": {"type": "stdout"}}))),
        ("a task of kind Job, and no other", "/spec/tasks", task(json!({"kind": "Job"}))),
        ("has either `value` or `valueFrom`", "/spec/tasks", env(json!({"name": "A"}))),
        ("either `secretKeyRef` or `configMapKeyRef`", "/spec/tasks", env(json!({"name": "A", "valueFrom": {}}))),
        ("either `secretRef` or `configMapRef`", "/spec/tasks", task(json!({"envFrom": [{}]}))),
        (
            "`minReplicas` is at most `maxReplicas`",
            "/spec/edges",
            json!([{"edge": "a-->b", "autoscale": {"minReplicas": 3, "maxReplicas": 2, "backlogPerReplica": 10}}]),
        ),
        ("Unsupported value", "/spec/removedEdges", json!("Forget")),
        ("spec.revisionHistoryLimit", "/spec/revisionHistoryLimit", json!(0)),
        ("Duplicate value", "/spec/tasks", json!([{"name": "a"}, {"name": "a"}])),
    ]
}

fn refuses(site: &Site<'_>, what: &str, part: &str, value: &Value) -> Result<()> {
    let mut resource = json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": "refused", "namespace": NAMESPACE},
        "spec": {"graph": "flowchart LR\na --> b\n", "image": NOWHERE, "broker": {"url": "pulsar://pulsar:6650"}},
    });
    let good = created(site, &resource)?;
    ensure!(good.status.success(), "a good resource is refused: {}", String::from_utf8_lossy(&good.stderr));
    let (parent, key) = part.rsplit_once('/').context("a place in a resource")?;
    resource.pointer_mut(parent).context("its parent")?[key] = value.clone();
    let output = created(site, &resource)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(what), "{part} may be {value}, or nothing says `{what}`: {said}");
    Ok(())
}

/// As far as the API server would make it.
fn created(site: &Site<'_>, resource: &Value) -> Result<Output> {
    let mut kubectl = site.kubectl(&["create", "--dry-run=server", "--filename=-"]);
    let mut child =
        kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting kubectl")?;
    child.stdin.take().context("its input")?.write_all(resource.to_string().as_bytes())?;
    Ok(child.wait_with_output()?)
}
