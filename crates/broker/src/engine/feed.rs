//! Who is connected to one subscription and what is handed out. It is lost with the process and follows from the state.

use super::{
    Core, Window,
    keys::{self, Keys},
};
use crate::{
    BrokerError, ErrorKind, RECEIVE_BYTES_MAX, Result, Subscribe, SubscriptionKind,
    planted::{self, Bug},
    state::{Settled, Subscription, Topic},
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::Notify;

/// How many positions one look for messages passes over while the engine is locked. A subscription that holds many blocked messages is
/// looked through in several goes, about 0.1 ms each.
const SCAN_MAX: usize = 4_096;

/// How many messages of a key-shared subscription are set aside at most, because one of their key is unsettled or because their consumer has not asked for
/// them yet. Beyond it nobody gets new messages before some are settled. They and their blocks take some 60 MB.
const ASIDE_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// The consumers of a subscription and the messages on their way to them.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    pub(crate) kind: Option<SubscriptionKind>,
    /// In the order of arrival; the first is the active one of a failover subscription.
    seats: Vec<Seat>,
    /// Everything before it is settled, handed out, or in one of the sets below.
    next: u64,
    /// To be handed out before anything from `next` on.
    ready: BTreeSet<u64>,
    /// Not due yet: the time, then the position.
    delayed: BTreeSet<(u64, u64)>,
    in_flight: Window<Held>,
    /// The one message in hand that may be what ends the process, and those that wait for it to be let go: see [`Feed::go_alone`].
    alone: Option<u64>,
    /// How often one of them was let go, and up to which of these times what became of it is known to survive the end of the process.
    alone_let_go: u64,
    alone_survived: u64,
    suspects: BTreeSet<u64>,
    /// For key-shared subscriptions only.
    keys: Keys,
    /// How many messages are ready for one consumer only.
    owned: usize,
    pub(crate) notify: Arc<Notify>,
}

/// One connected consumer.
#[derive(Debug)]
struct Seat {
    id: u64,
    permits: usize,
    held: usize,
    eager: bool,
    /// To be handed out to this consumer and no other, because of their keys.
    ready: BTreeSet<u64>,
}

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    seat: u64,
    /// Which attempt it is; 0 as long as it is taken and not handed out.
    attempt: u32,
}

/// What a consumer gets to hear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// These positions.
    Positions(Vec<u64>),
    /// Nothing before this time, in milliseconds since the Unix epoch, or before it is notified.
    Nothing { due_ms: Option<u64> },
    /// Nothing yet, but there is more to look through.
    Unfinished,
    /// Nothing before the block of this position is loaded.
    Spilled(u64),
}

impl Feed {
    /// Lets a consumer in.
    pub(crate) fn join(&mut self, id: u64, subscribe: &Subscribe, cursor: u64) -> Result<()> {
        let name = || format!("subscription `{}` of topic `{}`", subscribe.subscription, subscribe.topic);
        if subscribe.permits == 0 {
            return Err(BrokerError::new(ErrorKind::Invalid, format!("{} needs at least one permit", name())));
        }
        match self.kind {
            Some(kind) if kind != subscribe.kind => {
                return Err(BrokerError::new(
                    ErrorKind::Conflict,
                    format!("{} is used as {kind:?}, not {:?}", name(), subscribe.kind),
                ));
            }
            Some(SubscriptionKind::Exclusive) => {
                return Err(BrokerError::new(ErrorKind::Conflict, format!("{} has an exclusive consumer", name())));
            }
            _ => {}
        }
        if self.kind.is_none() {
            self.kind = Some(subscribe.kind);
            self.next = cursor;
        }
        let eager = subscribe.hand_off == crate::HandOff::Eager;
        self.gather();
        self.seats.push(Seat { id, permits: subscribe.permits, held: 0, eager, ready: BTreeSet::new() });
        Ok(())
    }

