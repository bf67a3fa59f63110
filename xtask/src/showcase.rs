//! Runs the showcase as a user would, with its results checked.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{path::Path, process::Command};

/// Runs both topologies on the embedded broker in a fresh data folder and checks what they account for.
pub(crate) fn check() -> Result<()> {
    let home = Path::new("target").join(format!("showcase-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let result = email_pipeline(&home).and_then(|()| access_log(&home));
    std::fs::remove_dir_all(&home)?;
    result
}

fn email_pipeline(home: &Path) -> Result<()> {
    let account = run(home, &["run", "--quiet", "--locked", "--", "run", "-o", "json"])?;
    balanced(&account)?;
    let calls: u64 = tasks(&account, "handled")?.iter().map(|(_, count)| count).sum();
    ensure!(calls == 11, "three subscribers make 11 handler calls, not {calls}: {account}");
    ensure!(account["dead_lettered"] == 0, "nothing is given up: {account}");
    println!("email-pipeline: 11 handler calls, account balanced");
    Ok(())
}

fn access_log(home: &Path) -> Result<()> {
    let log = "examples/access-log/access.log";
    let lines =
        std::fs::read(log).with_context(|| format!("reading `{log}`"))?.split_inclusive(|byte| *byte == b'\n').count() as u64;
    let account = run(home, &["run", "--quiet", "--locked", "--bin", "access-log", "--", "run", log, "-o", "json"])?;
    balanced(&account)?;
    ensure!(account["sent"] == lines, "{lines} lines are {lines} roots: {account}");
    println!("access-log: {lines} lines, each accounted for once");
    Ok(())
}

fn run(home: &Path, args: &[&str]) -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .env("LEATWORKS_HOME", home)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running cargo {args:?}"))?;
    ensure!(output.status.success(), "cargo {args:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("stdout is not one JSON value: {}", String::from_utf8_lossy(&output.stdout)))
}

fn balanced(account: &Value) -> Result<()> {
    let count = |key: &str| account[key].as_u64().with_context(|| format!("`{key}` is missing in {account}"));
    ensure!(
        count("sent")? == count("done")? + count("dead_lettered")? + count("in_flight")?,
        "the account does not balance: {account}"
    );
    ensure!(count("in_flight")? == 0, "a finished run has nothing in flight: {account}");
    Ok(())
}

fn tasks(account: &Value, key: &str) -> Result<Vec<(String, u64)>> {
    let tasks = account["tasks"].as_object().with_context(|| format!("`tasks` is missing in {account}"))?;
    Ok(tasks.iter().map(|(name, task)| (name.clone(), task[key].as_u64().unwrap_or_default())).collect())
}
