//! The generated binaries as processes: command line, exit codes, signals, the control socket, and `kill -9`.
//!
//! This test has no harness: it runs itself again as the binary of a topology or a task, with the arguments of a command line.

mod support;

use leatworks::{
    Context, Fold, Setup, Task, TaskError,
    control::{Access, Request, Response, Status},
    def::{BuiltinDef, Kind, TopologyDef},
    main_task, main_topology, open_fold, open_task,
    source::Line,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, ExitCode, Output, Stdio},
    time::{Duration, Instant},
};
use support::*;

/// Says which binary this process is.
const ROLE: &str = "LEAT_TEST_ROLE";

/// How long anything may take before it counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// So many lines that no pipe holds what comes of them.
const MANY_LINES: u64 = 50_000;

type Case = (&'static str, fn());

const CASES: [Case; 15] = [
    ("help_version_and_drawings_go_to_standard_output", help_version_and_drawings_go_to_standard_output),
    ("a_run_ends_with_its_account", a_run_ends_with_its_account),
    ("a_topology_has_a_level_of_its_own", a_topology_has_a_level_of_its_own),
    ("dead_letters_are_shown_and_redriven", dead_letters_are_shown_and_redriven),
    ("a_running_topology_takes_messages_and_answers", a_running_topology_takes_messages_and_answers),
    ("a_wrong_configuration_is_refused_by_name", a_wrong_configuration_is_refused_by_name),
    ("nearly_the_name_of_the_topology_is_warned_of", nearly_the_name_of_the_topology_is_warned_of),
    ("a_check_makes_nothing_and_starts_no_task", a_check_makes_nothing_and_starts_no_task),
    ("a_filter_of_the_log_that_is_none_is_warned_of", a_filter_of_the_log_that_is_none_is_warned_of),
    ("what_would_do_nothing_is_refused", what_would_do_nothing_is_refused),
    ("standard_input_can_be_the_source", standard_input_can_be_the_source),
    ("lines_go_to_standard_output_as_long_as_somebody_reads", lines_go_to_standard_output_as_long_as_somebody_reads),
    ("a_task_is_served", a_task_is_served),
    ("the_first_signal_drains_and_the_second_stops_at_once", the_first_signal_drains_and_the_second_stops_at_once),
    ("nothing_is_lost_or_doubled_by_fifty_kills", nothing_is_lost_or_doubled_by_fifty_kills),
];

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("moody") => return main_topology(moody()),
        Ok("tally") => return main_topology(tally()),
        Ok("shown") => return main_topology(shown()),
        Ok("task") => return main_task(moody().tasks[0]),
        _ => {}
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let began = Instant::now();
        let ok = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {} ({:.1} s)", if ok { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
        failed += u8::from(!ok);
    }
    ExitCode::from(failed)
}

/// Fails unless it is told `"ok"`, or is healed by its settings.
#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Moody {
    healed: bool,
}

impl Task for Moody {
    type In = Value;
    type Out = Value;

    async fn run(&self, value: Value, _cx: &Context) -> Result<Value, TaskError> {
        if value == json!("stuck") {
            std::future::pending::<()>().await;
        }
        if self.healed || value != json!("bad") { Ok(value) } else { Err(TaskError::retryable("a bad one")) }
    }
}

#[derive(serde::Deserialize)]
struct Keep;

impl Task for Keep {
    type In = Value;
    type Out = ();

    async fn run(&self, _value: Value, _cx: &Context) -> Result<(), TaskError> {
        Ok(())
    }
}

fn moody() -> &'static TopologyDef {
    let tasks = vec![node("moody", Kind::Rust(open_task::<Moody>)), node("keep", Kind::Rust(open_task::<Keep>))];
    topology("moods", tasks, &["moody-->keep"])
}

#[derive(serde::Deserialize)]
struct Twice;

impl Task for Twice {
    type In = Line;
    type Out = u64;

    async fn run(&self, line: Line, _cx: &Context) -> Result<Vec<u64>, TaskError> {
        Ok(vec![line.number; 2])
    }
}

#[derive(serde::Deserialize)]
struct Sum;

impl Fold for Sum {
    type In = u64;
    type Out = (u64, u64, u64);
    type State = (u64, u64, u64);

