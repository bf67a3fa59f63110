//! One consumer: takes messages as its client permits, and settles them as it acknowledges.

mod opening;

pub(crate) use opening::{create_subscription, open};

use super::{
    Shared,
    deliver::{self, Appetite},
    limits::{COMMANDS_MAX, READ_MESSAGES_MAX, RECEIVE_FAILURES_MAX},
    members::{Member, Place, Signal},
    out::{Gone, Outgoing},
    place,
    settle::{Acks, Settled, Settling},
    topics::{self, Topic},
};
use crate::wire::proto::{self, AckResponse, Command, OfConsumer, ServerError, Success};
use leatworks_broker::{Ack, BrokerError, Consumer as Receiver, Delivery, ErrorKind, Message, Position, Start, SubscriptionKind};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// What a consumer is told by its client.
pub(crate) enum Order {
    /// So many more messages may come.
    Flow(u32),
    /// These are settled.
    Ack(proto::Ack),
    /// These, or all, are to come again.
    Redeliver(proto::Redeliver),
    /// The subscription is moved.
    Seek(proto::Seek),
    /// The subscription is removed.
    Unsubscribe(u64),
    /// How it stands.
    Stats(u64),
    /// The consumer ends.
    Close(u64),
}

/// A consumer as its connection sees it.
pub(crate) struct Handle {
    pub(crate) place: Place,
    /// The first ledger of the topic.
    pub(crate) ledger: u64,
    pub(crate) orders: mpsc::Sender<Order>,
    /// For a reader, one past the last position that was sent to it.
    pub(crate) read: Option<Arc<AtomicU64>>,
}

/// A consumer that is open.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    out: Outgoing,
    id: u64,
    name: String,
    topic: Topic,
    place: Place,
    kind: SubscriptionKind,
    /// The subscription ends with the consumer.
    is_reader: bool,
    epoch: Option<u64>,
    number: u64,
    /// Before the membership, so that the broker has let go of it when the others are told.
    receiver: Option<Box<dyn Receiver>>,
    member: Option<Member>,
    signal: watch::Receiver<Signal>,
    permits: u64,
    appetite: Appetite,
    held: BTreeSet<u64>,
    /// From where on a reader still gets what was there when it came.
    unread: Option<Position>,
    /// One past the last position that was sent.
    sent: Arc<AtomicU64>,
    settling: Settling,
    failures: u32,
}

/// Why a consumer ends.
enum End {
    /// Its client has asked for it.
    Closed(u64),
    /// Its client is gone.
    Left,
    /// Its client is told that it is closed: it comes back, or not.
    Evicted,
    /// Its subscription is moved.
    Seek(proto::Seek),
    /// Its subscription is removed.
    Unsubscribe(u64),
}

/// What a reader that begins now gets of what is there already, also what waits for its time, as with Pulsar: a subscription of one consumer knows no
/// delays there. What comes later comes at its time.
async fn look(shared: &Shared, place: &Place, from: Position, limit: usize) -> Result<Vec<Delivery>, BrokerError> {
    let found = shared.broker.peek(&place.0, &place.1, from, limit).await?;
    let delivery = |(position, message): (Position, Message)| Delivery { position, attempt: 1, message: message.into() };
    Ok(found.into_iter().map(delivery).collect())
}

impl Consumer {
    /// The task's handle and the queue that [`run`](Self::run) works on.
    pub(crate) fn queue(&self) -> (Handle, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(COMMANDS_MAX);
        let read = self.is_reader.then(|| self.sent.clone());
        (Handle { place: self.place.clone(), ledger: self.topic.ledger, orders, read }, queue)
    }

