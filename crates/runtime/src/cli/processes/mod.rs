//! `run --processes`: a process for each task and for each edge. The run itself is their parent: it has the broker, the sources, the folds and the built-in sinks.
//!
//! A worker's socket belongs to the parent, which hands it to the worker as its standard input: while a worker is away its callers wait, and nobody else can take its
//! port. Dispatchers reach an embedded broker over the Pulsar protocol, at ports that only this machine reaches and with a token that only the children know.

mod child;
mod lines;
mod share;
mod tie;

pub(super) use tie::tie;

use super::{
    Common,
    exit::{Failure, INTERNAL, INVALID},
    output,
};
use crate::{
    Counts,
    config::Config,
    counts::EdgeTally,
    def::{EdgeDef, Kind},
    plan::Plan,
    run::{self, Stop},
};
use child::{Child, Order};
use leatworks_broker::Broker;
use share::Share;
use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// The children of a run.
pub(super) struct Processes {
    workers: JoinSet<()>,
    dispatchers: JoinSet<()>,
    orders: [watch::Sender<Order>; 2],
    failures: mpsc::Receiver<Failure>,
    share: Option<Share>,
}

/// What all children are started with.
struct Family<'a> {
    common: &'a Common,
    config: &'a Config,
    stop: watch::Receiver<Stop>,
    failures: mpsc::Sender<Failure>,
}

impl Processes {
    /// Starts a worker for each Rust task, and a dispatcher for each edge to a Rust task or an HTTP worker. The topics are there.
    pub(super) async fn start(
        common: &Common,
        config: &Config,
        plan: &Plan,
        broker: &Arc<dyn Broker>,
        counts: &Arc<Counts>,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::new(INTERNAL, format!("finding this program: {error}")))?;
        let tasks: Vec<_> = plan.tasks.iter().filter(|task| run::is_remote(task)).collect();
        let binaries: Vec<(&'static str, PathBuf)> = tasks
            .iter()
            .filter(|task| matches!(task.def.kind, Kind::Rust(_)))
            .map(|task| Ok((task.def.name, beside(&own, task.def.name)?)))
            .collect::<Result<_, Failure>>()?;
        let share = if config.is_pulsar() { None } else { Some(Share::start(broker).await?) };
        let env = share.as_ref().map_or_else(|| vec![("LEAT_BROKER__URL", config.pulsar.url.clone())], |share| share.env.clone());
        // One is enough: the first failure ends the run.
        let (failed, failures) = mpsc::channel(1);
        let family = Family { common, config, stop: stop.clone(), failures: failed };
        let orders = [watch::Sender::new(Order::Go), watch::Sender::new(Order::Go)];
        let (mut workers, mut dispatchers) = (JoinSet::new(), JoinSet::new());
        let mut urls = Vec::new();
        for (task, program) in binaries {
            let listen = |error| Failure::new(INTERNAL, format!("listening for `{task}` on this machine: {error}"));
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(listen)?;
            urls.push((task, format!("http://{}", socket.local_addr().map_err(listen)?)));
            let mut child = family.child(task.to_owned(), program, &["serve", "--inherit"]);
            child.socket = Some(socket);
            child.told = Some(Arc::new(|line| line == Some(SERVING)));
            workers.spawn(child.keep(orders[0].subscribe()));
        }
        for edge in plan.topology.edges.iter().filter(|edge| tasks.iter().any(|task| task.def.name == edge.to)) {
            let mut child = family.child(edge.id.to_owned(), own.clone(), &["dispatch", edge.id]);
            if let Some((_, url)) = urls.iter().find(|(task, _)| *task == edge.to) {
                child.args.extend(["--worker".into(), url.into()]);
            }
            // Workers are not told: they see no broker, and may start programs of their own.
            child.env.clone_from(&env);
            child.told = Some(counting(counts.clone(), edge));
            dispatchers.spawn(child.keep(orders[1].subscribe()));
        }
        if !common.quiet {
            let (tasks, edges) = (workers.len(), dispatchers.len());
            output::tell(&format!("{:>12} {tasks} workers and {edges} dispatchers, each a process", "Started"));
        }
        Ok(Self { workers, dispatchers, orders, failures, share })
    }

    /// Resolves when a child cannot be kept alive.
    pub(super) async fn failed(&mut self) -> Failure {
        match self.failures.recv().await {
            Some(failure) => failure,
            // All have ended, and none has failed.
            None => std::future::pending().await,
        }
    }

    /// Has all end: the dispatchers when what they have in hand is settled, then the workers, then what serves the broker.
    pub(super) async fn end(mut self) {
        for (order, children) in [(&self.orders[1], &mut self.dispatchers), (&self.orders[0], &mut self.workers)] {
            order.send_replace(Order::End);
            while children.join_next().await.is_some() {}
        }
        if let Some(share) = self.share.take() {
            share.end().await;
        }
    }
}

impl Family<'_> {
    fn child(&self, name: String, program: PathBuf, args: &[&str]) -> Child {
        let mut all: Vec<std::ffi::OsString> = args.iter().map(Into::into).collect();
        all.extend(["--child-of".into(), std::process::id().to_string().into()]);
        all.extend(["--data".into(), self.config.data.clone().into()]);
        if self.common.quiet {
            all.push("--quiet".into());
        }
        all.extend((0..self.common.verbose).map(|_| "--verbose".into()));
        Child {
            name,
            program,
            args: all,
            env: Vec::new(),
            socket: None,
            told: None,
            stop: self.stop.clone(),
            failures: self.failures.clone(),
        }
    }
}

/// What a worker says on standard output to who has started it, when it takes calls.
const SERVING: &str = "leat: serving";

/// Tells who has started this process, if it is a child, that it takes calls from now on.
pub(super) fn is_serving(common: &Common) {
    if common.child_of.is_some() {
        // If nobody reads it, the process is about to be ended with who has started it.
        let _ = writeln!(std::io::stdout(), "{SERVING}");
    }
}

/// The binary of a task, which lies beside that of its topology.
fn beside(own: &Path, task: &str) -> Result<PathBuf, Failure> {
    let path = own.with_file_name(format!("{task}{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        return Ok(path);
    }
    let text = format!(
        "the binary of task `{task}` is not at `{}`: build all of the project, by `leat build` or `cargo build`",
        path.display()
    );
    Err(Failure::new(INVALID, text))
}

/// Takes a line in which a dispatcher tells its counters. A new process begins at zero.
fn counting(counts: Arc<Counts>, edge: &'static EdgeDef) -> child::Told {
    let before = Mutex::new(EdgeTally::default());
    Arc::new(move |line| {
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match line {
            Some(line) => match serde_json::from_str(line) {
                Ok(now) => now,
                Err(_) => return false,
            },
            None => EdgeTally::default(),
        };
        counts.add(edge, &before, &now);
        *before = now;
        true
    })
}
