//! What `trace` shows of real runs: every message on every edge behind what it came of, with its attempts, jobs and files.

mod support;

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use support::run;

const EMAIL: &str = env!("CARGO_BIN_EXE_email-pipeline");
const CHAPTERS: &str = env!("CARGO_BIN_EXE_chapters");

const WRITTEN_DOWN: (&str, &str) = ("LEAT_TRACE__ENABLED", "true");

fn printed(binary: &str, home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Value {
    let output = run(binary, home, args, variables);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stderr}"))
}

fn trace(binary: &str, home: &Path, id: &str, variables: &[(&str, &str)]) -> Value {
    printed(binary, home, &["trace", id, "-o", "json"], variables)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` of {value}"))
}

fn steps(traced: &Value) -> &Vec<Value> {
    traced["steps"].as_array().expect("steps")
}

/// How many steps there are of each edge, and how deep they are.
fn by_edge(traced: &Value) -> BTreeMap<(&str, u64), usize> {
    let mut edges = BTreeMap::new();
    for step in steps(traced) {
        *edges.entry((text(step, "edge"), step["depth"].as_u64().expect("a depth"))).or_default() += 1;
    }
    edges
}

#[test]
fn every_step_of_a_mail_is_shown_wherever_it_was_done() {
    for processes in [&[][..], &["--processes"]] {
        let home = tempfile::tempdir().expect("a folder");
        let home = home.path();
        let sent = printed(EMAIL, home, &["send", "start", "{}", "-o", "json"], &[]);
        let root = text(&sent["messages"][0], "id");
        let waits = trace(EMAIL, home, root, &[WRITTEN_DOWN]);
        assert_eq!(by_edge(&waits), BTreeMap::from([(("[*]-->start", 0), 1)]));
        assert_eq!(text(&steps(&waits)[0], "state"), "pending");
        let account = printed(EMAIL, home, &[&["run", "-o", "json"], processes].concat(), &[WRITTEN_DOWN]);
        // That one, and the one with which a run begins.
        assert_eq!((&account["done"], &account["dead_lettered"]), (&2.into(), &0.into()), "{account}");
        let traced = trace(EMAIL, home, root, &[WRITTEN_DOWN]);
        let expected = [
            (("[*]-->start", 0), 1),
            (("start-->fetch-users", 1), 1),
            (("fetch-users-->render", 2), 3),
            (("render-->|mail|send", 3), 3),
            (("send-->record", 4), 3),
        ];
        assert_eq!(by_edge(&traced), BTreeMap::from(expected), "{processes:?}");
        assert_eq!((text(&traced, "root"), &traced["notes"]), (root, &json!([])));
        let messages: BTreeSet<&str> = steps(&traced).iter().map(|step| text(step, "message")).collect();
        for step in steps(&traced) {
            let attempts = step["attempts"].as_array().expect("attempts");
            assert_eq!((text(step, "state"), attempts.len(), text(&attempts[0], "outcome")), ("handled", 1, "handled"), "{step}");
            assert!(attempts[0]["took_us"].is_u64(), "{step}");
            match step["parent"].as_str() {
                Some(parent) => assert!(messages.contains(parent) && text(&attempts[0], "parent") == parent, "{step}"),
                None => assert_eq!(text(step, "message"), root),
            }
        }
        // Whichever message of it one knows.
        let last = text(steps(&traced).last().expect("a step"), "message");
        assert_eq!(trace(EMAIL, home, last, &[WRITTEN_DOWN]), traced);
        // For people, each step is a line.
        let shown = run(EMAIL, home, &["trace", root], &[WRITTEN_DOWN]);
        let shown = String::from_utf8(shown.stdout).expect("a text");
        assert_eq!(shown.matches("attempt 1  handled in ").count(), 11, "{shown}");
    }
}

#[test]
fn what_nobody_knows_is_told_with_what_would_help() {
    let home = tempfile::tempdir().expect("a folder");
    for (id, variables, code, words) in [
        ("1", &[][..], 2, "32 hexadecimal digits"),
        ("0123456789abcdef0123456789abcdef", &[], 4, "`trace.enabled = true`"),
        ("0123456789abcdef0123456789abcdef", &[WRITTEN_DOWN], 4, "nothing of that is kept"),
    ] {
        let output = run(EMAIL, home.path(), &["trace", id], variables);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

/// The roots of all that jobs have recorded.
fn roots(home: &Path) -> BTreeSet<String> {
    let folders = std::fs::read_dir(home.join("data/jobs/files/chapters")).expect("what jobs have left");
    folders.map(|folder| folder.expect("a folder").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_book_shows_its_jobs_and_files_between_the_other_steps() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    printed(CHAPTERS, home, &["run", "-o", "json"], &[WRITTEN_DOWN]);
    let mut chapters = 0;
    // What the fold has given is of no book.
    let no_root = "0".repeat(32);
    let books: Vec<String> = roots(home).into_iter().filter(|root| *root != no_root).collect();
    assert_eq!(books.len(), 3);
    for root in books {
        let traced = trace(CHAPTERS, home, &root, &[WRITTEN_DOWN]);
        let of = |edge: &str| -> Vec<&Value> { steps(&traced).iter().filter(|step| text(step, "edge") == edge).collect() };
        let split = of("books-->split");
        assert_eq!(split.len(), 1, "{traced}");
        let transformed = of("split-->|chapter|transform");
        assert_eq!(of("transform-->gather").len(), transformed.len());
        chapters += transformed.len();
        for step in split.iter().chain(&transformed) {
            let (jobs, attempts) = (step["jobs"].as_array().expect("jobs"), step["attempts"].as_array().expect("attempts"));
            assert_eq!((text(step, "state"), jobs.len(), attempts.len()), ("handled", 1, 1), "{step}");
            assert_eq!(
                (text(&jobs[0], "state"), text(&jobs[0], "executor"), &jobs[0]["exit_code"]),
                ("succeeded", "process", &0.into())
            );
            let files = step["files"].as_array().expect("files");
            for file in files {
                let at = home.join("data/jobs/files").join(text(file, "key"));
                assert_eq!(std::fs::metadata(&at).expect("it is there").len(), file["bytes"], "{}", at.display());
            }
            let expected = if text(step, "edge") == "books-->split" { transformed.len() } else { 1 };
            assert_eq!(files.len(), expected, "{step}");
        }
        for step in of("transform-->gather") {
            assert_eq!(text(&step["attempts"][0], "outcome"), "folded");
            assert!(transformed.iter().any(|from| from["message"] == step["parent"]), "{step}");
        }
    }
    assert_eq!(chapters, 5);
}

#[test]
fn workers_in_trouble_are_shown_with_their_attempts_and_logs_though_nothing_else_was_written_down() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let trouble = [
        ("LEAT_TOPOLOGY__CHAPTERS__TASK__BOOKS__SOURCE__PATH", "examples/chapters/trouble"),
        ("LEAT_TOPOLOGY__CHAPTERS__TASK__TRANSFORM__TIMEOUT", "5s"),
    ];
    printed(CHAPTERS, home, &["run", "-o", "json"], &trouble);
    assert!(!home.join("data/trace").join("chapters").exists(), "nobody has asked for it");
    let dead = printed(CHAPTERS, home, &["dlq", "list", "-o", "json"], &[]);
    let letters = dead["letters"].as_array().expect("a list");
    assert_eq!(letters.len(), 4);
    for letter in letters {
        let (edge, id) = (text(letter, "edge"), text(letter, "id"));
        let traced = trace(CHAPTERS, home, id, &[]);
        assert_eq!((text(&traced, "root"), traced["notes"].as_array().map(Vec::len)), (text(letter, "root"), Some(1)));
        let step = steps(&traced).iter().find(|step| text(step, "edge") == edge && text(step, "message") == id);
        let step = step.unwrap_or_else(|| panic!("the step of {letter} in {traced}"));
        let jobs = step["jobs"].as_array().expect("jobs");
        assert_eq!((text(step, "state"), jobs.len() as u64), ("dead-lettered", letter["attempts"].as_u64().expect("a number")));
        assert_eq!(step["dead_letter"]["error"], letter["error"]);
        let shown = run(CHAPTERS, home, &["trace", id], &[]);
        let (shown, told) =
            (String::from_utf8_lossy(&shown.stdout).into_owned(), String::from_utf8_lossy(&shown.stderr).into_owned());
        assert!(told.contains("`trace.enabled`"), "{told}");
        for job in jobs {
            let log: PathBuf = home.join("data/jobs/files").join(text(job, "log"));
            assert!(log.is_file() && shown.contains(&log.display().to_string()), "{shown}");
        }
    }
}
