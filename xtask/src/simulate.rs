//! `cargo xtask simulate`: the deterministic simulation of the broker with as many seeds as one likes.

use crate::ci::run_command;
use anyhow::{Result, bail};
use std::process::Command;

/// Seeds that continuous integration runs: half a minute of one core, built for development so that every assertion is looked at.
const SEEDS: &str = "1000";

/// Runs the simulation.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (mut from, mut seeds, mut bugs) = ("0", SEEDS, false);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match (*word, rest.clone().next()) {
            ("--bugs", _) => bugs = true,
            ("--from", Some(value)) => from = value,
            ("--seeds", Some(value)) => seeds = value,
            _ => bail!("`{word}` is none of `--from SEED`, `--seeds N` and `--bugs`"),
        }
        if *word != "--bugs" {
            rest.next();
        }
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--package", "leatworks-broker", "--test", "simulation", "--", "--nocapture"]);
    command.env("LEATWORKS_SIMULATION_FROM", from).env("LEATWORKS_SIMULATION_SEEDS", seeds);
    match bugs {
        true => command.arg("every_planted_bug_is_found"),
        false => command.arg("no_seed_finds_anything"),
    };
    run_command(&mut command)
}
