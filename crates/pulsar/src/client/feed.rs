//! One consumer of one topic on Pulsar: its messages go to whoever asked for them, its acknowledgements back, over as many connections as it
//! takes.

use super::{
    error::PulsarError,
    limits::{ANSWER_TIME_MAX, WATCH_INTERVAL, backoff},
    link::{Incoming, Link},
    pool::{Pool, unexpected},
};
use crate::wire::{
    frame::Entry,
    proto::{Ack, Command, ConsumerStats, Deliver, Flow, KeySharedMeta, MessageIdData, OfConsumer, SubType, Subscribe},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// The types of acknowledgements.
const INDIVIDUAL: i32 = 0;
/// See [`INDIVIDUAL`].
const CUMULATIVE: i32 = 1;

/// What a feed is opened with.
#[derive(Clone, Debug)]
pub(crate) struct FeedOptions {
    /// The full name of the topic.
    pub(crate) topic: String,
    pub(crate) subscription: String,
    pub(crate) kind: SubType,
    pub(crate) consumer: String,
    /// How many messages may be on their way here.
    pub(crate) window: usize,
    /// After how many looks at a backlog of which nothing comes it is made anew.
    pub(crate) still_max: u32,
    /// With a place, nothing of it outlives its connection: it reads what comes behind that, and over a new connection what comes behind [`Feed::has_read`].
    pub(crate) from: Option<MessageIdData>,
}

/// Who gets what comes. Called by one task, never at the same time twice.
pub(crate) trait Sink: Send + Sync + 'static {
    /// An entry has come.
    fn arrived(&self, feed: &Arc<Feed>, deliver: Deliver, entry: Entry);
    /// Everything that was delivered and not taken will come again, here or elsewhere.
    fn lost(&self, feed: &Arc<Feed>);
    /// It cannot go on, and nothing more will come.
    fn failed(&self, feed: &Arc<Feed>, error: PulsarError);
    /// How many of its entries are here and wait; none if something of it is in hand, which would come to somebody else too if the consumer were made anew.
    fn entries(&self, _: &Arc<Feed>) -> Option<usize> {
        Some(0)
    }
}

/// A consumer on Pulsar.
pub(crate) struct Feed {
    options: FeedOptions,
    pool: Arc<Pool>,
    id: u64,
    /// The connection, and how many there were before it.
    link: watch::Sender<Option<Link>>,
    epoch: AtomicU64,
    credit: AtomicUsize,
    /// Messages that have come over this connection, and in whose place no others may come yet.
    here: AtomicUsize,
    /// Entries that have come over this connection.
    came: AtomicUsize,
    /// The last entry that the topic had when this connection had been subscribed, or later; none as long as that is not known. It is asked for when something has come over a later connection.
    last: Mutex<Option<(i64, i64)>>,
    /// Where it reads from, if it is a reader.
    from: Mutex<Option<MessageIdData>>,
    stop: watch::Sender<bool>,
    failed: Mutex<Option<PulsarError>>,
}

impl Feed {
    /// Subscribes; what comes from then on goes to the sink.
    pub(crate) async fn open(pool: Arc<Pool>, options: FeedOptions, sink: Arc<dyn Sink>) -> Result<Arc<Self>, PulsarError> {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
        let feed = Arc::new(Self {
            from: Mutex::new(options.from.clone()),
            options,
            pool,
            id: NEXT.fetch_add(1, Relaxed),
            link: watch::Sender::new(None),
            epoch: AtomicU64::new(0),
            credit: AtomicUsize::new(0),
            here: AtomicUsize::new(0),
            came: AtomicUsize::new(0),
            last: Mutex::default(),
            stop: watch::Sender::new(false),
            failed: Mutex::default(),
        });
        let (link, incoming) = feed.connect().await?;
        tokio::spawn(run(feed.clone(), link, incoming, sink));
        Ok(feed)
    }

