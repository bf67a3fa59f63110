//! The owner of a fold: takes the messages of all its edges into one state, and makes the result at the end.

mod once;

use crate::{
    Cause, Context, TaskError,
    codec::Bytes,
    dispatch::{self, Closing, Edge, Queue, Taken, guard_panic},
    handler::{FoldHandler, FoldState, Output},
    ids,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use leatworks_broker::{BoxFuture, BrokerError, Consumer, Delivery, ErrorKind, Message, MessageId, Publish, Step};
use once::Once;
use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// The most messages that are taken into the state before it is written. The state is written whole, so a batch is large: at 4,096
/// messages a state of 1 MiB costs 256 bytes a message.
const BATCH_MAX: usize = 4096;

/// A fold could not finish, or its broker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("fold `{task}` could not finish: {error:?}")]
    Finish { task: &'static str, error: TaskError },
    #[error("fold `{task}`: {error}")]
    State { task: &'static str, error: TaskError },
}

/// Asks a fold to finish; the state is written in the same step as the result.
pub(crate) struct Finish {
    pub(crate) run_id: MessageId,
    /// How many results it has given in this run: more than none if messages came in after its last one.
    pub(crate) results: u64,
    pub(crate) state: Vec<(String, Option<Bytes>)>,
    /// Whether the run goes on when there is no result: all others would have to wait for it, again and again.
    pub(crate) may_fail: bool,
    pub(crate) done: oneshot::Sender<Given>,
}

/// What came of asking a fold for its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It is published.
    Result,
    /// There is none, and it may be another time.
    NotNow,
    /// There is none of what the fold has now.
    Never,
}

/// Where the state of a fold is kept.
pub(crate) fn state_key(topology: &str, task: &str) -> String {
    format!("fold/{topology}/{task}")
}

/// Serves a fold by all its edges until it is closed, the broker fails or the future is dropped. With `repeats` a message may come twice with one id, and is taken once.
pub(crate) async fn serve(
    edges: Vec<Arc<Edge>>,
    handler: Arc<dyn FoldHandler>,
    repeats: bool,
    mut finish: mpsc::Receiver<Finish>,
    mut closing: Closing,
) -> Result<(), FoldError> {
    loop {
        let mut owner = Owner::new(&edges, handler.clone(), repeats).await?;
        match owner.run(&mut finish, &mut closing).await {
            // A message was settled already: the state is read again, and what is unsettled comes again with the new consumers.
            Err(FoldError::Broker(error)) if error.kind() == ErrorKind::Settled => {
                tracing::info!(task = owner.task(), "a repetition was dropped");
            }
            other => return other,
        }
    }
}

type Received = (usize, Queue, Box<dyn Consumer>, leatworks_broker::Result<Vec<Delivery>>);

struct Owner<'a> {
    edges: &'a [Arc<Edge>],
    handler: Arc<dyn FoldHandler>,
    key: String,
    state: Box<dyn FoldState>,
    /// The state as it was last written.
    snapshot: Option<Bytes>,
    /// What was taken already, where that may come twice.
    once: Option<Once>,
    /// Whether only messages on their last attempt have come so far, as in a dispatcher: each is folded and settled alone then.
    careful: bool,
    receiving: FuturesUnordered<BoxFuture<'static, Received>>,
}

/// A message of a batch with the edge that it came by.
struct Item {
    edge: usize,
    taken: Taken,
    context: Context,
}

