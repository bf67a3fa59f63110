//! What this process has of one subscription: which messages have come, who has them in hand, and which entries are settled as a whole.
//!
//! Pulsar settles entries, and an entry may hold many messages: it is acknowledged when the last of them is settled. Until then what is
//! settled of it is noted here and, where the service keeps it, told there.

use super::{
    error::{Answer, PulsarError},
    feed::Feed,
    limits::{DELAYED_MAX, MOVED_MAX, SETTLED_MAX, SETTLED_TIME},
    pack::{Arrived, Place},
};
use crate::wire::proto::MessageIdData;
use leatworks_broker::{Message, Position, SubscriptionKind};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};
use tokio::{sync::Notify, time::Instant};

/// What has come, under one lock.
#[derive(Default)]
pub(crate) struct Hands {
    seats: HashMap<u64, Chair>,
    entries: HashMap<Place, Slot>,
    held: HashMap<Position, Held>,
    /// Who has the only message of a key that may be in hand, and which of that key wait for it.
    keys: HashMap<String, Key>,
    /// The attempts of what was handed out and is not settled.
    attempts: HashMap<Position, u32>,
    /// Where copies are of what was given back and has not come again, the oldest first.
    moved: VecDeque<(Position, Position)>,
    settled: Settled,
}

/// What was settled in the last seconds.
#[derive(Default)]
struct Settled {
    known: HashSet<Position>,
    order: VecDeque<(Instant, Position)>,
}

impl Settled {
    fn add(&mut self, positions: &[Position]) {
        let now = Instant::now();
        self.known.extend(positions);
        self.order.extend(positions.iter().map(|position| (now, *position)));
        let is_old = |(at, _): &(Instant, Position)| now.duration_since(*at) > SETTLED_TIME;
        while self.order.len() > SETTLED_MAX || self.order.front().is_some_and(is_old) {
            let Some((_, position)) = self.order.pop_front() else { break };
            self.known.remove(&position);
        }
    }
}

/// One consumer of this process.
struct Chair {
    kind: SubscriptionKind,
    permits: usize,
    handed: usize,
    inbox: VecDeque<Position>,
    /// What may not be handed out before its time.
    delayed: BTreeMap<(Instant, Position), ()>,
    wake: Arc<Notify>,
    feeds: Vec<Arc<Feed>>,
    failed: Option<PulsarError>,
}

struct Key {
    owner: Position,
    waiting: VecDeque<Position>,
}

/// An entry of which something is not settled.
struct Slot {
    feed: Arc<Feed>,
    epoch: u64,
    total: usize,
    /// One bit for each message that is not settled, as Pulsar has it.
    open: Vec<i64>,
    left: usize,
}

struct Held {
    seat: u64,
    place: Place,
    index: usize,
    message: Arc<Message>,
    /// How often it was handed out before it came here.
    before: u32,
    stage: Stage,
    /// A step that settles it is under way.
    settling: bool,
    /// Another message may come in its place already.
    replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has come and can be handed out.
    Waiting,
    /// It is in hand.
    Handed,
    /// It was given back here and is kept.
    Back,
}

/// What is to be told to the service, by the feed that it is told through.
pub(crate) type Acks = Vec<(Arc<Feed>, Vec<MessageIdData>)>;

/// A message that has come off its entry and goes somewhere else.
pub(crate) struct Taken {
    pub(crate) message: Arc<Message>,
    pub(crate) attempt: u32,
    pub(crate) place: Place,
    pub(crate) index: usize,
}

/// Messages that were picked, each with the attempt that it is as far as is known; and when the next one's time comes, if none was.
pub(crate) type Picked = (Vec<(Position, u32)>, Option<Instant>);

/// What stands in the way of settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// Somebody settles it now, or has.
    Settled,
    /// Nothing is known of it here.
    Unknown,
}

impl Hands {
    /// A consumer comes; its feeds follow.
    pub(crate) fn sit(&mut self, seat: u64, kind: SubscriptionKind, permits: usize, wake: Arc<Notify>) {
        let chair = Chair {
            kind,
            permits,
            handed: 0,
            inbox: VecDeque::new(),
            delayed: BTreeMap::new(),
            wake,
            feeds: Vec::new(),
            failed: None,
        };
        self.seats.insert(seat, chair);
    }

