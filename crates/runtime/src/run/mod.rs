//! Runs a topology in this process: topics, dispatchers, folds and sources, until all is done or somebody stops it.

mod folds;
mod record;
mod report;
mod wait;

pub use report::{Counted, Report};

use crate::{
    TaskError, codec,
    counts::Counts,
    def::{EdgeDef, Kind},
    dispatch::{self, Closing, Edge},
    folding::{Finish, FoldError},
    handler::Handler,
    ids, job,
    plan::{Plan, TaskPlan},
    sink, source, topics, worker,
};
use leatworks_broker::{Broker, BrokerError, Publish, Step};
use record::Record;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// How long a stopped run may take to finish what is pending, unless it is told otherwise.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How long a stopped run waits for its tasks to let go. One that never awaits cannot be cancelled, and must not keep the process.
const LET_GO_LIMIT: Duration = Duration::from_secs(1);

/// How long dispatchers may take to end when nothing is pending: a commit that is under way, on a slow disk.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How a topology is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The input on the command line, in place of the `path` of the topology's `lines` or `jsonl` source; `-` is standard input.
    pub input: Option<String>,
    /// The message that a topology without a source is started with; without one it is `{}`. A run that goes on has been started already, and with no other.
    pub message: Option<serde_json::Value>,
    /// Go on when all is done, for messages that others send. Folds then give a result whenever all sources have ended and nothing upstream of them was pending for a
    /// second; what comes later is in another result.
    pub serve: bool,
    /// How long to finish what is pending after the first request to stop.
    pub drain_limit: Duration,
    /// Do not go on with an unfinished run: drop what is pending of it, and begin anew.
    pub fresh: bool,
    /// Leave the edges to Rust tasks and HTTP workers to dispatchers in other processes.
    pub elsewhere: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { input: None, message: None, serve: false, drain_limit: DRAIN_LIMIT, fresh: false, elsewhere: false }
    }
}

/// How much a run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    Run,
    /// Take nothing in any more, finish what is pending, within the limit.
    Drain,
    /// At once. Nothing is lost: what is unsettled is delivered again by the next run.
    Now,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The broker failed.
    #[error("the broker failed: {0}")]
    Broker(#[from] BrokerError),
    /// The topology cannot run as it is configured.
    #[error("{0}")]
    Config(String),
    /// An unfinished run is in the way.
    #[error("{0}")]
    Conflict(String),
    /// A task could not be started.
    #[error("starting task `{task}`: {error}")]
    Start {
        /// The task.
        task: &'static str,
        /// Why.
        error: TaskError,
    },
    /// A source failed.
    #[error("source of task `{task}`: {error}")]
    Source {
        /// The task.
        task: &'static str,
        /// Why.
        error: String,
    },
    /// A fold failed.
    #[error("{0}")]
    Fold(String),
    /// Nobody reads what a sink writes to standard output any more.
    #[error("nobody reads standard output any more")]
    OutputClosed,
}

impl From<FoldError> for RunError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Broker(error) => Self::Broker(error),
            other => Self::Fold(other.to_string()),
        }
    }
}

/// Runs a topology until all sources have ended and nothing is pending, or until it is stopped.
///
/// # Errors
/// See [`RunError`]. Whatever the error, nothing is lost: the next run goes on where this one was.
pub async fn run(
    broker: Arc<dyn Broker>,
    plan: Plan,
    options: RunOptions,
    counts: Arc<Counts>,
    stop: watch::Receiver<Stop>,
) -> Result<Report, RunError> {
    Prepared::new(broker, plan, options, counts, stop).await?.run().await
}

/// A run that can begin: its topics are there, and what an earlier run has left is taken up or dropped.
pub(crate) struct Prepared {
    run: Run,
    started: Instant,
}

