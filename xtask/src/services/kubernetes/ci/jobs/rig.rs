//! Lets faults come, and waits for what they do.

use super::{
    super::OWN,
    CHAPTERS, Fault, GIVEN_UP, NAMESPACE, PER_BOOK, PROJECT, Plan, Random, Results, Site, TOPOLOGY, TROUBLES, answer,
    kept::{self, Made, text},
    proxy::Proxy,
};
use crate::{ci::run_command, services::kubernetes::control};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long nothing may go on: a pod that is evicted and one that hangs take half a minute, and a killed API server as long until all have found it again.
const STUCK: Duration = Duration::from_secs(240);
/// How long slow programs are looked for.
const EVICT: Duration = Duration::from_secs(120);
/// How soon nothing may be left of the Jobs.
const LEFT: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long is waited for a Job to appear, before the fault that is to come to it comes without.
const APPEARS: Duration = Duration::from_secs(60);
/// How often something is asked for that an API server may refuse which has only just started.
const TRIES: usize = 20;

/// The Jobs of all messages, or what runs for them.
const JOBS: &str = "app.kubernetes.io/component=job";

pub(super) struct Rig<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) files: Results,
    pub(super) proxy: Option<Proxy>,
    pub(super) made: Made,
    /// The faults that have come, by their names, and how many of them found a Job.
    pub(super) faults: BTreeMap<&'static str, usize>,
    pub(super) under_way: usize,
    pub(super) evicted: usize,
    /// How many programs were seen to run at once before anything was killed.
    pub(super) at_once: usize,
    /// The ids of the books that were sent.
    pub(super) roots: BTreeMap<String, String>,
    random: Random,
    /// The messages that what was sent is to come to.
    expected: usize,
}

impl<'a> Rig<'a> {
    pub(super) fn new(site: &'a Site<'a>, files: Results, plan: &Plan) -> Result<Self> {
        let proxy = plan.proxy.then(|| Proxy::start(site.cluster, plan.seed)).transpose()?;
        let random = Random::new(plan.seed, "R18");
        Ok(Self {
            site,
            files,
            proxy,
            made: Made::default(),
            faults: BTreeMap::new(),
            under_way: 0,
            evicted: 0,
            at_once: 0,
            roots: BTreeMap::new(),
            random,
            expected: 0,
        })
    }

    /// What `leat` answers.
    pub(super) fn ask(&self, words: &[&str]) -> Result<Value> {
        answer(&mut self.site.leat(Path::new(PROJECT), words))
    }

