//! `leat dispatch TOPOLOGY/EDGE`: one edge of a project, with a worker in a few lines of its own.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// A project in which `parse` sorts what comes into two heaps, and tries everything twice.
fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let graph = "flowchart LR\n  parse -->|good| store\n  parse -->|bad| reject\n  tick --> count";
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("Project.toml", "[project]\nname = \"shop\"\nmembers = [\"orders.toml\"]\n");
    let tasks = "[[topology.task]]\nname = \"count\"\nkind = \"fold\"\n[[topology.task]]\nname = \"tick\"\nsource = { type = \"interval\", every = \"1s\" }\n";
    write("orders.toml", &format!("[[topology]]\nname = \"orders\"\ngraph = \"\"\"\n{graph}\n\"\"\"\n{tasks}"));
    write("leat.toml", "data = 'data'\n[topology.orders.task.parse]\nretry = { attempts = 2, backoff = '1ms' }\n");
    dir
}

fn leat(dir: &Path, args: &[&str]) -> Command {
    let mut leat = Command::new(env!("CARGO_BIN_EXE_leat"));
    leat.args(args).current_dir(dir).env_remove("LEAT_PROJECT").env_remove("LEAT_DATA").env("LEATWORKS_HOME", dir.join("home"));
    leat
}

fn ended(dir: &Path, args: &[&str]) -> Output {
    leat(dir, args).output().expect("leat starts")
}

