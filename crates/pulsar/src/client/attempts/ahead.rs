//! Messages that are handed out while their note is on its way to the ledger, and not only when it is read back: a sync of the service less behind each other.
//!
//! That is for what nobody had in hand before, so that its attempt is the first whatever else stands in the ledger. The note lies in a file of this machine meanwhile. What a
//! message leads to is not settled before its note has been read back.
//!
//! The service does not tell what was in the hands of a consumer that has died. So nothing goes ahead beside others who take from the same subscription: who comes greets in the ledger, who is there
//! answers, and who leaves says so. Its own greeting, once it has been read back, also tells a process that it has read all that was there.

use super::{REPEATED, notes::Notes};
use crate::client::{hands::Pick, limits::AHEAD_NOTES_MAX};
use leatworks_broker::Position;
use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

/// What is known of the note of a message that was handed out ahead of it.
#[derive(Debug)]
enum Fate {
    OnItsWay,
    /// The service has refused it.
    Refused(Pick),
    /// Another message has the same id, and was noted before.
    Repeated,
}

/// What is known of the notes of several messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotesAre {
    OnTheirWay,
    /// These were refused, and are to be sent again.
    Refused(Vec<Pick>),
    /// All have been read back, and these are repetitions of other messages.
    There(Vec<Position>),
}

/// Where a file of notes is made as soon as there is something to keep.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) directory: PathBuf,
    pub(super) of: String,
    pub(super) writer: u64,
}

/// What is in hand and not read back.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    keep: Option<Keep>,
    notes: Option<Notes>,
    /// The records that are on their way with whose messages nobody waits, and what they are about.
    records: HashMap<u64, Vec<Pick>>,
    fates: HashMap<Position, Fate>,
    /// The ids in all records that are on their way.
    ids: HashSet<u64>,
    /// Who else takes from the subscription, by what they write; none as long as that is not known.
    others: Option<HashSet<u64>>,
    /// What others have written may be there and not have been read, until a record with a higher number than this has been read back.
    unread: Option<u64>,
}

impl Ahead {
    /// With a place to keep notes messages are handed out ahead of them.
    pub(super) fn new(keep: Option<Keep>) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Whether these may be handed out before their note is read back: `is_new` says whether the ledger knows nothing of one. If so the note is in the file.
    pub(super) fn go(&mut self, number: u64, record: &[u8], picked: &[Pick], is_new: impl Fn(&Pick) -> bool) -> bool {
        let is_alone = self.unread.is_none() && self.others.as_ref().is_some_and(HashSet::is_empty);
        if self.keep.is_none() || !is_alone || self.records.len() >= AHEAD_NOTES_MAX {
            return false;
        }
        if !picked.iter().all(|pick| pick.is_first_time && is_new(pick) && !self.ids.contains(&pick.id)) {
            return false;
        }
        let known = self.ids.len();
        self.ids.extend(picked.iter().map(|pick| pick.id).filter(|id| *id != 0));
        let all_differ = self.ids.len() - known == picked.iter().filter(|pick| pick.id != 0).count();
        if !all_differ || !self.keep(record) {
            picked.iter().for_each(|pick| _ = self.ids.remove(&pick.id));
            return false;
        }
        self.fates.extend(picked.iter().map(|pick| (pick.position, Fate::OnItsWay)));
        self.records.insert(number, picked.to_vec());
        true
    }

    /// Keeps a record in the file. One that cannot be written is not tried again.
    fn keep(&mut self, record: &[u8]) -> bool {
        let mut keep = || -> io::Result<bool> {
            let Some(Keep { directory, of, writer }) = &self.keep else { return Ok(false) };
            let notes = match &mut self.notes {
                Some(notes) => notes,
                none => none.insert(Notes::create(directory, of, *writer)?),
            };
            notes.keep(record)
        };
        keep().unwrap_or_else(|error| {
            let directory = self.keep.take().map(|keep| keep.directory);
            tracing::warn!(?directory, %error, "notes of attempts cannot be kept, and are waited for");
            false
        })
    }

    /// These wait for their note. Another message with the id of one of them does, too.
    pub(super) fn wait(&mut self, picked: &[Pick]) {
        if self.keep.is_some() {
            self.ids.extend(picked.iter().map(|pick| pick.id).filter(|id| *id != 0));
        }
    }

    /// The note of messages with these ids has been read back.
    pub(super) fn waited(&mut self, ids: &[u64]) {
        if !self.ids.is_empty() {
            ids.iter().for_each(|id| _ = self.ids.remove(id));
        }
    }

    /// The greeting of this process was read back: who is there answers from now on.
    pub(super) fn greeted(&mut self) {
        self.others = Some(HashSet::new());
    }

    /// Nothing is read for a while; the last record of this process has this number.
    pub(super) fn looks_away(&mut self, number: u64) {
        self.unread = Some(number);
    }

    /// A record of this process with this number has been read back, and all before it.
    pub(super) fn has_read(&mut self, number: u64) {
        self.unread = self.unread.filter(|unread| *unread >= number);
    }

