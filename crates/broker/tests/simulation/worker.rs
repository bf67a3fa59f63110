//! A dispatcher as the broker sees it: it consumes, runs, fails, commits, gives back, leaves and comes again.

use crate::{
    graph::{self, ATTEMPTS_MAX, EDGES, Edge, OUTSIDE, STATEFUL},
    oracle::{Trial, Verdict, finding},
    shared::{Actor, Answer, Call, Shared},
};
use bytes::Bytes;
use leatworks_broker::*;
use std::{cell::Cell, rc::Rc};

/// Messages of one step at most.
const STEP_MAX: usize = 3;

pub(crate) struct Worker {
    edge: usize,
    name: String,
    hand_off: HandOff,
    confirm: Confirm,
    permits: usize,
    holder: u64,
    consumer: Option<Box<dyn Consumer>>,
    call: Option<Call>,
    impatient: Rc<Cell<bool>>,
    held: Vec<Delivery>,
    /// The step under way, with the messages that it settles.
    trial: Option<(Trial, Vec<Delivery>)>,
    /// The message that is being given back.
    giving: Option<u128>,
    /// Whether the step under way was told to have happened, and is tried again as if that had not arrived.
    again: bool,
    /// After a refusal: each message alone, to see which it was.
    single: bool,
    joined: bool,
}

impl Worker {
    pub(crate) fn new(edge: usize, number: u64, shared: &mut Shared) -> Self {
        let outside = edge == OUTSIDE;
        let eager = shared.plan.quick || (!outside && shared.random.below(3) > 0);
        let applied = shared.plan.quick || (!outside && shared.random.below(3) > 0);
        Self {
            edge,
            name: format!("{}/{} {number}", EDGES[edge].topic, EDGES[edge].subscription),
            hand_off: if eager { HandOff::Eager } else { HandOff::Durable },
            confirm: if applied { Confirm::Applied } else { Confirm::Durable },
            permits: 1 + shared.random.below(6) as usize,
            holder: 0,
            consumer: None,
            call: None,
            impatient: Rc::default(),
            held: Vec::new(),
            trial: None,
            giving: None,
            again: false,
            single: false,
            joined: false,
        }
    }

    fn join(&mut self, shared: &mut Shared) {
        self.holder = shared.holder();
        let Edge { topic, subscription, kind, .. } = &EDGES[self.edge];
        let subscribe = Subscribe {
            topic: (*topic).to_owned(),
            subscription: (*subscription).to_owned(),
            kind: *kind,
            consumer: self.name.clone(),
            permits: self.permits,
            hand_off: self.hand_off,
        };
        let broker = shared.broker();
        self.call = Some(Box::pin(async move { Answer::Joined(broker.subscribe(subscribe).await) }));
    }

