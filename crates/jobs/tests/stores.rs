//! What every store of files must do, whatever lies behind it. A folder is always tried. A real S3-compatible server and a real one of Azure's kind are tried where
//! `cargo xtask ci objects` has started them, and are told as not run elsewhere.

use leatworks_jobs::{Attempt, Cause, Declared, FileRef, Job, Location, Spec, Store};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

/// More than what object stores take in one piece, so that it is written in parts.
const LARGE: usize = 11 << 20;

fn job(number: u128) -> Job {
    Job {
        topology: "books".to_owned(),
        task: "split".to_owned(),
        edge: "[*]-->split".to_owned(),
        message: format!("{number:032x}"),
        root: format!("{number:032x}"),
        parent: None,
        attempt: 1,
        key: None,
        traceparent: String::new(),
        data: Value::Null,
        files: Vec::new(),
        declared: Declared::default(),
        deadline: Duration::from_secs(20),
        spec: Spec::default(),
    }
}

/// A place below another one, so that each test has one to itself.
fn below(base: &Location, name: &str) -> Location {
    Location { url: format!("{}/{name}", base.url.trim_end_matches('/')), options: base.options.clone() }
}

fn open(location: &Location) -> Store {
    Store::open(location).unwrap_or_else(|error| panic!("{}: {error}", location.url))
}

async fn all_hold(base: &Location) {
    objects_come_out_as_they_went_in(&open(&below(base, "objects"))).await;
    keys_are_listed_by_their_parts(&below(base, "keys")).await;
    files_keep_their_nested_paths(&open(&below(base, "files"))).await;
    what_is_not_the_file_that_was_meant_is_never_data(&open(&below(base, "missing"))).await;
    one_of_many_makes_what_is_new(&open(&below(base, "new"))).await;
    what_is_old_is_removed_and_nothing_beside_it(base).await;
}

async fn objects_come_out_as_they_went_in(store: &Store) {
    assert_eq!(store.get("a/b").await.expect("an answer"), None);
    for content in ["", "one", "another"] {
        store.put("a/b", content.into()).await.expect("it is written");
        assert_eq!(store.get("a/b").await.expect("an answer").as_deref(), Some(content.as_bytes()));
    }
    assert_eq!(store.get("a").await.expect("an answer"), None, "a folder is no object");
}

async fn keys_are_listed_by_their_parts(location: &Location) {
    let store = open(location);
    for key in ["b/2", "b/1/x", "bc/1", "a", "b/1/größe #1%?.txt"] {
        store.put(key, key.into()).await.expect("it is written");
    }
    assert_eq!(store.list("b").await.expect("a list"), ["b/1/größe #1%?.txt", "b/1/x", "b/2"]);
    assert_eq!(store.list("c").await.expect("a list"), [""; 0]);
    for key in store.list("").await.expect("a list") {
        assert_eq!(store.get(&key).await.expect("an answer").as_deref(), Some(key.as_bytes()), "what is listed can be read");
    }
    // Somebody else sees the same.
    assert_eq!(open(location).list("").await.expect("a list").len(), 5);
}

async fn files_keep_their_nested_paths(store: &Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let large: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let files: [(&str, &[u8]); 4] =
        [("empty", b""), ("deep/er/a b.txt", b"one"), ("deep/er/größe%20#1?.txt", b"two"), ("large.bin", &large)];
    for (path, content) in files {
        let from = folder.path().join("from");
        fs::write(&from, content).expect("it is written");
        let file = store.put_file(&from, &format!("root/1/data/{path}"), path).await.expect(path);
        assert_eq!((file.path.as_str(), file.bytes), (path, Some(content.len() as u64)));
        let to = folder.path().join("to");
        store.get_file(&file, &to).await.expect(path);
        assert!(fs::read(&to).expect("it is there") == content, "{path} has come back as another");
        // A person who lays a file into the store knows its name, and no more.
        store.get_file(&FileRef { bytes: None, xxh3: None, ..file }, &to).await.expect(path);
    }
    let kept = store.list("root").await.expect("a list");
    let paths: BTreeSet<&str> = kept.iter().filter_map(|key| key.strip_prefix("root/1/data/")).collect();
    assert_eq!(paths, files.iter().map(|(path, _)| *path).collect());
}

async fn what_is_not_the_file_that_was_meant_is_never_data(store: &Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, "one").expect("it is written");
    let file = store.put_file(&from, "k/one", "one").await.expect("it is written");
    let wrong = |file: FileRef, words: &'static str| {
        let to = to.clone();
        async move {
            let error = store.get_file(&file, &to).await.expect_err(words);
            assert!(error.cause == Cause::Permanent && error.to_string().contains(words), "{error}");
        }
    };
    wrong(FileRef { key: "k/none".to_owned(), ..file.clone() }, "was removed, or never there").await;
    wrong(FileRef { bytes: Some(4), ..file.clone() }, "is not the one that the message names").await;
    wrong(FileRef { xxh3: Some("0".repeat(32)), ..file.clone() }, "is not the one that the message names").await;
    // Somebody has laid another file in its place, of the same length.
    store.put("k/one", "two".into()).await.expect("it is written");
    wrong(file, "is not the one that the message names").await;
}

