//! R12: one byte below each limit, at it, and one above: taken, taken, and refused with a typed error before anything is written.

use super::{
    Finding, Setting,
    workload::{INGRESS, NAME, TOPOLOGY},
};
use anyhow::{Context, Result};
use leatworks::topics::{self, TopologyRef};
use leatworks_broker::{
    Broker, BrokerError, Embedded, EmbeddedOptions, ErrorKind, Limits, Message, MessageId, Position, Publish, Step,
};
use std::{fs, path::Path};

/// The limits of the broker under test: small, so that each is reached quickly.
const MESSAGE_BYTES: usize = 64 << 10;
const BACKLOG: u64 = 50;
const SEGMENT_BYTES: u64 = 256 << 10;

/// The most bytes of a value of keyed state, as the contract says.
const STATE_BYTES: usize = 16 << 20;

/// The longest name, as the contract says.
const NAME_BYTES: usize = 255;

/// What a refused call may write all the same: wake-ups of other threads, and what they were doing just then.
const NOISE_BYTES: u64 = 4_096;

/// What is tried: a step, and how it must end.
struct Case {
    what: String,
    step: Step,
    wanted: Option<ErrorKind>,
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let mut finding = Finding::default();
    let mut right = 0;
    let cases = cases();
    let total = cases.len();
    for Case { what, step, wanted } in cases {
        match one(&setting.folder, step, wanted).await? {
            None => right += 1,
            Some(wrong) => finding.objections.push(format!("{what}: {wrong}")),
        }
    }
    finding.seen = format!(
        "{right} of {total} cases right: one message, a batch, the sum of a step's outputs, names, keyed state and backlog, each at its limit, one below and one \
         above; refused ones wrote nothing, changed nothing and held nobody up"
    );
    Ok(finding)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, step: Step, wanted: Option<ErrorKind>| cases.push(Case { what, step, wanted });
    for (more, wanted) in [(-1, None), (0, None), (1, Some(ErrorKind::TooLarge))] {
        let size = |limit: usize| limit.saturating_add_signed(more);
        let sent = |sizes: &[usize]| Step { publishes: sizes.iter().map(|size| publish(*size)).collect(), ..Step::default() };
        let at = format!("{more:+} of the limit");
        add(format!("a message at {at}"), sent(&[size(MESSAGE_BYTES)]), wanted);
        add(format!("a batch whose last message is at {at}"), sent(&[10, 10, size(MESSAGE_BYTES)]), wanted);
        let backlog = vec![10; size(BACKLOG as usize)];
        add(format!("a backlog at {at}"), sent(&backlog), wanted.map(|_| ErrorKind::Full));
        let name = "p".repeat(size(NAME_BYTES));
        let named = Publish { sequence: Some((name.into(), 1)), ..publish(10) };
        add(
            format!("a producer's name at {at}"),
            Step { publishes: vec![named], ..Step::default() },
            wanted.map(|_| ErrorKind::Invalid),
        );
    }
    // A step is one record and a record lies in one segment, so the exact limit of a sum depends on what is beside the payloads: half a segment must go, and
    // more than a whole one must not.
    let sum = |count: usize| Step { publishes: vec![MESSAGE_BYTES; count].into_iter().map(publish).collect(), ..Step::default() };
    add("outputs that fill half a segment".to_owned(), sum(2), None);
    add("outputs that are more than a segment".to_owned(), sum(5), Some(ErrorKind::TooLarge));
    let state = |bytes: usize| Step { state: vec![("key".to_owned(), Some(vec![7; bytes].into()))], ..Step::default() };
    add("keyed state above its limit".to_owned(), state(STATE_BYTES + 1), Some(ErrorKind::TooLarge));
    add("keyed state of half a segment".to_owned(), state(SEGMENT_BYTES as usize / 2), None);
    cases
}

fn publish(bytes: usize) -> Publish {
    let id = MessageId(u128::MAX);
    let message = Message { id, root: id, payload: vec![b'x'; bytes].into(), ..Message::default() };
    Publish { topic: INGRESS.into(), message: message.into(), sequence: None }
}

/// Tries one step on a new broker, and says what is wrong with how it ended.
async fn one(folder: &Path, mut step: Step, wanted: Option<ErrorKind>) -> Result<Option<String>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let mut limits = Limits { message_bytes_max: MESSAGE_BYTES, ..Limits::default() };
    limits.backlog_messages_max = BACKLOG;
    let broker = Embedded::open(EmbeddedOptions { limits, segment_bytes: SEGMENT_BYTES, ..EmbeddedOptions::new(folder) })?;
    topics::create(&broker, &TopologyRef::from(&TOPOLOGY)).await?;
    let published = step.publishes.len() as u64;
    for (number, publish) in (1..).zip(&mut step.publishes) {
        let message = Message { id: MessageId(number), root: MessageId(number), ..Message::clone(&publish.message) };
        publish.message = message.into();
    }
    let before = written()?;
    let result = broker.commit(step).await;
    let wrote = written()? - before;
    let there = broker.peek(INGRESS, "start", Position(0), usize::MAX).await?.len() as u64;
    let sent = broker.account(NAME).await?.sent;
    let kind = result.as_ref().err().map(BrokerError::kind);
    if kind != wanted {
        return Ok(Some(format!("{kind:?} where {wanted:?} is right")));
    }
    let kept = if wanted.is_none() { published } else { 0 };
    if (there, sent) != (kept, kept) {
        return Ok(Some(format!("{there} messages are there and {sent} are counted, where {kept} is right")));
    }
    if wanted.is_some() && wrote > NOISE_BYTES {
        return Ok(Some(format!("{wrote} bytes were written though it was refused")));
    }
    // Nobody waits behind what was refused.
    let behind = match wanted {
        Some(_) => broker.publish(vec![publish(10)]).await.err(),
        None => None,
    };
    broker.close().await?;
    Ok(behind.map(|error| format!("the next message was refused too: {error}")))
}

/// Bytes that this process has given to the system to write.
fn written() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("reading what was written")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.context("no count of what was written")?.parse()?)
}