    /// Which of its connections this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    pub(crate) fn options(&self) -> &FeedOptions {
        &self.options
    }

    pub(crate) fn topic(&self) -> &str {
        &self.options.topic
    }

    async fn connect(&self) -> Result<(Link, mpsc::UnboundedReceiver<Incoming>), PulsarError> {
        let link = self.pool.of_topic(&self.options.topic).await?;
        let incoming = link.register_consumer(self.id)?;
        let FeedOptions { topic, subscription, kind, consumer, window, .. } = &self.options;
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let subscribe = |request_id| {
            Command::Subscribe(Subscribe {
                topic: topic.clone(),
                subscription: subscription.clone(),
                sub_type: (*kind).into(),
                consumer_id: self.id,
                request_id,
                consumer_name: Some(consumer.clone()),
                durable: Some(from.is_none()),
                start_message_id: from.clone(),
                initial_position: Some(1),
                force_topic_creation: Some(false),
                key_shared: (*kind == SubType::KeyShared).then_some(KeySharedMeta { mode: 0 }),
                ..Subscribe::default()
            })
        };
        match link.ask(subscribe).await {
            Ok(Command::Success(_)) => {}
            answer => {
                link.forget(self.id);
                return Err(answer.err().unwrap_or_else(|| unexpected("a subscription")));
            }
        }
        self.epoch.fetch_add(1, Relaxed);
        self.credit.store(0, Relaxed);
        self.here.store(0, Relaxed);
        self.came.store(0, Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if *window > 0 {
            link.send(Command::Flow(Flow { consumer_id: self.id, permits: *window as u32 }))?;
        }
        self.link.send_replace(Some(link.clone()));
        Ok((link, incoming))
    }

    /// So many messages more may come, if they are of the connection that is there now.
    pub(crate) fn give(&self, messages: usize, epoch: u64) {
        if epoch != self.epoch() {
            return;
        }
        // A connection that was made anew in this moment counts from zero.
        let _ = self.here.fetch_update(Relaxed, Relaxed, |here| Some(here.saturating_sub(messages)));
        if self.credit.fetch_add(messages, Relaxed) + messages >= self.options.window.div_ceil(2) {
            self.flush();
        }
    }

    /// A reader needs nothing up to here any more.
    pub(crate) fn has_read(&self, through: MessageIdData) {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).replace(through);
    }

    /// Tells the service of what may come.
    pub(crate) fn flush(&self) {
        let link = self.link.borrow().clone();
        let credit = self.credit.swap(0, Relaxed);
        if let (Some(link), 1..) = (link, credit) {
            // A connection that has ended is followed by one that tells it anew.
            let _ = link.send(Command::Flow(Flow { consumer_id: self.id, permits: credit as u32 }));
        }
    }

    /// Sends a command that is not answered, if there is a connection.
    pub(crate) fn tell(&self, command: impl FnOnce(u64) -> Command) {
        if let Some(link) = &*self.link.borrow() {
            let _ = link.send(command(self.id));
        }
    }

    /// Acknowledges, and waits until the service has answered, over as many connections as it takes.
    pub(crate) async fn ack(&self, ids: Vec<MessageIdData>) -> Result<(), PulsarError> {
        if ids.is_empty() { Ok(()) } else { self.ack_as(INDIVIDUAL, ids).await }
    }

    /// The same of a message and all before it.
    pub(crate) async fn ack_through(&self, id: MessageIdData) -> Result<(), PulsarError> {
        self.ack_as(CUMULATIVE, vec![id]).await
    }

    async fn ack_as(&self, ack_type: i32, ids: Vec<MessageIdData>) -> Result<(), PulsarError> {
        let mut links = self.link.subscribe();
        loop {
            let link = links.wait_for(Option::is_some).await.map_err(|_| PulsarError::Closed)?.clone();
            let Some(link) = link else { continue };
            let ack = |request_id| {
                let request_id = Some(request_id);
                Command::Ack(Ack { consumer_id: self.id, ack_type, message_ids: ids.clone(), request_id, ..Ack::default() })
            };
            // A consumer that the service has closed meanwhile gets no answer.
            let answer = tokio::select! {
                answer = link.ask(ack) => answer,
                _ = links.changed() => continue,
            };
            match answer {
                Ok(Command::AckResponse(answer)) => match answer.error {
                    None => return Ok(()),
                    Some(code) => {
                        let error = link.error(code, &answer.message.unwrap_or_default());
                        if !error.is_retryable() {
                            return Err(error);
                        }
                    }
                },
                Ok(_) => return Err(unexpected("an acknowledgement")),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(_) => {}
            }
            if self.stopped() {
                return Err(PulsarError::Away("the consumer has left".to_owned()));
            }
            if let Some(error) = self.error() {
                return Err(error);
            }
            // The same connection may be there for a moment more.
            let _ = tokio::time::timeout(backoff(2), links.changed()).await;
        }
    }

    /// The last entry that the service has for it, unless there is none.
    pub(crate) async fn last(&self) -> Result<Option<(u64, i64)>, PulsarError> {
        let link = self.link.borrow().clone();
        let link = link.ok_or_else(|| PulsarError::Away("the connection was lost while a topic was read".to_owned()))?;
        // -1 is said of a topic that has nothing.
        let last = self.last_on(&link).await?.filter(|(_, entry)| *entry >= 0);
        Ok(last.map(|(ledger, entry)| (ledger as u64, entry)))
    }

    /// The ledger and the entry of the last message; of a topic that has nothing, one before its first.
    async fn last_on(&self, link: &Link) -> Result<Option<(i64, i64)>, PulsarError> {
        let ask = |request_id| Command::GetLastMessageId(OfConsumer { consumer_id: self.id, request_id });
        match link.ask(ask).await? {
            Command::GetLastMessageIdResponse(found) => {
                let id = found.last_message_id;
                Ok(Some((id.ledger as i64, id.entry as i64)))
            }
            _ => Err(unexpected("the last message")),
        }
    }

    /// Asks where the topic ends, if that is of use and not known. Without an answer in time it stays unknown.
    ///
    /// Not done by itself when a connection is there: a service that has just started has enough to do when all come back at once.
    pub(crate) async fn ask_last(&self) {
        let (link, epoch) = (self.link.borrow().clone(), self.epoch());
        let is_known = self.last.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let Some(link) = link.filter(|_| self.tells_first_time() && !is_known) else { return };
        if let Ok(Ok(last)) = tokio::time::timeout(WATCH_INTERVAL, self.last_on(&link)).await {
            let mut known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            // A connection that came meanwhile asks by itself.
            if epoch == self.epoch() {
                *known = last;
            }
        }
    }

    /// Whether an entry that comes is told to have come before, by its count or by what the topic had: not where one consumer follows another, to which the service says nothing.
    fn tells_first_time(&self) -> bool {
        self.options.window > 0 && self.options.from.is_none() && self.options.kind != SubType::Failover
    }

    /// Whether an entry was delivered to nobody else before. What was in the topic when this connection began may have been, and what the service counts as delivered again was; until that is
    /// known all may have been.
    ///
    /// The service does not count what goes from a consumer that has ended to another one: with others on the subscription this is not known.
    pub(crate) fn is_first_time(&self, deliver: &Deliver) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let id = &deliver.message_id;
        deliver.redelivery_count.unwrap_or_default() == 0 && last.is_some_and(|last| (id.ledger as i64, id.entry as i64) > last)
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Why it has ended, if it has by itself.
    pub(crate) fn error(&self) -> Option<PulsarError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves. What is not settled goes back to the subscription.
    pub(crate) async fn close(&self) {
        // Taken first: who is told to stop lets go of it.
        let link = self.link.borrow().clone();
        self.stop.send_replace(true);
        let Some(link) = link else { return };
        let close = |request_id| Command::CloseConsumer(OfConsumer { consumer_id: self.id, request_id });
        // A service that does not answer notices the end of the connection by itself.
        let _ = tokio::time::timeout(Duration::from_secs(5), link.ask(close)).await;
        link.forget(self.id);
    }

    /// Whether the service has something for this consumer, although nothing comes. Who stands by, or has other keys, cannot tell: what is there
    /// may be for somebody else.
    ///
    /// What the service takes for unacknowledged says nothing: it counts what came again over a new connection, and was acknowledged over the old one, for as long as
    /// the consumer is there. So it is compared with what is here.
    async fn stands_still(self: &Arc<Self>, link: &Link, sink: &dyn Sink) -> bool {
        let can_tell = matches!(self.options.kind, SubType::Shared | SubType::Exclusive) && self.options.window > 0;
        // As long as something here is in the way of what may come, nothing needs to come.
        if !can_tell || self.here.load(Relaxed) > 0 {
            return false;
        }
        // Who reads only acknowledges nothing, so all that came over this connection is a backlog to the service.
        let known = if self.options.from.is_some() { Some(self.came.load(Relaxed)) } else { sink.entries(self) };
        let Some(known) = known else { return false };
        let ask = |request_id| Command::ConsumerStats(ConsumerStats { request_id, consumer_id: self.id });
        match tokio::time::timeout(ANSWER_TIME_MAX, link.ask(ask)).await {
            Ok(Ok(Command::ConsumerStatsResponse(found))) => {
                found.error.is_none() && found.backlog.unwrap_or_default() > known as u64
            }
            _ => false,
        }
    }
}

