//! Topics and subscriptions: how they are made, moved, looked at and counted.

use super::{
    Inner,
    admin::At,
    attempts,
    error::PulsarError,
    feed::{Feed, FeedOptions},
    limits::{PREFETCH_MAX, STILL_DELAYED_MAX, STILL_MAX},
    pack::Place,
    reader::{Acknowledged, Reading},
    seat::{Inbox, Seat},
    sender::Sender,
};
use crate::wire::proto::SubType;
use futures_util::future::join_all;
use leatworks_broker::{
    BrokerError, Consumer, ErrorKind, Position, Result, Start, Subscribe, SubscriptionKind, TopicKind, TopicSpec, TopicStats,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The properties of a topic that say what it is for.
pub(super) const KIND: &str = "leat-kind";
/// See [`KIND`].
const TOPOLOGY: &str = "leat-topology";
/// How long, in milliseconds, and how much of it is kept.
const RETENTION: &str = "leat-retention-ms";
/// See [`RETENTION`].
const RETENTION_BYTES: &str = "leat-retention-bytes";
/// The kind of a topic that nobody but this client uses.
pub(super) const INTERNAL: &str = "internal";

const KINDS: [(TopicKind, &str); 4] = [
    (TopicKind::Plain, "plain"),
    (TopicKind::Ingress, "ingress"),
    (TopicKind::Route, "route"),
    (TopicKind::DeadLetter, "dead-letter"),
];

/// How many topics are asked about at once when all are: each is a request on a connection of its own.
const LOOKS_AT_ONCE: usize = 16;

/// For how long it is taken for true that a topic is this client's own: another process may make it one of a graph.
const INTERNAL_TIME: Duration = Duration::from_secs(5);

/// The most bytes of a name.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Where messages go that are given back, as Pulsar's own clients name it.
pub(super) fn retry_topic(topic: &str, subscription: &str) -> String {
    let own = topic.ends_with(&format!("-{subscription}-RETRY"));
    if own { topic.to_owned() } else { beside(topic, subscription, "RETRY") }
}

/// A topic beside a subscription. If its name would be too long, a hash stands for it.
pub(super) fn beside(topic: &str, subscription: &str, what: &str) -> String {
    let name = format!("{topic}-{subscription}-{what}");
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let hash = xxhash_rust::xxh3::xxh3_128(format!("{topic}/{subscription}").as_bytes());
    // Names are ASCII, so any place in them is one between characters.
    let begin = topic.get(..NAME_BYTES_MAX / 2).unwrap_or(topic);
    format!("{begin}-{hash:032x}-{what}")
}

pub(super) fn sub_type(kind: SubscriptionKind) -> SubType {
    match kind {
        SubscriptionKind::Exclusive => SubType::Exclusive,
        SubscriptionKind::Shared => SubType::Shared,
        SubscriptionKind::Failover => SubType::Failover,
        SubscriptionKind::KeyShared => SubType::KeyShared,
    }
}

pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let text = format!("{what} `{name}`: a name is 1 to {NAME_BYTES_MAX} characters of `A-Za-z0-9._-`");
        return Err(BrokerError::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

fn missing_topic(topic: &str) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("there is no topic `{topic}`"))
}

fn missing_subscription(topic: &str, subscription: &str) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("topic `{topic}` has no subscription `{subscription}`"))
}

