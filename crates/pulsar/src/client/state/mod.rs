//! Keyed state: a topic for each topology, which only one process at a time writes to.
//!
//! A record has what one step writes, and which inputs it settles. It is written when the step's outputs are there and before its inputs are
//! acknowledged, so the record *is* the step: who opens the state after a crash in between takes those inputs for settled, and acknowledges
//! them when they come again. Now and then all that counts is written anew, and what was written before is let go.

mod record;
mod runs;

pub(crate) use runs::Runs;

use super::{
    Inner,
    admin::{At, Internal},
    error::{Answer, PulsarError},
    feed::{Feed, FeedOptions},
    limits::STILL_MAX,
    now_ms,
    pack::{Again, NO_POSITION, Outgoing, Place},
    random,
    reader::{self, Acknowledged, Reading},
    sender::{Beside, Sender},
    settle::Nobody,
    topics::{INTERNAL, KIND, retry_topic},
};
use crate::wire::proto::{MessageIdData, SubType};
use bytes::Bytes;
use leatworks_broker::{BrokerError, ErrorKind, Position, Result};
use record::{Inputs, Kept, Record, Write};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// The subscription that keeps a state topic's records.
const CURSOR: &str = "leat";

/// The most bytes of one value, as the contract says.
const VALUE_BYTES_MAX: usize = 16 << 20;

/// The topic that a key's value is kept in: all keys of one topology are kept together, so that a step can write several of them at once.
pub(super) fn topic_of(key: &str) -> String {
    of_topology(key.split('/').nth(1).unwrap_or_default())
}

fn of_topology(topology: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match topology {
        "" => "leat-STATE".to_owned(),
        name if name.len() < 200 && name.bytes().all(allowed) => format!("{name}-STATE"),
        other => format!("leat-{:016x}-STATE", xxhash_rust::xxh3::xxh3_64(other.as_bytes())),
    }
}

/// Checks what a step writes, and gives the topic that it is kept in.
pub(super) fn check(writes: &[(String, Option<Bytes>)]) -> Result<Option<String>> {
    let mut all: Option<String> = None;
    for (key, value) in writes {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        if bytes > VALUE_BYTES_MAX {
            let text = format!("state `{key}` of {bytes} bytes, at most {VALUE_BYTES_MAX} are taken");
            return Err(BrokerError::new(ErrorKind::TooLarge, text));
        }
        let topic = topic_of(key);
        if all.as_ref().is_some_and(|all| *all != topic) {
            let text =
                format!("state `{key}` is of another topology than what the step writes besides: on Pulsar they are kept apart");
            return Err(BrokerError::new(ErrorKind::Invalid, text));
        }
        all = Some(topic);
    }
    Ok(all)
}

/// Inputs that a step settles on one subscription: their positions, and where they lie.
pub(super) struct Settles {
    pub(super) topic: Arc<str>,
    pub(super) subscription: Arc<str>,
    pub(super) positions: Vec<(Position, Position)>,
}

impl Settles {
    fn inputs(&self) -> impl Iterator<Item = Inputs> + use<> {
        let (copies, own): (Vec<_>, Vec<_>) = self.positions.iter().partition(|(position, lies)| position != lies);
        let numbers = |positions: &mut dyn Iterator<Item = Position>| Runs::of(positions).numbers();
        let inputs = |all: Vec<(Position, Position)>, copies: bool| Inputs {
            topic: self.topic.to_string(),
            subscription: self.subscription.to_string(),
            positions: numbers(&mut all.iter().map(|(position, _)| *position)),
            copies: if copies { numbers(&mut all.iter().map(|(_, lies)| *lies)) } else { Vec::new() },
        };
        [inputs(own, false), inputs(copies, true)].into_iter().filter(|inputs| !inputs.positions.is_empty())
    }
}

/// The state of one topology, which this process alone writes.
pub(crate) struct Store {
    topic: String,
    sender: Sender,
    writer: u64,
    /// The last part's number; who has it writes, one after the other.
    number: tokio::sync::Mutex<u64>,
    kept: Mutex<Kept>,
    /// Where the last record ends.
    last: Mutex<Option<Place>>,
}

