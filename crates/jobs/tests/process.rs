//! Workers as processes of this machine: what they leave is committed, and nothing of those that fail.

use leatworks_jobs::{Attempt, Cause, Commit, Declared, Executor, FileRef, Job, JobError, Location, Process, Spec, State, Store};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio::io::AsyncReadExt;

struct Place {
    folder: tempfile::TempDir,
    store: Store,
    process: Process,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let store = Store::open(&Location::folder(&folder.path().join("files")).unwrap()).expect("a store opens");
        let process = Process::new(store.clone(), folder.path().join("work"), folder.path());
        Self { folder, store, process }
    }

    async fn run(&self, job: &Job) -> Result<Commit, JobError> {
        let result = self.process.execute(job).await;
        let left = std::fs::read_dir(self.folder.path().join("work")).expect("it is there").count();
        assert_eq!(left, 0, "work folders are removed");
        result
    }

    async fn attempts(&self, job: &Job) -> Vec<Attempt> {
        Attempt::of_root(&self.store, &job.topology, &job.root).await.expect("records can be read")
    }

    async fn log(&self, attempt: &Attempt) -> String {
        let log = self.store.get(attempt.log.as_deref().expect("there is a log")).await.unwrap().expect("it is there");
        String::from_utf8(log.to_vec()).unwrap()
    }
}

fn job(script: &str) -> Job {
    Job {
        topology: "books".to_owned(),
        task: "split".to_owned(),
        edge: "[*]-->split".to_owned(),
        message: format!("{:032x}", 7),
        root: format!("{:032x}", 5),
        parent: None,
        attempt: 1,
        key: Some("k".to_owned()),
        traceparent: "00-00000000000000000000000000000005-0000000000000007-01".to_owned(),
        data: json!({"n": 1}),
        files: Vec::new(),
        declared: Declared { routes: 1, names: vec!["part".to_owned(), "shout".to_owned()] },
        deadline: Duration::from_secs(30),
        spec: Spec { command: ["sh", "-c", script].map(str::to_owned).to_vec(), ..Spec::default() },
    }
}

