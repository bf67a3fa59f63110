//! What must hold whatever happens: written down from what the broker has told, and compared with everything that it tells later.
//!
//! It knows nothing of the broker's inside but one thing: the state as each commit group has left it, which must be the state that is found after a crash.

use crate::graph::{self, ATTEMPTS_MAX, EDGES, Fate, OUTSIDE};
use leatworks_broker::{Delivery, Replayed, SubscriptionKind};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong: the kind of the fault, and what exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

pub(crate) fn finding<T>(kind: &'static str, text: String) -> Found<T> {
    Err(Finding { kind, text })
}

pub(crate) type Found<T> = std::result::Result<T, Finding>;

pub(crate) type Verdict = Found<()>;

/// Who holds a message: one of an edge's consumers, told from those that it was before by a number.
pub(crate) type Holder = u64;

/// One message on one edge.
#[derive(Default)]
struct Known {
    root: u128,
    /// Where it is, as long as no crash has taken that back.
    position: Option<u64>,
    /// Its last attempt, and whether the next one must be exactly one more.
    attempt: u32,
    /// A crash that may cost attempts was since.
    inexact: bool,
    holder: Option<Holder>,
    /// It is unsettled for certain: it was handed out since any step was tried.
    unsettled: bool,
    told: Told,
    /// Steps that were tried.
    tried_success: bool,
    tried_dead: bool,
    steps: u32,
    /// Those of them that have no answer yet, in this life: any of them may settle it at any time.
    under_way: u32,
    /// Not again before this time, in this life.
    due_ms: u64,
}

/// What was told of its step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    #[default]
    Nothing,
    Applied,
    Durable,
}

/// What was known of a process when it ended.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    /// The last record that must be found.
    pub(crate) kept: u64,
    /// Whether attempts must have survived too.
    pub(crate) attempts_survive: bool,
    /// How often another was begun.
    pub(crate) tries: usize,
}

/// A step under way.
pub(crate) struct Trial {
    pub(crate) edge: usize,
    /// Id, position, and whether it has gone well.
    pub(crate) inputs: Vec<(u128, u64, bool)>,
    pub(crate) durable: bool,
}

