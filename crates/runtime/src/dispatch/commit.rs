//! Settling messages: several outcomes in one atomic step.

use super::{
    Edge, Outcome, Queue,
    attempt::{self, Settle},
};
use crate::TaskError;
use leatworks_broker::{Broker, BrokerError, Confirm, ErrorKind, Position, Step};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// The most messages that one step settles.
const STEP_MESSAGES_MAX: usize = 1024;

/// The most bytes of outputs in one step, unless a single message gives more. A group of 4 MiB takes a slow disk (120 MB/s) 33 ms.
pub(crate) const STEP_BYTES_MAX: usize = 4 << 20;

/// The first wait before a commit is tried again that a full disk or a lost connection has held up.
const RETRY_FIRST: Duration = Duration::from_millis(20);

/// The longest wait: soon enough after there is room again.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Takes from the front what fits into one step.
pub(super) fn next_step(finished: &mut Vec<Outcome>) -> Vec<Outcome> {
    let mut bytes = 0;
    let mut count = 0;
    for outcome in finished.iter().take(STEP_MESSAGES_MAX) {
        bytes += self::bytes(outcome);
        if count > 0 && bytes > STEP_BYTES_MAX {
            break;
        }
        count += 1;
    }
    if count == finished.len() {
        return std::mem::take(finished);
    }
    let rest = finished.split_off(count);
    std::mem::replace(finished, rest)
}

/// The bytes of a message's outputs.
pub(super) fn bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Settle(settle) => settle.publishes.iter().map(|publish| publish.message.payload.len()).sum(),
        Outcome::Again(..) => 0,
    }
}

/// Settles messages, and counts them when that is done.
pub(super) async fn settle(edge: Arc<Edge>, outcomes: Vec<Outcome>) -> Result<(), BrokerError> {
    let count = outcomes.len();
    settle_all(&edge, outcomes).await?;
    if let Some(watch) = &edge.watch {
        watch.done(count);
    }
    Ok(())
}

async fn settle_all(edge: &Edge, outcomes: Vec<Outcome>) -> Result<(), BrokerError> {
    let mut settles = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Outcome::Settle(settle) => settles.push(settle),
            Outcome::Again(queue, position, delay) => give_back(edge, queue, position, delay).await?,
        }
    }
    if let Err(error) = flush(edge, &settles).await {
        settles = unflushed(edge, settles, &error).await?;
    }
    if settles.is_empty() {
        return Ok(());
    }
    settle_some(edge, settles).await
}

/// Settles all of these in one step, or in as many as it takes.
async fn settle_some(edge: &Edge, settles: Vec<Settle>) -> Result<(), BrokerError> {
    let made = match settles.len() {
        1 => commit_made(edge.broker.as_ref(), || step(&settles)).await,
        _ => patiently(|| edge.broker.commit(step(&settles))).await,
    };
    match made {
        Ok(()) => {
            settles.iter().for_each(|settle| count(edge, settle));
            Ok(())
        }
        // On a full disk small steps may find room where a large one does not.
        Err(error) if error.kind() == ErrorKind::Full && settles.len() > 1 => {
            let mut settles = settles;
            let rest = settles.split_off(settles.len() / 2);
            Box::pin(settle_some(edge, settles)).await?;
            Box::pin(settle_some(edge, rest)).await
        }
        // One of them was settled already, or they are too much for one step: each for itself then, so that the others still happen.
        Err(error) if is_about_one(&error) => settle_each(edge, settles).await,
        Err(error) => Err(error),
    }
}

/// Has the handler make durable what came of the messages that it has handled well.
async fn flush(edge: &Edge, settles: &[Settle]) -> Result<(), TaskError> {
    let (Some(handler), true) = (&edge.handler, settles.iter().any(|settle| settle.origin.is_some())) else { return Ok(()) };
    let messages = settles
        .iter()
        .filter_map(|settle| settle.origin.as_ref())
        .map(|(message, _)| attempt::opened(edge, message).into_owned());
    attempt::guard_panic(handler.flush(Box::new(messages))).await
}

