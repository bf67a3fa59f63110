//! What a handler writes outside the journal is made durable before its messages are settled.

mod support;

use futures_util::FutureExt;
use leatworks::{
    Context, Setup, TaskError,
    broker::{BoxFuture, Broker, Message, MessageId},
    def::Kind,
    handler::{Handled, Handler, Output},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock},
};
use support::*;

static BROKER: OnceLock<Arc<dyn Broker>> = OnceLock::new();
static SEEN: Mutex<Seen> = Mutex::new(Seen { flushes: 0, flushed: BTreeSet::new(), settled_before: 0 });

struct Seen {
    flushes: u64,
    /// Roots whose flush has succeeded.
    flushed: BTreeSet<MessageId>,
    /// Roots that were done when they came to be flushed.
    settled_before: u64,
}

/// Its first flush fails.
struct Keeper;

fn open(_setup: &Setup) -> BoxFuture<'_, Result<Arc<dyn Handler>, TaskError>> {
    Box::pin(async { Ok(Arc::new(Keeper) as Arc<dyn Handler>) })
}

impl Handler for Keeper {
    fn handle<'a>(&'a self, _message: &'a Message, _cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn flush<'a>(&'a self, messages: Handled<'a>) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(async move {
            let mut seen = SEEN.lock().unwrap();
            seen.flushes += 1;
            let broker = BROKER.get().unwrap();
            for message in messages {
                seen.settled_before += u64::from(broker.root_outcome(message.root).now_or_never().is_some());
                if seen.flushes > 1 {
                    seen.flushed.insert(message.root);
                }
            }
            if seen.flushes == 1 { Err(TaskError::retryable("the disk says no")) } else { Ok(()) }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_flushed_before_it_is_settled_and_tried_again_if_that_fails() {
    const MESSAGES: u64 = 500;
    let broker = BROKER.get_or_init(memory).clone();
    let topology = topology("flushed", vec![node("keep", Kind::Rust(open))], &[]);
    let report = run_roots(broker, topology, MESSAGES).await;
    let seen = SEEN.lock().unwrap();
    assert_eq!((report.done, report.dead_lettered, report.tasks["keep"].handled), (MESSAGES, 0, MESSAGES));
    assert!(report.tasks["keep"].retried > 0, "the batch of the flush that failed comes again");
    assert_eq!((seen.flushed.len() as u64, seen.settled_before), (MESSAGES, 0));
    assert!(seen.flushes < MESSAGES, "one flush serves a batch: {}", seen.flushes);
}
