//! Who sends roots: in batches with sequences, again if it was not told, and sometimes though it was.

use crate::{
    graph,
    oracle::{Verdict, finding},
    random::derive,
    shared::{Actor, Answer, Call, Shared},
};
use leatworks_broker::{Broker, Publish};

pub(crate) struct Producer {
    pub(crate) name: &'static str,
    pub(crate) number: u64,
    pub(crate) last: u64,
    /// The last sequence that was told to be durable, and the last that was tried.
    pub(crate) told: u64,
    tried: u64,
    next: u64,
    call: Option<Call>,
    under_way: Vec<u64>,
    /// Whether nothing of what is under way was tried before.
    fresh: bool,
    asking: bool,
}

impl Producer {
    pub(crate) fn new(name: &'static str, number: u64, last: u64) -> Self {
        Self { name, number, last, told: 0, tried: 0, next: 1, call: None, under_way: Vec::new(), fresh: false, asking: false }
    }

    pub(crate) fn root(&self, sequence: u64) -> u128 {
        derive(u128::from(self.number + 1), sequence)
    }

    fn send(&mut self, shared: &mut Shared) {
        // Some that were sent before come again in front.
        let again = if shared.random.one_in(4) { shared.random.below(3) } else { 0 };
        let first = self.next.saturating_sub(again).max(1);
        let last = (self.next + shared.random.below(4)).min(self.last);
        self.under_way = (first..=last).collect();
        self.fresh = first > self.tried;
        self.tried = self.tried.max(last);
        let now_ms = shared.now_ms();
        let mut batch = Vec::new();
        for sequence in &self.under_way {
            let root = self.root(*sequence);
            shared.oracle.tries("in", root);
            let later = (root >> 7).is_multiple_of(8);
            let message = graph::message(root, root, now_ms, later.then_some(now_ms + 15));
            let sequence = Some((self.name.into(), *sequence));
            batch.push(Publish { topic: "in".into(), message: message.into(), sequence });
        }
        shared.note(format_args!("{} sends {first} to {last}", self.name));
        let broker = shared.broker();
        self.call = Some(Box::pin(async move { Answer::Published(broker.publish(batch).await) }));
    }

    fn ask(&mut self, shared: &mut Shared) {
        let (broker, name) = (shared.broker(), self.name);
        self.call = Some(Box::pin(async move { Answer::Sequence(broker.last_sequence("in", name).await) }));
    }

    fn answered(&mut self, answer: Answer, shared: &mut Shared) -> Verdict {
        match answer {
            Answer::Published(Ok(positions)) => {
                shared.note(format_args!("{} was told {positions:?}", self.name));
                // Of a repetition it is only said where the last one went.
                for (sequence, position) in self.under_way.iter().zip(&positions).filter(|_| self.fresh) {
                    shared.oracle.published("in", self.root(*sequence), position.0)?;
                }
                self.told = self.told.max(self.under_way.last().copied().unwrap_or(0));
                self.next = self.next.max(self.told + 1);
                Ok(())
            }
            Answer::Sequence(Ok(last)) => {
                let last = last.unwrap_or(0);
                shared.note(format_args!("{} is at {last}", self.name));
                self.asking = false;
                if last < self.told || last > self.tried {
                    return finding("sequence", format!("{} is at {last}, told {}, tried {}", self.name, self.told, self.tried));
                }
                // What is there is durable, and what is not is sent now.
                self.told = last;
                self.next = last + 1;
                Ok(())
            }
            Answer::Published(Err(error)) | Answer::Sequence(Err(error)) => shared.excused(self.name, &error),
            _ => Ok(()),
        }
    }
}

impl Actor for Producer {
    fn turn(&mut self, shared: &mut Shared) -> Verdict {
        let mut call = self.call.take();
        if let Some(answer) = shared.poll(&mut call) {
            return self.answered(answer, shared);
        }
        self.call = call;
        if self.call.is_none() {
            if self.asking {
                self.ask(shared);
            } else if self.next <= self.last {
                self.send(shared);
            }
        }
        Ok(())
    }

    fn end(&mut self, shared: &mut Shared) {
        self.call = None;
        // It asks where it was, or simply sends everything again that it was not told of.
        self.asking = shared.random.one_in(2);
        self.next = self.told + 1;
    }

    fn is_done(&self) -> bool {
        self.told == self.last && self.call.is_none()
    }
}
