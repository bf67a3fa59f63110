//! What goes wrong outside: inputs that are mistyped or cut, files that are damaged, tasks that never return, processes that are killed by
//! one message. Nothing may be lost, and nobody may be stuck.

mod support;

use leatworks::{
    Context, Counts, Fold, Setup, Task, TaskError,
    broker::{
        Account, BoxFuture, Broker, Consumer, Limits, MemoryBroker, Message, MessageId, Outcome, Position, Publish,
        Result as Answer, Start, Step, Subscribe, SubscriptionKind, TopicSpec, TopicStats,
    },
    def::{BuiltinDef, Kind, TopologyDef},
    open_fold, open_task,
    plan::Plan,
    run::{RunError, RunOptions, Stop, run},
    source::Entry,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use support::*;
use tokio::sync::{Notify, watch};

fn quoted(path: &Path) -> String {
    json!({ "path": path }).to_string()
}

fn sink(path: &Path) -> Kind {
    Kind::Sink(BuiltinDef { kind: "jsonl", options: leak(quoted(path)) })
}

fn copied(name: &'static str, kind: &'static str, input: &Path, output: &Path) -> &'static TopologyDef {
    topology(name, vec![node("in", Kind::Source).source(kind, quoted(input)), node("out", sink(output))], &["in-->out"])
}

fn input(path: &str) -> RunOptions {
    RunOptions { input: Some(path.to_owned()), ..RunOptions::default() }
}

#[tokio::test]
async fn a_mistyped_input_does_not_stand_in_the_way_of_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let (real, output) = (directory.path().join("real"), directory.path().join("out"));
    fs::write(&real, "a\n").unwrap();
    let topology = copied("mistyped", "lines", &real, &output);
    let broker = memory();
    let error = run_with(broker.clone(), topology, input("/no/such/file")).await.unwrap_err();
    assert!(matches!(error, RunError::Source { .. }), "{error}");
    assert_eq!(run_with(broker, topology, RunOptions::default()).await.unwrap().done, 1);

    let clock = node("in", Kind::Source).source("interval", r#"{"every": "1ms", "count": 1}"#);
    let topology = self::topology("unread", vec![clock], &[]);
    let broker = memory();
    let error = run_with(broker.clone(), topology, input("file")).await.unwrap_err();
    assert!(matches!(error, RunError::Config(_)), "{error}");
    assert_eq!(run_with(broker, topology, RunOptions::default()).await.unwrap().done, 1);
}

#[derive(serde::Deserialize)]
struct Sum;

impl Fold for Sum {
    type In = u64;
    type Out = u64;
    type State = u64;

    fn fold(&self, state: &mut u64, number: u64, _cx: &Context) -> Result<(), TaskError> {
        *state += number;
        Ok(())
    }

    async fn finish(&self, state: u64, _cx: &Context) -> Result<u64, TaskError> {
        Ok(state)
    }
}

static SUMS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static SUMMED: Notify = Notify::const_new();
static GO_ON: Notify = Notify::const_new();

/// Waits for leave to go on with its first message.
#[derive(serde::Deserialize)]
struct Slow;

impl Task for Slow {
    type In = u64;
    type Out = ();

