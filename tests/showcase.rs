//! The pipelines as a user runs them, with their results checked to the last message.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

const EMAIL: &str = env!("CARGO_BIN_EXE_email-pipeline");
const ACCESS_LOG: &str = env!("CARGO_BIN_EXE_access-log");

/// Runs a binary in the repository's root on a data folder of its own.
fn run(binary: &str, home: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LEATWORKS_HOME", home)
        .env("LEAT_DATA", home.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // A program that does not read its input may have closed it.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("ended")
}

/// The account that a run prints.
fn account(binary: &str, home: &Path, args: &[&str], input: &[u8]) -> Value {
    let output = run(binary, home, args, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let account: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    let count = |key: &str| account[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {account}"));
    assert_eq!(count("sent"), count("done") + count("dead_lettered") + count("in_flight"), "{account}");
    assert_eq!(count("in_flight"), 0, "{account}");
    account
}

/// How many messages each task has handled.
fn handled(account: &Value) -> BTreeMap<&str, u64> {
    let tasks = account["tasks"].as_object().expect("tasks");
    tasks.iter().map(|(name, task)| (name.as_str(), task["handled"].as_u64().expect("a number"))).collect()
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn mails(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home.join("data/mail/new")).expect("a Maildir");
    entries.map(|entry| std::fs::read_to_string(entry.expect("a mail").path()).expect("a mail")).collect()
}

fn records(home: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(home.join("data/record.jsonl")).expect("a record");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn three_subscribers_are_eleven_calls() {
    let home = home();
    let account = account(EMAIL, home.path(), &["run", "-o", "json"], b"");
    let calls = BTreeMap::from([("start", 1), ("fetch-users", 1), ("render", 3), ("send", 3), ("record", 3)]);
    assert_eq!(handled(&account), calls);
    assert_eq!((&account["sent"], &account["done"]), (&1.into(), &1.into()));
    let mails = mails(home.path());
    for name in ["ada", "grace", "margaret"] {
        let to = format!("<{name}@example.org>");
        assert_eq!(mails.iter().filter(|mail| mail.contains(&to)).count(), 1, "one mail to {name}");
    }
    assert!(mails.iter().all(|mail| mail.contains("\r\n\r\nDear ") && mail.contains("Message-ID: <")), "{mails:?}");
    assert_eq!(mails.len(), 3);
    let records = records(home.path());
    assert_eq!(records.iter().filter(|record| record["result"] == "sent").count(), 3, "{records:?}");
}

#[test]
fn who_gets_no_mail_is_recorded_with_the_reason() {
    let home = home();
    let message = r#"{"subscribers": "examples/email-pipeline/mixed.csv"}"#;
    let account = account(EMAIL, home.path(), &["run", "-o", "json", "--message", message], b"");
    assert_eq!((handled(&account)["send"], handled(&account)["record"]), (1, 3));
    let records = records(home.path());
    let told: BTreeSet<_> = records.iter().map(|record| (record["email"].as_str(), record["reason"].as_str())).collect();
    let expected = [
        (Some("ada@example.org"), None),
        (Some("grace@example.org"), Some("unsubscribed")),
        (Some("margaret at example.org"), Some("invalid address")),
    ];
    assert_eq!(told, BTreeSet::from(expected));
}

#[test]
fn running_again_sends_again_and_keeps_the_record() {
    let home = home();
    for _ in 0..2 {
        account(EMAIL, home.path(), &["run", "-o", "json"], b"");
    }
    assert_eq!((mails(home.path()).len(), records(home.path()).len()), (6, 6));
}

#[test]
fn a_run_tells_people_where_the_results_are() {
    let home = home();
    let output = run(EMAIL, home.path(), &[], b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    for result in ["data/mail", "data/record.jsonl"] {
        let path = home.path().join(result).display().to_string();
        assert!(stderr.contains(&path), "`{path}` in {stderr}");
    }
}

fn report(home: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(home.join("data/report/report.json")).expect("a report")).expect("JSON")
}

/// Every line is counted once, by each way of counting.
fn check_report(report: &Value, lines: u64) {
    let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("no `{key}`"));
    assert_eq!(count("lines"), lines);
    assert_eq!(lines, count("page") + count("asset") + count("error") + count("malformed"));
    for (by, rows) in [("by_minute", "minutes"), ("by_path", "paths")] {
        let rows = report[by][rows].as_object().expect("rows").values().chain([&report[by]["others"]]);
        let hits: u64 = rows.flat_map(|row| ["page", "asset", "error"].map(|kind| row[kind].as_u64().expect("a number"))).sum();
        assert_eq!(hits + count("malformed"), lines, "{by}");
    }
}

#[test]
fn every_line_of_a_log_is_counted_once() {
    let home = home();
    let log = "examples/access-log/access.log";
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(log)).expect("a log");
    let lines = text.split_inclusive(|byte| *byte == b'\n').count() as u64;
    let account = account(ACCESS_LOG, home.path(), &["run", log, "-o", "json"], b"");
    assert_eq!(account["sent"], lines);
    check_report(&report(home.path()), lines);
    assert_eq!(report(home.path())["malformed"], 4);
}

#[test]
fn any_bytes_on_standard_input_are_lines() {
    let good = "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 1";
    let inputs: [(&[u8], u64); 5] = [
        (b"", 0),
        (b"\n\n\r\n", 3),
        (b"\xff\xfe\x00\n\x16\x03 no end", 2),
        (good.as_bytes(), 1),
        (&[good.as_bytes(), b"\n", &[b'x'; 100_000], b"\n", good.as_bytes(), b"\r\n"].concat(), 3),
    ];
    for (input, lines) in inputs {
        let home = home();
        let account = account(ACCESS_LOG, home.path(), &["run", "-", "-o", "json"], input);
        assert_eq!((&account["sent"], &account["dead_lettered"]), (&lines.into(), &0.into()), "{account}");
        check_report(&report(home.path()), lines);
    }
}

#[test]
fn stubs_are_fresh() {
    leatworks_build::assert_stubs_are_fresh(env!("CARGO_MANIFEST_DIR"));
}
