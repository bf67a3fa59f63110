//! What is written to a state topic, and what comes of reading it.

use super::{super::limits::SETTLED_TIME, runs::Runs};
use bytes::Bytes;
use leatworks_broker::Message;
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::time::Instant;

/// The most bytes of a record in one message: a record may be larger than any message.
pub(super) const PART_BYTES_MAX: usize = 1 << 20;

/// What is written anew when the log has so many times its bytes, and so many bytes at least: then it costs a quarter of what is written, and
/// opening reads five times of what counts at most.
const LOG_TIMES_MAX: usize = 4;
/// See [`LOG_TIMES_MAX`]. Reading a mebibyte takes some milliseconds.
const LOG_BYTES_MIN: usize = 1 << 20;

/// A piece of a record.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Part {
    /// Who writes, and the how many'th part of it this is: what comes a second time over a new connection is passed over.
    #[prost(fixed64, tag = "1")]
    pub(super) writer: u64,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) bytes: Bytes,
    /// Whether the record goes on in the next part.
    #[prost(bool, tag = "4")]
    pub(super) more: bool,
    /// Whether it has begun in the part before. A writer that could not write all of a record begins the next one anew.
    #[prost(bool, tag = "5")]
    pub(super) goes_on: bool,
}

/// One step's writes, or all that is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// What was written before is of no more use: all of it that counts is here.
    #[prost(bool, tag = "1")]
    pub(super) snapshot: bool,
    #[prost(message, repeated, tag = "2")]
    pub(super) writes: Vec<Write>,
    /// Inputs that are settled with it.
    #[prost(message, repeated, tag = "3")]
    pub(super) settled: Vec<Inputs>,
    /// Subscriptions of which nothing is settled any more: they were moved, or removed.
    #[prost(message, repeated, tag = "4")]
    pub(super) moved: Vec<Inputs>,
}

/// The value of a key; without one it is removed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Write {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
}

/// Inputs of one subscription, by their positions.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Inputs {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(string, tag = "2")]
    pub(super) subscription: String,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) positions: Vec<u64>,
    /// Where they lie, if that is in the retry topic and not where they stood first.
    #[prost(uint64, repeated, tag = "4")]
    pub(super) copies: Vec<u64>,
}

impl Inputs {
    fn is_of(&self, other: &Self) -> bool {
        self.topic == other.topic && self.subscription == other.subscription
    }
}

/// Inputs that were settled together.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) inputs: Inputs,
    /// Since when the service is known to have their acknowledgement.
    pub(super) told: Option<Instant>,
    pub(super) number: u64,
}

impl Settled {
    /// The service writes acknowledgements down about once a second, so until then they may be lost with it.
    pub(super) fn is_kept(&self) -> bool {
        self.told.is_none_or(|told| told.elapsed() < SETTLED_TIME)
    }
}

/// What a state topic says.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) values: BTreeMap<String, Bytes>,
    pub(super) settled: Vec<Settled>,
    next: u64,
    /// How far each writer was read, and the record of which not all parts have come.
    writers: HashMap<u64, u64>,
    partial: Option<(u64, Vec<u8>)>,
    /// Bytes of what was written since the last snapshot.
    pub(super) log_bytes: usize,
}

impl Kept {
    /// A message of the topic. What cannot be read is an error: to go on without it would take an old state for the newest.
    pub(super) fn read(&mut self, message: &Message) -> Result<(), prost::DecodeError> {
        let part = Part::decode(message.payload.clone())?;
        let read = self.writers.entry(part.writer).or_default();
        if part.number <= *read {
            return Ok(());
        }
        *read = part.number;
        // What was left unfinished has not happened.
        let begun = self.partial.take().filter(|(writer, _)| *writer == part.writer && part.goes_on);
        let mut bytes = match begun {
            Some((_, bytes)) => bytes,
            None if part.goes_on => return Ok(()),
            None => Vec::new(),
        };
        bytes.extend_from_slice(&part.bytes);
        if part.more {
            self.partial = Some((part.writer, bytes));
            return Ok(());
        }
        let length = bytes.len();
        self.apply(Record::decode(Bytes::from(bytes))?, length);
        Ok(())
    }

