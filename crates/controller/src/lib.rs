//! Deploys topologies on Kubernetes.
//!
//! A [`crd::Topology`] says what is asked for. [`plan`] is pure: from that and from what is there it makes the objects and the steps. [`reconcile`] carries the
//! steps out, by server-side apply, and tells how it is in the status. [`run`](run()) does so for all topologies, while it holds a lease.

pub mod brokers;
pub mod cluster;
pub mod crd;
pub mod graph;
pub mod lease;
pub mod merge;
pub mod metrics;
pub mod names;
pub mod plan;
pub mod reconcile;
pub mod revision;
pub mod security;
pub mod watch;
pub mod yaml;

mod connect;
mod events;
mod queue;
mod run;
mod same;
mod serve;

pub use connect::{ConnectError, Connected, connect};
pub use run::{Options, RunError, run};