    async fn start(&mut self, setup: &Setup) -> Result<(), TaskError> {
        Ok(fs::write(setup.data().with_file_name("started"), "")?)
    }

    fn fold(&self, (count, sum, mixed): &mut Self::State, number: u64, _cx: &Context) -> Result<(), TaskError> {
        *count += 1;
        *sum += number;
        *mixed = mixed.wrapping_add(number.wrapping_mul(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Ok(())
    }

    async fn finish(&self, state: Self::State, _cx: &Context) -> Result<Self::State, TaskError> {
        Ok(state)
    }
}

/// lines --> twice --> sum --> out, and twice --> keep.
fn tally() -> &'static TopologyDef {
    let directory = std::env::var("LEAT_TEST_DIRECTORY").unwrap_or_default();
    let path = |name: &str| leak(json!({ "path": Path::new(&directory).join(name) }).to_string());
    let out = Kind::Sink(BuiltinDef { kind: "jsonl", options: path("out.jsonl") });
    let tasks = vec![
        node("lines", Kind::Source).source("lines", path("in.txt")).attempts(10_000),
        node("twice", Kind::Rust(open_task::<Twice>)).attempts(10_000),
        node("keep", Kind::Rust(open_task::<Keep>)).attempts(10_000).parallelism(2),
        node("sum", Kind::Fold(open_fold::<Sum>)).attempts(10_000),
        node("out", out).attempts(10_000),
    ];
    topology("tally", tasks, &["lines-->twice", "twice-->sum", "twice-->keep", "sum-->out"])
}

/// lines --> out
fn shown() -> &'static TopologyDef {
    let out = Kind::Sink(BuiltinDef { kind: "stdout", options: "{}" });
    topology(
        "shown",
        vec![node("lines", Kind::Source).source("lines", r#"{"path": "in.txt"}"#), node("out", out)],
        &["lines-->out"],
    )
}

fn expected(lines: u64) -> (u64, u64, u64) {
    let mixed = (1..=lines).fold(0u64, |mixed, number| {
        mixed.wrapping_add(number.wrapping_mul(number).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(2))
    });
    (2 * lines, lines * (lines + 1), mixed)
}

fn command(role: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(ROLE, role).env("LEAT_DATA", directory.join("data")).env("LEAT_TEST_DIRECTORY", directory);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn call(role: &str, directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(command(role, directory, arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn json_of((code, out, err): (i32, String, String)) -> Value {
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

/// Waits until the process says that it is running, and gives its standard error on.
fn started(child: &mut Child, word: &str) -> (String, BufReader<ChildStderr>) {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it said `{word}`");
        if line.contains(word) {
            return (line, lines);
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < STUCK, "never: {what}");
        std::thread::yield_now();
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn help_version_and_drawings_go_to_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, _) = call("moody", directory.path(), &["--help"]);
    assert!(code == 0 && out.contains("Usage: moods") && out.contains("Examples:") && out.contains("dlq"), "{out}");
    assert_eq!(call("moody", directory.path(), &["--version"]), (0, "moods 0\n".to_owned(), String::new()));
    for (format, drawing) in [("mermaid", "flowchart LR\n"), ("dot", "digraph {}\n"), ("svg", "<svg/>\n"), ("text", "moods\n")] {
        assert_eq!(call("moody", directory.path(), &["graph", "--format", format]).1, drawing);
    }
    let (code, _, err) = call("moody", directory.path(), &["grph"]);
    assert!(code == 2 && err.contains("graph"), "{err}");
    assert_eq!(call("moody", directory.path(), &["check"]).0, 0);
    assert!(!directory.path().join("data").exists(), "looking makes no files");
}

fn a_run_ends_with_its_account() {
    let directory = tempfile::tempdir().unwrap();
    // What has ended starts anew, in the same journal.
    for arguments in [&["-o", "json"][..], &["run", "--output=json", "-q"], &["run", "--message", "\"x\"", "-o", "json"]] {
        let mut report = json_of(call("moody", directory.path(), arguments));
        assert!(report["elapsed_s"].take().as_f64().unwrap() >= 0.0);
        let tally = |emitted: u64| json!({"handled": 1, "emitted": emitted, "failed": 0, "retried": 0});
        let expected = json!({
            "schema": "leat.run/v1", "topology": "moods", "sent": 1, "done": 1, "dead_lettered": 0, "in_flight": 0,
            "tasks": {"moody": tally(1), "keep": tally(0)}, "elapsed_s": null,
        });
        assert_eq!(report, expected);
    }
    let (code, out, err) = call("moody", directory.path(), &["--broker", "memory"]);
    assert!(code == 0 && out.contains("sent 1 = done 1 + dead-lettered 0 + in flight 0"), "{out}");
    assert!(err.contains("durability memory"), "{err}");
}

fn a_topology_has_a_level_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let level = || json_of(call("moody", path, &["status", "-o", "json"]))["durability"].as_str().map(str::to_owned);
    for (text, flags, expected) in [
        ("", &[][..], "power"),
        ("[topology.moods]\ndurability = 'process'", &[], "process"),
        ("[broker]\ndurability = 'memory'\n[topology.moods]\ndurability = 'interval'", &[], "interval"),
        ("[topology.moods]\ndurability = 'process'", &["--durability", "power"], "power"),
        ("[broker]\ndurability = 'process'", &[], "process"),
    ] {
        fs::write(path.join("leat.toml"), text).unwrap();
        let (code, _, err) = call("moody", path, flags);
        assert!(code == 0 && err.contains(&format!("durability {expected},")), "{text}: {err}");
        assert_eq!(level().as_deref(), Some(expected), "{text}");
    }
}

fn dead_letters_are_shown_and_redriven() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(call("moody", path, &["run", "--message", "\"bad\"", "--fail-on-dlq"]).0, 102);
    assert_eq!(call("moody", path, &["run", "--message", "\"bad\""]).0, 0);
    let listed = json_of(call("moody", path, &["dlq", "list", "-o", "json"]));
    assert_eq!((listed["schema"].as_str(), listed["total"].as_u64()), (Some("leat.dlq/v1"), Some(2)));
    assert_eq!(listed["letters"][0]["cause"], "error");
    let id = listed["letters"][0]["id"].as_str().unwrap().to_owned();
    let (_, shown, _) = call("moody", path, &["dlq", "show", &id]);
    assert!(
        shown.contains("error     a bad one") && shown.contains("payload   \"bad\"") && shown.contains("attempts  3"),
        "{shown}"
    );
    assert_eq!(call("moody", path, &["dlq", "show", "ffff"]).0, 4);
    assert_eq!(call("moody", path, &["dlq", "drop", &id]).0, 2);
    assert_eq!(call("moody", path, &["dlq", "drop", &id, "--yes"]).1, "1 dropped\n");
    assert_eq!(call("moody", path, &["dlq", "redrive", "--cause", "error"]).1, "1 redriven\n");
    let healed = "LEAT_TOPOLOGY__MOODS__TASK__MOODY__SETTINGS__HEALED";
    let report = json_of(told(command("moody", path, &["-o", "json"]).env(healed, "true").output().unwrap()));
    assert_eq!((report["sent"].as_u64(), report["done"].as_u64()), (Some(2), Some(2)), "{report}");
    let status = json_of(call("moody", path, &["status", "-o", "json"]));
    let account = ["sent", "done", "dead_lettered", "in_flight"].map(|key| status[key].as_u64().unwrap());
    assert_eq!(account, [3, 2, 1, 0], "{status}");
}

fn a_running_topology_takes_messages_and_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (code, _, err) = call("moody", path, &["send", "1", "--wait"]);
    assert!(code == 5 && err.contains("is not running"), "{err}");
    // Accepted while nothing runs, handled when something does.
    assert_eq!(call("moody", path, &["send", "0"]).0, 0);
    let mut child = command("moody", path, &["run", "--serve"]).spawn().unwrap();
    let (_, _err) = started(&mut child, "Running");
    let sent = json_of(call("moody", path, &["send", "moody", "\"ok\"", "--wait", "--key", "k", "-o", "json"]));
    assert_eq!(sent["messages"][0]["outcome"], "done");
    let (code, out, _) = call("moody", path, &["send", "\"bad\"", "--wait"]);
    assert!(code == 9 && out.contains("dead-lettered"), "{out}");
    let mut piped = command("moody", path, &["send", "-f", "-", "--wait"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"1\n\n2\n3\n").unwrap();
    let (code, out, _) = told(piped.wait_with_output().unwrap());
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
    let (code, _, err) = call("moody", path, &["run"]);
    assert!(code == 7 && err.starts_with("error: "), "{err}");
    let status = json_of(call("moody", path, &["status", "-o", "json"]));
    assert_eq!((status["running"].as_bool(), status["sent"].as_u64()), (Some(true), Some(6)), "{status}");
    assert_eq!(call("moody", path, &["dlq", "redrive"]).1, "1 redriven\n");
    assert_eq!(call("moody", path, &["send", "keep", "1"]).0, 2);
    signal(&child, "-TERM");
    let (code, out, _) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 143);
    assert!(out.contains("sent 6 = done 5 + dead-lettered 1 + in flight 0"), "{out}");
}

fn a_wrong_configuration_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("in.txt"), "").unwrap();
    for (role, text, words) in [
        ("moody", "[topology.moods.task.moody]\nsettings = { heald = true }", "unknown key `heald`; did you mean `healed`?"),
        ("moody", "[topology.moods.task.moody]\nsettings = { healed = 1 }", "`healed`: invalid type: integer `1`"),
        ("moody", "[topology.moods.task.mody]\ntimeout = '1s'", "did you mean `moody`?"),
        (
            "moody",
            "[topology.moods.task.moody]\nparallelism = 100000",
            "in `leat.toml`: `topology.moods.task.moody.parallelism`: ",
        ),
        (
            "moody",
            "[broker]\nurl = 'embeded'",
            "in `leat.toml`: `broker.url`: unknown broker `embeded`; did you mean `embedded`?",
        ),
        ("moody", "[broker]\nurl = 'pulsar://'", "is no address of a Pulsar service"),
        ("moody", "[broker]\nurl = 'pulsar+ssl://127.0.0.1:1'", "no `ca_file` says"),
        ("moody", "[broker]\ndurability = 'strong'", "`strong`"),
        ("moody", "[topology.moods]\ndurability = 'strong'", "in `leat.toml`: `topology.moods.durability`: durability `strong`"),
        ("moody", "[topology.moods]\ndurabilty = 'power'", "did you mean `durability`?"),
        ("tally", "[topology.tally.task.out]\nsink = { path = 'in.txt/below' }", "`in.txt"),
        ("tally", "[topology.tally.task.out]\nsink = { path = '.' }", "opening `.`: "),
        ("tally", "[topology.tally.task.out]\nsink = { type = 'maildir', path = 'in.txt' }", "`in.txt`"),
    ] {
        fs::write(path.join("leat.toml"), text).unwrap();
        for arguments in [&["check"][..], &[]] {
            let (code, _, err) = call(role, path, arguments);
            assert!(code == 3 && err.contains(words), "{text} {arguments:?}: {code}: {err}");
        }
    }
    fs::write(path.join("leat.toml"), "").unwrap();
    let (code, _, err) = told(command("moody", path, &["check"]).env("LEAT_DATA", "").output().unwrap());
    assert!(code == 3 && err.contains("in the variable `LEAT_DATA`: `data`: it is empty"), "{err}");
    let (code, _, err) = call("moody", path, &["check", "--data", "in.txt"]);
    assert!(code == 3 && err.contains("`in.txt` is no folder"), "{err}");
}

fn nearly_the_name_of_the_topology_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("leat.toml"), "[topology.mood.task.moody]\ntimeout = '1s'").unwrap();
    for arguments in [&["check"][..], &[]] {
        let (code, _, err) = call("moody", directory.path(), arguments);
        assert!(code == 0 && err.contains("WARN") && err.contains("did you mean `topology.moods`?"), "{code}: {err}");
    }
}

