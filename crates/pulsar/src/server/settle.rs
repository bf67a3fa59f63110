//! Acknowledgements of one consumer on their way to the broker: one step at a time, and what comes meanwhile is the next one.

use super::{
    limits::{ACK_RETRY, ACKS_MAX},
    topics::{self, Refusal},
};
use leatworks_broker::{Ack, BoxFuture, Broker, BrokerError, Confirm, Step};
use std::sync::Arc;

/// The acknowledgements of one command, and the number of the request if an answer is wanted.
pub(crate) struct Acks {
    pub(crate) acks: Vec<Ack>,
    pub(crate) request: Option<u64>,
}

/// What became of a request.
pub(crate) type Settled = (u64, Result<(), Refusal>);

/// The acknowledgements of one consumer.
pub(crate) struct Settling {
    broker: Arc<dyn Broker>,
    confirm: Confirm,
    waiting: Vec<Acks>,
    count: usize,
    running: Option<BoxFuture<'static, Vec<Settled>>>,
}

impl Settling {
    pub(crate) fn new(broker: Arc<dyn Broker>, confirm: Confirm) -> Self {
        Self { broker, confirm, waiting: Vec::new(), count: 0, running: None }
    }

    /// Whether more may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.count < ACKS_MAX
    }

    /// Adds some. They are on their way when [`next`](Self::next) is polled.
    pub(crate) fn add(&mut self, acks: Acks) {
        self.count += acks.acks.len();
        self.waiting.push(acks);
    }

    /// Whether there is anything to wait for.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some() || !self.waiting.is_empty()
    }

    /// Waits until the step under way has happened. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Vec<Settled> {
        if self.running.is_none() {
            self.count = 0;
            let (broker, waiting) = (self.broker.clone(), std::mem::take(&mut self.waiting));
            let confirm = self.confirm;
            self.running = Some(Box::pin(async move { settle(broker.as_ref(), confirm, waiting).await }));
        }
        let Some(running) = &mut self.running else { return Vec::new() };
        let settled = running.await;
        self.running = None;
        settled
    }
}

/// Settles all in one step, or if one of them is refused, each by itself.
async fn settle(broker: &dyn Broker, confirm: Confirm, waiting: Vec<Acks>) -> Vec<Settled> {
    let all: Vec<Ack> = waiting.iter().flat_map(|acks| acks.acks.iter().cloned()).collect();
    let mut settled = Vec::new();
    match commit(broker, confirm, all).await {
        Ok(()) => settled.extend(waiting.into_iter().filter_map(|acks| Some((acks.request?, Ok(()))))),
        Err(_) => {
            for Acks { acks, request } in waiting {
                let mut result = Ok(());
                for ack in acks {
                    if let Err(error) = commit(broker, confirm, vec![ack]).await {
                        tracing::debug!(%error, "an acknowledgement is refused");
                        result = Err(topics::refusal(&error));
                    }
                }
                settled.extend(request.map(|request| (request, result)));
            }
        }
    }
    settled
}

/// A full disk only delays an acknowledgement: without it its message would stay in flight for as long as the client is connected.
async fn commit(broker: &dyn Broker, confirm: Confirm, acks: Vec<Ack>) -> Result<(), BrokerError> {
    if acks.is_empty() {
        return Ok(());
    }
    loop {
        match broker.commit(Step { acks: acks.clone(), confirm, ..Step::default() }).await {
            Err(error) if error.is_retryable() => tokio::time::sleep(ACK_RETRY).await,
            result => return result,
        }
    }
}
