//! What the embedded broker does from time to time: checkpoints, and moving old messages together.

use super::{
    anew, block, commit, index,
    place::{Location, Place},
    store::JournalStore,
};
use crate::{
    engine::{Engine, Store},
    state::{Event, Indexed, Missing, Run, TopicId},
};
use leatworks_journal::{Duty, Effect, Journal, JournalError};
use std::sync::{Arc, Weak};

/// Messages that are moved in one step at most, and their bytes: a step must fit in a segment, and not keep others waiting for long.
const MOVE_MESSAGES_MAX: usize = 256;
const MOVE_BYTES_MAX: usize = 1 << 20;

/// Blocks that are loaded at once to be moved.
const LOAD_BLOCKS_MAX: usize = 64;

/// What a moved message takes at most beside its bytes.
const MOVE_OVERHEAD_BYTES: usize = 32;

/// Does the duties until the broker ends.
pub(super) fn run(engine: &Weak<Engine<JournalStore>>, journal: &Journal) {
    loop {
        let duty = journal.duty();
        let Some(engine) = engine.upgrade() else { return };
        let done = match duty {
            Duty::Checkpoint => checkpoint(&engine, journal),
            Duty::Compact(segment) => compact(&engine, journal, segment),
            Duty::End => {
                // Whoever waits for a message or a root must hear of it, if the journal has failed.
                engine.wake_all();
                return;
            }
        };
        match done {
            // With a full disk there will be another try when there is something to write.
            Ok(()) | Err(JournalError::Full) => {}
            Err(_) => engine.wake_all(),
        }
    }
}

/// Takes a snapshot and makes it durable.
pub(super) fn checkpoint(engine: &Engine<JournalStore>, journal: &Journal) -> Result<(), JournalError> {
    let (mark, snapshot) = commit::snapshot(engine);
    journal.checkpoint(mark, &snapshot)
}

/// Appends what is alive in a segment again, so that the segment holds nothing and can be used again: a dead letter that lies for
/// weeks takes its own bytes, not a segment.
pub(super) fn compact(engine: &Arc<Engine<JournalStore>>, journal: &Journal, segment: u64) -> Result<(), JournalError> {
    loop {
        let loaded = load_from(engine, journal, segment);
        let found = living_in(engine, journal, segment);
        if found.is_empty() {
            match loaded {
                true => continue,
                false => return Ok(()),
            }
        }
        let bytes = found.iter().map(|(.., at)| at.bytes() + MOVE_OVERHEAD_BYTES).sum::<usize>() + MOVE_OVERHEAD_BYTES;
        let mut read = Vec::with_capacity(found.len());
        for (topic, position, at) in found {
            let read_back = journal.read(at.address(), at.bytes());
            // One that is damaged is told of when it is delivered; until then it keeps its segment.
            if let Some(message) =
                read_back.ok().filter(|bytes| block::is_whole(bytes)).and_then(|bytes| block::decode(&bytes[..]).ok())
            {
                read.push((topic, position, at, Arc::new(message)));
            }
        }
        if read.is_empty() {
            return Ok(());
        }
        let mut core = engine.lock();
        if !engine.store.has_room(&core.group, bytes, Effect::Frees) {
            return Ok(());
        }
        let still = |topic: TopicId, position: u64, at: Location| {
            core.state.log(topic).get(position).is_some_and(|entry| entry.handle.at == Some(at))
        };
        let messages = read.into_iter().filter(|(topic, position, at, _)| still(*topic, *position, *at));
        let messages: Vec<_> = messages.map(|(topic, position, _, message)| (topic, position, Place::from(message))).collect();
        if messages.is_empty() {
            continue;
        }
        engine.enact(&mut core, Event::Moved { messages }, bytes);
    }
}

