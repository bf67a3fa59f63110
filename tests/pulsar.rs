//! Both pipelines on a real Apache Pulsar, without a changed line: `cargo xtask ci pulsar` starts one and runs this.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const EMAIL: &str = env!("CARGO_BIN_EXE_email-pipeline");
const ACCESS_LOG: &str = env!("CARGO_BIN_EXE_access-log");

/// The lines of the sample, of which each is one of these.
const SAMPLE: [(&str, u64); 5] = [("lines", 158), ("page", 69), ("asset", 60), ("error", 25), ("malformed", 4)];

/// How often a run is killed before it is left to end.
const KILLS: u64 = 6;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: `cargo xtask ci pulsar` starts a Pulsar and runs this"))
}

/// A namespace and a data folder that no other test has.
struct Place {
    namespace: String,
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let namespace = format!("showcase-{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = variable("LEAT_PULSAR_ADMIN_URL");
        let address = admin.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let path = format!("/admin/v2/namespaces/public/{namespace}");
        write!(
            stream,
            "PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
        Self { namespace, home: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn command(&self, binary: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .args(args)
            .args(["--broker", &variable("LEAT_PULSAR_URL"), "-o", "json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("LEATWORKS_HOME", self.home.path())
            .env("LEAT_DATA", self.data())
            .env("LEAT_BROKER__ADMIN_URL", variable("LEAT_PULSAR_ADMIN_URL"))
            .env("LEAT_BROKER__NAMESPACE", &self.namespace)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What a command prints that ends well.
    fn json(&self, binary: &str, args: &[&str]) -> Value {
        let output = self.command(binary, args).output().expect("started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
    }

    /// Starts the report of a log, and waits until it is connected.
    fn start(&self, log: &str) -> Child {
        let mut child = self.command(ACCESS_LOG, &["run", log]).spawn().expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let running = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains("Running")));
        assert!(running.is_some(), "it has ended before it ran");
        // It must not wait for somebody who reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }

    /// A log of so many times the sample.
    fn log(&self, times: usize) -> String {
        let sample = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/access-log/access.log")).unwrap();
        let path = self.home.path().join("access.log");
        std::fs::write(&path, sample.repeat(times)).unwrap();
        path.display().to_string()
    }

    /// The report counts each line of a log of so many samples once.
    fn check_report(&self, times: u64) {
        let report: Value = serde_json::from_slice(&std::fs::read(self.data().join("report/report.json")).unwrap()).unwrap();
        for (kind, count) in SAMPLE {
            assert_eq!(report[kind], count * times, "{kind} in {report}");
        }
    }
}

fn handled(report: &Value) -> BTreeMap<&str, u64> {
    let tasks = report["tasks"].as_object().expect("tasks");
    tasks.iter().map(|(name, task)| (name.as_str(), task["handled"].as_u64().expect("a number"))).collect()
}

#[test]
fn three_subscribers_are_eleven_calls_each_time() {
    let place = Place::new();
    let calls = BTreeMap::from([("start", 1), ("fetch-users", 1), ("render", 3), ("send", 3), ("record", 3)]);
    for times in 1..=2 {
        let report = place.json(EMAIL, &["run"]);
        assert_eq!(handled(&report), calls);
        assert_eq!((&report["counted"]["given"], &report["sent"]), (&1.into(), &Value::Null), "no account is made up: {report}");
        assert_eq!(std::fs::read_dir(place.data().join("mail/new")).unwrap().count(), 3 * times);
    }
    let status = place.json(EMAIL, &["status"]);
    assert_eq!((&status["sent"], &status["durability"], &status["running"]), (&Value::Null, &"pulsar".into(), &false.into()));
    let output = place.command(EMAIL, &["send", "{}", "--wait"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && told.contains("keeps no account"), "{told}");
}

#[test]
fn a_process_for_each_task_and_edge_makes_the_same_calls() {
    let place = Place::new();
    let report = place.json(EMAIL, &["run", "--processes"]);
    assert_eq!(handled(&report), BTreeMap::from([("start", 1), ("fetch-users", 1), ("render", 3), ("send", 3), ("record", 3)]));
    let failed: u64 = report["tasks"].as_object().unwrap().values().filter_map(|task| task["failed"].as_u64()).sum();
    assert_eq!((failed, std::fs::read_dir(place.data().join("mail/new")).unwrap().count()), (0, 3), "{report}");
}

#[test]
fn every_line_of_the_sample_is_counted_once() {
    let place = Place::new();
    let report = place.json(ACCESS_LOG, &["run"]);
    assert_eq!(handled(&report)["parse"], 158);
    place.check_report(1);
    // The service counts what is pending in batches, and nothing is.
    assert_eq!(report["counted"]["backlogs"], serde_json::json!({}));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the moment of the kill is what varies, and nothing depends on it")]
fn every_line_is_counted_once_although_the_process_is_killed() {
    let place = Place::new();
    let log = place.log(20);
    let mut kills = 0;
    for kill in 0..KILLS {
        let mut child = place.start(&log);
        std::thread::sleep(Duration::from_millis(400 + 500 * kill));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
    }
    println!("killed {kills} times");
    place.json(ACCESS_LOG, &["run", &log]);
    place.check_report(20);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the moment of the signal is what varies, and nothing depends on it")]
fn what_was_interrupted_goes_on() {
    let place = Place::new();
    let log = place.log(20);
    let mut child = place.start(&log);
    std::thread::sleep(Duration::from_millis(1_000));
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let code = child.wait().unwrap().code();
    assert!(code == Some(130), "{code:?}");
    place.json(ACCESS_LOG, &["run", &log]);
    place.check_report(20);
}

#[test]
fn one_process_at_a_time_runs_a_topology() {
    let place = Place::new();
    let mut first = place.command(EMAIL, &["run", "--serve"]).spawn().unwrap();
    // It has the state as soon as it has made its topics and begun.
    let has_begun = || place.json(EMAIL, &["status"])["running"] == true;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !has_begun() {
        assert!(std::time::Instant::now() < until, "it does not begin");
    }
    let second = place.command(EMAIL, &["run"]).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.status.code() == Some(7) && told.contains("one writer at a time"), "{}: {told}", second.status);
    assert_eq!(handled(&place.json(EMAIL, &["run"]))["start"], 1, "the place of one that was killed is free");
}