/// Has the handled messages of a batch fail, and gives what is to be settled nevertheless.
async fn unflushed(edge: &Edge, settles: Vec<Settle>, error: &TaskError) -> Result<Vec<Settle>, BrokerError> {
    let mut rest = Vec::new();
    for mut settle in settles {
        let Some((message, attempt)) = settle.origin.take() else {
            rest.push(settle);
            continue;
        };
        let queue = if settle.ack.topic == *edge.topic(Queue::Retry) { Queue::Retry } else { Queue::Route };
        match attempt::fail(edge, queue, settle.ack.position, message, attempt, error) {
            Outcome::Settle(dead) => rest.push(dead),
            Outcome::Again(queue, position, delay) => give_back(edge, queue, position, delay).await?,
        }
    }
    Ok(rest)
}

/// Gives a message back, to be delivered again after the delay.
pub(crate) async fn give_back(edge: &Edge, queue: Queue, position: Position, delay: Duration) -> Result<(), BrokerError> {
    let mut wait = RETRY_FIRST;
    loop {
        match edge.broker.nack(edge.topic(queue), &edge.subscription, position, delay).await {
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            // Settled by another consumer meanwhile, so there is nothing to give back.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Settled) => return Ok(()),
            other => return other,
        }
    }
}

fn is_about_one(error: &BrokerError) -> bool {
    matches!(error.kind(), ErrorKind::Settled | ErrorKind::TooLarge | ErrorKind::Invalid)
}

async fn settle_each(edge: &Edge, settles: Vec<Settle>) -> Result<(), BrokerError> {
    for settle in settles {
        match commit_made(edge.broker.as_ref(), || step(std::slice::from_ref(&settle))).await {
            Ok(()) => count(edge, &settle),
            Err(error) if error.kind() == ErrorKind::Settled => {
                tracing::info!(edge = edge.def.id, position = settle.ack.position.0, "a repetition was dropped");
            }
            Err(error) if is_about_one(&error) => refuse(edge, settle, error).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The broker refuses what came of a message, and will do so again: the message is given up.
async fn refuse(edge: &Edge, settle: Settle, error: BrokerError) -> Result<(), BrokerError> {
    let Some((message, attempt)) = settle.origin else { return Err(error) };
    edge.task_counts().failed.fetch_add(1, Relaxed);
    let error = TaskError::permanent(format!("the broker refuses its outputs: {error}"));
    let dead = attempt::give_up_with(edge, settle.ack, message, attempt, &error);
    commit_made(edge.broker.as_ref(), || step(std::slice::from_ref(&dead))).await?;
    count(edge, &dead);
    Ok(())
}

fn step(settles: &[Settle]) -> Step {
    Step {
        acks: settles.iter().map(|settle| settle.ack.clone()).collect(),
        publishes: settles.iter().flat_map(|settle| settle.publishes.iter().cloned()).collect(),
        state: Vec::new(),
        guard: true,
        confirm: Confirm::Applied,
    }
}

fn count(edge: &Edge, settle: &Settle) {
    let (task, on_edge) = (edge.task_counts(), edge.edge_counts());
    on_edge.settled.fetch_add(1, Relaxed);
    if let Some(trace) = &edge.trace {
        let messages = settle.publishes.iter().map(|publish| publish.message.as_ref());
        match &settle.origin {
            Some((message, attempt)) => trace.handled(edge, message, *attempt, settle.took, messages),
            None => messages.for_each(|letter| trace.given_up(edge, letter)),
        }
    }
    match settle.emitted {
        Some(emitted) => {
            task.handled.fetch_add(1, Relaxed);
            task.emitted.fetch_add(emitted, Relaxed);
        }
        None => {
            on_edge.dead.fetch_add(1, Relaxed);
        }
    }
}

/// Asks again, without end, as long as the service is away: what runs goes on when it is back.
pub(crate) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut wait = RETRY_FIRST;
    loop {
        match ask().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, ?wait, "the broker is away, and is waited for");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            other => return other,
        }
    }
}

/// Commits a step, and tries again as long as the broker says that it may succeed later.
pub(crate) async fn commit(broker: &dyn Broker, step: Step) -> Result<(), BrokerError> {
    commit_made(broker, || step.clone()).await
}

/// The same for a step that is made anew for each try, which spares the copy that is hardly ever needed.
async fn commit_made(broker: &dyn Broker, step: impl Fn() -> Step) -> Result<(), BrokerError> {
    let mut wait = RETRY_FIRST;
    loop {
        match broker.commit(step()).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, ?wait, "a commit waits");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            other => return other,
        }
    }
}
