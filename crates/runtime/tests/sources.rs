//! Sources and sinks: everything comes in once and goes out, also when the run is cut off again and again.

mod support;

use leatworks::{
    Context, Counts, Fold, Task, TaskError,
    def::{BuiltinDef, Kind, TopologyDef},
    open_fold, open_task,
    plan::Plan,
    run::{RunError, RunOptions, Stop, run},
    source::{Entry, Line, Tick},
};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};
use support::*;
use tokio::sync::watch;

/// Counts each text.
#[derive(serde::Deserialize)]
struct Tally;

impl Fold for Tally {
    type In = Line;
    type Out = BTreeMap<String, u64>;
    type State = BTreeMap<String, u64>;

    fn fold(&self, state: &mut Self::State, line: Line, _cx: &Context) -> Result<(), TaskError> {
        *state.entry(line.text).or_default() += 1;
        Ok(())
    }

    async fn finish(&self, state: Self::State, _cx: &Context) -> Result<Self::State, TaskError> {
        Ok(state)
    }
}

fn quoted(path: &Path) -> String {
    serde_json::json!({ "path": path }).to_string()
}

fn sink(path: &Path) -> Kind {
    Kind::Sink(BuiltinDef { kind: "jsonl", options: leak(quoted(path)) })
}

/// lines --> tally --> out
fn tallied(name: &'static str, input: &Path, output: &Path) -> &'static TopologyDef {
    topology(
        name,
        vec![
            node("lines", Kind::Source).source("lines", quoted(input)).attempts(1000),
            node("tally", Kind::Fold(open_fold::<Tally>)).attempts(1000),
            node("out", sink(output)).attempts(1000),
        ],
        &["lines-->tally", "tally-->out"],
    )
}

fn numbered_lines(count: u64) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        writeln!(text, "line {number}").unwrap();
        text
    })
}

