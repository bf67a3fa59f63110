//! Who looks after dead letters, who looks at everything, and a topic beside the graph that keeps its messages for a while.

use crate::{
    graph::{self, EDGES, Fate},
    oracle::{Verdict, finding},
    shared::{Actor, Answer, Call, Shared},
};
use leatworks_broker::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// Drops dead letters, or publishes them again, or lets them lie.
pub(crate) struct Keeper {
    edge: usize,
    consumer: Option<Box<dyn Consumer>>,
    call: Option<Call>,
    joined: bool,
    held: Vec<Delivery>,
    settling: Option<Delivery>,
}

impl Keeper {
    pub(crate) fn new(edge: usize) -> Self {
        Self { edge, consumer: None, call: None, joined: false, held: Vec::new(), settling: None }
    }

    fn settle(&mut self, delivery: Delivery, shared: &mut Shared) {
        let letter = delivery.message.id.0;
        let topic = EDGES[self.edge].dead;
        let ack = Ack { topic: topic.into(), subscription: "park".into(), position: delivery.position, cumulative: false };
        let mut step = Step { acks: vec![ack], guard: true, ..Step::default() };
        match graph::fate(self.edge, letter) {
            Fate::Stays => return,
            Fate::Dropped => _ = shared.oracle.dropped.insert(letter),
            Fate::Redriven => {
                let (id, to) = (graph::again(letter), EDGES[self.edge].topic);
                shared.oracle.tries(to, id);
                let message = graph::message(id, delivery.message.root.0, shared.now_ms(), None);
                step.publishes.push(Publish { topic: to.into(), message: message.into(), sequence: None });
            }
        }
        shared.note(format_args!("{topic}: {letter:032x} is settled"));
        self.settling = Some(delivery);
        let broker = shared.broker();
        self.call = Some(Box::pin(async move { Answer::Committed(broker.commit(step).await, Vec::new()) }));
    }
}

