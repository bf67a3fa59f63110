//! Jobs on the cluster, which is R18 of the reliability targets. The example `chapters` runs there with programs that fail, hang, eat memory and lose their place, and then
//! with faults of everything around it.
//!
//! The fold behind `transform` counts each chapter once, and gives a result whenever nothing is pending before it; what is joined then must be each chapter once, too.

mod fault;
mod judge;
mod kept;
mod proxy;
mod rig;
mod rights;
mod worker;

use super::{
    super::{Cluster, Size},
    NAMESPACE, PATIENCE, Site, answer, chart,
    images::{Images, LEAT_ARCHIVE, SHOWCASE},
    results::{Results, pod},
};
use crate::{
    ci::run_command,
    faults::{Finding, Random, Setting},
};
use anyhow::{Result, ensure};
use fault::Fault;
use rig::Rig;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// The topology, which is one of this repository's.
const TOPOLOGY: &str = "chapters";
const PROJECT: &str = ".";

/// A cluster of the rule's own.
const CLUSTER: &str = "r18";

/// The plan of continuous integration.
const SEED: u64 = 18;

/// How many chapters each book has. Dividing it is one message more.
const CHAPTERS: usize = 6;
const PER_BOOK: usize = CHAPTERS + 1;

/// What the first chapters of one book make their program do, and what is said of it then. Each has all of its attempts.
const TROUBLES: [(&str, &str); 3] =
    [("!fail", "exit code 3"), ("!hang", "timeout of 10s"), ("!eat", "more memory than there is for it")];

/// How many chapters may be transformed at once.
const PARALLEL: usize = 3;

/// The book of the troubles, whose other chapters are slow enough to have their pods evicted.
const TROUBLE: &str = "trouble";

/// A book that is no text, which no other attempt would change, in Base64.
const BYTES: (&str, &str) = ("bytes", "//4=");

/// The messages that are given up: the troubles, and the book that is no text.
const GIVEN_UP: usize = TROUBLES.len() + 1;

/// The messages that come of the two bad books.
const BAD: usize = PER_BOOK + 1;

/// How much is done.
struct Plan {
    /// The good books.
    books: usize,
    /// What comes between them, in this order.
    faults: Vec<Fault>,
    /// Whether a proxy is between the pods and the API server.
    proxy: bool,
    /// How many attempts a message has: more than the faults can cost one.
    attempts: usize,
    /// How many books are under way at most when another is sent.
    at_once: usize,
    seed: u64,
    /// When no more books are sent.
    until: Option<Instant>,
}

impl Plan {
    /// 50 messages.
    fn few(seed: u64) -> Self {
        Self { books: 6, faults: fault::few(), proxy: false, attempts: 4, at_once: 1, seed, until: None }
    }

    /// 1,000 messages.
    fn many(seed: u64, until: Option<Instant>) -> Self {
        let mut random = Random::new(seed, "R18 faults");
        Self { books: 142, faults: fault::many(&mut random), proxy: true, attempts: 6, at_once: 2, seed, until }
    }

    /// How many messages there are.
    fn messages(&self) -> usize {
        BAD + self.books * PER_BOOK
    }
}

/// The stage of continuous integration.
pub(super) fn each_attempt_has_one(site: &Site<'_>) -> Result<()> {
    let (finding, rig) = run(site, &Plan::few(SEED))?;
    println!("{TOPOLOGY}: {}", finding.seen);
    ensure!(finding.objections.is_empty(), "{TOPOLOGY}: {}", finding.objections.join("; "));
    rights::each_is_needed(rig)?;
    run_command(site.kubectl(&["delete", "topology", TOPOLOGY, "--cascade=foreground", PATIENCE]).stdout(Stdio::null()))
}

/// The rule, on a cluster of its own.
pub(crate) fn on_a_cluster_of_its_own(setting: &Setting) -> Result<Finding> {
    let cluster = Cluster::named(CLUSTER)?.locked()?;
    cluster.up(Size { nodes: 1, with_pulsar: true })?;
    let seen = with_the_chart(&cluster, setting);
    if !seen.as_ref().is_ok_and(|finding| finding.objections.is_empty()) {
        keep(&cluster, &setting.folder)?;
    }
    cluster.down()?;
    seen
}

fn with_the_chart(cluster: &Cluster, setting: &Setting) -> Result<Finding> {
    let site = Site { cluster, images: Images::make(cluster)? };
    chart::install(&site)?;
    Ok(run(&site, &setting.pick(Plan::few(setting.seed), Plan::many(setting.seed, setting.until)))?.0)
}

