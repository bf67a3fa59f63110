//! The client on a real Apache Pulsar: `cargo xtask ci pulsar` starts one and runs this. Without one, every test here says that it did not run.

mod contract;
mod service;
mod thin;
