//! What this process has of one subscription: which messages have come, who has them in hand, and which entries are settled as a whole.
//!
//! Pulsar settles entries, and an entry may hold many messages: it is acknowledged when the last of them is settled. Until then what is
//! settled of it is noted here and, where the service keeps it, told there.

mod looking;
mod picking;
mod settling;

pub(crate) use picking::Pick;

use super::{
    entries::{Settled, Slot, bit},
    error::PulsarError,
    feed::Feed,
    limits::DELAYED_MAX,
    pack::{Arrived, Place},
    seen::Seen,
    state::Runs,
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
    /// Whether a message whose id another had already is not handed out.
    drops_repetitions: bool,
    /// What steps with state have settled, as the state said when it was opened.
    pinned: Vec<Runs>,
}

/// An entry that has come.
pub(crate) struct CameIn<'a> {
    pub(crate) place: Place,
    /// The bits that the service has for it: which of its messages are not settled.
    pub(crate) open: &'a [i64],
    /// Nobody had it before.
    pub(crate) is_first_time: bool,
}

/// What becomes of an entry that has come.
#[derive(Default)]
pub(crate) struct Came {
    /// What can be acknowledged at once.
    pub(crate) acks: Vec<MessageIdData>,
    /// What is settled without having been handed out here.
    pub(crate) settled: Vec<Position>,
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
    /// Messages in hand in whose place others may come already.
    ahead: usize,
}

struct Key {
    owner: Position,
    waiting: VecDeque<Position>,
}

struct Held {
    seat: u64,
    place: Place,
    index: usize,
    message: Arc<Message>,
    /// The hash of the id that it says it has, or 0.
    id: u64,
    /// How often it was handed out before it came here.
    before: u32,
    /// Nobody had it before, as far as can be told from how it came.
    is_first_time: bool,
    stage: Stage,
    /// A step that settles it is under way.
    settling: bool,
    /// A copy of it is on its way to where it goes.
    moving: bool,
    /// Another message may come in its place already.
    replaced: bool,
    /// The same, since it is in hand: it counts in its seat's `ahead`.
    ahead: bool,
}

