//! The topology `chapters` as a user runs it: programs without a library of ours, some of which fail, hang and eat memory.

mod support;

use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

fn chapters(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let output = support::run(env!("CARGO_BIN_EXE_chapters"), home, args, variables);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

fn files(home: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.join("data/jobs/files")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.file_name().is_some_and(|found| found == name) => found.push(path),
                _ => {}
            }
        }
    }
    found
}

fn json(output: &[u8]) -> Value {
    serde_json::from_slice(output).expect("one JSON value")
}

#[test]
fn a_text_is_split_transformed_and_joined() {
    let home = tempfile::tempdir().expect("a folder");
    let account = json(&chapters(home.path(), &["run", "-o", "json"], &[]).stdout);
    assert_eq!((&account["sent"], &account["done"]), (&3.into(), &3.into()), "{account}");
    let joined = files(home.path(), "garden.txt");
    let text = std::fs::read_to_string(joined.first().expect("it is joined")).expect("a text");
    assert!(text.starts_with("# MORNING\nTHE GATE WAS OPEN") && text.ends_with("# EVENING\nIT WAS OPEN.\n"), "{text}");
    let attempts = files(home.path(), "attempt.json");
    assert_eq!(attempts.len(), 9, "three books, five chapters, one join: each one attempt");
}

#[test]
fn workers_in_trouble_have_exactly_their_attempts_and_leave_their_logs() {
    let home = tempfile::tempdir().expect("a folder");
    let trouble = [
        ("LEAT_TOPOLOGY__CHAPTERS__TASK__BOOKS__SOURCE__PATH", "examples/chapters/trouble"),
        ("LEAT_TOPOLOGY__CHAPTERS__TASK__TRANSFORM__TIMEOUT", "5s"),
    ];
    let account = json(&chapters(home.path(), &["run", "-o", "json"], &trouble).stdout);
    assert_eq!(
        (&account["sent"], &account["dead_lettered"], &account["in_flight"]),
        (&2.into(), &2.into(), &0.into()),
        "{account}"
    );
    let dead = json(&chapters(home.path(), &["dlq", "list", "-o", "json"], &[]).stdout);
    let dead = dead["letters"].as_array().expect("a list");
    let mut causes = BTreeMap::new();
    for letter in dead {
        let error = letter["error"].as_str().expect("a text");
        let log = Path::new(error.rsplit("log: ").next().expect("it names its log"));
        assert!(log.is_file(), "{error}");
        let attempts = letter["attempts"].as_u64().expect("a number");
        assert_eq!(log.parent().and_then(Path::file_name).expect("its attempt").to_string_lossy(), attempts.to_string());
        // Every attempt before it has left its log, too, and none came after it.
        let step = log.ancestors().nth(2).expect("its step");
        for attempt in 1..=attempts {
            assert!(step.join(attempt.to_string()).join("log.txt").is_file(), "{attempt} of {}", step.display());
        }
        assert_eq!(std::fs::read_dir(step).expect("a folder").count() as u64, attempts, "nothing is committed");
        let what = ["permanent", "exit code 3", "bytes of memory", "timeout of 5s"].into_iter().find(|what| error.contains(what));
        causes.insert(what.expect(error), attempts);
    }
    let expected = BTreeMap::from([("permanent", 1), ("exit code 3", 2), ("bytes of memory", 2), ("timeout of 5s", 2)]);
    assert_eq!(causes, expected);
}