    /// Takes a whole record in. Gives the number by which its settled inputs are known.
    pub(super) fn apply(&mut self, record: Record, bytes: usize) -> u64 {
        if record.snapshot {
            self.values.clear();
            self.settled.clear();
            self.log_bytes = 0;
        } else {
            self.log_bytes += bytes;
        }
        for Write { key, value } in record.writes {
            match value {
                Some(value) => drop(self.values.insert(key, value)),
                None => drop(self.values.remove(&key)),
            }
        }
        for moved in &record.moved {
            self.settled.retain(|settled| !settled.inputs.is_of(moved));
        }
        self.next += 1;
        let number = self.next;
        self.settled.extend(record.settled.into_iter().map(|inputs| Settled { inputs, told: None, number }));
        number
    }

    /// All that counts, as one record.
    pub(super) fn snapshot(&self) -> Record {
        Record {
            snapshot: true,
            writes: (self.values.iter()).map(|(key, value)| Write { key: key.clone(), value: Some(value.clone()) }).collect(),
            settled: self.settled.iter().map(|settled| settled.inputs.clone()).collect(),
            moved: Vec::new(),
        }
    }

    /// Whether so much was written since the last snapshot that another is due.
    pub(super) fn is_long(&self) -> bool {
        self.log_bytes > LOG_BYTES_MIN && self.log_bytes > LOG_BYTES_MIN + LOG_TIMES_MAX * self.bytes()
    }

    /// The bytes of a snapshot, about.
    fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(|(key, value)| key.len() + value.len()).sum();
        let kept = self.settled.iter().filter(|settled| settled.is_kept());
        values + kept.map(|settled| 4 * settled.inputs.positions.len() + 64).sum::<usize>()
    }

    /// Lets go of inputs that will not come again.
    pub(super) fn let_go(&mut self) {
        self.settled.retain(Settled::is_kept);
    }

    /// The positions that are settled, by topic and subscription.
    pub(super) fn all_settled(&self) -> BTreeMap<(&str, &str), Runs> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Settled { inputs, .. } in &self.settled {
            let of: &mut Vec<_> = all.entry((inputs.topic.as_str(), inputs.subscription.as_str())).or_default();
            of.extend(Runs::from_numbers(&inputs.positions).positions());
        }
        all.into_iter().map(|(of, positions)| (of, Runs::of(positions))).collect()
    }
}