    async fn run(&self, sum: u64, _cx: &Context) -> Result<(), TaskError> {
        let first = {
            let mut sums = SUMS.lock().unwrap();
            sums.push(sum);
            sums.len() == 1
        };
        if first {
            SUMMED.notify_one();
            GO_ON.notified().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_comes_after_a_fold_has_given_its_result_is_in_another_result() {
    let topology = topology(
        "late",
        vec![node("sum", Kind::Fold(open_fold::<Sum>)), node("slow", Kind::Rust(open_task::<Slow>))],
        &["sum-->slow"],
    );
    let broker = memory();
    let options = RunOptions { message: Some(json!(1)), ..RunOptions::default() };
    let running = tokio::spawn(run_with(broker.clone(), topology, options));
    SUMMED.notified().await;
    send(&broker, topology, ["10".to_owned()].into_iter()).await;
    while broker.account("late").await.unwrap().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    GO_ON.notify_one();
    running.await.unwrap().unwrap();
    assert_eq!(*SUMS.lock().unwrap(), [1, 10]);
}

static HELD: Notify = Notify::const_new();

/// Gives its message on; a large one only when it is let go.
#[derive(serde::Deserialize)]
struct Hold;

impl Task for Hold {
    type In = u64;
    type Out = u64;

    async fn run(&self, number: u64, _cx: &Context) -> Result<u64, TaskError> {
        if number >= 100 {
            HELD.notified().await;
        }
        Ok(number)
    }
}

/// What results have come, in a place for each test.
static KEPT: [Mutex<Vec<u64>>; 2] = [const { Mutex::new(Vec::new()) }; 2];

#[derive(serde::Deserialize)]
struct Kept<const PLACE: usize>;

impl<const PLACE: usize> Task for Kept<PLACE> {
    type In = u64;
    type Out = ();

    async fn run(&self, sum: u64, _cx: &Context) -> Result<(), TaskError> {
        KEPT[PLACE].lock().unwrap().push(sum);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_run_that_goes_on_a_fold_gives_a_result_whenever_its_input_rests() {
    let nodes = vec![
        node("hold", Kind::Rust(open_task::<Hold>)),
        node("sum", Kind::Fold(open_fold::<Sum>)),
        node("rested", Kind::Rust(open_task::<Kept<0>>)),
    ];
    let topology = topology("rests", nodes, &["hold-->sum", "sum-->rested"]);
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let start = || {
        let (stop, stopped) = watch::channel(Stop::Run);
        let options = RunOptions { serve: true, ..RunOptions::default() };
        let plan = Plan::new(topology, ".");
        (stop, tokio::spawn(run(broker.clone(), plan, options, Arc::new(Counts::new(topology)), stopped)))
    };
    let give = async |numbers: &[u64]| send(&broker, topology, numbers.iter().map(u64::to_string)).await;
    let results = async |wanted: &[u64]| {
        while KEPT[0].lock().unwrap().len() < wanted.len() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // None comes of nothing, also in ten times as long as an input must rest.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*KEPT[0].lock().unwrap(), wanted);
    };
    let (stop, running) = start();
    give(&[1, 2]).await;
    results(&[3]).await;
    // What is still upstream belongs to what has come already.
    give(&[10, 100]).await;
    results(&[3]).await;
    HELD.notify_one();
    results(&[3, 110]).await;
    give(&[20]).await;
    while broker.account("rests").await.unwrap().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    // It is stopped before it has rested; the next process goes on from there.
    stop.send(Stop::Drain).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(*KEPT[0].lock().unwrap(), [3, 110]);
    let (_stop, _running) = start();
    results(&[3, 110, 20]).await;
}

/// Gives no result that is less than ten, and none of a hundred for a while.
#[derive(serde::Deserialize)]
struct Choosy;

impl Fold for Choosy {
    type In = u64;
    type Out = u64;
    type State = u64;

    fn fold(&self, state: &mut u64, number: u64, _cx: &Context) -> Result<(), TaskError> {
        *state += number;
        Ok(())
    }

    async fn finish(&self, state: u64, _cx: &Context) -> Result<u64, TaskError> {
        match state {
            0..10 => Err(TaskError::permanent("too little")),
            100 if TRIED.fetch_add(1, SeqCst) < 10 => Err(TaskError::retryable("away")),
            _ => Ok(state),
        }
    }
}

static TRIED: AtomicU64 = AtomicU64::new(0);

#[tokio::test(start_paused = true)]
async fn a_fold_that_cannot_finish_ends_no_run_that_goes_on_and_keeps_what_it_has() {
    let nodes = vec![node("choosy", Kind::Fold(open_fold::<Choosy>)), node("chosen", Kind::Rust(open_task::<Kept<1>>))];
    let topology = topology("choosy", nodes, &["choosy-->chosen"]);
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let (_stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let running = tokio::spawn(run(broker.clone(), Plan::new(topology, "."), options, Arc::new(Counts::new(topology)), stopped));
    for (numbers, expected) in
        [(vec![3], vec![]), (vec![4], vec![]), (vec![5], vec![12]), (vec![20], vec![12, 20]), (vec![100], vec![12, 20, 100])]
    {
        send(&broker, topology, numbers.iter().map(u64::to_string)).await;
        // As long as several results would take.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(*KEPT[1].lock().unwrap(), expected);
        assert!(!running.is_finished());
    }
    // A run that ends cannot end well without its result.
    let ends = run_with(memory(), topology, RunOptions { message: Some(json!(1)), ..RunOptions::default() }).await;
    assert!(ends.unwrap_err().to_string().contains("could not finish"));
}

#[derive(serde::Deserialize)]
struct NeverStarts;

impl Task for NeverStarts {
    type In = Value;
    type Out = ();

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        std::future::pending().await
    }

    async fn run(&self, _input: Value, _cx: &Context) -> Result<(), TaskError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_task_never_starts_can_be_stopped() {
    let topology = topology("never-starts", vec![node("a", Kind::Rust(open_task::<NeverStarts>))], &[]);
    let (_stop, stopped) = watch::channel(Stop::Now);
    let plan = Plan::new(topology, ".");
    let running = run(memory(), plan, RunOptions::default(), Arc::new(Counts::new(topology)), stopped);
    tokio::time::timeout(Duration::from_secs(3600), running).await.expect("it stops").expect("without an error");
}

#[tokio::test]
async fn a_sink_writes_whole_lines_of_json_only() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.jsonl");
    // What a process that was killed in the middle of a line has left.
    fs::write(&output, "{\"a\": ").unwrap();
    let topology = topology("whole-lines", vec![node("out", sink(&output))], &[]);
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let payloads = ["1", "{", "", "{\n  \"z\": 123456789012345678901234567890,\n  \"a\": \"\\n\"\n}"];
    send(&broker, topology, payloads.iter().map(|text| (*text).to_owned())).await;
    let report = run_roots(broker, topology, 0).await;
    assert_eq!((report.done, report.dead_lettered), (2, 2));
    let text = fs::read_to_string(&output).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["{\"a\": ", "1"]);
    assert_eq!(lines[2].split_whitespace().collect::<String>(), "{\"z\":123456789012345678901234567890,\"a\":\"\\n\"}");
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_line_of_json_that_ends_beyond_the_limit_within_a_character_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    for width in 90..=110 {
        fs::write(&input, format!("\"{}ééé\"\n1\n", "x".repeat(width - 4))).unwrap();
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits { message_bytes_max: 100, ..Limits::default() }));
        let report = run_with(broker, copied("at-limit", "jsonl", &input, &output), RunOptions::default()).await.unwrap();
        assert_eq!(report.sent, 2, "{width}");
    }
}

#[derive(serde::Deserialize)]
struct Length;

impl Task for Length {
    type In = Entry;
    type Out = ();

    async fn run(&self, entry: Entry, _cx: &Context) -> Result<(), TaskError> {
        assert!(entry.path.ends_with("a\u{fffd}") && entry.raw_hex.is_some_and(|hex| hex.ends_with("2f61ff")));
        Ok(())
    }
}

#[tokio::test]
async fn a_file_whose_name_is_no_text_is_given_too() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"a\xff")), "1").unwrap();
    let walk = node("walk", Kind::Rust(open_task::<Length>)).source("directory", quoted(directory.path()));
    let report = run_with(memory(), topology("no-text", vec![walk], &[]), RunOptions::default()).await.unwrap();
    assert_eq!((report.done, report.dead_lettered), (1, 0));
}

