//! R4: the journal is cut off at each byte of its tail, and bits of it are flipped. What is damaged is told of, the rest is there, and nothing wrong is delivered.

use super::{
    Finding, Setting,
    disk::Memory,
    log,
    random::Random,
    workload::{INGRESS, Parcel, TOPOLOGY},
};
use anyhow::{Context, Result};
use leatworks::{
    Codec,
    topics::{self, TopologyRef},
};
use leatworks_broker::{Ack, Broker, Embedded, EmbeddedOptions, Message, MessageId, Position, Publish, Step};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Bytes of a segment: the whole tail lies in one.
const SEGMENT_BYTES: u64 = 256 << 10;

/// What lies at the end of a segment behind its records: the copy of its header.
const COPY_BYTES: u64 = 64;

/// What a record without a body takes. The journal may write one by itself behind a message that was just published.
const IDLE_BYTES: u64 = 32;

/// Positions of the tail that are cut at.
const TAIL_BYTES: u64 = 65_536;

/// Messages before the first checkpoint, between the two, and behind them; the last ones take more than [`TAIL_BYTES`].
const BEFORE: u64 = 100;
const BETWEEN: u64 = 20;
const BEHIND: u64 = 280;

/// Every so many messages an older one is acknowledged.
const ACK_EACH: u64 = 10;

/// Letters of a message.
const PAYLOAD: usize = 200;

/// The subscription of the ingress topic.
const SUBSCRIPTION: &str = "start";

/// A journal as it was before it was damaged, and what lies where.
struct Pristine {
    files: BTreeMap<String, Vec<u8>>,
    /// The segment that holds the tail.
    tail: String,
    /// Where the records end that published or acknowledged a message.
    published: BTreeMap<u64, u64>,
    acked: BTreeMap<u64, u64>,
}

/// What is there after damage.
enum Found {
    /// The broker does not open.
    Refused,
    Opened {
        present: BTreeSet<u64>,
        /// Read back with an error.
        unreadable: u64,
        /// Not what was sent.
        wrong: u64,
        /// Records that recovery tells of: cut off, or damaged.
        told: u64,
    },
}

/// What was found, added up.
#[derive(Default)]
struct Tally {
    tried: u64,
    refused: u64,
    whole: u64,
    told: u64,
    unreadable: u64,
    wrong: u64,
    missing: u64,
    again: u64,
    silent: u64,
    spread: u64,
}

/// What must be there after damage, and what may be.
struct Wanted {
    must: BTreeSet<u64>,
    may: BTreeSet<u64>,
}

impl Tally {
    fn add(&mut self, found: &Found, wanted: &Wanted) {
        self.tried += 1;
        match found {
            Found::Refused => self.refused += 1,
            Found::Opened { present, unreadable, wrong, told } => {
                let missing = wanted.must.difference(present).count() as u64;
                // Settled messages whose acknowledgement was lost.
                let again = present.difference(&wanted.may).count() as u64;
                self.wrong += wrong;
                self.whole += u64::from(missing + again == 0);
                self.told += u64::from(*told > 0);
                self.unreadable += unreadable;
                self.missing += missing;
                self.again += again;
                self.silent += (missing + again).saturating_sub(unreadable + told);
                self.spread += (missing + again).saturating_sub(1);
            }
        }
    }

    fn figures(&self) -> String {
        let Self { tried, refused, whole, told, unreadable, wrong, missing, again, silent, .. } = self;
        format!(
            "{tried} tried, {whole} opened with all that must be there, {told} told of records, {unreadable} messages told of as damaged, \
             {refused} refused to open, {wrong} wrong messages, {missing} missing, {again} settled ones came back, {silent} of these without a word"
        )
    }
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let memory = Memory::new("r04")?;
    let pristine = prepare(&memory.path().join("pristine")).await?;
    let (positions, flips) = setting.pick((300, 300), (TAIL_BYTES, 10_000));
    let trial = memory.path().join("trial");
    let mut random = Random::new(setting.seed, "R4");
    let (mut zeroed, mut cut, mut flipped, mut checkpoints) =
        (Tally::default(), Tally::default(), Tally::default(), Tally::default());
    let end = pristine.end();
    for number in 0..positions {
        let at =
            if positions == TAIL_BYTES { end - TAIL_BYTES + number } else { end - TAIL_BYTES + random.within(0..TAIL_BYTES) };
        let wanted = pristine.wanted_at(at);
        zeroed.add(&look(&pristine, &trial, |files| files[&pristine.tail][at as usize..].fill(0)).await?, &wanted);
        cut.add(&look(&pristine, &trial, |files| files[&pristine.tail].truncate(at as usize)).await?, &wanted);
    }
    let everything = pristine.wanted_at(u64::MAX);
    for _ in 0..flips {
        let names: Vec<&String> = pristine.files.keys().filter(|name| *name != "lock").collect();
        let name = names[random.within(0..names.len() as u64) as usize];
        let bit = random.within(0..pristine.used(name) * 8);
        let found = look(&pristine, &trial, |files| files[name][(bit / 8) as usize] ^= 1 << (bit % 8)).await?;
        let tally = if name.starts_with("checkpoint") { &mut checkpoints } else { &mut flipped };
        tally.add(&found, &everything);
    }
    Ok(judge(
        &[("zeros from a byte on", zeroed), ("cut off at a byte", cut), ("a bit flipped in a segment", flipped)],
        &checkpoints,
    ))
}

