//! A dispatcher that runs by itself, without a project: takes tasks `{"type", "task"}` from topics, calls the HTTP worker of their type, and publishes what it
//! answers, `{"tasks": […]}`, each to the topic that its type names.
//!
//! The form of messages, answers and of `dispatcher.toml` is Trampoline's. Unlike there, a task is acknowledged together with what came of it, a failure is tried again,
//! and what cannot be handled goes to the dead letters.

mod edge;
mod select;
mod settings;
mod submit;

pub use crate::handled::{Handled, Log};
pub use edge::{Observer, run_edge};
pub use settings::{HandlerSettings, Settings, SettingsError};

use crate::{
    Codec, TaskError,
    counts::Counts,
    def::{Drawings, EdgeDef, Kind, TaskDef, TopologyDef},
    dispatch::{self, Closing, Edge},
    plan::TaskPlan,
    topics::DEAD_LETTER_SUBSCRIPTION,
    worker::{Bound, Endpoint},
};
use leatworks_broker::{Broker, BrokerError};
use select::{Select, make};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use submit::Submit;
use tokio::{sync::watch, task::JoinSet};

/// What the dispatcher calls itself where a topology is named, such as in the headers of a call.
const NAME: &str = "dispatcher";

/// How long calls that are under way may take when the dispatcher ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Why a dispatcher could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The broker failed.
    #[error("the broker failed: {0}")]
    Broker(#[from] BrokerError),
    /// A handler cannot be called.
    #[error("{0}")]
    Handler(TaskError),
    /// The edge is not one that a dispatcher by itself can serve.
    #[error("{0}")]
    Edge(String),
    /// Tasks cannot be taken over HTTP.
    #[error("serving HTTP: {0}")]
    Http(std::io::Error),
}

/// Dispatches until `stop` resolves; then takes nothing more, lets the calls that are under way end, and settles them. `log` is told of each message that was handled.
///
/// # Errors
/// See [`DispatchError`]. Nothing is lost: what was not settled is handled by the next dispatcher.
pub async fn run(
    broker: Arc<dyn Broker>,
    settings: &Settings,
    http: Option<Bound>,
    log: impl Fn(&Handled<'_>) + Send + Sync + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), DispatchError> {
    let log: Log = Arc::new(log);
    let topology = topology(settings);
    for edge in topology.edges {
        make(broker.as_ref(), edge.topic, edge.subscription).await?;
        make(broker.as_ref(), edge.retry_topic, edge.subscription).await?;
        make(broker.as_ref(), edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION).await?;
    }
    let handlers =
        settings.handlers.iter().map(|handler| Ok((handler.kind.clone(), Endpoint::new(&handler.endpoint, settings.timeout)?)));
    let topics = settings.topics.iter().map(|topic| (topic.clone(), topic.as_str().into()));
    let select = Arc::new(Select {
        broker: broker.clone(),
        subscription: settings.subscription.clone(),
        handlers: handlers.collect::<Result<_, TaskError>>().map_err(DispatchError::Handler)?,
        topics: Mutex::new(topics.collect::<HashMap<_, _>>()),
        log,
    });
    let counts = Arc::new(Counts::new(topology));
    let (close, closing) = Closing::new();
    let mut serving = JoinSet::new();
    for (edge, task) in topology.edges.iter().zip(topology.tasks) {
        let plan = TaskPlan::new(task);
        let edge = Edge::new(broker.clone(), Some(select.clone()), edge, &plan, counts.clone());
        let closing = closing.clone();
        serving.spawn(async move { dispatch::serve(Arc::new(edge), closing).await.map_err(DispatchError::Broker) });
    }
    if let Some(bound) = http {
        let kinds = settings.topics.iter().chain(settings.handlers.iter().map(|handler| &handler.kind)).cloned().collect();
        let router = submit::router(Arc::new(Submit { select, kinds }));
        let mut closing = closing.clone();
        serving.spawn(async move {
            let ended = bound.serve_router(router, async move { closing.asked().await }).await;
            ended.map_err(DispatchError::Http)
        });
    }
    until(serving, close, stop).await
}

/// Goes on until `stop` resolves or something fails; then lets what is under way end, within the limit.
async fn until(
    mut serving: JoinSet<Result<(), DispatchError>>,
    close: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) -> Result<(), DispatchError> {
    tokio::select! {
        // Before it is told to, none of them ends but by an error.
        Some(ended) = serving.join_next() => return flatten(ended),
        () = stop => {}
    }
    close.send_replace(true);
    let ended = async {
        while let Some(ended) = serving.join_next().await {
            flatten(ended)?;
        }
        Ok(())
    };
    // Whatever takes longer is called again by the next dispatcher.
    tokio::time::timeout(DRAIN_LIMIT, ended).await.unwrap_or(Ok(()))
}

fn flatten(ended: Result<Result<(), DispatchError>, tokio::task::JoinError>) -> Result<(), DispatchError> {
    match ended {
        Ok(ended) => ended,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

/// One task and one edge for each topic. They live as long as the process, which has one dispatcher.
fn topology(settings: &Settings) -> &'static TopologyDef {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let subscription = leak(settings.subscription.clone());
    let task = |topic: &String| -> &'static TaskDef {
        Box::leak(Box::new(TaskDef {
            project: NAME,
            topology: NAME,
            name: leak(topic.clone()),
            version: env!("CARGO_PKG_VERSION"),
            codec: Codec::Json,
            kind: Kind::Source,
            retry: settings.retry,
            timeout: settings.timeout,
            parallelism: settings.parallelism,
            source: None,
            routes: &[],
            ends: &[],
        }))
    };
    let tasks: Vec<&'static TaskDef> = settings.topics.iter().map(task).collect();
    let edges: Vec<EdgeDef> = tasks
        .iter()
        .map(|task| EdgeDef {
            id: task.name,
            // No way into a topology: an envelope stays whole.
            from: Some(NAME),
            to: task.name,
            label: None,
            topic: task.name,
            subscription,
            retry_topic: leak(format!("{}-{subscription}-RETRY", task.name)),
            dead_letter_topic: leak(format!("{}-{subscription}-DLQ", task.name)),
        })
        .collect();
    Box::leak(Box::new(TopologyDef {
        name: NAME,
        project: NAME,
        version: env!("CARGO_PKG_VERSION"),
        description: "",
        codec: Codec::Json,
        tasks: Vec::leak(tasks),
        edges: Vec::leak(edges),
        drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
    }))
}
