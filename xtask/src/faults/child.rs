//! The process that faults come to: this binary in another role, running the topology on the embedded broker, or on a Pulsar service, with the runtime's own
//! dispatchers.

use super::{
    far::{self, Arrivals, Service},
    log::{self, Log},
    lying::{Lie, Lying},
    oracle::{Dead, End},
    workload::{HOLD_FILE, INGRESS, NAME, Orders, Parcel, TOPOLOGY, part},
};
use anyhow::{Context, Result};
use leatworks::{
    Codec, Counts,
    plan::Plan,
    run::{self, RunError, RunOptions, Stop},
    topics::{self, DEAD_LETTER_SUBSCRIPTION, TopologyRef},
};
use leatworks_broker::{
    Account, Broker, BrokerError, Embedded, EmbeddedOptions, ErrorKind, Limits, Message, MessageId, Position, Publish,
    STORAGE_EXIT_CODE,
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing_subscriber::EnvFilter;

/// The first argument that makes this binary the child.
pub(crate) const ROLE: &str = "faults-child";

/// The producer's name, by whose sequence repeated publishes are dropped.
const PRODUCER: &str = "source";

/// The file that tells what the broker said when all was quiet.
pub(crate) const END_FILE: &str = "end.json";

/// The file in the folder of the logs that ends a source which goes on.
pub(crate) const ENOUGH_FILE: &str = "enough";

/// How often the account is asked for while waiting.
const LOOK: Duration = Duration::from_millis(2);

/// How long the source waits after a refusal that may pass.
const REFUSED_WAIT: Duration = Duration::from_millis(20);

/// What the child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The service to run on; without one it is the embedded broker.
    pub(crate) service: Option<Service>,
    /// The journal's directory.
    pub(crate) journal: PathBuf,
    /// `power`, `interval`, `process` or `memory`.
    pub(crate) durability: String,
    /// Bytes of a segment, and after which a checkpoint is taken: small, so that faults hit their changes too.
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    /// The most unsettled messages of one topic.
    pub(crate) backlog_max: u64,
    /// How the file system lies, to show that the oracle sees it.
    pub(crate) lie: Option<Lie>,
    /// The last root that is sent.
    pub(crate) roots: u64,
    /// Goes on behind the last root until a file says that it is enough: faults that take their time find messages on a machine of any speed.
    pub(crate) goes_on: bool,
    /// Roots in one publish.
    pub(crate) batch: u64,
    /// Roots in flight beyond which the source waits.
    pub(crate) window: u64,
    /// While the sink is held back, the source knows no window: only the broker's limits are in its way.
    pub(crate) greedy: bool,
    /// Roots a second; as fast as they are accepted if there is none.
    pub(crate) rate: Option<u64>,
    /// Letters in each parcel.
    pub(crate) bytes: usize,
    /// Tells the oracle that a root is acknowledged before the broker has said so: a broken source, to show that the oracle sees it.
    pub(crate) hasty: bool,
    /// Without dispatchers what is sent stays where it is.
    pub(crate) dispatch: bool,
    /// The tasks whose edges are served; all of them if none is named.
    pub(crate) serves: Vec<String>,
    /// Ends when all roots are sent and nothing is in flight.
    pub(crate) drain: bool,
    /// Attempts at a message, and at one of `right`, where messages fail on purpose.
    pub(crate) attempts: u32,
    pub(crate) attempts_right: u32,
    /// Whether the sink gets a message only when it is durable, as what writes to the outside must. Otherwise a message may cross the whole graph within one
    /// commit group, and leave no record but its effect.
    pub(crate) sink_waits: bool,
    /// The time limit of a task.
    pub(crate) timeout_ms: u64,
    /// Messages of one edge that are handled at once.
    pub(crate) parallelism: usize,
    /// What the tasks are told.
    pub(crate) orders: Orders,
}

impl Job {
    /// A load on a journal with small segments, with its logs in this folder.
    pub(crate) fn new(journal: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self {
            service: None,
            journal: journal.into(),
            durability: "power".to_owned(),
            segment_bytes: 1 << 20,
            checkpoint_bytes: 1 << 20,
            backlog_max: Limits::default().backlog_messages_max,
            lie: None,
            roots: u64::MAX,
            goes_on: false,
            batch: 32,
            window: 1_000,
            greedy: false,
            rate: None,
            bytes: 120,
            hasty: false,
            dispatch: true,
            serves: Vec::new(),
            drain: false,
            // Faults take attempts too: so many that nothing is given up but what fails on purpose.
            attempts: 1_000_000,
            attempts_right: 1_000_000,
            sink_waits: true,
            timeout_ms: 60_000,
            parallelism: 64,
            orders: Orders { logs: logs.into(), permanent_each: 101, ..Orders::default() },
        }
    }
}