/// What a message that comes finds here of itself.
enum Met {
    Nobody,
    /// The same message of the same entry.
    Itself,
    /// It is on its way to this entry from the hands that it is still in.
    OnItsWay,
    /// A copy that a crash has left: what goes on is here already.
    Copy,
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
            ahead: 0,
        };
        self.seats.insert(seat, chair);
    }

    /// From now on a message whose id another had already is not handed out.
    pub(crate) fn drop_repetitions(&mut self) {
        self.drops_repetitions = true;
    }

    pub(crate) fn add_feed(&mut self, seat: u64, feed: &Arc<Feed>) {
        if let Some(chair) = self.seats.get_mut(&seat) {
            chair.feeds.push(feed.clone());
        }
    }

    /// A consumer leaves, and everything it has goes back. What is settled of an entry stays known.
    pub(crate) fn leave(&mut self, seat: u64) -> Vec<Arc<Feed>> {
        let Some(chair) = self.seats.remove(&seat) else { return Vec::new() };
        // What is being settled is so, whoever has had it.
        let goes = |held: &Held| held.seat == seat && !held.settling;
        let gone: Vec<Position> = self.held.iter().filter(|(_, held)| goes(held)).map(|(position, _)| *position).collect();
        for position in gone {
            if self.inherit(position, &chair) {
                continue;
            }
            let Some(held) = self.held.remove(&position) else { continue };
            self.free_key(&held.message, position);
            if let Some(to) = held.place.position(held.index).filter(|to| *to != position) {
                self.note_moved(position, to);
            }
        }
        let settling: HashSet<Place> = self.held.values().filter(|held| held.settling).map(|held| held.place).collect();
        self.entries.retain(|place, slot| {
            let of_seat = chair.feeds.iter().any(|feed| Arc::ptr_eq(feed, &slot.feed));
            slot.left < slot.total || !of_seat || settling.contains(place)
        });
        chair.feeds
    }

    /// What the service has handed to another consumer too does not come again: that one has it now. `false` if there is none.
    fn inherit(&mut self, position: Position, left: &Chair) -> bool {
        let Some(held) = self.held.get_mut(&position) else { return false };
        let Some(slot) = self.entries.get(&held.place) else { return false };
        let has = |chair: &Chair| chair.feeds.iter().any(|feed| Arc::ptr_eq(feed, &slot.feed));
        let Some((heir, chair)) = self.seats.iter_mut().find(|(_, chair)| has(chair)) else { return false };
        (held.seat, held.stage, held.ahead) = (*heir, Stage::Waiting, false);
        match left.delayed.keys().find(|(_, delayed)| *delayed == position) {
            Some(due) => drop(chair.delayed.insert(*due, ())),
            None => chair.inbox.push_back(position),
        }
        chair.wake.notify_one();
        true
    }

    /// Any feed of a topic that is connected or will be.
    pub(crate) fn feed_of(&self, topic: &str) -> Option<Arc<Feed>> {
        self.seats.values().flat_map(|chair| &chair.feeds).find(|feed| feed.topic() == topic).cloned()
    }

    /// The kind of the consumers that are here.
    pub(crate) fn kind(&self) -> Option<SubscriptionKind> {
        self.seats.values().next().map(|chair| chair.kind)
    }

    /// An entry has come.
    pub(crate) fn arrived(
        &mut self,
        seat: u64,
        feed: &Arc<Feed>,
        entry: CameIn<'_>,
        messages: Vec<Arrived>,
        now_ms: u64,
    ) -> Came {
        let CameIn { place, open, is_first_time } = entry;
        let mut came = Came::default();
        if !self.seats.contains_key(&seat) {
            return came;
        }
        self.settled.came();
        let (total, epoch) = (messages.len(), feed.epoch());
        let slot = self.entries.entry(place).or_insert_with(|| Slot::new(feed.clone(), total));
        let before = (std::mem::replace(&mut slot.feed, feed.clone()), std::mem::replace(&mut slot.epoch, epoch));
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
            if self.settled.known.contains(&position) || has(&self.pinned, position) {
                // The service has lost the acknowledgement, or has never got it.
                slot.settle(index);
                feed.give(1, epoch);
                came.settled.push(position);
                continue;
            }
            match self.meets(seat, place, position, (&before.0, before.1)) {
                Met::Itself => {}
                Met::OnItsWay => {
                    self.release(position);
                    self.put(seat, (place, index), position, arrived, false, now_ms);
                }
                Met::Copy => {
                    if let Some(slot) = self.entries.get_mut(&place) {
                        slot.settle(index);
                    }
                    feed.give(1, epoch);
                }
                Met::Nobody => self.put(seat, (place, index), position, arrived, is_first_time, now_ms),
            }
        }
        came.acks.extend(self.take_settled(place));
        came
    }

    /// What a message that comes finds here of itself. `before` is the feed over which its entry came last, and when.
    fn meets(&mut self, seat: u64, place: Place, position: Position, before: (&Arc<Feed>, u64)) -> Met {
        let Some(held) = self.held.get_mut(&position) else { return Met::Nobody };
        if held.place != place {
            return if held.moving { Met::OnItsWay } else { Met::Copy };
        }
        if std::mem::take(&mut held.ahead) {
            self.seats.get_mut(&held.seat).into_iter().for_each(|chair| chair.ahead -= 1);
        }
        if held.seat == seat {
            // It is in hand already, and its connection is another now: over this one it has taken the place of one that may come.
            held.replaced = false;
        } else if !held.settling && self.seats.contains_key(&held.seat) {
            // While consumers come and go the service may hand it to two of them: the first one has it, and in its place another may come.
            if !std::mem::replace(&mut held.replaced, false) {
                before.0.give(1, before.1);
            }
        } else {
            // Whoever had it has left while it was being settled.
            (held.seat, held.stage, held.replaced) = (seat, Stage::Waiting, false);
        }
        Met::Itself
    }

    fn put(
        &mut self,
        seat: u64,
        (place, index): (Place, usize),
        position: Position,
        arrived: Arrived,
        is_first_time: bool,
        now_ms: u64,
    ) {
        let Arrived { message, again, says_id } = arrived;
        self.moved.retain(|(moved, _)| *moved != position);
        let wait = message.deliver_at_ms.map_or(0, |time| time.saturating_sub(now_ms));
        let mut held = Held {
            seat,
            place,
            index,
            id: if says_id { Seen::hash(message.id) } else { 0 },
            message: Arc::new(message),
            before: again.attempt,
            is_first_time: is_first_time && again.attempt == 0,
            stage: Stage::Waiting,
            settling: false,
            moving: false,
            replaced: false,
            ahead: false,
        };
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
        self.settled.lost();
        let entries = &self.entries;
        let of_feed = |held: &Held| entries.get(&held.place).is_some_and(|slot| Arc::ptr_eq(&slot.feed, feed));
        let gone: Vec<Position> = (self.held.iter())
            .filter(|(_, held)| held.stage == Stage::Waiting && !held.settling && of_feed(held))
            .map(|(position, _)| *position)
            .collect();
        for position in gone {
            let Some(held) = self.held.remove(&position) else { continue };
            if let (true, Some(chair)) = (held.ahead, self.seats.get_mut(&held.seat)) {
                chair.ahead -= 1;
            }
            self.free_key(&held.message, position);
        }
    }

    pub(crate) fn failed(&mut self, seat: u64, error: PulsarError) {
        if let Some(chair) = self.seats.get_mut(&seat) {
            chair.failed = Some(error);
            chair.wake.notify_one();
        }
    }

    /// The attempts start over.
    pub(crate) fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.entries.clear();
        self.moved.clear();
        self.settled = Settled::default();
        self.pinned.clear();
    }

    /// These are settled, whether or not the service knows.
    pub(crate) fn pin(&mut self, settled: Runs) {
        self.pinned.push(settled);
    }

    /// Whether a step with state has settled it.
    pub(crate) fn is_pinned(&self, position: Position) -> bool {
        has(&self.pinned, position)
    }

    /// Nothing more comes of a message here.
    pub(crate) fn forget(&mut self, position: Position) {
        self.attempts.remove(&position);
        self.moved.retain(|(moved, _)| *moved != position);
    }

    /// Everybody who waits looks again.
    pub(crate) fn wake_all(&self) {
        self.seats.values().for_each(|chair| chair.wake.notify_one());
    }
}

fn has(pinned: &[Runs], position: Position) -> bool {
    pinned.iter().any(|settled| settled.has(position))
}

/// A wait that is longer than any process lives; a far time must not overflow.
const FAR_MS: u64 = 1_000 * 3_600 * 24 * 365;
