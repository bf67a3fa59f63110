//! Drives the diamond: as fast as it goes, and at a fixed rate.

use super::{diamond::DIAMOND, disk::percentile, usage};
use leatworks::{
    Codec, Counts,
    broker::{Broker, Publish},
    new_root,
    plan::Plan,
    run::{self, Report, RunError, RunOptions, Stop},
    topics::TopologyRef,
};
use serde::Serialize;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};

/// Messages in one publish: large enough that the journal, not the call, is measured.
const BATCH: u64 = 500;

/// Roots that may be in flight while throughput is measured, so that memory tells what the broker needs and not how far the sender ran ahead.
const IN_FLIGHT_MAX: u64 = 20_000;

/// How long latency is measured. At 1,000 a second that is 5,000 samples, so that five of them lie above the 99.9th percentile.
const LATENCY_TIME: Duration = Duration::from_secs(5);

/// How often the account is asked for while waiting; it bounds the error of the measured time.
const POLL: Duration = Duration::from_millis(1);

/// What throughput cost.
pub(crate) struct Throughput {
    pub(crate) elapsed_s: f64,
    pub(crate) cpu_s: Option<f64>,
    pub(crate) written_bytes: Option<u64>,
}

/// Time from when a message was due to be sent until nothing of it was pending, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) rate: u64,
    pub(crate) messages: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// A running diamond.
pub(crate) struct Load {
    broker: Arc<dyn Broker>,
    stop: watch::Sender<Stop>,
    running: JoinHandle<Result<Report, RunError>>,
    ingress: Arc<str>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Load {
    /// Starts the dispatchers.
    pub(crate) fn start(broker: Arc<dyn Broker>, data: PathBuf) -> Self {
        let (stop, stopped) = watch::channel(Stop::Run);
        let options = RunOptions { serve: true, ..RunOptions::default() };
        let running =
            tokio::spawn(run::run(broker.clone(), Plan::new(&DIAMOND, data), options, Arc::new(Counts::new(&DIAMOND)), stopped));
        let ingress = DIAMOND.edges[0].topic.into();
        Self { broker, stop, running, ingress }
    }

    /// Sends messages as fast as they are accepted, and waits until all are done.
    pub(crate) async fn throughput(&self, messages: u64, size: u64) -> Result<Throughput, Failed> {
        leatworks::topics::create(self.broker.as_ref(), &TopologyRef::from(&DIAMOND)).await?;
        let before = self.broker.account(DIAMOND.name).await?;
        let (cpu, written, start) = (usage::cpu_s(), usage::written_bytes(), Instant::now());
        let mut sent = 0;
        while sent < messages {
            let batch = BATCH.min(messages - sent);
            self.broker.publish((0..batch).map(|_| self.message(size)).collect()).await?;
            sent += batch;
            self.wait(|account| account.in_flight <= IN_FLIGHT_MAX).await?;
        }
        self.wait(|account| account.done + account.dead_lettered >= before.done + before.dead_lettered + messages).await?;
        Ok(Throughput {
            elapsed_s: start.elapsed().as_secs_f64(),
            cpu_s: usage::cpu_s().zip(cpu).map(|(now, then)| now - then),
            written_bytes: usage::written_bytes().zip(written).map(|(now, then)| now - then),
        })
    }

    /// Sends one message at each tick, whether or not earlier ones are done, so that a stall is counted for every message that it holds up.
    pub(crate) async fn latency(&self, rate: u64, size: u64) -> Result<Latency, Failed> {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut pending: JoinSet<Result<Duration, leatworks::broker::BrokerError>> = JoinSet::new();
        for _ in 0..(rate * LATENCY_TIME.as_secs()).max(1) {
            let due = ticks.tick().await;
            let (broker, publish) = (self.broker.clone(), self.message(size));
            pending.spawn(async move {
                let root = publish.message.root;
                broker.publish(vec![publish]).await?;
                broker.root_outcome(root).await?;
                Ok(due.elapsed())
            });
        }
        let mut times = Vec::with_capacity(pending.len());
        while let Some(time) = pending.join_next().await {
            times.push(time??);
        }
        times.sort_unstable();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| percentile(&times, part));
        Ok(Latency { rate, messages: times.len(), p50, p99, p999 })
    }

    /// Drains, and ends the dispatchers.
    pub(crate) async fn stop(self) -> Result<(), Failed> {
        self.stop.send_replace(Stop::Drain);
        self.running.await??;
        Ok(())
    }

    fn message(&self, size: u64) -> Publish {
        // A JSON string: two quotes and letters that no store can compress to nothing.
        let mut seed = fastrand();
        let mut payload = Vec::with_capacity(size as usize);
        payload.push(b'"');
        while payload.len() + 1 < size as usize {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            payload.push(b'a' + ((seed >> 33) % 26) as u8);
        }
        payload.push(b'"');
        Publish { topic: self.ingress.clone(), message: new_root(payload.into(), Codec::Json, None).into(), sequence: None }
    }

    async fn wait(&self, enough: impl Fn(&leatworks::broker::Account) -> bool) -> Result<(), Failed> {
        while !enough(&self.broker.account(DIAMOND.name).await?) {
            if self.running.is_finished() {
                return Err("the dispatchers ended".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// A number that differs from call to call.
fn fastrand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
