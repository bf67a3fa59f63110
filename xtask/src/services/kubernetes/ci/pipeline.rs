//! The email pipeline on the cluster: pods are deleted and a node loses its power while mails go through, and nothing is lost.

use super::{
    super::{Cluster, network::address, node},
    Images, NAMESPACE, PATIENCE, answer, apply,
};
use crate::{ci::run_command, services::wait_every};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The topology. In its graph what is rendered is recorded by two ways.
const TOPOLOGY: &str = "email-pipeline";

/// What mails are made of.
const TEMPLATE: &str = "examples/email-pipeline/mail.hbs";

/// Faults come between campaigns, of which each has its own subscribers.
const SUBSCRIBERS: usize = 25;
/// One for each Deployment of the topology, and a few more.
const CAMPAIGNS: usize = 32;

/// How long everything may take to come through after the last fault: what a killed node had in hand comes again when the service has noticed.
const SETTLE_LIMIT: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Deploys it and lets faults come, one after another, each after a campaign has been sent.
pub(super) fn survives(cluster: &Cluster, images: &Images) -> Result<()> {
    let results = cluster.folder.join("results");
    std::fs::create_dir_all(&results)?;
    // Containers run as a user without rights on this machine.
    std::fs::set_permissions(&results, std::fs::Permissions::from_mode(0o777))?;
    let pipeline = Pipeline { cluster, images, results };
    pipeline.deploy()?;
    let parts = pipeline.parts()?;
    println!("{TOPOLOGY}: {} Deployments, of which each loses a pod", parts.len());
    ensure!(parts.len() + 2 <= CAMPAIGNS, "more campaigns are needed for {} Deployments", parts.len());
    let mut sent = 0;
    for part in &parts {
        pipeline.send(&mut sent)?;
        let delete = ["--namespace", NAMESPACE, "delete", "pod", "--selector", part, "--wait=false"];
        run_command(cluster.kubectl().args(delete))?;
    }
    pipeline.send(&mut sent)?;
    cluster.kill_node(2)?;
    println!("node2 has lost its power");
    pipeline.send(&mut sent)?;
    run_command(cluster.kubectl().args(["wait", "--for=condition=Ready=Unknown", PATIENCE, "node/node2"]))?;
    pipeline.settled(sent)?;
    node::start(cluster, 2)?;
    node::wait_until_ready(cluster, 2)
}

struct Pipeline<'a> {
    cluster: &'a Cluster,
    images: &'a Images,
    results: PathBuf,
}

fn file(campaign: usize) -> String {
    format!("{campaign}.csv")
}

fn subscriber(campaign: usize, number: usize) -> String {
    format!("subscriber-{campaign}-{number}@example.org")
}

/// Every fifth wants no mail, and goes the other way round.
fn wants_mail(number: usize) -> bool {
    !number.is_multiple_of(5)
}