    /// Somebody else has written something. Gives whether it is known who is there.
    pub(super) fn meets(&mut self, writer: u64, leaves: bool) -> bool {
        let Some(others) = &mut self.others else { return false };
        match leaves {
            true => others.remove(&writer),
            false => others.insert(writer),
        };
        true
    }

    /// A record of this process was read back, and its messages are these attempts. Gives whether anything was handed out ahead of it.
    pub(super) fn arrived(&mut self, number: u64, attempts: &[u32]) -> bool {
        let Some(picked) = self.forget(number) else { return false };
        self.read_back(&picked, attempts);
        true
    }

    /// A record does not arrive. Gives whether anything was handed out ahead of it.
    pub(super) fn refused(&mut self, number: u64) -> bool {
        let Some(picked) = self.forget(number) else { return false };
        for pick in picked {
            // What has left meanwhile has no fate any more.
            self.fates.entry(pick.position).and_modify(|fate| *fate = Fate::Refused(pick));
        }
        true
    }

    /// None of them arrives any more.
    pub(super) fn refused_all(&mut self) {
        let numbers: Vec<u64> = self.records.keys().copied().collect();
        numbers.into_iter().for_each(|number| _ = self.refused(number));
    }

    /// The notes of these have been read back, also those that were refused and have been sent again.
    pub(super) fn read_back(&mut self, picked: &[Pick], attempts: &[u32]) {
        for (Pick { position, .. }, attempt) in picked.iter().zip(attempts) {
            match attempt {
                &REPEATED => _ = self.fates.entry(*position).and_modify(|fate| *fate = Fate::Repeated),
                _ => _ = self.fates.remove(position),
            }
        }
        self.make_room();
    }

    fn forget(&mut self, number: u64) -> Option<Vec<Pick>> {
        let picked = self.records.remove(&number)?;
        picked.iter().for_each(|pick| _ = self.ids.remove(&pick.id));
        Some(picked)
    }

    /// If all that was kept is in the ledger, the file is for what comes.
    fn make_room(&mut self) {
        let is_needed = !self.records.is_empty() || self.fates.values().any(|fate| matches!(fate, Fate::Refused(_)));
        if let Some(notes) = self.notes.as_mut().filter(|_| !is_needed)
            && let Err(error) = notes.arrived()
        {
            tracing::warn!(%error, "notes of attempts that have arrived are kept all the same");
        }
    }

    /// Messages are settled, or go on elsewhere.
    pub(super) fn left(&mut self, positions: &[Position]) {
        if !self.fates.is_empty() {
            positions.iter().for_each(|position| _ = self.fates.remove(position));
        }
    }

    /// Where the notes of these are.
    pub(super) fn where_are(&self, positions: &[Position]) -> NotesAre {
        let (mut refused, mut repeated) = (Vec::new(), Vec::new());
        for position in positions.iter().filter(|_| !self.fates.is_empty()) {
            match self.fates.get(position) {
                None => {}
                Some(Fate::OnItsWay) => return NotesAre::OnTheirWay,
                Some(Fate::Refused(pick)) => refused.push(*pick),
                Some(Fate::Repeated) => repeated.push(*position),
            }
        }
        if refused.is_empty() { NotesAre::There(repeated) } else { NotesAre::Refused(refused) }
    }

    /// Nothing is read any more. A file whose notes have all arrived is removed.
    pub(super) fn close(&mut self) {
        let is_needed = self.fates.values().any(|fate| !matches!(fate, Fate::Repeated));
        if let Some(notes) = self.notes.take().filter(|_| !is_needed) {
            notes.remove();
        }
        self.keep = None;
        self.refused_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{NotesAre::OnTheirWay, *};
    use std::path::Path;

    fn ahead(directory: &Path) -> Ahead {
        let mut ahead = Ahead::new(Some(Keep { directory: directory.to_owned(), of: "topic".to_owned(), writer: 1 }));
        ahead.greeted();
        ahead
    }

    fn pick(position: u64, id: u64) -> Pick {
        Pick { position: Position(position), attempt: 1, id, is_first_time: true }
    }

    #[test]
    fn only_what_is_new_in_every_way_goes_ahead() {
        let had = Pick { is_first_time: false, ..pick(10, 1) };
        let cases: [(&str, &[Pick], bool); 8] = [
            ("a new one", &[pick(10, 1)], true),
            ("several", &[pick(10, 1), pick(11, 2), pick(12, 0), pick(13, 0)], true),
            ("one that came before", &[had], false),
            ("one of several that came before", &[pick(11, 2), had], false),
            ("one that the ledger knows", &[pick(99, 3)], false),
            ("two with one id", &[pick(10, 1), pick(11, 1)], false),
            ("the id of one that is ahead", &[pick(10, 8)], false),
            ("the id of one that waits", &[pick(10, 9)], false),
        ];
        for (what, picked, goes) in cases {
            let directory = tempfile::tempdir().unwrap();
            let mut ahead = ahead(directory.path());
            let is_new = |pick: &Pick| pick.position != Position(99);
            assert!(ahead.go(1, b"one", &[pick(8, 8)], is_new));
            ahead.wait(&[pick(9, 9)]);
            assert_eq!(ahead.go(2, b"two", picked, is_new), goes, "{what}");
            // What did not go has left nothing behind.
            assert!(ahead.arrived(1, &[1]));
            assert!(goes || ahead.go(3, b"three", &[pick(10, 1), pick(11, 2)], is_new), "{what}");
        }
        assert!(!Ahead::default().go(1, b"one", &[pick(10, 1)], |_| true), "without a directory");
    }

    #[test]
    fn nothing_goes_ahead_beside_others_or_before_it_is_known_who_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = ahead(directory.path());
        let mut number = 0;
        let mut goes = |ahead: &mut Ahead| {
            number += 1;
            ahead.go(number, b"some", &[pick(number, number)], |_| true)
        };
        assert!(goes(&mut ahead));
        assert!(ahead.meets(7, false) && ahead.meets(8, false) && ahead.meets(7, true));
        assert!(!goes(&mut ahead), "one of two has left");
        assert!(ahead.meets(8, true) && goes(&mut ahead), "both have left");
        ahead.looks_away(5);
        ahead.has_read(5);
        assert!(!goes(&mut ahead), "somebody may have come meanwhile");
        ahead.has_read(6);
        assert!(goes(&mut ahead), "nobody has");
        let mut before = Ahead::new(ahead.keep.take());
        assert!(!before.meets(9, false) && !goes(&mut before), "nobody knows");
    }