    pub(crate) fn add_feed(&mut self, seat: u64, feed: &Arc<Feed>) {
        if let Some(chair) = self.seats.get_mut(&seat) {
            chair.feeds.push(feed.clone());
        }
    }

    /// A consumer leaves, and everything it has goes back. What is settled of an entry stays known.
    pub(crate) fn leave(&mut self, seat: u64) -> Vec<Arc<Feed>> {
        let Some(chair) = self.seats.remove(&seat) else { return Vec::new() };
        let gone: Vec<Position> = self.held.iter().filter(|(_, held)| held.seat == seat).map(|(position, _)| *position).collect();
        for position in gone {
            let Some(held) = self.held.remove(&position) else { continue };
            self.free_key(&held.message, position);
            if let Some(to) = held.place.position(held.index).filter(|to| *to != position) {
                self.note_moved(position, to);
            }
        }
        self.entries.retain(|_, slot| slot.left < slot.total || !chair.feeds.iter().any(|feed| Arc::ptr_eq(feed, &slot.feed)));
        chair.feeds
    }

    /// Any feed of a topic that is connected or will be.
    pub(crate) fn feed_of(&self, topic: &str) -> Option<Arc<Feed>> {
        self.seats.values().flat_map(|chair| &chair.feeds).find(|feed| feed.topic() == topic).cloned()
    }

    /// The kind of the consumers that are here.
    pub(crate) fn kind(&self) -> Option<SubscriptionKind> {
        self.seats.values().next().map(|chair| chair.kind)
    }

    /// An entry has come, with the bits that the service has for it. Gives what can be acknowledged at once.
    pub(crate) fn arrived(
        &mut self,
        seat: u64,
        feed: &Arc<Feed>,
        place: Place,
        messages: Vec<Arrived>,
        open: &[i64],
        now_ms: u64,
    ) -> Vec<MessageIdData> {
        if !self.seats.contains_key(&seat) {
            return Vec::new();
        }
        let (total, epoch) = (messages.len(), feed.epoch());
        let slot = self.entries.entry(place).or_insert_with(|| Slot::new(feed.clone(), total));
        (slot.feed, slot.epoch) = (feed.clone(), epoch);
        for (index, arrived) in messages.into_iter().enumerate() {
            let told = open.is_empty() || bit(open, index);
            let slot = self.entries.get_mut(&place).expect("it was put there above");
            if !told {
                slot.settle(index);
            }
            if !bit(&slot.open, index) {
                feed.give(1, epoch);
                continue;
            }
            let Some(position) = arrived.again.position.or_else(|| place.position(index)) else {
                tracing::error!(?place, index, "the place of a message is too large for a position; it is left where it is");
                continue;
            };
            if self.settled.known.contains(&position) {
                // The service has lost the acknowledgement; it gets it again.
                slot.settle(index);
                feed.give(1, epoch);
                continue;
            }
            match self.held.get_mut(&position) {
                // It is in hand already, and its connection is another now.
                Some(held) if held.place == place => held.seat = seat,
                // A copy that a crash has left: what goes on is here already.
                Some(_) => {
                    slot.settle(index);
                    feed.give(1, epoch);
                }
                None => self.put(seat, place, index, position, arrived, now_ms),
            }
        }
        self.take_settled(place).into_iter().collect()
    }

    fn put(&mut self, seat: u64, place: Place, index: usize, position: Position, arrived: Arrived, now_ms: u64) {
        let Arrived { message, again } = arrived;
        self.moved.retain(|(moved, _)| *moved != position);
        let wait = message.deliver_at_ms.map_or(0, |time| time.saturating_sub(now_ms));
        let message = Arc::new(message);
        let mut held =
            Held { seat, place, index, message, before: again.attempt, stage: Stage::Waiting, settling: false, replaced: false };
        let Some(chair) = self.seats.get_mut(&seat) else { return };
        match wait {
            0 => chair.inbox.push_back(position),
            wait => {
                let due = Instant::now() + std::time::Duration::from_millis(wait.min(FAR_MS));
                chair.delayed.insert((due, position), ());
                // What waits for its time holds nothing up, up to a limit.
                if chair.delayed.len() <= DELAYED_MAX
                    && let Some(slot) = self.entries.get(&place)
                {
                    held.replaced = true;
                    slot.feed.give(1, slot.epoch);
                    slot.feed.flush();
                }
            }
        }
        chair.wake.notify_one();
        self.held.insert(position, held);
    }

