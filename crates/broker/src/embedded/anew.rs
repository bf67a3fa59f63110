//! Finding the messages of a spilled block when its index is damaged: the records say where each of them is, and what it is.
//!
//! It reads the whole segments that the block's messages are in, which takes some 10 ms for each, and only where there is damage. The block is in memory then, and spilled
//! again with an index elsewhere.

use super::{
    block,
    group::Part,
    place::{Location, Place},
    record,
};
use crate::{
    Message,
    state::{BLOCK_MESSAGES, Indexed, Run, TopicId, key_hash},
};
use leatworks_journal::{JournalError, Record};

/// What the messages of a block say of themselves, with the root that each names. `records_of` gives the records of a segment, `start_of` its first address.
///
/// A message that is damaged too is in its place, at an address of its segment where nothing can be read: so it is missed and reported when it is delivered.
pub(super) fn find(
    topic: TopicId,
    number: u64,
    runs: &[Run],
    records_of: impl Fn(u64) -> Result<Vec<(Record, bool)>, JournalError>,
    start_of: impl Fn(u64) -> u64,
) -> Result<Vec<Indexed<Place>>, String> {
    let mut found: Vec<Option<(u64, Indexed<Place>)>> = (0..BLOCK_MESSAGES).map(|_| None).collect();
    let mut runs = runs.to_vec();
    // Of a message that was moved, what is written last counts.
    runs.sort_unstable_by_key(|run| run.segment);
    for run in &runs {
        for (record, whole) in records_of(run.segment).map_err(|error| error.to_string())? {
            let mut take = |position: u64, entry: Indexed<Place>| {
                let index = position.checked_sub(number * BLOCK_MESSAGES).and_then(|index| found.get_mut(index as usize));
                if let Some(place) = index {
                    *place = Some((run.segment, entry));
                }
            };
            take_from(topic, &record, whole, &mut take)?;
        }
    }
    for run in &runs {
        let count = found.iter().flatten().filter(|(segment, _)| *segment == run.segment).count() as u64;
        let missing = run.messages.checked_sub(count).ok_or("more of its messages are found than there should be")?;
        for place in found.iter_mut().filter(|place| place.is_none()).take(missing as usize) {
            let at = Location::new(start_of(run.segment), 1).ok_or("a segment is nowhere")?;
            *place = Some((run.segment, Indexed { handle: Place::at(at), key: 0, root: 0, sole: None }));
        }
    }
    let entries: Option<Vec<_>> = found.into_iter().map(|found| found.map(|(_, entry)| entry)).collect();
    entries.ok_or_else(|| "some of its messages are found nowhere".to_owned())
}

/// The messages of a topic that a record has, by position. The index itself lies in a record, which is damaged with it, and the messages in there are not.
fn take_from(topic: TopicId, record: &Record, whole: bool, take: &mut impl FnMut(u64, Indexed<Place>)) -> Result<(), String> {
    let parts = match record::decode(&record.body, record.address, whole) {
        Err(_) if !whole => return Ok(()),
        parts => parts?,
    };
    for part in parts {
        let Part::Net(net) = part else { continue };
        let published = net.topics.into_iter().filter(|survivors| survivors.topic == topic).flat_map(|survivors| survivors.held);
        for (position, published) in published {
            take(position, Indexed { handle: published.handle, key: published.key, root: published.root, sole: None });
        }
        for (_, position, handle) in net.moved.into_iter().filter(|(of, ..)| *of == topic) {
            let message = handle.at.and_then(|at| message_at(record, at)).unwrap_or_default();
            let (key, root) = (key_hash(message.key.as_deref()), message.root.0);
            take(position, Indexed { handle, key, root, sole: None });
        }
    }
    Ok(())
}

fn message_at(record: &Record, at: Location) -> Option<Message> {
    let start = usize::try_from(at.address().checked_sub(record.address)?).ok()?;
    let bytes = record.body.get(start..start.checked_add(at.bytes())?)?;
    block::is_whole(bytes).then(|| block::decode(bytes).ok())?
}
