//! What appending and recovering costs on this machine's disk: `cargo bench -p leatworks-journal`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leatworks_journal::{Duty, Journal, Options, RealFileSystem, Record, Syncing, Visitor};
use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

/// Bytes of a record: a 200-byte message with its envelope.
const RECORD_BYTES: usize = 250;

/// Records that are appended before one waits.
const BATCHES: [usize; 3] = [1, 100, 1_000];

/// Records that recovery replays.
const RECOVERED: usize = 100_000;

/// Counts what recovery finds.
#[derive(Default)]
struct Count(usize);

impl Visitor for Count {
    fn snapshot(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        black_box(&record.body);
        self.0 += 1;
        Ok(())
    }
}

fn open(dir: &Path, syncing: Syncing) -> (Journal, usize) {
    let (fs, mut count) = (Arc::new(RealFileSystem::new(dir).unwrap()), Count::default());
    let (journal, _) = Journal::open(fs, Options { syncing, ..Options::default() }, &mut count).unwrap();
    (journal, count.0)
}

/// Appends a batch and gives the sequence of its last record.
fn append(runtime: &Runtime, journal: &Journal, batch: Vec<Vec<u8>>) -> u64 {
    let mut last = 0;
    for body in batch {
        if !journal.has_room(body.len(), leatworks_journal::Effect::Adds) {
            runtime.block_on(journal.room(body.len(), leatworks_journal::Effect::Adds)).unwrap();
        }
        last = journal.append(body).sequence;
    }
    last
}

/// Lets segments go, as the owner of a journal does from time to time: nothing of these records is needed any more.
fn tidy(journal: &Journal) {
    while let Some(Duty::Checkpoint) = journal.duty_now() {
        let mark = journal.mark();
        journal.checkpoint(mark, b"nothing").unwrap();
    }
}

fn appending(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().unwrap();
    for (name, syncing) in [("append, written", Syncing::Rarely), ("append, synced", Syncing::Always)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (journal, _) = open(dir.path(), syncing);
        let mut group = criterion.benchmark_group(name);
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(batch.to_string(), |bencher| {
                bencher.iter_custom(|count| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..count {
                        let records = vec![vec![0x5a; RECORD_BYTES]; batch];
                        let start = Instant::now();
                        let last = append(&runtime, &journal, records);
                        match syncing {
                            Syncing::Always => runtime.block_on(journal.synced(last)).unwrap(),
                            _ => runtime.block_on(journal.written(last)).unwrap(),
                        }
                        spent += start.elapsed();
                        tidy(&journal);
                    }
                    spent
                });
            });
        }
        group.finish();
        journal.close().unwrap();
    }
}

fn recovering(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (journal, _) = open(dir.path(), Syncing::Always);
    let last = append(&runtime, &journal, vec![vec![0x5a; RECORD_BYTES]; RECOVERED]);
    runtime.block_on(journal.synced(last)).unwrap();
    journal.close().unwrap();
    drop(journal);
    let mut group = criterion.benchmark_group("recover");
    group.throughput(Throughput::Elements(RECOVERED as u64));
    group.bench_function(RECOVERED.to_string(), |bencher| {
        let reopen = |()| {
            let (journal, found) = open(dir.path(), Syncing::Always);
            assert!(found >= RECOVERED, "{found} records were found");
            // Dropped, and so closed, outside the time.
            journal
        };
        bencher.iter_batched(|| (), reopen, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = appending, recovering
}
criterion_main!(benches);
