//! A graph that is changed while messages flow: an edge goes and another comes, images roll, a graph that goes in a circle is asked for, each part loses a pod, and all of it is taken back.
//! Nothing is lost.

use super::{
    NAMESPACE, PATIENCE, Site, answer,
    images::pack,
    results::{Results, pod},
};
use crate::{ci::run_command, services::wait_every};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const TOPOLOGY: &str = "diamond";

/// The project as it is kept, and where a copy with each graph is built: relative paths in them lead to the same places.
const SOURCE: &str = "tests/cluster/diamond";
const COPIES: &str = "target/cluster";

/// The two graphs. In the second one `right` leads to `audit` in place of `meet`.
const GRAPHS: [&str; 2] = ["before", "after"];
const IMAGES: [&str; 2] = ["leatworks.test/diamond:1", "leatworks.test/diamond:2"];
/// The second one again by another name, so that pods are replaced and do what they did.
const ROLLED: &str = "leatworks.test/diamond:2b";

/// A graph that no controller deploys.
const CIRCLE: &str = "flowchart LR\n    enter --> left\n    left --> enter\n";

/// The edge that goes.
const REMOVED: &str = "right-->meet";

/// How many numbers one call sends. Calls follow each other at once, so that a graph on two busy cores keeps pace with few.
const AT_ONCE: u64 = 5;

/// How many numbers are on their way at most when more are sent: so many that each change finds some, and so few that they come through in time where other work takes the processor.
const WINDOW: usize = 200;

/// How long numbers may be on their way: as long as may pass on a Pulsar until something goes on where other work takes the processor, see `faults/service.rs`.
const SETTLE_LIMIT: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Changes the graph and takes the changes back.
pub(super) fn changes(site: &Site<'_>) -> Result<()> {
    let diamond = Diamond { site, results: Results::make(site, "ways")?, next: AtomicU64::new(0) };
    diamond.images()?;
    diamond.deploy(0, IMAGES[0], "Drain")?;
    diamond.send()?;
    diamond.settled()?;
    let counts = diamond.counts()?;
    let all = usize::try_from(AT_ONCE)?;
    let exact = BTreeMap::from(
        [(("meet", "left"), all), (("meet", "right"), all)]
            .map(|((task, way), count)| ((task.to_owned(), way.to_owned()), count)),
    );
    ensure!(counts == exact, "without faults each number comes once by each way, and not {counts:?}");
    diamond.while_numbers_flow(|| {
        diamond.deploy(1, IMAGES[1], "Drain")?;
        ensure!(!diamond.has_dispatcher(REMOVED)?, "`{REMOVED}` has a dispatcher after it was drained");
        diamond.deploy(1, ROLLED, "Drain")?;
        diamond.refuses(CIRCLE)?;
        diamond.lose_each_pod()?;
        diamond.roll_back(&["--to", "1"])?;
        ensure!(diamond.has_dispatcher(REMOVED)?, "`{REMOVED}` has no dispatcher after the rollback");
        diamond.deploy(1, IMAGES[1], "Park")
    })?;
    // What comes by the way that is gone waits until it is back.
    let parked = diamond.next.load(Relaxed);
    diamond.send()?;
    diamond.settled()?;
    let met = diamond.numbers("meet", "right")?;
    ensure!(met.iter().all(|number| *number < parked), "a parked edge hands messages over");
    diamond.roll_back(&[])?;
    let back: BTreeSet<u64> = (parked..diamond.next.load(Relaxed)).collect();
    wait_every(LOOK_AGAIN, "the end of what was parked", SETTLE_LIMIT, || {
        Ok(back.is_subset(&diamond.numbers("meet", "right")?).then_some(()))
    })?;
    diamond.settled()?;
    diamond.no_copies()?;
    let sent = diamond.next.load(Relaxed);
    let lines: usize = diamond.counts()?.values().sum();
    println!(
        "{TOPOLOGY}: {sent} numbers by two ways while its graph and images were changed five times, a circle was refused, and each Deployment lost a pod: none lost, none given up, {lines} lines"
    );
    Ok(())
}

struct Diamond<'a> {
    site: &'a Site<'a>,
    results: Results,
    /// The next number to be sent.
    next: AtomicU64,
}