impl Actor for Keeper {
    fn turn(&mut self, shared: &mut Shared) -> Verdict {
        let topic = EDGES[self.edge].dead;
        let mut call = self.call.take();
        if call.is_some() {
            let answer = shared.poll(&mut call);
            self.call = call;
            match answer {
                Some(Answer::Joined(Ok(consumer))) => (self.consumer, self.joined) = (Some(consumer), true),
                Some(Answer::Received(consumer, Some(received))) => {
                    self.consumer = Some(consumer);
                    match received {
                        Ok(deliveries) => self.held.extend(deliveries),
                        Err(error) => shared.excused(topic, &error)?,
                    }
                }
                Some(Answer::Committed(result, _)) => {
                    let settled = self.settling.take();
                    match result {
                        Ok(()) => {}
                        // A step of a life before may have happened without being told.
                        Err(error) if error.kind() == ErrorKind::Settled => {}
                        Err(error) => {
                            self.held.extend(settled);
                            shared.excused(topic, &error)?;
                        }
                    }
                }
                Some(Answer::Joined(Err(error))) => shared.excused(topic, &error)?,
                _ => {}
            }
            return Ok(());
        }
        if !self.joined {
            let subscribe = Subscribe {
                topic: topic.to_owned(),
                subscription: "park".to_owned(),
                kind: SubscriptionKind::Shared,
                consumer: "keeper".to_owned(),
                permits: 1_000,
                hand_off: HandOff::Durable,
            };
            let broker = shared.broker();
            self.call = Some(Box::pin(async move { Answer::Joined(broker.subscribe(subscribe).await) }));
        } else if let Some(delivery) = self.held.pop() {
            self.settle(delivery, shared);
        } else if let Some(mut consumer) = self.consumer.take() {
            self.call = Some(Box::pin(async move {
                let received = consumer.receive(8).await;
                Answer::Received(consumer, Some(received))
            }));
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Shared) {
        *self = Self::new(self.edge);
    }

    fn is_done(&self) -> bool {
        self.held.is_empty() && self.settling.is_none()
    }
}

/// Looks at everything that can be looked at.
#[derive(Default)]
pub(crate) struct Looker {
    call: Option<Call>,
}

impl Actor for Looker {
    fn turn(&mut self, shared: &mut Shared) -> Verdict {
        let mut call = self.call.take();
        if call.is_none() {
            let broker = shared.broker();
            let edge = &EDGES[shared.random.below(EDGES.len() as u64) as usize];
            self.call = Some(match shared.random.below(3) {
                0 => Box::pin(async move { Answer::Account(broker.account("t").await) }),
                1 => Box::pin(async move { Answer::Stats(broker.stats().await) }),
                _ => Box::pin(async move { Answer::Peeked(broker.peek(edge.topic, edge.subscription, Position(0), 8).await) }),
            });
            return Ok(());
        }
        let answer = shared.poll(&mut call);
        self.call = call;
        match answer {
            Some(Answer::Account(Ok(account))) => {
                shared.note(format_args!("{account:?}"));
                let Account { sent, done, dead_lettered, in_flight } = account;
                if sent != done + dead_lettered + in_flight {
                    return finding("account", format!("{account:?}"));
                }
            }
            Some(Answer::Stats(Ok(stats))) => {
                let damaged: u64 = stats.iter().map(|topic| topic.damaged).sum();
                shared.oracle.damaged = shared.oracle.damaged.max(damaged);
                shared.note(format_args!("{stats:?}"));
            }
            Some(Answer::Peeked(Ok(messages))) => {
                for (position, message) in messages {
                    if message.payload != graph::payload(message.id.0) {
                        return finding("corrupt", format!("{} is peeked at with another payload", position.0));
                    }
                }
            }
            Some(Answer::Peeked(Err(error))) if shared.plan.unreadable => {
                shared.note(format_args!("cannot peek: {:?}", error.kind()));
            }
            Some(Answer::Account(Err(error)) | Answer::Stats(Err(error)) | Answer::Peeked(Err(error))) => {
                shared.excused("looker", &error)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Shared) {
        self.call = None;
    }
}

/// A topic outside the graph that keeps what is settled for a while, with a consumer that acknowledges whole stretches, and is moved about.
pub(crate) struct Beside {
    call: Option<Call>,
    consumer: Option<Box<dyn Consumer>>,
    joined: bool,
    batches: u64,
    under_way: Vec<u64>,
    next: u64,
    /// What is at a position, if it was told.
    told: BTreeMap<u64, u64>,
    /// The last position that was got since it joined, and up to which everything may be acknowledged.
    newest: Option<u64>,
    acknowledged: u64,
    seeking: bool,
}

/// Messages of one batch: several of them fill a block of what is held.
const BATCH: u64 = 28;

impl Beside {
    pub(crate) fn new(batches: u64) -> Self {
        Self {
            call: None,
            consumer: None,
            joined: false,
            batches,
            under_way: Vec::new(),
            next: 0,
            told: BTreeMap::new(),
            newest: None,
            acknowledged: 0,
            seeking: false,
        }
    }

    pub(crate) fn spec() -> TopicSpec {
        let retention = Duration::from_millis(40);
        TopicSpec { name: "beside".into(), retention, retention_bytes: 3_000, ..TopicSpec::default() }
    }

    fn publish(&mut self, shared: &mut Shared) {
        self.batches -= 1;
        self.under_way = (self.next..self.next + BATCH).collect();
        self.next += BATCH;
        let created_ms = shared.now_ms();
        let payload = |number: &u64| number.to_le_bytes().repeat(12).into();
        let message = |number: &u64| Message { created_ms, payload: payload(number), ..Message::default() };
        let batch = self.under_way.iter().map(|number| Publish {
            topic: "beside".into(),
            message: message(number).into(),
            sequence: None,
        });
        let (batch, broker): (Vec<_>, _) = (batch.collect(), shared.broker());
        self.call = Some(Box::pin(async move { Answer::Published(broker.publish(batch).await) }));
    }

    fn got(&mut self, deliveries: Vec<Delivery>, shared: &mut Shared) -> Verdict {
        for Delivery { position, message, .. } in deliveries {
            let number = message.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let told = self.told.get(&position.0).copied();
            if told.is_some() && told != number {
                return finding("corrupt", format!("beside:{} is {number:?}, not {told:?}", position.0));
            }
            let from = self.newest.map_or(self.acknowledged, |newest| newest + 1);
            let skipped = self.told.keys().find(|told| (from..position.0).contains(*told));
            if let Some(skipped) = skipped.filter(|_| !self.seeking && !shared.oracle.unreadable) {
                return finding("lost", format!("beside:{skipped} was passed over for {}", position.0));
            }
            self.newest = Some(position.0);
        }
        shared.note(format_args!("beside: up to {:?}", self.newest));
        Ok(())
    }

    fn acknowledge(&mut self, shared: &mut Shared) {
        let Some(position) = self.newest else { return };
        let ack = Ack { topic: "beside".into(), subscription: "s".into(), position: Position(position), cumulative: true };
        self.acknowledged = self.acknowledged.max(position + 1);
        let (step, broker) = (Step { acks: vec![ack], ..Step::default() }, shared.broker());
        self.call = Some(Box::pin(async move { Answer::Committed(broker.commit(step).await, Vec::new()) }));
    }

    fn answered(&mut self, answer: Answer, shared: &mut Shared) -> Verdict {
        match answer {
            Answer::Published(Ok(positions)) => {
                self.told.extend(positions.iter().map(|position| position.0).zip(std::mem::take(&mut self.under_way)));
            }
            Answer::Joined(Ok(consumer)) => (self.consumer, self.joined) = (Some(consumer), true),
            Answer::Received(consumer, received) => {
                self.consumer = Some(consumer);
                match received {
                    Some(Ok(deliveries)) => self.got(deliveries, shared)?,
                    Some(Err(error)) => shared.excused("beside", &error)?,
                    None => {}
                }
            }
            Answer::Joined(Err(error)) | Answer::Committed(Err(error), _) | Answer::Done(Err(error))
                if error.kind() == ErrorKind::NotFound && self.seeking =>
            {
                // The process ended between removing it and making it anew.
                let broker = shared.broker();
                self.call =
                    Some(Box::pin(async move { Answer::Done(broker.create_subscription("beside", "s", Start::Earliest).await) }));
            }
            Answer::Published(Err(error))
            | Answer::Joined(Err(error))
            | Answer::Committed(Err(error), _)
            | Answer::Done(Err(error)) => shared.excused("beside", &error)?,
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, shared: &mut Shared) {
        let max = 1 + shared.random.below(200) as usize;
        if let Some(mut consumer) = self.consumer.take() {
            self.call = Some(Box::pin(async move {
                // Whoever waits here for ever would do nothing else.
                let patience = tokio::time::sleep(Duration::from_millis(10));
                let received = tokio::select! {
                    biased;
                    received = consumer.receive(max) => Some(received),
                    () = patience => None,
                };
                Answer::Received(consumer, received)
            }));
        }
    }

    fn join(&mut self, shared: &mut Shared) {
        let subscribe = Subscribe {
            topic: "beside".to_owned(),
            subscription: "s".to_owned(),
            kind: SubscriptionKind::Exclusive,
            consumer: "beside".to_owned(),
            permits: 2_000,
            hand_off: HandOff::Durable,
        };
        let broker = shared.broker();
        self.newest = None;
        self.call = Some(Box::pin(async move { Answer::Joined(broker.subscribe(subscribe).await) }));
    }

    fn move_about(&mut self, shared: &mut Shared) {
        let broker = shared.broker();
        self.seeking = true;
        let to = match shared.random.below(4) {
            0 => Start::Earliest,
            1 => Start::Latest,
            2 => Start::At(Position(shared.random.below(self.next + 1))),
            _ => Start::Time(shared.now_ms() - shared.random.below(60)),
        };
        let anew = shared.random.one_in(3);
        shared.note(format_args!("beside: {}to {to:?}", if anew { "anew, " } else { "" }));
        self.call = Some(Box::pin(async move {
            Answer::Done(match anew {
                false => broker.seek("beside", "s", to).await,
                true => match broker.unsubscribe("beside", "s").await {
                    Ok(()) => broker.create_subscription("beside", "s", to).await,
                    Err(error) => Err(error),
                },
            })
        }));
    }
}

impl Actor for Beside {
    fn turn(&mut self, shared: &mut Shared) -> Verdict {
        let mut call = self.call.take();
        if call.is_some() {
            let answer = shared.poll(&mut call);
            self.call = call;
            return answer.map_or(Ok(()), |answer| self.answered(answer, shared));
        }
        let has_more = self.batches > 0;
        match shared.random.below(8) {
            0 | 1 if has_more && !shared.draining => self.publish(shared),
            2 | 3 if self.newest.is_some() => self.acknowledge(shared),
            4 if shared.plan.seeks && !self.joined && !shared.draining => self.move_about(shared),
            5 if self.joined && !shared.draining && shared.random.one_in(3) => (self.consumer, self.joined) = (None, false),
            _ if self.joined => self.receive(shared),
            _ => self.join(shared),
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Shared) {
        (self.call, self.consumer, self.joined) = (None, None, false);
        self.newest = None;
        self.under_way.clear();
    }
}
