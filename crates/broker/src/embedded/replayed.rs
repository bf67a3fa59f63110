//! A state that is recovered is the state that was: random events on a state, whose groups are closed at random points, encoded, decoded and replayed on another.
//!
//! It is where elision is proven to take nothing away. Whatever is lost to damage, replaying the rest goes on.

use super::{
    group::{Group, Part},
    image,
    place::{Location, Place},
    record, snapshot,
};
use crate::{
    Message, MessageId, TopicKind, TopicSpec,
    state::{Attempt, BLOCK_MESSAGES, Delay, Event, Producer, Published, Span, State, SubscriptionId, TopicId},
};
use bytes::Bytes;
use leatworks_journal::{
    Journal, Options, Reader, Record as Found, Visitor, Work,
    simulation::{Faults, SimulatedFileSystem},
};
use std::{sync::Arc, time::Duration};

const TOPICS_MAX: usize = 6;
const SUBSCRIPTIONS_MAX: usize = 10;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// A state with its open group, as the store has them.
struct Live {
    state: State<Place>,
    group: Group,
    address: u64,
    /// Roots that were sent.
    roots: u128,
    random: Random,
}

/// A record's body, and where it is.
type Record = (Bytes, u64);

impl Live {
    fn new(seed: u64, elision: bool) -> Self {
        let state = State { told: Some(Vec::new()), ..State::default() };
        let group = Group::new(&state, elision);
        Self { state, group, address: 64, roots: 0, random: Random(seed) }
    }

    fn enact(&mut self, event: Event<Place>) {
        self.group.note(&self.state, &event);
        self.state.apply(event);
        if let Some(told) = &mut self.state.told {
            self.group.tell(told);
        }
        self.state.freed.clear();
        self.state.finished.clear();
    }

    fn close(&mut self) -> Option<Record> {
        if !self.group.is_dirty() {
            return None;
        }
        let record::Made { body, placed, .. } = record::encode(self.group.close(&self.state), 0);
        for placed in placed {
            if let Some(entry) = self.state.topics[placed.topic.0 as usize].log.get_mut(placed.position) {
                entry.handle.at = Location::new(self.address + placed.offset as u64, placed.bytes);
            }
        }
        let record = (Bytes::from(body), self.address);
        self.address += record.0.len() as u64;
        Some(record)
    }

    /// Some subscription that is there, its topic, and a position that it has not settled.
    fn unsettled(&mut self) -> Option<(SubscriptionId, TopicId, u64)> {
        let number = self.random.below(self.state.subscriptions.len() as u64);
        let found = self.state.subscriptions.get(number as usize)?.as_ref()?;
        let next = self.state.log(found.topic).next();
        let ranges = found.settled.unsettled_below(next);
        let (start, end) = *ranges.get(self.random.below(ranges.len() as u64) as usize)?;
        Some((SubscriptionId(number as u32), found.topic, start + self.random.below(end - start)))
    }

    fn event(&mut self) -> Option<Event<Place>> {
        Some(match self.random.below(24) {
            0 | 1 if self.state.topics.len() < TOPICS_MAX => self.topic(),
            2 | 3 if self.state.subscriptions.len() < SUBSCRIPTIONS_MAX && !self.state.topics.is_empty() => {
                let topic = TopicId(self.random.below(self.state.topics.len() as u64) as u32);
                let from = self.random.below(self.state.log(topic).next() + 1);
                Event::Subscription { topic, name: format!("s{}", self.state.subscriptions.len()), from }
            }
            4 if self.random.below(6) == 0 => Event::Unsubscribe(self.unsettled()?.0),
            5 if self.random.below(3) == 0 => {
                let (subscription, topic, _) = self.unsettled()?;
                Event::Seek { subscription, to: self.random.below(self.state.log(topic).next() + 1) }
            }
            6..=8 => {
                let (subscription, _, start) = self.unsettled()?;
                let attempt = self.random.below(4) as u32;
                Event::Attempts { subscription, attempts: vec![Attempt { start, end: start + 1, attempt }] }
            }
            9 | 10 => {
                let (subscription, _, position) = self.unsettled()?;
                Event::Delay { subscription, position, delay: Delay { until_ms: self.random.below(100), of_ms: 10 } }
            }
            11 => {
                let topic = TopicId(self.random.below(self.state.topics.len() as u64) as u32);
                // Whatever is old enough, and everything is.
                Event::Expire { topic, end: self.state.topics.get(topic.0 as usize)?.log.expirable(u64::MAX, u64::MAX)? }
            }
            12 => self.moved()?,
            13 => {
                let topic = TopicId(self.random.below(self.state.topics.len() as u64) as u32);
                let known = &self.state.topics.get(topic.0 as usize)?.producers;
                let producers = known.keys().min().cloned().into_iter().collect();
                Event::Forget { topic, producers }
            }
            14 => {
                let (subscription, topic, position) = self.unsettled()?;
                // Only what was written can turn out to be damaged.
                self.state.log(topic).get(position)?.handle.at?;
                Event::Damaged { subscription, position }
            }
            _ => self.step(),
        })
    }