    /// A consumer comes or goes, and keys with it: what was ready for one is ready for whoever has its key then.
    fn gather(&mut self) {
        for seat in &mut self.seats {
            self.ready.append(&mut seat.ready);
        }
        self.owned = 0;
    }

    /// A consumer leaves; what it held is ready for the others. The last one leaves nothing behind but the state. Gives what had been handed out, as position
    /// and attempt, in order.
    pub(crate) fn leave(&mut self, id: u64) -> Vec<(u64, u32)> {
        self.gather();
        self.seats.retain(|seat| seat.id != id);
        let mut handed = self.handed(|seat| seat == id);
        handed.sort_unstable();
        if self.seats.is_empty() {
            let notify = std::mem::take(&mut self.notify);
            *self = Self { notify, ..Self::default() };
            return handed;
        }
        let returned: Vec<u64> =
            self.in_flight.iter().filter(|(_, held)| held.seat == id).map(|(position, _)| position).collect();
        for position in returned {
            self.in_flight.remove(position);
            self.let_suspects_go(position, position + 1);
            if !planted::is(Bug::LeaveForgets) {
                self.ready.insert(position);
            }
        }
        self.notify.notify_waiters();
        handed
    }

    /// What is handed out to these consumers, as position and attempt.
    pub(crate) fn handed(&self, to: impl Fn(u64) -> bool) -> Vec<(u64, u32)> {
        let handed = self.in_flight.iter().filter(|(_, held)| held.attempt > 0 && to(held.seat));
        handed.map(|(position, held)| (position, held.attempt)).collect()
    }

    /// A message that this consumer has taken is handed out now; `false` if it does not hold it any more.
    pub(crate) fn hand_out(&mut self, position: u64, id: u64, attempt: u32) -> bool {
        match self.in_flight.get_mut(position).filter(|held| held.seat == id) {
            Some(held) => {
                held.attempt = attempt;
                true
            }
            None => false,
        }
    }

    /// Whether a message that was in hand when processes ended, so often that it may be what ended them, may be handed out to the consumer that has taken it.
    /// One at a time is: it uses up attempts of its own only, and not those of whatever else was in hand. Any other waits until that one is let go, and what is behind
    /// it goes on; but not where order is promised, and what comes later may be acknowledged with all before it.
    pub(crate) fn go_alone(&mut self, position: u64, id: u64) -> bool {
        if self.in_flight.get(position).is_none_or(|held| held.seat != id) {
            return false;
        }
        let ordered = matches!(self.kind, Some(SubscriptionKind::Exclusive | SubscriptionKind::Failover));
        if ordered || *self.alone.get_or_insert(position) == position {
            return true;
        }
        self.in_flight.remove(position);
        self.unhold(id);
        self.suspects.insert(position);
        false
    }

    /// Messages are let go of; if the one that goes alone is among them, the next may.
    fn let_suspects_go(&mut self, start: u64, end: u64) {
        if self.alone.is_some_and(|alone| (start..end).contains(&alone)) {
            self.alone = None;
            self.alone_let_go += 1;
            self.ready.append(&mut self.suspects);
        }
    }

    /// The last time that a message that went alone was let go, if the process could still end without that being known. The next one would end it, and the one before
    /// would have used up an attempt that went well.
    pub(crate) fn alone_unsafe(&self) -> Option<u64> {
        (self.alone_survived < self.alone_let_go).then_some(self.alone_let_go)
    }

    /// What became of those that went alone survives the end of the process, up to this time.
    pub(crate) fn alone_is_safe(&mut self, time: u64) {
        self.alone_survived = self.alone_survived.max(time);
    }

    /// Whether some consumer gets messages before they are durable.
    pub(crate) fn is_eager(&self) -> bool {
        self.seats.iter().any(|seat| seat.eager)
    }

    pub(crate) fn consumers(&self) -> usize {
        self.seats.len()
    }

