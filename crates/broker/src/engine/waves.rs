//! A graph on a full disk: what moves messages on goes in small waves.

use super::{Core, Engine, Store};
use crate::{
    BrokerError, ErrorKind, Result, Step, TopicKind,
    state::{Looked, Missing},
};
use leatworks_journal::Effect;
use std::{
    sync::{Arc, MutexGuard},
    time::Duration,
};

/// How long a step waits for what is further down the graph before it is refused: well within the second in which people expect to hear of a full disk.
const CROWDED_MAX: Duration = Duration::from_millis(500);

/// How often it looks meanwhile: a sync of an ordinary disk.
const CROWDED_LOOK: Duration = Duration::from_millis(5);

/// Why a step has to wait in the reserve of a full disk.
enum Crowded<'a> {
    /// It is larger than a wave, and could be several.
    Large,
    /// What was moved on to this topic before is not settled.
    Pending(&'a str),
}

impl<S: Store> Engine<S> {
    /// The core with room for a step, as [`Engine::open_loaded`] gives it. In the reserve of a full disk messages are moved on in small waves, those further down
    /// the graph first: what is at the beginning of it would otherwise use up the reserve, and the end of it, which makes space, could not go on.
    pub(super) async fn open_for(
        &self,
        step: &Step,
        bytes: usize,
        effect: Effect,
        needs: impl Fn(&Core<S::Handle, S::Group>, &Looked) -> Vec<Missing<S::Handle>>,
    ) -> Result<MutexGuard<'_, Core<S::Handle, S::Group>>> {
        let mut waited = Duration::ZERO;
        loop {
            let crowded = {
                let core = self.open_loaded(bytes, effect, &needs).await?;
                match self.crowded(&core, step, bytes, effect) {
                    None => return Ok(core),
                    Some(why) => why,
                }
            };
            let text = match crowded {
                Crowded::Large => "the disk is full, and only smaller steps go on".to_owned(),
                Crowded::Pending(_) if waited < CROWDED_MAX => {
                    tokio::time::sleep(CROWDED_LOOK).await;
                    waited += CROWDED_LOOK;
                    continue;
                }
                Crowded::Pending(topic) => {
                    format!("the disk is full, and what is pending on topic `{topic}` must be settled first")
                }
            };
            return Err(BrokerError::new(ErrorKind::Full, text));
        }
    }

    /// Why a step should not happen now.
    fn crowded<'a>(&self, core: &Core<S::Handle, S::Group>, step: &'a Step, bytes: usize, effect: Effect) -> Option<Crowded<'a>> {
        if effect != Effect::Moves {
            return None;
        }
        // On a disk that is not full nothing more is looked at.
        let wave_bytes = self.store.wave_bytes()?;
        if self.store.has_room(&core.group, bytes, Effect::Adds) {
            return None;
        }
        if step.acks.len() > 1 && bytes as u64 > wave_bytes {
            return Some(Crowded::Large);
        }
        let each = (bytes / step.publishes.len().max(1)) as u64;
        let pending_max = wave_bytes / each.max(1);
        let mut before = None;
        step.publishes.iter().map(|publish| &publish.topic).find_map(|topic| {
            if before.is_some_and(|before| Arc::ptr_eq(before, topic)) {
                return None;
            }
            before = Some(topic);
            let found = &core.state.topics[core.state.find_topic(topic)?.0 as usize];
            // Giving a message up must always be possible.
            (found.spec.kind != TopicKind::DeadLetter && found.log.pending() > pending_max).then_some(Crowded::Pending(topic))
        })
    }
}
