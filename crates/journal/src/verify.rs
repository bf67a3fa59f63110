//! Reads a whole journal, changes nothing, and says what is there and what is damaged.

use crate::{
    FileSystem, JournalError, Lost, Position, Record, Visitor,
    format::SEGMENT_HEADER_BYTES,
    recovery::{CHECKPOINTS, Checkpoints, open_segments, read_all},
    scan::{End, Scan},
    segment::{Segment, segment_name},
};
use std::collections::BTreeMap;

/// What a journal holds, and what of it is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that hold records.
    pub segments: u64,
    /// Files that are ready to become segments. They hold nothing that could be damaged.
    pub spares: u64,
    /// Whole checkpoints.
    pub checkpoints: u64,
    /// Whole records, but for those that hold nothing.
    pub records: u64,
    /// Bytes of their bodies.
    pub record_bytes: u64,
    /// Bytes of all files of the journal.
    pub file_bytes: u64,
    /// The sequence of the last record.
    pub last_sequence: u64,
    /// Where a crash has interrupted a record at the end. It is no damage: nothing says that it had been durable.
    pub torn: Option<(String, u64)>,
    /// What is damaged, in the order of the segments.
    pub damages: Vec<Damage>,
}

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// The sequences of the first and the last record that are lost, as far as they are known; `None` if no record is.
    pub lost: Option<(u64, Option<u64>)>,
    /// What is wrong.
    pub reason: String,
}

/// Checks every record, the headers of every segment, and both checkpoints. It only reads, so nobody may be writing.
///
/// # Errors
/// [`JournalError::Io`] if the directory or a file cannot be opened. That something in a file cannot be read is damage, and reported.
pub fn verify(fs: &dyn FileSystem) -> Result<Report, JournalError> {
    let names = fs.list().map_err(JournalError::io("listing", "."))?;
    let checkpoints = Checkpoints::read(fs, &names, true)?;
    let segments = open_segments(fs, &names, true)?;
    let mut report = Report { checkpoints: checkpoints.whole.len() as u64, ..Report::default() };
    for (name, flaw) in CHECKPOINTS.iter().zip(&checkpoints.flaws) {
        let reason = flaw.clone();
        report.damages.extend(reason.map(|reason| Damage { file: (*name).to_owned(), offset: 0, lost: None, reason }));
    }
    for name in &names {
        let is_spare = name.starts_with("spare-");
        report.spares += u64::from(is_spare);
        if is_spare || name.starts_with("segment-") || CHECKPOINTS.contains(&name.as_str()) {
            let file = fs.open_to_read(name).map_err(JournalError::io("opening", name))?;
            report.file_bytes += file.size().map_err(JournalError::io("looking at", name))?;
        }
    }
    let newest = checkpoints.newest().map(|checkpoint| checkpoint.header);
    let known = newest.map(|header| (header.segment_bytes, header.salt));
    let any = segments.values().find_map(|segment| segment.header).map(|header| (header.segment_bytes, header.salt));
    let Some((segment_bytes, salt)) = known.or(any) else {
        // A first segment whose making was interrupted holds zeros.
        let written = |segment: &&Segment| read_all(&*segment.file).map_or(true, |bytes| bytes.iter().any(|byte| *byte != 0));
        report.damages.extend(segments.values().filter(written).map(|segment| headerless(segment.number)));
        return Ok(report);
    };
    if newest.is_none() && !segments.contains_key(&0) {
        let reason = "there is no whole checkpoint, and the segments do not reach back to the first record".to_owned();
        report.damages.push(Damage { file: CHECKPOINTS[0].to_owned(), offset: 0, lost: None, reason });
    }
    let position = newest.map(|header| header.position);
    Check { segments: &segments, segment_bytes, salt, position, report: &mut report }.run()?;
    Ok(report)
}

fn headerless(number: u64) -> Damage {
    let reason = "its header is damaged, and nothing else tells what the segment holds".to_owned();
    Damage { file: segment_name(number), offset: 0, lost: None, reason }
}

struct Check<'a> {
    segments: &'a BTreeMap<u64, Segment>,
    segment_bytes: u64,
    salt: u64,
    /// Where the newest checkpoint stands.
    position: Option<Position>,
    report: &'a mut Report,
}