fn a_check_makes_nothing_and_starts_no_task() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("in.txt"), "").unwrap();
    fs::write(path.join("leat.toml"), "[topology.tally.task.out]\nsink = { path = 'made/later/out.jsonl' }").unwrap();
    let (code, out, err) = call("tally", path, &["check"]);
    assert!(code == 0 && out.contains("sinks are fine"), "{code}: {out}{err}");
    assert!(!path.join("started").exists(), "`Sum` was started");
    assert!(!path.join("made").exists() && !path.join("data").exists());
    assert_eq!(call("tally", path, &[]).0, 0);
    assert!(path.join("started").exists() && path.join("made/later/out.jsonl").exists());
}

fn a_filter_of_the_log_that_is_none_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    for (filter, warned) in [("leatworks=nonsense", true), ("warn,leatworks=debug", false)] {
        let (code, _, err) = told(command("moody", directory.path(), &["check"]).env("LEAT_LOG", filter).output().unwrap());
        assert!(code == 0 && err.contains("`LEAT_LOG` is no filter") == warned, "{filter}: {code}: {err}");
    }
}

fn what_would_do_nothing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("in.txt"), "").unwrap();
    for (role, arguments, code, words) in [
        ("tally", &["--message", "1"][..], 2, "`tally` is started by its sources, so `--message` would not be sent"),
        ("moody", &["run", "--serve", "--message", "1"], 2, "send it by `moods send`"),
        ("moody", &["run", "--listen", "127.0.0.1:0", "--message", "1"], 2, "`--message` would not be sent"),
        ("moody", &["send", "moody"], 4, "no message in the input"),
        ("moody", &["send", "bad"], 2, "the message is no JSON"),
        ("moody", &["send", "-f", "in.txt"], 4, "no message in the input"),
        ("moody", &["dlq", "list", "--edge", "moody-->kep"], 4, "has no edge `moody-->kep`; did you mean `moody-->keep`?"),
        ("moody", &["dlq", "drop", "--yes", "--edge", "nope"], 4, "has no edge `nope`"),
        ("moody", &["dlq", "list", "--cause", "nonsense"], 2, "worker-died"),
    ] {
        let (found, out, err) = call(role, path, arguments);
        assert!(found == code && err.contains(words), "{arguments:?}: {found}: {out}{err}");
    }
    let mut piped = command("moody", path, &["send", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"1\n\nnojson\n").unwrap();
    let (code, _, err) = told(piped.wait_with_output().unwrap());
    assert!(code == 2 && err.contains("message 2 is no JSON"), "{code}: {err}");
    assert!(!path.join("data").exists(), "nothing was sent or run");
    let mut piped = command("moody", path, &["send", "moody"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"1\n2\n").unwrap();
    let (code, out, _) = told(piped.wait_with_output().unwrap());
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    fs::write(path.join("leat.toml"), "[topology.moods.task.moody]\nsource = { type = 'lines', path = 'in.txt' }").unwrap();
    let (code, _, err) = call("moody", path, &["run", "--message", "1"]);
    assert!(
        code == 2 && err.contains("`moods` is started by its sources"),
        "a source of the configuration is one: {code}: {err}"
    );
}

fn standard_input_can_be_the_source() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command("tally", directory.path(), &["run", "-", "-o", "json"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\nb\nc").unwrap();
    let report = json_of(told(child.wait_with_output().unwrap()));
    assert_eq!((report["sent"].as_u64(), report["done"].as_u64()), (Some(3), Some(3)));
    let out = fs::read_to_string(directory.path().join("out.jsonl")).unwrap();
    assert_eq!(serde_json::from_str::<(u64, u64, u64)>(&out).unwrap(), expected(3));
    let (code, _, err) = call("tally", directory.path(), &["run", "no-such-file"]);
    assert!(code == 3 && err.contains("reading `no-such-file`"), "{err}");
}

fn lines_go_to_standard_output_as_long_as_somebody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("in.txt"), "a line\n".repeat(MANY_LINES as usize)).unwrap();
    let mut child = command("shown", path, &["run"]).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Line>(&line).unwrap().number, 1);
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let status = json_of(call("shown", path, &["status", "-o", "json"]));
    assert_eq!(status["dead_lettered"], 0, "{status}");
    assert_ne!(status["in_flight"], 0, "{status}");
    // The next run goes on, and standard output has nothing but its report.
    let (code, out, err) = call("shown", path, &["run", "-q", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["done"].as_u64(), report["dead_lettered"].as_u64()), (0, Some(MANY_LINES), Some(0)), "{report}");
    let last = err.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).map(|line| line.number).max();
    assert_eq!(last, Some(MANY_LINES));
}