    /// Everything before it was looked at.
    pub(crate) fn next_position(&self) -> u64 {
        self.next
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn holds(&self, position: u64) -> bool {
        self.in_flight.get(position).is_some()
    }

    /// Which attempt of this message is handed out, if any is.
    pub(crate) fn attempt(&self, position: u64) -> Option<u32> {
        self.in_flight.get(position).map(|held| held.attempt).filter(|attempt| *attempt > 0)
    }

    /// Takes up to `max` messages for a consumer, within its permits and within [`RECEIVE_BYTES_MAX`].
    pub(crate) fn take<H>(
        &mut self,
        id: u64,
        max: usize,
        (topic, subscription): (&Topic<H>, &Subscription),
        now_ms: u64,
        size: impl Fn(&H) -> usize,
    ) -> Taken {
        let failover = self.kind == Some(SubscriptionKind::Failover) && !planted::is(Bug::FailoverToAll);
        let seat = self.seats.iter().enumerate().find(|(_, seat)| seat.id == id);
        let Some(limit) = seat.filter(|(index, _)| !failover || *index == 0).map(|(_, seat)| max.min(seat.permits - seat.held))
        else {
            return Taken::Nothing { due_ms: None };
        };
        while let Some((due, position)) = self.delayed.first().copied().filter(|(due, _)| *due <= now_ms) {
            self.delayed.remove(&(due, position));
            self.ready.insert(position);
        }
        let mut taken = self.take_run(limit, topic, subscription, &size);
        let bytes_of = |position: u64| topic.log.get(position).map_or(0, |entry| size(&entry.handle));
        // Nobody asks where all of them come from the run.
        let mut bytes: Option<usize> = None;
        let (mut scanned, was_full) = (0, self.is_full());
        let mut others = false;
        while taken.len() < limit && scanned < SCAN_MAX {
            let Some(position) = self.candidate(id, topic, subscription, now_ms) else { break };
            scanned += 1;
            let Some(position) = position.filter(|position| self.admit(topic, *position)) else { continue };
            match self.owner(topic, position).filter(|owner| *owner != id) {
                Some(owner) => others |= self.set_aside(owner, position),
                None => {
                    let so_far = bytes.get_or_insert_with(|| taken.iter().map(|position| bytes_of(*position)).sum());
                    *so_far += bytes_of(position);
                    if *so_far > RECEIVE_BYTES_MAX && !taken.is_empty() {
                        self.ready.insert(position);
                        break;
                    }
                    taken.push(position);
                }
            }
        }
        if others || (was_full && !self.is_full()) {
            self.notify.notify_waiters();
        }
        for position in &taken {
            self.in_flight.insert(*position, Held { seat: id, attempt: 0 });
        }
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id) {
            seat.held += taken.len();
        }
        match (taken.is_empty(), scanned == SCAN_MAX) {
            (false, _) => Taken::Positions(taken),
            (true, true) => Taken::Unfinished,
            (true, false) if limit > 0 && !self.is_full() && topic.log.spilled_at(self.next).is_some() => {
                Taken::Spilled(self.next)
            }
            (true, false) => Taken::Nothing { due_ms: self.delayed.first().map(|(due, _)| *due).filter(|_| limit > 0) },
        }
    }

    /// Takes messages in order where nothing else is to be looked at: no order of keys, no delays, nothing that came back.
    fn take_run<H>(
        &mut self,
        limit: usize,
        topic: &Topic<H>,
        subscription: &Subscription,
        size: impl Fn(&H) -> usize,
    ) -> Vec<u64> {
        let plain = self.kind != Some(SubscriptionKind::KeyShared) && self.ready.is_empty();
        if !plain || !subscription.delays.is_empty() || !topic.deliver_at.is_empty() {
            return Vec::new();
        }
        let start = subscription.settled.next_unsettled(self.next);
        let end = subscription.settled.next_settled(start).min(topic.log.next()).min(start.saturating_add(limit as u64));
        let end = topic.log.loaded_until(start, end);
        self.next = self.next.max(start.min(topic.log.next()));
        if start >= end {
            return Vec::new();
        }
        self.next = topic.log.end_of_bytes(start, end, RECEIVE_BYTES_MAX, size);
        (start..self.next).collect()
    }

