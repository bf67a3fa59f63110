//! The email pipeline with a process for each task and each edge: the same results, whoever is killed meanwhile.
#![cfg(target_os = "linux")]

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take before it counts as stuck.
const STUCK: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// So many subscribers that there is a middle of the run.
const MANY: usize = 120;

fn start(home: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_email-pipeline"))
        .args(["run", "-o", "json", "--processes"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LEATWORKS_HOME", home)
        .env("LEAT_DATA", home.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started")
}

fn account(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// The children of a run, each with its command line.
fn children(parent: u32) -> Vec<(i32, String)> {
    let mark = format!(" --child-of {parent} ");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&mark) {
            found.push((pid, line));
        }
    }
    found
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells what other processes have come to, so it is looked at from time to time"
)]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < STUCK, "it does not come to this: {what}");
        std::thread::sleep(LOOK);
    }
}

fn signal(name: &str, pid: impl ToString) {
    let done = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill is there");
    assert!(done.success(), "{name}");
}

/// Kills the child whose command line has this in it, once it is there.
fn kill(parent: u32, words: &str) {
    let pid = until(words, || children(parent).into_iter().find(|(_, line)| line.contains(words)).map(|(pid, _)| pid));
    signal("-KILL", pid);
}

fn mails(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home.join("data/mail/new")).into_iter().flatten();
    entries.flatten().map(|entry| fs::read_to_string(entry.path()).unwrap_or_default()).collect()
}

fn many(home: &Path) -> String {
    let mut text = "name,email,subscribed\n".to_owned();
    for number in 0..MANY {
        writeln!(text, "Subscriber {number},s{number}@example.org,yes").expect("written");
    }
    let path = home.join("many.csv");
    fs::write(&path, text).expect("written");
    serde_json::json!({ "subscribers": path }).to_string()
}

/// Each subscriber has one mail and one record.
fn check(home: &Path) {
    let mails = mails(home);
    assert_eq!(mails.len(), MANY);
    let to = |mail: &str| mail.lines().find(|line| line.starts_with("To: ")).map(str::to_owned);
    assert_eq!(mails.iter().map(|mail| to(mail)).collect::<BTreeSet<_>>().len(), MANY);
    let text = fs::read_to_string(home.join("data/record.jsonl")).expect("a record");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let emails: BTreeSet<_> = records.iter().map(|record| record["email"].as_str()).collect();
    assert_eq!((records.len(), emails.len()), (MANY, MANY));
    assert!(records.iter().all(|record| record["result"] == "sent"), "{records:?}");
}

#[test]
fn three_subscribers_are_eleven_calls_in_eleven_processes() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let child = start(home.path(), &[]);
    let pid = child.id();
    let output = child.wait_with_output().expect("ended");
    let account = account(&output);
    let handled = |task: &str| account["tasks"][task]["handled"].as_u64();
    assert_eq!(["start", "fetch-users", "render", "send", "record"].map(handled), [1, 1, 3, 3, 3].map(Some));
    let failed: u64 = account["tasks"].as_object().expect("tasks").values().filter_map(|task| task["failed"].as_u64()).sum();
    assert_eq!((&account["sent"], &account["done"], failed), (&1.into(), &1.into(), 0), "eleven calls and not one more");
    assert_eq!(mails(home.path()).len(), 3);
    assert_eq!(children(pid), [], "none outlives the run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("Started 5 workers and 6 dispatchers") && told.contains("send | "), "{told}");
    assert!(!told.contains("leat: serving"), "what children say to the run is not for people: {told}");
}

#[test]
fn killed_children_lose_nothing() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let child = start(home.path(), &["--message", &many(home.path())]);
    let pid = child.id();
    for (after, words) in [
        (10, "dispatch render-->|mail|send"),
        (25, "/send serve"),
        (40, "dispatch send-->record"),
        (55, "/record serve"),
        (70, "dispatch fetch-users-->render"),
        (85, "/send serve"),
    ] {
        until("so many mails", || (mails(home.path()).len() >= after).then_some(()));
        kill(pid, words);
    }
    let account = account(&child.wait_with_output().expect("ended"));
    assert_eq!((&account["done"], &account["dead_lettered"], &account["in_flight"]), (&1.into(), &0.into(), &0.into()));
    check(home.path());
}

#[test]
fn a_run_that_is_killed_takes_its_children_with_it_and_the_next_one_goes_on() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let message = many(home.path());
    for (signalled, code) in [("-KILL", None), ("-INT", Some(130))] {
        let mut child = start(home.path(), &["--message", &message, "--drain", "0s"]);
        let before = mails(home.path()).len();
        until("some more mails", || (mails(home.path()).len() > before + 20).then_some(()));
        assert_eq!(children(child.id()).len(), 11);
        signal(signalled, child.id());
        let ended = child.wait().expect("ended");
        assert_eq!(ended.code(), code, "{signalled}");
        until("no children", || children(child.id()).is_empty().then_some(()));
    }
    let output = start(home.path(), &["--message", &message]).wait_with_output().expect("ended");
    let account = account(&output);
    assert_eq!((&account["done"], &account["dead_lettered"], &account["in_flight"]), (&1.into(), &0.into(), &0.into()));
    check(home.path());
}

#[test]
fn a_child_that_cannot_live_ends_the_run_with_its_last_words() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_email-pipeline"));
    command.args(["run", "--processes"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env("LEATWORKS_HOME", home.path()).env("LEAT_DATA", home.path().join("data"));
    command.env("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__SEND__SETTINGS__FROM", "nobody");
    let output = command.output().expect("started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{told}");
    assert!(
        told.contains(
            "the process of `send` has ended with exit status: 3, which another start would not change; its last words:"
        ),
        "{told}"
    );
    assert!(told.contains("`from` is `nobody`"), "{told}");
}
