//! `send`, `status` and `dlq`: looking into a topology from outside.

use super::{
    exit::{CONNECT, Failure, INTERNAL, INVALID, NOTHING, OK, PARTLY, TIMED_OUT, USAGE, failure_code},
    output::{self, Output, table},
};
use crate::{
    Cause, DeadLetter,
    config::Config,
    control::{Access, Filter, GivenError, Listed, Outgoing, Request, Response, Sent, Status},
    def::TopologyDef,
};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// How long `send --wait` waits.
const WAIT_MS: u64 = 60_000;

/// How many dead letters are listed at once.
const LIST_MAX: usize = 100;

#[derive(Args)]
pub(super) struct Send {
    /// The root task; may be left out if there is only one
    task: Option<String>,
    /// The message as JSON; without one, messages are read from standard input as by `--file -`
    message: Option<String>,
    /// Read messages from a file, one JSON value per line; `-` is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// The key of the messages
    #[arg(long)]
    key: Option<String>,
    /// Wait until all that comes of them is done
    #[arg(long)]
    wait: bool,
}

#[derive(Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters
    List(Which),
    /// Show dead letters with all that is known; by an id also long payloads whole
    Show(Which),
    /// Give dead letters back to their edges
    Redrive(Which),
    /// Drop dead letters for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Really drop them
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
pub(super) struct Which {
    /// The one with this id, or those whose root has it; `list` and `show` also take its beginning
    id: Option<String>,
    /// Those of one edge, such as `render-->|mail|send`
    #[arg(long)]
    edge: Option<String>,
    /// Those of one cause
    #[arg(long, value_parser = Cause::ALL.map(Cause::as_str))]
    cause: Option<String>,
}

impl From<Which> for Filter {
    fn from(which: Which) -> Self {
        Self { edge: which.edge, id: which.id, cause: which.cause, limit: None }
    }
}

/// Asks the owner of the journal, or opens it.
async fn ask(config: &Config, request: impl FnOnce(&Access) -> Result<Request, Failure>) -> Result<Response, Failure> {
    let access = Access::open(config).await?;
    let request = request(&access)?;
    let response = access.ask(request).await?;
    access.close().await?;
    match response {
        Response::Failed { error, kind } => Err(Failure::new(failure_code(kind), error)),
        response => Ok(response),
    }
}

fn unexpected() -> Failure {
    Failure::new(INTERNAL, "the answer does not fit the request: is the running process of another version?")
}

pub(super) async fn status(topology: &'static TopologyDef, output: Output, config: &Config) -> Result<u8, Failure> {
    let Response::Status(status) = ask(config, |_| Ok(Request::Status { topology: topology.into() })).await? else {
        return Err(unexpected());
    };
    output::show(output, &status, status_text)?;
    Ok(OK)
}

fn status_text(status: &Status) -> String {
    let rows: Vec<Vec<String>> = status
        .edges
        .iter()
        .map(|edge| {
            let numbers = [edge.backlog, edge.in_flight, edge.delayed, edge.dead_letters];
            std::iter::once(edge.edge.clone()).chain(numbers.iter().map(u64::to_string)).collect()
        })
        .collect();
    let running = if status.running { "running" } else { "not running" };
    format!(
        "{}: {running}, durability {}\n{}\n\n{}",
        status.topology,
        status.durability,
        status.account_line(),
        table(&["edge", "backlog", "in flight", "delayed", "dead letters"], &rows)
    )
}

pub(super) async fn send(topology: &'static TopologyDef, output: Output, config: &Config, mut send: Send) -> Result<u8, Failure> {
    // With one argument it is the message, unless it is the name of a task.
    if send.message.is_none() && send.file.is_none() && send.task.as_ref().is_some_and(|task| topology.task(task).is_none()) {
        send.message = send.task.take();
    }
    let edge = ingress(topology, send.task.as_deref())?;
    let messages = Outgoing::given(send.message.as_deref(), send.file.as_deref(), send.key.as_deref()).map_err(not_given)?;
    let wait = send.wait;
    let response = ask(config, |access| {
        if wait && !access.is_running() && access.keeps_accounts() {
            return Err(Failure::new(
                CONNECT,
                format!(
                    "`{}` is not running, so nothing would come of waiting: start it with `{} run --serve`",
                    topology.name, topology.name
                ),
            ));
        }
        Ok(Request::Send { topology: topology.into(), edge, messages, wait_ms: wait.then_some(WAIT_MS) })
    });
    let Response::Sent(sent) = response.await? else { return Err(unexpected()) };
    let json = serde_json::json!({ "schema": "leat.sent/v1", "messages": sent });
    output::show(output, &json, |_| sent.iter().map(|sent| format!("{} {}\n", sent.id, sent.outcome)).collect())?;
    let any = |outcome: &str| sent.iter().any(|sent: &Sent| sent.outcome == outcome);
    Ok(if any("pending") {
        TIMED_OUT
    } else if any("dead-lettered") {
        PARTLY
    } else {
        OK
    })
}

