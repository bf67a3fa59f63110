//! One run: a seed decides who acts next, which piece of the disk's work is done next, and what goes wrong.

use crate::{
    graph::{self, EDGES, Edge},
    oracle::{Before, Facts, Found, Oracle, Parked, Verdict, finding},
    others::{Beside, Keeper, Looker},
    producer::Producer,
    random::{Random, hash},
    shared::{Actor, Plan, Shared},
    worker::Worker,
};
use leatworks_broker::*;
use leatworks_journal::simulation::{Faults, SimulatedFileSystem};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// Rounds in which everything that is left must be done; each gives everybody a turn and lets 2 ms pass.
const DRAIN_ROUNDS: usize = 6_000;

/// Batches for the topic beside the graph in a short life; a long one has six times as many.
const BESIDE_MAX: u64 = 8;

/// How one run has ended.
pub(crate) struct Run {
    pub(crate) trace: String,
    pub(crate) result: Found<Counts>,
}

/// What a run has met, so that a run in which nothing happened does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) deliveries: u64,
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) full_disks: u64,
    pub(crate) unreadable: u64,
    pub(crate) damaged: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.failed_syncs += other.failed_syncs;
        self.full_disks += other.full_disks;
        self.unreadable += other.unreadable;
        self.damaged += other.damaged;
    }
}

/// Runs a seed. What panics is a finding too.
pub(crate) fn run(seed: u64) -> Run {
    std::panic::catch_unwind(|| run_to_end(seed)).unwrap_or_else(|panic| {
        let text = panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |text| *text);
        Run { trace: String::new(), result: finding("panic", text) }
    })
}

fn run_to_end(seed: u64) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime without a thread can be made");
    runtime.block_on(tokio::task::unconstrained(async {
        let mut world = World::new(seed);
        let result = world.live().await;
        world.end_life(false);
        let disk = world.fs.list_names("").iter().filter_map(|name| world.fs.bytes_of(name)).fold(0, |all, bytes| {
            bytes.chunks(8).fold(all, |all, part| hash(all ^ part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))))
        });
        world.shared.note(format_args!("disk {disk:016x}"));
        let counts = Counts { deliveries: world.shared.oracle.deliveries, damaged: world.shared.oracle.damaged, ..world.counts };
        Run { trace: std::mem::take(&mut world.shared.trace), result: result.map(|()| counts) }
    }))
}

struct World {
    shared: Shared,
    fs: SimulatedFileSystem,
    driven: Option<Driven>,
    actors: Vec<Box<dyn Actor>>,
    producers: Vec<Producer>,
    faults: Faults,
    counts: Counts,
}

