//! Commands that look into a project's queues and act on them: send, status, dead letters. A running topology answers for its own journal;
//! otherwise the journal is opened here.

use crate::{
    args::{Data, Dlq, DlqChange, DlqLook, DlqSelect, Output, Send, Status},
    exit::{Code, Failure, Result, say},
    project::Found,
};
use leatworks::{
    HostError,
    config::{Config, Flags},
    control::{
        Access, AccessError, FailureKind, Filter, GivenError, Listed, Outgoing, Request, Response, Status as TopologyStatus,
    },
    topics::{EdgeRef, TopologyRef},
};
use leatworks_broker::BrokerError;
use leatworks_controller::graph::reference;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
};

/// `leat send`.
pub(crate) fn send(args: &Send, found: &Found) -> Result {
    let (name, task) = match args.target.split_once('/') {
        Some((name, task)) => (name, Some(task)),
        None => (args.target.as_str(), None),
    };
    let topology = reference(found.topology(Some(name))?);
    let edge = way_in(&topology, task)?.id.clone();
    let messages = Outgoing::given(args.message.as_deref(), args.file.as_deref(), args.key.as_deref()).map_err(not_given)?;
    let session = Session::open(found, &args.data, true)?;
    if args.wait && !session.access.is_running() && session.access.keeps_accounts() {
        session.close()?;
        return Err(Failure::new(
            Code::Unreachable,
            format!(
                "no process runs `{name}`, so waiting would never end; start one with `leat run {name} -- --serve`, or send without --wait"
            ),
        ));
    }
    let wait_ms = args.wait.then(|| u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX));
    let answer = session.ask(Request::Send { topology, edge, messages, wait_ms });
    session.close()?;
    let Response::Sent(sent) = answer? else { return Err(unexpected()) };
    match args.output {
        Output::Json => print_json(&sent)?,
        Output::Table => sent.iter().for_each(|message| say!("{}  {}", message.id, message.outcome)),
    }
    if sent.iter().any(|message| message.outcome == "pending") {
        return Err(Failure::new(Code::TimedOut, format!("not everything was done within {}", args.timeout)));
    }
    let given_up = sent.iter().filter(|message| message.outcome == "dead-lettered").count();
    if given_up > 0 {
        return Err(Failure::new(
            Code::Partly,
            format!("of {given_up} of {} messages something was given up; `leat dlq show {name}` tells why", sent.len()),
        ));
    }
    Ok(())
}

fn way_in<'a>(topology: &'a TopologyRef, task: Option<&str>) -> Result<&'a EdgeRef> {
    let roots: Vec<&EdgeRef> = topology.edges.iter().filter(|edge| edge.ingress).collect();
    let names = || roots.iter().map(|edge| format!("`{}`", edge.subscription)).collect::<Vec<_>>().join(", ");
    match (task, roots.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(
            Code::Usage,
            format!("`{0}` has several roots; send to `{0}/TASK`, with one of {1}", topology.name, names()),
        )),
        (Some(task), _) => roots.iter().copied().find(|edge| edge.subscription == task).ok_or_else(|| {
            Failure::new(Code::Nothing, format!("`{task}` is no root of `{}`; its roots are {}", topology.name, names()))
        }),
    }
}

/// Why no message was given, with its exit code.
fn not_given(error: GivenError) -> Failure {
    let text = error.to_string();
    let code = match error {
        GivenError::Missing | GivenError::NoJson { .. } => Code::Usage,
        GivenError::Read { error, .. } => Failure::from(error).code,
        GivenError::Empty => Code::Nothing,
    };
    Failure::new(code, text)
}

/// `leat status`.
pub(crate) fn status(args: &Status, found: &Found) -> Result {
    let topologies = selected(found, args.topology.as_deref())?;
    let session = Session::open(found, &args.data, false)?;
    let answers: Vec<Result<TopologyStatus>> = topologies
        .into_iter()
        .map(|topology| match session.ask(Request::Status { topology })? {
            Response::Status(status) => Ok(status),
            _ => Err(unexpected()),
        })
        .collect();
    session.close()?;
    let all: Vec<TopologyStatus> = answers.into_iter().collect::<Result<_>>()?;
    match args.output {
        Output::Json => print_json(&all),
        Output::Table => {
            all.iter().for_each(print_status);
            Ok(())
        }
    }
}

