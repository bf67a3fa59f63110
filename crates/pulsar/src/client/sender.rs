//! A producer of one topic: packs what waits into entries, sends them, and sends them again over a new connection until there is a receipt.

use super::{
    error::PulsarError,
    limits::{BUSY_AGAIN_TRIES_MAX, BUSY_TRIES_MAX, JOBS_MAX, backoff},
    link::{Incoming, Link},
    now_ms,
    pack::{self, NO_POSITION, Outgoing, Place},
    pool::{Pool, unexpected},
};
use crate::wire::proto::{self, Command, ServerError};
use bytes::Bytes;
use leatworks_broker::Position;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Messages that are to be published together.
pub(crate) struct Job {
    pub(crate) messages: Vec<Outgoing>,
    /// Room for their bytes, until they are there.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    pub(crate) done: oneshot::Sender<Result<Vec<Position>, PulsarError>>,
}

/// The way to a producer.
#[derive(Clone)]
pub(crate) struct Sender {
    jobs: mpsc::Sender<Job>,
    last: Arc<AtomicU64>,
    ended: watch::Receiver<()>,
}

/// Who may publish on a topic beside a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Others,
    Nobody,
}

/// That a producer has the topic for itself, on the wire.
const EXCLUSIVE: i32 = 1;

/// No sequence yet, on the wire and here.
const NO_SEQUENCE: u64 = u64::MAX;

impl Sender {
    /// A producer of a topic, by its full name; one without a name of its own is given one by the service, and counts for itself.
    pub(crate) fn open(pool: Arc<Pool>, topic: String, name: Option<String>, beside: Beside) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let last = Arc::new(AtomicU64::new(NO_SEQUENCE));
        let (ends, ended) = watch::channel(());
        let work = Work {
            pool,
            topic,
            counts: name.is_none(),
            name,
            beside,
            topic_epoch: None,
            // The same over all connections, so that its successor is known as such. Other numbers of a connection begin at 1.
            id: NEXT.fetch_add(1, Relaxed),
            epoch: 0,
            last: last.clone(),
            confirmed: None,
            jobs: HashMap::new(),
            next_job: 0,
            pending: VecDeque::new(),
            _ends: ends,
        };
        tokio::spawn(work.run(queue));
        Self { jobs, last, ended }
    }

    /// Publishes, and gives the positions when all messages are there.
    pub(crate) async fn publish(
        &self,
        messages: Vec<Outgoing>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Vec<Position>, PulsarError> {
        let (done, published) = oneshot::channel();
        self.jobs.send(Job { messages, room, done }).await.map_err(|_| PulsarError::Closed)?;
        published.await.map_err(|_| PulsarError::Closed)?
    }

    /// Publishes in the order of the calls: what the future does begins with the call.
    pub(crate) fn send(&self, messages: Vec<Outgoing>) -> impl Future<Output = Result<Vec<Position>, PulsarError>> + use<> {
        let (done, published) = oneshot::channel();
        let full = self.jobs.try_send(Job { messages, room: None, done }).err();
        async move {
            match full {
                None => published.await.map_err(|_| PulsarError::Closed)?,
                Some(mpsc::error::TrySendError::Full(_)) => Err(PulsarError::Away("too much waits to be written".to_owned())),
                Some(mpsc::error::TrySendError::Closed(_)) => Err(PulsarError::Closed),
            }
        }
    }

    /// Lets go of the producer, and waits until the service knows unless somebody else publishes with it.
    pub(crate) async fn end(self) {
        let Self { jobs, mut ended, .. } = self;
        drop(jobs);
        // What holds the other end is gone then.
        let _ = tokio::time::timeout(Duration::from_secs(1), ended.changed()).await;
    }

    /// The last sequence, once the producer is known to the service.
    pub(crate) async fn last_sequence(&self) -> Result<Option<u64>, PulsarError> {
        self.publish(Vec::new(), None).await?;
        Ok(Some(self.last.load(Relaxed)).filter(|last| *last != NO_SEQUENCE))
    }
}

struct Work {
    pool: Arc<Pool>,
    topic: String,
    name: Option<String>,
    beside: Beside,
    /// By which the service knows whether another has had the topic since.
    topic_epoch: Option<u64>,
    /// Whether its sequences are counted here.
    counts: bool,
    id: u64,
    epoch: u64,
    /// The last sequence that the service has, or is to have by what is under way.
    last: Arc<AtomicU64>,
    /// The last one that the service has said it has.
    confirmed: Option<u64>,
    jobs: HashMap<u64, Open>,
    next_job: u64,
    pending: VecDeque<Pending>,
    /// Goes with this.
    _ends: watch::Sender<()>,
}