fn judge(tallies: &[(&str, Tally)], checkpoints: &Tally) -> Finding {
    let mut finding = Finding::default();
    let all = tallies.iter().map(|(what, tally)| (*what, tally)).chain([("a bit flipped in a checkpoint", checkpoints)]);
    for (what, tally) in all {
        if !finding.seen.is_empty() {
            finding.seen += "; ";
        }
        finding.seen += &format!("{what}: {}", tally.figures());
        finding.require(tally.tried > 0, || format!("{what}: nothing was tried"));
        finding.require(tally.wrong == 0, || format!("{what}: {} wrong messages", tally.wrong));
        let (missing, silent, spread) = (tally.missing + tally.again, tally.silent, tally.spread);
        finding.require(silent == 0, || format!("{what}: {silent} messages are missing or came back without a word"));
        // A bit costs its own record; what lies before a cut is whole.
        let limited = if what.contains("bit") { spread == 0 } else { missing == 0 };
        finding.require(limited, || format!("{what}: {missing} messages are missing or came back, more than was damaged"));
        let (refused, tried) = (tally.refused, tally.tried);
        finding.require(refused == 0, || {
            format!("{what}: {refused} of {tried} keep the whole journal shut, not only the damaged record")
        });
    }
    let lost = checkpoints.tried - checkpoints.whole - checkpoints.refused;
    finding.require(lost == 0, || format!("{lost} damaged checkpoints have lost something"));
    finding
}

fn options(folder: &Path) -> EmbeddedOptions {
    // Checkpoints are only made when they are asked for.
    EmbeddedOptions { segment_bytes: SEGMENT_BYTES, checkpoint_bytes: 1 << 30, ..EmbeddedOptions::new(folder) }
}

/// Makes a journal with two checkpoints and a tail of many single records.
async fn prepare(folder: &Path) -> Result<Pristine> {
    let broker = Embedded::open(options(folder))?;
    topics::create(&broker, &TopologyRef::from(&TOPOLOGY)).await?;
    let mut pristine =
        Pristine { files: BTreeMap::new(), tail: String::new(), published: BTreeMap::new(), acked: BTreeMap::new() };
    for sequence in 1..=BEFORE + BETWEEN + BEHIND {
        publish(&broker, sequence).await?;
        pristine.published.insert(sequence, end_of(&folder.join(tail_name(folder)?))?);
        if sequence.is_multiple_of(ACK_EACH) {
            acknowledge(&broker, sequence / ACK_EACH).await?;
            pristine.acked.insert(sequence / ACK_EACH, end_of(&folder.join(tail_name(folder)?))?);
        }
        if sequence == BEFORE || sequence == BEFORE + BETWEEN {
            broker.checkpoint().await?;
        }
    }
    pristine.tail = tail_name(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            pristine.files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(pristine)
}

async fn publish(broker: &Embedded, sequence: u64) -> Result<()> {
    let id = MessageId(u128::from(sequence));
    let payload = serde_json::to_vec(&Parcel::new(sequence, PAYLOAD))?.into();
    let message = Message { id, root: id, created_ms: log::now_ms(), codec: Codec::Json, payload, ..Message::default() };
    broker.publish(vec![Publish { topic: INGRESS.into(), message: message.into(), sequence: None }]).await?;
    Ok(())
}

/// Positions are one behind the numbers of the messages.
async fn acknowledge(broker: &Embedded, sequence: u64) -> Result<()> {
    let ack =
        Ack { topic: INGRESS.into(), subscription: SUBSCRIPTION.into(), position: Position(sequence - 1), cumulative: false };
    Ok(broker.commit(Step { acks: vec![ack], ..Step::default() }).await?)
}

/// The segment with the highest number.
fn tail_name(folder: &Path) -> Result<String> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("segment-")).max().context("a journal has a segment")
}

/// Where the last record of a segment ends: records begin at multiples of eight, and behind the last one there are zeros.
fn end_of(path: &Path) -> Result<u64> {
    Ok(used(&fs::read(path)?[..(SEGMENT_BYTES - COPY_BYTES) as usize]))
}

fn used(bytes: &[u8]) -> u64 {
    let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (last as u64).next_multiple_of(8).min(bytes.len() as u64)
}

impl Pristine {
    fn end(&self) -> u64 {
        used(&self.files[&self.tail][..(SEGMENT_BYTES - COPY_BYTES) as usize])
    }

