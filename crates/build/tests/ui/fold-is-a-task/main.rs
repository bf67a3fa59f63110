//! `tasks::Total` is a task, and the topology takes it for a fold.

#![allow(refining_impl_trait)]

use leatworks::{Context, Task, TaskError};
use serde::Deserialize;

pub mod topologies {
    include!("topologies.rs");
}

mod tasks {
    use super::*;

    #[derive(Deserialize)]
    pub struct Count;

    impl Task for Count {
        type In = u32;
        type Out = u32;

        async fn run(&self, input: u32, _cx: &Context) -> Result<u32, TaskError> {
            Ok(input)
        }
    }

    #[derive(Deserialize)]
    pub struct Total;

    impl Task for Total {
        type In = u32;
        type Out = u32;

        async fn run(&self, input: u32, _cx: &Context) -> Result<u32, TaskError> {
            Ok(input)
        }
    }
}

fn main() {}