impl<'a> Owner<'a> {
    async fn new(edges: &'a [Arc<Edge>], handler: Arc<dyn FoldHandler>, repeats: bool) -> Result<Self, FoldError> {
        let first = &edges[0];
        let key = state_key(first.topology, first.task.name);
        let snapshot = first.broker.state(&key).await?;
        let state = handler.state(snapshot.as_deref()).map_err(|error| FoldError::State { task: first.task.name, error })?;
        let once = if repeats { Some(Once::open(first.broker.as_ref(), &key).await?) } else { None };
        let careful = first.retry.attempts > 1;
        let receiving = FuturesUnordered::new();
        for (index, edge) in edges.iter().enumerate() {
            for queue in [Queue::Route, Queue::Retry] {
                let consumer = dispatch::subscribe(edge, queue, BATCH_MAX).await?;
                receiving.push(receive(index, queue, consumer, if careful { 1 } else { BATCH_MAX }));
            }
        }
        Ok(Self { edges, handler, key, state, snapshot, once, careful, receiving })
    }

    fn task(&self) -> &'static str {
        self.edges[0].task.name
    }

    async fn run(&mut self, finish: &mut mpsc::Receiver<Finish>, closing: &mut Closing) -> Result<(), FoldError> {
        loop {
            tokio::select! {
                biased;
                () = closing.asked() => return Ok(()),
                Some(received) = self.receiving.next() => {
                    let mut batch = Vec::new();
                    let mut idle = Vec::new();
                    self.take(received, &mut batch, &mut idle)?;
                    while !self.careful && batch.len() < BATCH_MAX {
                        let Some(Some(received)) = self.receiving.next().now_or_never() else { break };
                        self.take(received, &mut batch, &mut idle)?;
                    }
                    self.fold(batch).await?;
                    let max = if self.careful { 1 } else { BATCH_MAX };
                    self.receiving.extend(idle.into_iter().map(|(edge, queue, consumer)| receive(edge, queue, consumer, max)));
                }
                Some(request) = finish.recv() => self.finish(request).await?,
            }
        }
    }

    fn take(
        &mut self,
        (index, queue, consumer, deliveries): Received,
        batch: &mut Vec<Item>,
        idle: &mut Vec<(usize, Queue, Box<dyn Consumer>)>,
    ) -> Result<(), FoldError> {
        let edge = &self.edges[index];
        let deliveries = deliveries?;
        self.careful &= deliveries.iter().all(|delivery| delivery.attempt >= edge.retry.attempts);
        batch.extend(deliveries.into_iter().map(|delivery| Item {
            edge: index,
            context: Context::new(edge.place.clone(), &delivery.message, delivery.attempt),
            taken: Taken { queue, delivery },
        }));
        idle.push((index, queue, consumer));
        Ok(())
    }

    /// Takes a batch into the state and settles it, all in one step.
    async fn fold(&mut self, batch: Vec<Item>) -> Result<(), FoldError> {
        let (batch, repeated) = self.without_repeated(batch);
        let mut failures: Vec<Option<TaskError>> = batch.iter().map(|item| self.worn_out(item)).collect();
        self.fold_all(&batch, &mut failures)?;
        let snapshot = self.state.snapshot().map_err(|error| FoldError::State { task: self.task(), error })?;
        let mut step = Step { guard: true, ..Step::default() };
        let mut settled = Vec::new();
        for Item { edge, taken, .. } in repeated {
            step.acks.push(self.edges[edge].ack(taken.queue, taken.delivery.position));
            settled.push((edge, None));
        }
        let mut folded = Vec::new();
        let mut traced = Vec::new();
        for (item, failure) in batch.into_iter().zip(failures) {
            let edge = &self.edges[item.edge];
            let Taken { queue, delivery } = item.taken;
            match failure {
                None => {
                    step.acks.push(edge.ack(queue, delivery.position));
                    folded.push(delivery.message.id);
                    traced.extend(edge.trace.as_ref().map(|_| (item.edge, delivery.attempt, delivery.message, true)));
                    settled.push((item.edge, Some(true)));
                }
                Some(error) => match dispatch::fail(edge, queue, delivery.position, delivery.message, delivery.attempt, &error) {
                    dispatch::Outcome::Again(queue, position, delay) => {
                        dispatch::give_back(edge, queue, position, delay).await?;
                    }
                    dispatch::Outcome::Settle(settle) => {
                        step.acks.push(settle.ack);
                        let letters = settle.publishes.iter().filter(|_| edge.trace.is_some());
                        traced.extend(letters.map(|letter| (item.edge, delivery.attempt, letter.message.clone(), false)));
                        step.publishes.extend(settle.publishes);
                        settled.push((item.edge, Some(false)));
                    }
                },
            }
        }
        if !step.acks.is_empty() {
            let changed = !folded.is_empty();
            if changed {
                step.state.push((self.key.clone(), Some(snapshot.clone())));
                // If the step comes to nothing the fold is opened anew.
                step.state.extend(self.once.iter_mut().flat_map(|once| once.note(folded.drain(..))));
            }
            dispatch::commit(self.edges[0].broker.as_ref(), step).await?;
            if changed {
                self.snapshot = Some(snapshot);
            }
        }
        self.count(&settled);
        for (edge, attempt, message, is_folded) in traced {
            let edge = &self.edges[edge];
            let Some(trace) = &edge.trace else { continue };
            if is_folded {
                trace.folded(edge, &message, attempt);
            } else {
                trace.given_up(edge, &message);
            }
        }
        Ok(())
    }

    /// Parts a batch from what was taken already, also by what comes before it in the batch.
    fn without_repeated(&self, batch: Vec<Item>) -> (Vec<Item>, Vec<Item>) {
        let Some(once) = &self.once else { return (batch, Vec::new()) };
        let mut ids = HashSet::new();
        batch.into_iter().partition(|item| {
            let message = &item.taken.delivery.message;
            !once.has(message) && (message.id.0 == 0 || ids.insert(message.id))
        })
    }

    fn worn_out(&self, item: &Item) -> Option<TaskError> {
        let attempts = self.edges[item.edge].retry.attempts;
        (item.taken.delivery.attempt > attempts).then(|| dispatch::died(attempts))
    }

    /// Folds what has not failed. After an error the state is spoilt: it is made again without the message that failed, and kept there,
    /// so that many failures in one batch cost no more than their number.
    fn fold_all(&mut self, batch: &[Item], failures: &mut [Option<TaskError>]) -> Result<(), FoldError> {
        let task = self.task();
        let state_error = |error| FoldError::State { task, error };
        let (mut base, mut from, mut keep_at, mut index) = (self.snapshot.clone(), 0, 0, 0);
        while index < batch.len() {
            let error = if failures[index].is_none() { self.fold_one(&batch[index]).err() } else { None };
            index += 1;
            if let Some(error) = error {
                // What cannot be decoded never came to the state.
                let spoilt = error.cause() != Cause::Undecodable;
                failures[index - 1] = Some(error);
                if spoilt {
                    self.state = self.handler.state(base.as_deref()).map_err(state_error)?;
                    keep_at = keep_at.max(index);
                    index = from;
                }
            }
            if index == keep_at && index > from {
                base = Some(self.state.snapshot().map_err(state_error)?);
                from = index;
            }
        }
        Ok(())
    }

    fn fold_one(&mut self, item: &Item) -> Result<(), TaskError> {
        let (state, message) = (&mut self.state, &item.taken.delivery.message);
        std::panic::catch_unwind(AssertUnwindSafe(|| state.fold(message, &item.context)))
            .unwrap_or_else(|panic| Err(dispatch::panic_error(panic.as_ref())))
    }

    /// Goes back to the state that was last written.
    fn reset(&mut self) -> Result<(), FoldError> {
        let task = self.task();
        self.state = self.handler.state(self.snapshot.as_deref()).map_err(|error| FoldError::State { task, error })?;
        Ok(())
    }

    /// Counts what was folded, what was given up, and repetitions, which are neither.
    fn count(&self, settled: &[(usize, Option<bool>)]) {
        use std::sync::atomic::Ordering::Relaxed;
        for (edge, handled) in settled {
            let edge = &self.edges[*edge];
            edge.edge_counts().settled.fetch_add(1, Relaxed);
            match handled {
                Some(true) => _ = edge.task_counts().handled.fetch_add(1, Relaxed),
                Some(false) => _ = edge.edge_counts().dead.fetch_add(1, Relaxed),
                None => tracing::debug!(edge = edge.def.id, "a repetition was dropped"),
            }
        }
    }

    async fn finish(&mut self, request: Finish) -> Result<(), FoldError> {
        let edge = self.edges[0].clone();
        let seed = ids::seed(edge.topology, edge.task.name);
        let parent = Message {
            id: ids::child_id(request.run_id, seed, u64::MAX - request.results),
            created_ms: ids::now_ms(),
            ..Message::default()
        };
        let outputs = match self.result(&edge, &parent).await {
            Err(FoldError::Finish { task, error }) if request.may_fail => {
                let given = if error.is_permanent() { Given::Never } else { Given::NotNow };
                tracing::error!(task, %error, ?given, "the fold gives no result, and keeps what it has folded");
                self.reset()?;
                let _ = request.done.send(given);
                return Ok(());
            }
            result => result?,
        };
        let emitted = outputs.len() as u64;
        // Where the result may be there without the word that it is, a second one is dropped by its number.
        let atomic = edge.broker.promises().atomic_step;
        let producer: Option<Arc<str>> = (!atomic).then(|| format!("{}/{}", self.key, request.run_id).into());
        let publishes = outputs.into_iter().enumerate().filter_map(|(index, output)| {
            let topic = edge.route(output.route?)?.clone();
            let message = Message {
                // What a fold gives came of all roots, so it is counted under none of them.
                id: ids::child_id(parent.id, seed, index as u64),
                key: output.key,
                created_ms: parent.created_ms,
                codec: edge.codec(),
                payload: output.payload,
                ..Message::default()
            };
            let sequence = producer.clone().map(|producer| (producer, request.results << 32 | index as u64));
            Some(Publish { topic, message: message.into(), sequence })
        });
        let mut step = Step { publishes: publishes.collect(), state: request.state, ..Step::default() };
        step.state.push((self.key.clone(), None));
        dispatch::commit(edge.broker.as_ref(), step).await?;
        edge.task_counts().emitted.fetch_add(emitted, std::sync::atomic::Ordering::Relaxed);
        self.snapshot = None;
        self.reset()?;
        // The run waits for this, unless it is over.
        let _ = request.done.send(Given::Result);
        Ok(())
    }

    /// The result of the fold, tried as often as its messages are.
    async fn result(&mut self, edge: &Edge, parent: &Message) -> Result<Vec<Output>, FoldError> {
        let task = self.task();
        let mut attempt = 1;
        loop {
            self.reset()?;
            let spare = self.handler.state(None).map_err(|error| FoldError::State { task, error })?;
            let state = std::mem::replace(&mut self.state, spare);
            let context = Context::new(edge.place.clone(), parent, attempt);
            let result = tokio::time::timeout(edge.timeout, guard_panic(state.finish(&context))).await;
            let result = result.unwrap_or_else(|_| {
                Err(TaskError::with_cause(Cause::Timeout, format!("it took longer than its timeout of {:?}", edge.timeout)))
            });
            match result {
                Ok(outputs) => return Ok(outputs),
                Err(error) if error.is_permanent() || attempt >= edge.retry.attempts => {
                    return Err(FoldError::Finish { task, error });
                }
                Err(error) => {
                    let delay = dispatch::backoff(edge, parent, attempt, &error);
                    tracing::warn!(task, attempt, ?delay, %error, "the fold could not finish, tried again");
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
            }
        }
    }
}

fn receive(edge: usize, queue: Queue, mut consumer: Box<dyn Consumer>, max: usize) -> BoxFuture<'static, Received> {
    Box::pin(async move {
        let received = consumer.receive(max).await;
        (edge, queue, consumer, received)
    })
}
