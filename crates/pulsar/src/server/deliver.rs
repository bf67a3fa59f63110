//! Deliveries as frames, and how many of them to take at once.

use super::{
    limits::{RECEIVE_BYTES, RECEIVE_MESSAGES_FIRST, RECEIVE_MESSAGES_MAX},
    place,
    topics::Topic,
};
use crate::{
    envelope,
    wire::{
        frame,
        proto::{Command, Deliver},
    },
};
use bytes::{Bytes, BytesMut};
use leatworks_broker::Delivery;

/// How many messages to take at once, by the size of those before.
#[derive(Debug)]
pub(crate) struct Appetite {
    messages: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Self { messages: RECEIVE_MESSAGES_FIRST }
    }
}

impl Appetite {
    /// What to ask for, within the client's permits.
    pub(crate) fn ask(&self, permits: u64) -> usize {
        usize::try_from(permits).unwrap_or(usize::MAX).min(self.messages)
    }

    /// Learns from what has come. It grows slowly, since large messages may follow small ones.
    pub(crate) fn learn(&mut self, messages: usize, bytes: usize) {
        let fitting = RECEIVE_BYTES / (bytes / messages.max(1)).max(1);
        self.messages = fitting.min(self.messages * 2).clamp(1, RECEIVE_MESSAGES_MAX);
    }
}

/// One entry per message: a client that settles it settles nothing else with it.
pub(crate) fn frames(deliveries: &[Delivery], topic: &Topic, consumer_id: u64, epoch: Option<u64>) -> Bytes {
    let bytes: usize = deliveries.iter().map(|delivery| delivery.message.payload.len() + 128).sum();
    let mut out = BytesMut::with_capacity(bytes);
    for delivery in deliveries {
        let command = Command::Message(Deliver {
            consumer_id,
            message_id: place::id(topic.ledger, delivery.position.0),
            redelivery_count: Some(delivery.attempt.saturating_sub(1)),
            ack_set: Vec::new(),
            consumer_epoch: epoch,
        });
        let metadata = envelope::to_metadata(&delivery.message, delivery.position, topic.in_topology);
        frame::encode_with_entry(&mut out, command, &metadata, &delivery.message.payload);
    }
    out.freeze()
}
