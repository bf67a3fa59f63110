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

use crate::{
    ci::run_command,
    clients::server::{Profile, build},
};
use anyhow::{Context, Result, bail};
use std::{path::PathBuf, process::Command};

/// `[--rounds N] [--leat BINARY]`: how often is measured, and with what. Without a binary `leat` is built in the release profile.
fn options(bench: &str, args: &[&str], mut rounds: usize) -> Result<(usize, PathBuf)> {
    let mut leat = None;
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("--rounds", Some(number)) => {
                rounds = number.parse().ok().filter(|rounds| *rounds > 0).context("`--rounds` takes a number from 1 on")?;
            }
            ("--leat", Some(binary)) => leat = Some(PathBuf::from(binary)),
            (other, _) => bail!("`{other}` is not known here: bench {bench} [--rounds N] [--leat BINARY]"),
        }
    }
    let leat = leat.map_or_else(|| build("leatworks-cli", "leat", Profile::Release), Ok)?;
    Ok((rounds, leat.canonicalize().with_context(|| format!("finding `{}`", leat.display()))?))
}

/// The one in the middle, or the greater of the two there.
fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

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