fn plan(random: &mut Random) -> Plan {
    let power_cuts = random.below(4) > 0;
    // Most bugs show in a short life. Some need a journal that has gone round its segments a few times.
    let long = random.one_in(5);
    Plan {
        // Where only the process ends, writing is enough.
        durability: if power_cuts || random.one_in(2) { Durability::Power } else { Durability::Process },
        elision: random.below(5) > 0,
        segment_bytes: if long { 8 << 10 } else { random.pick(&[8 << 10, 16 << 10, 64 << 10]) },
        checkpoint_bytes: if long { 12 << 10 } else { random.pick(&[8 << 10, 24 << 10, 100 << 10]) },
        cache_bytes_max: random.pick(&[0, 4 << 10, 1 << 20]),
        roots: if long { 24 } else { 4 + random.below(16) },
        steps: if long { 2_500 } else { 300 + random.below(700) },
        beside: if long { 6 * BESIDE_MAX } else { random.below(BESIDE_MAX) },
        quick: !long && random.one_in(3),
        looked_after: random.one_in(2),
        power_cuts,
        failing_syncs: random.one_in(4),
        full_disk: random.one_in(6),
        unreadable: random.one_in(10),
        seeks: random.one_in(2),
        fault_every: if long { 300 } else { random.pick(&[60, 120, 300]) },
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = plan(&mut random);
        let faults = Faults { torn_bytes: random.one_in(3), ..Faults::default() };
        let fs = SimulatedFileSystem::new(random.next() | 1, faults);
        let shared = Shared {
            plan,
            random,
            trace: String::new(),
            oracle: Oracle::default(),
            broker: None,
            fs: fs.clone(),
            began: Instant::now(),
            left_behind: Vec::new(),
            holders: 0,
            crowded: false,
            draining: false,
            failed: false,
        };
        Self { shared, fs, driven: None, actors: Vec::new(), producers: Vec::new(), faults, counts: Counts::default() }
    }

    async fn live(&mut self) -> Verdict {
        let plan = self.shared.plan.clone();
        self.shared.note(format_args!("{plan:?}"));
        self.open(Before { kept: 0, attempts_survive: true, tries: 1 })?;
        self.prepare()?;
        self.people();
        for _ in 0..plan.steps {
            self.step().await?;
        }
        self.drain().await?;
        self.judge().await
    }

    fn people(&mut self) {
        let shared = &mut self.shared;
        let half = shared.plan.roots / 2;
        self.producers = vec![Producer::new("one", 1, half), Producer::new("two", 2, shared.plan.roots - half)];
        for (number, edge) in EDGES.iter().enumerate() {
            for consumer in 0..edge.consumers {
                self.actors.push(Box::new(Worker::new(number, consumer, shared)));
            }
        }
        if shared.plan.looked_after {
            self.actors.extend((0..graph::OUTSIDE).map(|edge| Box::new(Keeper::new(edge)) as Box<dyn Actor>));
        }
        self.actors.push(Box::new(Looker::default()));
        self.actors.push(Box::new(Beside::new(shared.plan.beside)));
    }

    /// One step of whoever is next.
    async fn step(&mut self) -> Verdict {
        let must_end = self.shared.failed || self.fs.has_ended();
        if must_end && self.shared.random.one_in(4) {
            return self.restart().await;
        }
        let fault_every = self.shared.plan.fault_every;
        if self.shared.random.one_in(fault_every) {
            return self.fault().await;
        }
        match self.shared.random.below(100) {
            0..=54 => self.act(),
            55..=92 if self.shared.plan.quick && !self.shared.random.one_in(12) => self.act(),
            55..=92 => self.work(),
            _ => {
                let ms = 1 + self.shared.random.below(12);
                tokio::time::advance(Duration::from_millis(ms)).await;
                self.shared.note(format_args!("{ms} ms"));
                Ok(())
            }
        }
    }

    fn act(&mut self) -> Verdict {
        let people = self.producers.len() + self.actors.len() + 1;
        // Whoever fills the journal is last but one.
        let fills = self.shared.plan.beside > BESIDE_MAX && self.shared.random.one_in(4);
        let who = if fills { people - 2 } else { self.shared.random.below(people as u64) as usize };
        self.turn(who)
    }

    fn turn(&mut self, who: usize) -> Verdict {
        self.shared.crowded = self.driven.as_ref().is_some_and(Driven::is_crowded);
        let (shared, producers) = (&mut self.shared, self.producers.len());
        match who.checked_sub(producers) {
            None => self.producers[who].turn(shared)?,
            Some(actor) if actor < self.actors.len() => self.actors[actor].turn(shared)?,
            Some(_) => shared.poll_left_behind()?,
        }
        self.take_images();
        Ok(())
    }

    fn take_images(&mut self) {
        if let Some(driven) = &self.driven {
            self.shared.oracle.images(driven.images());
        }
    }

    fn work(&mut self) -> Verdict {
        // The usual order of things, with everything else in between.
        let usual = [Work::Close, Work::Append, Work::Write, Work::Sync];
        let rare = [
            Work::Snapshot,
            Work::Checkpoint,
            Work::Duty,
            Work::Duty,
            Work::Duty,
            Work::Checkpoint,
            Work::Expire,
            Work::Rest,
            Work::Rest,
        ];
        let work = match self.shared.random.below(8) {
            0 => self.shared.random.pick(&rare),
            _ => self.shared.random.pick(&usual),
        };
        self.drive(work)
    }

    fn drive(&mut self, work: Work) -> Verdict {
        let Some(driven) = &self.driven else { return Ok(()) };
        let done = driven.drive(work);
        let kept = driven.kept();
        self.shared.note(format_args!("{work:?}: {:?}, kept {kept:?}", done.as_ref().map_err(BrokerError::kind)));
        self.take_images();
        match done {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Full && self.shared.plan.full_disk => Ok(()),
            Err(error) if self.shared.failed => {
                self.shared.note(format_args!("{error}"));
                Ok(())
            }
            // The disk's failure is known before anything else can be told.
            Err(_) if self.may_fail() => {
                self.shared.failed = true;
                Ok(())
            }
            Err(error) => finding("failed", format!("{work:?}: {error}")),
        }
    }

    fn may_fail(&self) -> bool {
        self.fs.has_ended() || self.faults.failing_sync.is_some() || self.shared.plan.full_disk || self.shared.plan.unreadable
    }

    async fn fault(&mut self) -> Verdict {
        let plan = self.shared.plan.clone();
        match self.shared.random.below(8) {
            0 | 1 if plan.failing_syncs => {
                self.counts.failed_syncs += 1;
                self.faults.failing_sync = Some(self.fs.syncs() + 1 + self.shared.random.below(3));
                self.faults.dropping_syncs = self.shared.random.one_in(2);
                self.fs.set_faults(self.faults);
                self.shared.note(format_args!("a sync will fail"));
            }
            2 | 3 if plan.full_disk => {
                self.counts.full_disks += 1;
                let files: usize = self.fs.list_names("").iter().filter_map(|name| self.fs.bytes_of(name)).map(|b| b.len()).sum();
                let space = files as u64 + self.shared.random.below(2 * plan.segment_bytes);
                self.faults.space_bytes = if self.faults.space_bytes.is_some() { None } else { Some(space) };
                self.fs.set_faults(self.faults);
                self.shared.note(format_args!("space: {:?}", self.faults.space_bytes));
            }
            4 if plan.unreadable => {
                self.counts.unreadable += 1;
                let segments = self.fs.list_names("segment-");
                let name = &segments[self.shared.random.below(segments.len() as u64) as usize];
                let from = self.shared.random.below(plan.segment_bytes) as usize;
                let to = (from + 1 + self.shared.random.below(4_000) as usize).min(plan.segment_bytes as usize);
                self.fs.make_unreadable(name, from..to);
                self.shared.oracle.unreadable = true;
                self.shared.note(format_args!("unreadable: {name} {from}..{to}"));
            }
            5 => {
                let calls = 1 + self.shared.random.below(20);
                self.fs.end_at(self.fs.calls() + calls);
                self.shared.note(format_args!("ends in {calls} calls"));
            }
            _ => return self.restart().await,
        }
        Ok(())
    }

    /// The process ends, with or without the power, and another begins.
    async fn restart(&mut self) -> Verdict {
        let cut = self.shared.plan.power_cuts && self.shared.random.one_in(2);
        self.restart_after(cut).await
    }

    async fn restart_after(&mut self, cut: bool) -> Verdict {
        if self.shared.random.one_in(6) {
            self.close()?;
        }
        // A failed sync is only known to cost something when the power goes.
        let (written, synced) = self.driven.as_ref().map_or((0, 0), Driven::kept);
        let kept = if cut { synced } else { written };
        self.shared.note(format_args!("{}, kept {kept}", if cut { "power cut" } else { "kill" }));
        if cut {
            self.counts.power_cuts += 1;
        } else {
            self.counts.kills += 1;
        }
        self.end_life(cut);
        self.faults.failing_sync = None;
        self.fs.set_faults(self.faults);
        self.fs.make_readable();
        let mut before = Before { kept, attempts_survive: !cut, tries: 0 };
        loop {
            before.tries += 1;
            if self.shared.random.one_in(8) && !self.shared.draining {
                self.fs.end_at(self.fs.calls() + 1 + self.shared.random.below(12));
            }
            match self.open(before) {
                // It was killed while it began.
                Err(error) if self.fs.has_ended() => {
                    self.shared.note(format_args!("ended while it began: {}", error.text));
                    self.fs.kill();
                }
                Err(found) if found.kind == "full" => {
                    self.faults.space_bytes = None;
                    self.fs.set_faults(self.faults);
                }
                other => return other,
            }
        }
    }

    /// Ends the broker properly first; it may be killed in the middle of it all the same.
    fn close(&mut self) -> Verdict {
        if self.shared.failed || self.driven.is_none() {
            return Ok(());
        }
        self.drive(Work::Append)?;
        // What is in hand is counted, for which nobody waits either.
        self.shared.oracle.roomless |= self.driven.as_ref().is_some_and(Driven::is_crowded);
        let broker = self.shared.broker();
        let closed = match broker.close().as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(closed) => closed,
            Poll::Pending => return finding("stuck", "closing waits for something".to_owned()),
        };
        self.shared.note(format_args!("closed: {:?}", closed.as_ref().map_err(BrokerError::kind)));
        match closed {
            Err(error) if !self.may_fail() => finding("failed", format!("closing: {error}")),
            _ => Ok(()),
        }
    }

    fn end_life(&mut self, cut: bool) {
        self.take_images();
        if cut {
            self.fs.cut_power();
        } else {
            self.fs.kill();
        }
        for producer in &mut self.producers {
            producer.end(&mut self.shared);
        }
        for actor in &mut self.actors {
            actor.end(&mut self.shared);
        }
        self.shared.left_behind.clear();
        (self.shared.broker, self.driven, self.shared.failed) = (None, None, false);
    }

    fn open(&mut self, before: Before) -> Verdict {
        let plan = &self.shared.plan;
        let options = EmbeddedOptions {
            durability: plan.durability,
            segment_bytes: plan.segment_bytes,
            checkpoint_bytes: plan.checkpoint_bytes,
            cache_bytes_max: plan.cache_bytes_max,
            elision: plan.elision,
            ..EmbeddedOptions::new("simulated")
        };
        let opened = Embedded::open_driven(Arc::new(self.fs.clone()), options, self.shared.now_ms());
        let (broker, driven) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::Full => return finding("full", error.to_string()),
            Err(error) => return finding("damaged", format!("it does not open: {error}")),
        };
        let replayed = driven.replayed();
        self.shared.note(format_args!("opened at {}: {:?}", replayed.sequence, broker.recovered()));
        self.shared.oracle.reopened(before, replayed)?;
        (self.shared.broker, self.driven) = (Some(broker), Some(driven));
        Ok(())
    }

    /// Makes the topics and subscriptions. Nothing goes wrong meanwhile.
    fn prepare(&mut self) -> Verdict {
        let broker = self.shared.broker();
        let mut specs =
            vec![("in", TopicKind::Ingress), ("a", TopicKind::Route), ("b", TopicKind::Route), ("c", TopicKind::Route)];
        specs.push(("done", TopicKind::Route));
        specs.extend(EDGES[..graph::OUTSIDE].iter().map(|edge| (edge.dead, TopicKind::DeadLetter)));
        let spec =
            |(name, kind): (&str, TopicKind)| TopicSpec { name: name.into(), kind, topology: "t".into(), ..TopicSpec::default() };
        let mut specs: Vec<TopicSpec> = specs.into_iter().map(spec).collect();
        specs.push(Beside::spec());
        for spec in specs {
            self.until(broker.create_topic(spec))?;
        }
        let dead = EDGES[..graph::OUTSIDE].iter().map(|edge| (edge.dead, "park"));
        for (topic, name) in EDGES.iter().map(|edge| (edge.topic, edge.subscription)).chain(dead).chain([("beside", "s")]) {
            self.until(broker.create_subscription(topic, name, Start::Earliest))?;
        }
        Ok(())
    }

    /// Does all the disk's work until a call has its answer.
    fn until<T>(&mut self, mut call: BoxFuture<'_, Result<T>>) -> Found<T> {
        for _ in 0..200 {
            if let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result.or_else(|error| finding("refused", error.to_string()));
            }
            for work in [Work::Close, Work::Append, Work::Write, Work::Sync, Work::Duty, Work::Checkpoint] {
                self.drive(work)?;
            }
        }
        finding("stuck", "a call has no answer although everything is written".to_owned())
    }

    /// Lets everything that is left be done, without faults.
    async fn drain(&mut self) -> Verdict {
        self.shared.note(format_args!("drain"));
        self.faults = Faults { torn_bytes: self.faults.torn_bytes, ..Faults::default() };
        self.fs.set_faults(self.faults);
        if self.shared.failed || self.shared.broker_failed() || self.shared.random.one_in(2) {
            self.shared.draining = true;
            self.restart().await?;
        }
        self.fs.make_readable();
        self.shared.draining = true;
        self.shared.plan.full_disk = false;
        for round in 0..DRAIN_ROUNDS {
            for work in [Work::Close, Work::Append, Work::Write, Work::Sync, Work::Duty, Work::Checkpoint, Work::Expire] {
                self.drive(work)?;
            }
            for who in 0..=self.producers.len() + self.actors.len() {
                self.turn(who)?;
            }
            tokio::time::advance(Duration::from_millis(2)).await;
            if round % 8 == 7 && self.is_idle()? {
                return Ok(());
            }
        }
        let stats = self.stats()?;
        let left: Vec<_> = stats.iter().filter(|topic| !topic.spec.name.starts_with("dead")).collect();
        finding("stuck", format!("{left:?}"))
    }

    fn is_idle(&mut self) -> Found<bool> {
        let producers = self.producers.iter().all(Actor::is_done);
        if !producers || !self.actors.iter().all(|actor| actor.is_done()) || !self.shared.left_behind.is_empty() {
            return Ok(false);
        }
        let stats = self.stats()?;
        let nothing = |topic: &TopicStats| topic.subscriptions.values().all(|s| s.backlog == 0 && s.in_flight == 0);
        let dead = |topic: &TopicStats| topic.spec.kind == TopicKind::DeadLetter;
        let untaken = |topic: &TopicStats| topic.subscriptions.values().all(|s| s.backlog == 0);
        Ok(stats.iter().all(|topic| match dead(topic) {
            true => !self.shared.plan.looked_after || untaken(topic),
            false => nothing(topic) || topic.spec.name == "beside" && untaken(topic),
        }))
    }

    fn stats(&mut self) -> Found<Vec<TopicStats>> {
        let broker = self.shared.broker();
        self.until(broker.stats())
    }

    /// Everything is done: was it right?
    async fn judge(&mut self) -> Verdict {
        self.shared.note(format_args!("judge"));
        for again in [false, true] {
            let facts = self.facts()?;
            self.compare(facts)?;
            if again {
                break;
            }
            // And it is the same after everything was read back from disk.
            self.restart_after(true).await?;
        }
        Ok(())
    }

    fn facts(&mut self) -> Found<(Facts, u64, u64)> {
        let broker = self.shared.broker();
        let mut parked = Parked::new();
        for (edge, Edge { dead, .. }) in EDGES[..graph::OUTSIDE].iter().enumerate() {
            let all = self.until(broker.peek(dead, "park", Position(0), 10_000))?;
            let ids: BTreeSet<u128> = all.iter().map(|(_, message)| message.id.0).collect();
            if ids.len() < all.len() {
                return finding("duplicate", format!("a message was given up twice on `{dead}`"));
            }
            parked.insert(edge, ids);
        }
        let mut facts = Facts::default();
        let (mut roots, mut given_up) = (0, 0);
        for producer in &self.producers {
            for sequence in 1..=producer.last {
                roots += 1;
                let root = producer.root(sequence);
                let looked_after = self.shared.plan.looked_after;
                given_up += u64::from(self.shared.oracle.follow(0, root, &parked, looked_after, &mut facts)?);
            }
        }
        for (edge, ids) in &parked {
            let unexpected = ids.iter().find(|id| facts.expected_parked.get(edge).is_none_or(|expected| !expected.contains(id)));
            if let Some(id) = unexpected {
                return finding("duplicate", format!("{id:032x} lies in `{}`, and its message was done", EDGES[*edge].dead));
            }
        }
        Ok((facts, roots, given_up))
    }

    fn compare(&mut self, (facts, roots, given_up): (Facts, u64, u64)) -> Verdict {
        let damaged: u64 = self.stats()?.iter().map(|topic| topic.damaged).sum();
        if facts.missing.len() as u64 > damaged {
            return finding("lost", format!("{:?}, {damaged} damaged", facts.missing));
        }
        let broker = self.shared.broker();
        let account = self.until(broker.account("t"))?;
        self.shared.note(format_args!("{account:?}, {given_up} given up, {damaged} damaged"));
        let right = Account { sent: roots, done: roots - given_up, dead_lettered: given_up, in_flight: 0 };
        let balanced = account.sent == roots && account.in_flight == 0 && account.done + account.dead_lettered == roots;
        if account != right && (damaged == 0 || !balanced) {
            return finding("account", format!("{account:?}, and it should be {right:?}"));
        }
        let seen = &self.shared.oracle.outside;
        if let Some(id) = seen.difference(&facts.expected_outside).next().filter(|_| damaged == 0) {
            return finding("phantom", format!("{id:032x} was seen outside, and nothing has led to it"));
        }
        for id in self.shared.oracle.stateful.clone() {
            let broker = self.shared.broker();
            let value = self.until(broker.state(&graph::state_key(id)))?;
            if value.is_some() && damaged == 0 {
                return finding("state", format!("the state of {id:032x} was removed and is there"));
            }
        }
        self.sequences()
    }

    fn sequences(&mut self) -> Verdict {
        let expected: BTreeMap<&'static str, u64> =
            self.producers.iter().map(|producer| (producer.name, producer.last)).collect();
        for (name, last) in expected.into_iter().filter(|(_, last)| *last > 0) {
            let broker = self.shared.broker();
            let found = self.until(broker.last_sequence("in", name))?;
            if found != Some(last) {
                return finding("sequence", format!("{name} is at {found:?}, not {last}"));
            }
        }
        Ok(())
    }
}
