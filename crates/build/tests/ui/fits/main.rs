//! All that is right: fan-out, fan-in, ends, a type that fits by name, JSON of any kind, private types.

#![allow(refining_impl_trait)]

use leatworks::{Context, Route, Task, TaskError};
use serde::{Deserialize, Serialize};

pub mod topologies {
    include!("topologies.rs");
}

mod tasks {
    use super::*;
    #[derive(Serialize, Deserialize)]
    pub struct User;

    #[derive(Serialize, Deserialize)]
    pub struct Mail;

    #[derive(Route, Serialize, Deserialize)]
    pub enum Rendered {
        Mail(Mail),
        Skipped(User),
        Empty,
    }

    #[derive(Serialize, Deserialize)]
    pub struct Person;

    impl<E> leatworks::check::Fits<User, E> for Person {}

    #[derive(Deserialize)]
    pub struct Start;

    impl Task for Start {
        type In = u32;
        type Out = Person;

        async fn run(&self, _input: u32, _cx: &Context) -> Result<Option<Person>, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub struct Render;

    impl Task for Render {
        type In = User;
        type Out = Rendered;

        async fn run(&self, _input: User, _cx: &Context) -> Result<Vec<Rendered>, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub struct Send;

    impl Task for Send {
        type In = Mail;
        type Out = User;

        async fn run(&self, _input: Mail, _cx: &Context) -> Result<User, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Archive;

    impl Task for Archive {
        type In = Mail;
        type Out = ();

        async fn run(&self, _input: Mail, _cx: &Context) -> Result<(), TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub struct Record;

    impl Task for Record {
        type In = User;
        type Out = User;

        async fn run(&self, _input: User, _cx: &Context) -> Result<User, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub struct Anything;

    impl Task for Anything {
        type In = serde_json::Value;
        type Out = ();

        async fn run(&self, _input: serde_json::Value, _cx: &Context) -> Result<(), TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }
}

fn main() {}
