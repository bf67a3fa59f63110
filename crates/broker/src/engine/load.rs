//! Bringing spilled blocks back: what cannot be done with a block's summary is put off until the block is in memory.
//!
//! Indexes are read without the engine's lock. What was read is put back only if the block is still where it was, and whoever needed it looks again.

use super::{Core, Engine, Store};
use crate::{
    ErrorKind, Result, Step, TopicKind,
    state::{Index, Looked, Missing, Settled, Span, SubscriptionId, TopicId},
};
use leatworks_journal::Effect;
use std::sync::MutexGuard;

/// Messages whose blocks are loaded at once when a consumer gets to them: some 150 kB of indexes, read in about a millisecond.
pub(crate) const LOAD_MESSAGES: u64 = 8_192;

/// What is found in one look at the messages of a topic.
enum Found<H> {
    /// These, and where to go on.
    Held(Vec<(u64, H)>, Option<u64>),
    /// A spilled block, which must be read.
    Spilled(Missing<H>),
}

impl<S: Store> Engine<S> {
    /// The core with room for this much and with every block in memory that is needed.
    pub(super) async fn open_loaded(
        &self,
        bytes: usize,
        effect: Effect,
        needs: impl Fn(&Core<S::Handle, S::Group>, &Looked) -> Vec<Missing<S::Handle>>,
    ) -> Result<MutexGuard<'_, Core<S::Handle, S::Group>>> {
        let mut looked = Looked::default();
        loop {
            let missing = {
                let core = self.open_with_room(bytes, effect).await?;
                let missing = if core.state.spilled() == 0 { Vec::new() } else { needs(&core, &looked) };
                if missing.is_empty() {
                    return Ok(core);
                }
                missing
            };
            self.load(&missing, &mut looked).await?;
        }
    }

    /// Reads these blocks and puts them back, but for those that were only to be looked into and do not hold what was looked for.
    pub(super) async fn load(&self, missing: &[Missing<S::Handle>], looked: &mut Looked) -> Result<()> {
        let indexes = match self.indexes(missing).await {
            Ok(indexes) => indexes,
            Err(error) if self.still_missing(missing) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut core = self.open()?;
        let core = &mut *core;
        for (missing, index) in missing.iter().zip(indexes) {
            if missing.is_wanted(&index, looked) {
                core.state.load(missing, index);
            }
        }
        self.store.applied(&mut core.group, &mut core.state);
        Ok(())
    }

    /// Reads the indexes of these blocks. One that is damaged is made anew from the messages themselves.
    async fn indexes(&self, missing: &[Missing<S::Handle>]) -> Result<Vec<Index<S::Handle>>> {
        let mut indexes = Vec::with_capacity(missing.len());
        for (missing, read) in missing.iter().zip(self.store.load_indexes(missing).await?) {
            let reason = match read {
                Ok(index) => {
                    indexes.push(index);
                    continue;
                }
                Err(reason) => reason,
            };
            let runs = self.lock().state.runs_of(missing);
            let Some(runs) = runs.filter(|_| reason.kind() == ErrorKind::Storage) else { return Err(reason) };
            let found = self.store.find_anew(missing, runs, &reason).await?;
            indexes.push(self.lock().state.missing_anew(missing, found).ok_or(reason)?);
        }
        Ok(indexes)
    }

    /// Whether all of these are where they were: what was read is then what is there. A block that was loaded by somebody else may have left its place to
    /// others.
    fn still_missing(&self, missing: &[Missing<S::Handle>]) -> bool {
        let core = self.lock();
        missing.iter().all(|missing| core.state.is_missing(missing))
    }

    /// Loads the blocks that a consumer gets to next. One consumer at a time: the others find them there.
    pub(super) async fn load_ahead(&self, topic: TopicId, from: u64) -> Result<()> {
        let _alone = self.loading.lock().await;
        let missing = self.open()?.state.missing_within(topic, from, from.saturating_add(LOAD_MESSAGES));
        self.load(&missing, &mut Looked::default()).await
    }

    /// Up to `limit` messages that are held from `from` on and not settled by this subscription, if one is given. Nothing is loaded for it.
    pub(super) async fn some_held(
        &self,
        topic: TopicId,
        subscription: Option<SubscriptionId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, S::Handle)>> {
        let mut from = from;
        let mut held: Vec<(u64, S::Handle)> = Vec::new();
        while held.len() < limit {
            let found = self.open()?.look(topic, subscription, from, limit - held.len());
            match found {
                Found::Held(more, next) => {
                    held.extend(more);
                    match next {
                        Some(next) => from = next,
                        None => break,
                    }
                }
                Found::Spilled(missing) => {
                    let indexes = match self.indexes(std::slice::from_ref(&missing)).await {
                        Ok(indexes) => indexes,
                        Err(error) if self.still_missing(std::slice::from_ref(&missing)) => return Err(error),
                        Err(_) => continue,
                    };
                    let (start, end) = missing.range();
                    let all = indexes.into_iter().flat_map(|index| index.entries);
                    let all = (start..end).zip(all).skip_while(|(position, _)| *position < from);
                    let room = limit - held.len();
                    held.extend(all.map(|(position, entry)| (position, entry.handle)).take(room));
                    from = end;
                }
            }
        }
        Ok(held)
    }
}

impl<H: Clone + PartialEq, G> Core<H, G> {
    fn look(&self, topic: TopicId, subscription: Option<SubscriptionId>, from: u64, limit: usize) -> Found<H> {
        let log = self.state.log(topic);
        let settled = subscription.map(|number| self.state.subscription_of(number).map(|found| &found.settled));
        let wanted = |position: u64| match settled {
            None => true,
            Some(settled) => settled.is_some_and(|settled: &Settled| !settled.contains(position)),
        };
        // A spilled block is settled whole or not at all.
        let spilled = self.state.missing_within(topic, from, u64::MAX).into_iter().find(|missing| wanted(missing.range().0));
        let end = spilled.as_ref().map_or(u64::MAX, |missing| missing.range().0);
        let held = log.held(from).take_while(|(position, _)| *position < end).filter(|(position, _)| wanted(*position));
        let held: Vec<(u64, H)> = held.take(limit).map(|(position, entry)| (position, entry.handle.clone())).collect();
        match spilled {
            Some(missing) if held.is_empty() => Found::Spilled(missing),
            spilled => Found::Held(held, spilled.map(|missing| missing.range().0)),
        }
    }

    /// Which blocks must be loaded before this step can be planned.
    pub(super) fn missing_for_step(&self, step: &Step, looked: &Looked) -> Vec<Missing<H>> {
        let mut missing = Vec::new();
        for ack in &step.acks {
            // What does not exist is refused when the step is planned.
            let Ok((topic, subscription)) = self.subscription(&ack.topic, &ack.subscription) else { continue };
            let Some(settled) = self.state.subscription_of(subscription).map(|found| &found.settled) else { continue };
            let position = ack.position.0.min(self.state.log(topic).next().saturating_sub(1));
            let spans = match ack.cumulative {
                true => settled.unsettled_below(position + 1),
                false => vec![(position, position + 1)],
            };
            for (start, end) in spans {
                self.state.missing_for_span(Span { subscription, start, end }, &mut missing);
            }
        }
        for publish in &step.publishes {
            let kind = self.topic(&publish.topic).map(|topic| self.state.topics[topic.0 as usize].spec.kind);
            if kind.is_ok_and(|kind| kind != TopicKind::Plain) {
                self.state.missing_root(publish.message.root.0, looked, &mut missing);
            }
        }
        missing
    }
}
