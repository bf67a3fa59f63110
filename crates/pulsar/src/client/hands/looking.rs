//! What others ask of the hands, without changing anything.

use super::{Hands, Held, Place, Stage};
use crate::client::{entries::bit, feed::Feed};
use leatworks_broker::Position;
use std::{collections::HashSet, sync::Arc};

impl Hands {
    /// How many entries of a feed are here that wait for their time, or to be handed out; none if something of it is in hand.
    pub(crate) fn entries_of(&self, feed: &Arc<Feed>) -> Option<usize> {
        let of_feed = |held: &&Held| self.entries.get(&held.place).is_some_and(|slot| Arc::ptr_eq(&slot.feed, feed));
        let mut places = HashSet::new();
        for held in self.held.values().filter(of_feed) {
            if held.stage == Stage::Handed {
                return None;
            }
            places.insert(held.place);
        }
        Some(places.len())
    }

    /// Messages that have come and wait to be handed out.
    pub(crate) fn waiting(&self, seat: u64) -> usize {
        self.seats.get(&seat).map_or(0, |chair| chair.inbox.len())
    }

    /// Whether this message is here.
    pub(crate) fn holds(&self, position: Position) -> bool {
        self.held.contains_key(&position)
    }

    /// Of an entry so much is settled, as far as is known here.
    pub(crate) fn is_open(&self, place: Place, index: usize) -> bool {
        self.entries.get(&place).is_none_or(|slot| bit(&slot.open, index))
    }

    /// Messages in hand, messages that have come and are not, and messages that wait for their time.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let handed = self.held.values().filter(|held| held.stage == Stage::Handed).count();
        let delayed = self.seats.values().map(|chair| chair.delayed.len()).sum();
        (handed, self.held.len() - handed, delayed)
    }

    /// Where a message lies: not where it stood first, if it was given back.
    pub(crate) fn lies_at(&self, position: Position) -> Position {
        let here = self.held.get(&position).and_then(|held| held.place.position(held.index));
        here.or_else(|| self.moved(position)).unwrap_or(position)
    }
}
