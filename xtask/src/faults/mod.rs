//! The fault harness of the embedded broker, and of the client of a real Pulsar: `cargo xtask faults`. Each rule lets faults of one kind come to a process under load and has an oracle judge
//! what is there afterwards. `docs/reliability.md` is what it has seen.

mod child;
mod disk;
mod far;
mod log;
mod lying;
mod memory;
mod oracle;
mod product;
mod proxy;
mod r01;
mod r02;
mod r03;
mod r04;
mod r05;
mod r06;
mod r07;
mod r08;
mod r09;
mod r10;
mod r10_pulsar;
mod r11_pulsar;
mod r12;
mod r12_pulsar;
mod r13;
mod r15_pulsar;
mod r16;
mod r18;
mod r19;
mod r24_pulsar;
mod random;
mod report;
mod rig;
mod rules;
mod service;
mod workload;

pub(crate) use child::{ROLE, main as child};
pub(crate) use product::{ROLE as BINARY, main as binary};
pub(crate) use random::Random;

use crate::services::{kubernetes, pulsar};
use anyhow::{Context, Result, bail};
use rules::{RULES, Rule};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where runs lay their journals and logs. They stay there until the next run, to be looked into.
const FOLDER: &str = "target/faults";

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// What a pull request can wait for: ten minutes in all.
    Pr,
    /// The full figures: three hours in all.
    Nightly,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Pr => "pr",
            Self::Nightly => "nightly",
        }
    }
}

/// How a rule is run.
pub(crate) struct Setting {
    pub(crate) tier: Tier,
    pub(crate) seed: u64,
    /// The rule's own folder.
    pub(crate) folder: PathBuf,
    /// Break what the rule is about: the oracle must object then.
    pub(crate) teeth: bool,
    /// When no more faults come, so that a long rule fits into the time there is. What is left out counts as missed.
    pub(crate) until: Option<Instant>,
}

impl Setting {
    /// Whether the time for faults is over.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    /// The figure of the tier.
    pub(crate) fn pick<T>(&self, pr: T, nightly: T) -> T {
        match self.tier {
            Tier::Pr => pr,
            Tier::Nightly => nightly,
        }
    }
}

/// What a rule has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finding {
    /// The figures.
    pub(crate) seen: String,
    /// What is not as it must be. A run that did too little to count is among it: void is a failure.
    pub(crate) objections: Vec<String>,
}

impl Finding {
    /// Objects unless this holds.
    pub(crate) fn require(&mut self, holds: bool, objection: impl FnOnce() -> String) {
        if !holds {
            self.objections.push(objection());
        }
    }
}

/// What the command line asks for.
struct Request {
    tier: Tier,
    seed: u64,
    teeth: bool,
    minutes: Option<u64>,
    report: Option<PathBuf>,
    rules: Vec<&'static Rule>,
}

fn parse(words: &[&str]) -> Result<Request> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut request = Request { tier: Tier::Pr, seed: clock, teeth: false, minutes: None, report: None, rules: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match *word {
            "--tier" => {
                request.tier = match *value()? {
                    "pr" => Tier::Pr,
                    "nightly" => Tier::Nightly,
                    other => bail!("tier `{other}` is none of `pr`, `nightly`"),
                }
            }
            "--seed" => request.seed = value()?.parse().context("reading the seed")?,
            "--teeth" => request.teeth = true,
            "--minutes" => request.minutes = Some(value()?.parse().context("reading the minutes")?),
            "--report" => request.report = Some(value()?.into()),
            name => {
                let rule = RULES.iter().find(|rule| rule.name.eq_ignore_ascii_case(name));
                let names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
                request.rules.push(rule.with_context(|| format!("no rule is called `{name}`; there are {}", names.join(", ")))?);
            }
        }
    }
    if request.rules.is_empty() {
        request.rules =
            RULES.iter().filter(|rule| !rule.service && !rule.cluster && (!request.teeth || rule.bite.is_some())).collect();
    }
    Ok(request)
}

/// The rules that run on a real Pulsar and nothing else.
pub(crate) fn on_pulsar() -> Vec<&'static str> {
    RULES.iter().filter(|rule| rule.service && !rule.cluster).map(|rule| rule.name).collect()
}

