//! Writes records down, beside the work and never in its way.

use super::record::{OUTPUTS_MAX, Outcome, Record};
use crate::{TaskError, config::TraceConfig, dispatch::Edge, ids, job};
use leatworks_broker::Message;
use leatworks_jobs::Store;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

/// The most records that wait to be written. What comes while they are as many is left out, and counted: no message waits for its trace.
const WAITING_MAX: usize = 16_384;

/// The most bytes of one object: so much is read at once when something is looked for.
const OBJECT_BYTES_MAX: usize = 1 << 20;

/// How long a record may wait for others. So much is lost with a process that is killed; shorter, and a process with little to do would write more objects a day
/// than a folder bears well.
const OBJECT_TIME_MAX: Duration = Duration::from_secs(2);

/// How long the end of a process waits for what is still to be written.
const END_MAX: Duration = Duration::from_secs(10);

/// How often old objects are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

enum Entry {
    Record(Box<Record>),
    End(oneshot::Sender<()>),
}

/// Where dispatchers tell what they have done.
#[derive(Clone, Debug)]
pub(crate) struct Tracer {
    sender: mpsc::Sender<Entry>,
    missed: Arc<AtomicU64>,
}

impl Tracer {
    /// Takes a record, unless too many wait.
    pub(crate) fn tell(&self, record: Record) {
        if self.sender.try_send(Entry::Record(Box::new(record))).is_err() {
            self.missed.fetch_add(1, Relaxed);
        }
    }

    /// A message was handled, and what came of it is published.
    pub(crate) fn handled<'a>(
        &self,
        edge: &Edge,
        message: &Message,
        attempt: u32,
        took: Option<Duration>,
        outputs: impl ExactSizeIterator<Item = &'a Message>,
    ) {
        let given = outputs.len() as u64;
        let outputs = outputs.take(OUTPUTS_MAX).map(|output| output.id.to_string()).collect();
        let took_us = took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.tell(Record { outputs, given, took_us, ..record(edge, message, attempt, Outcome::Handled) });
    }

    /// A message was taken into a fold.
    pub(crate) fn folded(&self, edge: &Edge, message: &Message, attempt: u32) {
        self.tell(record(edge, message, attempt, Outcome::Folded));
    }

    /// A message has failed and is given back.
    pub(crate) fn failed(&self, edge: &Edge, message: &Message, attempt: u32, error: &TaskError) {
        let record = record(edge, message, attempt, Outcome::Failed);
        self.tell(record.because(error.cause().as_str(), &error.to_string()));
    }

    /// A message lies in the dead letters, as this one.
    pub(crate) fn given_up(&self, edge: &Edge, letter: &Message) {
        let read = crate::DeadLetter::read(edge.def.id, leatworks_broker::Position(0), letter);
        let record = record(edge, letter, read.attempts, Outcome::DeadLettered);
        self.tell(record.because(&read.cause, &read.error));
    }
}

fn record(edge: &Edge, message: &Message, attempt: u32, outcome: Outcome) -> Record {
    Record {
        topology: edge.topology.to_owned(),
        edge: edge.def.id.to_owned(),
        task: edge.task.name.to_owned(),
        message: message.id.to_string(),
        root: message.root.to_string(),
        parent: job::parent(message).map(|parent| parent.to_string()),
        attempt,
        outcome,
        ended_ms: ids::now_ms(),
        ..Record::default()
    }
}

/// Writes what the dispatchers of one topology in this process tell.
#[derive(Debug)]
pub(crate) struct Writer {
    tracer: Tracer,
    writing: JoinHandle<()>,
    sweeping: JoinHandle<()>,
}

impl Writer {
    /// Begins, if that is asked for.
    ///
    /// # Errors
    /// If the place cannot be used.
    pub(crate) fn begin(config: &TraceConfig, topology: &str) -> Result<Option<Self>, leatworks_jobs::JobError> {
        if !config.enabled {
            return Ok(None);
        }
        let store = Store::open(&config.place)?;
        let (sender, entries) = mpsc::channel(WAITING_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let tracer = Tracer { sender, missed: missed.clone() };
        let writing = tokio::spawn(write(store.clone(), topology.to_owned(), entries, missed));
        let sweeping = tokio::spawn(sweep(store, config.keep));
        Ok(Some(Self { tracer, writing, sweeping }))
    }

    pub(crate) fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Writes what was told so far.
    pub(crate) async fn end(self) {
        let ended = async {
            let (done, written) = oneshot::channel();
            if self.tracer.sender.send(Entry::End(done)).await.is_ok() {
                // A writer that is gone has said why.
                let _ = written.await;
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            tracing::warn!("the end of the trace could not be written in time");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.writing.abort();
        self.sweeping.abort();
    }
}

/// Lines that are to be one object.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    records: u64,
    first_ms: u64,
    last_ms: u64,
    since: Option<Instant>,
}

impl Lines {
    fn push(&mut self, record: &Record) {
        // A record holds texts and numbers, which always can be written.
        if serde_json::to_writer(&mut self.bytes, record).is_err() {
            return;
        }
        self.bytes.push(b'\n');
        self.first_ms = if self.records == 0 { record.ended_ms } else { self.first_ms.min(record.ended_ms) };
        self.last_ms = self.last_ms.max(record.ended_ms);
        self.records += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Writes them, if there are any. What cannot be written is counted among what is left out.
    async fn put(&mut self, store: &Store, topology: &str, missed: &AtomicU64) {
        let mut lines = std::mem::take(self);
        let left_out = missed.swap(0, Relaxed);
        if left_out > 0 {
            let now = ids::now_ms();
            (lines.first_ms, lines.last_ms) = if lines.records == 0 { (now, now) } else { (lines.first_ms, lines.last_ms) };
            lines.bytes.extend_from_slice(format!("{{\"missed\":{left_out}}}\n").as_bytes());
        }
        if lines.bytes.is_empty() {
            return;
        }
        let key = format!("{topology}/{:013}-{:013}-{:032x}.jsonl", lines.first_ms, lines.last_ms, ids::random_id().0);
        if let Err(error) = store.put(&key, lines.bytes.into()).await {
            tracing::warn!(%error, records = lines.records, "a part of the trace is lost");
            missed.fetch_add(left_out + lines.records, Relaxed);
        }
    }
}

async fn write(store: Store, topology: String, mut entries: mpsc::Receiver<Entry>, missed: Arc<AtomicU64>) {
    let mut lines = Lines::default();
    loop {
        let entry = match lines.since {
            None => entries.recv().await,
            Some(since) => match tokio::time::timeout_at(since + OBJECT_TIME_MAX, entries.recv()).await {
                Ok(entry) => entry,
                Err(_) => {
                    lines.put(&store, &topology, &missed).await;
                    continue;
                }
            },
        };
        match entry {
            Some(Entry::Record(record)) => {
                lines.push(&record);
                if lines.bytes.len() >= OBJECT_BYTES_MAX {
                    lines.put(&store, &topology, &missed).await;
                }
            }
            Some(Entry::End(done)) => {
                lines.put(&store, &topology, &missed).await;
                // Who asked may have given up waiting.
                let _ = done.send(());
            }
            None => return lines.put(&store, &topology, &missed).await,
        }
    }
}

/// Removes what is older than it is to be kept, now and then.
async fn sweep(store: Store, keep: Duration) {
    loop {
        match store.sweep(keep).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, ?keep, "old parts of the trace are removed"),
            Err(error) => tracing::warn!(%error, "old parts of the trace could not be removed"),
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}
