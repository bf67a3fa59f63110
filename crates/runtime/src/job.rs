//! Tasks of kind `job`: a program is started for each message, as a process of this machine.

use crate::{
    Cause, Codec, Context, TaskError, codec,
    config::JobsConfig,
    def::{JobDef, TaskDef, TopologyDef},
    handler::{self, Handler, Output},
    plan::{Plan, TaskPlan},
    routes::Routes,
};
use leatworks_broker::{BoxFuture, Message, MessageId};
use leatworks_jobs::{Commit, Declared, Executor, FILES_KEY, FileRef, Job, JobError, Process, Spec, Store};
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};
use tokio::task::{JoinError, JoinHandle};

/// How long an attempt may take beyond the time of its worker: to copy files, and to write down what has become of it.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The property of a message that names the one in whose handling it was made. Only topologies with jobs have it, and those that are traced.
pub(crate) const PARENT: &str = "parent";

/// The message in whose handling this one was made, if it says so.
pub(crate) fn parent(message: &Message) -> Option<MessageId> {
    message.properties.iter().find(|(name, _)| name == PARENT).and_then(|(_, parent)| parent.parse().ok())
}

/// What says it on a message.
pub(crate) fn parents(parent: Option<MessageId>) -> Vec<(String, String)> {
    parent.map(|parent| (PARENT.to_owned(), parent.to_string())).into_iter().collect()
}

/// How often old files are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// The handler of a job, which runs it as a process of this machine.
///
/// # Errors
/// If the place of files cannot be opened, or the job cannot run here.
pub(crate) fn open(plan: &Plan, task: &TaskPlan, def: &JobDef) -> Result<Arc<dyn Handler>, TaskError> {
    let (store, process, spec) = parts(&plan.jobs, def)?;
    let sweeper = tokio::spawn(sweep(store, plan.jobs.clone()));
    let executor: Arc<dyn Executor> = Arc::new(process);
    let adapt = Adapt::new(task.def, plan.topology, spec, task.timeout);
    Ok(Arc::new(JobTask { executor, adapt, sweeper }))
}

/// The handler of a job that somebody else runs, which keeps its files at this place.
pub(crate) fn open_far(
    task: &'static TaskDef,
    topology: &'static TopologyDef,
    spec: Spec,
    executor: Arc<dyn Executor>,
    store: Store,
    keep: Duration,
) -> Arc<dyn Handler> {
    let sweeper = tokio::spawn(async move {
        loop {
            swept(store.sweep(keep).await, Ok(Ok(0)), keep);
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    });
    Arc::new(JobTask { executor, adapt: Adapt::new(task, topology, spec, task.timeout), sweeper })
}

/// Whether a job can run here.
///
/// # Errors
/// What is missing.
pub(crate) fn check(plan: &Plan, def: &JobDef) -> Result<(), TaskError> {
    parts(&plan.jobs, def).map(drop)
}

fn parts(jobs: &JobsConfig, def: &JobDef) -> Result<(Store, Process, Spec), TaskError> {
    let spec = Spec::parse(def.options).map_err(|error| TaskError::permanent(format!("its table `job`: {error}")))?;
    let store = Store::open(&jobs.files).map_err(task_error)?;
    let process = Process::new(store.clone(), &jobs.work, &jobs.project);
    process.check(&spec).map_err(task_error)?;
    Ok((store, process, spec))
}

/// Removes what is older than it is to be kept, now and then.
async fn sweep(store: Store, jobs: JobsConfig) {
    loop {
        let process = Process::new(store.clone(), &jobs.work, &jobs.project);
        let keep = jobs.keep;
        let folders = tokio::task::spawn_blocking(move || process.sweep(keep)).await;
        swept(store.sweep(keep).await, folders, keep);
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

fn swept(objects: Result<usize, JobError>, folders: Result<io::Result<usize>, JoinError>, keep: Duration) {
    match (objects, folders) {
        (Ok(0), Ok(Ok(0))) => {}
        (Ok(objects), Ok(Ok(folders))) => tracing::info!(objects, folders, ?keep, "old files of jobs are removed"),
        (objects, folders) => tracing::warn!(?objects, ?folders, "old files of jobs cannot be removed"),
    }
}

struct JobTask {
    executor: Arc<dyn Executor>,
    adapt: Adapt,
    sweeper: JoinHandle<()>,
}

impl Drop for JobTask {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl Handler for JobTask {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let job = self.adapt.job(message, cx)?;
            let commit = self.executor.execute(&job).await.map_err(task_error)?;
            self.adapt.outputs(commit)
        })
    }
}

/// Turns messages into jobs, and what jobs have committed into outputs.
struct Adapt {
    task: &'static TaskDef,
    spec: Spec,
    routes: Routes,
    declared: Declared,
    deadline: Duration,
}

impl Adapt {
    fn new(task: &'static TaskDef, topology: &'static TopologyDef, spec: Spec, deadline: Duration) -> Self {
        let routes = Routes::new(task, topology);
        let names = routes.names().into_iter().map(str::to_owned).collect();
        let declared = Declared { routes: task.routes.len(), names };
        Self { task, spec, routes, declared, deadline }
    }

    fn job(&self, message: &Message, cx: &Context) -> Result<Job, TaskError> {
        let mut data: Value = match message.codec {
            Codec::Json => handler::decode_borrowed(&message.payload)?,
            Codec::MessagePack => handler::decode(message.codec, &message.payload)?,
        };
        Ok(Job {
            topology: cx.topology().to_owned(),
            task: cx.task().to_owned(),
            edge: cx.edge().to_owned(),
            message: message.id.to_string(),
            root: message.root.to_string(),
            parent: cx.parent_id().map(|parent| parent.to_string()),
            attempt: cx.attempt(),
            key: message.key.clone(),
            traceparent: cx.traceparent(),
            files: files(&mut data)?,
            data,
            declared: self.declared.clone(),
            deadline: self.deadline,
            spec: self.spec.clone(),
        })
    }

    fn outputs(&self, commit: Commit) -> Result<Vec<Output>, TaskError> {
        let output = |event: leatworks_jobs::Committed| {
            let payload = codec::encode(self.task.codec, &event.payload).map_err(TaskError::permanent)?;
            Ok(Output { route: self.routes.find(event.kind.as_deref())?, topic: None, key: event.key, payload })
        };
        commit.events.into_iter().map(output).collect()
    }
}

/// Takes the files of a message out of its payload.
fn files(data: &mut Value) -> Result<Vec<FileRef>, TaskError> {
    let Some(files) = data.as_object_mut().and_then(|object| object.remove(FILES_KEY)) else { return Ok(Vec::new()) };
    serde_json::from_value(files)
        .map_err(|error| TaskError::with_cause(Cause::Undecodable, format!("`{FILES_KEY}` of the message: {error}")))
}

pub(crate) fn task_error(error: JobError) -> TaskError {
    let cause = match error.cause {
        leatworks_jobs::Cause::Permanent => Cause::Permanent,
        leatworks_jobs::Cause::Timeout => Cause::Timeout,
        // Whoever reads the dead letter finds in its text what it was.
        _ => Cause::Error,
    };
    TaskError::with_cause(cause, error)
}