    fn topic(&mut self) -> Event<Place> {
        let number = self.state.topics.len();
        let kind = [TopicKind::Ingress, TopicKind::Route, TopicKind::DeadLetter, TopicKind::Plain][number % 4];
        let retention = Duration::from_secs(self.random.below(2));
        let topology = if kind == TopicKind::Plain { String::new() } else { format!("t{}", number / 4) };
        Event::Topic(TopicSpec { name: format!("topic{number}"), kind, topology, retention, ..TopicSpec::default() })
    }

    fn moved(&mut self) -> Option<Event<Place>> {
        let (_, topic, position) = self.unsettled()?;
        let handle = &self.state.log(topic).get(position)?.handle;
        let message = handle.message.clone().filter(|_| handle.at.is_some())?;
        Some(Event::Moved { messages: vec![(topic, position, Place::from(message))] })
    }

    fn step(&mut self) -> Event<Place> {
        let mut settled = Vec::new();
        for _ in 0..self.random.below(4) {
            if let Some((subscription, topic, start)) = self.unsettled() {
                let end = (start + 1 + self.random.below(3) * self.random.below(20)).min(self.state.log(topic).next());
                settled.push(Span { subscription, start, end });
            }
        }
        let mut publishes = Vec::new();
        // Sometimes enough to fill a block of what is held.
        let many = if self.random.below(40) == 0 { 4 * BLOCK_MESSAGES } else { self.random.below(4) };
        for _ in 0..many.min(self.state.topics.len() as u64 * 4 * BLOCK_MESSAGES) {
            let topic = TopicId(self.random.below(self.state.topics.len() as u64) as u32);
            publishes.push(self.published(topic));
        }
        let key = format!("key {}", self.random.below(3));
        let state = match self.random.below(6) {
            0 => vec![(key, None)],
            1 => vec![(key, Some(Bytes::from(self.random.below(99).to_string())))],
            _ => Vec::new(),
        };
        Event::Step { settled, publishes, state }
    }

    fn published(&mut self, topic: TopicId) -> Published<Place> {
        // A root is one topology's, and is sent once. Anything else comes of one that is not done, so that some are given up twice and published again.
        let topology = u128::from(topic.0 / 4);
        let root = match self.state.topics[topic.0 as usize].spec.kind {
            TopicKind::Ingress => {
                self.roots += 2;
                self.roots + topology
            }
            _ => {
                let known = self.state.roots.images().map(|(_, root)| root.id).filter(|id| id % 2 == topology);
                let mut known: Vec<u128> = known.collect();
                known.sort_unstable();
                known.get(self.random.below(known.len() as u64) as usize).copied().unwrap_or(0)
            }
        };
        let message = Message {
            id: MessageId(u128::from(self.random.below(u64::MAX))),
            root: MessageId(root),
            key: Some(format!("k{}", self.random.below(4))),
            deliver_at_ms: (self.random.below(5) == 0).then_some(7),
            payload: vec![7; self.random.below(40) as usize].into(),
            ..Message::default()
        };
        let producer = (self.random.below(3) == 0).then(|| Producer {
            name: Arc::from(format!("producer{}", self.random.below(3))),
            sequence: self.random.below(1_000),
            now_ms: self.random.below(1_000),
        });
        let message = Arc::new(message);
        Published::new(topic, &message, producer, Place::from(message.clone()))
    }
}