    /// What is known of a book and all that came of it. The files of jobs are a folder of this machine.
    pub(super) fn trace(&self, book: &str) -> Result<Vec<Value>> {
        let root = self.roots.get(book).with_context(|| format!("{book} was not sent"))?;
        let mut leat = self.site.leat(Path::new(PROJECT), &["trace", root, "--output", "json"]);
        leat.env("LEAT_JOBS__FILES", format!("file://{}", self.files.folder().display()));
        let traced = answer(&mut leat)?;
        Ok(traced.pointer("/0/steps").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// The attempts at a message that have had a Job, as the API server has written down.
    pub(super) fn made_of(&mut self, step: &str) -> Result<Vec<u32>> {
        self.made.add_audited(self.site.cluster)?;
        Ok(self.made.of(step))
    }

    /// Sends a book.
    pub(super) fn send(&mut self, book: &str) -> Result<()> {
        let message = json!({"path": format!("/books/{book}.txt")}).to_string();
        let sent = self.ask(&["send", TOPOLOGY, &message, "--output", "json"])?;
        self.roots.insert(book.to_owned(), text(&sent, "/0/id"));
        self.expected += if book == super::BYTES.0 { 1 } else { PER_BOOK };
        Ok(())
    }

    /// Objects by kinds and labels.
    fn list(&self, kinds: &str, selector: &str) -> Result<Vec<Value>> {
        let words = ["get", kinds, "--selector", selector, "--output=json"];
        for _ in 1..TRIES {
            let output = self.site.kubectl(&words).stderr(Stdio::null()).output().context("starting kubectl")?;
            if let (true, Ok(list)) = (output.status.success(), serde_json::from_slice::<Value>(&output.stdout)) {
                return Ok(list["items"].as_array().cloned().unwrap_or_default());
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        let list = answer(&mut self.site.kubectl(&words))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The Jobs that are there, of one task or all.
    fn jobs(&mut self, task: Option<&str>) -> Result<Vec<Value>> {
        let task = task.map(|task| format!(",leatworks.dev/task={task}")).unwrap_or_default();
        let jobs = self.list("jobs", &format!("{JOBS}{task}"))?;
        jobs.iter().for_each(|job| self.made.add(job));
        Ok(jobs)
    }

    /// The pods whose program runs.
    fn running(&self) -> Result<Vec<Value>> {
        let pods = self.list("pods", &format!("{JOBS},leatworks.dev/task=transform"))?;
        let runs = |pod: &Value| {
            let containers = pod["status"]["initContainerStatuses"].as_array();
            containers.into_iter().flatten().any(|one| one["name"] == "worker" && one["state"]["running"].is_object())
        };
        Ok(pods.into_iter().filter(runs).collect())
    }

    /// Takes the place of each slow program away once, by the API that a node which is emptied uses.
    pub(super) fn evict_each_slow_chapter(&mut self) -> Result<()> {
        let since = Instant::now();
        let mut done: BTreeSet<String> = BTreeSet::new();
        let slow = CHAPTERS - TROUBLES.len();
        // One may be over before it is seen to run. Dividing the book is a commit as well.
        while done.len() < slow && kept::commits(self.files.folder())? <= slow && since.elapsed() < EVICT {
            let running = self.running()?;
            self.at_once = self.at_once.max(running.len());
            for pod in running {
                let (name, place) = (text(&pod, "/metadata/name"), text(&pod, "/metadata/annotations/leatworks.dev~1place"));
                let document = kept::document(&self.files.folder().join(&place))?;
                let number = document["job"]["data"]["number"].as_u64().unwrap_or_default() as usize;
                if number > TROUBLES.len() && !done.contains(&place) {
                    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction");
                    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}});
                    if told(&mut self.site.kubectl(&["create", "--raw", &path, "--filename", "-"]), &body)? {
                        done.insert(place);
                    }
                }
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        self.evicted = done.len();
        Ok(())
    }

    /// Sends the books, with the faults spread over them. Gives how many were sent until the time was over.
    pub(super) fn with_faults(&mut self, books: &[String], plan: &Plan) -> Result<usize> {
        for (index, book) in books.iter().enumerate() {
            if plan.until.is_some_and(|until| Instant::now() > until) {
                return Ok(index);
            }
            self.until_pending(plan.at_once * PER_BOOK)?;
            self.send(book)?;
            let part = |index: usize| index * plan.faults.len() / books.len();
            for fault in &plan.faults[part(index)..part(index + 1)] {
                self.strike(*fault)?;
            }
        }
        Ok(books.len())
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        let hit = match fault {
            Fault::Kill { part, task, under_way } => {
                if under_way {
                    self.a_job(Some(task))?;
                }
                let hit = !self.jobs(Some(task))?.is_empty();
                let selector = format!("--selector=app.kubernetes.io/component={},leatworks.dev/task={task}", part.role());
                self.act(&["delete", "pods", &selector, "--force", "--grace-period=0", "--wait=false"])?;
                hit
            }
            Fault::Delete | Fault::Expire => match self.a_job(None)? {
                Some(name) if fault == Fault::Delete => self.act(&["delete", "job", &name, "--wait=false"])?,
                Some(name) => {
                    let patch = r#"{"spec": {"ttlSecondsAfterFinished": 0}}"#;
                    self.act(&["patch", "job", &name, "--type=merge", "--patch", patch])?
                }
                None => false,
            },
            Fault::Double => self.double()?,
            Fault::RestartApi | Fault::RestartStore => {
                let hit = !self.jobs(None)?.is_empty();
                control::restart(
                    self.site.cluster,
                    if fault == Fault::RestartApi { control::API_SERVER } else { control::STORE },
                )?;
                hit
            }
        };
        *self.faults.entry(fault.name()).or_default() += 1;
        self.under_way += usize::from(hit);
        Ok(())
    }

    /// Does something to an object that may be gone meanwhile, and says whether it was there.
    fn act(&self, words: &[&str]) -> Result<bool> {
        Ok(self.site.kubectl(words).stdout(Stdio::null()).stderr(Stdio::null()).status().context("starting kubectl")?.success())
    }

    /// The name of a Job that has not ended, as soon as there is one.
    fn a_job(&mut self, task: Option<&str>) -> Result<Option<String>> {
        let since = Instant::now();
        while since.elapsed() < APPEARS {
            let mut jobs = self.jobs(task)?;
            jobs.retain(|job| job["metadata"]["deletionTimestamp"].is_null() && job["status"]["conditions"].is_null());
            if !jobs.is_empty() {
                let one = self.random.within(0..jobs.len() as u64) as usize;
                return Ok(Some(text(&jobs[one], "/metadata/name")));
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        Ok(None)
    }

    /// Starts a second pod that is told what the pod of a Job is told, as happens when a node is cut off and its pod goes on there.
    fn double(&mut self) -> Result<bool> {
        let since = Instant::now();
        while since.elapsed() < APPEARS {
            for pod in self.list("pods", &format!("{JOBS},leatworks.dev/task=transform"))? {
                if pod["status"]["phase"] != "Pending" || !pod["metadata"]["deletionTimestamp"].is_null() {
                    continue;
                }
                let mut spec = pod["spec"].clone();
                // Where it runs is chosen anew.
                spec.as_object_mut().context("a pod has a spec")?.remove("nodeName");
                let name = format!("second-{}", text(&pod, "/metadata/name"));
                let labels = json!({OWN: "yes", "leatworks.test/second": "yes"});
                let second = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "spec": spec});
                if told(&mut self.site.kubectl(&["create", "--filename", "-"]), &second)? {
                    return Ok(true);
                }
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        Ok(false)
    }

    /// Waits until so few messages are pending. Fails when nothing goes on.
    pub(super) fn until_pending(&self, most: usize) -> Result<()> {
        let (mut since, mut before, mut quiet) = (Instant::now(), usize::MAX, 0);
        loop {
            let done = kept::commits(self.files.folder())?;
            let pending = self.expected.saturating_sub(done + GIVEN_UP);
            if pending <= most && most > 0 {
                return Ok(());
            }
            if pending != before {
                (since, before) = (Instant::now(), pending);
            }
            let waiting = if pending == 0 { self.site.status(Path::new(PROJECT), TOPOLOGY)?.pending } else { 1 };
            // Between two edges a message may be in neither for a moment.
            quiet = if waiting == 0 { quiet + 1 } else { 0 };
            if quiet == 2 {
                return Ok(());
            }
            if since.elapsed() > STUCK {
                let status = self.ask(&["status", TOPOLOGY, "--output", "json"])?;
                bail!("stuck: for {STUCK:?} {pending} of {} messages have no commit: {status}", self.expected);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Waits until all chapters that are there have been joined, or until it is too late for it.
    pub(super) fn until_joined(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let messages = kept::messages(self.files.folder())?;
            let (joined, chapters) = kept::joined(&messages);
            if joined.iter().map(|one| one.files.len()).sum::<usize>() >= chapters || since.elapsed() > STUCK {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// How many Jobs and pods of Jobs are left when they should be gone.
    pub(super) fn left(&mut self) -> Result<usize> {
        let since = Instant::now();
        loop {
            let left = self.list("jobs,pods", JOBS)?.len();
            if left == 0 || since.elapsed() > LEFT {
                return Ok(left);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// How many of the second pods have done all of their work. They are removed.
    pub(super) fn seconds(&self) -> Result<usize> {
        let selector = "leatworks.test/second=yes";
        let since = Instant::now();
        let ended = loop {
            let pods = self.list("pods", selector)?;
            let ended = |phase: &str| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
            if ended("Succeeded") + ended("Failed") == pods.len() || since.elapsed() > LEFT {
                break ended("Succeeded");
            }
            std::thread::park_timeout(LOOK_AGAIN);
        };
        run_command(self.site.kubectl(&["delete", "pods", "--selector", selector]).stdout(Stdio::null()))?;
        Ok(ended)
    }

    /// How many chapters have come to the fold behind them, by what the run says.
    pub(super) fn gathered(&self, expected: usize) -> Result<Option<usize>> {
        let since = Instant::now();
        loop {
            let selector = format!("--selector=app.kubernetes.io/component=run,leatworks.dev/topology={TOPOLOGY}");
            let output = self.site.kubectl(&["logs", &selector, "--tail=100"]).output().context("starting kubectl")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let number = |line: &str| line.split_once("gather ")?.1.split([',', ')']).next()?.parse().ok();
            let gathered = text.lines().rev().find_map(number);
            // It says so now and then.
            if gathered == Some(expected) || since.elapsed() > LEFT {
                return Ok(gathered);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
}

/// Gives an object to a command, and says whether it took it.
fn told(command: &mut Command, object: &Value) -> Result<bool> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting kubectl")?;
    child.stdin.take().context("kubectl takes no input")?.write_all(object.to_string().as_bytes())?;
    Ok(child.wait()?.success())
}