impl Diamond<'_> {
    /// Builds the project with each of its graphs.
    fn images(&self) -> Result<()> {
        for (graph, image) in GRAPHS.iter().zip(IMAGES) {
            let archive = pack(&self.site.images.program, &project(graph)?, image, &self.site.cluster.folder)?;
            self.site.cluster.load(&archive)?;
        }
        self.site.cluster.name(IMAGES[1], ROLLED)
    }

    fn deploy(&self, graph: usize, image: &str, removed: &str) -> Result<()> {
        let project = folder(GRAPHS[graph]);
        let writer = |task: &str| {
            let variable = format!("LEAT_TOPOLOGY__DIAMOND__TASK__{}__SETTINGS__PATH", task.to_uppercase());
            json!({"name": task, "podTemplate": pod(&self.results.volume(), &self.results.env(&variable))})
        };
        let writers: Vec<Value> = ["meet", "audit"][..=graph].iter().map(|task| writer(task)).collect();
        let overlay = json!({"removedEdges": removed, "tasks": writers});
        run_command(self.site.deploy(&project, TOPOLOGY, image, &overlay, &["--wait"])?.stdout(Stdio::null()))
    }

    /// Asks for a graph that is refused, sees that what is there goes on, and takes the graph back.
    fn refuses(&self, graph: &str) -> Result<()> {
        let topology = format!("topology/{TOPOLOGY}");
        let get = |field: &str| {
            let list = answer(&mut self.site.kubectl(&["get", &topology, "--output=json"]))?;
            list.pointer(field).cloned().with_context(|| format!("`{TOPOLOGY}` has no {field}"))
        };
        let ask = |graph: &Value| {
            let patch = json!({"spec": {"graph": graph}}).to_string();
            run_command(self.site.kubectl(&["patch", &topology, "--type=merge", "--patch", &patch]).stdout(Stdio::null()))
        };
        let (good, revision) = (get("/spec/graph")?, get("/status/revision")?);
        ask(&graph.into())?;
        run_command(self.site.kubectl(&["wait", "--for=condition=Accepted=False", PATIENCE, &topology]).stdout(Stdio::null()))?;
        let sent: BTreeSet<u64> = (0..self.next.load(Relaxed)).collect();
        ensure!(get("/status/revision")? == revision, "a graph that was refused is a revision");
        wait_every(LOOK_AGAIN, "what was sent beside a graph that is refused", SETTLE_LIMIT, || {
            Ok(sent.is_subset(&self.numbers("meet", "left")?).then_some(()))
        })?;
        ask(&good)?;
        run_command(self.site.kubectl(&["wait", "--for=condition=Accepted=True", PATIENCE, &topology]).stdout(Stdio::null()))
    }

    /// Each Deployment loses its pods, one Deployment after the other.
    fn lose_each_pod(&self) -> Result<()> {
        for part in self.site.parts(TOPOLOGY)? {
            run_command(self.site.kubectl(&["delete", "pod", "--selector", &part, "--wait=false"]).stdout(Stdio::null()))?;
        }
        Ok(())
    }

    fn roll_back(&self, more: &[&str]) -> Result<()> {
        let words = [&["rollback", TOPOLOGY, "--namespace", NAMESPACE, "--wait"], more].concat();
        run_command(self.site.leat(&folder(GRAPHS[0]), &words).stdout(Stdio::null()))
    }

    fn has_dispatcher(&self, edge: &str) -> Result<bool> {
        let selector = format!("--selector=leatworks.dev/topology={TOPOLOGY},app.kubernetes.io/component=dispatcher");
        let list = answer(&mut self.site.kubectl(&["get", "deployments", &selector, "--output=json"]))?;
        let items = list["items"].as_array().context("a list has items")?;
        Ok(items.iter().any(|item| item["metadata"]["annotations"]["leatworks.dev/edge"] == edge))
    }

    /// Sends the next numbers.
    fn send(&self) -> Result<()> {
        let from = self.next.load(Relaxed);
        let file = self.site.cluster.folder.join("numbers");
        std::fs::write(&file, (from..from + AT_ONCE).map(|number| format!("{number}\n")).collect::<String>())?;
        let file = file.display().to_string();
        run_command(self.site.leat(&folder(GRAPHS[0]), &["send", "diamond/enter", "--file", &file]).stdout(Stdio::null()))?;
        self.next.store(from + AT_ONCE, Relaxed);
        Ok(())
    }

    /// Does something while numbers are sent, one call after another.
    fn while_numbers_flow(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !done.load(Relaxed) {
                    let came = self.numbers("meet", "left")?.len();
                    if usize::try_from(self.next.load(Relaxed))? < came + WINDOW {
                        self.send()?;
                    } else {
                        std::thread::park_timeout(LOOK_AGAIN);
                    }
                }
                anyhow::Ok(())
            });
            let acted = act();
            done.store(true, Relaxed);
            let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            acted.and(sent)
        })
    }

    /// Which numbers a task has got by a way.
    fn numbers(&self, task: &str, way: &str) -> Result<BTreeSet<u64>> {
        let lines = self.results.lines()?;
        Ok(lines
            .iter()
            .filter(|line| line["task"] == task && line["way"] == way)
            .filter_map(|line| line["number"].as_u64())
            .collect())
    }

    /// How many lines there are of each task and way.
    fn counts(&self) -> Result<BTreeMap<(String, String), usize>> {
        let mut counts = BTreeMap::new();
        for line in self.results.lines()? {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            *counts.entry((text("task"), text("way"))).or_default() += 1;
        }
        Ok(counts)
    }

    /// A number may come to a task twice, but only as the same message.
    fn no_copies(&self) -> Result<()> {
        let mut ids = BTreeMap::new();
        for line in self.results.lines()? {
            let place = ["task", "way", "number"].map(|key| line[key].to_string());
            let id = ids.entry(place.clone()).or_insert_with(|| line["id"].clone());
            ensure!(*id == line["id"], "{place:?} came as two messages");
        }
        Ok(())
    }

    /// Waits until each number has come by the left way, and by the right one to whoever was there. Nothing may have been given up.
    fn settled(&self) -> Result<()> {
        let sent: BTreeSet<u64> = (0..self.next.load(Relaxed)).collect();
        let missing = || {
            let left = self.numbers("meet", "left")?;
            let mut right = self.numbers("meet", "right")?;
            right.extend(self.numbers("audit", "right")?);
            let of = |came: &BTreeSet<u64>| sent.difference(came).copied().collect::<Vec<_>>();
            anyhow::Ok([of(&left), of(&right)])
        };
        let settled = wait_every(LOOK_AGAIN, "the end of all numbers", SETTLE_LIMIT, || {
            Ok(missing()?.iter().all(Vec::is_empty).then_some(()))
        });
        let given_up: u64 =
            GRAPHS.iter().map(|graph| Ok(self.site.status(&folder(graph), TOPOLOGY)?.dead_letters)).sum::<Result<_>>()?;
        if settled.is_err() {
            // From the first to the last, and how many: whether a few are lost, or a way stands still.
            let outline = |all: &[u64]| format!("{} from {:?} to {:?}", all.len(), all.first(), all.last());
            let [left, right] = missing()?.map(|all| outline(&all));
            settled.with_context(|| {
                format!(
                    "of {} numbers there did not come by the left {left}, by the right {right}; {given_up} messages were given up",
                    sent.len()
                )
            })?;
        }
        ensure!(given_up == 0, "{given_up} messages were given up");
        Ok(())
    }
}

