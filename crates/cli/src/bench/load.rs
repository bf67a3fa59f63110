//! Drives the diamond: as fast as it goes, and at a fixed rate.

use super::{
    Failed,
    diamond::DIAMOND,
    disk::percentile,
    pacer,
    payload::Payloads,
    phase::{Profile, Rig},
};
use leatworks::{
    Codec, Counts,
    broker::{Account, Publish},
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
};

/// Messages in one publish: large enough that the journal, not the call, is measured.
const BATCH: u64 = 500;

/// Publishes that are under way at once, as of a source that does not wait for each receipt. With one, most of a run is waiting until one batch is through and
/// synced: side by side it reached three quarters of what eight do without elision.
const PUBLISHES: usize = 8;

/// Roots that may be in flight while throughput is measured, so that memory tells what the broker needs and not how far the sender ran ahead.
const IN_FLIGHT_MAX: u64 = 20_000;

/// How long latency is measured. At 1,000 a second that is 5,000 samples, so that five of them lie above the 99.9th percentile.
const LATENCY_TIME: Duration = Duration::from_secs(5);

/// How often the account is asked for while waiting; it bounds the error of the measured time.
const POLL: Duration = Duration::from_millis(1);

/// Time from when a message was due to be sent until nothing of it was pending, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) rate: u64,
    pub(crate) messages: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// How much later than due the messages were sent, which is part of the above: the sender's own share.
    pub(crate) late_p50: f64,
    pub(crate) late_p99: f64,
    pub(crate) profile: Profile,
}

/// A running diamond.
pub(crate) struct Load<'a> {
    rig: &'a Rig,
    stop: watch::Sender<Stop>,
    running: JoinHandle<Result<Report, RunError>>,
    ingress: Arc<str>,
    payloads: Payloads,
}

impl<'a> Load<'a> {
    /// Starts the dispatchers.
    pub(crate) fn start(rig: &'a Rig, data: PathBuf, payloads: Payloads) -> Self {
        let (stop, stopped) = watch::channel(Stop::Run);
        let options = RunOptions { serve: true, ..RunOptions::default() };
        let plan = Plan::new(&DIAMOND, data);
        let running = tokio::spawn(run::run(rig.broker.clone(), plan, options, Arc::new(Counts::new(&DIAMOND)), stopped));
        Self { rig, stop, running, ingress: DIAMOND.edges[0].topic.into(), payloads }
    }

    /// Sends messages as fast as they are accepted, and waits until all are done.
    pub(crate) async fn throughput(&mut self, messages: u64) -> Result<Profile, Failed> {
        let broker = self.rig.broker.clone();
        leatworks::topics::create(broker.as_ref(), &TopologyRef::from(&DIAMOND)).await?;
        let before = broker.account(DIAMOND.name).await?;
        let phase = self.rig.begin();
        let mut sent = 0;
        let mut publishing = JoinSet::new();
        while sent < messages {
            let batch = BATCH.min(messages - sent);
            let (broker, publishes) = (broker.clone(), (0..batch).map(|_| self.message()).collect());
            publishing.spawn(async move { broker.publish(publishes).await });
            sent += batch;
            if publishing.len() == PUBLISHES {
                publishing.join_next().await.transpose()?.transpose()?;
                self.wait(|account| account.in_flight <= IN_FLIGHT_MAX).await?;
            }
        }
        while publishing.join_next().await.transpose()?.transpose()?.is_some() {}
        self.wait(|account| account.done + account.dead_lettered >= before.done + before.dead_lettered + messages).await?;
        Ok(phase.end())
    }

    /// Sends one message at each tick, whether or not earlier ones are done, so that a stall is counted for every message that it holds up.
    pub(crate) async fn latency(&mut self, rate: u64) -> Result<Latency, Failed> {
        let messages = (0..(rate * LATENCY_TIME.as_secs()).max(1)).map(|_| self.message()).collect();
        let (broker, handle) = (self.rig.broker.clone(), tokio::runtime::Handle::current());
        let phase = self.rig.begin();
        // On a thread of its own: the timers of the runtime tick once a millisecond, which would be most of what is measured.
        let sent = tokio::task::spawn_blocking(move || pacer::send(&handle, &broker, messages, rate)).await??;
        let profile = phase.end();
        let pacer::Sent { mut done_after, mut late } = sent;
        done_after.sort_unstable();
        late.sort_unstable();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| percentile(&done_after, part));
        let [late_p50, late_p99] = [0.5, 0.99].map(|part| percentile(&late, part));
        Ok(Latency { rate, messages: done_after.len(), p50, p99, p999, late_p50, late_p99, profile })
    }

    /// Drains, ends the dispatchers and closes the broker, which still knows its account.
    pub(crate) async fn stop(self) -> Result<Account, Failed> {
        let account = self.rig.broker.account(DIAMOND.name).await?;
        self.stop.send_replace(Stop::Drain);
        self.running.await??;
        self.rig.broker.close().await?;
        Ok(account)
    }

    fn message(&mut self) -> Publish {
        let message = new_root(self.payloads.next(), Codec::Json, None).into();
        Publish { topic: self.ingress.clone(), message, sequence: None }
    }

    async fn wait(&self, enough: impl Fn(&Account) -> bool) -> Result<(), Failed> {
        while !enough(&self.rig.broker.account(DIAMOND.name).await?) {
            if self.running.is_finished() {
                return Err("the dispatchers ended".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
