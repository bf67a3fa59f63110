//! A broker under random operations beside a model of it that is too simple to be wrong.

use super::{
    End, Harness,
    rig::{Rig, Tap, ok, refused, within},
};
use crate::{
    Broker, ErrorKind, Limits, Message, MessageId, Outcome, Position, Publish, Start, Step, SubscriptionStats, TopicKind,
};
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    prop_oneof,
    test_runner::{Config, TestRunner},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Sequences of operations that are tried. Each takes some milliseconds in memory.
const CASES: u32 = 40;

/// The same where every look goes to another process. There both are compared at the end of a sequence only.
const CASES_FAR: u32 = 8;

/// Operations of one sequence at most.
const OPERATIONS_MAX: usize = 60;

const TOPICS: [(&str, TopicKind); 4] =
    [("in", TopicKind::Ingress), ("mid", TopicKind::Route), ("void", TopicKind::Route), ("dead", TopicKind::DeadLetter)];

/// Topic and name of each subscription; nobody listens to `void`.
const SUBSCRIPTIONS: [(usize, &str); 4] = [(0, "a"), (0, "b"), (1, "c"), (3, "d")];

#[derive(Clone, Debug)]
enum Operation {
    /// Publish this many roots.
    Send(usize),
    /// Receive on a subscription, if there is anything.
    Take {
        subscription: usize,
        max: usize,
    },
    /// Settle one of the held messages with outputs of its root to these topics.
    Settle {
        subscription: usize,
        pick: usize,
        outputs: Vec<usize>,
    },
    /// Settle all that is held, without outputs.
    SettleAll {
        subscription: usize,
    },
    /// Commit an earlier step again.
    Repeat {
        pick: usize,
    },
    Nack {
        subscription: usize,
        pick: usize,
    },
    /// The consumer leaves.
    Leave {
        subscription: usize,
    },
    /// The consumer leaves, and the subscription is moved past everything.
    Skip {
        subscription: usize,
    },
    /// The broker ends and is opened again, where it is promised.
    Reopen {
        crash: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let subscription = || 0..SUBSCRIPTIONS.len();
    let pick = || 0..100_usize;
    prop_oneof![
        12 => (1..4_usize).prop_map(Operation::Send),
        24 => (subscription(), 1..6_usize).prop_map(|(subscription, max)| Operation::Take { subscription, max }),
        30 => (subscription(), pick(), vec(1..TOPICS.len(), 0..4))
            .prop_map(|(subscription, pick, outputs)| Operation::Settle { subscription, pick, outputs }),
        6 => subscription().prop_map(|subscription| Operation::SettleAll { subscription }),
        6 => pick().prop_map(|pick| Operation::Repeat { pick }),
        9 => (subscription(), pick()).prop_map(|(subscription, pick)| Operation::Nack { subscription, pick }),
        6 => subscription().prop_map(|subscription| Operation::Leave { subscription }),
        3 => subscription().prop_map(|subscription| Operation::Skip { subscription }),
        // Opening takes a broker on disk as long as some hundred of the others.
        1 => any::<bool>().prop_map(|crash| Operation::Reopen { crash }),
    ]
}

#[derive(Debug, Default)]
struct Root {
    pending: usize,
    dead: usize,
    dropped: bool,
}

#[derive(Debug)]
struct Known {
    id: MessageId,
    root: MessageId,
    attempt: u32,
    held: bool,
}

/// What the broker must hold.
#[derive(Default)]
struct Model {
    published: [u64; TOPICS.len()],
    unsettled: [BTreeMap<u64, Known>; SUBSCRIPTIONS.len()],
    roots: BTreeMap<MessageId, Root>,
    /// Steps that were committed, and may not be committed again.
    steps: Vec<Step>,
}

impl Model {
    fn publish(&mut self, topic: usize, message: &Message) {
        let position = self.published[topic];
        self.published[topic] += 1;
        let root = self.roots.entry(message.root).or_default();
        for (index, _) in SUBSCRIPTIONS.iter().enumerate().filter(|(_, (on, _))| *on == topic) {
            match TOPICS[topic].1 {
                TopicKind::DeadLetter => root.dead += 1,
                _ => root.pending += 1,
            }
            let known = Known { id: message.id, root: message.root, attempt: 0, held: false };
            self.unsettled[index].insert(position, known);
        }
    }

    fn settle(&mut self, subscription: usize, position: u64, gives: bool) {
        let Some(known) = self.unsettled[subscription].remove(&position) else { return };
        let root = self.roots.entry(known.root).or_default();
        match TOPICS[SUBSCRIPTIONS[subscription].0].1 {
            TopicKind::DeadLetter => {
                root.dead -= 1;
                // A dead letter that is settled while its root goes on elsewhere is redriven, any other is dropped.
                root.dropped |= !gives;
            }
            _ => root.pending -= 1,
        }
    }

