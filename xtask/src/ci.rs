//! The parts of continuous integration, in the order in which the quick ones fail first.

use crate::{clients, faults, services, showcase, simulate};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// One part: its name, and what it does.
struct Part {
    name: &'static str,
    run: fn() -> Result<Outcome>,
}

/// How a part that did not fail ended.
enum Outcome {
    Passed,
    /// Some of it could not run here; the text says what and why. The rest has passed.
    Partly(String),
    /// It could not run here; the text says why. It never counts as passed.
    Skipped(String),
}

/// One part that has ended.
struct Ended {
    name: &'static str,
    time: Duration,
    result: Result<Outcome>,
}

const PARTS: &[Part] = &[
    Part { name: "fmt", run: || cargo(&["fmt", "--all", "--check"], &[]) },
    Part {
        name: "clippy",
        run: || cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"], &[]),
    },
    Part { name: "docs", run: || cargo(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")]) },
    Part { name: "stores", run: stores },
    Part { name: "showcase", run: || showcase::check().map(|()| Outcome::Passed) },
    Part { name: "graph", run: graph },
    Part { name: "test", run: || cargo(&["test", "--workspace", "--no-fail-fast"], &[("LEAT_FRAMES", "10000000")]) },
    Part { name: "simulate", run: simulated },
    Part { name: "faults", run: few_faults },
    Part { name: "clients", run: foreign_clients },
    Part { name: "pulsar", run: real_pulsar },
    Part { name: "objects", run: object_stores },
    Part { name: "deny", run: deny },
    Part { name: "kubernetes", run: real_kubernetes },
];

/// Prints the names of the parts.
pub(crate) fn list() {
    for part in PARTS {
        println!("{}", part.name);
    }
}

/// Runs the named parts, or all, and prints how long each took. The first failure ends the run.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|part| part.name != **name)) {
        bail!("no part is called `{unknown}`; `cargo xtask ci --list` names them");
    }
    let mut all: Vec<Ended> = Vec::new();
    for part in PARTS.iter().filter(|part| names.is_empty() || names.contains(&part.name)) {
        println!("\n==== {} ====", part.name);
        let start = Instant::now();
        let result = (part.run)();
        let failed = result.is_err();
        all.push(Ended { name: part.name, time: start.elapsed(), result });
        if failed {
            break;
        }
    }
    println!("\n==== how long each part took ====");
    all.iter().for_each(|ended| println!("{}", ended.line()));
    let skipped = skipped(&all);
    if !skipped.is_empty() {
        eprintln!("\n==== NOT RUN, so nothing is known of it ====\n{}", skipped.join("\n"));
    }
    verdict(&all, !names.is_empty())
}

