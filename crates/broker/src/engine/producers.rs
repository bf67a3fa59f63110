//! Forgetting named producers: clients make up new names again and again, and what is remembered of each would pile up for ever.

use super::{Core, Engine, Store, plan};
use crate::{
    Step,
    state::{Event, TopicId},
};
use leatworks_journal::Effect;
use std::{sync::Arc, time::Duration};

/// How often the producers of a topic are looked through: so many times within the time after which one is forgotten.
const LOOKS: u32 = 16;

/// Producers that are forgotten in one event at most, so that it fits into any segment beside others.
const FORGET_MAX: usize = 256;

/// What one of them takes on disk at most: its name and a few numbers.
const FORGOTTEN_BYTES_MAX: usize = 255 + 64;

impl<S: Store> Engine<S> {
    /// Forgets the producers of a topic that have published nothing for long, and if there are too many, those that have not done so for longest.
    pub(super) fn forget_producers(&self, core: &mut Core<S::Handle, S::Group>, topic: TopicId) {
        let producers = &core.state.topics[topic.0 as usize].producers;
        if producers.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let too_many = producers.len().saturating_sub(self.limits.producers_max);
        if too_many == 0 && core.look_at_producers.get(&topic).is_some_and(|at| now_ms < *at) {
            return;
        }
        let since_ms = now_ms.saturating_sub(millis(self.limits.producer_inactive));
        let mut old: Vec<(u64, Arc<str>)> = producers
            .iter()
            .filter(|(_, last)| last.used_ms < since_ms)
            .map(|(name, last)| (last.used_ms, name.clone()))
            .collect();
        if old.len() < too_many {
            old = producers.iter().map(|(name, last)| (last.used_ms, name.clone())).collect();
            // A few more than there must, so that not each new name has all of them looked through.
            let count = (too_many + self.limits.producers_max / LOOKS as usize).min(old.len() - 1);
            old.sort_unstable();
            old.truncate(count);
        }
        // In order, so that the same calls give the same journal.
        old.sort_unstable();
        let more = old.len() > FORGET_MAX;
        old.truncate(FORGET_MAX);
        let bytes = plan::size(&Step::default()) + old.len() * FORGOTTEN_BYTES_MAX;
        let room = self.store.has_room(&core.group, bytes, Effect::Frees);
        if !more && room {
            let every = millis(self.limits.producer_inactive / LOOKS).max(1);
            core.look_at_producers.insert(topic, now_ms.saturating_add(every));
        }
        if !old.is_empty() && room {
            let producers = old.into_iter().map(|(_, name)| name).collect();
            self.enact(core, Event::Forget { topic, producers }, bytes);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
