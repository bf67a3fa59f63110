//! A consumer of this process: what comes over its feeds is handed out, attempt by attempt.

use super::{
    Inner,
    attempts::{Ledger, REPEATED},
    error::{Answer, PulsarError},
    feed::{Feed, Sink},
    hands::{Acks, CameIn, Hands},
    limits::{NOTING_AHEAD_FROM, NOTING_MAX, NOTING_MESSAGES_MIN},
    now_ms,
    pack::{self, Place},
};
use crate::wire::{
    frame::Entry,
    proto::{Ack, Command, Deliver},
};
use leatworks_broker::{BoxFuture, Consumer, Delivery, Position, Result};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{
        Notify, OnceCell,
        oneshot::{self, error::TryRecvError},
    },
    task::JoinHandle,
    time::Instant,
};

/// What this process knows of one subscription.
pub(crate) struct Subscription {
    pub(crate) topic: Arc<str>,
    pub(crate) name: Arc<str>,
    hands: Mutex<Hands>,
    /// Where attempts are noted; there as soon as there is a consumer.
    pub(crate) ledger: OnceCell<Arc<Ledger>>,
    /// Consumers that are on their way out.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

impl Subscription {
    pub(crate) fn new(topic: &str, name: &str) -> Self {
        Self {
            topic: topic.into(),
            name: name.into(),
            hands: Mutex::default(),
            ledger: OnceCell::new(),
            leaving: Mutex::default(),
        }
    }

    /// Messages are settled. Gives what the service must be told.
    pub(crate) fn settle(&self, positions: &[Position]) -> Acks {
        if let Some(ledger) = self.ledger.get() {
            ledger.settled(positions);
        }
        self.hands().settle(positions)
    }

    pub(crate) fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the service knows of all who have left.
    pub(crate) async fn settle_down(&self) {
        let leaving: Vec<_> = self.leaving.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for left in leaving {
            // A task that panicked has left as well.
            let _ = left.await;
        }
    }
}

/// Where the entries of a seat's feeds go.
pub(crate) struct Inbox {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) seat: u64,
}

impl Sink for Inbox {
    fn arrived(&self, feed: &Arc<Feed>, deliver: Deliver, entry: Entry) {
        let place = Place { ledger: deliver.message_id.ledger, entry: deliver.message_id.entry };
        let count = entry.metadata.num_messages_in_batch.unwrap_or(1).max(1) as usize;
        let messages = match pack::open(&self.subscription.topic, entry, now_ms()) {
            Ok(messages) => messages,
            Err(error) => {
                feed.give(count, feed.epoch());
                // It stays where it is, unacknowledged, so nothing of it is lost.
                return tracing::error!(topic = feed.topic(), ?place, %error, "an entry cannot be read and is left in its topic");
            }
        };
        let entry = CameIn { place, open: &deliver.ack_set, is_first_time: feed.is_first_time(&deliver) };
        let came = self.subscription.hands().arrived(self.seat, feed, entry, messages, now_ms());
        if !came.acks.is_empty() {
            feed.tell(|consumer_id| Command::Ack(Ack { consumer_id, message_ids: came.acks, ..Ack::default() }));
        }
        if let (Some(ledger), false) = (self.subscription.ledger.get(), came.settled.is_empty()) {
            ledger.settled(&came.settled);
        }
    }

    fn lost(&self, feed: &Arc<Feed>) {
        self.subscription.hands().lost(feed);
    }

    fn failed(&self, _: &Arc<Feed>, error: PulsarError) {
        self.subscription.hands().failed(self.seat, error);
    }

    fn entries(&self, feed: &Arc<Feed>) -> Option<usize> {
        self.subscription.hands().entries_of(feed)
    }
}

/// Messages whose attempts are being noted, and what these are.
pub(crate) type Noting = (Vec<Position>, oneshot::Receiver<Answer<Vec<u32>>>);

/// A consumer.
pub(crate) struct Seat {
    pub(crate) inner: Arc<Inner>,
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) id: u64,
    pub(crate) wake: Arc<Notify>,
    /// Messages that were taken into hand and whose attempts are being noted.
    pub(crate) noting: VecDeque<Noting>,
    pub(crate) ready: VecDeque<(Position, u32)>,
}