/// A job whose messages are not all there yet.
struct Open {
    positions: Vec<Position>,
    left: usize,
    _room: Option<OwnedSemaphorePermit>,
    done: oneshot::Sender<Result<Vec<Position>, PulsarError>>,
}

/// An entry without a receipt, and which places of which jobs its messages are.
struct Pending {
    /// Of its first message and its last.
    sequence: u64,
    last: u64,
    frame: Bytes,
    parts: Vec<(u64, usize)>,
}

/// Why a connection is not used any more.
enum Lost {
    Link,
    Jobs,
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut attempt = 0;
        // Nothing is opened before there is something to send.
        let mut first = queue.recv().await;
        while first.is_some() || !self.pending.is_empty() || !self.jobs.is_empty() {
            match self.connect().await {
                Ok((link, incoming)) => {
                    attempt = 0;
                    let lost = self.work(&link, incoming, &mut queue, first.take()).await;
                    link.forget(self.id);
                    if matches!(lost, Lost::Jobs) {
                        self.close(&link).await;
                        return;
                    }
                    if self.pending.is_empty() {
                        first = queue.recv().await;
                    }
                }
                Err(error) if error.is_retryable() || (attempt < self.busy_tries() && matches!(error, PulsarError::Busy(_))) => {
                    // A producer of the same name is there until the service has noticed the end of its connection.
                    tracing::debug!(topic = self.topic, %error, "a producer is not connected");
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
                Err(error) => {
                    attempt = 0;
                    self.fail_all(&error);
                    let _ = first.take().map(|job| job.done.send(Err(error.clone())));
                    first = queue.recv().await;
                }
            }
        }
    }

    fn busy_tries(&self) -> u32 {
        if self.topic_epoch.is_some() { BUSY_AGAIN_TRIES_MAX } else { BUSY_TRIES_MAX }
    }

    async fn connect(&mut self) -> Result<(Link, mpsc::UnboundedReceiver<Incoming>), PulsarError> {
        let link = self.pool.of_topic(&self.topic).await?;
        let incoming = link.register_producer(self.id)?;
        let epoch = self.epoch;
        self.epoch += 1;
        let open = |request_id| {
            Command::Producer(proto::Producer {
                topic: self.topic.clone(),
                producer_id: self.id,
                request_id,
                producer_name: self.name.clone(),
                epoch: Some(epoch),
                access_mode: (self.beside == Beside::Nobody).then_some(EXCLUSIVE),
                topic_epoch: self.topic_epoch,
                ..proto::Producer::default()
            })
        };
        let opened = match link.ask(open).await {
            Ok(Command::ProducerSuccess(opened)) => opened,
            Ok(_) => return Err(unexpected("a producer")),
            Err(error) => {
                link.forget(self.id);
                return Err(error);
            }
        };
        self.name = Some(opened.producer_name);
        self.topic_epoch = opened.topic_epoch.filter(|_| self.beside == Beside::Nobody);
        if self.last.load(Relaxed) == NO_SEQUENCE
            && let Some(last) = opened.last_sequence_id.and_then(|last| u64::try_from(last).ok())
        {
            self.confirmed = Some(last);
            self.last.store(last, Relaxed);
        }
        // In order, with the sequences they had: the service drops what it has already.
        for pending in &self.pending {
            link.send_bytes(pending.frame.clone())?;
        }
        Ok((link, incoming))
    }

    async fn work(
        &mut self,
        link: &Link,
        mut incoming: mpsc::UnboundedReceiver<Incoming>,
        queue: &mut mpsc::Receiver<Job>,
        first: Option<Job>,
    ) -> Lost {
        let mut taken: Vec<Job> = first.into_iter().collect();
        loop {
            if self.send(link, &mut taken).is_err() {
                return Lost::Link;
            }
            tokio::select! {
                biased;
                told = incoming.recv() => match told {
                    Some((command, _)) => if self.told(link, command).is_err() {
                        return Lost::Link;
                    },
                    None => return Lost::Link,
                },
                count = queue.recv_many(&mut taken, JOBS_MAX) => if count == 0 {
                    return self.drain(link, incoming).await;
                },
            }
        }
    }

    /// Nobody will publish any more; what is under way is waited for.
    async fn drain(&mut self, link: &Link, mut incoming: mpsc::UnboundedReceiver<Incoming>) -> Lost {
        while !self.pending.is_empty() {
            let Some((command, _)) = incoming.recv().await else { return Lost::Link };
            if self.told(link, command).is_err() {
                return Lost::Link;
            }
        }
        Lost::Jobs
    }