impl Prepared {
    pub(crate) async fn new(
        broker: Arc<dyn Broker>,
        plan: Plan,
        options: RunOptions,
        counts: Arc<Counts>,
        stop: watch::Receiver<Stop>,
    ) -> Result<Self, RunError> {
        let started = Instant::now();
        topics::create_at(broker.as_ref(), &plan.topology.into(), plan.durability).await?;
        Ok(Self { run: Run::open(broker, plan, options, counts, stop).await?, started })
    }

    /// As [`run`] does.
    pub(crate) async fn run(self) -> Result<Report, RunError> {
        let Self { mut run, started } = self;
        let (mut stop, drain_limit) = (run.stop.clone(), run.options.drain_limit);
        let open = tokio::select! {
            open = run.start() => { open?; true }
            () = wait::stopped(&mut stop, drain_limit) => false,
        };
        if open {
            run.drive().await?;
        }
        run.report(started).await
    }
}

/// Whether another process can dispatch to a task: it is called over HTTP or started there, and keeps nothing of the topology's.
pub(crate) fn is_remote(task: &TaskPlan) -> bool {
    matches!(task.def.kind, Kind::Rust(_) | Kind::Worker { .. } | Kind::Job(_))
}

/// One run in this process.
struct Run {
    broker: Arc<dyn Broker>,
    plan: Plan,
    options: RunOptions,
    counts: Arc<Counts>,
    stop: watch::Receiver<Stop>,
    record: Record,
    /// Tells dispatchers and folds to end.
    closing: (watch::Sender<bool>, Closing),
    /// Dispatchers and folds: until they are told to end they do so by an error only.
    serving: JoinSet<Result<(), RunError>>,
    sources: JoinSet<Result<(), RunError>>,
    folds: BTreeMap<&'static str, mpsc::Sender<Finish>>,
}

impl Run {
    async fn open(
        broker: Arc<dyn Broker>,
        mut plan: Plan,
        options: RunOptions,
        counts: Arc<Counts>,
        stop: watch::Receiver<Stop>,
    ) -> Result<Self, RunError> {
        // What cannot be read is found before anything is dropped or recorded.
        if let Some(input) = &options.input {
            source::override_input(&mut plan, input).map_err(RunError::Config)?;
        }
        if options.fresh {
            let dropped = record::abandon(broker.as_ref(), plan.topology).await?;
            if dropped > 0 {
                tracing::warn!(
                    topology = plan.topology.name,
                    dropped,
                    "messages that were pending are dropped unhandled, as `--fresh` asks for; the account takes them for done"
                );
            }
        }
        let (mut record, resumed) = Record::open(broker.as_ref(), plan.topology, options.input.as_deref()).await?;
        if resumed {
            tracing::info!(topology = plan.topology.name, run = record.run, "an unfinished run goes on");
            if record.input != options.input && !record.has_begun(broker.as_ref(), plan.topology).await? {
                record.input.clone_from(&options.input);
                let state = vec![record.entry(plan.topology.name)];
                dispatch::commit(broker.as_ref(), Step { state, ..Step::default() }).await?;
            }
            if record.input != options.input {
                let name = |input: &Option<String>| input.clone().unwrap_or_else(|| "its configured source".to_owned());
                return Err(RunError::Conflict(format!(
                    "an unfinished run of `{}` reads {}, not {}: let it finish by running it with the same input, or drop it by `--fresh`",
                    plan.topology.name,
                    name(&record.input),
                    name(&options.input),
                )));
            }
        }
        Ok(Self {
            broker,
            plan,
            options,
            counts,
            stop,
            record,
            closing: Closing::new(),
            serving: JoinSet::new(),
            sources: JoinSet::new(),
            folds: BTreeMap::new(),
        })
    }