/// The body of the child.
pub(crate) fn main(job: &str) -> ExitCode {
    // What it says goes to the rig's folder, for who looks into a run that is stuck.
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_env("LEAT_LOG"));
    lines.with_writer(std::io::stderr).with_ansi(false).init();
    let work = || -> Result<()> {
        let job: Job = serde_json::from_str(job).context("reading the job")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(run(Arc::new(job)));
        // A task that blocks its thread must not keep the process.
        runtime.shutdown_background();
        result
    };
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As the generated binaries do.
            match error.downcast_ref::<BrokerError>().map(BrokerError::kind) {
                Some(ErrorKind::Storage) => ExitCode::from(STORAGE_EXIT_CODE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(job: Arc<Job>) -> Result<()> {
    let opened = Log::open(&job.orders.logs, log::OPENED)?;
    let broker: Arc<dyn Broker> = match &job.service {
        Some(service) => Arc::new(far::open(service).await?),
        None => {
            let broker = open(&job)?;
            let (failed, failures) = (broker.failed(), Log::open(&job.orders.logs, log::OPENED)?);
            tokio::spawn(async move {
                let error = failed.await;
                failures.append(&format!("h {}", log::now_ms()));
                eprintln!("{error}");
            });
            Arc::new(broker)
        }
    };
    let last = announce(broker.as_ref(), &job, &opened).await?;
    if !job.dispatch {
        send(broker, job.clone(), last + 1).await?;
        return std::future::pending().await;
    }
    let (stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let plan = plan(&job);
    let counts = Arc::new(Counts::new(plan.topology));
    let mut running = tokio::spawn(run::run(broker.clone(), plan, options, counts, stopped));
    let feeding = async {
        send(broker.clone(), job.clone(), last + 1).await?;
        rest(broker.as_ref(), &job).await
    };
    let ended = tokio::select! {
        ended = &mut running => ended?.map_err(broker_error).map(|_| ()),
        fed = feeding => {
            // A source that failed does not end the process: its dispatchers do.
            if fed.is_ok() {
                stop.send_replace(Stop::Drain);
            }
            running.await?.map_err(broker_error).map(|_| ())
        }
    };
    let closed = broker.close().await;
    ended?;
    Ok(closed?)
}

fn broker_error(error: RunError) -> anyhow::Error {
    match error {
        RunError::Broker(error) => error.into(),
        other => other.into(),
    }
}

fn open(job: &Job) -> Result<Embedded> {
    let options = EmbeddedOptions {
        durability: job.durability.parse()?,
        segment_bytes: job.segment_bytes,
        checkpoint_bytes: job.checkpoint_bytes,
        limits: Limits { backlog_messages_max: job.backlog_max, ..Limits::default() },
        ..EmbeddedOptions::new(&job.journal)
    };
    Ok(match job.lie {
        None => Embedded::open(options)?,
        Some(lie) => Embedded::open_on(Arc::new(Lying::new(&job.journal, lie)?), options)?,
    })
}

/// Makes the topics, tells the oracle what is there, and gives the last root that the broker has.
async fn announce(broker: &dyn Broker, job: &Job, opened: &Log) -> Result<u64> {
    far::until_there(async || topics::create(broker, &TopologyRef::from(&TOPOLOGY)).await).await?;
    // Who only serves sends nothing, and the producer may be in use.
    let last = match job.serves.is_empty() {
        true => far::until_there(async || broker.last_sequence(INGRESS, PRODUCER).await).await?.unwrap_or(0),
        false => 0,
    };
    if job.serves.is_empty() {
        for name in [log::ACKED, log::OBSERVED] {
            Log::open(&job.orders.logs, name)?.append(&format!("o {last}"));
        }
    }
    let account = account(broker).await?;
    let line = format!("o {} {} {} {}", account.sent, account.done, account.dead_lettered, account.in_flight);
    opened.append(&format!("{line} {} {}", log::now_ms(), std::process::id()));
    Ok(last)
}

/// The broker's account, or an empty one where none is kept.
async fn account(broker: &dyn Broker) -> Result<Account> {
    Ok(if broker.promises().accounts { broker.account(NAME).await? } else { Account::default() })
}

fn plan(job: &Job) -> Plan {
    let topology = if job.serves.is_empty() { &TOPOLOGY } else { part(&job.serves) };
    let mut plan = Plan::new(topology, &job.orders.logs);
    for task in &mut plan.tasks {
        task.settings = job.orders.settings();
        task.parallelism = job.parallelism;
        task.eager &= !(job.sink_waits && task.def.name == "sink");
        task.timeout = Duration::from_millis(job.timeout_ms);
        task.retry.attempts = if task.def.name == "right" { job.attempts_right } else { job.attempts };
        // The longer of what a failed message asks for and a random part of this: an error waits exactly so long, a panic or a timeout up to it.
        task.retry.backoff = Duration::from_millis(job.orders.retry_after_ms.max(1));
        task.retry.max_backoff = task.retry.backoff;
    }
    plan
}

/// Sends what is left to send.
async fn send(broker: Arc<dyn Broker>, job: Arc<Job>, from: u64) -> Result<()> {
    let open = |name| Log::open(&job.orders.logs, name);
    let (invoked, acked, refused) = (open(log::INVOKED)?, open(log::ACKED)?, open(log::REFUSED)?);
    let period = job.rate.map(|rate| Duration::from_secs_f64(job.batch as f64 / rate as f64));
    let mut ticks = tokio::time::interval(period.unwrap_or(LOOK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = from;
    let mut arrivals = Arrivals::new(&job.orders.logs);
    let goes_on = || job.goes_on && !job.orders.logs.join(ENOUGH_FILE).exists();
    while next <= job.roots || goes_on() {
        if period.is_some() {
            ticks.tick().await;
        }
        if job.service.is_some() {
            far::room(&mut arrivals, next - 1, &job, LOOK).await?;
        } else {
            let held = || job.greedy && job.orders.logs.join(HOLD_FILE).exists();
            while broker.account(NAME).await?.in_flight > job.window && !held() {
                tokio::time::sleep(LOOK).await;
            }
        }
        let count = if next <= job.roots { job.batch.min(job.roots - next + 1) } else { job.batch };
        let batch: Vec<Publish> = (next..next + count).map(|sequence| root(sequence, job.bytes)).collect::<Result<_>>()?;
        invoked.append(&format!("i {next} {count} {}", log::now_ms()));
        let began = Instant::now();
        if job.hasty {
            acked.append(&format!("a {next} {count} {}", log::now_ms()));
        }
        match broker.publish(batch).await {
            Ok(_) if job.hasty => next += count,
            Ok(_) => {
                acked.append(&format!("a {next} {count} {}", log::now_ms()));
                next += count;
            }
            Err(error) if error.is_retryable() => {
                refused.append(&format!("f {next} {:?} {} {}", error.kind(), began.elapsed().as_millis(), log::now_ms()));
                tokio::time::sleep(REFUSED_WAIT).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn root(sequence: u64, bytes: usize) -> Result<Publish> {
    let payload = serde_json::to_vec(&Parcel::new(sequence, bytes))?;
    let id = MessageId(u128::from(sequence));
    let message =
        Message { id, root: id, created_ms: log::now_ms(), codec: Codec::Json, payload: payload.into(), ..Message::default() };
    Ok(Publish { topic: INGRESS.into(), message: message.into(), sequence: Some((PRODUCER.into(), sequence)) })
}

/// Waits until nothing is in flight and writes down what the broker says then. Without an order to drain it waits for ever.
async fn rest(broker: &dyn Broker, job: &Job) -> Result<()> {
    if !job.drain {
        return std::future::pending().await;
    }
    let mut end = if job.service.is_some() { end_far(broker).await? } else { end_near(broker).await? };
    for edge in TOPOLOGY.edges {
        let look = async || broker.peek(edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION, Position(0), usize::MAX).await;
        let letters = far::until_there(look).await?;
        for (_, message) in letters {
            end.dead.push(dead(edge.id, &message));
        }
    }
    if job.service.is_some() {
        end.account_by_letters();
    }
    std::fs::write(job.orders.logs.join(END_FILE), serde_json::to_vec_pretty(&end)?)?;
    Ok(())
}

/// What the embedded broker says when nothing is in flight.
async fn end_near(broker: &dyn Broker) -> Result<End> {
    while broker.account(NAME).await?.in_flight > 0 {
        tokio::time::sleep(LOOK).await;
    }
    let account = broker.account(NAME).await?;
    Ok(End {
        sent: account.sent,
        done: account.done,
        dead_lettered: account.dead_lettered,
        in_flight: account.in_flight,
        last_sequence: broker.last_sequence(INGRESS, PRODUCER).await?.unwrap_or(0),
        published: broker.stats().await?.into_iter().map(|topic| (topic.spec.name, topic.published)).collect(),
        dead: Vec::new(),
    })
}

/// The same of a service, whose counts of what was published begin anew with it.
async fn end_far(broker: &dyn Broker) -> Result<End> {
    far::rest(broker).await?;
    let last = far::until_there(async || broker.last_sequence(INGRESS, PRODUCER).await).await?;
    Ok(End { last_sequence: last.unwrap_or(0), ..End::default() })
}

fn dead(edge: &str, message: &Message) -> Dead {
    let property = |name: &str| {
        let found = message.properties.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    Dead {
        edge: edge.to_owned(),
        sequence: u64::try_from(message.root.0).unwrap_or(u64::MAX),
        cause: property("leat-cause"),
        attempts: property("leat-attempts").parse().unwrap_or(0),
    }
}
