//! Binaries of the showcase as a user runs them.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs a binary to its end, with its data in this folder and no other's.
pub(crate) fn run(binary: &str, home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(binary)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LEATWORKS_HOME", home)
        .env("LEAT_DATA", home.join("data"))
        .envs(variables.iter().copied())
        .output()
        .expect("started")
}
