//! The email pipeline on the cluster: pods are deleted and a node loses its power while mails go through. Nothing is lost, and nothing is given up.

use super::{
    super::node,
    NAMESPACE, PATIENCE, Site, answer,
    images::SHOWCASE,
    results::{Results, pod},
};
use crate::{ci::run_command, services::wait_every};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
    time::Duration,
};

/// The topology. In its graph what is rendered is recorded by two ways.
const TOPOLOGY: &str = "email-pipeline";

/// The project is this repository.
const PROJECT: &str = ".";

/// What mails are made of.
const TEMPLATE: &str = "examples/email-pipeline/mail.hbs";

/// Where `record` is told its file.
const RECORD: &str = "LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__RECORD__SETTINGS__PATH";

/// Faults come between campaigns, of which each has its own subscribers.
const SUBSCRIBERS: usize = 25;
/// One for each Deployment of the topology, and a few more.
const CAMPAIGNS: usize = 32;

/// Its tasks.
const TASKS: [&str; 5] = ["start", "fetch-users", "render", "send", "record"];

/// How often each edge hands a message to its task for one campaign. Every fifth subscriber wants no mail, and goes the other way round.
const CALLS: [(&str, usize); 6] = [
    ("[*]-->start", 1),
    ("start-->fetch-users", 1),
    ("fetch-users-->render", SUBSCRIBERS),
    ("render-->|mail|send", SUBSCRIBERS / 5 * 4),
    ("render-->|skipped|record", SUBSCRIBERS / 5),
    ("send-->record", SUBSCRIBERS / 5 * 4),
];

/// How long everything may take to come through after the last fault: what a killed node had in hand comes again when the service has noticed.
const SETTLE_LIMIT: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Deploys it, counts what its dispatchers do for one campaign, and then lets faults come, one after another, each after a campaign has been sent.
pub(super) fn survives(site: &Site<'_>) -> Result<()> {
    let pipeline = Pipeline { site, results: Results::make(site, "results")? };
    pipeline.deploy()?;
    let mut sent = 0;
    pipeline.send(&mut sent)?;
    pipeline.settled(sent)?;
    pipeline.counted()?;
    let parts = site.parts(TOPOLOGY)?;
    println!("{TOPOLOGY}: {} Deployments, of which each loses a pod", parts.len());
    ensure!(parts.len() + 3 <= CAMPAIGNS, "more campaigns are needed for {} Deployments", parts.len());
    for part in &parts {
        pipeline.send(&mut sent)?;
        run_command(site.kubectl(&["delete", "pod", "--selector", part, "--wait=false"]).stdout(Stdio::null()))?;
    }
    pipeline.send(&mut sent)?;
    let on_it = pipeline.pods_on("node2")?;
    ensure!(on_it > 0, "node2 has no pod of the topology that could be lost");
    site.cluster.kill_node(2)?;
    println!("node2 has lost its power, with {on_it} pods of the topology");
    pipeline.send(&mut sent)?;
    run_command(&mut site.kubectl(&["wait", "--for=condition=Ready=Unknown", PATIENCE, "node/node2"]))?;
    pipeline.settled(sent)?;
    node::start(site.cluster, 2)?;
    node::wait_until_ready(site.cluster, 2)?;
    // It has come back empty.
    node::load(site.cluster, 2, site.images.showcase(site.cluster)?)
}

struct Pipeline<'a> {
    site: &'a Site<'a>,
    results: Results,
}

fn file(campaign: usize) -> String {
    format!("{campaign}.csv")
}

fn subscriber(campaign: usize, number: usize) -> String {
    format!("subscriber-{campaign}-{number}@example.org")
}

fn wants_mail(number: usize) -> bool {
    !number.is_multiple_of(5)
}

