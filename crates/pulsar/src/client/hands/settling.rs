//! How messages leave the hands: settled, given back, or moved elsewhere.

use super::{Acks, Barred, Hands, Place, Stage, Taken};
use crate::{
    client::{entries::Slot, feed::Feed, limits::MOVED_MAX},
    wire::proto::MessageIdData,
};
use leatworks_broker::{Message, Position};
use std::sync::Arc;
use tokio::time::Instant;

impl Hands {
    /// Begins to settle a message: nobody else can, and it is handed out no more.
    pub(crate) fn begin(&mut self, position: Position) -> Result<(), Barred> {
        match self.held.get_mut(&position) {
            None => Err(Barred::Unknown),
            Some(held) if held.settling => Err(Barred::Settled),
            Some(held) => {
                held.settling = true;
                Ok(())
            }
        }
    }

    /// The step came to nothing.
    pub(crate) fn undo(&mut self, position: Position) {
        if let Some(held) = self.held.get_mut(&position) {
            (held.settling, held.moving) = (false, false);
            if !self.seats.contains_key(&held.seat) {
                // It comes again to somebody else.
                self.held.remove(&position);
                return;
            }
            if held.stage != Stage::Handed
                && let Some(chair) = self.seats.get_mut(&held.seat)
            {
                chair.inbox.push_front(position);
                chair.wake.notify_one();
            }
        }
    }

    /// Everything up to here that has come.
    pub(crate) fn through(&self, position: Position) -> Vec<Position> {
        let mut all: Vec<Position> = self.held.keys().copied().filter(|held| *held <= position).collect();
        all.sort_unstable();
        all
    }

    /// Messages are settled. Gives what the service must be told.
    pub(crate) fn settle(&mut self, positions: &[Position]) -> Acks {
        let mut places: Vec<Place> = Vec::new();
        self.settled.add(positions);
        for position in positions {
            self.attempts.remove(position);
            let Some((place, index)) = self.release(*position) else { continue };
            if let Some(slot) = self.entries.get_mut(&place) {
                slot.settle(index);
                places.push(place);
            }
        }
        self.acks_of(places)
    }

    fn acks_of(&mut self, mut places: Vec<Place>) -> Acks {
        places.sort_unstable();
        places.dedup();
        let mut acks: Acks = Vec::new();
        for place in places {
            let Some(feed) = self.entries.get(&place).map(|slot| slot.feed.clone()) else { continue };
            let Some(id) = self.take_settled(place) else { continue };
            match acks.iter_mut().find(|(found, _)| Arc::ptr_eq(found, &feed)) {
                Some((_, ids)) => ids.push(id),
                None => acks.push((feed, vec![id])),
            }
        }
        acks
    }

    /// Parts of an entry are settled that never came here, or came while it was looked up.
    pub(crate) fn settle_unknown(
        &mut self,
        feed: &Arc<Feed>,
        place: Place,
        indexes: &[usize],
        total: usize,
    ) -> Option<MessageIdData> {
        for position in indexes.iter().filter_map(|index| place.position(*index)) {
            self.attempts.remove(&position);
            self.release(position);
        }
        let slot = self.entries.entry(place).or_insert_with(|| Slot::new(feed.clone(), total));
        indexes.iter().for_each(|index| slot.settle(*index));
        self.take_settled(place)
    }

    /// A copy of a message lies there until it comes again.
    pub(crate) fn note_moved(&mut self, position: Position, to: Position) {
        // The copy may be here already.
        if self.held.get(&position).is_none_or(|held| held.place != Place::of(to).0) {
            self.moved.retain(|(moved, _)| *moved != position);
            self.moved.push_back((position, to));
        }
        if self.moved.len() > MOVED_MAX {
            self.moved.pop_front();
        }
    }

    /// Where the copy of a message is.
    pub(crate) fn moved(&self, position: Position) -> Option<Position> {
        self.moved.iter().find(|(moved, _)| *moved == position).map(|(_, to)| *to)
    }

    /// A message leaves the hands, whatever becomes of its entry: who held it has a permit more.
    pub(super) fn release(&mut self, position: Position) -> Option<(Place, usize)> {
        let held = self.held.remove(&position)?;
        if let Some(chair) = self.seats.get_mut(&held.seat) {
            if held.stage == Stage::Handed {
                chair.handed -= 1;
            }
            if held.ahead {
                chair.ahead -= 1;
            }
            chair.wake.notify_one();
        }
        if let Some(slot) = self.entries.get(&held.place).filter(|_| !held.replaced) {
            slot.feed.give(1, slot.epoch);
        }
        self.free_key(&held.message, position);
        Some((held.place, held.index))
    }

    /// The next message of a key may be handed out.
    pub(super) fn free_key(&mut self, message: &Message, position: Position) {
        let Some(key) = &message.key else { return };
        let Some(found) = self.keys.get_mut(key).filter(|found| found.owner == position) else { return };
        while let Some(next) = found.waiting.pop_front() {
            let Some(held) = self.held.get(&next) else { continue };
            let Some(chair) = self.seats.get_mut(&held.seat) else { continue };
            found.owner = next;
            chair.inbox.push_front(next);
            chair.wake.notify_one();
            return;
        }
        self.keys.remove(key);
    }

    /// What is to be told of an entry: that it is settled, or what of it is not.
    pub(super) fn take_settled(&mut self, place: Place) -> Option<MessageIdData> {
        let slot = self.entries.get(&place)?;
        let mut id = MessageIdData { ledger: place.ledger, entry: place.entry, ..MessageIdData::default() };
        if slot.left == 0 {
            self.entries.remove(&place);
            return Some(id);
        }
        (slot.left < slot.total).then(|| {
            (id.ack_set, id.batch_size) = (slot.open.clone(), Some(slot.total as i32));
            id
        })
    }

    /// A message in hand is given back and kept here until its time comes: it holds its place among those of its key.
    pub(crate) fn keep(&mut self, position: Position, due: Instant) {
        let Some(held) = self.held.get_mut(&position).filter(|held| held.stage == Stage::Handed && !held.settling) else {
            return;
        };
        held.stage = Stage::Back;
        let Some(chair) = self.seats.get_mut(&held.seat) else { return };
        chair.handed -= 1;
        chair.delayed.insert((due, position), ());
        chair.wake.notify_one();
    }

    /// A message in hand goes elsewhere: a copy of it is about to be published.
    pub(crate) fn move_away(&mut self, position: Position) -> Option<Taken> {
        let held = self.held.get_mut(&position).filter(|held| held.stage == Stage::Handed && !held.settling)?;
        (held.settling, held.moving) = (true, true);
        let attempt = self.attempts.get(&position).copied().unwrap_or(1);
        Some(Taken { message: held.message.clone(), attempt, place: held.place, index: held.index })
    }

    /// The copy is there, and the message is settled here.
    pub(crate) fn moved_away(&mut self, position: Position, place: Place, index: usize) -> Acks {
        if self.held.get(&position).is_some_and(|held| held.place == place) {
            self.release(position);
        }
        if let Some(slot) = self.entries.get_mut(&place) {
            slot.settle(index);
        }
        self.acks_of(vec![place])
    }
}
