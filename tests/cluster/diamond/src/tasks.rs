//! The tasks, under the names that the graph gives them.

use leatworks::{Context, Setup, Task, TaskError};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// What has gone a way.
#[derive(Serialize, Deserialize)]
pub struct Passed {
    pub way: String,
    pub number: u64,
}

#[derive(Deserialize)]
pub struct Enter;

impl Task for Enter {
    type In = u64;
    type Out = u64;

    async fn run(&self, number: u64, _: &Context) -> Result<u64, TaskError> {
        Ok(number)
    }
}

#[derive(Deserialize)]
pub struct Left;

impl Task for Left {
    type In = u64;
    type Out = Passed;

    async fn run(&self, number: u64, _: &Context) -> Result<Passed, TaskError> {
        Ok(Passed { way: "left".to_owned(), number })
    }
}

#[derive(Deserialize)]
pub struct Right;

impl Task for Right {
    type In = u64;
    type Out = Passed;

    async fn run(&self, number: u64, _: &Context) -> Result<Passed, TaskError> {
        Ok(Passed { way: "right".to_owned(), number })
    }
}

/// Writes down what has come.
#[derive(Deserialize)]
pub struct Meet {
    path: PathBuf,
    #[serde(skip)]
    book: Book,
}

impl Task for Meet {
    type In = Passed;
    type Out = ();

    async fn start(&mut self, _: &Setup) -> Result<(), TaskError> {
        self.book.open(&self.path)
    }

    async fn run(&self, passed: Passed, cx: &Context) -> Result<(), TaskError> {
        self.book.write(&passed, cx)
    }
}

/// Where one of them ends instead.
pub type Audit = Meet;

/// A line for each message.
#[derive(Default)]
struct Book(Option<Arc<Mutex<File>>>);

impl Book {
    fn open(&mut self, path: &PathBuf) -> Result<(), TaskError> {
        self.0 = Some(Arc::new(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)));
        Ok(())
    }

    fn write(&self, passed: &Passed, cx: &Context) -> Result<(), TaskError> {
        let Some(file) = &self.0 else { return Err(TaskError::permanent("it has not been started")) };
        let Passed { way, number } = passed;
        let line = format!("{}\n", serde_json::json!({"task": cx.task(), "way": way, "number": number, "id": cx.message_id().to_string()}));
        Ok(file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())?)
    }
}

/// The tasks of the graph that is only measured.
pub type A = Enter;
pub type B = Enter;
pub type C = Enter;
pub type D = Enter;
pub type E = Enter;
pub type F = Enter;
pub type G = Enter;
pub type H = Enter;
