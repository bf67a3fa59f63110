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
    /// It could not run here; the text says why. It never counts as passed.
    Skipped(String),
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
    Part { name: "test", run: || cargo(&["test", "--workspace"], &[("LEAT_FRAMES", "10000000")]) },
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
    let mut report: Vec<(&str, Duration, String)> = Vec::new();
    for part in PARTS.iter().filter(|part| names.is_empty() || names.contains(&part.name)) {
        println!("\n==== {} ====", part.name);
        let start = Instant::now();
        let result = (part.run)();
        let text = match &result {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(why)) => format!("NOT RUN: {why}"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        report.push((part.name, start.elapsed(), text));
        if result.is_err() {
            break;
        }
    }
    println!("\n==== how long each part took ====");
    for (name, time, text) in &report {
        println!("{name:<10} {:>7.1} s  {text}", time.as_secs_f64());
    }
    match report.last() {
        Some((name, _, text)) if text.starts_with("FAILED") => bail!("`{name}` failed"),
        _ => Ok(()),
    }
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
    Ok(if all.is_empty() { Outcome::Passed } else { Outcome::Skipped(format!("{} cannot run here", all.join(", "))) })
}

/// The clients of other people. Without Java, Go or Python some of them cannot run; where `CI` is set that fails.
fn foreign_clients() -> Result<Outcome> {
    let missing = clients::run(&[])?;
    Ok(if missing.is_empty() { Outcome::Passed } else { Outcome::Skipped(missing.join("; ")) })
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
        Some(why) => Ok(Outcome::Skipped(format!("all but reading along in Python: {why}"))),
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
    Ok(Outcome::Skipped(missing.join("; ")))
}

/// A real cluster, and what is deployed on it; then, when that is down, another one whose controllers are killed while graphs are edited. It needs root and namespaces, Go
/// and Java; where `CI` is set it fails without them.
fn real_kubernetes() -> Result<Outcome> {
    if let Some(why) = services::kubernetes::test(&[])? {
        return Ok(Outcome::Skipped(why));
    }
    let not_run = faults::run(&["--tier", "pr", "R19"])?;
    Ok(if not_run.is_empty() { Outcome::Passed } else { Outcome::Skipped("all but R19, which cannot run here".into()) })
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
        Err(_) => Ok(Outcome::Skipped("licences, bans and sources passed; the advisory database could not be fetched".into())),
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
