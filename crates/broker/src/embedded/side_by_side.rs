//! Random operations on the embedded broker with everything spilled that may be, beside the memory broker, which spills nothing: both must tell the same.

use super::{Embedded, EmbeddedOptions};
use crate::engine::Clock;
use crate::{
    Account, Ack, Broker, Consumer, Delivery, HandOff, Limits, MemoryBroker, Message, MessageId, Position, Publish, Start, Step,
    Subscribe, SubscriptionKind, TopicKind, TopicSpec,
};
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits for what must not come.
const QUIET: Duration = Duration::from_millis(20);

/// Rounds of operations of each seed.
const ROUNDS: u64 = 400;

/// `mid` keeps what is settled.
const TOPICS: [(&str, TopicKind); 3] = [("in", TopicKind::Ingress), ("mid", TopicKind::Route), ("dead", TopicKind::DeadLetter)];

/// Topic and name.
const SUBSCRIPTIONS: [(usize, &str); 4] = [(0, "a"), (0, "b"), (1, "c"), (2, "d")];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Both brokers, and what was sent.
struct Pair {
    fs: SimulatedFileSystem,
    embedded: Option<Embedded>,
    memory: MemoryBroker,
    taps: BTreeMap<usize, [Box<dyn Consumer>; 2]>,
    /// Positions that are handed out, with the messages' roots.
    held: BTreeMap<usize, Vec<(u64, MessageId)>>,
    roots: u64,
    ids: u128,
    /// Messages are made from then on, one in each millisecond.
    began_ms: u64,
    random: Random,
    spilled: usize,
}

fn open(fs: &SimulatedFileSystem) -> Embedded {
    let options = EmbeddedOptions {
        segment_bytes: 32 << 10,
        checkpoint_bytes: 64 << 10,
        cache_bytes_max: 0,
        index_messages_max: 0,
        ..EmbeddedOptions::new("simulated")
    };
    Embedded::open_on(Arc::new(fs.clone()), options).expect("it opens after any end")
}

