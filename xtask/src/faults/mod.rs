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
mod r19;
mod r24_pulsar;
mod random;
mod report;
mod rig;
mod service;
mod workload;

pub(crate) use child::{ROLE, main as child};
pub(crate) use product::{ROLE as BINARY, main as binary};

use crate::services::{kubernetes, pulsar};
use anyhow::{Context, Result, bail};
use leatworks_broker::BoxFuture;
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

/// One rule of the reliability targets.
struct Rule {
    name: &'static str,
    title: &'static str,
    target: &'static str,
    /// Programs that it needs beside this one.
    programs: &'static [&'static str],
    /// Whether it mounts or limits something, which only root may.
    root: bool,
    /// Whether it runs on an Apache Pulsar of its own, which needs Java, and Maven to fetch it. Such a rule is run when it is named.
    service: bool,
    run: for<'a> fn(&'a Setting) -> BoxFuture<'a, Result<Finding>>,
    /// Whether it runs on a Kubernetes of its own, which needs root, and Go to build it. Such a rule is run when it is named.
    cluster: bool,
    /// With this word the oracle must object when the product is broken by `--teeth`; nothing if there is no such switch.
    bite: Option<&'static str>,
}

const RULES: &[Rule] = &[
    Rule {
        name: "R1",
        title: "kill -9 at random moments",
        target: "1,000 kills while 1,000,000 roots cross five tasks: nothing lost, phantom or corrupt; repetitions at most kills x messages in flight, and none after removing them by id",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r01::run(setting)),
        bite: Some("lost"),
    },
    Rule {
        name: "R2",
        title: "kill -9 at each system call",
        target: "3,000 calls that change the disk: every opening afterwards is clean, nothing acknowledged is lost",
        programs: &["strace"],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r02::run(setting)),
        bite: None,
    },
    Rule {
        name: "R3",
        title: "power cuts",
        target: "300 cuts under load: nothing acknowledged is lost; the same run with the sync switched off loses",
        programs: &["mount", "umount", "mkfs.ext4", "perl"],
        root: true,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r03::run(setting)),
        bite: Some("lost"),
    },
    Rule {
        name: "R4",
        title: "a cut or damaged journal",
        target: "cut at each of the last 65,536 bytes, and 10,000 bits flipped: no wrong message, all damage told of, loss limited to the damaged record, none by a damaged checkpoint",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r04::run(setting)),
        bite: None,
    },
    Rule {
        name: "R5",
        title: "the n-th sync fails",
        target: "n = 1 to 200: acknowledging stops at once, no sync is tried again, exit code 74 within 1 s, nothing acknowledged is lost in a power cut behind it",
        programs: &["mount", "umount", "mkfs.ext4", "perl", "strace"],
        root: true,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r05::run(setting)),
        bite: Some("goes on"),
    },
    Rule {
        name: "R6",
        title: "a full disk",
        target: "50 times full and with space again: senders get a typed error within 1 s, consumers go on, senders are served again within 5 s of space, no restart, nothing acknowledged is lost",
        programs: &["mount", "umount"],
        root: true,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r06::run(setting)),
        bite: None,
    },
    Rule {
        name: "R7",
        title: "recovery with a long backlog",
        target: "with 1,000,000 unacknowledged messages the first delivery comes within 2 s of the start of a killed process (99th percentile), with a short backlog within 500 ms",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r07::run(setting)),
        bite: None,
    },
    Rule {
        name: "R8",
        title: "kill -9 of the Pulsar broker, and topics that move",
        target: "100 kills of the Pulsar broker and 300 unloads of topics while 200,000 roots cross five tasks on it: nothing lost or stuck, no process started again, work goes on within 10 s (99th percentile); repetitions at most faults x messages in flight, and none after removing them by id",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r08::run(setting)),
        bite: Some("lost"),
    },
    Rule {
        name: "R9",
        title: "faults of the network to Pulsar",
        target: "300 faults by a proxy between the client and a Pulsar broker (blackhole, reset, half-open, cut within a frame, 1 byte a second, latency): nothing lost or stuck, no process started again, work goes on within 15 s (99th percentile)",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r09::run(setting)),
        bite: None,
    },
    Rule {
        name: "R10",
        title: "poison",
        target: "a message that fails by error, panic, abort, lack of memory or hanging is a dead letter after exactly its attempts, with the process and the broker alone killed between every two of them",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r10::run(setting)),
        bite: Some("its attempts were"),
    },
    Rule {
        name: "R10-pulsar",
        title: "poison on Pulsar",
        target: "a message that fails by error, panic, abort, lack of memory or hanging is a dead letter after exactly its attempts, with the process and the Pulsar broker killed between every two of them",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r10_pulsar::run(setting)),
        bite: None,
    },
    Rule {
        name: "R11-pulsar",
        title: "dead letters and back on Pulsar",
        target: "5,000 messages are given up and given back by a command that is killed 50 times: none lost, each as it was sent and with its cause and attempts, and none has an effect twice",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r11_pulsar::run(setting)),
        bite: None,
    },
    Rule {
        name: "R12",
        title: "limits of size",
        target: "one below each limit and at it is taken, one above is refused with a typed error before anything is written, and holds nobody up",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r12::run(setting)),
        bite: None,
    },
    Rule {
        name: "R12-pulsar",
        title: "limits of size on Pulsar",
        target: "one below each limit and at it is taken, one above is refused with a typed error before anything is sent, and holds nobody up",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r12_pulsar::run(setting)),
        bite: None,
    },
    Rule {
        name: "R13",
        title: "a slow sink",
        target: "a sink at 1 % of the source's speed for 10 minutes with 1,000,000 messages queued: the process stays within 256 MiB, nothing is dropped, the source is slowed, and afterwards the sink does 90 % of its former rate",
        programs: &[],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r13::run(setting)),
        bite: None,
    },
    Rule {
        name: "R15-pulsar",
        title: "repetitions and another order on Pulsar",
        target: "one in ten messages of every topic comes again, later and in another order, and all of these once more to the next process: none has an effect twice, of the last 262,143 of each subscription",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r15_pulsar::run(setting)),
        bite: Some("double"),
    },
    Rule {
        name: "R16",
        title: "jumps of the wall clock",
        target: "jumps of an hour, five minutes and ten years, also between two processes: nothing lost, no wait before a retry off by more than 10 %, nothing waits for ever",
        programs: &["cc"],
        root: false,
        service: false,
        cluster: false,
        run: |setting| Box::pin(r16::run(setting)),
        bite: None,
    },
    Rule {
        name: "R19",
        title: "edited graphs on a real API server",
        target: "500 random edits and deletions of topologies with two controllers at once, which are killed and stopped: converged within 10 s (99th percentile), nothing left over, a second look writes nothing, one resource that is refused parks only itself",
        programs: &[],
        root: true,
        service: false,
        cluster: true,
        run: |setting| Box::pin(r19::run(setting)),
        bite: None,
    },
    Rule {
        name: "R24-pulsar",
        title: "the order of starts on Pulsar",
        target: "all 120 orders in which five processes of a topology can start, what sends among them, each killed in a random order: nothing lost",
        programs: &[],
        root: false,
        service: true,
        cluster: false,
        run: |setting| Box::pin(r24_pulsar::run(setting)),
        bite: None,
    },
];

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

/// The rules that run on a real Pulsar.
pub(crate) fn on_pulsar() -> Vec<&'static str> {
    RULES.iter().filter(|rule| rule.service).map(|rule| rule.name).collect()
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