impl Ended {
    fn line(&self) -> String {
        let text = match &self.result {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Partly(why)) => format!("passed, and in part NOT RUN: {why}"),
            Ok(Outcome::Skipped(why)) => format!("NOT RUN: {why}"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        format!("{:<10} {:>7.1} s  {text}", self.name, self.time.as_secs_f64())
    }
}

/// What was not run, wholly or in part, and why.
fn skipped(all: &[Ended]) -> Vec<String> {
    all.iter()
        .filter_map(|ended| match &ended.result {
            Ok(Outcome::Partly(why)) => Some(format!("{}, in part: {why}", ended.name)),
            Ok(Outcome::Skipped(why)) => Some(format!("{}: {why}", ended.name)),
            _ => None,
        })
        .collect()
}

/// Fails if a part has failed. Where parts were asked for by name, one that cannot run here is a failure as well: whoever asks wants to know of just that.
fn verdict(all: &[Ended], are_named: bool) -> Result<()> {
    for Ended { name, result, .. } in all {
        match result {
            Err(_) => bail!("`{name}` failed"),
            Ok(Outcome::Skipped(why)) if are_named => bail!("`{name}` was asked for and cannot run here: {why}"),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<Outcome> {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).envs(env.iter().copied());
    run_command(&mut command)?;
    Ok(Outcome::Passed)
}

/// Runs a command with its output shown, and fails unless it succeeds.
pub(crate) fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// The comparison of stores is a workspace of its own, which nothing else here compiles.
fn stores() -> Result<Outcome> {
    let manifest = ["--manifest-path", "benches/stores/Cargo.toml"];
    cargo(&[&["fmt", "--check"][..], &manifest, &["--", "--config-path", "rustfmt.toml"]].concat(), &[])?;
    cargo(&[&["clippy", "--locked", "--target-dir", "target"][..], &manifest, &["--", "-D", "warnings"]].concat(), &[])
}

/// The flowchart in the README is the one that the graph draws.
fn graph() -> Result<Outcome> {
    cargo(
        &[
            "run",
            "--quiet",
            "--locked",
            "--package",
            "leatworks-cli",
            "--",
            "graph",
            "email-pipeline",
            "--write",
            "README.md",
            "--check",
        ],
        &[],
    )
}

/// A thousand seeds in which nothing is found. That planted bugs are found is one of the tests.
fn simulated() -> Result<Outcome> {
    simulate::run(&[]).map(|()| Outcome::Passed)
}

/// The short tier of the fault harness, and that its oracle objects to a broken product.
fn few_faults() -> Result<Outcome> {
    let not_run = faults::run(&["--tier", "pr"])?;
    let without_teeth = faults::run(&["--tier", "pr", "--teeth"])?;
    let all: Vec<_> = not_run.into_iter().chain(without_teeth).collect();
    Ok(if all.is_empty() { Outcome::Passed } else { Outcome::Partly(format!("{} cannot run here", all.join(", "))) })
}

/// The clients of other people. Without Java, Go or Python some of them cannot run; where `CI` is set that fails.
fn foreign_clients() -> Result<Outcome> {
    let missing = clients::run(&[])?;
    Ok(if missing.is_empty() { Outcome::Passed } else { Outcome::Partly(missing.join("; ")) })
}

/// The broker contract and whole topologies on a real Pulsar, and then faults of it. Without Java it cannot run; where `CI` is set that fails.
fn real_pulsar() -> Result<Outcome> {
    if let Err(why) = services::JAVA.check() {
        return if std::env::var_os("CI").is_some() { Err(why) } else { Ok(Outcome::Skipped(why.to_string())) };
    }
    let not_read = services::secured::test_client()?;
    faults::run(&[vec!["--tier", "pr"], faults::on_pulsar()].concat())?;
    match not_read {
        None => Ok(Outcome::Passed),
        Some(why) if std::env::var_os("CI").is_some() => bail!("Python has not read along: {why}"),
        Some(why) => Ok(Outcome::Partly(format!("reading along in Python: {why}"))),
    }
}

/// The store of files on servers of object stores. Without Python or Node some cannot run; where `CI` is set that fails.
fn object_stores() -> Result<Outcome> {
    let missing = services::objects::test()?;
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    if std::env::var_os("CI").is_some() {
        bail!("{}", missing.join("; "));
    }
    Ok(Outcome::Partly(missing.join("; ")))
}

/// A real cluster, and what is deployed on it; then, when that is down, another one whose controllers are killed while graphs are edited. It needs root and namespaces, Go
/// and Java; where `CI` is set it fails without them.
fn real_kubernetes() -> Result<Outcome> {
    if let Some(why) = services::kubernetes::test(&[])? {
        return Ok(Outcome::Skipped(why));
    }
    let not_run = faults::run(&["--tier", "pr", "R19"])?;
    Ok(if not_run.is_empty() { Outcome::Passed } else { Outcome::Partly("R19 cannot run here".into()) })
}

/// The policy on licences, sources and bans. The advisories need a database that is not on any package registry, so they are checked
/// where it can be fetched, and reported as not run elsewhere.
fn deny() -> Result<Outcome> {
    if !has_cargo_deny() {
        // A fifth of an hour of compiling is not worth it on a developer's machine without being asked for.
        if std::env::var_os("CI").is_none() {
            return Ok(Outcome::Skipped("cargo-deny is not installed; `cargo install cargo-deny --locked` installs it".into()));
        }
        let root = Path::new("target/tools");
        let mut install = Command::new(env!("CARGO"));
        install.args(["install", "cargo-deny", "--locked", "--root"]).arg(root);
        if let Err(error) = run_command(&mut install) {
            return Ok(Outcome::Skipped(format!("cargo-deny could not be installed: {error:#}")));
        }
    }
    run_command(deny_command().args(["check", "licenses", "bans", "sources"]))?;
    match run_command(deny_command().args(["check", "advisories"])) {
        Ok(()) => Ok(Outcome::Passed),
        Err(error) if advisory_database_is_there() => Err(error),
        Err(_) => Ok(Outcome::Partly("the advisory database could not be fetched; licences, bans and sources passed".into())),
    }
}

fn has_cargo_deny() -> bool {
    deny_command().arg("--version").output().is_ok_and(|output| output.status.success())
}

fn deny_command() -> Command {
    let local = Path::new("target/tools/bin/cargo-deny");
    if local.exists() { Command::new(local) } else { Command::new("cargo-deny") }
}

fn advisory_database_is_there() -> bool {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    home.is_ok_and(|home| {
        std::fs::read_dir(Path::new(&home).join("advisory-dbs"))
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("crates").is_dir()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &'static str, result: Result<Outcome>) -> Ended {
        Ended { name, time: Duration::ZERO, result }
    }

    #[test]
    fn what_was_not_run_is_said_and_never_counts_as_passed() {
        let all = |last| vec![ended("fmt", Ok(Outcome::Passed)), ended("kubernetes", last)];
        let skipped_part = || all(Ok(Outcome::Skipped("it needs root".to_owned())));
        let partly = || all(Ok(Outcome::Partly("no Python".to_owned())));
        let failed = || all(Err(anyhow::anyhow!("it needs root")));
        for (all, are_named, fails, said) in [
            (all(Ok(Outcome::Passed)), true, None, None),
            (skipped_part(), false, None, Some("kubernetes: it needs root")),
            (
                skipped_part(),
                true,
                Some("`kubernetes` was asked for and cannot run here: it needs root"),
                Some("kubernetes: it needs root"),
            ),
            (partly(), false, None, Some("kubernetes, in part: no Python")),
            (partly(), true, None, Some("kubernetes, in part: no Python")),
            (failed(), false, Some("`kubernetes` failed"), None),
            (failed(), true, Some("`kubernetes` failed"), None),
        ] {
            assert_eq!(verdict(&all, are_named).err().map(|error| error.to_string()).as_deref(), fails);
            assert_eq!(skipped(&all).first().map(String::as_str), said);
            let is_whole = fails.is_none() && said.is_none();
            assert_eq!(all[1].line().ends_with("passed"), is_whole, "{}", all[1].line());
        }
    }
}