impl Pipeline<'_> {
    fn deploy(&self) -> Result<()> {
        self.site.images.showcase(self.site.cluster)?;
        self.subscribers()?;
        let overlay = self.overlay();
        let deploy = |more: &[&str]| self.site.deploy(Path::new(PROJECT), TOPOLOGY, SHOWCASE, &overlay, more);
        let tells = |more: &[&str], expected: &[&str]| {
            let output = deploy(more)?.output().context("starting leat")?;
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            ensure!(output.status.success(), "`leat deploy {}` ended with {}: {text}", more.join(" "), output.status);
            let missing = expected.iter().find(|part| !text.contains(**part));
            ensure!(missing.is_none(), "`leat deploy {}` does not say {missing:?}: {text}", more.join(" "));
            anyhow::Ok(())
        };
        // The plan has each task and each edge.
        let plan: Vec<String> =
            TASKS.iter().copied().chain(CALLS.map(|(edge, _)| edge)).map(|part| format!("({part})")).collect();
        let plan: Vec<&str> = plan.iter().map(String::as_str).chain(["+ Deployment", "+ Service"]).collect();
        tells(&["--dry-run=server"], &[&plan[..], &["Checked"]].concat())?;
        let ready = format!("Ready {TOPOLOGY}: tasks {0}/{0}, edges {1}/{1}", TASKS.len(), CALLS.len());
        tells(&["--wait"], &[&plan[..], &["Applied", &ready]].concat())?;
        // Deploying the same again would change nothing.
        tells(&["--dry-run=server"], &["nothing changes"])
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
        self.site.apply(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "subscribers", "namespace": NAMESPACE},
            "data": files,
        }))
    }

    /// Where the tasks find the subscribers, and where the record is kept.
    fn overlay(&self) -> Value {
        let subscribers = json!({"name": "subscribers", "configMap": {"name": "subscribers"}});
        json!({"tasks": [
            {"name": "fetch-users", "podTemplate": pod(&subscribers, &json!([]))},
            {"name": "render", "settings": {"template": "/subscribers/mail.hbs"}, "podTemplate": pod(&subscribers, &json!([]))},
            {"name": "record", "podTemplate": pod(&self.results.volume(), &self.results.env(RECORD))},
        ]})
    }

    /// How many pods of the topology run on a node.
    fn pods_on(&self, node: &str) -> Result<usize> {
        let words = ["get", "pods", "--selector", &format!("leatworks.dev/topology={TOPOLOGY}"), "--output=json"];
        let list = answer(
            &mut self
                .site
                .kubectl(&[&words[..], &["--field-selector", &format!("spec.nodeName={node},status.phase=Running")]].concat()),
        )?;
        Ok(list["items"].as_array().context("a list has items")?.len())
    }

    /// Sends the next campaign.
    fn send(&self, sent: &mut usize) -> Result<()> {
        let message = json!({"subscribers": format!("/subscribers/{}", file(*sent))}).to_string();
        *sent += 1;
        run_command(self.site.leat(Path::new(PROJECT), &["send", TOPOLOGY, &message]).stdout(Stdio::null()))
    }

    /// After one campaign without faults each edge has handed over exactly its messages, by one dispatcher.
    fn counted(&self) -> Result<()> {
        let selector = format!("--selector=leatworks.dev/topology={TOPOLOGY},app.kubernetes.io/component=dispatcher");
        let list = answer(&mut self.site.kubectl(&["get", "deployments", &selector, "--output=json"]))?;
        let mut edges = BTreeSet::new();
        for deployment in list["items"].as_array().context("a list has items")? {
            let name = format!("deployment/{}", deployment["metadata"]["name"].as_str().unwrap_or_default());
            let edge = deployment["metadata"]["annotations"]["leatworks.dev/edge"].as_str().context("an edge")?;
            ensure!(deployment["status"]["readyReplicas"] == 1, "`{edge}` has not one dispatcher: {}", deployment["status"]);
            let (_, expected) = CALLS.iter().find(|(known, _)| *known == edge).with_context(|| format!("`{edge}` is new"))?;
            let output = self.site.kubectl(&["logs", &name]).stderr(Stdio::inherit()).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let handled: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let ids: Vec<&str> = handled.iter().filter_map(|handled| handled["messageId"].as_str()).collect();
            let different: BTreeSet<&str> = ids.iter().copied().collect();
            ensure!(
                ids.len() == *expected && different.len() == ids.len(),
                "`{edge}` has handed over {} messages, {} of them different, and not {expected}: {text}",
                ids.len(),
                different.len()
            );
            edges.insert(edge.to_owned());
        }
        ensure!(edges.len() == CALLS.len(), "only {edges:?} have dispatchers");
        println!("{TOPOLOGY}: one campaign, and each edge has handed over exactly its messages");
        Ok(())
    }

    /// Waits until nothing is pending, and compares what was recorded with what was sent. Nothing may have been given up on the way.
    fn settled(&self, campaigns: usize) -> Result<()> {
        let all = (0..campaigns)
            .flat_map(|campaign| (0..SUBSCRIBERS).map(move |number| (subscriber(campaign, number), wants_mail(number))));
        let expected: BTreeMap<String, bool> = all.collect();
        let settled = wait_every(LOOK_AGAIN, "the end of all campaigns", SETTLE_LIMIT, || {
            let waiting = self.site.status(Path::new(PROJECT), TOPOLOGY)?;
            ensure!(waiting.dead_letters == 0, "{} messages were given up", waiting.dead_letters);
            Ok((waiting.pending == 0 && self.recorded()?.0.len() >= expected.len()).then_some(()))
        });
        let (recorded, lines) = self.recorded()?;
        settled.with_context(|| {
            let missing: Vec<&String> = expected.keys().filter(|email| !recorded.contains_key(*email)).take(10).collect();
            format!("{} of {} are recorded; missing are {missing:?}", recorded.len(), expected.len())
        })?;
        ensure!(recorded == expected, "what is recorded is not what was sent");
        let again = lines - expected.len();
        println!(
            "{TOPOLOGY}: {} subscribers of {campaigns} campaigns, each recorded, {again} of them twice, none given up",
            expected.len()
        );
        Ok(())
    }

    /// Which subscribers are recorded, and whether they got a mail; and how many lines there are. One message has one id, however often it came.
    fn recorded(&self) -> Result<(BTreeMap<String, bool>, usize)> {
        let (mut recorded, mut ids) = (BTreeMap::new(), BTreeMap::new());
        let lines = self.results.lines()?;
        for line in &lines {
            let email = line["email"].as_str().context("a record names its subscriber")?.to_owned();
            let mailed = line["result"] == "sent";
            let before = recorded.insert(email.clone(), mailed);
            ensure!(before.is_none_or(|before| before == mailed), "`{email}` got a mail and none");
            let id = ids.insert(email.clone(), line["id"].clone());
            ensure!(id.is_none_or(|id| id == line["id"]), "`{email}` came as two messages");
        }
        Ok((recorded, lines.len()))
    }
}