/// How a rule ended.
enum Ended {
    Ran(Finding),
    /// It cannot run here, and why.
    NotRun(String),
}

/// Runs the rules that are asked for, and names those that could not run here. Fails if one has missed its target, or could not run with `CI` set.
pub(crate) fn run(words: &[&str]) -> Result<Vec<&'static str>> {
    let request = parse(words)?;
    let _alone = alone()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut bad, mut not_run) = (Vec::new(), Vec::new());
    for rule in &request.rules {
        println!("==== {} {} ({}, seed {}) ====", rule.name, rule.title, request.tier.name(), request.seed);
        let began = Instant::now();
        let ended = runtime.block_on(run_rule(rule, &request));
        if matches!(ended, Ok(Ended::NotRun(_))) {
            not_run.push(rule.name);
        }
        let verdict = tell(rule, &request, ended, began.elapsed())?;
        bad.extend(verdict.map(|verdict| format!("{}: {verdict}", rule.name)));
    }
    if !bad.is_empty() {
        bail!("{}", bad.join("; "));
    }
    Ok(not_run)
}

/// Makes sure that no other run of this checkout writes the same logs.
fn alone() -> Result<std::fs::File> {
    std::fs::create_dir_all(FOLDER)?;
    let file = std::fs::File::create(Path::new(FOLDER).join("lock"))?;
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    locked.context("another run of the fault harness goes on in this checkout")?;
    Ok(file)
}

async fn run_rule(rule: &Rule, request: &Request) -> Result<Ended> {
    if let Some(why) = cannot_run(rule) {
        return Ok(Ended::NotRun(why));
    }
    if request.teeth && rule.bite.is_none() {
        return Ok(Ended::NotRun("nothing can be broken here by a switch".to_owned()));
    }
    let folder = std::path::absolute(Path::new(FOLDER).join(rule.name))?;
    let until = request.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let setting = Setting { tier: request.tier, seed: request.seed, folder, teeth: request.teeth, until };
    Ok(Ended::Ran((rule.run)(&setting).await?))
}

fn cannot_run(rule: &Rule) -> Option<String> {
    let missing: Vec<_> = rule.programs.iter().copied().filter(|name| !disk::is_installed(name)).collect();
    if !missing.is_empty() {
        return Some(format!(
            "{} not installed; `.ci/install-fault-tools` installs what is needed on Debian",
            missing.join(", ")
        ));
    }
    if rule.service
        && let Err(missing) = pulsar::can_run()
    {
        return Some(format!("it needs Java, and Maven to fetch an Apache Pulsar: {missing}"));
    }
    if rule.cluster
        && let Err(missing) = kubernetes::can_run()
    {
        return Some(missing.to_string());
    }
    (rule.root && !rustix::process::geteuid().is_root()).then(|| "it mounts a disk of its own, so it needs root".to_owned())
}

/// Prints how a rule ended and puts it in the report; gives what is bad about it.
fn tell(rule: &Rule, request: &Request, ended: Result<Ended>, time: Duration) -> Result<Option<String>> {
    let finding = match ended {
        Ok(Ended::NotRun(why)) => {
            println!("NOT RUN: {why}\n");
            return Ok(std::env::var_os("CI").is_some().then(|| format!("not run: {why}")));
        }
        Ok(Ended::Ran(finding)) => finding,
        Err(error) => Finding { seen: "the run came to no end".to_owned(), objections: vec![format!("{error:#}")] },
    };
    println!("{}", finding.seen);
    finding.objections.iter().take(20).for_each(|objection| println!("  - {objection}"));
    if request.teeth {
        let bitten = finding.objections.iter().any(|objection| rule.bite.is_some_and(|bite| objection.contains(bite)));
        println!("{} in {:.1} s\n", if bitten { "the oracle objects, as it must" } else { "NO TEETH" }, time.as_secs_f64());
        return Ok((!bitten).then(|| "the oracle does not object to a broken product".to_owned()));
    }
    let passed = finding.objections.is_empty();
    println!("{} in {:.1} s\n", if passed { "passed" } else { "MISSED" }, time.as_secs_f64());
    if let Some(page) = &request.report {
        report::write(page, rule, request, &finding, time)?;
    }
    Ok((!passed).then(|| finding.objections.join(", ")))
}