    #[test]
    fn there_is_an_end_to_what_is_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = ahead(directory.path());
        let went = (1..).take_while(|number| ahead.go(*number, b"some", &[pick(*number, *number)], |_| true)).count();
        assert_eq!(went, AHEAD_NOTES_MAX);
        assert!(ahead.arrived(7, &[1]) && ahead.go(1_000, b"some", &[pick(1_000, 0)], |_| true), "one that arrives makes room");
    }

    #[test]
    fn what_is_settled_waits_for_its_note_and_for_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = ahead(directory.path());
        assert!(ahead.go(1, b"one", &[pick(10, 1), pick(11, 2)], |_| true) && ahead.go(2, b"two", &[pick(12, 3)], |_| true));
        assert!(ahead.go(3, b"three", &[pick(13, 4)], |_| true));
        let all = [10, 11, 12, 13, 14].map(Position);
        let known = |ahead: &Ahead| all.map(|position| ahead.where_are(&[position]));
        let there = || NotesAre::There(Vec::new());
        let other = || NotesAre::There(vec![Position(11)]);
        let refused = |position, id| NotesAre::Refused(vec![pick(position, id)]);
        assert_eq!(known(&ahead), [OnTheirWay, OnTheirWay, OnTheirWay, OnTheirWay, there()]);
        assert!(ahead.arrived(1, &[1, REPEATED]) && !ahead.arrived(1, &[1, 1]), "it arrives once");
        assert_eq!(known(&ahead), [there(), other(), OnTheirWay, OnTheirWay, there()]);
        assert!(ahead.refused(2));
        assert_eq!(known(&ahead), [there(), other(), refused(12, 3), OnTheirWay, there()]);
        ahead.refused_all();
        assert_eq!(known(&ahead)[3], refused(13, 4), "nothing arrives any more");
        ahead.read_back(&[pick(12, 3), pick(13, 4)], &[1, REPEATED]);
        assert_eq!(known(&ahead), [there(), other(), there(), NotesAre::There(vec![Position(13)]), there()]);
        ahead.left(&all);
        assert_eq!(known(&ahead), std::array::from_fn(|_| there()));
        assert!(ahead.go(4, b"four", &[pick(14, 5)], |_| true));
        ahead.left(&all);
        assert!(ahead.refused(4));
        assert_eq!(known(&ahead)[4], there(), "it has left before its note was refused");
    }

    #[test]
    fn a_file_goes_when_all_of_it_has_arrived_and_else_stays() {
        type End = fn(&mut Ahead);
        let ends: [(&str, End, usize); 5] = [
            ("on its way", |_| (), 1),
            ("arrived", |ahead| assert!(ahead.arrived(1, &[1])), 0),
            ("a repetition", |ahead| assert!(ahead.arrived(1, &[REPEATED])), 0),
            ("refused", |ahead| assert!(ahead.refused(1)), 1),
            (
                "sent again",
                |ahead| {
                    assert!(ahead.refused(1));
                    ahead.read_back(&[pick(10, 1)], &[1]);
                },
                0,
            ),
        ];
        for (what, end, stay) in ends {
            for closes in [true, false] {
                let directory = tempfile::tempdir().unwrap();
                let mut ahead = ahead(directory.path());
                assert!(ahead.go(1, b"one", &[pick(10, 1)], |_| true));
                end(&mut ahead);
                if closes {
                    ahead.close();
                }
                drop(ahead);
                let left = super::super::notes::left(directory.path(), "topic");
                assert_eq!(left.iter().map(|left| left.records.len()).sum::<usize>(), stay, "{what}, closes: {closes}");
            }
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_makes_all_wait() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(!ahead(&file).go(1, b"one", &[pick(10, 1)], |_| true));
    }
}
