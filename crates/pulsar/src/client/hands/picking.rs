//! How messages are taken into hand.

use super::{Hands, Key, Stage};
use crate::client::{
    error::{Answer, PulsarError},
    limits::PREFETCH_MAX,
};
use leatworks_broker::{Message, Position, RECEIVE_BYTES_MAX, SubscriptionKind};
use std::{collections::VecDeque, sync::Arc};
use tokio::time::Instant;

/// A message that was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) position: Position,
    /// Which one it is, as far as is known.
    pub(crate) attempt: u32,
    /// The hash of its id if its repetitions are dropped, and else 0.
    pub(crate) id: u64,
    /// Nobody has had it in hand before, as far as can be told from how it came.
    pub(crate) is_first_time: bool,
}

/// Messages that were picked; and when the next one's time comes, if none was.
pub(crate) type Picked = (Vec<Pick>, Option<Instant>);

impl Hands {
    /// Takes messages into hand, each with the attempt that it is, as far as is known here; or tells when the next one's time comes.
    pub(crate) fn pick(&mut self, seat: u64, max: usize) -> Answer<Picked> {
        let mut picked = Vec::new();
        let mut bytes = 0;
        self.promote(seat);
        while let Some(chair) = self.seats.get_mut(&seat).filter(|chair| picked.len() < max && chair.handed < chair.permits) {
            let Some(position) = chair.inbox.pop_front() else { break };
            // What has come to another consumer since is not for this one.
            let Some(held) = self.held.get_mut(&position).filter(|held| held.seat == seat) else { continue };
            if held.stage == Stage::Handed || held.settling {
                continue;
            }
            if chair.kind == SubscriptionKind::KeyShared
                && let Some(key) = &held.message.key
            {
                match self.keys.get_mut(key) {
                    Some(found) if found.owner != position => {
                        found.waiting.push_back(position);
                        continue;
                    }
                    Some(_) => {}
                    None => drop(self.keys.insert(key.clone(), Key { owner: position, waiting: VecDeque::new() })),
                }
            }
            bytes += held.message.payload.len();
            if bytes > RECEIVE_BYTES_MAX && !picked.is_empty() {
                chair.inbox.push_front(position);
                break;
            }
            held.stage = Stage::Handed;
            chair.handed += 1;
            if !held.replaced && chair.ahead + PREFETCH_MAX < chair.permits {
                (held.replaced, held.ahead) = (true, true);
                chair.ahead += 1;
                if let Some(slot) = self.entries.get(&held.place) {
                    slot.feed.give(1, slot.epoch);
                }
            }
            let attempt = self.attempts.get(&position).copied().unwrap_or_default().max(held.before) + 1;
            self.attempts.insert(position, attempt);
            let id = if self.drops_repetitions { held.id } else { 0 };
            picked.push(Pick { position, attempt, id, is_first_time: held.is_first_time && attempt == 1 });
        }
        let chair = self.seats.get_mut(&seat).ok_or(PulsarError::Closed)?;
        if picked.is_empty() {
            if let Some(error) = &chair.failed {
                return Err(error.clone());
            }
            // Nothing is to come but what the service has: it must know all that may.
            chair.feeds.iter().for_each(|feed| feed.flush());
        }
        let due = (chair.handed < chair.permits).then(|| chair.delayed.keys().next().map(|(due, _)| *due)).flatten();
        Ok((picked, due))
    }

    fn promote(&mut self, seat: u64) {
        let Some(chair) = self.seats.get_mut(&seat) else { return };
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = chair.delayed.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove_entry().0.1);
        }
        // They have waited the longest.
        due.into_iter().rev().for_each(|position| chair.inbox.push_front(position));
    }

    /// The message of a delivery, if it is still in hand, with the attempt that it has become.
    pub(crate) fn hand_over(&mut self, seat: u64, position: Position, attempt: u32) -> Option<(Arc<Message>, u32)> {
        let held = self.held.get(&position).filter(|held| held.seat == seat && held.stage == Stage::Handed && !held.settling)?;
        let known = self.attempts.entry(position).or_default();
        *known = (*known).max(attempt);
        Some((held.message.clone(), *known))
    }

    /// Messages that were picked are not handed out after all.
    pub(crate) fn put_back(&mut self, positions: &[Position]) {
        for position in positions.iter().rev() {
            let Some(held) = self.held.get_mut(position).filter(|held| held.stage == Stage::Handed) else { continue };
            held.stage = Stage::Waiting;
            if let Some(chair) = self.seats.get_mut(&held.seat) {
                chair.handed -= 1;
                chair.inbox.push_front(*position);
            }
        }
    }
}
