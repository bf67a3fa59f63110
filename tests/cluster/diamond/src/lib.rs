//! A number takes two ways, and where each of them ends it is written down.

pub mod tasks;

leatworks::topologies!();
