//! A walk over the records: what is whole is visited, what is damaged is told and left out, and what a crash has torn is where it ends.

use crate::{
    JournalError, Lost, Position, Record, Visitor,
    format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, record_bytes},
    planted::{self, Bug},
    segment::{Content, Segment, segment_name},
};
use std::collections::{BTreeMap, VecDeque};

/// Why a walk from the first record on ends where a file is missing: it may have been let go of, and then nothing is lost that a checkpoint would not have.
const MISSING: &str = "missing, and there is no whole checkpoint to say that it is not needed";

/// The walk.
pub(crate) struct Scan<'a> {
    segments: &'a BTreeMap<u64, Segment>,
    segment_bytes: u64,
    salt: u64,
    /// Where the next record is expected, its sequence, and the epoch of the one before.
    position: Position,
    /// Whether files that are missing may have been let go of: not if there is no checkpoint to say so.
    gaps: bool,
    proven: Proven,
    found: Walked,
}

/// What a walk has found.
#[derive(Default)]
pub(crate) struct Walked {
    pub(crate) records: u64,
    /// Records that are told as lost.
    pub(crate) lost: u64,
    /// The places of damaged records that held nothing.
    pub(crate) hollow: Vec<(String, u64)>,
    /// The place of a record that a crash has interrupted.
    pub(crate) torn: Option<(String, u64)>,
    /// Offsets, in the last segment, of whole records behind the end: never durable, and cut off.
    pub(crate) cut: Vec<u64>,
}

/// Where a walk has ended.
pub(crate) struct End {
    pub(crate) position: Position,
    /// The last segment's bytes.
    pub(crate) content: Content,
    /// From this offset on, what was accepted of the last segment may be in memory only.
    pub(crate) unproven: u64,
    /// Up to which record it was said that all had been durable, damaged ones too.
    pub(crate) synced: u64,
    pub(crate) walked: Walked,
}

/// What is known to be durable: the records themselves say it of those before them.
#[derive(Default)]
struct Proven {
    synced: u64,
    /// Later ones, by sequence and offset in the segment.
    unproven: VecDeque<(u64, u64)>,
}

impl Proven {
    fn add(&mut self, sequence: u64, synced: u64, offset: u64) {
        self.unproven.push_back((sequence, offset));
        self.synced = self.synced.max(synced);
        while self.unproven.front().is_some_and(|(sequence, _)| *sequence <= self.synced) {
            self.unproven.pop_front();
        }
    }
}