    /// The next position to look at: `None` at the end, `Some(None)` for one that is not to be handed out now.
    fn candidate<H>(&mut self, id: u64, topic: &Topic<H>, subscription: &Subscription, now_ms: u64) -> Option<Option<u64>> {
        if let Some(position) = self.pop_ready(id) {
            return Some((!subscription.settled.contains(position)).then_some(position));
        }
        if self.is_full() {
            return None;
        }
        let position = subscription.settled.next_unsettled(self.next);
        if position >= topic.log.next() {
            self.next = position.min(topic.log.next());
            return None;
        }
        if topic.log.spilled_at(position).is_some() {
            self.next = position;
            return None;
        }
        self.next = position + 1;
        let returned = subscription.delays.get(&position).map(|delay| delay.until_ms);
        let due = match returned {
            Some(due) => Some(due),
            None if topic.deliver_at.is_empty() || subscription.attempts.contains_key(&position) => None,
            None => topic.deliver_at.get(&position).copied(),
        };
        match due.filter(|due| *due > now_ms) {
            Some(due) => {
                // A message that was delivered once keeps its place at the head of its key while it waits.
                if returned.is_none() || self.admit(topic, position) {
                    self.delayed.insert((due, position));
                }
                Some(None)
            }
            None => Some(Some(position)),
        }
    }

    /// The first that is ready for this consumer.
    fn pop_ready(&mut self, id: u64) -> Option<u64> {
        if self.owned > 0
            && let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id)
            && let Some(own) = seat.ready.first().copied()
            && self.ready.first().is_none_or(|any| own < *any)
        {
            self.owned -= 1;
            return seat.ready.pop_first();
        }
        self.ready.pop_first()
    }

    /// Whether the order of its key lets this message go; if not, it waits for the one before.
    fn admit<H>(&mut self, topic: &Topic<H>, position: u64) -> bool {
        match self.key(topic, position) {
            0 => true,
            key => self.keys.admit(key, position),
        }
    }

    /// The key that decides on a message, 0 if none does.
    fn key<H>(&self, topic: &Topic<H>, position: u64) -> u32 {
        match self.kind {
            Some(SubscriptionKind::KeyShared) => topic.log.get(position).map_or(0, |entry| entry.key),
            _ => 0,
        }
    }

    /// The consumer that alone may get this message because of its key.
    fn owner<H>(&self, topic: &Topic<H>, position: u64) -> Option<u64> {
        match self.key(topic, position) {
            0 => None,
            key => self.owner_of(key),
        }
    }

    fn owner_of(&self, key: u32) -> Option<u64> {
        match self.seats.as_slice() {
            [alone] => Some(alone.id),
            seats => keys::owner(key, seats.iter().map(|seat| seat.id)),
        }
    }

    /// A message is ready for this consumer and no other.
    fn set_aside(&mut self, owner: u64, position: u64) -> bool {
        let seat = self.seats.iter_mut().find(|seat| seat.id == owner);
        let added = seat.is_some_and(|seat| seat.ready.insert(position));
        self.owned += usize::from(added);
        added
    }

    /// Whether so much is set aside that nothing new is looked at.
    fn is_full(&self) -> bool {
        self.owned + self.keys.waiting() >= ASIDE_MAX
    }

    /// Messages are settled: their permits are free.
    pub(crate) fn let_go(&mut self, start: u64, end: u64) {
        let seats = &mut self.seats;
        self.in_flight.remove_range(start, end, |held| {
            if let Some(seat) = seats.iter_mut().find(|seat| seat.id == held.seat) {
                seat.held = seat.held.saturating_sub(1);
            }
        });
        self.let_suspects_go(start, end);
    }

    /// A message with a key is settled: the next message of its key may go.
    pub(crate) fn settled(&mut self, position: u64, key: u32, settled: &Settled) {
        if let Some(next) = self.keys.settled(position, key, settled)
            && !self.owner_of(key).is_some_and(|owner| self.set_aside(owner, next))
        {
            self.ready.insert(next);
        }
    }

    /// A message is given back, to be delivered again at this time.
    pub(crate) fn give_back(&mut self, position: u64, due_ms: Option<u64>) {
        if let Some(held) = self.in_flight.remove(position) {
            self.unhold(held.seat);
        }
        self.let_suspects_go(position, position + 1);
        if planted::is(Bug::KeyOrderForgotten) {
            self.ready.append(&mut self.keys.forget(position));
        }
        match due_ms {
            Some(due) => self.delayed.insert((due, position)),
            None => self.ready.insert(position),
        };
    }

    fn unhold(&mut self, id: u64) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id) {
            seat.held = seat.held.saturating_sub(1);
        }
    }
}

