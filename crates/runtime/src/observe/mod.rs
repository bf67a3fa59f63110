//! What a dispatcher by itself tells of itself: counters as Prometheus reads them, whether it is alive, and whether it is ready.
//!
//! It is *alive* while its loop turns and what it has handed out comes back. A broker that is away keeps nobody from being alive, since no new process would
//! reach it either. It is *ready* when it has joined its subscription and the broker answers. Whether its worker can be reached makes no difference: one that
//! is away is tried again, and a rollout that waits for the other side on both sides would never end.

mod histogram;
mod label;
mod serve;
mod text;

pub use label::label;
pub(crate) use serve::router;

use crate::{Counts, def::EdgeDef};
use histogram::Histogram;
use leatworks_broker::Broker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How often the loop of a dispatcher turns when nothing else happens.
pub(crate) const TURN: Duration = Duration::from_secs(5);

/// How long the loop may stand still. Nothing in it waits, so this is for a machine that hardly lets it run.
const STILL_MAX: Duration = Duration::from_secs(60);

/// How much longer than its timeout a call may take before something is wrong with whoever measures that time.
const LATE_MAX: Duration = Duration::from_secs(60);

/// How often the broker is asked what waits on the edge: within the 15 s after which an autoscaler looks again. On a Pulsar that takes a request for each topic.
const LOOK: Duration = Duration::from_secs(10);

/// For how long an answer of the broker says that it can be reached: one may fail, and the next may take its time.
const ANSWER_MAX: Duration = Duration::from_secs(35);

/// What has not happened yet.
const NEVER: u64 = u64::MAX;

/// Watches the dispatcher of one edge.
#[derive(Debug)]
pub struct Watch {
    topology: &'static str,
    edge: &'static EdgeDef,
    counts: Arc<Counts>,
    /// How long a call may take.
    limit: Duration,
    began: Instant,
    joined: AtomicBool,
    closing: AtomicBool,
    taken: AtomicU64,
    done: AtomicU64,
    lanes: AtomicUsize,
    /// Milliseconds from the beginning on, as all times here: when the loop turned last.
    turned: AtomicU64,
    /// When something was taken, handled or settled last.
    moved: AtomicU64,
    /// When the broker answered last.
    answered: AtomicU64,
    /// What waits on the edge, what is in hand somewhere included.
    backlog: AtomicU64,
    latency: Histogram,
}

impl Watch {
    /// Begins to watch the dispatcher of this edge, whose target may take so long for a message.
    pub fn new(topology: &'static str, edge: &'static EdgeDef, counts: Arc<Counts>, limit: Duration) -> Self {
        Self {
            topology,
            edge,
            counts,
            limit,
            began: Instant::now(),
            joined: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            done: AtomicU64::new(0),
            lanes: AtomicUsize::new(0),
            turned: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            answered: AtomicU64::new(NEVER),
            backlog: AtomicU64::new(NEVER),
            latency: Histogram::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The subscription is joined.
    pub(crate) fn joined(&self) {
        self.joined.store(true, Relaxed);
    }

    /// Nothing more is taken.
    pub(crate) fn closing(&self) {
        self.closing.store(true, Relaxed);
    }

    /// The loop has turned, and so many lanes run.
    pub(crate) fn turned(&self, lanes: usize) {
        self.lanes.store(lanes, Relaxed);
        self.turned.store(self.now(), Relaxed);
    }

    /// So many messages were taken.
    pub(crate) fn took(&self, messages: usize) {
        self.taken.fetch_add(messages as u64, Relaxed);
        self.moved();
    }

    /// So many messages that were taken are settled, given back or let go.
    pub(crate) fn done(&self, messages: usize) {
        self.done.fetch_add(messages as u64, Relaxed);
        self.moved();
    }

    /// Something has come back.
    pub(crate) fn moved(&self) {
        self.moved.store(self.now(), Relaxed);
    }

    /// A call has ended, however.
    pub(crate) fn called(&self, took: Duration) {
        self.latency.record(took);
    }

    /// Asks the broker from time to time what waits on the edge, without end.
    pub(crate) async fn look(&self, broker: &dyn Broker) {
        loop {
            match pending(broker, self.edge).await {
                Ok(backlog) => {
                    self.backlog.store(backlog, Relaxed);
                    self.answered.store(self.now(), Relaxed);
                }
                Err(error) => tracing::debug!(%error, "what waits on the edge is not known"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the dispatcher is alive.
    ///
    /// # Errors
    /// Why it is not.
    pub fn is_alive(&self) -> Result<(), String> {
        let age = |since: &AtomicU64| Duration::from_millis(self.now().saturating_sub(since.load(Relaxed)));
        // Before it has joined, it waits for the broker.
        if !self.joined.load(Relaxed) {
            return Ok(());
        }
        let still = age(&self.turned);
        if still > STILL_MAX {
            return Err(format!("its loop stands still for {still:?}"));
        }
        let late = age(&self.moved);
        if self.lanes.load(Relaxed) > 0 && late > self.limit.saturating_add(LATE_MAX) {
            return Err(format!(
                "nothing has come back for {late:?} of what is being handled, and a call may take {:?}",
                self.limit
            ));
        }
        Ok(())
    }

    /// Whether the dispatcher takes messages.
    ///
    /// # Errors
    /// Why it does not.
    pub fn is_ready(&self) -> Result<(), String> {
        if self.closing.load(Relaxed) {
            return Err("it ends, and takes nothing more".to_owned());
        }
        if !self.joined.load(Relaxed) {
            return Err("it has not joined its subscription yet".to_owned());
        }
        match self.answered.load(Relaxed) {
            NEVER => Err("the broker has not said yet what waits on the edge".to_owned()),
            answered => {
                let age = Duration::from_millis(self.now().saturating_sub(answered));
                if age > ANSWER_MAX { Err(format!("the broker has not answered for {age:?}")) } else { Ok(()) }
            }
        }
    }
}

/// What waits on an edge, what is in hand somewhere included.
async fn pending(broker: &dyn Broker, edge: &EdgeDef) -> leatworks_broker::Result<u64> {
    let mut messages = 0;
    for topic in [edge.topic, edge.retry_topic] {
        if let Some(stats) = broker.topic_stats(topic).await?
            && let Some(subscription) = stats.subscriptions.get(edge.subscription)
        {
            messages += subscription.backlog + subscription.in_flight;
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests;
