//! What `leat broker verify` says of a journal that is sound, damaged in each kind of place, in use, or not there.

use leatworks_broker::{Broker, Embedded, EmbeddedOptions, Step};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn verify(dir: &Path, more: &[&str]) -> Output {
    let dir = dir.to_str().expect("a temporary folder has a plain name");
    let args = ["broker", "verify", "--dir", dir];
    Command::new(env!("CARGO_BIN_EXE_leat")).args(args).args(more).output().expect("leat starts")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(EmbeddedOptions { segment_bytes: 16 << 10, ..EmbeddedOptions::new(dir) }).expect("it opens")
}

/// A journal of a few segments with a checkpoint, closed.
async fn journal(dir: &Path) {
    let broker = open(dir);
    for key in 0..60_u8 {
        let state = vec![(format!("key-{key}"), Some(vec![key; 700].into()))];
        broker.commit(Step { state, ..Step::default() }).await.expect("there is room");
    }
    // That makes one checkpoint. A second one would let go of segments.
    broker.close().await.expect("it closes");
}

/// The place of these bytes in a file.
fn find(file: &Path, bytes: &[u8]) -> usize {
    let content = fs::read(file).expect("it is there");
    content.windows(bytes.len()).position(|window| window == bytes).expect("it holds the bytes")
}

#[tokio::test]
async fn each_kind_of_damage_is_told_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    journal(dir.path()).await;
    let sound = verify(dir.path(), &["-o", "json"]);
    assert_eq!((sound.status.code(), &json(&sound)["sound"]), (Some(0), &true.into()), "{sound:?}");
    let records = json(&sound)["records"].as_u64().expect("a number");
    assert!(records >= 60, "{records} records");
    assert!(String::from_utf8_lossy(&verify(dir.path(), &[]).stdout).contains("\n  sound\n"));

    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("it can be listed")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let checkpoint = names.iter().find(|name| name.starts_with("checkpoint-")).expect("there is a checkpoint");
    let segment = names.iter().find(|name| name.starts_with("segment-")).expect("there is a segment");
    let body = find(&dir.path().join(segment), &[3; 700]);
    // File, byte, records that are lost, and what is said.
    let cases = [
        (checkpoint, 100, 0, "checksum"),
        (checkpoint, 3, 0, "checksum"),
        (segment, 20, 0, "header"),
        (segment, (16 << 10) - 30, 0, "header"),
        // The opening record's header, and then its successor's length, checksum, sequence, epoch and body.
        (segment, 64 + 5, 0, "held nothing"),
        (segment, 88, 1, "durable"),
        (segment, 88 + 4, 1, "durable"),
        (segment, 88 + 8, 1, "durable"),
        (segment, 88 + 17, 1, "durable"),
        (segment, body + 350, 1, "durable"),
    ];
    for (name, at, lost, words) in cases {
        let path = dir.path().join(name);
        let whole = fs::read(&path).expect("it is there");
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).expect("it can be written");
        let output = verify(dir.path(), &["-o", "json"]);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(10), "byte {at} of {name}: {report}");
        let damages = report["damages"].as_array().expect("a list");
        assert_eq!(damages.len(), 1, "byte {at} of {name}: {report}");
        assert_eq!((damages[0]["file"].as_str(), report["records"].as_u64()), (Some(name.as_str()), Some(records - lost)));
        assert!(damages[0]["reason"].as_str().is_some_and(|reason| reason.contains(words)), "byte {at} of {name}: {report}");
        let table = verify(dir.path(), &[]);
        assert!(String::from_utf8_lossy(&table.stdout).contains(&format!("damaged      `{name}` at byte ")), "{table:?}");
        assert_eq!(fs::read(&path).expect("it is there"), damaged, "it only reads");
        fs::write(&path, &whole).expect("it can be written");
    }
    assert_eq!(verify(dir.path(), &[]).status.code(), Some(0));
}

#[tokio::test]
async fn a_journal_in_use_is_not_read_and_one_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let missing = dir.path().join("nothing");
    let output = verify(&missing, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!missing.exists());
    let broker = open(dir.path());
    let output = verify(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("process {}", std::process::id())), "{output:?}");
    broker.close().await.expect("it closes");
    drop(broker);
    assert_eq!(verify(dir.path(), &[]).status.code(), Some(0));
}
