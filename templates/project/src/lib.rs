//! The tasks of {{project-name}}, and the topologies that `Project.toml` draws with them.

pub mod tasks;

leatworks::topologies!();
