//! What is known of a root, as text for people.

use super::{Outcome, Record, Step, StepState, Traced};
use leatworks_jobs::{Attempt, State, Store};
use std::fmt::Write;

impl Traced {
    /// A tree of steps with their attempts, jobs, logs and files. `files` is where those of jobs lie.
    pub fn text(&self, files: &Store) -> String {
        let mut out = format!("{}  root {}\n", self.topology, self.root);
        for step in &self.steps {
            // Writing to a text does not fail.
            let _ = show(&mut out, step, files);
        }
        out
    }
}

fn show(out: &mut String, step: &Step, files: &Store) -> std::fmt::Result {
    let space = "  ".repeat(step.depth + 1);
    let state = match step.state {
        StepState::Unknown => "not settled, as far as is known",
        StepState::Pending => "waits, or is in hand",
        StepState::Handled => "handled",
        StepState::DeadLettered => "given up",
    };
    writeln!(out, "{space}{}  {}  {state}", step.edge, step.message)?;
    for record in &step.attempts {
        writeln!(out, "{space}  {}", attempt(record))?;
    }
    for run in &step.jobs {
        writeln!(out, "{space}  {}", job(run))?;
        if let Some(error) = run.error.as_ref().filter(|_| step.attempts.is_empty()) {
            writeln!(out, "{space}    {}", first_line(error))?;
        }
        if let Some(log) = &run.log {
            writeln!(out, "{space}    log  {}", files.shown(log))?;
        }
    }
    if let Some(letter) = &step.dead_letter {
        let error = first_line(&letter.error);
        writeln!(out, "{space}  dead letter  {} after {} attempts: {error}", letter.cause, letter.attempts)?;
    }
    for file in &step.files {
        let bytes = file.bytes.unwrap_or_default();
        writeln!(out, "{space}  file  {}  {bytes} bytes  {}", file.path, files.shown(&file.key))?;
    }
    Ok(())
}

/// One attempt in one line.
fn attempt(record: &Record) -> String {
    let number = record.attempt;
    match record.outcome {
        Outcome::Handled => {
            let took = record.took_us.map(|us| format!(" in {:.1} ms", us as f64 / 1e3)).unwrap_or_default();
            format!("attempt {number}  handled{took}, gave {}", record.given)
        }
        Outcome::Folded => format!("attempt {number}  taken into the fold"),
        Outcome::Failed | Outcome::DeadLettered => {
            let cause = record.cause.as_deref().unwrap_or("error");
            let end = if record.outcome == Outcome::Failed { "" } else { ", given up" };
            format!("attempt {number}  {cause}{end}: {}", first_line(record.error.as_deref().unwrap_or_default()))
        }
    }
}

/// One run of a job in one line.
fn job(run: &Attempt) -> String {
    let state = match run.state {
        State::Begun => "runs, or was killed with what ran it",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
    };
    let round = if run.round > 1 { format!(", round {}", run.round) } else { String::new() };
    let took = run.ended_ms.map(|ended| format!(" after {} ms", ended.saturating_sub(run.started_ms))).unwrap_or_default();
    let code = run.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    format!("attempt {}{round}  job {state}{took}{code}  {} {}", run.attempt, run.executor, run.name)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