    /// Opens the tasks, then starts the dispatchers, then the sources.
    async fn start(&mut self) -> Result<(), RunError> {
        for task in self.plan.tasks.clone() {
            if self.options.elsewhere && is_remote(&task) {
                continue;
            }
            let edges: Vec<&'static EdgeDef> = self.plan.topology.edges.iter().filter(|edge| edge.to == task.def.name).collect();
            if let Kind::Fold(open) = task.def.kind {
                let handler =
                    open(&self.plan.setup(&task)).await.map_err(|error| RunError::Start { task: task.def.name, error })?;
                self.start_fold(&task, &edges, handler);
                continue;
            }
            let handler = open_handler(&self.plan, &task).await?;
            for edge in edges {
                let mut edge = Edge::new(self.broker.clone(), Some(handler.clone()), edge, &task, self.counts.clone());
                edge.trace.clone_from(&self.plan.tracer);
                let closing = self.closing.1.clone();
                self.serving.spawn(async move { Ok(dispatch::serve(Arc::new(edge), closing).await?) });
            }
        }
        let roots: Vec<TaskPlan> = self.plan.tasks.iter().filter(|task| task.source.is_some()).cloned().collect();
        if roots.is_empty() && !self.options.serve {
            self.send_start_message().await?;
        }
        for task in roots {
            let (broker, counts, stop) = (self.broker.clone(), self.counts.clone(), self.stop.clone());
            let feed = source::Feed::new(broker, &self.plan, &task, self.record.run_id(), counts, stop)
                .map_err(|error| RunError::Config(error.to_string()))?;
            let name = task.def.name;
            self.sources.spawn(async move {
                source::run(feed, &task).await.map_err(|error| match error {
                    source::SourceError::Broker(error) => RunError::Broker(error),
                    other => RunError::Source { task: name, error: other.to_string() },
                })
            });
        }
        Ok(())
    }

    /// Sends the one message that starts a topology without a source; once per run, also if it is killed in between.
    async fn send_start_message(&mut self) -> Result<(), RunError> {
        let message = self.options.message.clone();
        let asked = message.as_ref().map(record::digest);
        let message = message.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
        if self.record.started {
            return match self.record.message.zip(asked) {
                Some((sent, asked)) if sent != asked => Err(RunError::Conflict(format!(
                    "an unfinished run of `{}` was started with another message: let it finish by running it without `--message`, or drop it by `--fresh`",
                    self.plan.topology.name
                ))),
                _ => Ok(()),
            };
        }
        let mut roots = self.plan.topology.edges.iter().filter(|edge| edge.from.is_none());
        let (Some(ingress), None) = (roots.next(), roots.next()) else {
            return Err(RunError::Config(format!(
                "`{}` has several roots and no source: run it with `--serve` and send messages to them",
                self.plan.topology.name
            )));
        };
        let codec = self.plan.topology.codec;
        let payload = codec::encode(codec, &message).map_err(|error| RunError::Config(error.to_string()))?;
        self.record.started = true;
        self.record.message = Some(record::digest(&message));
        self.counts.roots.fetch_add(1, Relaxed);
        // Where the message may be there without the word that it is, a second one is dropped by its number.
        let sequence = (!self.broker.promises().atomic_step).then(|| (format!("start/{}", self.record.run).into(), 0));
        let step = Step {
            publishes: vec![Publish {
                topic: ingress.topic.into(),
                message: ids::new_root(payload, codec, None).into(),
                sequence,
            }],
            state: vec![self.record.entry(self.plan.topology.name)],
            ..Step::default()
        };
        Ok(dispatch::commit(self.broker.as_ref(), step).await?)
    }

    /// Waits until all is done, or the run is stopped, or something fails.
    async fn drive(&mut self) -> Result<(), RunError> {
        let mut stop = self.stop.clone();
        let mut serving = std::mem::take(&mut self.serving);
        let drain_limit = self.options.drain_limit;
        let console = self.plan.console.clone();
        let result = tokio::select! {
            result = self.until_done() => match result {
                Ok(()) => self.close(&mut serving).await,
                failed => failed,
            },
            error = first_failure(&mut serving) => Err(error),
            () = console.closed() => Err(RunError::OutputClosed),
            () = wait::stopped(&mut stop, drain_limit) => Ok(()),
        };
        // Consumers go with their dispatchers, and give back what they hold.
        serving.abort_all();
        self.sources.abort_all();
        let let_go = async {
            serving.shutdown().await;
            self.sources.shutdown().await;
        };
        if tokio::time::timeout(LET_GO_LIMIT, let_go).await.is_err() {
            tracing::warn!("a task does not let go; what it holds is handled by the next run");
        }
        result
    }