fn results(path: &Path) -> Vec<BTreeMap<String, u64>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cut_off_again_and_again_counts_every_line_once() {
    const LINES: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.txt"), directory.path().join("out.jsonl"));
    fs::write(&input, numbered_lines(LINES)).unwrap();
    let topology = tallied("cut-off", &input, &output);
    let broker = memory();
    let mut cuts = 0;
    loop {
        let (stop, stopped) = watch::channel(Stop::Run);
        let counts = Arc::new(Counts::new(topology));
        let mut running = Box::pin(run(broker.clone(), Plan::new(topology, "."), RunOptions::default(), counts.clone(), stopped));
        // Cut off when another part of the lines is in the fold, as long as there are enough of them.
        let enough = async {
            while counts.tasks()["tally"].handled < LINES / 12 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            report = &mut running => {
                let report = report.unwrap();
                assert_eq!((report.sent, report.done, report.dead_lettered, report.in_flight), (LINES, LINES, 0, 0));
                break;
            }
            () = enough, if cuts < 8 => {}
        }
        cuts += 1;
        stop.send(Stop::Now).unwrap();
        running.await.unwrap();
        let account = broker.account("cut-off").await.unwrap();
        assert_eq!(account.sent, account.done + account.dead_lettered + account.in_flight);
    }
    assert!(cuts >= 3, "it was cut off {cuts} times");
    let [result] = &results(&output)[..] else { panic!("one result") };
    assert_eq!((result.len() as u64, result.values().max()), (LINES, Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_starts_anew_and_another_input_can_be_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("in.txt"), "a\nb\na\n").unwrap();
    fs::write(path("other.txt"), "c\r\n").unwrap();
    let topology = tallied("anew", &path("in.txt"), &path("out.jsonl"));
    let broker = memory();
    for _ in 0..2 {
        run_with(broker.clone(), topology, RunOptions::default()).await.unwrap();
    }
    let options = RunOptions { input: Some(path("other.txt").display().to_string()), ..RunOptions::default() };
    let report = run_with(broker.clone(), topology, options).await.unwrap();
    assert_eq!((report.sent, report.done), (1, 1));
    let counted = |pairs: &[(&str, u64)]| pairs.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect();
    let first: BTreeMap<String, u64> = counted(&[("a", 2), ("b", 1)]);
    assert_eq!(results(&path("out.jsonl")), [first.clone(), first, counted(&[("c", 1)])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_run_is_not_continued_with_another_input() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.txt");
    let topology = tallied("unfinished", &input, &directory.path().join("out.jsonl"));
    fs::write(&input, numbered_lines(50_000)).unwrap();
    let broker = memory();
    let (stop, stopped) = watch::channel(Stop::Run);
    let counts = Arc::new(Counts::new(topology));
    let running = tokio::spawn(run(broker.clone(), Plan::new(topology, "."), RunOptions::default(), counts, stopped));
    while broker.account("unfinished").await.unwrap().sent == 0 {
        tokio::task::yield_now().await;
    }
    stop.send(Stop::Now).unwrap();
    running.await.unwrap().unwrap();
    let options = RunOptions { input: Some("other.txt".to_owned()), ..RunOptions::default() };
    let error = run_with(broker.clone(), topology, options).await.unwrap_err();
    assert!(matches!(error, RunError::Conflict(_)), "{error}");
    assert!(error.to_string().contains("reads its configured source, not other.txt"), "{error}");
    assert_eq!(run_with(broker.clone(), topology, RunOptions::default()).await.unwrap().done, 50_000);

    // Given up with two messages pending, of which nothing is left in the new one.
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let line = |number| serde_json::to_string(&Line { number, text: "old".to_owned(), ..Line::default() }).unwrap();
    let (_stop, stopped) = watch::channel(Stop::Now);
    let counts = Arc::new(Counts::new(topology));
    run(broker.clone(), Plan::new(topology, "."), RunOptions::default(), counts, stopped).await.unwrap();
    send(&broker, topology, (1..3).map(line)).await;
    let other = directory.path().join("other.txt");
    fs::write(&other, "new\n").unwrap();
    let options = RunOptions { input: Some(other.display().to_string()), fresh: true, ..RunOptions::default() };
    let report = run_with(broker, topology, options).await.unwrap();
    assert_eq!((report.sent, report.tasks["tally"].handled, report.in_flight), (1, 1, 0));
}

/// Never ends, so that its run stays unfinished.
#[derive(serde::Deserialize)]
struct Stays;

impl Task for Stays {
    type In = u64;
    type Out = u64;

    async fn run(&self, _: u64, _cx: &Context) -> Result<u64, TaskError> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_run_is_not_started_with_another_message() {
    let topology = topology("started", vec![node("stays", Kind::Rust(open_task::<Stays>))], &[]);
    let broker = memory();
    for (message, goes_on) in [(Some(7), true), (Some(8), false), (Some(7), true), (None, true)] {
        let (stop, stopped) = watch::channel(Stop::Run);
        let counts = Arc::new(Counts::new(topology));
        let options = RunOptions { message: message.map(serde_json::Value::from), ..RunOptions::default() };
        let running = run(broker.clone(), Plan::new(topology, "."), options, counts, stopped);
        let held = async {
            while broker.stats().await.unwrap().iter().all(|topic| topic.subscriptions.values().all(|one| one.in_flight == 0)) {
                tokio::task::yield_now().await;
            }
            stop.send(Stop::Now).unwrap();
            // Whoever stops it must be there until it has ended.
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! { ended = running => ended, () = held => unreachable!("it waits") };
        match ended {
            Err(RunError::Conflict(text)) => assert!(!goes_on && text.contains("another message"), "{message:?}: {text}"),
            ended => assert!(goes_on && ended.unwrap().sent == 1, "{message:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_can_be_lines() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.bin");
    let mut bytes = vec![0u8; 100];
    bytes.extend(b"\nplain\n\xff\xfe\n\n");
    bytes.extend(vec![b'x'; 3 << 20]);
    fs::write(&input, &bytes).unwrap();
    let output = directory.path().join("out.jsonl");
    let topology = topology(
        "bytes",
        vec![node("lines", Kind::Source).source("lines", quoted(&input)), node("out", sink(&output))],
        &["lines-->out"],
    );
    let report = run_with(memory(), topology, RunOptions::default()).await.unwrap();
    assert_eq!((report.dead_lettered, report.sent), (0, report.done));
    let text = fs::read_to_string(&output).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0].text, "\0".repeat(100));
    assert_eq!(lines[2].raw_hex.as_deref(), Some("fffe"));
    let long: Vec<&Line> = lines.iter().filter(|line| line.number == 5).collect();
    assert_eq!(long.iter().map(|line| line.text.len()).sum::<usize>(), 3 << 20);
    assert!(long.len() > 1 && long.iter().filter(|line| !line.partial).count() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_json_lines_become_dead_letters_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.jsonl"), directory.path().join("out.jsonl"));
    fs::write(&input, b"{\"a\": 1}\n\n{\n\"\xff\n[2]\nnull").unwrap();
    let topology = topology(
        "jsonl",
        vec![node("in", Kind::Source).source("jsonl", quoted(&input)), node("out", sink(&output))],
        &["in-->out"],
    );
    let report = run_with(memory(), topology, RunOptions::default()).await.unwrap();
    assert_eq!((report.sent, report.done, report.dead_lettered), (5, 3, 2));
    assert_eq!(fs::read_to_string(&output).unwrap(), "{\"a\": 1}\n[2]\nnull\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_line_that_is_too_long_says_so_where_it_lies() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.jsonl"), directory.path().join("out.jsonl"));
    let broker = memory();
    let text = "x".repeat(broker.max_message_bytes());
    fs::write(&input, format!("1\n\"{text}\"\n3\n")).unwrap();
    let topology = topology(
        "long",
        vec![node("in", Kind::Source).source("jsonl", quoted(&input)), node("out", sink(&output))],
        &["in-->out"],
    );
    let report = run_with(broker.clone(), topology, RunOptions::default()).await.unwrap();
    assert_eq!((report.sent, report.done, report.dead_lettered), (3, 2, 1));
    assert_eq!(fs::read_to_string(&output).unwrap(), "1\n3\n");
    let letters = dead_letters(&broker, topology).await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.cause, "undecodable");
    assert!(letter.error.starts_with("line 2 is longer than the "), "{}", letter.error);
}

#[derive(serde::Deserialize)]
struct Path0;

impl Task for Path0 {
    type In = Entry;
    type Out = String;

    async fn run(&self, entry: Entry, _cx: &Context) -> Result<String, TaskError> {
        assert!(entry.modified_ms > 0);
        Ok(format!("{} {}", entry.path.rsplit_once("tree/").unwrap().1, entry.bytes))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gives_every_file_once_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    for name in ["b/z", "a", "b/c/d", "c", "b.txt"] {
        fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
        fs::write(tree.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink(&tree, tree.join("loop")).unwrap();
    let output = directory.path().join("out.jsonl");
    let walk = node("walk", Kind::Rust(open_task::<Path0>)).source("directory", quoted(&tree));
    let topology = topology("walked", vec![walk, node("out", sink(&output))], &["walk-->out"]);
    run_with(memory(), topology, RunOptions::default()).await.unwrap();
    let text = fs::read_to_string(&output).unwrap();
    assert_eq!(text, "\"a 1\"\n\"b/c/d 5\"\n\"b/z 3\"\n\"b.txt 5\"\n\"c 1\"\n");
}

#[derive(serde::Deserialize)]
struct Number;

impl Task for Number {
    type In = Tick;
    type Out = u64;

    async fn run(&self, tick: Tick, _cx: &Context) -> Result<u64, TaskError> {
        Ok(tick.number)
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_strikes_as_often_as_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.jsonl");
    let tick = node("tick", Kind::Rust(open_task::<Number>)).source("interval", r#"{"every": "1h", "count": 5}"#);
    let topology = topology("clock", vec![tick, node("out", sink(&output))], &["tick-->out"]);
    let before = tokio::time::Instant::now();
    run_with(memory(), topology, RunOptions::default()).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(4 * 3600));
    assert_eq!(fs::read_to_string(&output).unwrap(), "1\n2\n3\n4\n5\n");
}

#[tokio::test]
async fn a_clock_that_hardly_ever_strikes_goes_on_too() {
    let tick = node("tick", Kind::Rust(open_task::<Number>)).source("interval", r#"{"every": 1e19}"#);
    let topology = topology("rare", vec![tick], &[]);
    let broker = memory();
    for _ in 0..2 {
        let (stop, stopped) = watch::channel(Stop::Run);
        let counts = Arc::new(Counts::new(topology));
        let running = tokio::spawn(run(broker.clone(), Plan::new(topology, "."), RunOptions::default(), counts, stopped));
        while broker.account("rare").await.map_or(0, |account| account.sent) == 0 {
            tokio::task::yield_now().await;
        }
        stop.send(Stop::Drain).unwrap();
        assert_eq!(running.await.unwrap().unwrap().sent, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_written_once_however_often_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let mails = directory.path().join("mails");
    let maildir = Kind::Sink(BuiltinDef { kind: "maildir", options: leak(quoted(&mails)) });
    let topology = topology("mailed", vec![node("out", maildir)], &[]);
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let text = "Subject: a\r\n\r\nb".to_owned();
    let mut message = leatworks::new_root(serde_json::to_vec(&text).unwrap().into(), leatworks::Codec::Json, None);
    for _ in 0..3 {
        let publish = leatworks::broker::Publish { topic: "mailed-out".into(), message: message.clone().into(), sequence: None };
        broker.publish(vec![publish]).await.unwrap();
    }
    message.id = leatworks::broker::MessageId(7);
    message.payload = serde_json::json!({ "rfc5322": "other" }).to_string().into();
    broker
        .publish(vec![leatworks::broker::Publish { topic: "mailed-out".into(), message: message.into(), sequence: None }])
        .await
        .unwrap();
    let report = run_roots(broker, topology, 0).await;
    assert_eq!(report.tasks["out"].handled, 4);
    let mut found: Vec<String> =
        fs::read_dir(mails.join("new")).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    found.sort();
    assert_eq!(found, [text, "other".to_owned()]);
    assert_eq!(fs::read_dir(mails.join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn sources_and_sinks_that_cannot_work_say_why() {
    for (kind, options, words) in [
        ("lines", r#"{"path": "/no/such/file"}"#, "source of task `in`: reading `/no/such/file`"),
        ("lines", r#"{"pth": "x", "path": "y"}"#, "unknown key `pth`; did you mean `path`?"),
        ("line", "{}", "unknown source type `line`; did you mean `lines`?"),
        ("interval", r#"{"every": "often"}"#, "is no duration"),
        ("interval", r#"{"every": "0s", "count": 1}"#, "`every` is zero"),
    ] {
        let topology = topology(leak(format!("broken-{kind}")), vec![node("in", Kind::Source).source(kind, options)], &[]);
        let error = run_with(memory(), topology, RunOptions::default()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let wrong = Kind::Sink(BuiltinDef { kind: "std-out", options: "{}" });
    let topology = topology("broken-sink", vec![node("out", wrong)], &[]);
    let error = run_with(memory(), topology, RunOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("unknown sink type `std-out`; did you mean `stdout`?"), "{error}");
}