fn a_task_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, err) = call("task", directory.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert!(code == 6 && err.contains("--allow-remote"), "{err}");
    assert_eq!(call("task", directory.path(), &["--version"]).1, "moody 0\n");
    let mut child = command("task", directory.path(), &["serve", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let (line, _err) = started(&mut child, "Serving");
    let address = line.trim().rsplit_once("http://").unwrap().1.to_owned();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let get = |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    let post = |body: &str| {
        let length = body.len();
        ask(&format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    until("ready", || get("/readyz").starts_with("HTTP/1.1 200").then_some(()));
    assert!(post("\"ok\"").ends_with("{\"tasks\":[{\"task\":\"ok\"}]}"), "{}", post("\"ok\""));
    assert!(post("{").starts_with("HTTP/1.1 400"));
    assert!(post("\"bad\"").starts_with("HTTP/1.1 503"));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

fn the_first_signal_drains_and_the_second_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut child = command("moody", path, &["run", "--serve", "--drain", "1h"]).spawn().unwrap();
    let (_, mut err) = started(&mut child, "Running");
    assert_eq!(call("moody", path, &["send", "\"stuck\""]).0, 0);
    until("the message is taken", || (running_status(path, moody()).edges[0].in_flight == 1).then_some(()));
    signal(&child, "-INT");
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("Draining"), "{line}");
    let (code, _, refused) = call("moody", path, &["send", "1"]);
    assert!(code == 5 && refused.contains("takes nothing in any more"), "{code}: {refused}");
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, "-INT");
    let (code, out, _) = told(child.wait_with_output().unwrap());
    assert!(code == 130 && out.contains("sent 1 = done 0 + dead-lettered 0 + in flight 1"), "{code}: {out}");
}

/// Under load, at any moment: after each kill the account balances, and in the end every line was counted exactly once.
#[expect(clippy::disallowed_methods, reason = "the moment of the kill is what varies, and nothing depends on it")]
fn nothing_is_lost_or_doubled_by_fifty_kills() {
    const LINES: u64 = 60_000;
    const KILLS: u32 = 50;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("in.txt"), "a line of some length that is not short\n".repeat(LINES as usize)).unwrap();
    let mut kills = 0;
    let mut finished = 0;
    while kills < KILLS {
        let mut child = command("tally", path, &["run"]).spawn().unwrap();
        let (_, _err) = started(&mut child, "Running");
        let status = running_status(path, tally());
        let roots = status.account.unwrap();
        assert_eq!(roots.sent, roots.done + roots.dead_lettered + roots.in_flight, "{roots:?}");
        assert_eq!(roots.dead_lettered, 0);
        // A different moment each time, between the start and about a tenth of the work.
        std::thread::sleep(Duration::from_micros(u64::from(kills.wrapping_mul(7919) % 97) * 1000));
        child.kill().unwrap();
        match child.wait().unwrap().success() {
            true => finished += 1,
            false => kills += 1,
        }
    }
    let report = json_of(call("tally", path, &["run", "-o", "json"]));
    finished += 1;
    assert_eq!((report["sent"].as_u64(), report["in_flight"].as_u64()), (report["done"].as_u64(), Some(0)), "{report}");
    let status = json_of(call("tally", path, &["status", "-o", "json"]));
    let sent = status["sent"].as_u64().unwrap();
    assert_eq!((sent % LINES, status["in_flight"].as_u64()), (0, Some(0)), "{status}");
    let out = fs::read_to_string(path.join("out.jsonl")).unwrap();
    assert!(out.lines().count() as u64 >= finished);
    for line in out.lines() {
        assert_eq!(serde_json::from_str::<(u64, u64, u64)>(line).unwrap(), expected(LINES));
    }
    println!("  {kills} kills, {} runs of {LINES} lines came to their end", sent / LINES);
}

/// Asks the process that owns the journal.
fn running_status(directory: &Path, topology: &'static TopologyDef) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let access = Access::Running(directory.join("data"));
    match runtime.block_on(access.ask(Request::Status { topology: topology.into() })).unwrap() {
        Response::Status(status) => status,
        other => panic!("{other:?}"),
    }
}
