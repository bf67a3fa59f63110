//! One edge of a topology, dispatched by a process of its own: the same dispatcher as in a run, with a worker behind HTTP as its handler.

use super::{DispatchError, Log, until};
use crate::{
    Counts,
    def::{EdgeDef, Kind},
    dispatch::{self, Closing, Edge},
    job,
    observe::Watch,
    plan::{Plan, TaskPlan},
    topics, worker,
};
use leatworks_broker::Broker;
use std::{future::Future, sync::Arc};
use tokio::task::JoinSet;

/// Dispatches one edge until `stop` resolves; then takes nothing more, lets the calls that are under way end, and settles them. `worker` is where
/// the task listens; a task that is an HTTP worker has an address of its own.
///
/// All topics and subscriptions of the topology are made first, unless the plan says not to, since what is published to a topic without a subscription is lost.
///
/// # Errors
/// See [`DispatchError`]. Nothing is lost: what was not settled is handled by the next dispatcher of this edge.
pub async fn run_edge(
    broker: Arc<dyn Broker>,
    plan: &Plan,
    edge: &'static EdgeDef,
    worker: Option<&str>,
    observer: Observer,
    stop: impl Future<Output = ()>,
) -> Result<(), DispatchError> {
    let Observer { counts, log, watch } = observer;
    let task = plan.task(edge.to).ok_or_else(|| DispatchError::Edge(format!("no task is called `{}`", edge.to)))?;
    let handler = match (address(task, worker).map_err(DispatchError::Edge)?, task.def.kind) {
        (Some(url), _) => worker::client_with(url, task.def, plan.topology, task.timeout, log).map_err(DispatchError::Handler)?,
        (None, Kind::Job(def)) => job::open(plan, task, &def).map_err(DispatchError::Handler)?,
        (None, _) => return Err(DispatchError::Edge(format!("nobody handles the messages of `{}`", edge.to))),
    };
    if plan.make_topics {
        topics::create_at(broker.as_ref(), &plan.topology.into(), plan.durability).await?;
    }
    // What a worker does is done outside of the broker's process, so it gets what is durable.
    let worker = worker.map(str::to_owned).or_else(|| task.worker.clone());
    let task = TaskPlan { eager: false, worker, ..task.clone() };
    let mut edge = Edge::new(broker.clone(), Some(handler), edge, &task, counts);
    edge.watch = watch.clone();
    edge.trace.clone_from(&plan.tracer);
    let edge = Arc::new(edge);
    let (close, closing) = Closing::new();
    let mut serving = JoinSet::new();
    serving.spawn(async move { dispatch::serve(edge, closing).await.map_err(DispatchError::Broker) });
    let looking = async {
        match &watch {
            Some(watch) => watch.look(broker.as_ref()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = until(serving, close, stop) => ended,
        () = looking => Ok(()),
    }
}

/// Who is told what the dispatcher of an edge does.
#[derive(Clone)]
pub struct Observer {
    /// What is counted.
    pub counts: Arc<Counts>,
    /// Who is told of each message that was handled.
    pub log: Option<Log>,
    /// Who watches how the dispatcher is.
    pub watch: Option<Arc<Watch>>,
}

impl Observer {
    /// One that only counts.
    pub fn new(counts: Arc<Counts>) -> Self {
        Self { counts, log: None, watch: None }
    }
}

/// Where the worker of a task listens; nowhere if it is a job that is run here.
fn address<'a>(task: &'a TaskPlan, worker: Option<&'a str>) -> Result<Option<&'a str>, String> {
    let name = task.def.name;
    match task.def.kind {
        Kind::Rust(_) => worker.map(Some).ok_or_else(|| {
            format!("`{name}` needs a worker: serve it by its binary, `{name} serve`, and say by `--worker` where it listens")
        }),
        Kind::Worker { url } => Ok(Some(worker.or(task.worker.as_deref()).unwrap_or(url))),
        Kind::Job(_) => Ok(worker.or(task.worker.as_deref())),
        Kind::Fold(_) => Err(format!("`{name}` is a fold, which keeps a state, so the run of its topology takes its messages")),
        Kind::Source => Err(format!("`{name}` passes on what its source reads, which the run of its topology does")),
        Kind::Sink(_) => Err(format!("`{name}` is a built-in sink, which the run of its topology serves")),
    }
}