    /// Sent, done, dead-lettered, in flight.
    fn counts(&self) -> [u64; 4] {
        let mut counts = [self.roots.len() as u64, 0, 0, 0];
        for root in self.roots.values() {
            match (root.pending, root.dead > 0 || root.dropped) {
                (1.., _) => counts[3] += 1,
                (0, true) => counts[2] += 1,
                (0, false) => counts[1] += 1,
            }
        }
        counts
    }

    fn stats(&self, subscription: usize, consumers: usize) -> SubscriptionStats {
        let all = self.unsettled[subscription].len() as u64;
        let in_flight = self.unsettled[subscription].values().filter(|known| known.held).count() as u64;
        SubscriptionStats { backlog: all - in_flight, in_flight, delayed: 0, consumers }
    }

    /// One of the held messages.
    fn held(&self, subscription: usize, pick: usize) -> Option<(u64, MessageId)> {
        let held: Vec<_> = self.unsettled[subscription].iter().filter(|(_, known)| known.held).collect();
        let (position, known) = held.get(pick.checked_rem(held.len())?)?;
        Some((**position, known.root))
    }

    fn release(&mut self, subscription: usize) {
        self.unsettled[subscription].values_mut().for_each(|known| known.held = false);
    }
}

/// The broker and the model, side by side.
struct Pair {
    rig: Option<Rig>,
    taps: [Option<Tap>; SUBSCRIPTIONS.len()],
    model: Model,
    harness: Harness,
}

impl Pair {
    /// On this broker, with names of its own.
    async fn new(harness: Harness, broker: Arc<dyn Broker>) -> Self {
        let rig = Rig::new(harness.clone(), broker, Limits::default(), super::unique());
        for (topic, kind) in TOPICS {
            rig.topic(topic, kind, &[]).await;
        }
        for (topic, subscription) in SUBSCRIPTIONS {
            rig.subscription(TOPICS[topic].0, subscription, Start::Earliest).await;
        }
        Self { rig: Some(rig), taps: Default::default(), model: Model::default(), harness }
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().expect("only `reopen` takes it, and puts it back")
    }

