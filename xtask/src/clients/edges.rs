//! A topology on a real Pulsar beside clients that know nothing of it: Java starts it with a message, and Python reads one of its edges.

use super::{
    programs::CLIENTS,
    server::{Profile, build},
    trampoline::{CALLS, LIMIT, Pipeline, calls},
};
use crate::services::{self, cache, http, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};

/// The edge to `send`, of which each message is a mail.
const EDGE: &str = "email-pipeline-render.out.mail";

/// Runs the email pipeline on this service. Gives why Python could not read along, if it could not.
pub(crate) fn check(port: u16, web_port: u16) -> Result<Option<String>> {
    let tools = services::pulsar::fetch()?;
    let url = format!("pulsar://127.0.0.1:{port}");
    let home = tempfile::tempdir_in(cache()?)?;
    let mut pipeline = Pipeline(
        Command::new(build("showcase", "email-pipeline", Profile::Dev)?)
            .args(["run", "--serve", "--broker", &url, "-o", "json"])
            .env("LEAT_BROKER__ADMIN_URL", format!("http://127.0.0.1:{web_port}"))
            .env("LEATWORKS_HOME", home.path())
            .env("LEAT_DATA", home.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the email pipeline")?,
    );
    wait_for("the pipeline's last consumer", LIMIT, || {
        let path = "/admin/v2/persistent/public/default/email-pipeline-send.out/stats";
        let stats = http::get(web_port, path, None).ok().filter(|(status, _)| *status == 200);
        let stats = stats.and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok()).unwrap_or_default();
        let consumers = stats["subscriptions"]["record"]["consumers"].as_array();
        Ok(consumers.filter(|consumers| !consumers.is_empty()).map(drop))
    })?;
    let watching = Watching::start(&url)?;
    let sent = Command::new(tools.join("bin/pulsar-client"))
        .args(["--url", &url])
        .args(["produce", "email-pipeline-start", "-m", r#"{"type": "email-pipeline-start", "task": {}}"#, "-s", "\\n"])
        .output()
        .context("running pulsar-client")?;
    ensure!(sent.status.success(), "pulsar-client ended with {}: {}", sent.status, String::from_utf8_lossy(&sent.stdout));
    let record = home.path().join("data/record.jsonl");
    wait_for("three records", LIMIT, || {
        let text = std::fs::read_to_string(&record).unwrap_or_default();
        Ok((text.lines().count() == 3).then_some(()))
    })?;
    let missing = match watching {
        Ok(watching) => {
            let mails = watching.mails()?;
            ensure!(mails.len() == 3, "three subscribers are three mails, and not {mails:?}");
            ensure!(mails.iter().all(Value::is_object), "each is an object of JSON: {mails:?}");
            println!("ok    edges: Python has read the {} mails of `{EDGE}` as JSON", mails.len());
            None
        }
        Err(why) => Some(why),
    };
    let report = pipeline.stop()?;
    let calls = calls(&report)?;
    ensure!(
        calls == CALLS && report["counted"]["given_up"] == 0,
        "one message makes {CALLS} handler calls, not {calls}: {report}"
    );
    println!("ok    edges: what pulsar-client sent to email-pipeline-start made {calls} handler calls");
    Ok(missing)
}

/// A Python consumer of the edge.
struct Watching {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Subscribes; or why Python cannot.
    fn start(url: &str) -> Result<Result<Self, String>> {
        let python = CLIENTS.iter().find(|client| client.name == "python").context("there is a Python client")?;
        if let Some(why) = python.missing() {
            return Ok(Err(why));
        }
        let cache = cache()?;
        python.build(&cache)?;
        let mut command = super::programs::python_program(&cache, "edge.py")?;
        command.args([EDGE, "3"]).env("PULSAR_URL", url).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("starting the Python consumer")?;
        let mut lines = BufReader::new(process.stdout.take().context("its output is a pipe")?).lines();
        let first = lines.next().context("the Python consumer has ended")??;
        ensure!(first == "ready", "the Python consumer says `{first}`");
        Ok(Ok(Self { process, lines }))
    }

    fn mails(mut self) -> Result<Vec<Value>> {
        let lines = self.lines.by_ref().collect::<Result<Vec<_>, _>>()?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the Python consumer ended with {status} after {lines:?}");
        lines.iter().map(|line| serde_json::from_str(line).with_context(|| format!("`{line}`"))).collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
