//! Which ledgers a topic has. As with Pulsar no two topics have one in common, so that an id names one message of all: a client of ours has
//! those of a topic and of what was given back of it together.

use super::place::LEDGERS_OF_TOPIC;
use leatworks_broker::{Broker, BrokerError, ErrorKind, Step};
use std::collections::{HashMap, HashSet};
use tokio::sync::Mutex;

/// How many topics can have ledgers at once: what is left of the 30 bits that a ledger may have in a client of ours.
const TOPICS_MAX: u64 = (1 << 30) / LEDGERS_OF_TOPIC - 1;

/// The numbers of all topics, from 1 on. They are kept as state of the broker.
#[derive(Default)]
pub(crate) struct Ledgers {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_topic: HashMap<String, u64>,
    used: HashSet<u64>,
    last: u64,
}

fn key(topic: &str) -> String {
    format!("leat-pulsar/ledger/{topic}")
}

async fn write(broker: &dyn Broker, topic: &str, number: Option<u64>) -> Result<(), BrokerError> {
    let value = number.map(|number| number.to_string().into());
    broker.commit(Step { state: vec![(key(topic), value)], ..Step::default() }).await
}

impl Ledgers {
    /// Reads what an earlier server has given.
    pub(crate) async fn load(broker: &dyn Broker) -> Result<Self, BrokerError> {
        let mut known = Known::default();
        for topic in broker.stats().await? {
            let Some(text) = broker.state(&key(&topic.spec.name)).await? else { continue };
            let number =
                std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).filter(|number| *number <= TOPICS_MAX);
            // One that cannot be read is given anew: ids from before are older than all then.
            if let Some(number) = number.filter(|number| known.used.insert(*number)) {
                known.last = known.last.max(number);
                known.by_topic.insert(topic.spec.name, number);
            }
        }
        Ok(Self { known: Mutex::new(known) })
    }

    /// The first ledger of a topic, which is given it for good if it has none.
    pub(crate) async fn of(&self, broker: &dyn Broker, topic: &str) -> Result<u64, BrokerError> {
        let mut known = self.known.lock().await;
        if let Some(number) = known.by_topic.get(topic) {
            return Ok(number * LEDGERS_OF_TOPIC);
        }
        let after = known.last;
        let mut free = (0..TOPICS_MAX).map(|step| (after + step) % TOPICS_MAX + 1);
        let number = free.find(|number| !known.used.contains(number)).ok_or_else(|| {
            BrokerError::new(ErrorKind::Invalid, format!("topic `{topic}` gets no ledger: {TOPICS_MAX} topics have one already"))
        })?;
        write(broker, topic, Some(number)).await?;
        known.last = number;
        known.used.insert(number);
        known.by_topic.insert(topic.to_owned(), number);
        Ok(number * LEDGERS_OF_TOPIC)
    }

    /// A topic is gone. Another of its name has other ledgers, so that nobody takes its messages for those from before.
    pub(crate) async fn forget(&self, broker: &dyn Broker, topic: &str) -> Result<(), BrokerError> {
        let mut known = self.known.lock().await;
        if let Some(number) = known.by_topic.remove(topic) {
            known.used.remove(&number);
            write(broker, topic, None).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leatworks_broker::{Limits, MemoryBroker, TopicSpec};

    #[tokio::test]
    async fn a_topic_keeps_its_ledger_and_shares_it_with_none() {
        let broker = MemoryBroker::new(Limits::default());
        for name in ["a", "b", "c"] {
            broker.create_topic(TopicSpec { name: name.to_owned(), ..TopicSpec::default() }).await.unwrap();
        }
        let ledgers = Ledgers::load(&broker).await.unwrap();
        let (a, b) = (ledgers.of(&broker, "a").await.unwrap(), ledgers.of(&broker, "b").await.unwrap());
        assert!(a > 0 && b >= a + LEDGERS_OF_TOPIC);
        assert_eq!(ledgers.of(&broker, "a").await.unwrap(), a);
        ledgers.forget(&broker, "a").await.unwrap();
        let again = Ledgers::load(&broker).await.unwrap();
        assert_eq!(again.of(&broker, "b").await.unwrap(), b, "the next server knows it");
        assert!(![a, b].contains(&again.of(&broker, "c").await.unwrap()));
        again.known.lock().await.last = TOPICS_MAX;
        assert_eq!(again.of(&broker, "a").await.unwrap(), a, "after the last number comes the first that is free");
    }
}