    /// The connection of a feed is lost: what was not handed out comes again.
    pub(crate) fn lost(&mut self, feed: &Arc<Feed>) {
        let entries = &self.entries;
        let of_feed = |held: &Held| entries.get(&held.place).is_some_and(|slot| Arc::ptr_eq(&slot.feed, feed));
        let gone: Vec<Position> = (self.held.iter())
            .filter(|(_, held)| held.stage == Stage::Waiting && !held.settling && of_feed(held))
            .map(|(position, _)| *position)
            .collect();
        for position in gone {
            let Some(held) = self.held.remove(&position) else { continue };
            self.free_key(&held.message, position);
        }
    }

    pub(crate) fn failed(&mut self, seat: u64, error: PulsarError) {
        if let Some(chair) = self.seats.get_mut(&seat) {
            chair.failed = Some(error);
            chair.wake.notify_one();
        }
    }

    /// Takes messages into hand, each with the attempt that it is, as far as is known here; or tells when the next one's time comes.
    pub(crate) fn pick(&mut self, seat: u64, max: usize) -> Answer<Picked> {
        let mut picked = Vec::new();
        self.promote(seat);
        while let Some(chair) = self.seats.get_mut(&seat).filter(|chair| picked.len() < max && chair.handed < chair.permits) {
            let Some(position) = chair.inbox.pop_front() else { break };
            let Some(held) = self.held.get_mut(&position) else { continue };
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
            held.stage = Stage::Handed;
            chair.handed += 1;
            let attempt = self.attempts.get(&position).copied().unwrap_or_default().max(held.before) + 1;
            self.attempts.insert(position, attempt);
            picked.push((position, attempt));
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

    /// Whether this message is here.
    pub(crate) fn holds(&self, position: Position) -> bool {
        self.held.contains_key(&position)
    }

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
            held.settling = false;
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
        if !self.held.contains_key(&position) {
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
    fn release(&mut self, position: Position) -> Option<(Place, usize)> {
        let held = self.held.remove(&position)?;
        if let Some(chair) = self.seats.get_mut(&held.seat) {
            if held.stage == Stage::Handed {
                chair.handed -= 1;
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
    fn free_key(&mut self, message: &Message, position: Position) {
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
    fn take_settled(&mut self, place: Place) -> Option<MessageIdData> {
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

    /// A message in hand goes elsewhere.
    pub(crate) fn take(&mut self, position: Position) -> Option<Taken> {
        let held = self.held.get(&position).filter(|held| held.stage == Stage::Handed && !held.settling)?;
        let message = held.message.clone();
        let attempt = self.attempts.get(&position).copied().unwrap_or(1);
        let (place, index) = self.release(position)?;
        Some(Taken { message, attempt, place, index })
    }

    /// It has arrived there, and is settled here.
    pub(crate) fn taken(&mut self, place: Place, index: usize) -> Acks {
        if let Some(slot) = self.entries.get_mut(&place) {
            slot.settle(index);
        }
        self.acks_of(vec![place])
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

    /// The attempts start over.
    pub(crate) fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.entries.clear();
        self.moved.clear();
        self.settled = Settled::default();
    }

    /// Everybody who waits looks again.
    pub(crate) fn wake_all(&self) {
        self.seats.values().for_each(|chair| chair.wake.notify_one());
    }
}

/// A wait that is longer than any process lives; a far time must not overflow.
const FAR_MS: u64 = 1_000 * 3_600 * 24 * 365;

impl Slot {
    fn new(feed: Arc<Feed>, total: usize) -> Self {
        let mut open = vec![-1; total.div_ceil(64)];
        if let (Some(last), 1..) = (open.last_mut(), total % 64) {
            *last = ((1_u64 << (total % 64)) - 1) as i64;
        }
        Self { epoch: feed.epoch(), feed, total, open, left: total }
    }

    fn settle(&mut self, index: usize) {
        if bit(&self.open, index) {
            self.open[index / 64] &= !(1 << (index % 64));
            self.left -= 1;
        }
    }
}

fn bit(bits: &[i64], index: usize) -> bool {
    bits.get(index / 64).is_some_and(|word| (word >> (index % 64)) & 1 == 1)
}