impl Check<'_> {
    /// Walks through each run of segments that follow each other: between them some have been let go of.
    fn run(&mut self) -> Result<(), JournalError> {
        let needed = self.position.map_or(0, |position| position.address / self.segment_bytes);
        let starts: Vec<u64> = self.segments.keys().copied().filter(|number| self.is_start(*number, needed)).collect();
        for (index, start) in starts.iter().enumerate() {
            let next = starts.get(index + 1).copied();
            let run: BTreeMap<u64, Segment> = self
                .segments
                .range(*start..next.unwrap_or(u64::MAX))
                .map(|(number, segment)| (*number, segment.clone()))
                .collect();
            self.walk(*start, &run, next.is_none())?;
        }
        if self.segments.range(needed..).next().is_none() {
            let reason = "there is no such file, and records should follow the checkpoint there".to_owned();
            self.report.damages.push(Damage { file: segment_name(needed), offset: 0, lost: None, reason });
        }
        Ok(())
    }

    /// What is missing from the checkpoint on is damage, and the walk tells it.
    fn is_start(&self, number: u64, needed: u64) -> bool {
        let before = number.checked_sub(1).is_some_and(|before| self.segments.contains_key(&before));
        let first = self.segments.keys().next() == Some(&number);
        first || (!before && number <= needed)
    }

    fn walk(&mut self, start: u64, run: &BTreeMap<u64, Segment>, last: bool) -> Result<(), JournalError> {
        let Some(position) = self.first(&run[&start]) else {
            match run[&start].recycled {
                true => self.report.spares += 1,
                false => self.report.damages.push(headerless(start)),
            }
            return Ok(());
        };
        let scan = Scan::new(run, self.segment_bytes, self.salt, position, true);
        let End { position, walked, .. } = match scan.run(&mut Counting(self.report)) {
            Ok(end) => end,
            Err(JournalError::Damaged { file, offset, reason }) => {
                self.report.damages.push(Damage { file, offset, lost: None, reason });
                return Ok(());
            }
            Err(JournalError::Io { action: "reading", file, error }) => {
                let reason = format!("cannot be read: {error}");
                self.report.damages.push(Damage { file, offset: 0, lost: None, reason });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let end = position.address / self.segment_bytes;
        for segment in run.values().filter(|segment| segment.number <= end) {
            self.report.segments += 1;
            self.headers(segment);
        }
        let hollow = walked.hollow.into_iter();
        self.report.damages.extend(hollow.map(|(file, offset)| {
            let reason = "a record that held nothing is damaged".to_owned();
            Damage { file, offset, lost: None, reason }
        }));
        self.report.spares += run.keys().filter(|number| **number > end).count() as u64;
        self.report.last_sequence = self.report.last_sequence.max(position.sequence - 1);
        match (walked.torn, last) {
            // A segment that was left for the next is never torn.
            (Some((file, offset)), false) => {
                let reason = format!("record {} is damaged", position.sequence);
                self.report.damages.push(Damage { file, offset, lost: Some((position.sequence, None)), reason });
            }
            (torn, _) => self.report.torn = torn,
        }
        if last && self.position.is_some_and(|checkpoint| checkpoint.address > position.address) {
            let reason = "the records end here, and the checkpoint is of later ones".to_owned();
            let (file, offset) = (segment_name(end), position.address % self.segment_bytes);
            self.report.damages.push(Damage { file, offset, lost: Some((position.sequence, None)), reason });
        }
        Ok(())
    }

    /// Where the records of a segment begin: without a header, at the first whole one.
    fn first(&self, segment: &Segment) -> Option<Position> {
        let address = segment.number * self.segment_bytes + SEGMENT_HEADER_BYTES;
        if let Some(header) = segment.header {
            return Some(Position { address, sequence: header.first_sequence, epoch: header.epoch });
        }
        let content = segment.read(self.segment_bytes, self.salt);
        let any = Position { address: 0, sequence: 1, epoch: 0 };
        let (offset, header) = content.later(SEGMENT_HEADER_BYTES, any).next()?;
        Some(Position { address: content.address(offset), sequence: header.expected(), epoch: header.epoch })
    }

    fn headers(&mut self, segment: &Segment) {
        let file = segment_name(segment.number);
        if segment.size != self.segment_bytes {
            let reason = format!("it has {} bytes and should have {}", segment.size, self.segment_bytes);
            self.report.damages.push(Damage { file, offset: segment.size, lost: None, reason });
            return;
        }
        let places = [0, crate::format::records_end(self.segment_bytes)];
        for (offset, flaw) in places.into_iter().zip(&segment.flaws) {
            let reason = flaw.clone();
            self.report.damages.extend(reason.map(|reason| Damage { file: file.clone(), offset, lost: None, reason }));
        }
    }
}

/// Counts what is whole, and notes what is not.
struct Counting<'a>(&'a mut Report);

impl Visitor for Counting<'_> {
    fn snapshot(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        self.0.records += 1;
        self.0.record_bytes += record.body.len() as u64;
        Ok(())
    }

    fn lost(&mut self, lost: Lost) -> Result<(), String> {
        let Lost { first, last, file, offset, reason, .. } = lost;
        self.0.damages.push(Damage { file, offset, lost: Some((first, last)), reason });
        Ok(())
    }
}
