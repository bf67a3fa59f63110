//! redb: one table per topic, one write transaction per commit, at its default durability, which is immediate.

use crate::{
    Failed,
    workload::{Load, Opened, Store, check, check_count, in_windows, payload},
};
use redb::{Database, ReadableTable, TableDefinition};
use std::{ops::Range, path::Path};

struct Redb {
    database: Database,
    load: Load,
    names: Vec<String>,
}

fn table(name: &str) -> TableDefinition<'_, u64, &'static [u8]> {
    TableDefinition::new(name)
}

pub(crate) fn open(dir: &Path, load: Load) -> Opened {
    let database = Database::create(dir.join("redb"))?;
    let names = (0..load.topics).map(|topic| format!("topic-{topic}")).collect();
    Ok(Box::new(Redb { database, load, names }))
}

impl Store for Redb {
    fn commit(&mut self, publish: Range<u64>, consume: Range<u64>) -> Result<(), Failed> {
        let transaction = self.database.begin_write()?;
        for (topic, name) in self.names.iter().enumerate() {
            let topic = topic as u64;
            let (publish, consume) = (self.load.keys(&publish, topic), self.load.keys(&consume, topic));
            if publish.is_empty() && consume.is_empty() {
                continue;
            }
            let mut table = transaction.open_table(table(name))?;
            let mut taken = Vec::new();
            for entry in table.range(consume.start..)?.take((consume.end - consume.start) as usize) {
                let (key, value) = entry?;
                check(topic, key.value(), value.value())?;
                taken.push(key.value());
            }
            check_count(topic, &consume, taken.len())?;
            for key in in_windows(&taken) {
                table.remove(*key)?;
            }
            for key in publish {
                table.insert(key, payload(topic, key).as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failed> {
        Ok(())
    }
}
