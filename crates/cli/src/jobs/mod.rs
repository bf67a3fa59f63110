//! `leat jobs`: what runs jobs on a cluster. People need none of it; the controller starts the adapter, and the adapter's Jobs start the rest.

use crate::exit::{Code, Doing, Failure, Result};
use clap::{Args, Subcommand, ValueHint};
use leatworks::{
    config::{Config, Flags},
    def::{Codec, Drawings, EdgeDef, JobDef, Kind, Retry, RouteDef, TaskDef, TopologyDef},
    log_json,
    worker::{JobServer, ServeError, bind, serve_job},
};
use leatworks_jobs::{
    Adapter, Cause, JobError, Store,
    kubernetes::{self, Kubernetes},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The name under which the configuration looks for a data folder, which nothing here uses.
const PROJECT: &str = "jobs";

/// What is logged where `LEAT_LOG` says nothing.
const LEVEL: &str = "info";

#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// Serve a task of kind `job` as a worker that makes a Kubernetes Job for each message
    ///
    /// Runs in the cluster, with a service account that may create, get, list and delete Jobs, list pods, and get their logs.
    #[command(after_help = "Examples:\n  leat jobs serve --config job.json --listen 0.0.0.0:8080 --allow-remote")]
    Serve(Serve),
    /// Lay a message out for its program: the first container of a Job
    #[command(hide = true)]
    Prepare(Inside),
    /// Take what a program has left: the last container of a Job
    #[command(hide = true)]
    Commit(Inside),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The file in which the controller says what is served
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Listen where other machines reach it, though it asks nobody who they are
    #[arg(long)]
    allow_remote: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inside {
    /// The key of the job in the store
    #[arg(long, env = kubernetes::JOB_KEY, value_name = "KEY")]
    job: String,
    /// The id of the pod
    #[arg(long, env = kubernetes::POD, value_name = "ID", default_value = "")]
    pod: String,
}

pub(crate) fn run(jobs: &Jobs) -> Result<ExitCode> {
    let config = Config::load(PROJECT, &Flags::default()).map_err(|error| Failure::new(Code::Invalid, error))?.jobs;
    let store = Store::open(&config.files).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        match jobs {
            Jobs::Serve(args) => serve(args, store, config.keep).await,
            Jobs::Prepare(args) => {
                log_json(LEVEL, &[("job", &args.job)]);
                kubernetes::prepare(&store, &args.job).await.map_err(failed)
            }
            Jobs::Commit(args) => {
                log_json(LEVEL, &[("job", &args.job)]);
                kubernetes::commit(&store, &args.job, &args.pod).await.map_err(failed)
            }
        }
    });
    // A call that never answers must not keep the process.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

fn failed(error: JobError) -> Failure {
    let code = if error.cause == Cause::Permanent { Code::Invalid } else { Code::Unreachable };
    Failure::new(code, error)
}

async fn serve(args: &Serve, store: Store, keep: Duration) -> Result {
    let text = std::fs::read(&args.config).doing(|| format!("reading `{}`", args.config.display()))?;
    let adapter: Adapter = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Code::Invalid, format!("`{}`: {error}", args.config.display())))?;
    log_json(LEVEL, &[("topology", &adapter.topology), ("task", &adapter.task)]);
    let connected = leatworks_controller::connect(None).await?;
    let (topology, task) = definition(&adapter);
    let executor = Kubernetes::new(connected.client, &connected.namespace, store.clone(), adapter.clone());
    let bound = bind(args.listen, args.allow_remote).await.map_err(unserved)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let sweeping = executor.clone();
    let sweeper = tokio::spawn(async move { sweeping.sweep().await });
    let check = executor.clone();
    let server = JobServer { topology, task, spec: adapter.spec, executor: Arc::new(executor), store, keep };
    let served = serve_job(bound, server, async move { check.check().await }, stop).await.map_err(unserved);
    sweeper.abort();
    served
}

fn unserved(error: ServeError) -> Failure {
    let code = if matches!(error, ServeError::NotLoopback(_)) { Code::Refused } else { Code::Unreachable };
    Failure::new(code, error)
}

/// The task as its dispatchers know it, with as much of the topology as it needs to know. It lives as long as the process, which serves nothing else.
fn definition(adapter: &Adapter) -> (&'static TopologyDef, &'static TaskDef) {
    let (name, task_name) = (leak(&adapter.topology), leak(&adapter.task));
    let codec = if adapter.codec == "messagepack" { Codec::MessagePack } else { Codec::Json };
    // Nothing is published here, so a topic only tells the routes apart.
    let topic = |index: usize| leak(&format!("route-{index}"));
    let routes = adapter.routes.iter().enumerate();
    let routes = routes.map(|(index, route)| RouteDef { label: route.label.as_deref().map(leak), topic: topic(index) });
    let edges = adapter.routes.iter().enumerate().flat_map(|(index, route)| {
        route.targets.iter().map(move |target| EdgeDef {
            id: leak(&format!("{}-->{target}", adapter.task)),
            from: Some(task_name),
            to: leak(target),
            label: route.label.as_deref().map(leak),
            topic: topic(index),
            subscription: leak(target),
            retry_topic: "",
            dead_letter_topic: "",
        })
    });
    let task: &'static TaskDef = Box::leak(Box::new(TaskDef {
        project: PROJECT,
        topology: name,
        name: task_name,
        version: env!("CARGO_PKG_VERSION"),
        codec,
        kind: Kind::Job(JobDef { options: "{}" }),
        // Whoever dispatches tries again.
        retry: Retry { attempts: 1, backoff: Duration::ZERO, max_backoff: Duration::ZERO },
        timeout: adapter.timeout(),
        parallelism: adapter.parallelism.max(1),
        source: None,
        routes: Vec::leak(routes.collect()),
        ends: Vec::leak(adapter.ends.iter().map(|label| leak(label)).collect()),
    }));
    let topology = Box::leak(Box::new(TopologyDef {
        name,
        project: PROJECT,
        version: env!("CARGO_PKG_VERSION"),
        description: "",
        codec,
        tasks: Vec::leak(vec![task]),
        edges: Vec::leak(edges.collect()),
        drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
    }));
    (topology, task)
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}