    fn used(&self, name: &str) -> u64 {
        used(&self.files[name]).max(1)
    }

    /// What must and may be there, and is not settled, if everything up to this byte of the tail is whole.
    fn wanted_at(&self, byte: u64) -> Wanted {
        // A record ends where it was seen to end, or a little before.
        let (whole, begun) = (|end: &u64| *end <= byte, |end: &u64| end.saturating_sub(IDLE_BYTES) <= byte);
        let unsettled = |there: &dyn Fn(&u64) -> bool, settled: &dyn Fn(&u64) -> bool| {
            let published = self.published.iter().filter(|(_, end)| there(end)).map(|(sequence, _)| *sequence);
            published.filter(|sequence| !self.acked.get(sequence).is_some_and(settled)).collect()
        };
        Wanted { must: unsettled(&whole, &begun), may: unsettled(&begun, &whole) }
    }
}

/// Damages a copy and looks at what is there.
async fn look(pristine: &Pristine, trial: &Path, damage: impl FnOnce(&mut Files)) -> Result<Found> {
    let mut files = Files(pristine.files.clone());
    damage(&mut files);
    if trial.exists() {
        fs::remove_dir_all(trial)?;
    }
    fs::create_dir_all(trial)?;
    for (name, bytes) in &files.0 {
        fs::write(trial.join(name), bytes)?;
    }
    let Ok(broker) = Embedded::open(options(trial)) else { return Ok(Found::Refused) };
    let told = u64::from(broker.recovered().torn.is_some()) + broker.recovered().lost;
    let (mut present, mut unreadable, mut wrong) = (BTreeSet::new(), 0, 0);
    let mut take = |position: Position, message: &Message| {
        let whole = serde_json::from_slice::<Parcel>(&message.payload).is_ok_and(|parcel| {
            parcel.is_whole() && parcel.sequence == position.0 + 1 && u128::from(parcel.sequence) == message.id.0
        });
        wrong += u64::from(!whole);
        present.insert(position.0 + 1);
    };
    match broker.peek(INGRESS, SUBSCRIPTION, Position(0), usize::MAX).await {
        Ok(messages) => messages.iter().for_each(|(position, message)| take(*position, message)),
        // One of them is damaged: each for itself then.
        Err(_) => {
            let mut from = 0;
            while from < BEFORE + BETWEEN + BEHIND {
                match broker.peek(INGRESS, SUBSCRIPTION, Position(from), 1).await {
                    Ok(messages) => match messages.first() {
                        Some((position, message)) => {
                            take(*position, message);
                            from = position.0 + 1;
                        }
                        None => break,
                    },
                    Err(_) => {
                        unreadable += 1;
                        from += 1;
                    }
                }
            }
        }
    }
    Ok(Found::Opened { present, unreadable, wrong, told })
}

/// The files of a journal, to be damaged by name.
struct Files(BTreeMap<String, Vec<u8>>);

impl std::ops::Index<&String> for Files {
    type Output = Vec<u8>;

    fn index(&self, name: &String) -> &Vec<u8> {
        &self.0[name]
    }
}

impl std::ops::IndexMut<&String> for Files {
    fn index_mut(&mut self, name: &String) -> &mut Vec<u8> {
        self.0.entry(name.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_without_a_word_or_too_much_is_an_objection() {
        let wanted = Wanted { must: (1..=5).collect(), may: (1..=6).collect() };
        let objections = |what: &str, present: &[u64], unreadable, wrong, told| {
            let mut tally = Tally::default();
            let present = present.iter().copied().collect();
            tally.add(&Found::Opened { present, unreadable, wrong, told }, &wanted);
            judge(&[(what, tally)], &Tally { tried: 1, whole: 1, ..Tally::default() }).objections.len()
        };
        for (present, unreadable, wrong, told, by_a_bit, by_a_cut) in [
            (&[1, 2, 3, 4, 5][..], 0, 0, 0, 0, 0),
            (&[1, 2, 3, 4, 5, 6], 0, 0, 0, 0, 0),
            (&[1, 2, 4, 5], 1, 0, 0, 0, 1),
            (&[1, 2, 3, 4], 0, 0, 1, 0, 1),
            (&[1, 2, 4, 5], 0, 0, 0, 1, 2),
            (&[1, 2], 0, 0, 3, 1, 1),
            (&[1, 2, 3, 4, 5, 9], 0, 0, 0, 1, 2),
            (&[1, 2, 3, 4, 5], 0, 1, 0, 1, 1),
        ] {
            assert_eq!(objections("a bit", present, unreadable, wrong, told), by_a_bit, "{present:?}");
            assert_eq!(objections("a cut", present, unreadable, wrong, told), by_a_cut, "{present:?}");
        }
        let mut refused = Tally::default();
        refused.add(&Found::Refused, &wanted);
        assert_eq!(judge(&[("x", refused)], &Tally { tried: 1, whole: 1, ..Tally::default() }).objections.len(), 1);
    }
}