/// A process that ends with the test, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that answers by a function of the body: a status with its reason, and a body.
fn worker(answer: fn(&str) -> (&'static str, Value)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A caller that is gone is no concern of the others.
            let _ = stream.and_then(|stream| serve(stream, answer));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: fn(&str) -> (&'static str, Value)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answer) = answer(&String::from_utf8_lossy(&body));
    let answer = answer.to_string();
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())
}

/// Dispatches until so many lines are told, then ends it as Ctrl-C does.
fn dispatch(dir: &Path, args: &[&str], lines: usize) -> Vec<String> {
    let mut command = leat(dir, &[&["dispatch"], args].concat());
    let mut running = Running(command.stdout(Stdio::piped()).spawn().expect("leat starts"));
    let mut told = BufReader::new(running.0.stdout.take().expect("it is piped")).lines();
    let lines: Vec<String> = told.by_ref().take(lines).map(|line| line.expect("a line")).collect();
    let signalled = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().expect("kill is there");
    assert!(signalled.success());
    assert_eq!(running.0.wait().expect("it ends").code(), Some(130), "{lines:?}");
    assert_eq!(told.count(), 0, "not one call more");
    lines
}

fn sort(body: &str) -> (&'static str, Value) {
    match body {
        "1" => ("200 OK", json!({"tasks": [{"type": "good", "task": "one"}, {"type": "bad", "task": 1}]})),
        "2" => ("503 Service Unavailable", json!("later")),
        "3" => ("422 Unprocessable Entity", json!("never")),
        _ => ("202 Accepted", json!({"tasks": []})),
    }
}

#[test]
fn an_edge_is_dispatched_as_the_project_says() {
    let dir = project();
    let dir = dir.path();
    fs::write(dir.join("messages"), "1\n2\n3\n4\n").expect("written");
    let sent = ended(dir, &["send", "orders/parse", "-f", "messages"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    // Two attempts at the second message.
    let url = worker(sort);
    let mut lines = dispatch(dir, &["orders/[*]-->parse", "--worker", &url], 5);
    lines.sort_by_key(|line| line.split_once(" task:").map(|(_, rest)| rest.to_owned()));
    let rest: Vec<&str> = lines.iter().filter_map(|line| line.split_once("> ")).map(|(_, rest)| rest).collect();
    assert_eq!(rest[0], "task:<parse> status:<200 OK> result:<Continue:2 new tasks>");
    assert_eq!(rest[1], "task:<parse> status:<202 Accepted> result:<Continue:0 new tasks>");
    assert!(rest[2].contains("answered 422") && rest[2].ends_with("result:<Failed>"), "{rest:?}");
    assert!(rest[3].contains("answered 503") && rest[4].contains("answered 503"), "{rest:?}");
    let status = ended(dir, &["status", "orders", "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let edges = status[0]["edges"].as_array().expect("edges");
    let of = |id: &str, what: &str| edges.iter().find(|edge| edge["edge"] == id).expect("the edge")[what].clone();
    assert_eq!((of("[*]-->parse", "backlog"), of("[*]-->parse", "dead_letters")), (0.into(), 2.into()));
    assert_eq!((of("parse-->|good|store", "backlog"), of("parse-->|bad|reject", "backlog")), (1.into(), 1.into()));
    // What was published is taken by the dispatcher of the next edge; the topology need not be named if there is one.
    let url = worker(|body| if body == "\"one\"" { ("200 OK", json!({"tasks": []})) } else { ("500 Oh", json!(null)) });
    let lines = dispatch(dir, &["parse -->|good| store", "--worker", &url, "-o", "json"], 1);
    let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!((&line["task"], &line["status"], &line["new_tasks"]), (&json!("store"), &json!("200 OK"), &json!(0)));
}

#[test]
fn what_cannot_be_dispatched_is_told_with_its_remedy() {
    let dir = project();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["orders/parse-->|god|store"], 4, "did you mean `parse-->|good|store`"),
        (&["orderz/parse-->|good|store"], 4, "there are `orders`"),
        (&["parse-->|good|store"], 3, "say by `--worker` where it listens"),
        (&["parse-->|good|store", "--worker", "ftp://x"], 3, "must begin with `http://`"),
        (&["tick-->count", "--worker", "http://x"], 3, "`count` is a fold"),
        (&["[*]-->tick", "--worker", "http://x"], 3, "passes on what its source reads"),
        (&["parse-->|good|store", "--broker", "memory", "--worker", "http://x"], 3, "--broker pulsar://HOST:PORT"),
        (&["--worker", "http://x"], 2, "EDGE"),
        (&["parse-->|good|store", "--config", "x"], 2, "--config"),
    ];
    for (args, code, words) in cases {
        let output = ended(dir.path(), &[&["dispatch"], *args].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?} says `{words}`: {error}");
    }
}

/// What is answered to a GET: the status and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("it is asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

#[test]
fn a_dispatcher_tells_how_it_is() {
    let dir = project();
    let dir = dir.path();
    fs::write(dir.join("messages"), "1\n2\n4\n").expect("written");
    assert!(ended(dir, &["send", "orders/parse", "-f", "messages"]).status.success());
    let url = worker(sort);
    let args = ["dispatch", "orders/[*]-->parse", "--worker", &url, "-o", "json", "--json-log", "--listen", "127.0.0.1:0"];
    let mut running = Running(leat(dir, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("leat starts"));
    let mut log = BufReader::new(running.0.stderr.take().expect("it is piped")).lines().map(|line| line.expect("a line"));
    let mut told: Vec<String> = Vec::new();
    let address = loop {
        let line = log.next().expect("it says where it listens");
        told.push(line.clone());
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.split_once("/metrics").expect("what is there").0.to_owned();
        }
    };
    let lines = BufReader::new(running.0.stdout.take().expect("it is piped")).lines();
    for line in lines.take(4) {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        assert_eq!((&line["topology"], &line["edge"], &line["task"]), (&json!("orders"), &json!("[*]-->parse"), &json!("parse")));
    }
    let (status, text) = loop {
        // The last message was told of before it was settled.
        let (status, text) = get(&address, "/metrics");
        let has = |what: &str| text.contains(&format!("leatworks_dispatcher_{what}\n"));
        let of = "{topology=\"orders\",edge=\"0.parse\"}";
        if has(&format!("dead_lettered_total{of} 1")) && has(&format!("in_flight{of} 0")) {
            break (status, text);
        }
        std::thread::yield_now();
    };
    assert_eq!(status, 200);
    for (name, value) in [("handled_total", 2), ("failed_total", 2), ("retried_total", 1), ("outputs_total", 2), ("in_flight", 0)]
    {
        let line = format!("leatworks_dispatcher_{name}{{topology=\"orders\",edge=\"0.parse\"}} {value}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    assert_eq!(get(&address, "/healthz").0, 200);
    assert_eq!(get(&address, "/readyz").0, 200);
    assert_eq!(get(&address, "/else").0, 404);
    let signalled = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().expect("kill is there");
    assert!(signalled.success());
    assert_eq!(running.0.wait().expect("it ends").code(), Some(130));
    told.extend(log);
    assert!(told.iter().any(|line| line.contains("dead letters")), "{told:?}");
    for line in told {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&line["topology"], &line["edge"]), (&json!("orders"), &json!("[*]-->parse")), "{line}");
        assert!(line["timestamp"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
}