fn spec((name, kind): (&str, TopicKind)) -> TopicSpec {
    let retention = if name == "mid" { Duration::from_secs(3_600) } else { Duration::ZERO };
    TopicSpec { name: name.into(), kind, topology: "t".into(), retention, ..TopicSpec::default() }
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let fs = SimulatedFileSystem::new(seed, Faults::default());
        let pair = Self {
            embedded: Some(open(&fs)),
            fs,
            memory: MemoryBroker::new(Limits::default()),
            taps: BTreeMap::new(),
            held: BTreeMap::new(),
            roots: 0,
            ids: 1 << 64,
            began_ms: Clock::new().now_ms(),
            random: Random(seed),
            spilled: 0,
        };
        for broker in pair.both() {
            for topic in TOPICS {
                broker.create_topic(spec(topic)).await.unwrap();
            }
            for (topic, name) in SUBSCRIPTIONS {
                broker.create_subscription(TOPICS[topic].0, name, Start::Earliest).await.unwrap();
            }
        }
        pair
    }

    fn both(&self) -> [&dyn Broker; 2] {
        [self.embedded.as_ref().expect("only `reopen` takes it"), &self.memory]
    }

    /// Does it on both and sees that both tell the same.
    async fn commit(&self, step: Step) -> bool {
        let mut results = Vec::new();
        for broker in self.both() {
            let done = tokio::time::timeout(PATIENCE, broker.commit(step.clone())).await.expect("a step");
            results.push(done.map_err(|error| error.kind()));
        }
        assert_eq!(results[0], results[1], "{step:?}");
        results[0].is_ok()
    }

    fn publish(&mut self, topic: &str, root: u64) -> Publish {
        self.ids += 1;
        let id = MessageId(self.ids);
        let root = MessageId(u128::from(root));
        let message =
            Message { id, root, created_ms: self.began_ms + self.ids as u64, payload: vec![7; 40].into(), ..Message::default() };
        Publish { topic: topic.into(), message: message.into(), sequence: None }
    }

    /// Mostly new roots, sometimes one of those before, and sometimes something of one elsewhere.
    async fn send(&mut self) {
        let mut publishes = Vec::new();
        for _ in 0..1 + self.random.below(12) {
            let old = 1 + self.random.below(self.roots);
            match self.random.below(16) {
                0 => publishes.push(self.publish("in", old)),
                1 => publishes.push(self.publish("mid", old)),
                2 if self.roots > 0 => publishes.push(self.publish("dead", old)),
                3 => publishes.push(self.publish("mid", 0)),
                _ => {
                    self.roots += 1;
                    publishes.push(self.publish("in", self.roots));
                }
            }
        }
        self.commit(Step { publishes, ..Step::default() }).await;
    }

    async fn backlog(&self, subscription: usize) -> u64 {
        let (topic, name) = SUBSCRIPTIONS[subscription];
        let stats = self.memory.stats().await.unwrap();
        let topic = stats.iter().find(|stats| stats.spec.name == TOPICS[topic].0);
        topic.and_then(|topic| topic.subscriptions.get(name)).map_or(0, |stats| stats.backlog)
    }

    async fn take(&mut self, subscription: usize) {
        let count = (1 + self.random.below(10)).min(self.backlog(subscription).await) as usize;
        if count == 0 {
            return;
        }
        if !self.taps.contains_key(&subscription) {
            let (topic, name) = SUBSCRIPTIONS[subscription];
            let subscribe = Subscribe {
                topic: TOPICS[topic].0.into(),
                subscription: name.into(),
                kind: SubscriptionKind::Shared,
                consumer: "c".into(),
                permits: 10_000,
                hand_off: HandOff::Durable,
            };
            let [embedded, memory] = self.both();
            let taps = [embedded.subscribe(subscribe.clone()).await.unwrap(), memory.subscribe(subscribe).await.unwrap()];
            self.taps.insert(subscription, taps);
        }
        let Some([embedded, memory]) = self.taps.get_mut(&subscription) else { return };
        let (got, expected) = (receive(embedded, count).await, receive(memory, count).await);
        let told = |all: &[Delivery]| all.iter().map(|one| (one.position, one.attempt, one.message.clone())).collect::<Vec<_>>();
        assert_eq!(told(&got), told(&expected), "subscription {subscription}");
        let held = self.held.entry(subscription).or_default();
        held.extend(got.iter().map(|delivery| (delivery.position.0, delivery.message.root)));
    }

    /// Settles or gives back some of what is held.
    async fn settle(&mut self, subscription: usize) {
        let mut held = self.held.remove(&subscription).unwrap_or_default();
        let (topic, name) = SUBSCRIPTIONS[subscription];
        let mut step = Step { guard: true, ..Step::default() };
        for _ in 0..self.random.below(held.len() as u64 + 1) {
            let pick = self.random.below(held.len() as u64) as usize;
            let (position, root) = held.swap_remove(pick);
            if self.random.below(8) == 0 {
                for broker in self.both() {
                    broker.nack(TOPICS[topic].0, name, Position(position), Duration::ZERO).await.unwrap();
                }
                continue;
            }
            step.acks.push(ack(subscription, position, false));
            if root.0 != 0 && self.random.below(3) == 0 {
                let to = if self.random.below(4) == 0 { "dead" } else { "mid" };
                step.publishes.push(self.publish(to, root.0 as u64));
            }
        }
        self.held.insert(subscription, held);
        self.commit(step).await;
    }

    /// What can be done without a consumer.
    async fn alone(&mut self, subscription: usize) {
        self.taps.remove(&subscription);
        self.held.remove(&subscription);
        let (topic, name) = SUBSCRIPTIONS[subscription];
        let topic = TOPICS[topic].0;
        let next = self.memory.stats().await.unwrap().iter().find(|stats| stats.spec.name == topic).map_or(0, |s| s.published);
        let (at, choice) = (self.random.below(next + 1), self.random.below(7));
        let created_ms = self.began_ms + self.random.below(self.ids as u64 + 2);
        let start = match self.random.below(4) {
            0 => Start::Earliest,
            1 => Start::Time(created_ms),
            2 if choice == 0 => Start::Latest,
            _ => Start::At(Position(at)),
        };
        if choice < 2 {
            // Somebody settles what was never received, all up to somewhere or some of it.
            let acks = (at.saturating_sub(9)..=at).map(|position| ack(subscription, position, false)).collect();
            let acks = if choice == 0 { vec![ack(subscription, at, true)] } else { acks };
            self.commit(Step { acks, ..Step::default() }).await;
            return;
        }
        for broker in self.both() {
            match choice {
                2 | 3 => broker.seek(topic, name, start).await.unwrap(),
                4 => {
                    broker.unsubscribe(topic, name).await.unwrap();
                    broker.create_subscription(topic, name, start).await.unwrap();
                }
                _ => {}
            }
        }
    }

    async fn reopen(&mut self) {
        self.taps.clear();
        self.held.clear();
        // What went back with its consumer is written down. Otherwise the end of the process would be taken for the end of those attempts, and from the third on
        // such messages come one by one, which the memory broker has no reason for.
        self.commit(Step::default()).await;
        match self.random.below(3) {
            0 => self.embedded.as_ref().expect("it is there").close().await.unwrap(),
            1 => self.embedded.as_ref().expect("it is there").checkpoint().await.unwrap(),
            _ => {}
        }
        // The loss of power may take attempts with it, the end of the process may not.
        self.fs.kill();
        self.embedded = None;
        self.embedded = Some(open(&self.fs));
    }

    async fn compare(&mut self) {
        let [embedded, memory] = self.both();
        let accounts: [Account; 2] = [embedded.account("t").await.unwrap(), memory.account("t").await.unwrap()];
        assert_eq!(accounts[0], accounts[1]);
        assert_eq!(embedded.stats().await.unwrap(), memory.stats().await.unwrap());
        self.spilled = self.spilled.max(self.embedded.as_ref().map_or(0, |broker| broker.engine.lock().state.spilled()));
    }

    async fn compare_whole(&mut self) {
        for (topic, name) in SUBSCRIPTIONS {
            let (from, limit) = (Position(self.random.below(40)), 1 + self.random.below(500) as usize);
            let [embedded, memory] = self.both();
            let topic = TOPICS[topic].0;
            let got = embedded.peek(topic, name, from, limit).await.unwrap();
            assert_eq!(got, memory.peek(topic, name, from, limit).await.unwrap(), "`{name}` of `{topic}` from {from:?}");
        }
        for _ in 0..5 {
            let root = MessageId(u128::from(1 + self.random.below(self.roots + 1)));
            let [embedded, memory] = self.both();
            match tokio::time::timeout(Duration::ZERO, memory.root_outcome(root)).await {
                Ok(outcome) => {
                    let got = tokio::time::timeout(PATIENCE, embedded.root_outcome(root)).await.expect("an outcome");
                    assert_eq!(got.unwrap(), outcome.unwrap(), "{root}");
                }
                Err(_) => {
                    let got = tokio::time::timeout(QUIET, embedded.root_outcome(root)).await;
                    assert!(got.is_err(), "{root} is pending, but it is told as {got:?}");
                }
            }
        }
    }
}