impl Seat {
    fn hand_over(&mut self, max: usize) -> Vec<Delivery> {
        let mut hands = self.subscription.hands();
        let mut deliveries = Vec::new();
        while deliveries.len() < max {
            let Some((position, attempt)) = self.ready.pop_front() else { break };
            if let Some((message, attempt)) = hands.hand_over(self.id, position, attempt) {
                deliveries.push(Delivery { position, attempt, message });
            }
        }
        deliveries
    }

    /// Settles what another message was already: its step was done by half, and done again.
    fn drop_repeated(&self, repeated: Vec<(Position, u32)>) {
        if repeated.is_empty() {
            return;
        }
        let Subscription { topic, name, .. } = &*self.subscription;
        tracing::debug!(%topic, subscription = %name, messages = repeated.len(), "repetitions are dropped");
        let positions: Vec<Position> = repeated.into_iter().map(|(position, _)| position).collect();
        for (feed, message_ids) in self.subscription.settle(&positions) {
            // If this is lost with its connection they come again, and are known.
            feed.tell(|consumer_id| Command::Ack(Ack { consumer_id, message_ids, ..Ack::default() }));
        }
    }

    /// Takes what has been noted by now.
    fn noted(&mut self) -> Answer<()> {
        while let Some((_, noted)) = self.noting.front_mut() {
            let attempts = match noted.try_recv() {
                Ok(attempts) => attempts,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => Err(PulsarError::Closed),
            };
            self.take_noted(attempts)?;
        }
        Ok(())
    }

    /// What was noted first is there, or is not.
    fn take_noted(&mut self, attempts: Answer<Vec<u32>>) -> Answer<()> {
        match attempts {
            Ok(attempts) => {
                let Some((positions, _)) = self.noting.pop_front() else { return Ok(()) };
                let (repeated, good) = positions.into_iter().zip(attempts).partition(|(_, attempt)| *attempt == REPEATED);
                self.ready.extend::<Vec<_>>(good);
                self.drop_repeated(repeated);
                Ok(())
            }
            Err(error) => {
                // What was noted after it goes back as well, so that the order stays.
                let mut hands = self.subscription.hands();
                self.noting.drain(..).rev().for_each(|(positions, _)| hands.put_back(&positions));
                Err(error)
            }
        }
    }

    /// Begins to note what is to be handed out next, if there is something; or tells when its time comes.
    fn note(&mut self, max: usize) -> Answer<Option<Instant>> {
        let mut hands = self.subscription.hands();
        let room = match self.noting.len() {
            0 => true,
            1..NOTING_MAX => max >= NOTING_AHEAD_FROM && hands.waiting(self.id) >= NOTING_MESSAGES_MIN,
            _ => false,
        };
        if !room {
            return Ok(None);
        }
        let (picked, due) = hands.pick(self.id, max)?;
        drop(hands);
        if !picked.is_empty() {
            let ledger = self.subscription.ledger.get().ok_or(PulsarError::Closed)?;
            let noted = ledger.take(&picked);
            self.noting.push_back((picked.into_iter().map(|pick| pick.position).collect(), noted));
        }
        Ok(due)
    }

    async fn receive_some(&mut self, max: usize) -> Result<Vec<Delivery>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let wake = self.wake.clone();
        loop {
            self.inner.check()?;
            let woken = wake.notified();
            self.noted()?;
            let deliveries = self.hand_over(max);
            if !deliveries.is_empty() {
                if max >= NOTING_AHEAD_FROM {
                    // The next are on their way to the ledger and back while these are worked on. What stands in the way is told when nothing is left to hand out.
                    let _ = self.note(max);
                }
                return Ok(deliveries);
            }
            let due = self.note(max)?;
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let noted = async {
                match self.noting.front_mut() {
                    Some((_, noted)) => noted.await.unwrap_or(Err(PulsarError::Closed)),
                    None => std::future::pending().await,
                }
            };
            let attempts = tokio::select! {
                attempts = noted => attempts,
                () = woken => continue,
                () = due => continue,
            };
            self.take_noted(attempts)?;
        }
    }
}

impl Consumer for Seat {
    fn receive(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(self.receive_some(max))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let feeds = self.subscription.hands().leave(self.id);
        let closing = async move {
            for feed in feeds {
                feed.close().await;
            }
        };
        // Without a runtime the process ends, and the service notices by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut leaving = self.subscription.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.retain(|left| !left.is_finished());
            leaving.push(runtime.spawn(closing));
        }
    }
}