/// A record as messages.
pub(super) fn parts(record: &Record, writer: u64, number: &mut u64, now_ms: u64) -> Vec<Arc<Message>> {
    let bytes = Bytes::from(record.encode_to_vec());
    let count = bytes.len().div_ceil(PART_BYTES_MAX).max(1);
    let part = |index: usize| {
        *number += 1;
        let range = index * PART_BYTES_MAX..bytes.len().min((index + 1) * PART_BYTES_MAX);
        let (more, goes_on) = (index + 1 < count, index > 0);
        let part = Part { writer, number: *number, bytes: bytes.slice(range), more, goes_on };
        let payload = part.encode_to_vec().into();
        Arc::new(Message { id: leatworks_broker::MessageId(1), created_ms: now_ms, payload, ..Message::default() })
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leatworks_broker::Position;

    fn write(key: &str, value: Option<&[u8]>) -> Write {
        Write { key: key.to_owned(), value: value.map(Bytes::copy_from_slice) }
    }

    fn inputs(subscription: &str, positions: &[u64]) -> Inputs {
        let positions = Runs::of(positions.iter().copied().map(Position)).numbers();
        Inputs { topic: "t".to_owned(), subscription: subscription.to_owned(), positions, copies: Vec::new() }
    }

    fn read(messages: &[Arc<Message>]) -> Kept {
        let mut kept = Kept::default();
        messages.iter().for_each(|message| kept.read(message).unwrap());
        kept
    }

    /// Keys with the bytes of their values, and subscriptions with what is settled of them.
    type Told = (Vec<(String, usize)>, Vec<(String, Vec<u64>)>);

    fn told(kept: &Kept) -> Told {
        let values = kept.values.iter().map(|(key, value)| (key.clone(), value.len())).collect();
        let settled = kept.all_settled().into_iter();
        let settled = settled.map(|((_, of), runs)| (of.to_owned(), runs.positions().map(|position| position.0).collect()));
        (values, settled.collect())
    }

    #[test]
    fn a_log_is_read_as_it_was_written_also_with_parts_that_come_twice() {
        let large = vec![7; PART_BYTES_MAX * 2 + 5];
        let records = [
            Record { writes: vec![write("a", Some(b"1")), write("b", Some(&large))], ..Record::default() },
            Record {
                writes: vec![write("a", None)],
                settled: vec![inputs("s", &[1, 2]), inputs("r", &[9])],
                ..Record::default()
            },
            Record { settled: vec![inputs("s", &[3])], writes: vec![write("c", Some(b""))], ..Record::default() },
        ];
        let mut number = 0;
        let log: Vec<_> = records.iter().flat_map(|record| parts(record, 5, &mut number, 0)).collect();
        assert_eq!(log.len(), 5);
        let expected = (
            vec![("b".to_owned(), large.len()), ("c".to_owned(), 0)],
            vec![("r".to_owned(), vec![9]), ("s".to_owned(), vec![1, 2, 3])],
        );
        assert_eq!(told(&read(&log)), expected);
        for again in 0..log.len() {
            let twice = [&log[..=again], &log[again.saturating_sub(2)..]].concat();
            assert_eq!(told(&read(&twice)), expected, "sent again from {again}");
        }
        let moved = Record { moved: vec![inputs("s", &[])], ..Record::default() };
        let moved = read(&[log, parts(&moved, 5, &mut number, 0)].concat());
        assert_eq!(told(&moved).1, [("r".to_owned(), vec![9])]);
    }

    #[test]
    fn what_was_not_written_to_its_end_has_not_happened() {
        let large = vec![7; PART_BYTES_MAX + 1];
        let torn = parts(&Record { writes: vec![write("a", Some(&large))], ..Record::default() }, 5, &mut 0, 0);
        let next = parts(&Record { writes: vec![write("b", Some(b"2"))], ..Record::default() }, 6, &mut 0, 0);
        assert_eq!(told(&read(&torn[..1])).0, []);
        assert_eq!(told(&read(&[&torn[..1], &next[..]].concat())).0, [("b".to_owned(), 1)]);
        let same = parts(&Record { writes: vec![write("c", Some(b"33"))], ..Record::default() }, 5, &mut 2, 0);
        assert_eq!(told(&read(&[&torn[..1], &same[..]].concat())).0, [("c".to_owned(), 2)], "its writer has begun anew");
        assert_eq!(told(&read(&torn[1..])).0, [], "its beginning is gone");
        let mut kept = Kept::default();
        assert!(kept.read(&Message { payload: Bytes::from_static(&[0xff]), ..Message::default() }).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_steps_are_due_to_be_written_anew() {
        let mut kept = Kept::default();
        let step = |kept: &mut Kept, number: u64, told: bool| {
            let record =
                Record { writes: vec![write("a", Some(b"1"))], settled: vec![inputs("s", &[number])], ..Record::default() };
            let bytes = record.encoded_len();
            kept.apply(record, bytes);
            let now = told.then(Instant::now);
            kept.settled.last_mut().into_iter().for_each(|settled| settled.told = now);
        };
        (0..100_000).for_each(|number| step(&mut kept, number, true));
        assert!(!kept.is_long(), "what was acknowledged just now is kept");
        tokio::time::advance(SETTLED_TIME).await;
        step(&mut kept, 100_000, false);
        assert!(kept.is_long());
        kept.let_go();
        assert_eq!(kept.settled.len(), 1, "what is not known to be acknowledged is kept");
    }

    #[test]
    fn a_snapshot_says_all_that_the_log_says() {
        let mut kept = Kept::default();
        let settled = vec![inputs("s", &[1, 2])];
        kept.apply(Record { writes: vec![write("a", Some(b"1")), write("b", Some(b"2"))], settled, ..Record::default() }, 100);
        kept.apply(Record { writes: vec![write("a", None)], ..Record::default() }, 10);
        assert_eq!(kept.log_bytes, 110);
        let again = read(&parts(&kept.snapshot(), 9, &mut 0, 0));
        assert_eq!((told(&again), again.log_bytes), (told(&kept), 0));
    }
}