fn replay(state: &mut State<Place>, parts: Vec<Part<Place>>) {
    for part in parts {
        match part {
            Part::Structure(event, number) => state.replay_structure(event, number),
            Part::Net(net) => state.replay(net),
            Part::Index { .. } => unreachable!("nothing is spilled here"),
        }
    }
    state.freed.clear();
    state.finished.clear();
}

/// What a snapshot would read indexes of blocks with, of which there are none here.
fn reader() -> Reader {
    struct Begun(Option<Reader>);
    impl Visitor for Begun {
        fn begin(&mut self, reader: Reader) {
            self.0 = Some(reader);
        }

        fn snapshot(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }

        fn record(&mut self, _: Found) -> Result<(), String> {
            Ok(())
        }
    }
    let fs = Arc::new(SimulatedFileSystem::new(1, Faults::default()));
    let options = Options { work: Work::Driven, ..Options::default() };
    // Only a journal that is there is read.
    Journal::open(fs.clone(), options, &mut Begun(None)).unwrap();
    let mut begun = Begun(None);
    Journal::open(fs, options, &mut begun).unwrap();
    begun.0.unwrap()
}

/// The lines that differ, for whoever looks for the reason.
fn differing(one: &[String], two: &[String]) -> Vec<String> {
    let only = |these: &[String], those: &[String], mark: &str| -> Vec<String> {
        let times = |all: &[String], line: &String| all.iter().filter(|other| *other == line).count();
        these.iter().filter(|line| times(these, line) > times(those, line)).map(|line| format!("{mark} {line}")).collect()
    };
    let order = one.iter().zip(two).find(|(one, two)| one != two).map(|(one, two)| format!("first: {one}; {two}"));
    [only(one, two, "live:"), only(two, one, "replayed:"), order.into_iter().collect()].concat()
}

#[test]
fn what_is_replayed_is_what_was_with_elision_and_without() {
    let reader = reader();
    for seed in 0..1_200_u64 {
        let mut live = Live::new(seed, seed % 3 > 0);
        let mut replayed = State::default();
        for step in 0..60 {
            if let Some(event) = live.event() {
                live.enact(event);
            }
            if live.random.below(4) > 0 {
                continue;
            }
            let Some((body, address)) = live.close() else { continue };
            replay(&mut replayed, record::decode(&body, address, true).unwrap());
            let (one, two) = (image::of(&live.state), image::of(&replayed));
            assert!(one == two, "seed {seed}, step {step}: {:#?}", differing(&one, &two));
            if live.random.below(4) == 0 {
                // As after a checkpoint.
                replayed = snapshot::decode(&snapshot::encode(&live.state), &reader).unwrap();
                let two = image::of(&replayed);
                assert!(one == two, "seed {seed}, step {step}, from a snapshot: {:#?}", differing(&one, &two));
            }
        }
    }
}

#[test]
fn whatever_is_lost_or_damaged_the_rest_is_replayed() {
    let reader = reader();
    for seed in 0..200_u64 {
        let mut live = Live::new(seed, true);
        let mut replayed = State::default();
        for _ in 0..60 {
            if let Some(event) = live.event() {
                live.enact(event);
            }
            if live.random.below(3) > 0 {
                continue;
            }
            let Some((body, address)) = live.close() else { continue };
            match live.random.below(4) {
                // A whole group is gone.
                0 => {}
                // Some bytes are not what they were.
                1 => {
                    let mut bytes = body.to_vec();
                    for _ in 0..1 + live.random.below(3) {
                        let at = live.random.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1 << live.random.below(8);
                    }
                    if let Ok(parts) = record::decode(&bytes.into(), address, false) {
                        replay(&mut replayed, parts);
                    }
                }
                _ => replay(&mut replayed, record::decode(&body, address, true).unwrap()),
            }
            // It can be kept and looked at.
            let _ = image::of(&replayed);
            let again = snapshot::decode(&snapshot::encode(&replayed), &reader).unwrap();
            let (one, two) = (image::of(&replayed), image::of(&again));
            assert!(one == two, "seed {seed}: {:#?}", differing(&one, &two));
        }
    }
}