#[derive(Default)]
pub(crate) struct Oracle {
    known: BTreeMap<(usize, u128), Known>,
    /// Which message has which position of a topic.
    at: BTreeMap<(&'static str, u64), u128>,
    /// What somebody has tried to publish.
    tried: BTreeSet<(&'static str, u128)>,
    /// Where positions that are durable end.
    durable_next: BTreeMap<&'static str, u64>,
    /// The last position that an edge got for the first time in this life.
    newest: BTreeMap<usize, u64>,
    /// What the consumer outside has seen.
    pub(crate) outside: BTreeSet<u128>,
    /// Dead letters that somebody has tried to drop.
    pub(crate) dropped: BTreeSet<u128>,
    /// Messages that were published together with keyed state.
    pub(crate) stateful: BTreeSet<u128>,
    /// Messages that were passed over as damaged.
    pub(crate) damaged: u64,
    /// The state as each group has left it.
    images: BTreeMap<u64, Vec<String>>,
    /// Some messages could not be read for a while: they may have been passed over.
    pub(crate) unreadable: bool,
    /// Attempts may be missing from records, and delays that have ended with them be there: nobody waits for room to note them.
    pub(crate) roomless: bool,
    pub(crate) deliveries: u64,
}

impl Oracle {
    /// Somebody is about to publish this.
    pub(crate) fn tries(&mut self, topic: &'static str, id: u128) {
        self.tried.insert((topic, id));
    }

    /// A publish was told to have been done.
    pub(crate) fn published(&mut self, topic: &'static str, id: u128, position: u64) -> Verdict {
        self.durable(topic, position);
        self.place(topic, position, id)
    }

    fn durable(&mut self, topic: &'static str, position: u64) {
        let next = self.durable_next.entry(topic).or_default();
        *next = (*next).max(position + 1);
    }

    fn place(&mut self, topic: &'static str, position: u64, id: u128) -> Verdict {
        match self.at.insert((topic, position), id) {
            Some(other) if other != id => finding("position", format!("{topic}:{position} was {other:032x} and is {id:032x}")),
            _ => Ok(()),
        }
    }

    /// A consumer got a message.
    pub(crate) fn delivered(&mut self, edge: usize, holder: Holder, eager: bool, delivery: &Delivery, now_ms: u64) -> Verdict {
        self.deliveries += 1;
        let Delivery { position, attempt, message } = delivery;
        let (id, position) = (message.id.0, position.0);
        let topic = EDGES[edge].topic;
        let place = format!("{id:032x} at {topic}:{position} for `{}`, attempt {attempt}", EDGES[edge].subscription);
        if message.payload != graph::payload(id) || message.key != Some(graph::key(message.root.0)) {
            return finding("corrupt", place);
        }
        if !self.tried.contains(&(topic, id)) {
            return finding("phantom", place);
        }
        self.place(topic, position, id)?;
        if !eager {
            self.durable(topic, position);
        }
        if edge == OUTSIDE && !eager {
            self.outside.insert(id);
        }
        self.check_order(edge, message.root.0, position, &place)?;
        let known = self.known.entry((edge, id)).or_default();
        if *attempt == 1 && message.deliver_at_ms.is_some_and(|at| at > now_ms) {
            return finding("early", place);
        }
        if known.due_ms > now_ms {
            return finding("early", format!("{place}, due at {}, now {now_ms}", known.due_ms));
        }
        if known.told != Told::Nothing {
            return finding("duplicate", format!("{place}, although its step was told: {:?}", known.told));
        }
        if known.position.is_some_and(|other| other != position) {
            return finding("duplicate", format!("{place}, and at {:?}", known.position));
        }
        if let Some(other) = known.holder {
            return finding("duplicate", format!("{place}, while consumer {other} has it, not {holder}"));
        }
        let fits = match known.inexact {
            true => (1..=known.attempt + 1).contains(attempt),
            false => *attempt == known.attempt + 1,
        };
        if !fits {
            let text = format!("{place}, after {}{}", known.attempt, if known.inexact { " at most" } else { "" });
            return finding(if *attempt > known.attempt { "under-attempt" } else { "over-attempt" }, text);
        }
        let new = known.attempt == 0;
        *known = Known {
            root: message.root.0,
            position: Some(position),
            attempt: *attempt,
            inexact: false,
            holder: Some(holder),
            unsettled: known.under_way == 0,
            due_ms: 0,
            ..std::mem::take(known)
        };
        if new && matches!(EDGES[edge].kind, SubscriptionKind::Failover | SubscriptionKind::Exclusive) {
            let before = self.newest.insert(edge, position);
            if before.is_some_and(|before| before > position) {
                return finding("order", format!("{place}, after {before:?}"));
            }
        }
        Ok(())
    }

    /// While a message of a key is unsettled, later ones of the key wait.
    fn check_order(&self, edge: usize, root: u128, position: u64, place: &str) -> Verdict {
        if EDGES[edge].kind != SubscriptionKind::KeyShared || self.unreadable {
            return Ok(());
        }
        for (_, known) in self.known.range((edge, 0)..(edge + 1, 0)) {
            let other = known.position.filter(|other| known.unsettled && *other < position);
            if let Some(other) = other.filter(|_| graph::key(known.root) == graph::key(root)) {
                return finding("order", format!("{place}, while {other} of the same key is unsettled"));
            }
        }
        Ok(())
    }

    /// A consumer has left.
    pub(crate) fn left(&mut self, edge: usize, holder: Holder) {
        for (_, known) in self.known.range_mut((edge, 0)..(edge + 1, 0)) {
            known.holder = known.holder.filter(|other| *other != holder);
        }
    }

    /// A message is being given back.
    pub(crate) fn gives_back(&mut self, edge: usize, id: u128, due_ms: u64) {
        if let Some(known) = self.known.get_mut(&(edge, id)) {
            (known.holder, known.due_ms) = (None, due_ms);
        }
    }

    /// A step is about to be tried.
    pub(crate) fn steps(&mut self, trial: &Trial) {
        for (id, _, success) in &trial.inputs {
            let known = self.known.entry((trial.edge, *id)).or_default();
            known.unsettled = false;
            known.steps += 1;
            known.under_way += 1;
            known.tried_success |= *success;
            known.tried_dead |= !*success;
        }
    }

    /// A step has an answer, whatever it is.
    pub(crate) fn answered(&mut self, trial: &Trial) {
        for (id, ..) in &trial.inputs {
            let known = self.known.entry((trial.edge, *id)).or_default();
            known.under_way = known.under_way.saturating_sub(1);
        }
    }

    /// A step was told to have happened.
    pub(crate) fn stepped(&mut self, trial: &Trial) -> Verdict {
        let topic = EDGES[trial.edge].topic;
        for (id, position, _) in &trial.inputs {
            let known = self.known.entry((trial.edge, *id)).or_default();
            if known.told != Told::Nothing {
                return finding("duplicate", format!("two steps for {id:032x} of `{}`", EDGES[trial.edge].subscription));
            }
            known.told = if trial.durable { Told::Durable } else { Told::Applied };
            (known.holder, known.unsettled) = (None, false);
            if trial.durable {
                self.durable(topic, *position);
            }
        }
        Ok(())
    }

    /// A step was refused because an input is settled.
    pub(crate) fn refused(&self, trial: &Trial) -> Verdict {
        let excused = |(id, ..): &(u128, u64, bool)| self.known.get(&(trial.edge, *id)).is_some_and(|known| known.steps > 1);
        match trial.inputs.iter().any(excused) || self.damaged > 0 {
            true => Ok(()),
            false => finding(
                "lost",
                format!("a step of `{}` was refused: nobody has settled its inputs", EDGES[trial.edge].subscription),
            ),
        }
    }

    /// The state as groups have left it.
    pub(crate) fn images(&mut self, images: Vec<(u64, Vec<String>)>) {
        self.images.extend(images);
    }

    /// The process has ended and another has found this.
    pub(crate) fn reopened(&mut self, before: Before, Replayed { sequence, image, next }: &Replayed) -> Verdict {
        let Before { kept, attempts_survive, tries } = before;
        if *sequence < kept {
            return finding("lost", format!("records up to {kept} were kept, {sequence} is the last that was found"));
        }
        // A process that ended while it began may have given the numbers of groups that were lost to records of its own, which change nothing.
        let newest = self.images.range(..=sequence).next_back().map_or(Ok(()), |(_, expected)| self.compare(expected, image));
        let beyond = self.images.range(..=sequence).filter(|(number, _)| **number > kept);
        let mut others = beyond.chain(self.images.range(..=kept).next_back());
        if newest.is_err() && !(tries > 1 && others.any(|(_, other)| self.compare(other, image).is_ok())) {
            return newest;
        }
        self.images.retain(|number, _| number <= sequence);
        self.images.insert(*sequence, image.clone());
        for (topic, durable) in &self.durable_next {
            let found = next.get(*topic).copied().unwrap_or(0);
            if found < *durable {
                return finding("lost", format!("{topic} ends at {found}, and everything before {durable} was durable"));
            }
        }
        let survives = |topic: &str, position: u64| next.get(topic).is_some_and(|next| position < *next);
        self.at.retain(|(topic, position), _| survives(topic, *position));
        for ((edge, _), known) in &mut self.known {
            known.position = known.position.filter(|position| survives(EDGES[*edge].topic, *position));
            known.unsettled &= known.position.is_some() && known.under_way == 0;
            known.inexact |= !attempts_survive;
            (known.holder, known.under_way, known.due_ms) = (None, 0, 0);
            if known.told == Told::Applied {
                known.told = Told::Nothing;
            }
        }
        self.newest.clear();
        Ok(())
    }
}

/// What is left of dead letters at the end: by edge, their ids.
pub(crate) type Parked = BTreeMap<usize, BTreeSet<u128>>;

/// What became of the roots, worked out from what was seen.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) expected_outside: BTreeSet<u128>,
    pub(crate) expected_parked: Parked,
    /// Messages of which nothing is left, neither what they should have given nor a dead letter.
    pub(crate) missing: Vec<String>,
}

impl Oracle {
    /// Whether what was found is what the last group that was kept has left.
    fn compare(&self, expected: &[String], found: &[String]) -> Verdict {
        let counts = |line: &&String| !(self.roomless && (line.contains(" was tried ") || line.contains(" waits until ")));
        let expected: BTreeSet<&String> = expected.iter().filter(counts).collect();
        let found: BTreeSet<&String> = found.iter().filter(counts).collect();
        if expected == found {
            return Ok(());
        }
        let missing: Vec<_> = expected.difference(&found).take(4).collect();
        let more: Vec<_> = found.difference(&expected).take(4).collect();
        finding("state", format!("after a crash, missing: {missing:?}; instead: {more:?}"))
    }