impl<H, G> Core<H, G> {
    /// The positions of these spans whose keys decide which messages may go next, as [`Feed::settled`] wants them; nothing where no order of keys is kept.
    pub(crate) fn keys(&self, span: crate::state::Span) -> Vec<(u64, u32)> {
        let ordered = self.feeds.get(&span.subscription).is_some_and(|feed| feed.kind == Some(SubscriptionKind::KeyShared));
        if !ordered {
            return Vec::new();
        }
        let topic = self.state.subscription_of(span.subscription).map(|subscription| self.state.log(subscription.topic));
        let key = |position| topic.and_then(|log| log.get(position)).map_or(0, |entry| entry.key);
        (span.start..span.end).map(|position| (position, key(position))).filter(|(_, key)| *key != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ack, Broker, Consumer, HandOff, Limits, MemoryBroker, Message, Publish, Start, Step, TopicSpec};
    use std::time::Duration;

    const MESSAGES: usize = 600;

    /// Receives and settles until nothing comes for a while; gives how many there were.
    async fn drain(broker: &MemoryBroker, consumer: &mut dyn Consumer) -> usize {
        let mut count = 0;
        while let Ok(received) = tokio::time::timeout(Duration::from_millis(1), consumer.receive(10)).await {
            let received = received.unwrap();
            let ack = |position| Ack { topic: "t".into(), subscription: "s".into(), position, cumulative: false };
            let acks = received.iter().map(|delivery| ack(delivery.position)).collect();
            broker.commit(Step { acks, ..Step::default() }).await.unwrap();
            count += received.len();
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_set_aside_for_others_is_limited_and_goes_on_when_they_take_it() {
        let broker = MemoryBroker::new(Limits::default());
        broker.create_topic(TopicSpec { name: "t".into(), ..TopicSpec::default() }).await.unwrap();
        broker.create_subscription("t", "s", Start::Earliest).await.unwrap();
        let subscribe = |permits| Subscribe {
            topic: "t".into(),
            subscription: "s".into(),
            kind: SubscriptionKind::KeyShared,
            consumer: "c".into(),
            permits,
            hand_off: HandOff::Durable,
        };
        let mut slow = broker.subscribe(subscribe(1)).await.unwrap();
        let mut quick = broker.subscribe(subscribe(1_000)).await.unwrap();
        let message = |number: usize| Message { key: Some(format!("k{}", number % 50)), ..Message::default() };
        let publish = |number| Publish { topic: "t".into(), message: message(number).into(), sequence: None };
        broker.publish((0..MESSAGES).map(publish).collect()).await.unwrap();
        let first = drain(&broker, &mut *quick).await;
        assert!(first > 0 && first < MESSAGES / 3, "{first}: it stops where so much is set aside for the other");
        let mut counts = [0, first];
        while counts[0] + counts[1] < MESSAGES {
            let more = [drain(&broker, &mut *slow).await, drain(&broker, &mut *quick).await];
            assert!(more[0] + more[1] > 0, "nobody gets anything any more: {counts:?}");
            counts = [counts[0] + more[0], counts[1] + more[1]];
        }
        assert!(counts.iter().all(|count| *count > MESSAGES / 4), "{counts:?}");
    }
}