fn print_status(status: &TopologyStatus) {
    let running = if status.running { "running" } else { "not running" };
    say!("{} ({running}, durability {})", status.topology, status.durability);
    let width = status.edges.iter().map(|edge| edge.edge.chars().count()).max().unwrap_or_default().max(4);
    say!("  {:width$} {:>9} {:>9} {:>9} {:>12}", "edge", "backlog", "in flight", "delayed", "dead letters");
    for edge in &status.edges {
        say!("  {:width$} {:>9} {:>9} {:>9} {:>12}", edge.edge, edge.backlog, edge.in_flight, edge.delayed, edge.dead_letters);
    }
    say!("  {}", status.account_line());
}

/// `leat dlq`.
pub(crate) fn dlq(args: &Dlq, found: &Found) -> Result {
    match args {
        Dlq::List(args) => look(args, found, print_counts),
        Dlq::Show(args) => look(args, found, print_letters),
        Dlq::Redrive(change) => settle(change, found, "redrive", |topology, filter| Request::Redrive { topology, filter }),
        Dlq::Drop(change) => settle(change, found, "drop", |topology, filter| Request::Drop { topology, filter }),
    }
}

fn filter(select: &DlqSelect) -> Filter {
    Filter { edge: select.edge.clone(), id: select.id.clone(), ..Filter::default() }
}

/// The dead letters that are meant, by topology: so many of them, and how many there are.
fn find(select: &DlqSelect, limit: usize, found: &Found, session: &Session) -> Result<Vec<(TopologyRef, Listed)>> {
    let mut all = Vec::new();
    for topology in selected(found, select.topology.as_deref())? {
        if let Some(edge) = &select.edge
            && !topology.edges.iter().any(|known| known.id == *edge)
        {
            let known: Vec<&str> = topology.edges.iter().map(|edge| edge.id.as_str()).collect();
            return Err(Failure::new(
                Code::Nothing,
                format!("`{}` has no edge `{edge}`; it has {}", topology.name, known.join(", ")),
            ));
        }
        let request = Request::DeadLetters { topology: topology.clone(), filter: filter(select), limit };
        let Response::DeadLetters(listed) = session.ask(request)? else { return Err(unexpected()) };
        all.push((topology, listed));
    }
    Ok(all)
}

fn look(args: &DlqLook, found: &Found, print: fn(&str, &Listed)) -> Result {
    let session = Session::open(found, &args.select.data, false)?;
    let all = find(&args.select, args.limit, found, &session);
    session.close()?;
    let all = all?;
    match args.select.output {
        Output::Json => {
            let by_name: BTreeMap<&str, &Listed> =
                all.iter().map(|(topology, listed)| (topology.name.as_str(), listed)).collect();
            print_json(&by_name)
        }
        Output::Table => {
            all.iter().for_each(|(topology, listed)| print(&topology.name, listed));
            Ok(())
        }
    }
}

fn print_counts(topology: &str, listed: &Listed) {
    say!("{topology}: {} dead letters", listed.total);
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for letter in &listed.letters {
        *counts.entry((&letter.edge, &letter.cause)).or_default() += 1;
    }
    for ((edge, cause), count) in counts {
        say!("  {edge}  {cause}  {count}");
    }
    note_limit(listed);
}

fn print_letters(topology: &str, listed: &Listed) {
    for letter in &listed.letters {
        say!("{topology}  {}  {}  {} after {} attempts", letter.edge, letter.id, letter.cause, letter.attempts);
        say!("  error    {}", letter.error);
        say!("  payload  {}{}", letter.payload, if letter.cut { " (cut: --id shows it whole)" } else { "" });
    }
    note_limit(listed);
}

fn note_limit(listed: &Listed) {
    let shown = listed.letters.len() as u64;
    if shown < listed.total {
        eprintln!("{:>12} the first {shown} of {} were looked at; --limit shows more", "Note", listed.total);
    }
}

/// Redrives or drops what is selected, once it has been confirmed.
fn settle(change: &DlqChange, found: &Found, verb: &str, request: impl Fn(TopologyRef, Filter) -> Request) -> Result {
    if let Some(id) = &change.select.id {
        leatworks::trace::id(id).map_err(|error| Failure::new(Code::Usage, format!("`--id`: {error}")))?;
    }
    let session = Session::open(found, &change.select.data, false)?;
    let result = settle_in(change, found, verb, request, &session);
    session.close()?;
    result
}