/// The edge by which messages enter.
fn ingress(topology: &'static TopologyDef, task: Option<&str>) -> Result<String, Failure> {
    let roots: Vec<_> = topology.edges.iter().filter(|edge| edge.from.is_none()).collect();
    let names: Vec<&str> = roots.iter().map(|edge| edge.to).collect();
    match (task, roots.as_slice()) {
        (None, [root]) => Ok(root.id.to_owned()),
        (None, _) => Err(Failure::new(USAGE, format!("say which root task: `{}`", names.join("`, `")))),
        (Some(task), _) => match topology.ingress(task) {
            Some(edge) => Ok(edge.id.to_owned()),
            None => Err(Failure::new(USAGE, format!("`{task}` is no root task{}", crate::settings::hint(task, &names)))),
        },
    }
}

/// Why no message was given, with its exit code.
fn not_given(error: GivenError) -> Failure {
    let code = match error {
        GivenError::Missing | GivenError::NoJson { .. } => USAGE,
        GivenError::Read { .. } => INVALID,
        GivenError::Empty => NOTHING,
    };
    Failure::new(code, error)
}

pub(super) async fn dlq(
    topology: &'static TopologyDef,
    output: Output,
    config: &Config,
    mut command: DlqCommand,
) -> Result<u8, Failure> {
    use DlqCommand::{Drop, List, Redrive, Show};
    let (List(which) | Show(which) | Redrive(which) | Drop { which, .. }) = &mut command;
    if let Some(edge) = &mut which.edge {
        *edge = super::dispatch::find(topology, edge)?.id.to_owned();
    }
    match command {
        DlqCommand::List(which) => list(topology, output, config, which, LIST_MAX, list_text).await,
        DlqCommand::Show(which) => list(topology, output, config, which, LIST_MAX, show_text).await,
        DlqCommand::Redrive(which) => {
            let filter = which.into();
            let response = ask(config, |_| Ok(Request::Redrive { topology: topology.into(), filter })).await?;
            counted(output, &response, "redriven")
        }
        DlqCommand::Drop { which, yes } => {
            if !yes {
                return Err(Failure::new(USAGE, "dropped messages are gone for good: say `--yes` to drop them"));
            }
            let filter = which.into();
            let response = ask(config, |_| Ok(Request::Drop { topology: topology.into(), filter })).await?;
            counted(output, &response, "dropped")
        }
    }
}

async fn list(
    topology: &'static TopologyDef,
    output: Output,
    config: &Config,
    which: Which,
    limit: usize,
    text: impl FnOnce(&Listed) -> String,
) -> Result<u8, Failure> {
    let narrowed = which.id.is_some();
    let filter = which.into();
    let response = ask(config, |_| Ok(Request::DeadLetters { topology: topology.into(), filter, limit })).await?;
    let Response::DeadLetters(listed) = response else { return Err(unexpected()) };
    output::show(output, &listed, text)?;
    Ok(if narrowed && listed.total == 0 { NOTHING } else { OK })
}

fn list_text(listed: &Listed) -> String {
    if listed.total == 0 {
        return "no dead letters\n".to_owned();
    }
    let rows: Vec<Vec<String>> = listed
        .letters
        .iter()
        .map(|letter| {
            let first_line = letter.error.lines().next().unwrap_or_default().to_owned();
            vec![letter.id.clone(), letter.edge.clone(), letter.cause.clone(), letter.attempts.to_string(), first_line]
        })
        .collect();
    let mut text = table(&["id", "edge", "cause", "attempts", "error"], &rows);
    if listed.total > listed.letters.len() as u64 {
        text.push_str(&format!("… {} in all\n", listed.total));
    }
    text
}

fn show_text(listed: &Listed) -> String {
    let show = |letter: &DeadLetter| {
        format!(
            "id        {}\nroot      {}\nedge      {}\nkey       {}\ncause     {}\nattempts  {}\nfirst     {}\nlast      {}\nerror     {}\npayload   {}\n",
            letter.id,
            letter.root,
            letter.edge,
            letter.key.as_deref().unwrap_or("-"),
            letter.cause,
            letter.attempts,
            time(letter.first_ms),
            time(letter.last_ms),
            letter.error,
            if letter.cut { format!("{} (cut: shown whole by its id)", letter.payload) } else { letter.payload.clone() },
        )
    };
    if listed.total == 0 {
        return "no dead letters\n".to_owned();
    }
    listed.letters.iter().map(show).collect::<Vec<_>>().join("\n")
}

fn time(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

fn counted(output: Output, response: &Response, what: &str) -> Result<u8, Failure> {
    let Response::Count { count } = response else { return Err(unexpected()) };
    let json = serde_json::json!({ "schema": "leat.count/v1", what: count });
    output::show(output, &json, |_| format!("{count} {what}\n"))?;
    Ok(if *count == 0 { NOTHING } else { OK })
}