#[tokio::test]
async fn what_a_worker_leaves_is_committed_with_its_files() {
    let place = Place::new();
    let job =
        job(r#"cat in/message.json; mkdir -p out/data/deep/er; printf one > out/data/deep/er/1.txt; printf two > out/data/2.txt
        echo '{"type": "part", "data": {"number": 2}, "files": ["2.txt", "deep/er/1.txt"]}' > out/events/b.json
        echo '{"type": "shout", "key": "own"}' > out/events/a.json
        echo '{"pages": 3}' > out/insights.json"#);
    let commit = place.run(&job).await.unwrap();
    assert_eq!(commit.insights, Some(json!({"pages": 3})));
    assert_eq!(commit.events.iter().map(|event| event.kind.as_deref()).collect::<Vec<_>>(), [Some("shout"), Some("part")]);
    assert_eq!(commit.events[0].payload, json!({}));
    assert_eq!(commit.events[0].key.as_deref(), Some("own"));
    let files: Vec<FileRef> = serde_json::from_value(commit.events[1].payload["leat-files"].clone()).unwrap();
    assert_eq!(
        files.iter().map(|file| (&*file.path, file.bytes)).collect::<Vec<_>>(),
        [("2.txt", Some(3)), ("deep/er/1.txt", Some(3))]
    );
    // The next step finds them by the same paths.
    let next = Job { files, task: "shout".to_owned(), edge: "split-->shout".to_owned(), ..job.clone() };
    let next = Job {
        spec: Spec {
            command: ["sh", "-c", "cat in/data/2.txt in/data/deep/er/1.txt"].map(str::to_owned).to_vec(),
            ..Spec::default()
        },
        ..next
    };
    place.run(&next).await.unwrap();
    let attempts = place.attempts(&job).await;
    assert_eq!(
        attempts.iter().map(|attempt| (attempt.state, attempt.exit_code)).collect::<Vec<_>>(),
        [(State::Succeeded, Some(0)); 2]
    );
    let message: Value = serde_json::from_str(&place.log(&attempts[0]).await).unwrap();
    assert_eq!((&message["data"]["n"], &message["attempt"], &message["key"]), (&json!(1), &json!(1), &json!("k")));
    assert_eq!(place.log(&attempts[1]).await, "twoone");
}

#[tokio::test]
async fn a_worker_that_fails_commits_nothing_and_leaves_its_log() {
    let leave = "echo x > out/data/f; echo '{\"files\": [\"f\"]}' > out/events/1.json; echo 'out of paper' >&2;";
    for (end, permanent, cause, told) in [
        ("exit 3", vec![], Cause::Failed, "exit code 3: out of paper"),
        ("exit 3", vec![3], Cause::Permanent, "declared permanent"),
        ("kill -TERM $$", vec![], Cause::Failed, "by signal 15"),
        ("exec ./missing-program", vec![], Cause::Failed, "exit code 127"),
    ] {
        let place = Place::new();
        let mut job = job(&format!("{leave} {end}"));
        job.spec.permanent = permanent;
        let error = place.run(&job).await.unwrap_err();
        assert_eq!(error.cause, cause, "{end}: {error}");
        assert!(error.to_string().contains(told), "{end}: {error}");
        assert_eq!(Commit::of(&place.store, &job).await.unwrap(), None);
        let attempts = place.attempts(&job).await;
        assert_eq!((attempts[0].state, attempts[0].cause), (State::Failed, Some(cause)));
        let log = attempts[0].log.clone().expect("its log is kept");
        assert!(error.to_string().contains(&place.store.shown(&log)), "{error}");
        assert!(place.log(&attempts[0]).await.contains("out of paper"));
        assert!(!place.store.list("books").await.unwrap().iter().any(|key| key.contains("/data/")), "no file is kept");
    }
}

#[tokio::test]
async fn what_is_not_declared_or_not_there_is_refused() {
    for (script, cause, told) in [
        (
            r#"echo '{"type": "prat"}' > out/events/1.json"#,
            Cause::Permanent,
            "of type `prat`, which is not declared: the graph declares `part`, `shout`; it is in `out/events/1.json`",
        ),
        (r#"echo '{"typ": "part"}' > out/events/1.json"#, Cause::Permanent, "`out/events/1.json` is not"),
        ("echo '[' > out/events/1.json", Cause::Permanent, "`out/events/1.json` is not"),
        (r#"echo '{"files": ["x"]}' > out/events/1.json"#, Cause::Failed, "the file `x`, which is not in `out/data`"),
        (r#"echo '{"files": ["../../in/message.json"]}' > out/events/1.json"#, Cause::Permanent, "is no path of a file here"),
        (r#"ln -s /etc/passwd out/data/x; echo '{"files": ["x"]}' > out/events/1.json"#, Cause::Permanent, "which is a link"),
        (r#"echo '{"data": 1, "files": ["x"]}' > out/events/1.json"#, Cause::Permanent, "must be an object"),
        (r#"echo '{"data": {"leat-files": []}}' > out/events/1.json"#, Cause::Permanent, "which is ours"),
        (
            r#"head -c 2000 /dev/zero > out/data/x; cp out/data/x out/data/y; echo '{"files": ["x", "y"]}' > out/events/1.json"#,
            Cause::Permanent,
            "more than the 3000 bytes",
        ),
        (
            r#"head -c 9000 /dev/zero > out/data/x; echo '{"files": ["x"]}' > out/events/1.json"#,
            Cause::Permanent,
            "more than the 3000 bytes",
        ),
        ("exec head -c 9000 /dev/zero > out/data/x", Cause::Permanent, "a file of more than the 3000 bytes"),
        ("head -c 9000 /dev/zero > out/data/x || exit $?", Cause::Permanent, "a file of more than the 3000 bytes"),
        ("echo no > out/insights.json", Cause::Permanent, "`out/insights.json` is no JSON"),
        ("rm -r out; ln -s /etc out", Cause::Permanent, "in place of the folder `out`"),
        ("rm -r out", Cause::Failed, ""),
    ] {
        let place = Place::new();
        let mut job = job(script);
        job.spec.output = 3000;
        match place.run(&job).await {
            Err(error) => assert!(error.cause == cause && error.to_string().contains(told), "{script}: {error}"),
            // A folder without events gives none.
            Ok(commit) => assert!(told.is_empty() && commit.events.is_empty(), "{script} is taken"),
        }
        assert!(told.is_empty() || Commit::of(&place.store, &job).await.unwrap().is_none(), "{script}");
    }
}

#[tokio::test]
async fn an_input_that_is_missing_or_another_fails_before_the_worker() {
    let place = Place::new();
    place.store.put("up/a.txt", "hello".into()).await.unwrap();
    let file = FileRef { path: "a.txt".to_owned(), key: "up/a.txt".to_owned(), bytes: None, xxh3: None };
    let with =
        |file: FileRef, message: u32| Job { files: vec![file], message: format!("{message:032x}"), ..job("cat in/data/*") };
    let good = with(file.clone(), 1);
    place.run(&good).await.unwrap();
    for (number, file, told) in [
        (2, FileRef { key: "up/b.txt".to_owned(), ..file.clone() }, "it was removed, or never there"),
        (3, FileRef { bytes: Some(4), ..file.clone() }, "not the one that the message names"),
        (4, FileRef { xxh3: Some("0".repeat(32)), ..file.clone() }, "not the one that the message names"),
        (5, FileRef { path: "../a".to_owned(), ..file.clone() }, "no path of a file"),
    ] {
        let job = with(file, number);
        let error = place.run(&job).await.unwrap_err();
        assert!(error.cause == Cause::Permanent && error.to_string().contains(told), "{error}");
        let attempts = place.attempts(&job).await;
        let attempt = attempts.iter().find(|attempt| attempt.message == job.message).unwrap();
        assert!(attempt.log.is_none() && attempt.exit_code.is_none(), "the worker has not run");
    }
}

#[tokio::test]
async fn the_first_commit_counts_however_often_it_is_asked_for() {
    let place = Place::new();
    let first = place.run(&job("echo '{\"data\": {\"by\": 1}}' > out/events/1.json")).await.unwrap();
    let second = Job { attempt: 2, ..job("echo '{\"data\": {\"by\": 2}}' > out/events/1.json") };
    assert_eq!(place.run(&second).await.unwrap(), first);
    assert_eq!(place.attempts(&second).await.len(), 1, "the worker did not run again");
    // Two attempts that run at once leave one commit.
    let other =
        Job { message: format!("{:032x}", 9), ..job("echo \"{\\\"data\\\": {\\\"by\\\": $LEAT_ATTEMPT}}\" > out/events/1.json") };
    let again = Job { attempt: 2, ..other.clone() };
    let (one, two) = tokio::join!(place.process.execute(&other), place.process.execute(&again));
    assert_eq!(one.unwrap(), two.unwrap());
}

#[tokio::test]
async fn a_message_that_is_given_back_has_its_attempts_in_a_new_round() {
    let place = Place::new();
    let job = job("exit 1");
    for _ in 0..2 {
        place.run(&job).await.unwrap_err();
    }
    let rounds: Vec<u32> = place.attempts(&job).await.iter().map(|attempt| attempt.round).collect();
    assert_eq!(rounds, [1, 2]);
}

/// A pipe that a worker's processes have open from when they take it until the last of them has ended.
struct Held(tokio::net::unix::pipe::Receiver);

impl Held {
    /// Made in the folder, and the beginning of a script that takes it and says so.
    fn new(place: &Place) -> (Self, String) {
        let path = place.folder.path().join("held");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let held = Self(tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path).unwrap());
        (held, format!("exec 9>'{}'; echo taken >&9;", path.display()))
    }

    async fn taken(&mut self) {
        let mut said = [0; 6];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut said)).await.expect("a worker should have taken it").unwrap();
    }

    /// Waits until none of those that have taken it is left.
    async fn ended(mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("all processes should have ended").unwrap();
    }
}

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far longer than a test lasts.
const LONG: &str = "sleep 86399";

#[tokio::test]
async fn a_worker_that_hangs_is_ended_with_everything_that_it_has_started() {
    let place = Place::new();
    let (mut held, take) = Held::new(&place);
    let mut job = job(&format!("{take} echo begun; {LONG} & {LONG}"));
    job.deadline = Duration::from_millis(300);
    let error = place.run(&job).await.unwrap_err();
    assert_eq!(error.cause, Cause::Timeout, "{error}");
    assert!(error.to_string().contains("timeout of 300ms: begun"), "{error}");
    held.taken().await;
    held.ended().await;
}

#[tokio::test]
async fn what_a_worker_leaves_running_is_ended_with_it() {
    let place = Place::new();
    let (mut held, take) = Held::new(&place);
    place.run(&job(&format!("{take} {LONG} & exit 0"))).await.unwrap();
    held.taken().await;
    held.ended().await;
}

#[tokio::test]
async fn a_worker_is_ended_when_nobody_waits_for_it() {
    let place = Place::new();
    let (mut held, take) = Held::new(&place);
    let job = job(&format!("{take} {LONG}"));
    let running = place.process.execute(&job);
    tokio::select! {
        _ = running => panic!("it does not end by itself"),
        () = held.taken() => {}
    }
    held.ended().await;
    assert_eq!(place.attempts(&job).await[0].state, State::Begun);
}

#[tokio::test]
async fn a_worker_that_eats_memory_is_ended_and_that_is_said() {
    let place = Place::new();
    let mut job =
        job("exec python3 -c '\nimport time\nheld = []\nwhile True:\n    held.append(bytearray(4 << 20)); time.sleep(0.01)'");
    job.spec.memory = Some(64 << 20);
    let error = place.run(&job).await.unwrap_err();
    assert_eq!(error.cause, Cause::Memory, "{error}");
    assert!(error.to_string().contains("may use 67108864"), "{error}");
}

#[tokio::test]
async fn a_worker_sees_its_message_and_nothing_of_our_secrets() {
    let place = Place::new();
    std::fs::write(place.folder.path().join("worker.env"), "# comment\nFROM_FILE=a=b\nBOTH=file\n").unwrap();
    std::fs::write(place.folder.path().join("tool.sh"), "echo tool $1\n").unwrap();
    let mut job = job("");
    job.spec.command = ["sh", "-c", "sh \"$0\" x; env", "./tool.sh"].map(str::to_owned).to_vec();
    job.spec.env_files = vec!["worker.env".into()];
    job.spec.env = [("BOTH".to_owned(), "table".to_owned())].into();
    place.process.check(&job.spec).unwrap();
    place.run(&job).await.unwrap();
    let log = place.log(&place.attempts(&job).await[0]).await;
    for line in ["tool x", "FROM_FILE=a=b", "BOTH=table", "LEAT_ATTEMPT=1", "LEAT_TASK=split"] {
        assert!(log.lines().any(|found| found == line), "{line} in {log}");
    }
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !log.contains("CARGO"), "{log}");
    job.spec.env_files = vec!["missing.env".into()];
    assert!(place.process.check(&job.spec).unwrap_err().to_string().contains("missing.env"));
}

#[tokio::test]
async fn a_long_log_keeps_its_beginning_and_its_end() {
    let place = Place::new();
    let mut job = job("echo first; seq 1 100000; echo last");
    job.spec.log = 4096;
    place.run(&job).await.unwrap();
    let log = place.log(&place.attempts(&job).await[0]).await;
    assert!(log.starts_with("first\n") && log.ends_with("last\n") && log.contains("bytes are left out"), "{log}");
    assert!(log.len() < 4200, "{}", log.len());
}

#[tokio::test]
async fn what_is_old_is_cleaned_up() {
    let place = Place::new();
    let job = job("echo x > out/data/x; echo '{\"files\": [\"x\"]}' > out/events/1.json");
    place.run(&job).await.unwrap();
    assert_eq!(place.store.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
    let keys = place.store.list("books").await.unwrap().len();
    assert_eq!(keys, 4, "record, log, file and commit");
    assert_eq!(place.store.sweep(Duration::ZERO).await.unwrap(), keys);
    assert_eq!(place.store.list("books").await.unwrap(), Vec::<String>::new());
    std::fs::create_dir_all(Path::new(place.folder.path()).join("work/left/in")).unwrap();
    assert_eq!(place.process.sweep(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(place.process.sweep(Duration::ZERO).unwrap(), 1);
}
