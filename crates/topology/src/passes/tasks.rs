//! Brings declarations and nodes together, and decides what handles the messages of each task.

use std::collections::HashMap;
use std::time::Duration;

use super::{Draft, rust_path};
use crate::diagnostics::{At, Diagnostic, Place, Reports, codes};
use crate::spec::{BuiltinSpec, KindWord, TaskSpec};
use crate::{Builtin, Job, Retry, TaskKind};

/// Tries of a message unless the task says otherwise: enough for a hiccup, few enough to see a real fault soon.
const ATTEMPTS: u32 = 3;

/// The wait before the second try.
const BACKOFF: Duration = Duration::from_millis(200);

/// The longest wait between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How long one handling may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The Rust module of the tasks unless the topology says otherwise.
pub(super) const MODULE: &str = "tasks";

/// What a node is.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) kind: TaskKind,
    pub(super) source: Option<Builtin>,
    pub(super) retry: Retry,
    pub(super) timeout: Duration,
    pub(super) parallelism: usize,
}

pub(super) fn run(draft: &mut Draft, reports: &mut Reports) {
    if let Some(module) = &draft.spec.module
        && let Err(fault) = rust_path::check(&module.value)
    {
        let message = format!("`mod` must be the path of a Rust module: {fault}");
        let diagnostic = Diagnostic::at(&codes::RUST_PATH, &module.place, message, "not a path");
        reports.push(diagnostic.with_help("write it as in Rust, relative to the crate: `mod = \"mail::tasks\"`"));
    }
    draft.declared = declarations(draft, reports);
    let module = draft.spec.module.as_ref().map_or(MODULE, |module| &module.value);
    let roles = draft.sketch.nodes.iter().zip(&draft.declared).map(|(node, declared)| {
        let spec = declared.map(|declared| &draft.spec.tasks[declared]);
        role(&node.id.text, module, spec)
    });
    let roles = roles.collect();
    draft.roles = roles;
    draft.spec.tasks.iter().for_each(|spec| check(spec, reports));
}

/// Which declaration each node has.
fn declarations(draft: &Draft, reports: &mut Reports) -> Vec<Option<usize>> {
    let sketch = &draft.sketch;
    let mut declared = vec![None; sketch.nodes.len()];
    let mut first: HashMap<&str, &Place> = HashMap::new();
    for (number, spec) in draft.spec.tasks.iter().enumerate() {
        let At { value: name, place } = &spec.name;
        if let Some(first) = first.get(&**name) {
            let diagnostic =
                Diagnostic::at(&codes::TASK_TWICE, place, format!("the task `{name}` is declared twice"), "again here");
            reports.push(diagnostic.also(first, "first here").with_help("put all its keys into one `[[topology.task]]`"));
            continue;
        }
        first.insert(name, place);
        match sketch.find(name) {
            Some(node) => declared[node] = Some(number),
            // A node may be missing because its statement could not be read.
            None if !sketch.complete => {}
            None => {
                let help = match reports.similar(name, sketch.nodes.iter().map(|node| &*node.id.text)) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => "draw an edge to it, or remove the declaration".to_owned(),
                };
                let message = format!("the task `{name}` is not in the graph");
                let diagnostic = Diagnostic::at(&codes::UNKNOWN_TASK, place, message, "declared, but never used");
                let header = draft.spec.graph.place(&(0..0));
                let diagnostic =
                    if header.file == place.file { diagnostic.also(&header, "the graph of this topology") } else { diagnostic };
                reports.push(diagnostic.with_help(help));
            }
        }
    }
    declared
}

/// What a node is by its declaration. Contradictions are reported by [`check`]; here the first key wins.
fn role(name: &str, module: &str, spec: Option<&TaskSpec>) -> Role {
    let backoff = spec.and_then(|spec| spec.backoff.as_ref()).map_or(BACKOFF, |at| at.value);
    let max_backoff = spec.and_then(|spec| spec.max_backoff.as_ref()).map_or(MAX_BACKOFF.max(backoff), |at| at.value);
    let backoff = backoff.min(max_backoff);
    Role {
        kind: kind(name, module, spec),
        source: spec.and_then(|spec| spec.source.as_ref()).map(|source| builtin(&source.value)),
        retry: Retry { attempts: spec.and_then(|spec| spec.attempts).unwrap_or(ATTEMPTS), backoff, max_backoff },
        timeout: spec.and_then(|spec| spec.timeout).unwrap_or(TIMEOUT),
        parallelism: spec.and_then(|spec| spec.parallelism).unwrap_or(1),
    }
}

fn builtin(spec: &BuiltinSpec) -> Builtin {
    Builtin { kind: spec.kind.clone(), options: spec.options.clone() }
}

fn kind(name: &str, module: &str, spec: Option<&TaskSpec>) -> TaskKind {
    let word = spec.and_then(|spec| spec.kind.as_ref()).map(|at| at.value);
    let rust_type = spec.and_then(|spec| spec.rust_type.as_ref());
    match spec {
        Some(TaskSpec { job: Some(job), .. }) => return TaskKind::Job(Job { options: job.value.clone() }),
        Some(TaskSpec { worker: Some(url), .. }) => return TaskKind::Worker { url: url.value.clone() },
        Some(TaskSpec { sink: Some(sink), .. }) => return TaskKind::Sink(builtin(&sink.value)),
        Some(TaskSpec { source: Some(_), .. }) if rust_type.is_none() && word.is_none() => return TaskKind::Source,
        _ => {}
    }
    let module = module.strip_prefix("crate::").unwrap_or(module);
    let written = rust_type.map_or_else(|| pascal(name), |at| at.value.clone());
    let path = if written.starts_with("::") || written.starts_with("crate::") {
        written
    } else if written.contains("::") {
        format!("crate::{written}")
    } else if module.starts_with("::") {
        format!("{module}::{written}")
    } else {
        format!("crate::{module}::{written}")
    };
    TaskKind::Rust { path, fold: word == Some(KindWord::Fold) }
}