/// A broker whose commits take a disk flush, and that dies with the process.
struct Disk {
    inner: MemoryBroker,
    /// No commit ends any more.
    dead: &'static AtomicBool,
    flush: Duration,
}

impl Broker for Disk {
    fn durability(&self) -> &str {
        self.inner.durability()
    }
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Answer<()>> {
        self.inner.create_topic(spec)
    }
    fn delete_topic(&self, topic: &str) -> BoxFuture<'_, Answer<()>> {
        self.inner.delete_topic(topic)
    }
    fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> BoxFuture<'_, Answer<()>> {
        self.inner.create_subscription(topic, subscription, start)
    }
    fn unsubscribe(&self, topic: &str, subscription: &str) -> BoxFuture<'_, Answer<()>> {
        self.inner.unsubscribe(topic, subscription)
    }
    fn subscribe(&self, subscribe: Subscribe) -> BoxFuture<'_, Answer<Box<dyn Consumer>>> {
        self.inner.subscribe(subscribe)
    }
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Answer<Vec<Position>>> {
        self.inner.publish(batch)
    }
    fn commit(&self, step: Step) -> BoxFuture<'_, Answer<()>> {
        Box::pin(async move {
            tokio::time::sleep(self.flush).await;
            if self.dead.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            self.inner.commit(step).await
        })
    }
    fn nack(&self, topic: &str, subscription: &str, position: Position, delay: Duration) -> BoxFuture<'_, Answer<()>> {
        self.inner.nack(topic, subscription, position, delay)
    }
    fn seek(&self, topic: &str, subscription: &str, to: Start) -> BoxFuture<'_, Answer<()>> {
        self.inner.seek(topic, subscription, to)
    }
    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'_, Answer<Vec<(Position, Message)>>> {
        self.inner.peek(topic, subscription, from, limit)
    }
    fn last_sequence(&self, topic: &str, producer: &str) -> BoxFuture<'_, Answer<Option<u64>>> {
        self.inner.last_sequence(topic, producer)
    }
    fn state(&self, key: &str) -> BoxFuture<'_, Answer<Option<leatworks::codec::Bytes>>> {
        self.inner.state(key)
    }
    fn stats(&self) -> BoxFuture<'_, Answer<Vec<TopicStats>>> {
        self.inner.stats()
    }
    fn account(&self, topology: &str) -> BoxFuture<'_, Answer<Account>> {
        self.inner.account(topology)
    }
    fn root_outcome(&self, root: MessageId) -> BoxFuture<'_, Answer<Outcome>> {
        self.inner.root_outcome(root)
    }
    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes()
    }
    fn close(&self) -> BoxFuture<'_, Answer<()>> {
        self.inner.close()
    }
}

