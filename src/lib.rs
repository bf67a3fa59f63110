//! The example pipelines of Leatworks: `email-pipeline` and `access-log`. Their graphs are in `topologies/`, their tasks here.

pub mod tasks;

leatworks::topologies!();
