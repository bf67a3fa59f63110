//! What `render` gives is no enum of labels.

#![allow(refining_impl_trait)]

use leatworks::{Context, Task, TaskError};
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

    #[derive(Deserialize)]
    pub struct Render;

    impl Task for Render {
        type In = User;
        type Out = Mail;

        async fn run(&self, _input: User, _cx: &Context) -> Result<Mail, TaskError> {
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
