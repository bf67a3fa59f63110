//! Single situations that a random walk meets too seldom: a crash between two calls, two checkpoints at once, two syncs of which one fails.

use leatworks_journal::{
    Duty, File, FileSystem, Journal, JournalError, Lost, Options, Record, Syncing, Visitor, Work,
    simulation::{Faults, SimulatedFileSystem},
};
use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

const OPTIONS: Options =
    Options { segment_bytes: 4_096, syncing: Syncing::Always, checkpoint_bytes: 1 << 30, work: Work::Driven };

/// What recovery finds: the snapshot, and the first byte of each record.
#[derive(Debug, Default)]
struct Found {
    snapshot: Vec<u8>,
    records: Vec<u8>,
}

impl Visitor for Found {
    fn snapshot(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.snapshot = snapshot.to_vec();
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        self.records.push(record.body[0]);
        Ok(())
    }
}

fn open(fs: Arc<dyn FileSystem>) -> (Journal, Found) {
    let mut found = Found::default();
    let (journal, _) = Journal::open(fs, OPTIONS, &mut found).unwrap();
    (journal, found)
}

/// Appends records of nearly half a segment and makes them durable.
fn append(journal: &Journal, numbers: std::ops::Range<u8>) {
    for number in numbers {
        journal.append(vec![number; 1_900]);
        journal.drive().unwrap();
    }
}

#[test]
fn a_segment_whose_beginning_was_interrupted_is_not_used_twice() {
    for life in 0..2 {
        let fs = SimulatedFileSystem::new(1, Faults::default());
        let (journal, _) = open(Arc::new(fs.clone()));
        append(&journal, 0..2);
        assert!(!fs.list_names("spare-").is_empty());
        fs.kill();
        drop(journal);
        // The process was killed after the next segment had its name, and before it had its header.
        let begun = fs.create("segment-0000000000000001", 4_096).unwrap();
        begun.sync().unwrap();
        fs.sync_directory().unwrap();
        let (journal, found) = open(Arc::new(fs.clone()));
        assert_eq!(found.records, [0, 1]);
        append(&journal, 2..20);
        match life {
            0 => fs.kill(),
            _ => fs.cut_power(),
        }
        drop(journal);
        let (_, found) = open(Arc::new(fs));
        assert_eq!(found.records, (0..20).collect::<Vec<u8>>());
    }
}

#[test]
fn a_checkpoint_that_another_has_overtaken_changes_nothing() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let (journal, _) = open(Arc::new(fs.clone()));
    append(&journal, 0..3);
    let earlier = journal.mark();
    append(&journal, 3..9);
    let later = journal.mark();
    // Nothing is held, so all but the last segment is dead by then.
    journal.checkpoint(later, &[9]).unwrap();
    journal.checkpoint(earlier, &[3]).unwrap();
    append(&journal, 9..10);
    fs.kill();
    drop(journal);
    let (_, found) = open(Arc::new(fs));
    assert_eq!((found.snapshot, found.records), (vec![9], vec![9]));
}

/// Lets syncs begin only in pairs if they can, and fails the first: the kernel tells a failed write back to one of those who ask, not to all.
struct OneFailure {
    inner: SimulatedFileSystem,
    syncs: Arc<Syncs>,
}

#[derive(Default)]
struct Syncs {
    /// Whether to fail at all, how many syncs have begun, and whether the failure was told.
    state: Mutex<(bool, usize, bool)>,
    begun: Condvar,
}

impl Syncs {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if !state.0 {
            return Ok(());
        }
        state.1 += 1;
        self.begun.notify_all();
        // A second one has this long to begin, which it does if nothing keeps it from it.
        let wait = std::time::Duration::from_millis(300);
        state = self.begun.wait_timeout_while(state, wait, |state| state.1 < 2 && !state.2).unwrap().0;
        match std::mem::replace(&mut state.2, true) {
            false => Err(io::Error::other("the disk failed")),
            true => Ok(()),
        }
    }
}

struct Synced(Arc<dyn File>, Arc<Syncs>);

impl File for Synced {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.sync().and_then(|()| self.0.sync())
    }
}

impl FileSystem for OneFailure {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Synced(self.inner.create(name, bytes)?, self.syncs.clone())))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Synced(self.inner.open(name)?, self.syncs.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }
}