/// Keeps what there is to look at when something was not as it should be.
fn keep(cluster: &Cluster, folder: &Path) -> Result<()> {
    let list = |kinds: &str| {
        let mut command = cluster.kubectl();
        command.args(["--namespace", NAMESPACE, "get", kinds, "--output=yaml"]);
        command
    };
    for role in ["worker", "dispatcher", "run", "job"] {
        let mut command = cluster.kubectl();
        let selector = format!("--selector=app.kubernetes.io/component={role}");
        command.args(["--namespace", NAMESPACE, "logs", &selector, "--prefix", "--tail=-1", "--max-log-requests=50"]);
        std::fs::write(folder.join(format!("{role}.log")), said(&mut command))?;
    }
    for (name, mut command) in [("objects", list("pods,jobs,deployments,topologies")), ("events", list("events"))] {
        std::fs::write(folder.join(format!("{name}.yaml")), said(&mut command))?;
    }
    let mut copy = Command::new("cp");
    copy.arg("--recursive")
        .arg(cluster.folder.join(VOLUME))
        .arg(cluster.folder.join("run"))
        .arg(cluster.folder.join("audit.log"));
    // Of a run that came to an early end there may not be all of it.
    let _ = copy.arg(folder).status()?;
    Ok(())
}

fn said(command: &mut Command) -> Vec<u8> {
    command.output().map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default()
}

/// The volume with the files of jobs.
const VOLUME: &str = "job-files";

fn run<'a>(site: &'a Site<'a>, plan: &Plan) -> Result<(Finding, Rig<'a>)> {
    let files = Results::make(site, VOLUME)?;
    let books: Vec<String> = (0..plan.books).map(|number| format!("book{number:03}")).collect();
    site.images.showcase(site.cluster)?;
    worker::load(site.cluster)?;
    // Nodes pull it from the registry, but not where a topology says that nothing is pulled.
    site.cluster.load(&site.cluster.folder.join(LEAT_ARCHIVE))?;
    write(site, &books)?;
    let mut rig = Rig::new(site, files, plan)?;
    deploy(site, plan)?;
    let began = Instant::now();
    rig.send(TROUBLE)?;
    rig.send(BYTES.0)?;
    rig.evict_each_slow_chapter()?;
    rig.until_pending(0)?;
    let sent = rig.with_faults(&books, plan)?;
    rig.until_pending(0)?;
    rig.until_joined()?;
    let time = began.elapsed();
    let left = rig.left()?;
    let finding = rig.judge(&books[..sent], plan, time, left)?;
    Ok((finding, rig))
}

/// The files of all books, for the pods of `split`.
fn write(site: &Site<'_>, books: &[String]) -> Result<()> {
    let chapter = |book: &str, number: usize, what: &str| format!("# Chapter {number} of {book}\n{what}\nsome words\n");
    let troubles = TROUBLES.iter().map(|(what, _)| *what).chain(std::iter::repeat("!slow"));
    let trouble: String = troubles.take(CHAPTERS).enumerate().map(|(index, what)| chapter(TROUBLE, index + 1, what)).collect();
    let good = |book: &String| (format!("{book}.txt"), (1..=CHAPTERS).map(|number| chapter(book, number, "good")).collect());
    let short = |number| (format!("{}.txt", rights::book(number)), chapter(&rights::book(number), 1, "good"));
    let short = (0..rights::BOOKS).map(short);
    let texts: BTreeMap<String, String> =
        books.iter().map(good).chain([(format!("{TROUBLE}.txt"), trouble)]).chain(short).collect();
    site.apply(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "books", "namespace": NAMESPACE},
        "data": texts,
        "binaryData": {format!("{}.txt", BYTES.0): BYTES.1},
    }))
}

/// What the cluster needs besides what the project says. Books are sent by hand, so the source finds an empty folder.
fn deploy(site: &Site<'_>, plan: &Plan) -> Result<()> {
    let books = pod(&json!({"name": "books", "configMap": {"name": "books"}}), &json!([]));
    let retry = json!({"attempts": plan.attempts, "backoff": "200ms"});
    let overlay = json!({
        "jobs": {"claim": VOLUME},
        "tasks": [
            {"name": "books", "source": {"path": "/tmp"}},
            {"name": "split", "image": worker::IMAGE, "podTemplate": books, "retry": retry},
            {"name": "transform", "image": worker::IMAGE, "retry": retry, "parallelism": PARALLEL},
            {"name": "join", "image": worker::IMAGE, "retry": retry},
        ],
    });
    let mut command = site.deploy(Path::new(PROJECT), TOPOLOGY, SHOWCASE, &overlay, &["--wait"])?;
    run_command(command.stdout(Stdio::null()))
}