const POISON: u64 = 100;

/// The process is killed when one of these is told, and nothing of it reaches the disk any more.
static KILLED: [(Notify, AtomicBool); 2] = [const { (Notify::const_new(), AtomicBool::new(false)) }; 2];

fn kill(process: usize) {
    KILLED[process].1.store(true, SeqCst);
    KILLED[process].0.notify_one();
}

/// One message kills the process.
#[derive(serde::Deserialize)]
struct Deadly;

impl Task for Deadly {
    type In = u64;
    type Out = ();

    async fn run(&self, number: u64, _cx: &Context) -> Result<(), TaskError> {
        if number == POISON {
            kill(0);
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// One message kills the process of its fold.
#[derive(serde::Deserialize)]
struct DeadlyFold;

impl Fold for DeadlyFold {
    type In = u64;
    type Out = u64;
    type State = u64;

    fn fold(&self, state: &mut u64, number: u64, _cx: &Context) -> Result<(), TaskError> {
        if number == POISON {
            kill(1);
        }
        *state += 1;
        Ok(())
    }

    async fn finish(&self, state: u64, _cx: &Context) -> Result<u64, TaskError> {
        Ok(state)
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_its_process_takes_no_other_with_it() {
    for (process, kind) in [Kind::Rust(open_task::<Deadly>), Kind::Fold(open_fold::<DeadlyFold>)].into_iter().enumerate() {
        let name = leak(format!("deadly-{process}"));
        let topology = topology(name, vec![node("a", kind)], &[]);
        let (killed, dead) = &KILLED[process];
        let broker: Arc<dyn Broker> =
            Arc::new(Disk { inner: MemoryBroker::new(Limits::default()), dead, flush: Duration::from_millis(5) });
        leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
        send(&broker, topology, (0..300).map(|number| number.to_string())).await;
        for _ in 0..10 {
            dead.store(false, SeqCst);
            let (_stop, stopped) = watch::channel(Stop::Run);
            let options = RunOptions { serve: true, ..RunOptions::default() };
            let running = run(broker.clone(), Plan::new(topology, "."), options, Arc::new(Counts::new(topology)), stopped);
            let done = async {
                while broker.account(name).await.unwrap().in_flight > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                ended = running => panic!("{ended:?}"),
                () = killed.notified() => {}
                () = done => {}
            }
        }
        let account = broker.account(name).await.unwrap();
        assert_eq!((account.done, account.dead_lettered, account.in_flight), (299, 1, 0), "{name}");
    }
}

static MADE: AtomicU64 = AtomicU64::new(0);

/// Makes a mebibyte of a few bytes.
#[derive(serde::Deserialize)]
struct Blow;

impl Task for Blow {
    type In = u64;
    type Out = String;

    async fn run(&self, _number: u64, _cx: &Context) -> Result<String, TaskError> {
        MADE.fetch_add(1, SeqCst);
        Ok("x".repeat(1 << 20))
    }
}

#[tokio::test]
async fn what_waits_for_the_disk_is_bounded_in_bytes() {
    let nodes = vec![node("blow", Kind::Rust(open_task::<Blow>)), node("count", Kind::Rust(open_task::<Length>))];
    let topology = topology("blown", nodes, &["blow-->count"]);
    let dead: &'static AtomicBool = Box::leak(Box::default());
    let broker: Arc<dyn Broker> = Arc::new(Disk { inner: MemoryBroker::new(Limits::default()), dead, flush: Duration::ZERO });
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    send(&broker, topology, (0..1000).map(|number| number.to_string())).await;
    let (_stop, stopped) = watch::channel(Stop::Run);
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let running = run(broker.clone(), Plan::new(topology, "."), options, Arc::new(Counts::new(topology)), stopped);
    let stuck = async {
        while MADE.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        dead.store(true, SeqCst);
        let mut before = u64::MAX;
        while before != MADE.load(SeqCst) {
            before = MADE.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        _ = running => panic!("it ended"),
        () = stuck => {}
    }
    assert!(MADE.load(SeqCst) < 128, "{} MiB wait", MADE.load(SeqCst));
}

static FOLDED: AtomicU64 = AtomicU64::new(0);

#[derive(serde::Deserialize)]
struct Picky;

impl Fold for Picky {
    type In = u64;
    type Out = u64;
    type State = u64;

    fn fold(&self, state: &mut u64, number: u64, _cx: &Context) -> Result<(), TaskError> {
        FOLDED.fetch_add(1, SeqCst);
        if number % 2 == 1 {
            return Err(TaskError::permanent("odd"));
        }
        *state += 1;
        Ok(())
    }

    async fn finish(&self, state: u64, _cx: &Context) -> Result<u64, TaskError> {
        Ok(state)
    }
}

#[tokio::test]
async fn many_failures_in_one_batch_of_a_fold_cost_no_more_than_their_number() {
    let topology = topology("picky", vec![node("fold", Kind::Fold(open_fold::<Picky>))], &[]);
    run_roots(memory(), topology, 2000).await;
    assert!(FOLDED.load(SeqCst) <= 8000, "{} calls", FOLDED.load(SeqCst));
}

#[tokio::test]
async fn a_mail_that_was_read_and_flagged_is_not_delivered_again() {
    let directory = tempfile::tempdir().unwrap();
    let maildir = Kind::Sink(BuiltinDef { kind: "maildir", options: leak(quoted(directory.path())) });
    let topology = topology("flagged", vec![node("out", maildir)], &[]);
    let broker = memory();
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.unwrap();
    let message = leatworks::new_root("\"Subject: a\"".into(), leatworks::Codec::Json, None);
    for flags in ["RS", "F"] {
        let publish = Publish { topic: "flagged-out".into(), message: message.clone().into(), sequence: None };
        broker.publish(vec![publish]).await.unwrap();
        let subscribe = Subscribe {
            topic: "flagged-out".to_owned(),
            subscription: "out".to_owned(),
            kind: SubscriptionKind::Shared,
            consumer: "killed".to_owned(),
            permits: 1,
            hand_off: leatworks::broker::HandOff::Durable,
        };
        // A process that was killed after it had written the mail.
        broker.subscribe(subscribe).await.unwrap().receive(1).await.unwrap();
        run_roots(broker.clone(), topology, 0).await;
        for entry in fs::read_dir(directory.path().join("new")).unwrap().map(|entry| entry.unwrap()) {
            let name = format!("{}:2,{flags}", entry.file_name().to_string_lossy());
            fs::rename(entry.path(), directory.path().join("cur").join(name)).unwrap();
        }
    }
    assert_eq!(fs::read_dir(directory.path().join("cur")).unwrap().count(), 1);
}