impl Inner {
    pub(super) async fn create_topic(&self, spec: TopicSpec) -> Result<()> {
        self.check()?;
        check_name("topic", &spec.name)?;
        let kind = KINDS.iter().find(|(kind, _)| *kind == spec.kind).map_or("plain", |(_, name)| name);
        let what = [(KIND, kind.to_owned()), (TOPOLOGY, spec.topology.clone())];
        let kept = [(RETENTION, spec.retention.as_millis().to_string()), (RETENTION_BYTES, spec.retention_bytes.to_string())];
        let properties = what.into_iter().chain(kept.clone()).collect();
        let (mut kind, mut topology) = (spec.kind, spec.topology);
        let mut changed = true;
        if !self.admin.create_topic(&spec.name, &properties).await? {
            match self.spec(&spec.name).await {
                // It was there for what is given back, and is now the graph's.
                Ok(_) if !self.known().topics.contains_key(&spec.name) => {
                    self.admin.set_properties(&spec.name, &properties).await?
                }
                Ok(there) => {
                    changed = (there.retention, there.retention_bytes) != (spec.retention, spec.retention_bytes);
                    // What it is was decided by who made it.
                    (kind, topology) = (there.kind, there.topology);
                    if changed {
                        self.admin.set_properties(&spec.name, &BTreeMap::from(kept)).await?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if changed && !spec.retention.is_zero() {
            let minutes = spec.retention.as_secs().div_ceil(60);
            let megabytes = if spec.retention_bytes == 0 { -1 } else { spec.retention_bytes.div_ceil(1 << 20) as i64 };
            self.admin.set_retention(&spec.name, minutes, megabytes).await?;
        }
        let spec = TopicSpec { kind, topology, ..spec };
        self.known().internal.remove(&spec.name);
        self.known().topics.insert(spec.name.clone(), spec);
        Ok(())
    }

    pub(super) async fn delete_topic(&self, topic: &str) -> Result<()> {
        self.check()?;
        self.spec(topic).await?;
        if !self.admin.subscriptions(topic).await?.is_empty() {
            return Err(BrokerError::new(ErrorKind::Conflict, format!("topic `{topic}` has subscriptions")));
        }
        self.drop_senders(topic).await;
        self.known().topics.remove(topic);
        Ok(self.admin.delete_topic(topic).await?)
    }

    /// Ends the producers of a topic, and waits until the service knows.
    async fn drop_senders(&self, topic: &str) {
        let ended: Vec<Sender> = {
            let mut known = self.known();
            let names: Vec<_> = known.senders.keys().filter(|(of, _)| of == topic).cloned().collect();
            names.iter().filter_map(|name| known.senders.remove(name)).collect()
        };
        for sender in ended {
            sender.end().await;
        }
    }

    /// A topic as it was made.
    pub(super) async fn spec(&self, topic: &str) -> Result<TopicSpec> {
        if let Some(spec) = self.known().topics.get(topic) {
            return Ok(spec.clone());
        }
        check_name("topic", topic).map_err(|_| missing_topic(topic))?;
        let properties = match self.admin.properties(topic).await {
            Err(PulsarError::NotFound(_)) => return Err(missing_topic(topic)),
            found => found?,
        };
        let number = |name: &str| properties.get(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let kind = properties.get(KIND).and_then(|kind| KINDS.iter().find(|(_, name)| name == kind)).map(|(kind, _)| *kind);
        let spec = TopicSpec {
            name: topic.to_owned(),
            kind: kind.unwrap_or_default(),
            topology: properties.get(TOPOLOGY).cloned().unwrap_or_default(),
            retention: Duration::from_millis(number(RETENTION)),
            retention_bytes: number(RETENTION_BYTES),
            durability: None,
        };
        if properties.get(KIND).is_none_or(|kind| kind != INTERNAL) {
            self.known().topics.insert(topic.to_owned(), spec.clone());
        }
        Ok(spec)
    }

    pub(super) async fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> Result<()> {
        self.check()?;
        check_name("subscription", subscription)?;
        self.spec(topic).await?;
        // What is given back has its place before the first message is handed out.
        let retry = retry_topic(topic, subscription);
        self.admin.create_topic(&retry, &BTreeMap::from([(KIND, INTERNAL.to_owned())])).await?;
        self.admin.create_subscription(&retry, subscription, At::EARLIEST).await?;
        let ledger = attempts::ledger_topic(topic, subscription);
        self.admin.create_topic(&ledger, &BTreeMap::from([(KIND, INTERNAL.to_owned())])).await?;
        self.admin.create_subscription(&ledger, attempts::CURSOR, At::EARLIEST).await?;
        let at = match start {
            Start::Earliest | Start::Time(_) => At::EARLIEST,
            Start::Latest => At::LATEST,
            Start::At(position) => At::entry_of(position),
        };
        match (self.admin.create_subscription(topic, subscription, at).await?, start) {
            (true, Start::Time(time)) => self.seek_time(topic, subscription, time).await,
            (true, Start::At(position)) => self.settle_before(topic, subscription, position).await,
            _ => Ok(()),
        }
    }

    /// Entry by entry the service finds the time, and what is older in the first one is settled.
    async fn seek_time(&self, topic: &str, subscription: &str, time: u64) -> Result<()> {
        // The service takes a time with a sign.
        self.admin.seek_time(topic, subscription, time.min(i64::MAX as u64)).await?;
        let internal = self.admin.internal(topic).await?;
        let Some(stands) = internal.cursors.get(subscription).and_then(Acknowledged::read) else { return Ok(()) };
        let mut first = None;
        let reading = Reading { pool: &self.consuming, admin: &self.admin, options: &self.options };
        reading
            .entries(topic, stands.through, |place, messages| {
                first = Some((place, messages.iter().take_while(|arrived| arrived.message.created_ms < time).count()));
                false
            })
            .await?;
        match first {
            Some((place, older)) => self.settle_first(topic, subscription, place, older).await,
            None => Ok(()),
        }
    }

    /// The service moves to entries; what is before a message in its batch is settled.
    async fn settle_before(&self, topic: &str, subscription: &str, position: Position) -> Result<()> {
        let (place, index) = Place::of(position);
        self.settle_first(topic, subscription, place, index).await
    }

    /// Settles the first messages of an entry.
    async fn settle_first(&self, topic: &str, subscription: &str, place: Place, count: usize) -> Result<()> {
        if count > 0 {
            let parts = BTreeMap::from([(place, (0..count).collect())]);
            self.settle_unknown(&self.subscription(topic, subscription), topic, parts).await?;
        }
        Ok(())
    }

    /// A subscription that somebody names is there. What has a consumer here is known to be.
    pub(super) async fn check_named(&self, topic: &str, subscription: &str) -> Result<()> {
        let kind = self.subscription(topic, subscription).hands().kind();
        if kind.is_some() { Ok(()) } else { self.check_subscription(topic, subscription).await }
    }

    pub(super) async fn check_subscription(&self, topic: &str, subscription: &str) -> Result<()> {
        self.spec(topic).await?;
        match self.admin.subscriptions(topic).await?.iter().any(|found| found == subscription) {
            true => Ok(()),
            false => Err(missing_subscription(topic, subscription)),
        }
    }

    /// Who holds a subscription here has to leave first, and the service has to know.
    async fn check_free(&self, topic: &str, subscription: &str) -> Result<()> {
        self.check_subscription(topic, subscription).await?;
        let known = self.subscription(topic, subscription);
        known.settle_down().await;
        let stats = self.admin.stats(topic).await?;
        let consumers = stats.subscriptions.get(subscription).map_or(0, |found| found.consumers.len());
        if consumers > 0 || known.hands().kind().is_some() {
            let text = format!("subscription `{subscription}` of `{topic}` has consumers");
            return Err(BrokerError::new(ErrorKind::Conflict, text));
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, topic: &str, subscription: &str) -> Result<()> {
        self.check()?;
        self.check_free(topic, subscription).await?;
        self.forget_settled(topic, subscription).await?;
        // Who makes it again must not find it settled, also if somebody else keeps the ledger from being removed. One that is lost says nothing.
        if let Ok(ledger) = self.ledger(&self.subscription(topic, subscription)).await {
            ledger.forget().await?;
        }
        self.admin.unsubscribe(topic, subscription).await?;
        let known = self.known().subscriptions.remove(&(topic.to_owned(), subscription.to_owned()));
        if let Some(ledger) = known.as_ref().and_then(|known| known.ledger.get()) {
            ledger.close().await;
        }
        // Its ledger publishes as long as it is held, and a topic that has a producer cannot be removed.
        drop(known);
        let retry = (retry_topic(topic, subscription), subscription);
        let ledger = (attempts::ledger_topic(topic, subscription), attempts::CURSOR);
        for (topic, subscription) in [retry, ledger] {
            self.drop_senders(&topic).await;
            for removed in [self.admin.unsubscribe(&topic, subscription).await, self.admin.delete_topic(&topic).await] {
                match removed {
                    // Somebody else who has known it may still read what is of no more use.
                    Ok(()) | Err(PulsarError::NotFound(_) | PulsarError::Busy(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    pub(super) async fn seek(&self, topic: &str, subscription: &str, to: Start) -> Result<()> {
        self.check()?;
        self.check_free(topic, subscription).await?;
        self.forget_settled(topic, subscription).await?;
        let known = self.subscription(topic, subscription);
        known.hands().forget_attempts();
        self.ledger(&known).await?.forget().await?;
        let retry = retry_topic(topic, subscription);
        // What was given back is there a second time where the topic keeps what is settled, and nowhere else where it does not.
        if to == Start::Latest || !self.spec(topic).await?.retention.is_zero() {
            match self.admin.skip_all(&retry, subscription).await {
                Ok(()) | Err(PulsarError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match to {
            Start::Earliest => Ok(self.admin.seek(topic, subscription, At::EARLIEST).await?),
            Start::Latest => Ok(self.admin.skip_all(topic, subscription).await?),
            Start::At(position) => {
                self.admin.seek(topic, subscription, At::entry_of(position)).await?;
                self.settle_before(topic, subscription, position).await
            }
            Start::Time(time) => self.seek_time(topic, subscription, time).await,
        }
    }

    pub(super) async fn subscribe(self: Arc<Self>, subscribe: Subscribe) -> Result<Box<dyn Consumer>> {
        self.check()?;
        let Subscribe { topic, subscription, kind, consumer, permits, .. } = subscribe;
        if permits == 0 {
            return Err(BrokerError::new(ErrorKind::Invalid, "a consumer needs a permit at least"));
        }
        self.check_subscription(&topic, &subscription).await?;
        let known = self.subscription(&topic, &subscription);
        known.settle_down().await;
        // Nothing is handed out whose attempt cannot be noted.
        self.ledger(&known).await?.greet();
        let id = self.next_seat.fetch_add(1, Relaxed);
        let wake = Arc::<tokio::sync::Notify>::default();
        if self.has_repetitions(&topic, &subscription).await? {
            known.hands().drop_repetitions();
        }
        known.hands().sit(id, kind, permits, wake.clone());
        // From here on its end, also by an error, makes it leave.
        let seat =
            Seat { inner: self.clone(), subscription: known.clone(), id, wake, noting: VecDeque::new(), ready: VecDeque::new() };
        let retry = retry_topic(&topic, &subscription);
        let retry = Some(retry).filter(|retry| *retry != topic);
        // A retry topic of the graph has consumers of its own.
        let retry = match retry {
            Some(retry) if self.visible(&retry).await?.is_none() => Some(retry),
            _ => None,
        };
        let both = [Some((topic.clone(), STILL_MAX)), retry.map(|retry| (retry, STILL_DELAYED_MAX))];
        for (topic, still_max) in both.into_iter().flatten() {
            let options = FeedOptions {
                topic: self.options.full(&topic),
                subscription: subscription.clone(),
                kind: sub_type(kind),
                consumer: consumer.clone(),
                window: permits.min(PREFETCH_MAX),
                still_max,
                from: None,
            };
            let inbox = Arc::new(Inbox { subscription: known.clone(), seat: id });
            let feed = Feed::open(self.consuming.clone(), options, inbox).await?;
            known.hands().add_feed(id, &feed);
            feed.ask_last().await;
        }
        Ok(Box::new(seat))
    }

    /// Whether what comes twice there with the same id is a repetition. What is redriven, or given back, has its id a second time.
    async fn has_repetitions(&self, topic: &str, subscription: &str) -> Result<bool> {
        let kind = self.spec(topic).await?.kind;
        Ok(matches!(kind, TopicKind::Ingress | TopicKind::Route) && retry_topic(topic, subscription) != topic)
    }

    pub(super) async fn stats(&self) -> Result<Vec<TopicStats>> {
        self.check()?;
        let names = self.admin.topics().await?;
        let mut all = Vec::new();
        for some in names.chunks(LOOKS_AT_ONCE) {
            for stats in join_all(some.iter().map(|name| self.stats_of(name, &names))).await {
                all.extend(stats?);
            }
        }
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(all)
    }

    /// One topic, without a look at all others.
    pub(super) async fn topic_stats(&self, name: &str) -> Result<Option<TopicStats>> {
        self.check()?;
        let names = self.admin.topics().await?;
        self.stats_of(name, &names).await
    }

    async fn stats_of(&self, name: &str, names: &[String]) -> Result<Option<TopicStats>> {
        let Some(spec) = self.visible(name).await? else { return Ok(None) };
        let stats = match self.admin.stats(name).await {
            // It was removed meanwhile.
            Err(PulsarError::NotFound(_)) => return Ok(None),
            found => found?,
        };
        let mut subscriptions = BTreeMap::new();
        for (subscription, found) in stats.subscriptions.iter().filter(|(_, found)| found.durable != Some(false)) {
            let mut counted = found.counted();
            let retry = retry_topic(name, subscription);
            if retry != name
                && names.contains(&retry)
                && self.visible(&retry).await?.is_none()
                && let Some(found) = self.admin.stats(&retry).await?.subscriptions.get(subscription)
            {
                let more = found.counted();
                counted.backlog += more.backlog;
                counted.in_flight += more.in_flight;
                counted.delayed += more.delayed;
            }
            let (handed, waiting, delayed) = self.subscription(name, subscription).hands().counts();
            // The service takes what it has sent for being in hand, and does not count where a consumer is alone.
            let all = counted.backlog + counted.in_flight;
            counted.in_flight = counted.in_flight.saturating_sub(waiting as u64).max(handed as u64);
            counted.backlog = all.saturating_sub(counted.in_flight);
            // The service goes on counting what was settled while it waited.
            counted.delayed = counted.delayed.max(delayed as u64).min(counted.backlog);
            subscriptions.insert(subscription.clone(), counted);
        }
        Ok(Some(TopicStats { spec, published: stats.msg_in_counter, damaged: 0, subscriptions }))
    }

    /// A topic as it was made, unless only this client uses it or it is not there.
    pub(super) async fn visible(&self, topic: &str) -> Result<Option<TopicSpec>> {
        if self.known().internal.get(topic).is_some_and(|seen| seen.elapsed() < INTERNAL_TIME) {
            return Ok(None);
        }
        let spec = match self.spec(topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let mut known = self.known();
        if known.topics.contains_key(topic) {
            return Ok(Some(spec));
        }
        known.internal.insert(topic.to_owned(), Instant::now());
        Ok(None)
    }
}
