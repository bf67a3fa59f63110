//! SQLite with a write-ahead log that is synced at each commit: one table per topic, statements prepared once.

use crate::{
    Failed,
    workload::{Load, Opened, Store, check, check_count, in_windows, payload},
};
use rusqlite::Connection;
use std::{ops::Range, path::Path};

struct Sqlite {
    connection: Connection,
    load: Load,
    statements: Vec<Statements>,
}

/// The texts of one topic's statements; the connection keeps them prepared.
struct Statements {
    insert: String,
    select: String,
    delete: String,
}

pub(crate) fn open(dir: &Path, load: Load) -> Opened {
    let connection = Connection::open(dir.join("sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(3 * load.topics as usize);
    let mut statements = Vec::new();
    for topic in 0..load.topics {
        connection.execute_batch(&format!("CREATE TABLE topic{topic} (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)"))?;
        statements.push(Statements {
            insert: format!("INSERT INTO topic{topic} (id, payload) VALUES (?1, ?2)"),
            select: format!("SELECT id, payload FROM topic{topic} WHERE id >= ?1 ORDER BY id LIMIT ?2"),
            delete: format!("DELETE FROM topic{topic} WHERE id = ?1"),
        });
    }
    Ok(Box::new(Sqlite { connection, load, statements }))
}

impl Store for Sqlite {
    fn commit(&mut self, publish: Range<u64>, consume: Range<u64>) -> Result<(), Failed> {
        let transaction = self.connection.transaction()?;
        for (topic, texts) in self.statements.iter().enumerate() {
            let topic = topic as u64;
            let (publish, consume) = (self.load.keys(&publish, topic), self.load.keys(&consume, topic));
            let mut taken = Vec::new();
            if !consume.is_empty() {
                let mut select = transaction.prepare_cached(&texts.select)?;
                let mut rows = select.query((consume.start as i64, (consume.end - consume.start) as i64))?;
                while let Some(row) = rows.next()? {
                    let id: i64 = row.get(0)?;
                    check(topic, id as u64, row.get_ref(1)?.as_blob()?)?;
                    taken.push(id);
                }
            }
            check_count(topic, &consume, taken.len())?;
            for id in in_windows(&taken) {
                transaction.prepare_cached(&texts.delete)?.execute([id])?;
            }
            for key in publish {
                transaction.prepare_cached(&texts.insert)?.execute((key as i64, payload(topic, key)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failed> {
        self.connection.close().map_err(|(_, error)| error.into())
    }
}
