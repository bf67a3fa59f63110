//! Sends messages at exact times and waits for their roots, on one thread.

use super::Failed;
use futures_util::{StreamExt, stream::FuturesUnordered};
use leatworks_broker::{Broker, Publish};
use rustix::thread::set_current_timer_slack;
use std::{
    num::NonZeroU64,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long the kernel may put off waking the sender to save energy. By default it is 50 µs, half of what some disks take for a sync.
const TIMER_SLACK_NS: u64 = 1;

/// How long to wait when only the roots are waited for: nobody wakes the thread if the broker forgets one.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What became of the messages.
pub(crate) struct Sent {
    /// From when each was due until nothing of it was pending, in the order of finishing.
    pub(crate) done_after: Vec<Duration>,
    /// How much later than due each was sent.
    pub(crate) late: Vec<Duration>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sends the messages, so many a second, and waits until nothing of them is pending.
pub(crate) fn send(handle: &Handle, broker: &Arc<dyn Broker>, messages: Vec<Publish>, rate: u64) -> Result<Sent, Failed> {
    let _inside = handle.enter();
    // Without it the figures are less exact, and `late` shows by how much.
    let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut pending = FuturesUnordered::new();
    let (mut done_after, mut late) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
    let start = Instant::now();
    let due = |index: usize| start + Duration::from_secs_f64(index as f64 / rate as f64);
    let mut messages = messages.into_iter();
    loop {
        while messages.len() > 0 && due(late.len()) <= Instant::now() {
            let (due, Some(publish)) = (due(late.len()), messages.next()) else { break };
            late.push(due.elapsed());
            pending.push(async move {
                let root = publish.message.root;
                broker.publish(vec![publish]).await?;
                broker.root_outcome(root).await?;
                Ok::<_, Failed>(due.elapsed())
            });
        }
        while let Poll::Ready(Some(after)) = pending.poll_next_unpin(&mut context) {
            done_after.push(after?);
        }
        if messages.len() == 0 && pending.is_empty() {
            return Ok(Sent { done_after, late });
        }
        // Whoever is woken between the look and the wait does not wait: the permit to go on is kept.
        match messages.len() {
            0 => thread::park_timeout(LAST_WAIT),
            _ => thread::park_timeout(due(late.len()).saturating_duration_since(Instant::now())),
        }
    }
}