    /// Whether an edge has got a message, and no crash has taken that back.
    fn is_there(&self, edge: usize, id: u128) -> bool {
        self.known.get(&(edge, id)).is_some_and(|known| known.position.is_some())
    }

    /// Follows a message on an edge to its end; says whether something of it lies in, or was dropped from, dead letters.
    pub(crate) fn follow(&self, edge: usize, id: u128, parked: &Parked, looked_after: bool, facts: &mut Facts) -> Found<bool> {
        let named = || format!("{id:032x} of `{}`", EDGES[edge].subscription);
        let known = self.known.get(&(edge, id));
        let Some(known) = known else {
            facts.missing.push(named());
            return Ok(false);
        };
        if edge == OUTSIDE {
            facts.expected_outside.insert(id);
            if known.told == Told::Nothing && known.steps == 0 {
                facts.missing.push(named());
            }
            return Ok(false);
        }
        let outputs = graph::outputs(edge, id);
        let topic = EDGES[edge].output.unwrap_or_default();
        let there = |output: &u128| graph::readers(topic).all(|reader| self.is_there(reader, *output));
        let success = known.tried_success && outputs.iter().all(there);
        let letter = graph::dead(edge, id);
        let in_parked = parked.get(&edge).is_some_and(|parked| parked.contains(&letter));
        let fate = if looked_after { graph::fate(edge, letter) } else { Fate::Stays };
        let redriven = fate == Fate::Redriven && self.is_there(edge, graph::again(letter));
        let dead = in_parked || redriven || (known.tried_dead && fate == Fate::Dropped && self.dropped.contains(&letter));
        match (success, dead) {
            (true, true) if !outputs.is_empty() => finding("duplicate", format!("{} was done and given up", named())),
            (_, true) => {
                if known.attempt < ATTEMPTS_MAX {
                    return finding("under-attempt", format!("{} was given up after {} attempts", named(), known.attempt));
                }
                facts.expected_parked.entry(edge).or_default().insert(letter);
                match redriven {
                    true => self.follow(edge, graph::again(letter), parked, looked_after, facts),
                    false => Ok(true),
                }
            }
            (true, false) => {
                let mut given_up = false;
                for output in &outputs {
                    for reader in graph::readers(topic) {
                        given_up |= self.follow(reader, *output, parked, looked_after, facts)?;
                    }
                }
                Ok(given_up)
            }
            (false, false) => {
                facts.missing.push(named());
                Ok(false)
            }
        }
    }
}
