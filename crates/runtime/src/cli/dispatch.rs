//! `dispatch EDGE`: one dispatcher of one edge, in a process of its own. The binaries of topologies have it, and so has `leat`.

use super::{
    Common, check,
    exit::{Failure, INTERNAL, INVALID, NOTHING, OK},
    log::{self, LogFormat},
    output::{self, Output},
    signals::Signals,
};
use crate::{
    Counts,
    config::Config,
    control,
    counts::EdgeTally,
    def::{EdgeDef, TopologyDef},
    host,
    observe::{self, Watch},
    plan::Plan,
    run::Stop,
    settings,
    standalone::{self, DispatchError, Handled, Log, Observer},
    trace::Writer,
    worker,
};
use serde::Serialize;
use std::{future::Future, io::Write, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

/// What a dispatcher of one edge is to do.
#[derive(Clone, Debug)]
pub struct EdgeJob {
    /// The edge: `A-->B`, `A-->|label|B`, or `[*]-->A` for the way into the topology.
    pub edge: String,
    /// Where the worker of the edge's target listens, unless the topology says that.
    pub worker: Option<String>,
    /// One JSON object for each message in place of a line for people.
    pub json: bool,
    /// Errors only on standard error.
    pub quiet: bool,
    /// Make no topics and subscriptions: somebody else does.
    pub topics_are_made: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if they are.
    pub listen: Option<SocketAddr>,
    /// One JSON object for each line of the log, with the topology and the edge.
    pub json_log: bool,
    /// Tell the counters from time to time in place of each message: this is a child of the topology's run.
    pub(crate) child: bool,
}

impl EdgeJob {
    /// An edge, with nothing else said.
    pub fn new(edge: impl Into<String>) -> Self {
        Self {
            edge: edge.into(),
            worker: None,
            json: false,
            quiet: false,
            topics_are_made: false,
            listen: None,
            json_log: false,
            child: false,
        }
    }
}

/// How often a child tells its counters, if they have changed: often enough for a person who watches.
const TELL: Duration = Duration::from_millis(200);

/// Dispatches one edge until a signal ends it, and gives the exit code of the process.
pub fn dispatch_edge(topology: &'static TopologyDef, config: &Config, job: &EdgeJob) -> ExitCode {
    let format = if job.json_log { LogFormat::Json } else { LogFormat::Text };
    log::init(0, job.quiet, format, &[("topology", topology.name), ("edge", &job.edge)]);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(INTERNAL, format!("starting threads: {error}")).report(),
    };
    let ended = runtime.block_on(run(topology, config, job));
    // A call to a worker that never answers must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// The same within a runtime.
pub(super) async fn run(topology: &'static TopologyDef, config: &Config, job: &EdgeJob) -> Result<u8, Failure> {
    let edge = find(topology, &job.edge)?;
    if config.broker == "memory" {
        let text = "a broker in memory is reached by nobody else, so no message would ever come: name one by `--broker pulsar://HOST:PORT`";
        return Err(Failure::new(INVALID, text));
    }
    let mut plan = config.plan(topology)?;
    if !job.child {
        check::doubt(config, topology);
    }
    plan.make_topics = !job.topics_are_made;
    let writer = Writer::begin(&config.trace, topology.name).map_err(|error| Failure::new(INVALID, error))?;
    plan.tracer = writer.as_ref().map(Writer::tracer);
    let signals =
        Signals::listen(!job.child).map_err(|error| Failure::new(INTERNAL, format!("listening for signals: {error}")))?;
    let counts = Arc::new(Counts::new(topology));
    let watch = watched(&plan, edge, &counts, job, &signals).await?;
    let opening = host::open_when_free(config, async || control::answers(&config.data).await);
    let broker = tokio::select! {
        opened = opening => opened?,
        // A service that is away is waited for, until somebody does not want to.
        () = asked(&signals, Stop::Drain) => return Ok(signals.code().unwrap_or(OK)),
    };
    if !job.quiet {
        let told = format!("{:>12} {}/{} on the {} broker", "Dispatching", topology.name, edge.id, config.broker);
        output::tell(&told);
    }
    let json = job.json;
    let place = (topology.name, edge.id);
    let log = (!job.child).then(|| Arc::new(move |handled: &Handled<'_>| tell(json, place, handled)) as Log);
    let (stop, worker) = (asked(&signals, Stop::Drain), job.worker.as_deref());
    let serving =
        standalone::run_edge(broker.clone(), &plan, edge, worker, Observer { counts: counts.clone(), log, watch }, stop);
    tokio::select! {
        ended = serving => ended?,
        () = asked(&signals, Stop::Now) => {}
        () = tell_counters(&counts, edge), if job.child => {}
    }
    if job.child {
        write(&counts.of_edge(edge));
    }
    if let Some(writer) = writer {
        writer.end().await;
    }
    broker.close().await?;
    Ok(signals.code().unwrap_or(OK))
}

/// Begins to tell how the dispatcher is, where that is asked for: before it waits for the broker, which is alive but not ready.
async fn watched(
    plan: &Plan,
    edge: &'static EdgeDef,
    counts: &Arc<Counts>,
    job: &EdgeJob,
    signals: &Signals,
) -> Result<Option<Arc<Watch>>, Failure> {
    let Some(address) = job.listen else { return Ok(None) };
    let limit = plan.task(edge.to).map_or(Duration::ZERO, |task| task.timeout);
    let watch = Arc::new(Watch::new(plan.topology.name, edge, counts.clone(), limit));
    // It tells counts and takes nothing in, and those who ask are on other machines.
    let bound = worker::bind(address, true).await?;
    if !job.quiet {
        output::tell(&format!("{:>12} http://{}/metrics, /healthz and /readyz", "Telling", bound.address()));
    }
    let (router, stop) = (observe::router(watch.clone()), asked(signals, Stop::Now));
    tokio::spawn(async move {
        if let Err(error) = bound.serve_router(router, stop).await {
            tracing::error!(%error, "how the dispatcher is can no longer be asked");
        }
    });
    Ok(Some(watch))
}

/// Resolves when a signal has asked for this, or more.
fn asked(signals: &Signals, what: Stop) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = signals.stop.clone();
    async move {
        // If the listener of signals were gone, nobody could stop the dispatcher.
        if stop.wait_for(|stop| *stop >= what).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The edge that a person has written.
pub(super) fn find(topology: &'static TopologyDef, text: &str) -> Result<&'static EdgeDef, Failure> {
    let wanted: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    topology.edges.iter().find(|edge| edge.id == wanted).ok_or_else(|| {
        let known: Vec<&str> = topology.edges.iter().map(|edge| edge.id).collect();
        Failure::new(NOTHING, format!("`{}` has no edge `{wanted}`{}", topology.name, settings::hint(&wanted, &known)))
    })
}

/// Tells the counters for as long as it is polled.
async fn tell_counters(counts: &Counts, edge: &EdgeDef) {
    let mut told = EdgeTally::default();
    loop {
        tokio::time::sleep(TELL).await;
        let now = counts.of_edge(edge);
        if now != told {
            write(&now);
            told = now;
        }
    }
}

fn write(tally: &EdgeTally) {
    let _ = writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(tally).unwrap_or_default());
}

/// One line for each message. Whether somebody reads it is no concern of the messages.
fn tell(json: bool, (topology, edge): (&'static str, &'static str), handled: &Handled<'_>) {
    #[derive(Serialize)]
    struct Line<'a> {
        topology: &'a str,
        edge: &'a str,
        #[serde(flatten)]
        handled: &'a Handled<'a>,
    }
    let line = match json {
        true => serde_json::to_string(&Line { topology, edge, handled }).unwrap_or_default(),
        false => handled.to_string(),
    };
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

impl From<DispatchError> for Failure {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::Broker(error) => error.into(),
            error @ (DispatchError::Handler(_) | DispatchError::Edge(_)) => Self::new(INVALID, error),
            error @ DispatchError::Http(_) => Self::new(INTERNAL, error),
        }
    }
}

/// What `dispatch` of a topology's binary is told.
#[derive(clap::Args, Debug)]
pub(super) struct DispatchFlags {
    /// The edge, in quotes: 'a-->b', 'a-->|label|b', or '[*]-->a' for the way in
    edge: String,
    /// Where the worker of the edge's target listens
    #[arg(long, value_name = "URL")]
    worker: Option<String>,
    /// Make no topics and subscriptions: somebody else does
    #[arg(long)]
    topics_are_made: bool,
    /// Serve /metrics, /healthz and /readyz at this address
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

impl DispatchFlags {
    /// The edge as it was given.
    pub(super) fn edge(&self) -> &str {
        &self.edge
    }

    /// With what all commands are told.
    pub(super) fn job(self, common: &Common) -> EdgeJob {
        EdgeJob {
            edge: self.edge,
            worker: self.worker,
            json: common.output == Output::Json,
            quiet: common.quiet,
            topics_are_made: self.topics_are_made,
            listen: self.listen,
            json_log: common.log_format == LogFormat::Json,
            child: common.child_of.is_some(),
        }
    }
}
