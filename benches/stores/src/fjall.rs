//! fjall: one keyspace per topic, one batch per commit, synced.

use crate::{
    Failed,
    workload::{Load, Opened, Store, check, check_count, in_windows, payload},
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{ops::Range, path::Path};

struct Fjall {
    database: Database,
    load: Load,
    topics: Vec<Keyspace>,
}

pub(crate) fn open(dir: &Path, load: Load) -> Opened {
    let database = Database::builder(dir).open()?;
    let keyspace = |topic| database.keyspace(&format!("topic-{topic}"), KeyspaceCreateOptions::default);
    let topics = (0..load.topics).map(keyspace).collect::<Result<_, _>>()?;
    Ok(Box::new(Fjall { database, load, topics }))
}

impl Store for Fjall {
    fn commit(&mut self, publish: Range<u64>, consume: Range<u64>) -> Result<(), Failed> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (topic, keyspace) in self.topics.iter().enumerate() {
            let topic = topic as u64;
            let keys = self.load.keys(&consume, topic);
            let mut taken = Vec::new();
            // From where the last commit ended: from the beginning it would pass over everything that was ever deleted.
            for entry in keyspace.range(keys.start.to_be_bytes()..).take((keys.end - keys.start) as usize) {
                let (key, value) = entry.into_inner()?;
                check(topic, u64::from_be_bytes(key.as_ref().try_into()?), &value)?;
                taken.push(key);
            }
            check_count(topic, &keys, taken.len())?;
            // Each key is written once and removed once, which is what weak removal is for.
            in_windows(&taken).for_each(|key| batch.remove_weak(keyspace, key.clone()));
        }
        for number in publish {
            let (topic, key) = (number % self.load.topics, number / self.load.topics);
            batch.insert(&self.topics[topic as usize], key.to_be_bytes(), payload(topic, key));
        }
        Ok(batch.commit()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failed> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
