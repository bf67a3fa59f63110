//! What all who act in a simulation share: the broker, the chances, the oracle and the trace.

use crate::{
    oracle::{Oracle, Trial, Verdict, finding},
    random::Random,
};
use bytes::Bytes;
use leatworks_broker::*;
use leatworks_journal::simulation::SimulatedFileSystem;
use std::{
    fmt::Write,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// A call under way.
pub(crate) type Call = Pin<Box<dyn Future<Output = Answer>>>;

/// What came of one.
pub(crate) enum Answer {
    Published(Result<Vec<Position>>),
    Joined(Result<Box<dyn Consumer>>),
    /// `None` if the caller has lost patience.
    Received(Box<dyn Consumer>, Option<Result<Vec<Delivery>>>),
    /// With the keyed state that was read before, by id.
    Committed(Result<()>, Vec<(u128, Option<Bytes>)>),
    Sequence(Result<Option<u64>>),
    Account(Result<Account>),
    Stats(Result<Vec<TopicStats>>),
    Peeked(Result<Vec<(Position, Message)>>),
    Done(Result<()>),
}

/// What a seed has decided about the whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) durability: Durability,
    pub(crate) elision: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) cache_bytes_max: usize,
    pub(crate) roots: u64,
    pub(crate) steps: u64,
    /// Batches for the topic beside the graph.
    pub(crate) beside: u64,
    /// Whether everybody is eager and the disk is slow, so that roots come and go within one commit group.
    pub(crate) quick: bool,
    /// Whether dead letters are dropped and published again.
    pub(crate) looked_after: bool,
    /// Whether the power is cut, and not only the process killed.
    pub(crate) power_cuts: bool,
    pub(crate) failing_syncs: bool,
    pub(crate) full_disk: bool,
    pub(crate) unreadable: bool,
    pub(crate) seeks: bool,
    /// One in so many steps is a fault.
    pub(crate) fault_every: u64,
}

/// When the simulated time begins.
pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;

pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) trace: String,
    pub(crate) oracle: Oracle,
    pub(crate) broker: Option<Embedded>,
    pub(crate) fs: SimulatedFileSystem,
    pub(crate) began: Instant,
    /// Steps of consumers that have left.
    pub(crate) left_behind: Vec<(Call, Trial)>,
    pub(crate) holders: u64,
    /// There is hardly room in the journal: what nobody waits for may go unrecorded.
    pub(crate) crowded: bool,
    /// No more faults, no more leaving: whatever is there is to be done.
    pub(crate) draining: bool,
    /// The disk has failed: the process must end.
    pub(crate) failed: bool,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> u64 {
        BEGIN_MS + self.began.elapsed().as_millis() as u64
    }

    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.trace.write_fmt(line);
        self.trace.push('\n');
    }

    /// The broker; it is there whenever somebody acts.
    pub(crate) fn broker(&self) -> Embedded {
        self.broker.clone().expect("nobody acts while the process is ended")
    }

    /// Looks whether a call has an answer.
    pub(crate) fn poll(&mut self, call: &mut Option<Call>) -> Option<Answer> {
        let answer = poll_once(call.as_mut()?)?;
        *call = None;
        Some(answer)
    }

    /// Whether an error is one that may come at this time; whoever got it tries again.
    pub(crate) fn excused(&mut self, who: &str, error: &BrokerError) -> Verdict {
        self.note(format_args!("{who}: {:?}", error.kind()));
        match error.kind() {
            ErrorKind::Full if self.plan.full_disk => Ok(()),
            ErrorKind::Storage | ErrorKind::Closed if self.failed || self.fs.has_ended() || self.broker_failed() => {
                self.failed = true;
                Ok(())
            }
            _ => finding("refused", format!("{who}: {error}")),
        }
    }

    /// Whether the broker says that its disk has failed.
    pub(crate) fn broker_failed(&self) -> bool {
        let Some(broker) = &self.broker else { return true };
        std::pin::pin!(broker.failed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Steps of consumers that have left go on.
    pub(crate) fn poll_left_behind(&mut self) -> Verdict {
        let mut index = 0;
        while index < self.left_behind.len() {
            match poll_once(&mut self.left_behind[index].0) {
                None => index += 1,
                Some(answer) => {
                    let (_, trial) = self.left_behind.remove(index);
                    if let Answer::Committed(result, _) = answer {
                        self.note(format_args!("left behind: {:?}", result.as_ref().map_err(BrokerError::kind)));
                        self.committed("left behind", &result, &trial)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What a step's end means.
    pub(crate) fn committed(&mut self, who: &str, result: &Result<()>, trial: &Trial) -> Verdict {
        self.oracle.answered(trial);
        match result {
            Ok(()) => self.oracle.stepped(trial),
            Err(error) if error.kind() == ErrorKind::Settled => self.oracle.refused(trial),
            Err(error) => self.excused(who, error),
        }
    }

    pub(crate) fn holder(&mut self) -> u64 {
        self.holders += 1;
        self.holders
    }

    pub(crate) fn delay(&mut self) -> Duration {
        Duration::from_millis(self.random.pick(&[0, 0, 3, 20]))
    }
}

fn poll_once(future: &mut Call) -> Option<Answer> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Somebody who acts.
pub(crate) trait Actor {
    /// Does the next thing.
    fn turn(&mut self, shared: &mut Shared) -> Verdict;

    /// The process ends: whatever was under way is gone.
    fn end(&mut self, shared: &mut Shared);

    /// Whether there is nothing that it will do by itself.
    fn is_done(&self) -> bool {
        true
    }
}