async fn run(feed: Arc<Feed>, link: Link, incoming: mpsc::UnboundedReceiver<Incoming>, sink: Arc<dyn Sink>) {
    let mut now = Some((link, incoming));
    let mut stop = feed.stop.subscribe();
    let mut attempt = 0;
    while !feed.stopped() {
        if let Some((link, incoming)) = now.take() {
            attempt = 0;
            listen(&feed, &link, incoming, &*sink).await;
            link.forget(feed.id);
            feed.link.send_replace(None);
            if feed.stopped() {
                break;
            }
            sink.lost(&feed);
        }
        match feed.connect().await {
            Ok(connected) => now = Some(connected),
            // Who had the subscription for itself is there until the service has noticed the end of its connection.
            Err(error) if error.is_retryable() || matches!(error, PulsarError::Busy(_)) => {
                tracing::debug!(topic = feed.topic(), %error, "a consumer is not connected");
                tokio::select! {
                    () = tokio::time::sleep(backoff(attempt)) => {}
                    () = told_to_stop(&mut stop) => {}
                }
                attempt = attempt.saturating_add(1);
            }
            Err(error) => {
                *feed.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                sink.failed(&feed, error);
                return;
            }
        }
    }
    // It was subscribed again while it was told to leave.
    if let Some((link, _)) = now {
        link.forget(feed.id);
        let _ = link.send(Command::CloseConsumer(OfConsumer { consumer_id: feed.id, request_id: 0 }));
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    // The sender is there as long as its feed.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Until the connection ends, the service takes the consumer away, or it stands still.
async fn listen(feed: &Arc<Feed>, link: &Link, mut incoming: mpsc::UnboundedReceiver<Incoming>, sink: &dyn Sink) {
    let mut stop = feed.stop.subscribe();
    let mut still = 0;
    loop {
        let told = tokio::select! {
            told = incoming.recv() => told,
            () = told_to_stop(&mut stop) => return,
            () = tokio::time::sleep(WATCH_INTERVAL) => {
                if feed.stands_still(link, sink).await {
                    still += 1;
                    if still >= feed.options.still_max {
                        tracing::info!(topic = feed.topic(), "a consumer stands still before a backlog and is made anew");
                        let close = |request_id| Command::CloseConsumer(OfConsumer { consumer_id: feed.id, request_id });
                        let _ = link.ask(close).await;
                        return;
                    }
                    // Perhaps what may come was lost; it is told again.
                    feed.flush();
                } else {
                    still = 0;
                }
                continue;
            }
        };
        still = 0;
        match told {
            Some((Command::Message(deliver), Some(entry))) => {
                feed.here.fetch_add(entry.metadata.num_messages_in_batch.unwrap_or(1).max(1) as usize, Relaxed);
                if feed.came.fetch_add(1, Relaxed) == 0 && feed.tells_first_time() {
                    let feed = feed.clone();
                    tokio::spawn(async move { feed.ask_last().await });
                }
                sink.arrived(feed, deliver, entry);
            }
            Some(_) => {}
            None => return,
        }
    }
}