/// Loads some of the blocks that keep this segment by their index or by a message, so that they can be moved; a block is spilled again with an index elsewhere.
/// Tells whether there were any.
fn load_from(engine: &Engine<JournalStore>, journal: &Journal, segment: u64) -> bool {
    let within = |at: &Location| journal.segment_of(at.address()) == segment;
    let missing = engine.lock().state.missing_where(LOAD_BLOCKS_MAX, |block| {
        block.handle.at.as_ref().is_some_and(within) || block.runs.iter().any(|run| run.segment == segment)
    });
    // What is still on its way to the disk cannot be read, and is not damaged.
    let is_written = |missing: &Missing<Place>| missing.handle.at.is_none_or(|at| journal.is_written(at.address(), at.bytes()));
    if !missing.iter().all(is_written) && !engine.store.driven && !journal.wait_written(journal.last()) {
        return false;
    }
    let mut loaded = false;
    for missing in missing.into_iter().filter(is_written) {
        let index = index::read(missing.topic, missing.number, &missing.handle, |address, bytes| journal.read(address, bytes));
        let found = match &index {
            Ok(_) => None,
            Err(reason) => {
                // A block that a consumer has loaded meanwhile may have left its place to others: what was read there is not damaged.
                let Some(runs) = engine.lock().state.runs_of(&missing) else { continue };
                find_anew(journal, missing.topic, missing.number, &runs, reason).ok()
            }
        };
        let mut core = engine.lock();
        let core = &mut *core;
        let index = index.ok().or_else(|| core.state.missing_anew(&missing, found?));
        // One that cannot be made anew either is told of when it is needed; until then it keeps its segment.
        let Some(index) = index else { continue };
        core.state.load(&missing, index);
        engine.store.applied(&mut core.group, &mut core.state);
        loaded = true;
    }
    loaded
}

/// Finds the messages of a block whose index is damaged, for this reason.
pub(super) fn find_anew(
    journal: &Journal,
    topic: TopicId,
    number: u64,
    runs: &[Run],
    reason: &str,
) -> Result<Vec<Indexed<Place>>, String> {
    tracing::error!(topic = topic.0, block = number, reason, "{}", index::ANEW);
    let found = anew::find(topic, number, runs, |segment| journal.records_of(segment), |segment| journal.start_of(segment));
    found.map_err(|error| format!("{reason}; it cannot be made anew: {error}"))
}

fn living_in(engine: &Engine<JournalStore>, journal: &Journal, segment: u64) -> Vec<(TopicId, u64, Location)> {
    let core = engine.lock();
    let mut found = Vec::new();
    let mut bytes = 0;
    for (number, topic) in core.state.topics.iter().enumerate() {
        for (position, entry) in topic.log.held(0) {
            let Some(at) = entry.handle.at.filter(|at| journal.segment_of(at.address()) == segment) else { continue };
            bytes += at.bytes();
            found.push((TopicId(number as u32), position, at));
            if found.len() == MOVE_MESSAGES_MAX || bytes >= MOVE_BYTES_MAX {
                return found;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Broker, Durability, Message, MessageId, Publish, Start, TopicSpec,
        embedded::{Embedded, EmbeddedOptions, Work},
    };
    use leatworks_journal::simulation::{Faults, SimulatedFileSystem};

    /// Messages: two blocks, and one that begins a third.
    const MESSAGES: u128 = 9;

    #[tokio::test]
    async fn an_index_that_is_not_on_the_disk_yet_is_not_taken_for_damaged() {
        let options = EmbeddedOptions {
            durability: Durability::Memory,
            cache_bytes_max: 0,
            index_messages_max: 0,
            ..EmbeddedOptions::new("simulated")
        };
        let fs = SimulatedFileSystem::new(1, Faults::default());
        let (broker, driven) = Embedded::open_driven(Arc::new(fs), options, 0).unwrap();
        let publish = |id: u128| {
            let message = Message { id: MessageId(id), root: MessageId(id), payload: vec![7; 100].into(), ..Message::default() };
            broker.publish(vec![Publish { topic: "in".into(), message: message.into(), sequence: None }])
        };
        broker.create_topic(TopicSpec { name: "in".into(), ..TopicSpec::default() }).await.unwrap();
        broker.create_subscription("in", "s", Start::Earliest).await.unwrap();
        for id in 1..MESSAGES {
            publish(id).await.unwrap();
        }
        let drive = |all: &[Work]| all.iter().for_each(|work| driven.drive(*work).unwrap());
        drive(&[Work::Close, Work::Append, Work::Write]);
        publish(MESSAGES).await.unwrap();
        drive(&[Work::Close, Work::Append]);
        let (engine, journal) = (&broker.engine, &broker.engine.store.journal);
        let spilled = || engine.lock().state.spilled();
        let first = engine.lock().state.topics[0].log.all_spilled().find_map(|(_, block)| block.handle.at).unwrap();
        let segment = journal.segment_of(first.address());
        assert_eq!((load_from(engine, journal, segment), spilled()), (false, 2));
        drive(&[Work::Write]);
        assert_eq!((load_from(engine, journal, segment), spilled()), (true, 0));
    }
}
