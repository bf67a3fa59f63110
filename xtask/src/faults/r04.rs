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
        /// Recovery tells of a record that was cut off.
        torn: bool,
    },
}

/// What was found, added up.
#[derive(Default)]
struct Tally {
    tried: u64,
    refused: u64,
    whole: u64,
    torn: u64,
    unreadable: u64,
    wrong: u64,
    silent: u64,
}

impl Tally {
    fn add(&mut self, found: &Found, wanted: &BTreeSet<u64>) {
        self.tried += 1;
        match found {
            Found::Refused => self.refused += 1,
            Found::Opened { present, unreadable, wrong, torn } => {
                let missing = wanted.difference(present).count() as u64;
                self.wrong += wrong + present.difference(wanted).count() as u64;
                self.whole += u64::from(missing == 0);
                self.torn += u64::from(*torn);
                self.unreadable += unreadable;
                // One record may be told of as torn; whatever else is missing must be told of as unreadable.
                self.silent += missing.saturating_sub(unreadable + u64::from(*torn));
            }
        }
    }

    fn figures(&self) -> String {
        let Self { tried, refused, whole, torn, unreadable, wrong, silent } = self;
        format!(
            "{tried} tried, {whole} opened with all that must be there, {torn} told of a torn record, {unreadable} messages told of as damaged, \
             {refused} refused to open, {wrong} wrong messages, {silent} silently missing"
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
        let wanted = pristine.unsettled_at(at);
        zeroed.add(&look(&pristine, &trial, |files| files[&pristine.tail][at as usize..].fill(0)).await?, &wanted);
        cut.add(&look(&pristine, &trial, |files| files[&pristine.tail].truncate(at as usize)).await?, &wanted);
    }
    let everything = pristine.unsettled_at(u64::MAX);
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
        finding.require(tally.silent == 0, || format!("{what}: {} messages are silently missing", tally.silent));
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
    Ok(used(&fs::read(path)?))
}

fn used(bytes: &[u8]) -> u64 {
    let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (last as u64).next_multiple_of(8).min(bytes.len() as u64)
}

impl Pristine {
    fn end(&self) -> u64 {
        self.used(&self.tail)
    }

    fn used(&self, name: &str) -> u64 {
        used(&self.files[name]).max(1)
    }

    /// The messages that must be there, and are not settled, if everything up to this byte of the tail is whole.
    fn unsettled_at(&self, byte: u64) -> BTreeSet<u64> {
        let settled = |sequence: &u64| self.acked.get(sequence).is_some_and(|end| *end <= byte);
        let there = self.published.iter().filter(|(_, end)| **end <= byte).map(|(sequence, _)| *sequence);
        there.filter(|sequence| !settled(sequence)).collect()
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
    let torn = broker.recovered().torn.is_some();
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
    Ok(Found::Opened { present, unreadable, wrong, torn })
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
    fn what_is_missing_without_a_word_is_an_objection() {
        let wanted: BTreeSet<u64> = (1..=5).collect();
        let found = |present: &[u64], unreadable, wrong, torn| {
            let mut tally = Tally::default();
            tally.add(&Found::Opened { present: present.iter().copied().collect(), unreadable, wrong, torn }, &wanted);
            (tally.silent, tally.wrong)
        };
        assert_eq!(found(&[1, 2, 3, 4, 5], 0, 0, false), (0, 0));
        assert_eq!(found(&[1, 2, 4, 5], 1, 0, false), (0, 0));
        assert_eq!(found(&[1, 2, 3, 4], 0, 0, true), (0, 0));
        assert_eq!(found(&[1, 2, 4, 5], 0, 0, false), (1, 0));
        assert_eq!(found(&[1, 2], 0, 0, true), (2, 0));
        assert_eq!(found(&[1, 2, 3, 4, 5, 9], 0, 0, false), (0, 1));
        let mut refused = Tally::default();
        refused.add(&Found::Refused, &wanted);
        assert_eq!(judge(&[("x", refused)], &Tally::default()).objections.len(), 2);
    }
}
