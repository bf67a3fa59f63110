//! A lane: runs a batch of messages in order, and hands over what is finished before it would wait.

use super::{
    Closing, Edge, FLUSH_AFTER, Taken,
    attempt::{self, Outcome},
};
use crate::{
    Context, TaskError,
    handler::{BatchHandler, Call},
    ids,
};
use futures_util::poll;
use std::{
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How quick the messages of a lane were, which decides how many are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// All were done at once, within the time that finished messages may be held back.
    Quick,
    /// At least one was not, or had to wait for something: the others are better off in lanes of their own.
    Slow,
}

/// How long a batch that is handed over whole may take to count as quick. Far above a round trip on one machine (0.2 ms), and well below what anybody waits for:
/// a worker that dies takes an attempt of each message that it has.
const TOGETHER_QUICK: Duration = Duration::from_millis(20);

/// After so many messages the clock is read.
const CLOCK_MESSAGES: usize = 4;

/// What a lane hands to its dispatcher.
pub(super) enum Handed {
    /// Messages that have been run.
    Finished(Vec<Outcome>),
    /// The rest of a batch, in order, that has not been run: its lane waits for a slow message and other lanes may be free, or its worker could not be reached.
    Rest(Vec<Taken>),
}

/// Runs a batch. A task that does not wait costs no timer and no wake-up.
pub(super) async fn run(edge: Arc<Edge>, batch: Vec<Taken>, results: mpsc::UnboundedSender<Handed>, closing: Closing) -> Pace {
    if let Some(handler) = edge.handler.as_ref().and_then(|handler| handler.batch()) {
        return together(&edge, handler, batch, &results).await;
    }
    let mut pace = Pace::Quick;
    let mut finished = Vec::with_capacity(batch.len());
    let mut since = Instant::now();
    let mut now_ms = ids::now_ms();
    let mut batch = batch.into_iter();
    while let Some(taken) = batch.next() {
        let mut attempt = pin!(attempt::run(&edge, taken, now_ms, &closing));
        let outcome = match poll!(&mut attempt) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                // The dispatcher is gone only when the run is over, and then the messages are given back with their consumer.
                let _ = results.send(Handed::Finished(std::mem::take(&mut finished)));
                if edge.parallelism > 1 && batch.len() > 0 {
                    pace = Pace::Slow;
                    let _ = results.send(Handed::Rest(std::mem::take(&mut batch).collect()));
                }
                attempt.await
            }
        };
        finished.push(outcome);
        // The clock is read once for a few messages: reading it takes as long as some tasks.
        if !batch.len().is_multiple_of(CLOCK_MESSAGES) {
            continue;
        }
        now_ms = ids::now_ms();
        if since.elapsed() > FLUSH_AFTER {
            pace = Pace::Slow;
            let _ = results.send(Handed::Finished(std::mem::take(&mut finished)));
            since = Instant::now();
        }
    }
    let _ = results.send(Handed::Finished(finished));
    pace
}

/// Hands a batch over whole, and what comes of it on as it comes.
async fn together(edge: &Edge, handler: &dyn BatchHandler, batch: Vec<Taken>, results: &mpsc::UnboundedSender<Handed>) -> Pace {
    let since = Instant::now();
    let mut held = Vec::with_capacity(batch.len());
    let mut finished = Vec::new();
    for taken in batch {
        match attempt::hold(edge, taken) {
            Ok(message) => held.push(message),
            Err(outcome) => finished.push(outcome),
        }
    }
    // The dispatcher is gone only when the run is over, and then the messages are given back with their consumer.
    let _ = results.send(Handed::Finished(finished));
    let calls = held.iter().map(|held| {
        let message = attempt::opened(edge, &held.message).into_owned();
        let cx = Context::new(edge.place.clone(), &message, held.attempt);
        Call { message, cx }
    });
    let calls: Vec<Call> = calls.collect();
    let mut held: Vec<Option<attempt::Held>> = held.into_iter().map(Some).collect();
    // Not bounded by itself: there is one answer for each message of the batch.
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut work = pin!(handler.handle_all(&calls, edge.timeout, sender));
    let mut working = true;
    let mut some = Vec::new();
    let mut untried = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = answers.recv_many(&mut some, calls.len().max(1)) => {
                if count == 0 {
                    break;
                }
                let now_ms = ids::now_ms();
                let mut outcomes = Vec::with_capacity(some.len());
                for (index, result) in some.drain(..) {
                    let Some(held) = held.get_mut(index).and_then(Option::take) else { continue };
                    match result {
                        Err(error) if error.is_unreached() => untried.push(held.untried()),
                        result => {
                            if let Some(watch) = &edge.watch {
                                watch.called(since.elapsed());
                            }
                            outcomes.push(attempt::conclude(edge, held, result, now_ms));
                        }
                    }
                }
                let _ = results.send(Handed::Finished(outcomes));
            }
            () = &mut work, if working => working = false,
        }
    }
    let rest = held.into_iter().flatten().map(|held| {
        attempt::conclude(edge, held, Err(TaskError::retryable("its batch ended without an answer for it")), ids::now_ms())
    });
    let _ = results.send(Handed::Finished(rest.collect()));
    if !untried.is_empty() {
        // A worker that is away is not taken for one that takes batches, so each of them waits for it by itself.
        let _ = results.send(Handed::Rest(untried));
        return Pace::Slow;
    }
    if since.elapsed() <= TOGETHER_QUICK { Pace::Quick } else { Pace::Slow }
}
