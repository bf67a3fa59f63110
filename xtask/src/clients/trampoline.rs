//! The command that starts a pipeline on another system: Pulsar's own tool sends the message, and the email pipeline does its work.

use super::server::{Profile, build, until_it_listens};
use crate::{
    ci::run_command,
    services::{self, JAVA, pulsar::free_port, wait_for},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The pipeline does its work in well under a second; a busy machine gets this long.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Handler calls of the email pipeline for its three subscribers.
pub(super) const CALLS: u64 = 11;

/// Serves the email pipeline, sends the message with `pulsar-client`, and counts the handler calls.
pub(super) fn check() -> Result<()> {
    JAVA.check()?;
    let tools = services::pulsar::fetch()?;
    let binary = build("showcase", "email-pipeline", Profile::Dev)?;
    let home = tempfile::tempdir_in(services::cache()?)?;
    let port = free_port()?;
    let mut pipeline = Pipeline(
        Command::new(&binary)
            .args(["run", "--listen", &format!("127.0.0.1:{port}"), "-o", "json"])
            .env("LEATWORKS_HOME", home.path())
            .env("LEAT_DATA", home.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the email pipeline")?,
    );
    until_it_listens(&mut pipeline.0, port)?;
    let sent = Command::new(tools.join("bin/pulsar-client"))
        .args(["--url", &format!("pulsar://127.0.0.1:{port}")])
        .args(["produce", "email-pipeline-start", "-m", r#"{"type": "email-pipeline-start", "task": {}}"#, "-s", "\\n"])
        .output()
        .context("running pulsar-client")?;
    ensure!(sent.status.success(), "pulsar-client ended with {}: {}", sent.status, String::from_utf8_lossy(&sent.stdout));
    wait_for("the end of the pipeline's work", LIMIT, || Ok(is_done(&status(&binary, home.path())?).then_some(())))?;
    let account = pipeline.stop()?;
    let calls = calls(&account)?;
    ensure!(calls == CALLS && account["dead_lettered"] == 0, "one message makes {CALLS} handler calls, not {calls}: {account}");
    println!("ok    trampoline: what pulsar-client sent to email-pipeline-start made {calls} handler calls");
    Ok(())
}

/// The handler calls of a run, by its report.
pub(super) fn calls(report: &Value) -> Result<u64> {
    let tasks = report["tasks"].as_object().with_context(|| format!("no tasks in {report}"))?;
    Ok(tasks.values().filter_map(|task| task["handled"].as_u64()).sum())
}

/// Whether what was sent has all been done.
fn is_done(status: &Value) -> bool {
    status["sent"] == 1 && status["in_flight"] == 0 && status["done"] == 1
}

/// What the pipeline accounts for, asked from beside it.
fn status(binary: &Path, home: &Path) -> Result<Value> {
    let output = Command::new(binary)
        .args(["status", "-o", "json"])
        .env("LEATWORKS_HOME", home)
        .env("LEAT_DATA", home.join("data"))
        .output()?;
    ensure!(output.status.success(), "the pipeline's status: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stdout)))
}

/// The pipeline's process, ended when it is no longer needed.
pub(super) struct Pipeline(pub(super) Child);

impl Pipeline {
    /// Ends it as a terminal would, and gives the account that it prints.
    pub(super) fn stop(&mut self) -> Result<Value> {
        run_command(Command::new("kill").args(["-INT", &self.0.id().to_string()]))?;
        let mut text = String::new();
        self.0.stdout.take().context("its output is a pipe")?.read_to_string(&mut text)?;
        self.0.wait()?;
        serde_json::from_str(&text).with_context(|| format!("no account: {text}"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
