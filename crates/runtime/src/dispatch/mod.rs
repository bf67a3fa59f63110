//! The dispatcher of one edge: takes messages, has them handled, and settles each with what came of it.
//!
//! A loop owns the consumers and decides; *lanes* run the task, each a batch of messages in order; commits are under way while lanes go on.

mod attempt;
mod away;
mod commit;
mod dead;
mod edge;
mod lane;

pub(crate) use attempt::{Outcome, backoff, died, fail, guard_panic, panic_error};
pub(crate) use commit::{STEP_BYTES_MAX, commit, give_back, patiently};
pub use dead::DeadLetter;
pub(crate) use dead::clean;
pub(crate) use edge::{Edge, Queue, Taken};

use lane::Handed;

use crate::observe;
use futures_util::{StreamExt, stream::FuturesUnordered};
use leatworks_broker::{BoxFuture, BrokerError, Consumer, Delivery, Subscribe, SubscriptionKind};
use std::{collections::VecDeque, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// The most messages that a lane takes at once. At 256 the cost of taking and of waking is far below that of a quick task; more only
/// raises the number of attempts that one `kill -9` uses up.
const BATCH_MAX: usize = 256;

/// The most messages that an edge holds unsettled beyond those that lanes run: what a disk flush of 10 ms lets pile up at 400,000
/// messages a second.
const UNSETTLED_MAX: usize = 4096;

/// The most commits of one edge that are under way at once. With two the disk never waits for the dispatcher; the others cover
/// steps that a full disk holds up.
const COMMITS_MAX: usize = 4;

/// The most bytes of outputs that wait for a commit before no more messages are run: what the commits under way hold, once more.
const FINISHED_BYTES_MAX: usize = 16 << 20;

/// How long a lane may hold back finished messages while it runs quick ones. Well below one disk flush (3 to 5 ms).
const FLUSH_AFTER: std::time::Duration = std::time::Duration::from_millis(2);

/// A consumer together with what it has received.
type Received = (Queue, Box<dyn Consumer>, leatworks_broker::Result<Vec<Delivery>>);

/// Serves one edge until it is closed, the broker fails or the future is dropped. Messages that are unsettled then are given back.
pub(crate) async fn serve(edge: Arc<Edge>, closing: Closing) -> Result<(), BrokerError> {
    let watch = edge.watch.clone();
    let dispatcher = Dispatcher::new(edge).await?;
    if let Some(watch) = watch {
        watch.joined();
    }
    dispatcher.run(closing).await
}

/// Tells dispatchers to take nothing more, to settle and count what they have handled, and to end.
#[derive(Clone, Debug)]
pub(crate) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// With the sender of the word.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for the word. A run that is gone without it has dropped its dispatchers.
    pub(crate) async fn asked(&mut self) {
        if self.0.wait_for(|closing| *closing).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The same, for who waits once.
    async fn into_asked(mut self) {
        self.asked().await;
    }
}

/// Joins the subscription of one of the two topics of an edge.
pub(crate) async fn subscribe(edge: &Edge, queue: Queue, permits: usize) -> Result<Box<dyn Consumer>, BrokerError> {
    let subscribe = || Subscribe {
        topic: edge.topic(queue).to_string(),
        subscription: edge.subscription.to_string(),
        kind: SubscriptionKind::Shared,
        consumer: format!("{}/{}", edge.topology, edge.def.id),
        permits,
        hand_off: edge.hand_off,
    };
    patiently(|| edge.broker.subscribe(subscribe())).await
}

struct Dispatcher {
    edge: Arc<Edge>,
    /// Consumers that are not receiving.
    idle: Vec<(Queue, Box<dyn Consumer>)>,
    receiving: FuturesUnordered<BoxFuture<'static, Received>>,
    /// Taken and waiting for a lane; at most one receive of each consumer.
    waiting: VecDeque<Taken>,
    lanes: JoinSet<lane::Pace>,
    results: (mpsc::UnboundedSender<Handed>, mpsc::UnboundedReceiver<Handed>),
    /// Finished and waiting for a commit; bounded by the permits.
    finished: Vec<Outcome>,
    /// The bytes of their outputs.
    finished_bytes: usize,
    commits: FuturesUnordered<BoxFuture<'static, Result<(), BrokerError>>>,
    /// How many messages the next receive asks for: it starts at 1, doubles while messages are quick, and falls back to 1 when one is
    /// slow or comes again after a crash, so that a message which kills its process takes few others with it.
    batch: usize,
    /// Whether only messages on their last attempt have come so far. A process before this one was killed with them, perhaps by one of them,
    /// so each is taken only when the one before is settled: the others then survive the next kill.
    careful: bool,
}

impl Dispatcher {
    async fn new(edge: Arc<Edge>) -> Result<Self, BrokerError> {
        let permits = UNSETTLED_MAX + edge.parallelism;
        let mut idle = Vec::new();
        for queue in [Queue::Route, Queue::Retry] {
            idle.push((queue, subscribe(&edge, queue, permits).await?));
        }
        let careful = edge.retry.attempts > 1;
        Ok(Self {
            edge,
            idle,
            receiving: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            lanes: JoinSet::new(),
            // Not bounded by itself: what is in it is unsettled, and the permits bound that.
            results: mpsc::unbounded_channel(),
            finished: Vec::new(),
            finished_bytes: 0,
            commits: FuturesUnordered::new(),
            batch: 1,
            careful,
        })
    }

    async fn run(mut self, mut closing: Closing) -> Result<(), BrokerError> {
        let mut closed = false;
        let watch = self.edge.watch.clone();
        let mut turns = tokio::time::interval(observe::TURN);
        loop {
            self.start_lanes(&closing);
            if !closed {
                self.start_receiving();
            }
            self.start_commits();
            if let Some(watch) = &watch {
                watch.turned(self.lanes.len());
            }
            if closed && self.lanes.is_empty() && self.results.1.is_empty() && self.commits.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = closing.asked(), if !closed => {
                    closed = true;
                    self.receiving.clear();
                    if let Some(watch) = &watch {
                        watch.closing();
                        watch.done(self.waiting.len());
                    }
                    self.waiting.clear();
                }
                Some(done) = self.commits.next(), if !self.commits.is_empty() => done?,
                Some(handed) = self.results.1.recv() => {
                    self.accept(handed, closed);
                    while let Ok(handed) = self.results.1.try_recv() {
                        self.accept(handed, closed);
                    }
                }
                Some(lane) = self.lanes.join_next(), if !self.lanes.is_empty() => match lane {
                    Ok(pace) => self.set_pace(pace),
                    // A lane catches what a task panics with; what is left is a panic in dropping a task's future. Its messages cannot be settled,
                    // so it ends the run.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => self.set_pace(lane::Pace::Slow),
                },
                Some((queue, consumer, received)) = self.receiving.next(), if !self.receiving.is_empty() => {
                    self.take(queue, consumer, received?);
                }
                _ = turns.tick(), if watch.is_some() => {}
            }
        }
    }

    fn accept(&mut self, handed: Handed, closed: bool) {
        match handed {
            Handed::Finished(outcomes) => {
                if let Some(watch) = self.edge.watch.as_ref().filter(|_| !outcomes.is_empty()) {
                    watch.moved();
                }
                self.finished_bytes += outcomes.iter().map(commit::bytes).sum::<usize>();
                self.finished.extend(outcomes);
            }
            // They are taken again by the next run.
            Handed::Rest(rest) if closed => {
                if let Some(watch) = &self.edge.watch {
                    watch.done(rest.len());
                }
            }
            Handed::Rest(rest) => rest.into_iter().rev().for_each(|taken| self.waiting.push_front(taken)),
        }
    }

    fn take(&mut self, queue: Queue, consumer: Box<dyn Consumer>, deliveries: Vec<Delivery>) {
        self.idle.push((queue, consumer));
        if deliveries.iter().any(|delivery| delivery.attempt > 1) {
            self.batch = 1;
        }
        let last = self.edge.retry.attempts;
        self.careful &= deliveries.iter().all(|delivery| delivery.attempt >= last);
        if let Some(watch) = &self.edge.watch {
            watch.took(deliveries.len());
        }
        self.waiting.extend(deliveries.into_iter().map(|delivery| Taken { queue, delivery }));
    }

    fn set_pace(&mut self, pace: lane::Pace) {
        // With a single attempt a message that was only waiting in a batch when the process died would be given up.
        let max = if self.edge.retry.attempts > 1 { BATCH_MAX } else { 1 };
        match pace {
            lane::Pace::Quick => self.batch = (self.batch * 2).min(max),
            lane::Pace::Slow => self.batch = 1,
        }
    }

    fn start_lanes(&mut self, closing: &Closing) {
        let full = self.finished_bytes > FINISHED_BYTES_MAX;
        while !full && self.lanes.len() < self.edge.parallelism && !self.waiting.is_empty() {
            // Quick messages go in batches as large as they may be: a lane of its own for each would cost more than handling it.
            let share = self.waiting.len().min(self.batch.max(1));
            let batch: Vec<Taken> = self.waiting.drain(..share).collect();
            self.lanes.spawn(lane::run(self.edge.clone(), batch, self.results.0.clone(), closing.clone()));
        }
    }

    fn start_receiving(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let free = self.edge.parallelism.saturating_sub(self.lanes.len());
        let busy = !(self.lanes.is_empty() && self.finished.is_empty() && self.commits.is_empty());
        if free == 0 || self.finished_bytes > FINISHED_BYTES_MAX || (self.careful && busy) {
            return;
        }
        let want = if self.careful { 1 } else { free.saturating_mul(self.batch).min(UNSETTLED_MAX) };
        for (queue, mut consumer) in self.idle.drain(..) {
            self.receiving.push(Box::pin(async move {
                let received = consumer.receive(want).await;
                (queue, consumer, received)
            }));
        }
    }

    fn start_commits(&mut self) {
        while self.commits.len() < COMMITS_MAX && !self.finished.is_empty() {
            let batch = commit::next_step(&mut self.finished);
            self.finished_bytes -= batch.iter().map(commit::bytes).sum::<usize>();
            self.commits.push(Box::pin(commit::settle(self.edge.clone(), batch)));
        }
    }
}
