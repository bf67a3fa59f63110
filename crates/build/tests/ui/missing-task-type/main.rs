//! `tasks::Render` does not exist.

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
    pub struct FetchUsers;

    impl Task for FetchUsers {
        type In = u32;
        type Out = User;

        async fn run(&self, _input: u32, _cx: &Context) -> Result<Vec<User>, TaskError> {
            Err(TaskError::permanent("never run"))
        }
    }
}

fn main() {}
