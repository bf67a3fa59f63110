//! The example pipelines of Leatworks: `email-pipeline`, `access-log` and `chapters`. Their graphs are in `topologies/`, their tasks here.

pub mod tasks;

leatworks::topologies!();