async fn one_of_many_makes_what_is_new(store: &Store) {
    let job = job(1);
    let begun = futures_util::future::join_all((0..8).map(|_| Attempt::begin(store, &job, "test"))).await;
    let rounds: BTreeSet<u32> = begun.into_iter().map(|attempt| attempt.expect("it is written").round).collect();
    assert_eq!(rounds, (1..=8).collect(), "each has a record of its own");
}

async fn what_is_old_is_removed_and_nothing_beside_it(base: &Location) {
    let (store, beside) = (open(&below(base, "old")), open(&below(base, "older")));
    for number in 0..20 {
        store.put(&format!("a/{number}"), "x".into()).await.expect("it is written");
    }
    beside.put("kept", "x".into()).await.expect("it is written");
    assert_eq!(store.sweep(Duration::from_secs(3600)).await.expect("it looks"), 0);
    // The clock of a store may tell whole seconds.
    while store.sweep(Duration::ZERO).await.expect("it removes") > 0 || !store.list("").await.expect("a list").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(beside.list("").await.expect("a list"), ["kept"]);
}

#[tokio::test]
async fn a_folder_is_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    all_hold(&Location::folder(folder.path()).expect("a place")).await;
}

#[tokio::test]
async fn a_place_that_is_none_is_told_with_what_may_stand_there() {
    let place = |url: &str| Location { url: url.to_owned(), options: BTreeMap::new() };
    for (url, words) in [
        ("nowhere", "the place of files `nowhere`"),
        ("ftp://host/folder", "`s3://BUCKET/PREFIX`"),
        ("gs://bucket", "`s3://BUCKET/PREFIX`"),
    ] {
        let error = Store::open(&place(url)).expect_err(url);
        assert!(error.cause == Cause::Permanent && error.to_string().contains(words), "{url}: {error}");
    }
    #[cfg(not(feature = "cloud"))]
    {
        let error = Store::open(&place("s3://bucket/prefix")).expect_err("it is not built in").to_string();
        assert!(error.contains("feature `cloud`"), "{error}");
    }
}

#[cfg(feature = "cloud")]
mod cloud {
    use super::*;

    /// A server that somebody else has started; without one it is told that this did not run.
    fn server(variable: &str, what: &str) -> Option<Location> {
        let text = std::env::var(variable).unwrap_or_default();
        let mut words = text.split_whitespace();
        let Some(url) = words.next() else {
            // Straight to the terminal: what a passing test prints is captured.
            use std::io::Write;
            let _ =
                writeln!(std::io::stderr().lock(), "NOT RUN: {what} (`cargo xtask ci objects` starts one, and sets {variable})");
            return None;
        };
        let options = words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        // What an earlier run has left is none of this one's.
        let own = format!("run-{}", std::process::id());
        Some(below(&Location { url: url.to_owned(), options: options.collect() }, &own))
    }

    #[tokio::test]
    async fn a_bucket_is_a_store() {
        let Some(place) = server("LEAT_TEST_S3", "a store on an S3-compatible server") else { return };
        all_hold(&place).await;
        what_cannot_be_reached_may_be_there_later(&place, "aws_endpoint").await;
    }

    #[tokio::test]
    async fn a_container_is_a_store() {
        let Some(place) = server("LEAT_TEST_AZURE", "a store on an Azure-compatible server") else { return };
        all_hold(&place).await;
        what_cannot_be_reached_may_be_there_later(&place, "azure_storage_endpoint").await;
    }

    /// It is neither missing nor data.
    async fn what_cannot_be_reached_may_be_there_later(place: &Location, endpoint: &str) {
        let mut away = place.clone();
        // A bucket that is not there, on a server that is: the store's answer is no file.
        away.url = away.url.replacen("://leatworks", "://nobody-has-made-this", 1);
        assert_ne!(away.url, place.url);
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "one").expect("it is written");
        let file = FileRef { path: "a".to_owned(), key: "a".to_owned(), bytes: None, xxh3: None };
        open(&away).get_file(&file, &to).await.expect_err("there is no such place");
        assert!(!to.exists(), "an error's page is no file");
        open(&away).put_file(&from, "a", "a").await.expect_err("there is no such place");
        // Nobody listens there.
        let mut away = place.clone();
        away.options.insert(endpoint.to_owned(), "http://127.0.0.1:1/devstoreaccount1".to_owned());
        let error = open(&away).get_file(&file, &to).await.expect_err("nobody is there");
        assert!(error.cause != Cause::Permanent && !to.exists(), "{error}");
    }
}