/// The next place at which there is something whole.
#[derive(Clone, Copy)]
struct Next {
    address: u64,
    sequence: u64,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        segments: &'a BTreeMap<u64, Segment>,
        segment_bytes: u64,
        salt: u64,
        position: Position,
        gaps: bool,
    ) -> Self {
        let (proven, found) = (Proven::default(), Walked::default());
        Self { segments, segment_bytes, salt, position, gaps, proven, found }
    }

    /// Walks to the end.
    pub(crate) fn run(mut self, visitor: &mut dyn Visitor) -> Result<End, JournalError> {
        loop {
            let number = self.position.address / self.segment_bytes;
            let content = self.content(number)?;
            self.records_of(&content, visitor)?;
            let Some(next) = self.next(&content)? else {
                self.end(&content, visitor)?;
                let offset = self.position.address % self.segment_bytes;
                let unproven = self.proven.unproven.front().map_or(offset, |(_, offset)| *offset);
                let synced = self.proven.synced.min(self.position.sequence - 1);
                return Ok(End { position: self.position, content, unproven, synced, walked: self.found });
            };
            let skipped = number + 1..next.address / self.segment_bytes;
            if let Some(missing) = skipped.into_iter().find(|number| !self.gaps && !self.segments.contains_key(number)) {
                return Err(JournalError::damaged(segment_name(missing), 0, MISSING));
            }
            if next.sequence > self.position.sequence {
                self.tell(&content, next, visitor)?;
            }
            if next.address / self.segment_bytes != number {
                // A segment is synced whole before the next one is begun.
                self.proven.unproven.clear();
            }
            self.position = Position { address: next.address, sequence: next.sequence, ..self.position };
        }
    }

    fn content(&mut self, number: u64) -> Result<Content, JournalError> {
        let Some(segment) = self.segments.get(&number) else {
            return match self.gaps {
                true => Ok(Content::missing(number, self.segment_bytes, self.salt)),
                false => Err(JournalError::damaged(segment_name(number), 0, MISSING)),
            };
        };
        if segment.header.is_some_and(|header| header.salt != self.salt) {
            return Err(JournalError::damaged(segment_name(number), 0, "belongs to another journal"));
        }
        self.position.epoch = self.position.epoch.max(segment.header.map_or(0, |header| header.epoch));
        Ok(segment.read(self.segment_bytes, self.salt))
    }

    /// Visits the records of one segment up to the first place where there is none.
    fn records_of(&mut self, content: &Content, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        loop {
            let offset = self.position.address % self.segment_bytes;
            let Position { sequence, epoch, .. } = self.position;
            let any_epoch = planted::is(Bug::KeepCutOff);
            let Some(header) =
                content.record(offset).filter(|header| header.sequence == sequence && (header.epoch >= epoch || any_epoch))
            else {
                return Ok(());
            };
            let body = content.body(offset, &header);
            self.proven.add(sequence, header.synced(), offset);
            self.position.epoch = header.epoch;
            self.position.sequence += 1;
            self.position.address += record_bytes(body.len());
            // A record without a body only says that the journal was opened.
            if !body.is_empty() {
                let address = content.address(offset) + RECORD_HEADER_BYTES;
                self.found.records += 1;
                let visited = visitor.record(Record { sequence, address, body });
                visited.map_err(|reason| JournalError::damaged(segment_name(content.number), offset, reason))?;
            }
        }
    }

    /// Where the walk goes on, now that no record is where one was expected: behind what is damaged, or in the next segment. `None` if this is the end,
    /// since nothing says that there ever was a durable record here.
    fn next(&mut self, content: &Content) -> Result<Option<Next>, JournalError> {
        let sequence = self.position.sequence;
        let following = self.following(content.number)?;
        if following.is_some_and(|next| next.sequence == sequence) {
            return Ok(following);
        }
        let offset = self.position.address % self.segment_bytes;
        // The segment was left for another one, so all of it had been synced. Or a later record says that the one expected here had been.
        let durable = following.is_some()
            || planted::is(Bug::SkipTorn)
            || content.later(offset, self.position).any(|(_, header)| {
                self.proven.synced = self.proven.synced.max(header.synced());
                header.synced() >= sequence
            });
        if !durable {
            return Ok(None);
        }
        let limit = following.map_or(u64::MAX, |next| next.sequence);
        let whole = content.later(offset, self.position).find(|(_, header)| header.sequence < limit);
        let whole = whole.map(|(offset, header)| Next { address: content.address(offset), sequence: header.expected() });
        Ok(whole.or(following))
    }

    /// The beginning of the first segment after this one that was begun. Without a header it was, if there is a record in it: they are only written
    /// when the header is durable.
    fn following(&self, number: u64) -> Result<Option<Next>, JournalError> {
        let Position { sequence, epoch, .. } = self.position;
        for (other, segment) in self.segments.range(number + 1..) {
            let start = other * self.segment_bytes + SEGMENT_HEADER_BYTES;
            let name = segment_name(*other);
            // One of an earlier epoch was left there when a crash came before this segment was begun.
            let Some(header) = segment.header.filter(|header| header.epoch >= epoch) else {
                let content = segment.read(self.segment_bytes, self.salt);
                let first = content.later(SEGMENT_HEADER_BYTES, self.position).next();
                if let Some((offset, header)) = first {
                    return Ok(Some(Next { address: content.address(offset), sequence: header.expected() }));
                }
                match &segment.unreadable {
                    Some(error) => return Err(unreadable(name, error)),
                    None => continue,
                }
            };
            return match header.salt == self.salt && header.first_sequence >= sequence {
                true => Ok(Some(Next { address: start, sequence: header.first_sequence })),
                false => {
                    let reason = format!("its header does not go with the records before {sequence}, which come before it");
                    Err(JournalError::damaged(name, 0, reason))
                }
            };
        }
        Ok(None)
    }

    /// Tells the visitor what is missing before this place. Where the lengths of the damaged records lead exactly there, each is told by itself with its
    /// bytes; otherwise all of them at once.
    fn tell(&mut self, content: &Content, next: Next, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        let first = self.position.sequence;
        let offset = self.position.address % self.segment_bytes;
        let file = segment_name(content.number);
        let records = damaged_records(content, self.position, next);
        let end = match next.address / self.segment_bytes == content.number {
            true => next.address % self.segment_bytes,
            false => content.end(),
        };
        let missing = (content.number + 1..next.address / self.segment_bytes).find(|number| !self.segments.contains_key(number));
        let reason = match content.unreadable(offset..end) {
            _ if content.size == 0 => "there is no such file".to_owned(),
            _ if missing.is_some() => format!("there is no file `{}`", segment_name(missing.unwrap_or_default())),
            Some(error) => format!("cannot be read: {error}"),
            None if content.size < end => format!("the file ends at byte {}", content.size),
            None => {
                format!("what follows says that this was durable, and its checksum is wrong (next is record {})", next.sequence)
            }
        };
        let mut told = Vec::new();
        match records {
            Some(records) => {
                for record in records {
                    let offset = (record.address - RECORD_HEADER_BYTES) % self.segment_bytes;
                    let sequence = record.sequence;
                    told.push(Lost {
                        first: sequence,
                        last: Some(sequence),
                        file: file.clone(),
                        offset,
                        reason: reason.clone(),
                        record: Some(record),
                    });
                }
            }
            None => told.push(Lost { first, last: Some(next.sequence - 1), file, offset, reason, record: None }),
        }
        told.into_iter().try_for_each(|lost| self.lose(lost, visitor))
    }

    fn lose(&mut self, lost: Lost, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        if lost.record.as_ref().is_some_and(|record| record.body.is_empty()) {
            // Nothing is lost with it.
            self.found.hollow.push((lost.file, lost.offset));
            return Ok(());
        }
        if planted::is(Bug::LoseSilently) {
            return Ok(());
        }
        self.found.lost += lost.last.map_or(1, |last| last - lost.first + 1);
        let (file, offset) = (lost.file.clone(), lost.offset);
        visitor.lost(lost).map_err(|reason| JournalError::damaged(file, offset, reason))
    }

    /// Nothing durable follows, as far as can be seen.
    fn end(&mut self, content: &Content, visitor: &mut dyn Visitor) -> Result<(), JournalError> {
        let Position { sequence, epoch, address } = self.position;
        let offset = address % self.segment_bytes;
        let file = segment_name(content.number);
        if content.size == 0 {
            return Err(JournalError::damaged(file, 0, "there is no such file, and nothing after it"));
        }
        let begun = content.header(offset).filter(|header| header.sequence == sequence && header.epoch >= epoch);
        let begun_end = begun.map_or(offset + RECORD_HEADER_BYTES, |header| offset + record_bytes(header.body_bytes as usize));
        if let Some(error) = content.unreadable(offset..begun_end) {
            // Whether there is a record cannot be known, and to go on would be to write over it.
            return Err(unreadable(file, error));
        }
        self.found.cut = content.later(offset, self.position).map(|(offset, _)| offset).collect();
        if begun.is_some() || !self.found.cut.is_empty() {
            self.found.torn = Some((file.clone(), offset));
        }
        // A file is made at full size, so one that is shorter was cut. What is cut off may have been zeros, unless a record was begun there.
        if content.size < self.segment_bytes && begun_end > content.size {
            self.found.torn = None;
            let reason = format!("the file ends at byte {}, and may have held more records", content.size);
            return self.lose(Lost { first: sequence, last: None, file, offset, reason, record: None }, visitor);
        }
        Ok(())
    }
}

fn unreadable(file: String, error: &std::sync::Arc<std::io::Error>) -> JournalError {
    JournalError::Io { action: "reading", file, error: error.clone() }
}

/// The damaged records from this position up to the next whole one, if their lengths lead exactly there. At the end of a segment nothing says where they
/// should lead, so there they must name their sequences.
fn damaged_records(content: &Content, position: Position, next: Next) -> Option<Vec<Record>> {
    let start = content.address(0);
    let within = next.address / content.bytes.len() as u64 == content.number;
    let mut offset = position.address - start;
    let mut records = Vec::new();
    for sequence in position.sequence..next.sequence {
        let header = content.header(offset)?;
        if !within && header.sequence != sequence {
            return None;
        }
        let body = content.body(offset, &header);
        records.push(Record { sequence, address: content.address(offset) + RECORD_HEADER_BYTES, body });
        offset += record_bytes(header.body_bytes as usize);
    }
    (!within || start + offset == next.address).then_some(records)
}
