//! One edge on a Pulsar service, and the hop to an HTTP worker: how fast messages cross, and what the dispatcher adds to the client that it is built on.

mod flow;
mod latency;
mod line;
mod report;
mod worker;

pub(crate) use report::{Edges, Hop};
pub(crate) use worker::serve;

use super::{Failed, diamond::Pass, failed, payload::Payloads, report::Target};
use crate::{
    bench::flags::{Bench, WorkerForm},
    exit::{Code, Failure, Result},
};
use flow::{By, Flow, Rate};
use latency::Times;
use leatworks::{
    Setup, TaskError,
    broker::{BoxFuture, Broker, Limits, MemoryBroker},
    config::{Config, Flags},
    def::Kind,
    handler::Handler,
    open_broker, open_task,
};
use line::Line;
use std::{path::Path, sync::Arc, time::Duration};
use worker::Worker;

/// The sizes of messages that the targets are about.
const SIZES: [u64; 2] = [100, 200];

/// Messages of one edge that are handled at once by the task in this process: as in the diamond.
const IN_PROCESS: usize = 256;

/// Calls to an HTTP worker at once: enough for two cores to have something to do while others wait for the other side.
const PARALLELISM: usize = 64;

/// The part of the messages that warms up: connections are made, and the sizes of batches have settled.
const WARM_PART: u64 = 5;

/// The longest that one rate is measured.
const LONGEST: Duration = Duration::from_secs(10);

/// The same for one message at a time, which is slow wherever a write is synced.
const SEQUENTIAL: Duration = Duration::from_secs(3);

/// Messages that are there for it: more than it handles in its time, unless the service is in memory.
const SEQUENTIAL_MESSAGES: u64 = 20_000;

/// Messages that warm it up. It has no batches that could settle.
const SEQUENTIAL_WARM: u64 = 10;

/// Opens the task that gives what it gets.
fn pass(setup: &Setup) -> BoxFuture<'_, std::result::Result<Arc<dyn Handler>, TaskError>> {
    open_task::<Pass>(setup)
}

/// Measures on a Pulsar service.
pub(super) struct Measuring<'a> {
    pub(super) args: &'a Bench,
    pub(super) url: &'a str,
    /// Where a task could keep files.
    pub(super) data: &'a Path,
    pub(super) quiet: bool,
}

impl Measuring<'_> {
    fn note(&self, text: &str) {
        super::note(self.quiet, text);
    }

    pub(super) async fn measure(&self) -> Result<Edges> {
        let flags = Flags { broker: Some(self.url.to_owned()), ..Flags::default() };
        let config = Config::load("bench", &flags).map_err(|error| Failure::new(Code::Invalid, error))?;
        let outside = open_broker(&config).await.map_err(|error| Failure::new(Code::Unreachable, error))?;
        let sizes = if SIZES.contains(&self.args.size) { SIZES.to_vec() } else { vec![self.args.size] };
        let mut edges = Edges::new(self.url, self.args.messages);
        for size in sizes {
            let mut rates = Vec::new();
            for by in [By::Client, By::Dispatcher, By::Sequential] {
                self.note(&format!("messages of {size} bytes through one edge, {}", by.name()));
                rates.push(self.rate(&config, &outside, by, size).await.map_err(failed)?);
            }
            edges.add(size, rates);
        }
        for by in [By::Client, By::Dispatcher] {
            self.note(&format!("latency at {} messages a second, {}", self.args.rate, by.name()));
            let times = self.times(&config, &outside, by).await.map_err(failed)?;
            edges.latency_ms.push((by.name(), times));
        }
        outside.close().await.map_err(failed)?;
        edges.http = hops(self.args.messages, self.args.size, self.data, self.quiet).await?;
        edges.judge();
        Ok(edges)
    }

    /// What is measured has connections of its own: with these its producers leave the topics, which can be removed then.
    async fn rate(&self, config: &Config, outside: &Arc<dyn Broker>, by: By, size: u64) -> std::result::Result<Rate, Failed> {
        let line = Line::new(Kind::Rust(pass), IN_PROCESS);
        line.create(outside.as_ref(), false).await?;
        let (warm, messages, longest) = match by {
            By::Sequential => (SEQUENTIAL_WARM, SEQUENTIAL_MESSAGES, SEQUENTIAL),
            By::Client | By::Dispatcher => (self.args.messages / WARM_PART, self.args.messages, LONGEST),
        };
        line.fill(outside.as_ref(), &mut Payloads::new(size), messages).await?;
        let broker = open_broker(config).await?;
        let flow = Flow::start(by, &broker, &line, self.data);
        let rate = flow.measure(warm, messages, longest).await?;
        flow.stop(messages).await?;
        broker.close().await?;
        line.remove(outside.as_ref()).await?;
        Ok(rate)
    }

    async fn times(&self, config: &Config, outside: &Arc<dyn Broker>, by: By) -> std::result::Result<Times, Failed> {
        let line = Line::new(Kind::Rust(pass), IN_PROCESS);
        line.create(outside.as_ref(), true).await?;
        let broker = open_broker(config).await?;
        let flow = Flow::start(by, &broker, &line, self.data);
        let times = latency::measure(outside, &line, self.args.rate, self.args.size).await?;
        flow.stop(0).await?;
        broker.close().await?;
        line.remove(outside.as_ref()).await?;
        Ok(times)
    }
}

/// The hop to an HTTP worker on this machine, with a broker in memory so that it is not the broker that is measured.
pub(super) async fn hops(messages: u64, size: u64, data: &Path, quiet: bool) -> Result<Vec<Hop>> {
    let mut hops = Vec::new();
    for form in [WorkerForm::Batch, WorkerForm::Single] {
        super::note(quiet, &format!("the hop to an HTTP worker, {}", form.name()));
        hops.push(Hop::new(form, hop(form, messages, size, data).await.map_err(failed)?));
    }
    Ok(hops)
}

async fn hop(form: WorkerForm, messages: u64, size: u64, data: &Path) -> std::result::Result<Rate, Failed> {
    let worker = Worker::start(form)?;
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits::default()));
    let line = Line::new(Kind::Worker { url: worker.url }, PARALLELISM);
    line.create(broker.as_ref(), false).await?;
    line.fill(broker.as_ref(), &mut Payloads::new(size), messages).await?;
    let flow = Flow::start(By::Dispatcher, &broker, &line, data);
    let rate = flow.measure(messages / WARM_PART, messages, LONGEST).await?;
    flow.stop(messages).await?;
    broker.close().await?;
    Ok(rate)
}