    fn receive(&mut self, max: usize, mut consumer: Box<dyn Consumer>) {
        self.impatient = Rc::default();
        let impatient = self.impatient.clone();
        self.call = Some(Box::pin(async move {
            let patience = std::future::poll_fn(|_| match impatient.get() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            });
            let received = tokio::select! {
                biased;
                () = patience => None,
                received = consumer.receive(max) => Some(received),
            };
            Answer::Received(consumer, received)
        }));
    }

    fn leave(&mut self, shared: &mut Shared) {
        shared.note(format_args!("{} leaves", self.name));
        shared.oracle.roomless |= shared.crowded;
        let again = std::mem::take(&mut self.again);
        if let (Some(call), Some((trial, _)), false) = (self.call.take(), self.trial.take(), again) {
            shared.left_behind.push((call, trial));
        }
        (self.call, self.consumer, self.joined) = (None, None, false);
        self.held.clear();
        if let Some(id) = self.giving.take() {
            // It goes back with its consumer then, at once.
            shared.oracle.gives_back(self.edge, id, 0);
        }
        shared.oracle.left(self.edge, self.holder);
    }

    fn fails(&self, delivery: &Delivery) -> bool {
        delivery.attempt <= graph::failing(self.edge, delivery.message.id.0)
    }

    fn work(&mut self, shared: &mut Shared) {
        let first = self.held.remove(0);
        if self.fails(&first) && first.attempt < ATTEMPTS_MAX {
            return self.give_back(first, shared);
        }
        let mut settled = vec![first];
        let most = if self.single { 1 } else { 1 + shared.random.below(STEP_MAX as u64) as usize };
        while settled.len() < most && self.held.first().is_some_and(|next| !self.fails(next) || next.attempt >= ATTEMPTS_MAX) {
            settled.push(self.held.remove(0));
        }
        self.step(settled, shared);
    }

    fn give_back(&mut self, delivery: Delivery, shared: &mut Shared) {
        let (broker, delay, position) = (shared.broker(), shared.delay(), delivery.position);
        let Edge { topic, subscription, .. } = &EDGES[self.edge];
        shared.note(format_args!("{} gives {} back for {delay:?}", self.name, position.0));
        let due_ms = if delay.is_zero() { 0 } else { shared.now_ms() + delay.as_millis() as u64 };
        self.giving = Some(delivery.message.id.0);
        shared.oracle.gives_back(self.edge, delivery.message.id.0, due_ms);
        self.call = Some(Box::pin(async move { Answer::Done(broker.nack(topic, subscription, position, delay).await) }));
    }

    fn step(&mut self, settled: Vec<Delivery>, shared: &mut Shared) {
        let Edge { topic, subscription, output, dead, .. } = &EDGES[self.edge];
        let mut step = Step { guard: true, confirm: self.confirm, ..Step::default() };
        let durable = self.confirm == Confirm::Durable;
        let mut trial = Trial { edge: self.edge, inputs: Vec::new(), durable };
        let mut reads = Vec::new();
        for Delivery { position, message, attempt } in &settled {
            let (id, root) = (message.id.0, message.root.0);
            let success = self.edge == OUTSIDE || (*attempt > graph::failing(self.edge, id) && *attempt <= ATTEMPTS_MAX);
            step.acks.push(Ack {
                topic: (*topic).into(),
                subscription: (*subscription).into(),
                position: *position,
                cumulative: false,
            });
            let outputs = match (success, output) {
                (true, Some(output)) => graph::outputs(self.edge, id).into_iter().map(|id| (*output, id)).collect(),
                (true, None) => Vec::new(),
                (false, _) => vec![(*dead, graph::dead(self.edge, id))],
            };
            for (output, child) in outputs {
                shared.oracle.tries(output, child);
                let message = graph::message(child, root, shared.now_ms(), None);
                step.publishes.push(Publish { topic: output.into(), message: message.into(), sequence: None });
                if success && self.edge == STATEFUL {
                    shared.oracle.stateful.insert(child);
                    step.state.push((graph::state_key(child), Some(Bytes::copy_from_slice(&child.to_le_bytes()))));
                }
            }
            if self.edge == OUTSIDE {
                step.state.push((graph::state_key(id), None));
                // Reading waits for what was written to be durable.
                reads.extend((self.hand_off == HandOff::Durable).then_some(id));
            }
            trial.inputs.push((id, position.0, success));
        }
        let positions: Vec<u64> = settled.iter().map(|delivery| delivery.position.0).collect();
        shared.note(format_args!("{} settles {positions:?}{}", self.name, if self.again { " again" } else { "" }));
        if !self.again {
            shared.oracle.steps(&trial);
        }
        self.trial = Some((trial, settled));
        let broker = shared.broker();
        self.call = Some(Box::pin(async move {
            let mut found = Vec::new();
            for id in reads {
                match broker.state(&graph::state_key(id)).await {
                    Ok(value) => found.push((id, value)),
                    Err(error) => return Answer::Committed(Err(error), Vec::new()),
                }
            }
            Answer::Committed(broker.commit(step).await, found)
        }));
    }

    fn answered(&mut self, answer: Answer, shared: &mut Shared) -> Verdict {
        match answer {
            Answer::Joined(Ok(consumer)) => {
                shared.note(format_args!("{} joins as {}", self.name, self.holder));
                (self.consumer, self.joined) = (Some(consumer), true);
                Ok(())
            }
            Answer::Joined(Err(error)) => shared.excused(&self.name, &error),
            Answer::Received(consumer, received) => {
                self.consumer = Some(consumer);
                self.received(received, shared)
            }
            Answer::Committed(result, found) => self.committed(result, found, shared),
            Answer::Done(Err(error)) => {
                // It still has the message, and nobody knows how the broker counts it.
                self.leave(shared);
                shared.excused(&self.name, &error)
            }
            _ => {
                self.giving = None;
                Ok(())
            }
        }
    }

    fn received(&mut self, received: Option<Result<Vec<Delivery>>>, shared: &mut Shared) -> Verdict {
        match received {
            None => Ok(()),
            Some(Ok(deliveries)) => {
                for delivery in deliveries {
                    let Delivery { position, attempt, message } = &delivery;
                    shared.note(format_args!("{} gets {} {:032x} attempt {attempt}", self.name, position.0, message.id.0));
                    let now_ms = shared.now_ms();
                    let eager = self.hand_off == HandOff::Eager;
                    shared.oracle.delivered(self.edge, self.holder, eager, &delivery, now_ms)?;
                    self.held.push(delivery);
                }
                Ok(())
            }
            Some(Err(error)) => {
                if error.kind() == ErrorKind::Full && shared.random.one_in(3) {
                    self.leave(shared);
                }
                shared.excused(&self.name, &error)
            }
        }
    }

    fn committed(&mut self, result: Result<()>, found: Vec<(u128, Option<Bytes>)>, shared: &mut Shared) -> Verdict {
        let Some((trial, settled)) = self.trial.take() else { return Ok(()) };
        shared.note(format_args!("{} has settled: {:?}", self.name, result.as_ref().map_err(BrokerError::kind)));
        if std::mem::take(&mut self.again) {
            return match result {
                Err(error) if error.kind() == ErrorKind::Settled => Ok(()),
                Err(error) => shared.excused(&self.name, &error),
                Ok(()) => finding("duplicate", format!("{} has settled the same twice", self.name)),
            };
        }
        for (id, value) in found {
            let from_state = shared.oracle.stateful.contains(&id);
            let right = value.as_deref() == Some(&id.to_le_bytes()[..]);
            if from_state && !right && result.is_ok() {
                return finding("state", format!("{id:032x} came without its state: {value:?}"));
            }
        }
        shared.committed(&self.name, &result, &trial)?;
        match result.map_err(|error| error.kind()) {
            Ok(()) => {
                self.single = false;
                self.again = !shared.draining && shared.random.one_in(20);
                if self.again {
                    self.step(settled, shared);
                }
            }
            Err(ErrorKind::Settled) if settled.len() == 1 => self.single = false,
            Err(_) => {
                // Again: each alone, if one of several was refused.
                self.single = true;
                self.held.splice(0..0, settled);
            }
        }
        Ok(())
    }
}

impl Actor for Worker {
    fn turn(&mut self, shared: &mut Shared) -> Verdict {
        let leaves = !shared.draining && self.joined && shared.random.one_in(80);
        if leaves {
            self.leave(shared);
            return Ok(());
        }
        let mut call = self.call.take();
        if call.is_some() {
            if let Some(answer) = shared.poll(&mut call) {
                return self.answered(answer, shared);
            }
            self.call = call;
            if self.trial.is_none() && shared.random.one_in(10) {
                self.impatient.set(true);
            }
            return Ok(());
        }
        if !self.joined {
            if shared.draining || shared.random.one_in(4) {
                self.join(shared);
            }
        } else if self.held.is_empty() || (self.held.len() < self.permits && shared.random.one_in(4)) {
            let max = 1 + shared.random.below(4) as usize;
            if let Some(consumer) = self.consumer.take() {
                self.receive(max, consumer);
            }
        } else {
            self.work(shared);
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Shared) {
        (self.call, self.consumer, self.trial, self.giving) = (None, None, None, None);
        (self.joined, self.single, self.again) = (false, false, false);
        self.held.clear();
    }

    fn is_done(&self) -> bool {
        self.held.is_empty() && self.trial.is_none() && self.giving.is_none()
    }
}
