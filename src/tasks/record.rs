//! `record`: what became of every subscriber, one line of JSON each.

use super::Outcome;
use leatworks::{Context, Setup, Task, TaskError};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps the record. A repeated attempt adds nothing, since each line holds the id of its message.
#[derive(Debug, Deserialize)]
pub struct Record {
    /// The file; by default `record.jsonl` in the data directory.
    #[serde(default)]
    path: Option<PathBuf>,
    #[serde(skip)]
    book: Option<Arc<Mutex<Book>>>,
}

#[derive(Debug)]
struct Book {
    file: File,
    ids: HashSet<String>,
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    id: String,
    #[serde(flatten)]
    outcome: T,
}

impl Task for Record {
    type In = Outcome;
    type Out = ();

    async fn start(&mut self, setup: &Setup) -> Result<(), TaskError> {
        let path = self.path.clone().unwrap_or_else(|| setup.data().join("record.jsonl"));
        let book = Book::open(&path).map_err(|error| TaskError::permanent(format!("record `{}`: {error}", path.display())))?;
        setup.results_at(path);
        self.book = Some(Arc::new(Mutex::new(book)));
        Ok(())
    }

    async fn run(&self, outcome: Outcome, cx: &Context) -> Result<(), TaskError> {
        let book = self.book.clone().ok_or_else(|| TaskError::permanent("it has not been started"))?;
        let id = cx.message_id().to_string();
        tokio::task::spawn_blocking(move || {
            // After a panic the book is as it was: a line is written before its id is noted.
            book.lock().unwrap_or_else(PoisonError::into_inner).add(id, &outcome)
        })
        .await??;
        Ok(())
    }
}

impl Book {
    /// Opens the record and learns which messages it holds. The half line of a writer that was killed is cut off.
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
        let (mut whole, mut ids) = (0, HashSet::new());
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            whole += line.len() as u64;
            if let Ok(known) = serde_json::from_slice::<Line<serde_json::Value>>(&line) {
                ids.insert(known.id);
            }
            line.clear();
        }
        file.set_len(whole)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok(Self { file, ids })
    }

    fn add(&mut self, id: String, outcome: &Outcome) -> io::Result<()> {
        if self.ids.contains(&id) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&Line { id: id.clone(), outcome })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.ids.insert(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::email;

    fn outcome() -> Outcome {
        Outcome { email: "ada@example.org".to_owned(), result: email::Result::Skipped { reason: "unsubscribed".to_owned() } }
    }

    #[test]
    fn a_message_is_recorded_once_also_after_a_crash() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/record.jsonl");
        let mut book = Book::open(&path).expect("opened");
        book.add("1".to_owned(), &outcome()).expect("recorded");
        book.add("1".to_owned(), &outcome()).expect("recorded");
        book.file.write_all(b"{\"id\":\"2\",\"em").expect("half a line");
        let mut book = Book::open(&path).expect("opened again");
        for id in ["1", "2"] {
            book.add(id.to_owned(), &outcome()).expect("recorded");
        }
        let text = std::fs::read_to_string(&path).expect("a record");
        let expected = |id| format!(r#"{{"id":"{id}","email":"ada@example.org","result":"skipped","reason":"unsubscribed"}}"#);
        assert_eq!(text, format!("{}\n{}\n", expected("1"), expected("2")));
    }
}
