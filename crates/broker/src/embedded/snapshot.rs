//! The whole state as a checkpoint keeps it: columns of numbers, so that a pending message takes about 15 bytes.

use super::{
    index,
    place::{Location, Place},
    topic::TopicRecord,
};
use crate::{
    Account, MessageId,
    planted::{self, Bug},
    state::{
        Delay, Entry, LastSent, RootImage, Run, Settled, SpilledImage, State, Subscription, SubscriptionId, Topic, TopicId,
        UNTRACKED,
    },
};
use bytes::Bytes;
use leatworks_journal::Reader;
use prost::Message as _;
use rustc_hash::FxHashMap;

#[derive(Clone, PartialEq, prost::Message)]
struct Snapshot {
    #[prost(message, repeated, tag = "1")]
    topics: Vec<TopicImage>,
    #[prost(message, repeated, tag = "2")]
    subscriptions: Vec<SubscriptionImage>,
    #[prost(message, optional, tag = "3")]
    roots: Option<RootsImage>,
    #[prost(message, repeated, tag = "4")]
    accounts: Vec<AccountImage>,
    /// Low and high half of each id.
    #[prost(fixed64, repeated, tag = "5")]
    dropped: Vec<u64>,
    #[prost(message, repeated, tag = "6")]
    keyed: Vec<KeyedImage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TopicImage {
    #[prost(message, optional, tag = "1")]
    spec: Option<TopicRecord>,
    #[prost(uint64, tag = "2")]
    next: u64,
    #[prost(message, repeated, tag = "3")]
    producers: Vec<ProducerImage>,
    /// Position and time of each message that is not to be delivered before.
    #[prost(uint64, repeated, tag = "4")]
    deliver_at: Vec<u64>,
    /// One entry per held message in each of the following; positions, addresses and times as differences to the one before.
    #[prost(uint64, repeated, tag = "5")]
    positions: Vec<u64>,
    #[prost(sint64, repeated, tag = "6")]
    addresses: Vec<i64>,
    #[prost(uint32, repeated, tag = "7")]
    lengths: Vec<u32>,
    /// The number of its root in [`RootsImage`] from 1 on, 0 for none.
    #[prost(uint32, repeated, tag = "8")]
    roots: Vec<u32>,
    #[prost(fixed32, repeated, tag = "9")]
    keys: Vec<u32>,
    #[prost(uint32, repeated, tag = "10")]
    remaining: Vec<u32>,
    #[prost(sint64, repeated, tag = "11")]
    times: Vec<i64>,
    #[prost(uint64, tag = "12")]
    damaged: u64,
    #[prost(message, optional, tag = "13")]
    spilled: Option<SpilledImages>,
}

/// The blocks of a topic whose indexes lie in the journal, one entry each; numbers, addresses, times and segments as differences to the one before.
#[derive(Clone, PartialEq, prost::Message)]
struct SpilledImages {
    #[prost(uint64, repeated, tag = "1")]
    numbers: Vec<u64>,
    /// Where each one's index is.
    #[prost(sint64, repeated, tag = "2")]
    addresses: Vec<i64>,
    #[prost(uint32, repeated, tag = "3")]
    lengths: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    remaining: Vec<u32>,
    #[prost(sint64, repeated, tag = "5")]
    times: Vec<i64>,
    #[prost(uint64, repeated, tag = "6")]
    bytes: Vec<u64>,
    /// Roots that were sent once and are nowhere else.
    #[prost(uint32, repeated, tag = "7")]
    sent: Vec<u32>,
    /// 1 if it shares roots with messages elsewhere, plus 2 if it has roots that are nowhere else.
    #[prost(uint32, repeated, tag = "8")]
    roots: Vec<u32>,
    /// In how many segments its messages are, and for each segment its number, messages and bytes.
    #[prost(uint32, repeated, tag = "9")]
    run_counts: Vec<u32>,
    #[prost(sint64, repeated, tag = "10")]
    segments: Vec<i64>,
    #[prost(uint64, repeated, tag = "11")]
    run_messages: Vec<u64>,
    #[prost(uint64, repeated, tag = "12")]
    run_bytes: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProducerImage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint64, tag = "4")]
    used_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscriptionImage {
    /// It was removed; only its number is kept.
    #[prost(bool, tag = "1")]
    removed: bool,
    #[prost(uint32, tag = "2")]
    topic: u32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(uint64, tag = "4")]
    cursor: u64,
    /// Start and end of each settled range.
    #[prost(uint64, repeated, tag = "5")]
    above: Vec<u64>,
    /// Position and count.
    #[prost(uint64, repeated, tag = "6")]
    attempts: Vec<u64>,
    /// Position, time, and how long the wait is from its beginning.
    #[prost(uint64, repeated, tag = "7")]
    delays: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RootsImage {
    /// Low and high half of each id.
    #[prost(fixed64, repeated, tag = "1")]
    ids: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    topologies: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    sent: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    pending: Vec<u32>,
    #[prost(uint32, repeated, tag = "5")]
    dead: Vec<u32>,
    #[prost(bool, repeated, tag = "6")]
    dropped: Vec<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AccountImage {
    #[prost(string, tag = "1")]
    topology: String,
    #[prost(uint64, tag = "2")]
    sent: u64,
    #[prost(uint64, tag = "3")]
    done: u64,
    #[prost(uint64, tag = "4")]
    dead_lettered: u64,
    #[prost(uint64, tag = "5")]
    in_flight: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyedImage {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

fn whole(id: &[u64]) -> u128 {
    u128::from(id[0]) | (u128::from(id[1]) << 64)
}

/// Pairs in order, so that the same state gives the same bytes.
fn pairs<K: Into<u64> + Copy, V: Into<u64> + Copy>(map: &FxHashMap<K, V>) -> Vec<u64> {
    let mut pairs: Vec<[u64; 2]> = map.iter().map(|(key, value)| [(*key).into(), (*value).into()]).collect();
    pairs.sort_unstable();
    pairs.into_iter().flatten().collect()
}

/// The same of delays.
fn delays(map: &FxHashMap<u64, Delay>) -> Vec<u64> {
    let mut delays: Vec<[u64; 3]> = map.iter().map(|(position, delay)| [*position, delay.until_ms, delay.of_ms]).collect();
    delays.sort_unstable();
    delays.into_iter().flatten().collect()
}

/// Roots that are put into columns at once.
const ROOTS_EACH: usize = 16_384;

/// About what a root and a message take in a snapshot: what is set aside for it, which costs nothing until it is used.
const ROOT_BYTES: usize = 24;
/// See [`ROOT_BYTES`].
const MESSAGE_BYTES: usize = 20;

/// The state as bytes, made piece by piece: a message of this format may be cut between any two fields and entries of a list, and is read back as one. The columns of
/// everything at once would take 33 bytes for each root and 40 for each message beside them, which is 70 MiB for a million of both.
pub(crate) fn encode(state: &State<Place>) -> Vec<u8> {
    let (slots, count) = state.roots.slots_and_count();
    // Of those that are spilled there is only where their index is.
    let messages: usize = state.topics.iter().map(|topic| topic.log.loaded_messages_max()).sum();
    let mut bytes = Vec::with_capacity(count * ROOT_BYTES + messages * MESSAGE_BYTES);
    let mut add = |piece: Snapshot| piece.encode(&mut bytes).expect("a vector takes all");
    // By slot; 0 is no root.
    let mut numbers = vec![0; slots];
    let mut columns = RootsImage::default();
    for (number, (slot, image)) in (1..).zip(state.roots.images()) {
        numbers[slot as usize] = number;
        columns.ids.extend(halves(image.id));
        columns.topologies.push(image.topology);
        columns.sent.push(image.sent);
        columns.pending.push(image.pending);
        columns.dead.push(image.dead);
        columns.dropped.push(image.dropped);
        if columns.topologies.len() == ROOTS_EACH {
            add(Snapshot { roots: Some(std::mem::take(&mut columns)), ..Snapshot::default() });
        }
    }
    add(Snapshot { roots: Some(columns), ..Snapshot::default() });
    for topic in &state.topics {
        add(Snapshot { topics: vec![topic_image(topic, &numbers)], ..Snapshot::default() });
    }
    let account = |(topology, account): (String, Account)| AccountImage {
        topology,
        sent: account.sent,
        done: account.done,
        dead_lettered: account.dead_lettered,
        in_flight: account.in_flight,
    };
    let keyed = |(key, value): (&String, &Bytes)| KeyedImage { key: key.clone(), value: value.clone() };
    add(Snapshot {
        subscriptions: state.subscriptions.iter().map(subscription_image).collect(),
        accounts: state.roots.accounts().into_iter().map(account).collect(),
        dropped: state.roots.dropped().flat_map(|id| halves(id.0)).collect(),
        keyed: state.keyed.iter().map(keyed).collect(),
        ..Snapshot::default()
    });
    bytes
}

fn topic_image(topic: &Topic<Place>, numbers: &[u32]) -> TopicImage {
    let mut producers: Vec<ProducerImage> = topic
        .producers
        .iter()
        .map(|(name, LastSent { sequence, position, used_ms })| ProducerImage {
            name: name.as_ref().to_owned(),
            sequence: *sequence,
            position: *position,
            used_ms: *used_ms,
        })
        .collect();
    producers.sort_by(|a, b| a.name.cmp(&b.name));
    if planted::is(Bug::SequencesNotInSnapshot) {
        producers.clear();
    }
    let mut image = TopicImage {
        spec: Some(TopicRecord::from(&topic.spec)),
        next: topic.log.next(),
        producers,
        deliver_at: pairs(&topic.deliver_at),
        damaged: topic.damaged,
        spilled: spilled_images(topic),
        ..TopicImage::default()
    };
    let (mut position_before, mut address_before, mut time_before) = (0, 0, 0);
    for (position, entry, time) in topic.log.held_with_time() {
        // Nothing is held that was not written when a snapshot is taken.
        let Some(at) = entry.handle.at else { continue };
        image.positions.push(position - position_before);
        image.addresses.push(at.address().wrapping_sub(address_before) as i64);
        image.lengths.push(at.bytes() as u32);
        image.roots.push(numbers.get(entry.root as usize).copied().unwrap_or(0));
        image.keys.push(entry.key);
        image.remaining.push(entry.remaining);
        image.times.push(time.wrapping_sub(time_before) as i64);
        (position_before, address_before, time_before) = (position, at.address(), time);
    }
    image
}

fn spilled_images(topic: &Topic<Place>) -> Option<SpilledImages> {
    let mut images = SpilledImages::default();
    let (mut number_before, mut address_before, mut time_before, mut segment_before) = (0, 0, 0, 0);
    for (number, block) in topic.log.all_spilled() {
        let Some(at) = block.handle.at else { continue };
        images.numbers.push(number - number_before);
        images.addresses.push(at.address().wrapping_sub(address_before) as i64);
        images.lengths.push(at.bytes() as u32);
        images.remaining.push(block.remaining);
        images.times.push(block.newest_ms.wrapping_sub(time_before) as i64);
        images.bytes.push(block.bytes);
        images.sent.push(block.sent);
        images.roots.push(u32::from(block.shared) + 2 * u32::from(block.has_roots()));
        images.run_counts.push(block.runs.len() as u32);
        for run in &block.runs {
            images.segments.push(run.segment.wrapping_sub(segment_before) as i64);
            images.run_messages.push(run.messages);
            images.run_bytes.push(run.bytes);
            segment_before = run.segment;
        }
        (number_before, address_before, time_before) = (number, at.address(), block.newest_ms);
    }
    (!images.numbers.is_empty()).then_some(images)
}

fn subscription_image(subscription: &Option<Subscription>) -> SubscriptionImage {
    let Some(subscription) = subscription else { return SubscriptionImage { removed: true, ..SubscriptionImage::default() } };
    SubscriptionImage {
        removed: false,
        topic: subscription.topic.0,
        name: subscription.name.clone(),
        cursor: subscription.settled.cursor(),
        above: subscription.settled.above().flat_map(|(start, end)| [start, end]).collect(),
        attempts: pairs(&subscription.attempts),
        delays: delays(&subscription.delays),
    }
}

/// The state that these bytes hold. The indexes of spilled blocks are read by the reader.
pub(crate) fn decode(bytes: &[u8], reader: &Reader) -> Result<State<Place>, String> {
    let snapshot = Snapshot::decode(bytes).map_err(|error| error.to_string())?;
    let mut state = State::default();
    let account = |image: AccountImage| {
        let AccountImage { topology, sent, done, dead_lettered, in_flight } = image;
        (topology, Account { sent, done, dead_lettered, in_flight })
    };
    let dropped = snapshot.dropped.chunks_exact(2).map(|id| MessageId(whole(id))).collect();
    state.roots.restore(snapshot.accounts.into_iter().map(account).collect(), dropped);
    let slots = restore_roots(&mut state, &snapshot.roots.unwrap_or_default())?;
    for (number, image) in snapshot.topics.into_iter().enumerate() {
        restore_topic(&mut state, TopicId(number as u32), image, &slots, reader)?;
    }
    for (number, image) in snapshot.subscriptions.into_iter().enumerate() {
        restore_subscription(&mut state, SubscriptionId(number as u32), image)?;
    }
    state.keyed = snapshot.keyed.into_iter().map(|KeyedImage { key, value }| (key, value)).collect();
    Ok(state)
}

fn restore_roots(state: &mut State<Place>, image: &RootsImage) -> Result<Vec<u32>, String> {
    let mut slots = vec![UNTRACKED];
    for (index, id) in image.ids.chunks_exact(2).enumerate() {
        let column = |column: &[u32]| column.get(index).copied().ok_or("the roots are cut off");
        let image = RootImage {
            id: whole(id),
            topology: column(&image.topologies)?,
            sent: column(&image.sent)?,
            pending: column(&image.pending)?,
            dead: column(&image.dead)?,
            dropped: image.dropped.get(index).copied().ok_or("the roots are cut off")?,
        };
        slots.push(state.roots.restore_root(image));
    }
    Ok(slots)
}

fn restore_topic(
    state: &mut State<Place>,
    number: TopicId,
    image: TopicImage,
    slots: &[u32],
    reader: &Reader,
) -> Result<(), String> {
    let spec = image.spec.ok_or("a topic without a name")?.try_into()?;
    let mut topic = Topic::new(spec, &mut state.roots);
    let cut = || "the messages are cut off".to_owned();
    let (mut position, mut address, mut time) = (0_u64, 0_u64, 0_u64);
    for index in 0..image.positions.len() {
        position += image.positions[index];
        address = address.wrapping_add(*image.addresses.get(index).ok_or_else(cut)? as u64);
        time = time.wrapping_add(*image.times.get(index).ok_or_else(cut)? as u64);
        let bytes = *image.lengths.get(index).ok_or_else(cut)? as usize;
        let root = *image.roots.get(index).ok_or_else(cut)? as usize;
        let entry = Entry {
            handle: Place::at(Location::new(address, bytes).ok_or_else(cut)?),
            root: *slots.get(root).ok_or_else(cut)?,
            key: *image.keys.get(index).ok_or_else(cut)?,
            remaining: *image.remaining.get(index).ok_or_else(cut)?,
        };
        topic.log.put(position, entry, time, bytes);
    }
    topic.log.set_next(image.next);
    topic.damaged = image.damaged;
    topic.deliver_at = image.deliver_at.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let producers = image.producers.into_iter();
    let producer = |ProducerImage { name, sequence, position, used_ms }| (name.into(), LastSent { sequence, position, used_ms });
    topic.producers = producers.map(producer).collect();
    // Of one that was removed there is only the number.
    if !topic.spec.name.is_empty() {
        state.topic_names.insert(topic.spec.name.clone(), number);
    }
    state.topics.push(topic);
    restore_spilled(state, number, image.spilled.unwrap_or_default(), reader)
}

fn restore_spilled(state: &mut State<Place>, topic: TopicId, images: SpilledImages, reader: &Reader) -> Result<(), String> {
    let cut = || "the blocks are cut off".to_owned();
    let (mut number, mut address, mut newest_ms, mut segment) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut runs = images.segments.iter().zip(&images.run_messages).zip(&images.run_bytes);
    for (index, gap) in images.numbers.iter().enumerate() {
        number += gap;
        address = address.wrapping_add(*images.addresses.get(index).ok_or_else(cut)? as u64);
        newest_ms = newest_ms.wrapping_add(*images.times.get(index).ok_or_else(cut)? as u64);
        let column = |column: &[u32]| column.get(index).copied().ok_or_else(cut);
        let (roots, bytes) = (column(&images.roots)?, *images.bytes.get(index).ok_or_else(cut)?);
        let runs = runs.by_ref().take(column(&images.run_counts)? as usize).map(|((gap, messages), bytes)| {
            segment = segment.wrapping_add(*gap as u64);
            Run { segment, messages: *messages, bytes: *bytes }
        });
        let image = SpilledImage {
            handle: Place::at(Location::new(address, column(&images.lengths)? as usize).ok_or_else(cut)?),
            remaining: column(&images.remaining)?,
            newest_ms,
            bytes,
            sent: column(&images.sent)?,
            shared: roots & 1 != 0,
            runs: runs.collect(),
        };
        let index = match roots & 2 {
            0 => None,
            _ => Some(match index::replay(reader, topic, number, &image.handle) {
                Ok(index) => index,
                Err(reason) => {
                    let found = index::find_anew(reader, topic, number, &image.runs, &reason)?;
                    state.index_anew(state.topics[topic.0 as usize].spec.kind, &image, true, found)
                }
            }),
        };
        state.restore_spilled(topic, number, image, index.as_ref());
    }
    Ok(())
}

fn restore_subscription(state: &mut State<Place>, number: SubscriptionId, image: SubscriptionImage) -> Result<(), String> {
    if image.removed {
        state.subscriptions.push(None);
        return Ok(());
    }
    let mut settled = Settled::up_to(image.cursor);
    for range in image.above.chunks_exact(2) {
        settled.insert(range[0], range[1]);
    }
    let topic = TopicId(image.topic);
    let found = state.topics.get_mut(image.topic as usize).ok_or("a subscription without a topic")?;
    found.subscriptions.push(number);
    state.subscriptions.push(Some(Subscription {
        topic,
        name: image.name,
        settled,
        attempts: image.attempts.chunks_exact(2).map(|pair| (pair[0], pair[1] as u32)).collect(),
        delays: image
            .delays
            .as_chunks::<3>()
            .0
            .iter()
            .map(|[at, until_ms, of_ms]| (*at, Delay { until_ms: *until_ms, of_ms: *of_ms }))
            .collect(),
    }));
    Ok(())
}
