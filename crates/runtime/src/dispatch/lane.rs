//! A lane: runs a batch of messages in order, and hands over what is finished before it would wait.

use super::{
    Edge, FLUSH_AFTER, Taken,
    attempt::{self, Outcome},
};
use crate::ids;
use futures_util::poll;
use std::{pin::pin, sync::Arc, task::Poll, time::Instant};
use tokio::sync::mpsc;

/// How quick the messages of a lane were, which decides how many are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// All were done at once, within the time that finished messages may be held back.
    Quick,
    /// At least one was not, or had to wait for something: the others are better off in lanes of their own.
    Slow,
}

/// After so many messages the clock is read.
const CLOCK_MESSAGES: usize = 4;

/// What a lane hands to its dispatcher.
pub(super) enum Handed {
    /// Messages that have been run.
    Finished(Vec<Outcome>),
    /// The rest of a batch, in order, whose lane waits for a slow message: other lanes may be free.
    Rest(Vec<Taken>),
}

/// Runs a batch. A task that does not wait costs no timer and no wake-up.
pub(super) async fn run(edge: Arc<Edge>, batch: Vec<Taken>, results: mpsc::UnboundedSender<Handed>) -> Pace {
    let mut pace = Pace::Quick;
    let mut finished = Vec::with_capacity(batch.len());
    let mut since = Instant::now();
    let mut now_ms = ids::now_ms();
    let mut batch = batch.into_iter();
    while let Some(taken) = batch.next() {
        let mut attempt = pin!(attempt::run(&edge, taken, now_ms));
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