    async fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Send(count) => {
                let roots: Vec<Message> = (0..count).map(|_| self.rig().root("root")).collect();
                roots.iter().for_each(|root| self.model.publish(0, root));
                self.rig().send("in", roots).await;
            }
            Operation::Take { subscription, max } => self.take(subscription, max).await,
            Operation::Settle { subscription, pick, outputs } => self.settle(subscription, pick, &outputs).await,
            Operation::SettleAll { subscription } => {
                while self.model.held(subscription, 0).is_some() {
                    self.settle(subscription, 0, &[]).await;
                }
            }
            Operation::Repeat { pick } => {
                if let Some(index) = pick.checked_rem(self.model.steps.len()) {
                    refused(self.rig().broker.commit(self.model.steps[index].clone()).await, ErrorKind::Settled);
                }
            }
            Operation::Nack { subscription, pick } => {
                let Some((position, _)) = self.model.held(subscription, pick) else { return };
                let (topic, name) = SUBSCRIPTIONS[subscription];
                let topic = self.rig().name(TOPICS[topic].0);
                ok(self.rig().broker.nack(&topic, name, Position(position), Duration::ZERO).await);
                self.model.unsettled[subscription].entry(position).and_modify(|known| known.held = false);
            }
            Operation::Leave { subscription } => self.leave(subscription).await,
            Operation::Skip { subscription } => {
                self.leave(subscription).await;
                let (topic, name) = SUBSCRIPTIONS[subscription];
                ok(self.rig().broker.seek(&self.rig().name(TOPICS[topic].0), name, Start::Latest).await);
                let skipped: Vec<u64> = self.model.unsettled[subscription].keys().copied().collect();
                skipped.into_iter().for_each(|position| self.model.settle(subscription, position, false));
            }
            Operation::Reopen { crash } => self.reopen(if crash { End::Crashed } else { End::Closed }).await,
        }
    }

    async fn take(&mut self, subscription: usize, max: usize) {
        if self.model.unsettled[subscription].values().all(|known| known.held) {
            return;
        }
        let (topic, name) = SUBSCRIPTIONS[subscription];
        let mut tap = match self.taps[subscription].take() {
            Some(tap) => tap,
            None => self.rig().shared(TOPICS[topic].0, name).await,
        };
        for delivery in tap.receive(max).await {
            let known = self.model.unsettled[subscription].get_mut(&delivery.position.0);
            let known = known.unwrap_or_else(|| panic!("{delivery:?} is settled or was never published"));
            assert!(!known.held, "{delivery:?} is held already");
            assert_eq!((delivery.message.id, delivery.message.root), (known.id, known.root));
            assert_eq!(delivery.attempt, known.attempt + 1, "{delivery:?}");
            (known.attempt, known.held) = (delivery.attempt, true);
        }
        self.taps[subscription] = Some(tap);
    }

    async fn settle(&mut self, subscription: usize, pick: usize, outputs: &[usize]) {
        let Some((position, root)) = self.model.held(subscription, pick) else { return };
        let (topic, name) = SUBSCRIPTIONS[subscription];
        let acks = vec![self.rig().ack_of(TOPICS[topic].0, name, Position(position))];
        let mut publishes: Vec<Publish> = Vec::new();
        for output in outputs {
            let child = self.rig().child(root, "child");
            self.model.publish(*output, &child);
            publishes.push(self.rig().publish_of(TOPICS[*output].0, child));
        }
        let step = Step { acks, publishes, guard: true, ..Step::default() };
        ok(self.rig().broker.commit(step.clone()).await);
        self.model.settle(subscription, position, !outputs.is_empty());
        self.model.steps.push(step);
    }

    async fn leave(&mut self, subscription: usize) {
        self.model.release(subscription);
        if self.taps[subscription].take().is_some() {
            let (topic, name) = SUBSCRIPTIONS[subscription];
            self.rig().until_stats(TOPICS[topic].0, name, |stats| stats.consumers == 0).await;
        }
    }

    async fn reopen(&mut self, end: End) {
        if !self.harness.ends().any(|promised| promised == end) {
            return;
        }
        self.taps = Default::default();
        (0..SUBSCRIPTIONS.len()).for_each(|subscription| self.model.release(subscription));
        if let Some(rig) = self.rig.take() {
            self.rig = Some(rig.reopen(end).await);
        }
    }

    /// Sees that both are in the same state.
    async fn compare(&self) {
        let rig = self.rig();
        if rig.promises().accounts {
            assert_eq!(rig.counts().await, self.model.counts(), "sent, done, dead-lettered, in flight");
        }
        let topics = rig.topics().await;
        for (index, (name, _)) in TOPICS.iter().enumerate() {
            let topic = topics.iter().find(|topic| topic.spec.name == rig.name(name));
            assert_eq!(topic.map(|topic| topic.published), Some(self.model.published[index]), "published on `{name}`");
        }
        for (index, (topic, name)) in SUBSCRIPTIONS.into_iter().enumerate() {
            let found = topics.iter().find(|found| found.spec.name == rig.name(TOPICS[topic].0));
            let stats = found.and_then(|found| found.subscriptions.get(name).cloned());
            assert_eq!(stats, Some(self.model.stats(index, usize::from(self.taps[index].is_some()))), "subscription `{name}`");
        }
    }

    /// Sees that the messages and the outcomes are those of the model.
    async fn compare_whole(&self) {
        let rig = self.rig();
        for (index, (topic, name)) in SUBSCRIPTIONS.into_iter().enumerate() {
            let peeked = ok(rig.broker.peek(&rig.name(TOPICS[topic].0), name, Position(0), usize::MAX).await);
            let peeked = peeked.into_iter().map(|(position, message)| (position.0, message.id));
            assert!(peeked.eq(self.model.unsettled[index].iter().map(|(position, known)| (*position, known.id))), "`{name}`");
        }
        let roots = self.model.roots.iter().filter(|(_, root)| root.pending == 0 && rig.promises().accounts);
        for (id, root) in roots {
            let outcome = ok(within("the outcome of a root", rig.broker.root_outcome(*id)).await);
            let expected = if root.dead > 0 || root.dropped { Outcome::DeadLettered } else { Outcome::Done };
            assert_eq!(outcome, expected, "{id}: {root:?}");
        }
    }
}

/// Runs one sequence on the broker that the one before has left, and leaves it; one that failed leaves none.
async fn check(harness: Harness, left: &Mutex<Option<Arc<dyn Broker>>>, operations: Vec<Operation>) {
    let take = || left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let broker = match take() {
        Some(broker) => broker,
        None => harness.rig().await.broker,
    };
    let mut pair = Pair::new(harness, broker).await;
    for operation in operations {
        pair.run(operation).await;
        if pair.rig().promises().counted_positions {
            pair.compare().await;
        }
    }
    pair.compare().await;
    pair.compare_whole().await;
    let broker = pair.rig().broker.clone();
    // The consumers leave with the pair, and nobody else holds the broker when the next sequence may end it.
    drop(pair);
    *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
}

pub(super) async fn any_operations_leave_what_a_simple_model_says(harness: Harness) {
    let runtime = tokio::runtime::Handle::current();
    let far = !harness.promises().broker.counted_positions;
    let checked = tokio::task::spawn_blocking(move || {
        let config = Config {
            cases: if far { CASES_FAR } else { CASES },
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::default()
        };
        let left = Mutex::new(None);
        TestRunner::new(config).run(&vec(operation(), 1..OPERATIONS_MAX), |operations| {
            runtime.block_on(check(harness.clone(), &left, operations));
            Ok(())
        })
    });
    if let Err(failed) = checked.await.expect("a failed case is caught and told") {
        panic!("{failed}");
    }
}