impl Pipeline<'_> {
    fn broker(&self) -> String {
        format!("pulsar://{}:{}", address(1), super::super::PULSAR_PORTS[0])
    }

    /// `leat`, as a person uses it who can reach the cluster.
    fn leat(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.cluster.command(&self.images.program.display().to_string());
        command.args(words).env("LEAT_BROKER__URL", self.broker()).env("LEATWORKS_HOME", self.cluster.folder.join("home"));
        command
    }

    /// The volume for the results, and the topology with what this cluster needs besides.
    fn deploy(&self) -> Result<()> {
        let size = json!({"storage": "1Mi"});
        apply(
            self.cluster,
            &json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": "results"},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": "",
                    "hostPath": {"path": self.results},
                    "claimRef": {"namespace": NAMESPACE, "name": "results"},
                },
            }),
        )?;
        apply(
            self.cluster,
            &json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "results", "namespace": NAMESPACE},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": "",
                    "volumeName": "results",
                    "resources": {"requests": size},
                },
            }),
        )?;
        self.subscribers()?;
        let overlay = self.cluster.folder.join("overlay.json");
        std::fs::write(&overlay, overlays().to_string())?;
        let overlay = overlay.display().to_string();
        let (broker, image) = (self.broker(), self.images.project.as_str());
        let words =
            ["deploy", TOPOLOGY, "--namespace", NAMESPACE, "--image", image, "--pull-policy", "never", "--broker", &broker];
        let deploy = |more: &[&str]| self.leat(&[&words[..], &["--overlay", &overlay], more].concat());
        run_command(&mut deploy(&["--dry-run=server"]))?;
        run_command(&mut deploy(&["--wait"]))?;
        let again = deploy(&["--dry-run=server"]).output()?;
        let text = String::from_utf8_lossy(&again.stdout).into_owned();
        ensure!(text.contains("nothing changes"), "deploying the same again would change something: {text}");
        Ok(())
    }

    /// The files of all campaigns: a pod sees a change of such files only after a while.
    fn subscribers(&self) -> Result<()> {
        let template = std::fs::read_to_string(TEMPLATE).with_context(|| format!("reading `{TEMPLATE}`"))?;
        let mut files = BTreeMap::from([("mail.hbs".to_owned(), template)]);
        for campaign in 0..CAMPAIGNS {
            let mut text = "name,email,subscribed\n".to_owned();
            for number in 0..SUBSCRIBERS {
                let word = if wants_mail(number) { "yes" } else { "no" };
                text += &format!("Subscriber {number},{},{word}\n", subscriber(campaign, number));
            }
            files.insert(file(campaign), text);
        }
        apply(
            self.cluster,
            &json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "subscribers", "namespace": NAMESPACE},
                "data": files,
            }),
        )
    }

    /// The selectors of the Deployments of the topology.
    fn parts(&self) -> Result<Vec<String>> {
        let selector = format!("--selector=leatworks.dev/topology={TOPOLOGY}");
        let words = ["--namespace", NAMESPACE, "get", "deployments", &selector, "--output=json"];
        let list = answer(self.cluster.kubectl().args(words))?;
        let part = |object: &Value| {
            let labels = object["spec"]["selector"]["matchLabels"].as_object().context("a Deployment selects by labels")?;
            let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            Ok(pairs.collect::<Vec<_>>().join(","))
        };
        list["items"].as_array().context("a list has items")?.iter().map(part).collect()
    }

    /// Sends the next campaign.
    fn send(&self, sent: &mut usize) -> Result<()> {
        let message = json!({"subscribers": format!("/subscribers/{}", file(*sent))}).to_string();
        *sent += 1;
        run_command(self.leat(&["send", TOPOLOGY, &message]).stdout(std::process::Stdio::null()))
    }

    /// Waits until nothing is pending, and compares what was recorded with what was sent.
    fn settled(&self, campaigns: usize) -> Result<()> {
        let all = (0..campaigns)
            .flat_map(|campaign| (0..SUBSCRIBERS).map(move |number| (subscriber(campaign, number), wants_mail(number))));
        let expected: BTreeMap<String, bool> = all.collect();
        let mut given_up = 0;
        let settled = wait_every(LOOK_AGAIN, "the end of all campaigns", SETTLE_LIMIT, || {
            let status = answer(&mut self.leat(&["status", TOPOLOGY, "--output", "json"]))?;
            let edges = status[0]["edges"].as_array().with_context(|| format!("a status has edges: {status}"))?;
            let sum = |key: &str| edges.iter().filter_map(|edge| edge[key].as_u64()).sum::<u64>();
            // The attempts of a message may be over before another node has the worker. Then it is a dead letter, and not lost.
            if sum("dead_letters") > 0 {
                given_up += sum("dead_letters");
                run_command(&mut self.leat(&["dlq", "redrive", TOPOLOGY, "--yes"]))?;
                return Ok(None);
            }
            let is_done = sum("backlog") + sum("in_flight") == 0 && recorded(&self.results)?.len() >= expected.len();
            Ok(is_done.then_some(()))
        });
        let recorded = recorded(&self.results)?;
        settled.with_context(|| {
            let missing: Vec<&String> = expected.keys().filter(|email| !recorded.contains_key(*email)).take(10).collect();
            format!("{} of {} are recorded; missing are {missing:?}", recorded.len(), expected.len())
        })?;
        ensure!(recorded == expected, "what is recorded is not what was sent");
        println!(
            "{TOPOLOGY}: {} subscribers of {campaigns} campaigns, each recorded; {given_up} were given up and brought back",
            expected.len()
        );
        Ok(())
    }
}

/// Which subscribers are recorded, and whether they got a mail.
fn recorded(results: &Path) -> Result<BTreeMap<String, bool>> {
    let mut recorded = BTreeMap::new();
    for entry in std::fs::read_dir(results)? {
        // The last line may be half of one; its pod has not acknowledged it.
        for line in std::fs::read_to_string(entry?.path())?.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let email = line["email"].as_str().context("a record names its subscriber")?.to_owned();
            let mailed = line["result"] == "sent";
            let before = recorded.insert(email.clone(), mailed);
            ensure!(before.is_none_or(|before| before == mailed), "`{email}` got a mail and none");
        }
    }
    Ok(recorded)
}

/// Where the tasks find the subscribers, and where the record is kept: in a file for each pod, since two of them may write for a moment.
fn overlays() -> Value {
    let pod = |volume: Value, env: Value| {
        let mount = json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap_or_default())});
        json!({"spec": {"volumes": [volume], "containers": [{"name": "worker", "env": env, "volumeMounts": [mount]}]}})
    };
    let env = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__RECORD__SETTINGS__PATH", "value": "/results/$(POD_NAME).jsonl"},
    ]);
    let subscribers = json!({"name": "subscribers", "configMap": {"name": "subscribers"}});
    let results = json!({"name": "results", "persistentVolumeClaim": {"claimName": "results"}});
    json!({TOPOLOGY: {"tasks": [
        {"name": "fetch-users", "podTemplate": pod(subscribers.clone(), json!([]))},
        {"name": "render", "settings": {"template": "/subscribers/mail.hbs"}, "podTemplate": pod(subscribers, json!([]))},
        {"name": "record", "podTemplate": pod(results, env)},
    ]}})
}