    /// Lets the dispatchers settle and count what they have handled: the broker may show a message as settled a moment before that.
    async fn close(&self, serving: &mut JoinSet<Result<(), RunError>>) -> Result<(), RunError> {
        self.closing.0.send_replace(true);
        let ended = async {
            while let Some(ended) = serving.join_next().await {
                ended.map_err(|error| RunError::Fold(format!("a dispatcher ended: {error}")))??;
            }
            Ok(())
        };
        tokio::time::timeout(CLOSE_MAX, ended).await.unwrap_or(Ok(()))
    }

    async fn until_done(&mut self) -> Result<(), RunError> {
        while let Some(ended) = self.sources.join_next().await {
            ended.map_err(|error| RunError::Source { task: "unknown", error: error.to_string() })??;
        }
        let stopped = |stop: &watch::Receiver<Stop>| *stop.borrow() != Stop::Run;
        if self.options.serve {
            self.go_on().await?;
        }
        let all: Vec<_> = self.plan.topology.edges.iter().collect();
        loop {
            if !stopped(&self.stop) {
                self.finish_folds().await?;
            }
            wait::drained(self.broker.as_ref(), &all).await?;
            // What was sent or redriven after a fold gave its result is in another result.
            if stopped(&self.stop) || !self.have_folded().await? {
                break;
            }
        }
        if !stopped(&self.stop) {
            self.record.ended = true;
            let step = Step { state: vec![self.record.entry(self.plan.topology.name)], ..Step::default() };
            dispatch::commit(self.broker.as_ref(), step).await?;
        }
        Ok(())
    }

    async fn report(&self, started: Instant) -> Result<Report, RunError> {
        let topology = self.plan.topology;
        if !self.broker.promises().accounts {
            let backlogs = topics::backlogs(self.broker.as_ref(), topology.edges).await?;
            return Ok(Report::without_account(topology.name, &self.counts, backlogs, started.elapsed()));
        }
        let account = self.record.share(self.broker.account(topology.name).await?);
        Ok(Report::new(topology.name, account, &self.counts, started.elapsed()))
    }
}

async fn first_failure(serving: &mut JoinSet<Result<(), RunError>>) -> RunError {
    loop {
        match serving.join_next().await {
            Some(Ok(Err(error))) => return error,
            Some(Ok(Ok(()))) => {}
            Some(Err(error)) => return RunError::Fold(format!("a dispatcher ended: {error}")),
            None => std::future::pending::<()>().await,
        }
    }
}

/// The handler of a task that is no fold.
pub(crate) async fn open_handler(plan: &Plan, task: &TaskPlan) -> Result<Arc<dyn Handler>, RunError> {
    let failed = |error| RunError::Start { task: task.def.name, error };
    match task.def.kind {
        Kind::Rust(open) => open(&plan.setup(task)).await.map_err(failed),
        Kind::Worker { url } => {
            worker::client(task.worker.as_deref().unwrap_or(url), task.def, plan.topology, task.timeout).map_err(failed)
        }
        Kind::Job(def) => match task.worker.as_deref() {
            Some(url) => worker::client(url, task.def, plan.topology, task.timeout).map_err(failed),
            None => job::open(plan, task, &def).map_err(failed),
        },
        Kind::Source => Ok(Arc::new(source::PassThrough::new(task.def))),
        Kind::Sink(sink) => {
            let sink = task.sink.clone().unwrap_or_else(|| crate::plan::Builtin::new(&sink));
            sink::open(&sink, &plan.console).await.map_err(failed)
        }
        Kind::Fold(_) => Err(failed(TaskError::permanent("a fold has no handler of single messages"))),
    }
}