#[test]
fn a_sync_that_succeeds_beside_one_that_failed_acknowledges_nothing() {
    let syncs = Arc::new(Syncs::default());
    let fs = OneFailure { inner: SimulatedFileSystem::new(1, Faults::default()), syncs: syncs.clone() };
    let (journal, _) = open(Arc::new(fs));
    append(&journal, 0..1);
    let durable = journal.synced_now();
    syncs.state.lock().unwrap().0 = true;
    journal.append(vec![1; 100]);
    journal.drive_writing().unwrap();
    let mark = journal.mark();
    let results = std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| journal.checkpoint(mark, &[1]));
        let sync = scope.spawn(|| journal.drive());
        [checkpoint.join().unwrap(), sync.join().unwrap()]
    });
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(journal.synced_now(), durable);
}

/// Goes on without what is lost.
#[derive(Default)]
struct Agreeing(Found, Vec<Lost>);

impl Visitor for Agreeing {
    fn snapshot(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0.snapshot(snapshot)
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        self.0.record(record)
    }

    fn lost(&mut self, lost: Lost) -> Result<(), String> {
        self.1.push(lost);
        Ok(())
    }
}

#[tokio::test]
async fn damage_of_the_last_records_of_an_idle_journal_is_not_taken_for_a_torn_end() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let options = Options { work: Work::Threads, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(fs.clone()), options, &mut Found::default()).unwrap();
    journal.append(vec![7; 100]);
    let last = journal.append(vec![8; 100]);
    journal.synced(last.sequence).await.unwrap();
    // Nothing follows; after a moment a mark says what is synced. It is no record.
    let end = last.address as usize + 104;
    while fs.bytes_of("segment-0000000000000000").unwrap()[end..end + 8] == [0; 8] {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.last(), last.sequence);
    fs.kill();
    drop(journal);
    fs.flip_bit("segment-0000000000000000", (last.address as usize + 50) * 8);
    // Who does not agree is refused, and nothing has been changed.
    let refused = Journal::open(Arc::new(fs.clone()), OPTIONS, &mut Found::default()).err().unwrap();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
    let mut agreeing = Agreeing::default();
    let (journal, recovered) = Journal::open(Arc::new(fs), OPTIONS, &mut agreeing).unwrap();
    assert_eq!((agreeing.0.records, recovered.lost, agreeing.1.len()), (vec![7], 1, 1));
    let lost = agreeing.1.pop().and_then(|lost| lost.record).unwrap();
    assert_eq!((lost.sequence, lost.address, lost.body.len()), (last.sequence, last.address, 100));
    assert_eq!(lost.body.iter().filter(|byte| **byte != 8).count(), 1);
    // What the owner has made of it is to be kept before anything can look different.
    assert_eq!(journal.duty_now(), Some(Duty::Checkpoint));
}

#[tokio::test]
async fn a_record_that_asks_for_no_sync_goes_with_one_that_does() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let options = Options { work: Work::Threads, syncing: Syncing::Rarely, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(fs), options, &mut Found::default()).unwrap();
    let lazy = journal.append(vec![1; 10]);
    journal.written(lazy.sequence).await.unwrap();
    assert!(journal.synced_now() < lazy.sequence);
    let eager = journal.append_with(vec![2; 10], Syncing::Always);
    journal.synced(eager.sequence).await.unwrap();
    assert!(journal.synced_now() >= lazy.sequence);
}

#[test]
fn what_nobody_can_read_is_not_guessed() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let (journal, _) = open(Arc::new(fs.clone()));
    append(&journal, 0..5);
    fs.kill();
    drop(journal);
    // The journal ends in the third segment; whether another record is there cannot be seen.
    let last = fs.list_names("segment-").pop().unwrap();
    fs.make_unreadable(&last, 0..4_096);
    let refused = Journal::open(Arc::new(fs.clone()), OPTIONS, &mut Agreeing::default()).err().unwrap();
    assert!(matches!(refused, JournalError::Io { .. }), "{refused}");
    fs.make_readable();
    assert_eq!(open(Arc::new(fs)).1.records, [0, 1, 2, 3, 4]);
}

#[test]
fn without_a_checkpoint_no_segment_may_be_missing() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let (journal, _) = open(Arc::new(fs.clone()));
    append(&journal, 0..9);
    fs.kill();
    drop(journal);
    fs.lose("segment-0000000000000002");
    // It may have been let go of, as far as anybody can know.
    let refused = Journal::open(Arc::new(fs), OPTIONS, &mut Agreeing::default()).err().unwrap();
    assert!(refused.to_string().contains("damaged `segment-0000000000000002` at byte 0: missing"), "{refused}");
}
