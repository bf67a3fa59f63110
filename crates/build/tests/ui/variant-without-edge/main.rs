//! Nothing says where `skipped` goes.

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
    }

    #[derive(Deserialize)]
    pub struct Render;

    impl Task for Render {
        type In = User;
        type Out = Rendered;

        async fn run(&self, _input: User, _cx: &Context) -> Result<Rendered, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }

    #[derive(Deserialize)]
    pub struct Send;

    impl Task for Send {
        type In = Mail;
        type Out = ();

        async fn run(&self, _input: Mail, _cx: &Context) -> Result<(), TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }
}

fn main() {}