fn settle_in(
    change: &DlqChange,
    found: &Found,
    verb: &str,
    request: impl Fn(TopologyRef, Filter) -> Request,
    session: &Session,
) -> Result {
    let all = find(&change.select, 0, found, session)?;
    let matching: u64 = all.iter().map(|(_, listed)| listed.total).sum();
    if matching == 0 {
        return Err(Failure::new(Code::Nothing, "no dead letter matches"));
    }
    let total = change.limit.map_or(matching, |limit| limit.min(matching));
    if change.dry_run {
        return print_settled(change, &format!("would {verb} {total}"), total);
    }
    if !change.yes && !confirmed(&format!("{verb} {total} dead letters?"))? {
        return Err(Failure::new(
            Code::Refused,
            format!("not confirmed; `--yes` does it without asking, `--dry-run` only tells what {verb} would do"),
        ));
    }
    let mut count = 0;
    for (topology, listed) in all {
        let left = change.limit.map(|limit| limit.saturating_sub(count));
        if listed.total > 0 && left != Some(0) {
            let filter = Filter { limit: left, ..filter(&change.select) };
            let Response::Count { count: settled } = session.ask(request(topology, filter))? else {
                return Err(unexpected());
            };
            count += settled;
        }
    }
    print_settled(change, &format!("{verb}: {count}"), count)
}

/// Tells how many letters were settled, or would be.
fn print_settled(change: &DlqChange, text: &str, count: u64) -> Result {
    match change.select.output {
        Output::Json => print_json(&serde_json::json!({ "schema": "leat.count/v1", "count": count, "dry_run": change.dry_run })),
        Output::Table => {
            say!("{text}");
            Ok(())
        }
    }
}

/// Asks the person at the terminal; without one nobody can confirm.
fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() || std::env::var_os("CI").is_some() {
        return Ok(false);
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn selected(found: &Found, name: Option<&str>) -> Result<Vec<TopologyRef>> {
    match name {
        Some(_) => Ok(vec![reference(found.topology(name)?)]),
        None => Ok(found.project.topologies().iter().map(reference).collect()),
    }
}

/// A way to the queues, with what it needs to be asked from code that does not await.
struct Session {
    runtime: tokio::runtime::Runtime,
    access: Access,
}

impl Session {
    /// Opens the way. `make`: whether a journal is made where there is none.
    fn open(found: &Found, data: &Data, make: bool) -> Result<Self> {
        let flags = Flags { data: data.data.clone(), ..Flags::default() };
        let config = found.config(flags)?;
        if !make {
            there(&config)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let access = runtime.block_on(Access::open(&config)).map_err(unopened)?;
        Ok(Self { runtime, access })
    }

    fn ask(&self, request: Request) -> Result<Response> {
        match self.runtime.block_on(self.access.ask(request)) {
            Ok(Response::Failed { error, kind }) => Err(Failure::new(failure_code(kind), error)),
            Ok(response) => Ok(response),
            Err(error) => Err(unopened(error)),
        }
    }

    fn close(self) -> Result {
        self.runtime.block_on(self.access.close()).map_err(broken)
    }
}

/// Refuses to look into what is not there: the journal is made by who runs the topology or sends to it, and a mistyped folder would be believed empty.
pub(crate) fn there(config: &Config) -> Result {
    if config.broker == "embedded" && !config.journal().exists() {
        let text =
            format!("there is no journal in `{}`: nothing has been run or sent with this data folder", config.data.display());
        return Err(Failure::new(Code::Nothing, text));
    }
    Ok(())
}

/// Ends as the topologies' own binaries do when there is no way to the queues.
pub(crate) fn unopened(error: AccessError) -> Failure {
    let code = match &error {
        AccessError::Memory | AccessError::Host(HostError::Unknown(_)) => Code::Invalid,
        AccessError::Host(HostError::Connect { error, .. }) if !error.is_retryable() => Code::Invalid,
        AccessError::Host(HostError::Broker { error, .. }) => failure_code(error.kind().into()),
        _ => Code::Unreachable,
    };
    Failure::new(code, error)
}

/// What the broker says when it fails.
pub(crate) fn broken(error: BrokerError) -> Failure {
    Failure::new(failure_code(error.kind().into()), error)
}

/// The exit code for what a running process has answered, the same that the topologies' own binaries have.
pub(crate) fn failure_code(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Invalid | FailureKind::TooLarge => Code::Invalid,
        FailureKind::NotFound => Code::Nothing,
        FailureKind::Conflict => Code::Conflict,
        FailureKind::Unavailable => Code::Unreachable,
        FailureKind::Full => Code::Partly,
        FailureKind::Storage => Code::Storage,
        _ => Code::Internal,
    }
}

fn unexpected() -> Failure {
    Failure::new(
        Code::Conflict,
        "the running process answered something else; it may be of another version: stop it and start this one",
    )
}

pub(crate) fn print_json(value: &impl Serialize) -> Result {
    say!("{}", serde_json::to_string(value).map_err(|error| Failure::new(Code::Internal, error))?);
    Ok(())
}
