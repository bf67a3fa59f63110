//! `tasks::Total` is a fold, and the topology does not say so.

#![allow(refining_impl_trait)]

use leatworks::{Context, Fold, Task, TaskError};
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

    impl Fold for Total {
        type In = u32;
        type Out = u32;
        type State = u32;

        fn fold(&self, sum: &mut u32, input: u32, _cx: &Context) -> Result<(), TaskError> {
            *sum += input;
            Ok(())
        }

        async fn finish(&self, sum: u32, _cx: &Context) -> Result<u32, TaskError> {
            Ok(sum)
        }
    }
}

fn main() {}
