//! Benchmarks that `leat bench` and criterion do not hold: the workload of the broker on other stores, its protocol beside the real Pulsar, the
//! dispatcher beside foreign clients, and the controller, its deployments and its Jobs on a real Kubernetes.

mod deploy;
mod edge;
mod jobs;
mod kubernetes;
mod load;
mod machine;
mod pulsar;
mod table;

pub(crate) use deploy::run as deploy;
pub(crate) use edge::run as edge;
pub(crate) use jobs::run as jobs;
pub(crate) use kubernetes::run as kubernetes;
pub(crate) use pulsar::run as pulsar;

use crate::ci::run_command;
use anyhow::Result;
use std::process::Command;

/// Builds the comparison of stores, which is a workspace of its own, and runs it.
pub(crate) fn stores(args: &[&str]) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "run",
        "--release",
        "--locked",
        "--manifest-path",
        "benches/stores/Cargo.toml",
        "--target-dir",
        "target",
        "--",
    ]);
    run_command(command.args(args))
}