fn ack(subscription: usize, position: u64, cumulative: bool) -> Ack {
    let (topic, name) = SUBSCRIPTIONS[subscription];
    Ack { topic: TOPICS[topic].0.into(), subscription: name.into(), position: Position(position), cumulative }
}

/// This many, in the order in which they come.
async fn receive(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = tokio::time::timeout(PATIENCE, consumer.receive(count - all.len())).await.expect("a message");
        all.extend(some.unwrap());
    }
    all
}

async fn run(seed: u64) -> usize {
    let mut pair = Pair::new(seed).await;
    for round in 0..ROUNDS {
        let subscription = pair.random.below(SUBSCRIPTIONS.len() as u64) as usize;
        match pair.random.below(20) {
            0..7 => pair.send().await,
            7..11 => pair.take(subscription).await,
            11..16 => pair.settle(subscription).await,
            16..19 => pair.alone(subscription).await,
            _ if round % 3 == 0 => pair.reopen().await,
            _ => pair.compare_whole().await,
        }
        pair.compare().await;
    }
    pair.compare_whole().await;
    pair.spilled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_spills_all_it_can_tells_the_same_as_one_that_spills_nothing() {
    let first = std::env::var("LEATWORKS_SPILL_SEED").map_or(1, |seed| seed.parse().unwrap());
    let seeds: u64 = std::env::var("LEATWORKS_SPILL_SEEDS").map_or(6, |seeds| seeds.parse().unwrap());
    for seed in first..first + seeds {
        println!("seed {seed}");
        let spilled = run(seed).await;
        assert!(spilled > 10, "only {spilled} blocks were spilled at once with seed {seed}, so nothing was shown");
    }
}
