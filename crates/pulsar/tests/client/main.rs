//! The client on a real Apache Pulsar: `cargo xtask ci pulsar` starts one and runs this.

mod access;
mod contract;
mod halves;
mod numbered;
mod recovery;
mod service;
mod thin;