    /// Packs the messages of all jobs that wait, and sends them.
    fn send(&mut self, link: &Link, taken: &mut Vec<Job>) -> Result<(), PulsarError> {
        let mut messages: Vec<Outgoing> = Vec::new();
        let mut parts = Vec::new();
        for job in taken.drain(..) {
            let number = self.next_job;
            self.next_job += 1;
            let mut open = Open { positions: vec![NO_POSITION; job.messages.len()], left: 0, _room: job.room, done: job.done };
            for (index, mut outgoing) in job.messages.into_iter().enumerate() {
                let last = Some(self.last.load(Relaxed)).filter(|last| *last != NO_SEQUENCE);
                let sequence = match outgoing.sequence {
                    Some(sequence) if !self.counts && last.is_some_and(|last| sequence <= last) => continue,
                    Some(sequence) if !self.counts => sequence,
                    _ => last.map_or(0, |last| last + 1),
                };
                self.last.store(sequence, Relaxed);
                outgoing.sequence = Some(sequence);
                messages.push(outgoing);
                parts.push((number, index));
                open.left += 1;
            }
            match open.left {
                0 => drop(open.done.send(Ok(open.positions))),
                _ => drop(self.jobs.insert(number, open)),
            }
        }
        let (now, name) = (now_ms(), self.name.clone().unwrap_or_default());
        let mut at = 0;
        while at < messages.len() {
            let some = &messages[at..at + pack::run(&messages[at..])];
            let sequence = |outgoing: Option<&Outgoing>| outgoing.and_then(|outgoing| outgoing.sequence).unwrap_or_default();
            let (first, last) = (sequence(some.first()), sequence(some.last()));
            let frame = pack::frame((self.id, &name), some, first, last, now);
            let parts = parts[at..at + some.len()].to_vec();
            self.pending.push_back(Pending { sequence: first, last, frame: frame.clone(), parts });
            at += some.len();
            link.send_bytes(frame)?;
        }
        Ok(())
    }

    fn told(&mut self, link: &Link, command: Command) -> Result<(), PulsarError> {
        match command {
            Command::SendReceipt(receipt) => {
                let Some(at) = self.pending.iter().position(|pending| pending.sequence == receipt.sequence_id) else {
                    return Ok(());
                };
                let Some(pending) = self.pending.remove(at) else { return Ok(()) };
                self.confirmed = self.confirmed.max(Some(pending.last));
                let id = receipt.message_id.filter(|id| id.ledger != u64::MAX);
                for (index, (job, of_job)) in pending.parts.into_iter().enumerate() {
                    let position = id.as_ref().and_then(|id| {
                        let place = Place { ledger: id.ledger, entry: id.entry };
                        // A service that takes batches apart says of the entry that it names that it is one message.
                        if id.batch_size == Some(1) { place.position_apart(index) } else { place.position(index) }
                    });
                    let position = position.unwrap_or(NO_POSITION);
                    self.done(job, of_job, position);
                }
                Ok(())
            }
            Command::SendError(error) => {
                let found = link.error(error.error, &error.message);
                if found.is_retryable() && error.error != i32::from(ServerError::ProducerBlockedQuotaExceeded) {
                    return Err(found);
                }
                if let Some(at) = self.pending.iter().position(|pending| pending.sequence == error.sequence_id)
                    && let Some(pending) = self.pending.remove(at)
                {
                    for (job, _) in pending.parts {
                        let _ = self.jobs.remove(&job).map(|open| open.done.send(Err(found.clone())));
                    }
                    // What was refused is not there, and may come again by its number.
                    let last = self.confirmed.max(self.pending.back().map(|pending| pending.last));
                    self.last.store(last.unwrap_or(NO_SEQUENCE), Relaxed);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn done(&mut self, job: u64, index: usize, position: Position) {
        let Some(open) = self.jobs.get_mut(&job) else { return };
        open.positions[index] = position;
        open.left -= 1;
        if open.left == 0
            && let Some(open) = self.jobs.remove(&job)
        {
            // Who does not wait any more has published all the same.
            let _ = open.done.send(Ok(open.positions));
        }
    }

    /// Gives up what is under way. Nobody knows what of it the service has; it says so at the next connection.
    fn fail_all(&mut self, error: &PulsarError) {
        self.pending.clear();
        self.last.store(NO_SEQUENCE, Relaxed);
        for (_, open) in self.jobs.drain() {
            let _ = open.done.send(Err(error.clone()));
        }
    }

    async fn close(&self, link: &Link) {
        let close = |request_id| Command::CloseProducer(proto::CloseProducer { producer_id: self.id, request_id });
        // A service that does not answer notices by itself.
        let _ = tokio::time::timeout(Duration::from_secs(1), link.ask(close)).await;
    }
}