    /// Delivers and settles until the consumer ends.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let end = match self.work(&mut queue).await {
            Ok(end) => end,
            Err(Gone) => End::Left,
        };
        // What was acknowledged is settled, also if the connection was lost right after it.
        self.flush().await;
        drop(queue);
        // A client that is gone hears nothing.
        let _ = match end {
            End::Left => {
                self.leave().await;
                Ok(())
            }
            End::Closed(request_id) => {
                self.leave().await;
                self.out.command(Command::Success(Success { request_id })).await
            }
            End::Evicted => {
                self.leave().await;
                self.close().await
            }
            End::Seek(seek) => self.seek(seek).await,
            End::Unsubscribe(request_id) => self.unsubscribe(request_id).await,
        };
    }

    /// Lets go of the subscription: what was not settled goes to others.
    async fn leave(&mut self) {
        self.receiver = None;
        self.member = None;
        if self.is_reader && self.shared.members.others(&self.place, self.number) == 0 {
            let removed = self.shared.broker.unsubscribe(&self.place.0, &self.place.1).await;
            if let Err(error) = removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }) {
                tracing::debug!(%error, "a reader's subscription stays until the next start");
            }
        }
    }

    /// Tells the client that it has to come back.
    async fn close(&mut self) -> Result<(), Gone> {
        self.out.command(Command::CloseConsumer(OfConsumer { consumer_id: self.id, request_id: u64::MAX })).await
    }

    async fn work(&mut self, queue: &mut mpsc::Receiver<Order>) -> Result<End, Gone> {
        let mut orders = Vec::with_capacity(COMMANDS_MAX);
        loop {
            if self.signal.borrow().evicted {
                return Ok(End::Evicted);
            }
            let ask = self.appetite.ask(self.permits);
            let Some(receiver) = &mut self.receiver else { return Ok(End::Evicted) };
            let (out, unread) = (&self.out, self.unread);
            let (shared, place) = (&self.shared, &self.place);
            let receive = async {
                // A client that does not read gets nothing handed out that it would hold unread.
                out.ready().await?;
                Ok(match unread {
                    Some(from) => look(shared, place, from, ask.clamp(1, READ_MESSAGES_MAX)).await,
                    None => receiver.receive(ask.max(1)).await,
                })
            };
            tokio::select! {
                biased;
                changed = self.signal.changed() => {
                    if changed.is_err() || self.signal.borrow_and_update().evicted {
                        return Ok(End::Evicted);
                    }
                    self.tell_active().await?;
                }
                count = queue.recv_many(&mut orders, COMMANDS_MAX), if self.settling.has_room() => {
                    if count == 0 {
                        return Ok(End::Left);
                    }
                    for order in orders.drain(..) {
                        if let Some(end) = self.obey(order).await? {
                            return Ok(end);
                        }
                    }
                }
                settled = self.settling.next(), if self.settling.is_busy() => self.tell_settled(settled).await?,
                received = receive, if ask > 0 && self.settling.has_room() => {
                    let received: Result<Vec<Delivery>, BrokerError> = received?;
                    if let (Some(_), Ok(found)) = (unread, &received) {
                        self.unread = found.last().map(|last| Position(last.position.0 + 1));
                        if self.unread.is_none() {
                            // What was read must not be received once more.
                            self.flush().await;
                            continue;
                        }
                    }
                    if !self.deliver(received).await? {
                        return Ok(End::Evicted);
                    }
                }
            }
        }
    }

    /// Sends what was received; `false` if no more can come.
    async fn deliver(&mut self, received: Result<Vec<Delivery>, BrokerError>) -> Result<bool, Gone> {
        let deliveries = match received {
            Ok(deliveries) => deliveries,
            Err(error) => {
                // A damaged message harms no other; a broker that has failed says so again and again.
                tracing::warn!(%error, topic = &*self.place.0, subscription = &*self.place.1, "a message cannot be delivered");
                self.failures += 1;
                return Ok(error.kind() == ErrorKind::Storage && self.failures < RECEIVE_FAILURES_MAX);
            }
        };
        self.failures = 0;
        let frames = deliver::frames(&deliveries, &self.topic, self.id, self.epoch);
        self.appetite.learn(deliveries.len(), frames.len());
        self.permits = self.permits.saturating_sub(deliveries.len() as u64);
        if let Some(last) = deliveries.last() {
            self.sent.fetch_max(last.position.0 + 1, Relaxed);
        }
        let positions = deliveries.iter().map(|delivery| delivery.position);
        // A reader holds nothing, as with Pulsar: one that never acknowledges must not keep what it has read, nor come to an end by it.
        let mut read = Vec::new();
        match self.is_reader {
            true => read.extend(positions.map(|position| self.settled_at(position, false))),
            false => self.held.extend(positions.map(|position| position.0)),
        }
        drop(deliveries);
        self.send(frames).await?;
        if !read.is_empty() {
            self.settling.add(Acks { acks: read, request: None });
        }
        Ok(true)
    }

    /// Sends, unless this consumer has to go meanwhile.
    async fn send(&mut self, frames: bytes::Bytes) -> Result<(), Gone> {
        let mut signal = self.signal.clone();
        tokio::select! {
            sent = self.out.send(frames) => sent,
            // The change is still to be seen by the caller's own receiver, and the frames are of no use to a client that goes.
            _ = signal.wait_for(|signal| signal.evicted) => Ok(()),
        }
    }

    async fn tell_active(&mut self) -> Result<(), Gone> {
        if self.kind != SubscriptionKind::Failover {
            return Ok(());
        }
        let is_active = Some(self.signal.borrow().active);
        self.out.command(Command::ActiveConsumerChange(proto::ActiveConsumerChange { consumer_id: self.id, is_active })).await
    }

    /// What the client is told first, once it knows that it is subscribed.
    pub(crate) async fn greet(&mut self) -> Result<(), Gone> {
        self.signal.mark_unchanged();
        self.tell_active().await
    }

    /// Does what the client says; gives the end if that is it.
    async fn obey(&mut self, order: Order) -> Result<Option<End>, Gone> {
        match order {
            Order::Flow(permits) => self.permits = self.permits.saturating_add(u64::from(permits)).min(u64::from(u32::MAX)),
            Order::Ack(ack) => self.ack(ack),
            Order::Redeliver(redeliver) => self.redeliver(redeliver).await,
            Order::Stats(request_id) => self.stats(request_id).await?,
            Order::Seek(seek) => return Ok(Some(End::Seek(seek))),
            Order::Unsubscribe(request_id) => return Ok(Some(End::Unsubscribe(request_id))),
            Order::Close(request_id) => return Ok(Some(End::Closed(request_id))),
        }
        Ok(None)
    }

    fn ack(&mut self, ack: proto::Ack) {
        let cumulative = ack.ack_type == 1;
        let mut acks = Vec::with_capacity(ack.message_ids.len());
        for id in &ack.message_ids {
            // A bit that is set is a message of the entry that is not acknowledged. An entry is one message here.
            let whole = id.ack_set.iter().all(|bits| *bits == 0);
            let Some(position) = place::position(self.topic.ledger, id).filter(|_| whole) else { continue };
            if cumulative {
                self.held = self.held.split_off(&position.0.saturating_add(1));
            } else {
                self.held.remove(&position.0);
            }
            acks.push(self.settled_at(position, cumulative));
        }
        if !acks.is_empty() || ack.request_id.is_some() {
            self.settling.add(Acks { acks, request: ack.request_id });
        }
    }

    fn settled_at(&self, position: Position, cumulative: bool) -> Ack {
        Ack { topic: self.place.0.clone(), subscription: self.place.1.clone(), position, cumulative }
    }

    async fn tell_settled(&mut self, settled: Vec<Settled>) -> Result<(), Gone> {
        for (request_id, result) in settled {
            let (error, message) = result.err().map_or((None, None), |(error, message)| (Some(error.into()), Some(message)));
            let answer = AckResponse { consumer_id: self.id, error, message, request_id: Some(request_id) };
            self.out.command(Command::AckResponse(answer)).await?;
        }
        Ok(())
    }

    async fn redeliver(&mut self, redeliver: proto::Redeliver) {
        let each = matches!(self.kind, SubscriptionKind::Shared | SubscriptionKind::KeyShared);
        let again: Vec<u64> = match each && !redeliver.message_ids.is_empty() {
            true => {
                let ids = redeliver
                    .message_ids
                    .iter()
                    .filter_map(|id| place::position(self.topic.ledger, id))
                    .map(|position| position.0);
                ids.filter(|position| self.held.contains(position)).collect()
            }
            // Where the order counts, all come again, as with Pulsar.
            false => self.held.iter().copied().collect(),
        };
        if redeliver.consumer_epoch.is_some() {
            // The client drops what was sent to it under an earlier one.
            self.epoch = redeliver.consumer_epoch;
        }
        for position in again {
            self.held.remove(&position);
            let nack = self.shared.broker.nack(&self.place.0, &self.place.1, Position(position), Duration::ZERO);
            if let Err(error) = nack.await {
                tracing::debug!(%error, "a message is given back when its consumer ends");
            }
        }
    }

    async fn stats(&mut self, request_id: u64) -> Result<(), Gone> {
        let topic = self.shared.broker.topic_stats(&self.place.0).await.unwrap_or_default();
        let subscription = topic.as_ref().and_then(|topic| topic.subscriptions.get(&*self.place.1));
        let answer = proto::ConsumerStatsResponse {
            request_id,
            consumer_name: Some(self.name.clone()),
            available_permits: Some(self.permits),
            unacked: Some(self.held.len() as u64),
            blocked: Some(false),
            kind: Some(format!("{:?}", self.kind)),
            backlog: subscription.map(|stats| stats.backlog + stats.in_flight),
            ..proto::ConsumerStatsResponse::default()
        };
        self.out.command(Command::ConsumerStatsResponse(answer)).await
    }

    /// Settles all that was acknowledged.
    async fn flush(&mut self) {
        while self.settling.is_busy() {
            let settled = self.settling.next().await;
            // A client that is gone hears nothing.
            let _ = self.tell_settled(settled).await;
        }
    }

    /// Moves the subscription. All its consumers are closed, also this one, and come back, as with Pulsar.
    async fn seek(&mut self, seek: proto::Seek) -> Result<(), Gone> {
        let to = match (&seek.message_id, seek.publish_time) {
            (Some(id), _) => place::start(self.topic.ledger, id),
            (None, Some(time)) => Start::Time(time),
            (None, None) => {
                self.leave().await;
                self.out.refuse(seek.request_id, ServerError::Metadata, "a seek to nowhere".to_owned()).await?;
                return self.close().await;
            }
        };
        let closed = self.shared.members.close(&self.place, self.number).await;
        self.receiver = None;
        let moved = match &closed {
            None => Err((ServerError::ConsumerBusy, format!("subscription `{}` is being moved by somebody else", self.place.1))),
            Some(_) => self.shared.broker.seek(&self.place.0, &self.place.1, to).await.map_err(|error| topics::refusal(&error)),
        };
        self.member = None;
        drop(closed);
        self.close().await?;
        match moved {
            Ok(()) => self.out.command(Command::Success(Success { request_id: seek.request_id })).await,
            Err((error, message)) => self.out.refuse(seek.request_id, error, message).await,
        }
    }

    async fn unsubscribe(&mut self, request_id: u64) -> Result<(), Gone> {
        let removed = match self.shared.members.others(&self.place, self.number) {
            0 => {
                self.receiver = None;
                self.shared.broker.unsubscribe(&self.place.0, &self.place.1).await.map_err(|error| topics::refusal(&error))
            }
            others => Err((ServerError::ConsumerBusy, format!("subscription `{}` has {others} other consumers", self.place.1))),
        };
        self.receiver = None;
        self.member = None;
        match removed {
            Ok(()) => self.out.command(Command::Success(Success { request_id })).await,
            Err((error, message)) => {
                self.out.refuse(request_id, error, message).await?;
                self.close().await
            }
        }
    }
}