fn folder(graph: &str) -> PathBuf {
    Path::new(COPIES).join(graph)
}

/// Makes the copy of the project with this graph. It has the profile and the versions of this repository, so that what is built already can be used.
pub(crate) fn project(graph: &str) -> Result<PathBuf> {
    let (source, copy) = (Path::new(SOURCE), folder(graph));
    std::fs::create_dir_all(copy.join("src"))?;
    for file in ["build.rs", "Project.toml", "src/lib.rs", "src/tasks.rs"] {
        write(&copy.join(file), &read(&source.join(file))?)?;
    }
    write(&copy.join("diamond.toml"), &read(&source.join(format!("{graph}.toml")))?)?;
    let root = read(Path::new("Cargo.toml"))?;
    let profile = root.find("[profile.dev]").context("the profile of this repository")?;
    // What is said there of the showcase's binaries is said here of these.
    let profile = root[profile..].replace(".showcase]", ".diamond]");
    write(&copy.join("Cargo.toml"), &(read(&source.join("Cargo.toml"))? + &profile))?;
    // Cargo takes out of it what this project does not need.
    write(&copy.join("Cargo.lock"), &read(Path::new("Cargo.lock"))?)?;
    Ok(copy)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))
}

/// Leaves a file alone that holds this already, so that nothing is built for it.
fn write(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("writing `{}`", path.display()))
}
