//! A lane: runs a batch of messages in order, and hands over what is finished before it would wait.

use super::{
    Edge, FLUSH_AFTER, Taken,
    attempt::{self, Outcome},
};
use futures_util::poll;
use std::{pin::pin, sync::Arc, task::Poll, time::Instant};
use tokio::sync::mpsc;

/// How quick the messages of a lane were, which decides how many are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// All were done within the time that finished messages may be held back.
    Quick,
    /// At least one was not.
    Slow,
}

/// Runs a batch. A task that does not wait costs no timer and no wake-up.
pub(super) async fn run(edge: Arc<Edge>, batch: Vec<Taken>, results: mpsc::UnboundedSender<Vec<Outcome>>) -> Pace {
    let mut pace = Pace::Quick;
    let mut finished = Vec::with_capacity(batch.len());
    let mut since = Instant::now();
    for taken in batch {
        let mut attempt = pin!(attempt::run(&edge, taken));
        let outcome = match poll!(&mut attempt) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                // The dispatcher is gone only when the run is over, and then the messages are given back with their consumer.
                let _ = results.send(std::mem::take(&mut finished));
                attempt.await
            }
        };
        finished.push(outcome);
        if since.elapsed() > FLUSH_AFTER {
            pace = Pace::Slow;
            let _ = results.send(std::mem::take(&mut finished));
            since = Instant::now();
        }
    }
    let _ = results.send(finished);
    pace
}