impl Store {
    async fn open(inner: &Inner, topic: &str) -> Result<Arc<Self>> {
        inner.admin.create_topic(topic, &BTreeMap::from([(KIND, INTERNAL.to_owned())])).await?;
        inner.admin.create_subscription(topic, CURSOR, At::EARLIEST).await?;
        let sender = Sender::open(inner.producing.clone(), inner.options.full(topic), None, Beside::Nobody);
        // From here on nobody else writes, so what is read is all there is.
        sender.last_sequence().await.map_err(|error| named(topic, error))?;
        let (kept, last) = read(inner, topic).await?;
        for ((topic, subscription), settled) in kept.all_settled() {
            inner.subscription(topic, subscription).hands().pin(settled);
        }
        let (number, kept, last) = (tokio::sync::Mutex::new(0), Mutex::new(kept), Mutex::new(last));
        Ok(Arc::new(Self { topic: topic.to_owned(), sender, writer: random(), number, kept, last }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what a step has written and settled. It has happened when this gives the number by which its inputs are known.
    pub(super) async fn step(&self, inner: &Inner, writes: Vec<(String, Option<Bytes>)>, settles: &[Settles]) -> Result<u64> {
        let writes = writes.into_iter().map(|(key, value)| Write { key, value }).collect();
        let settled = settles.iter().flat_map(Settles::inputs).collect();
        self.write(inner, Record { writes, settled, ..Record::default() }).await
    }

    async fn write(&self, inner: &Inner, record: Record) -> Result<u64> {
        let mut number = self.number.lock().await;
        let bytes = self.publish(&record, &mut number).await?;
        let (known_as, long) = {
            let mut kept = self.kept();
            let known_as = kept.apply(record, bytes);
            (known_as, kept.is_long())
        };
        if long && let Err(error) = self.renew(inner, &mut number).await {
            // What is there already goes on to count, and it is tried again with the next record.
            tracing::warn!(topic = self.topic, %error, "state could not be written anew");
        }
        Ok(known_as)
    }

    async fn publish(&self, record: &Record, number: &mut u64) -> Result<usize> {
        let parts = record::parts(record, self.writer, number, now_ms());
        let bytes = parts.iter().map(|part| part.payload.len()).sum();
        let outgoing = parts.into_iter().map(|message| Outgoing { message, sequence: None, again: Again::default() }).collect();
        let positions = self.sender.publish(outgoing, None).await.map_err(|error| named(&self.topic, error))?;
        // A part that the service had already has no place.
        let last = positions.iter().filter(|position| **position != NO_POSITION).map(|position| Place::of(*position).0).max();
        let mut known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(last);
        Ok(bytes)
    }

    /// The service has the acknowledgement of what a step has settled.
    pub(super) fn told(&self, number: u64) {
        let now = Instant::now();
        let mut kept = self.kept();
        // They are in the order of their numbers, and mostly at the end.
        let known = kept.settled.iter_mut().rev().take_while(|settled| settled.number >= number);
        known.filter(|settled| settled.number == number).for_each(|settled| settled.told = Some(now));
    }

    /// Writes all that counts anew and lets go of what was written before.
    async fn renew(&self, inner: &Inner, number: &mut u64) -> Result<()> {
        self.look_at_acks(inner).await;
        let record = {
            let mut kept = self.kept();
            kept.let_go();
            kept.snapshot()
        };
        let before = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish(&record, number).await?;
        self.kept().log_bytes = 0;
        let Some(before) = before else { return Ok(()) };
        let options = FeedOptions {
            topic: inner.options.full(&self.topic),
            subscription: CURSOR.to_owned(),
            kind: SubType::Failover,
            consumer: "leatworks".to_owned(),
            window: 0,
            still_max: STILL_MAX,
            from: None,
        };
        let cursor = Feed::open(inner.consuming.clone(), options, Arc::new(Nobody)).await?;
        let id = MessageIdData { ledger: before.ledger, entry: before.entry, ..MessageIdData::default() };
        let told = cursor.ack_through(id).await;
        cursor.close().await;
        Ok(told?)
    }

    /// Finds out which of the inputs are acknowledged: those that another process has settled, and those that would be let go of, since a service
    /// that has died in between has perhaps lost that.
    async fn look_at_acks(&self, inner: &Inner) {
        let unknown: Vec<(u64, Inputs)> = {
            let kept = self.kept();
            let unknown = kept.settled.iter().filter(|settled| settled.told.is_none() || !settled.is_kept());
            unknown.map(|settled| (settled.number, settled.inputs.clone())).collect()
        };
        let mut topics: HashMap<String, Answer<Internal>> = HashMap::new();
        for (number, inputs) in unknown {
            let (topic, lies) = match inputs.copies.is_empty() {
                true => (inputs.topic.clone(), &inputs.positions),
                false => (retry_topic(&inputs.topic, &inputs.subscription), &inputs.copies),
            };
            if !topics.contains_key(&topic) {
                let found = inner.admin.internal(&topic).await;
                topics.insert(topic.clone(), found);
            }
            let has_all = match &topics[&topic] {
                Ok(internal) => match internal.cursors.get(&inputs.subscription).and_then(Acknowledged::read) {
                    Some(known) => Runs::from_numbers(lies).ends().all(|(first, _)| known.has(Place::of(first).0)),
                    None => true,
                },
                // What is gone with its topic does not come again.
                Err(error) => matches!(error, PulsarError::NotFound(_)),
            };
            let mut kept = self.kept();
            // They are in the order of their numbers.
            let from = kept.settled.partition_point(|settled| settled.number < number);
            let same = kept.settled[from..].iter_mut().take_while(|settled| settled.number == number);
            let same = same.filter(|settled| settled.inputs == inputs);
            same.for_each(|settled| match has_all {
                true => drop(settled.told.get_or_insert_with(Instant::now)),
                false => settled.told = None,
            });
        }
    }

    /// Lets go of the topic, and waits until the service knows, so that the next process has it at once.
    pub(super) async fn close(self) {
        self.sender.end().await;
    }
}

/// Who else has the state is said in words that help.
fn named(topic: &str, error: PulsarError) -> PulsarError {
    match error {
        PulsarError::Busy(why) => PulsarError::Busy(format!(
            "another process writes to `{topic}`, and a topology's state has one writer at a time: end the other first; \
             if it has vanished with its machine, the service notices after a minute ({why})"
        )),
        error => error,
    }
}

/// Reads what a state topic keeps, and where it ends.
async fn read(inner: &Inner, topic: &str) -> Result<(Kept, Option<Place>)> {
    let cursor = inner.admin.internal(topic).await?.cursors.remove(CURSOR);
    let through = cursor.and_then(|cursor| reader::place(&cursor.mark_delete_position));
    let through =
        through.ok_or_else(|| PulsarError::NotFound(format!("topic `{topic}` has lost its subscription `{CURSOR}`")))?;
    let (mut kept, mut last, mut broken) = (Kept::default(), None, None);
    let reading = Reading { pool: &inner.consuming, admin: &inner.admin, options: &inner.options };
    reading
        .entries(topic, through, |place, messages| {
            last = Some(place);
            broken = messages.iter().find_map(|arrived| kept.read(&arrived.message).err());
            broken.is_none()
        })
        .await?;
    match broken {
        None => Ok((kept, last)),
        Some(error) => Err(BrokerError::new(ErrorKind::Invalid, format!("a record of `{topic}` cannot be read: {error}"))),
    }
}

impl Inner {
    /// The state that is kept in this topic, from now on written by this process alone.
    pub(super) async fn store(&self, topic: &str) -> Result<Arc<Store>> {
        let cell = self.known().stores.entry(topic.to_owned()).or_default().clone();
        Ok(cell.get_or_try_init(|| Store::open(self, topic)).await?.clone())
    }

    pub(super) async fn state(&self, key: &str) -> Result<Option<Bytes>> {
        self.check()?;
        let store = self.store(&topic_of(key)).await?;
        Ok(store.kept().values.get(key).cloned())
    }

    /// A subscription is moved or removed: what steps have settled of it may come again.
    pub(super) async fn forget_settled(&self, topic: &str, subscription: &str) -> Result<()> {
        let state = of_topology(&self.spec(topic).await?.topology);
        let known = self.known().stores.get(&state).and_then(|cell| cell.get().cloned());
        let has = |kept: &Kept| kept.all_settled().contains_key(&(topic, subscription));
        let listed = match &known {
            Some(store) => has(&store.kept()),
            None => match self.spec(&state).await {
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                found => has(&found.map(|_| read(self, &state))?.await?.0),
            },
        };
        if listed {
            let inputs = Inputs { topic: topic.to_owned(), subscription: subscription.to_owned(), ..Inputs::default() };
            let record = Record { moved: vec![inputs], ..Record::default() };
            self.store(&state).await?.write(self, record).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_topology_are_kept_together_and_others_apart() {
        for (key, topic) in [
            ("run/shop", "shop-STATE"),
            ("fold/shop/count", "shop-STATE"),
            ("source/other.one/a", "other.one-STATE"),
            ("k", "leat-STATE"),
            ("", "leat-STATE"),
        ] {
            assert_eq!(topic_of(key), topic);
        }
        assert!(topic_of("run/no name").starts_with("leat-") && topic_of("run/no name").ends_with("-STATE"));
        let write = |key: &str, bytes| (key.to_owned(), Some(Bytes::from(vec![0; bytes])));
        assert_eq!(check(&[]).unwrap(), None);
        assert_eq!(check(&[write("run/a", 1), write("fold/a/x", VALUE_BYTES_MAX)]).unwrap().as_deref(), Some("a-STATE"));
        for (writes, kind) in [
            (vec![write("run/a", 1), write("run/b", 1)], ErrorKind::Invalid),
            (vec![write("k", VALUE_BYTES_MAX + 1)], ErrorKind::TooLarge),
        ] {
            assert_eq!(check(&writes).unwrap_err().kind(), kind);
        }
    }
}