/// `fetch-users` as a type is `FetchUsers`.
fn pascal(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut chars = word.chars();
        chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect::<String>()
    });
    words.collect()
}

/// Reports keys of a declaration that contradict each other or cannot be.
fn check(spec: &TaskSpec, reports: &mut Reports) {
    one_kind(spec, reports);
    if let Some(At { value, place }) = &spec.rust_type
        && let Err(fault) = rust_path::check(value)
    {
        let message = format!("`type` must be the path of a Rust type: {fault}");
        let diagnostic = Diagnostic::at(&codes::RUST_PATH, place, message, "not a path");
        reports.push(
            diagnostic.with_help(
                "write it as in Rust: `Send` or `mail::Send`; give a generic type a name by `type Mails = Batch<Mail>;`",
            ),
        );
    }
    if let Some(At { value, place }) = &spec.worker
        && let Err(fault) = worker(value)
    {
        let diagnostic = Diagnostic::at(&codes::URL, place, format!("`{value}` is not the address of a worker"), fault);
        reports.push(diagnostic.with_help(match value.starts_with("https://") {
            false => "write it as `http://host:port/path`",
            true => "write `http://`; where the way there must be encrypted, name a proxy beside the run that speaks TLS to the worker",
        }));
    }
    if let (Some(backoff), Some(max)) = (&spec.backoff, &spec.max_backoff)
        && max.value < backoff.value
    {
        let diagnostic = Diagnostic::at(&codes::RANGE, &max.place, "`max_backoff` is shorter than `backoff`", "shorter");
        reports.push(
            diagnostic.also(&backoff.place, "than this").with_help("waits grow from `backoff` to `max_backoff`; swap the two?"),
        );
    }
}

/// A task is a Rust type, a worker, a job, a sink or a source; a source may also feed one of the first three.
fn one_kind(spec: &TaskSpec, reports: &mut Reports) {
    let rust = spec.rust_type.as_ref().map(|at| ("type", &at.place));
    let is_job = |at: &At<KindWord>| at.value == KindWord::Job;
    let fold = spec.kind.as_ref().filter(|at| !is_job(at)).map(|at| ("kind", &at.place));
    let job = spec.job.as_ref().map(|at| ("job", &at.place)).or_else(|| {
        let kind = spec.kind.as_ref().filter(|at| is_job(at));
        kind.map(|at| ("kind", &at.place))
    });
    let worker = spec.worker.as_ref().map(|at| ("worker", &at.place));
    let sink = spec.sink.as_ref().map(|at| ("sink", &at.place));
    let source = spec.source.as_ref().map(|at| ("source", &at.place));
    let clash = match (sink, worker, job) {
        (Some(sink), _, _) => rust.or(fold).or(worker).or(job).or(source).map(|other| (sink, other)),
        (None, Some(worker), _) => rust.or(fold).or(job).map(|other| (worker, other)),
        (None, None, Some(job)) => rust.or(fold).map(|other| (job, other)),
        _ => None,
    };
    let Some(((one, one_place), (other, other_place))) = clash else { return };
    let message = format!("the task `{}` has both `{one}` and `{other}`", spec.name.value);
    let diagnostic = Diagnostic::at(&codes::KINDS, other_place, message, "either this").also(one_place, "or this");
    let diagnostic =
        diagnostic.with_help(format!("keep one of `{one}` and `{other}`, or make two tasks with an edge between them"));
    reports.push(diagnostic.with_note("a task is a Rust type, an HTTP worker, a job, a source or a sink"));
}

/// Why a text is not an address of a worker.
fn worker(url: &str) -> Result<(), &'static str> {
    if url.starts_with("https://") {
        return Err("a run calls workers without TLS");
    }
    let rest = url.strip_prefix("http://").ok_or("does not begin with `http://`")?;
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return Err("has a sign that no address has");
    }
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if authority.contains('@') {
        return Err("holds a user or password, which would stand in the binary");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err("names no host");
    }
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("has a port that is none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_workers() {
        for url in
            ["http://localhost", "http://127.0.0.1:8080/score", "http://[::1]:443/a?b=c", "http://[::1]", "http://score.svc/x"]
        {
            assert_eq!(worker(url), Ok(()), "of {url:?}");
        }
        for url in [
            "",
            "localhost:8080",
            "ftp://host",
            "https://host",
            "http://",
            "http:///path",
            "http://host:port",
            "http://host:0",
            "http://host:70000",
            "http://user:secret@host",
            "http://host/a b",
            "http://host/\"",
            "http://größe",
            "HTTP://host",
        ] {
            assert!(worker(url).is_err(), "{url:?} passes");
        }
    }

    #[test]
    fn types_are_named_after_tasks() {
        for (name, expected) in [("send", "Send"), ("fetch-users", "FetchUsers"), ("a-1b", "A1b")] {
            assert_eq!(pascal(name), expected);
        }
    }
}
