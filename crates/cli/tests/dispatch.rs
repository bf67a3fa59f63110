//! `leat dispatch` with the example's workers, in Python and in Rust, on the embedded broker.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/email-pipeline-worker")
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

/// Waits for a line with this in it, and gives what follows in it.
fn after(lines: &mut impl BufRead, what: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).expect("it can be read") > 0, "no `{what}` in: {seen}");
        if let Some((_, rest)) = line.split_once(what) {
            return rest.trim().to_owned();
        }
        seen += &line;
    }
}

/// The example's workers in Python; none if there is no Python, which must not be in continuous integration.
fn in_python() -> Option<(Running, String)> {
    match serve(Command::new("python3").arg(example().join("worker.py"))) {
        Ok(workers) => Some(workers),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "python3 cannot be started: {error}");
            eprintln!("NOT RUN: python3 cannot be started: {error}");
            None
        }
    }
}

/// The same in Rust.
fn in_rust() -> (Running, String) {
    let name = "email-pipeline-worker";
    // It is there when all is tested, and not when this test is run alone.
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", name]).status().expect("cargo starts");
    assert!(built.success());
    let binary = Path::new(env!("CARGO_BIN_EXE_leat")).with_file_name("examples").join(name);
    serve(&mut Command::new(binary)).expect("the example starts")
}

/// Starts workers at a free port, and waits until they say where they are.
fn serve(command: &mut Command) -> std::io::Result<(Running, String)> {
    let mut child = command.arg("0").stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let running = Running(child);
    let url = after(&mut lines, "workers on ");
    // Read on, or it would wait for a reader.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Ok((running, url))
}

fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn one_task_makes_eleven_calls_of_plain_python_workers() {
    let Some((_workers, url)) = in_python() else { return };
    one_task_makes_eleven_calls(&url);
}

#[test]
fn one_task_makes_eleven_calls_of_plain_rust_workers() {
    let (_workers, url) = in_rust();
    one_task_makes_eleven_calls(&url);
}

fn one_task_makes_eleven_calls(url: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let text = fs::read_to_string(example().join("dispatcher.toml")).expect("the example is there");
    let text = text
        .replace("embedded:target/email-pipeline-worker", &format!("embedded:{}", dir.path().join("journal").display()))
        .replace("http://127.0.0.1:3000", url)
        .replace("127.0.0.1:2000", "127.0.0.1:0")
        .replace("127.0.0.1:6650", "127.0.0.1:0");
    let config = dir.path().join("dispatcher.toml");
    fs::write(&config, text).expect("it can be written");
    let mut leat = Command::new(env!("CARGO_BIN_EXE_leat"));
    leat.args(["dispatch", "-o", "json", "--config"]).arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(leat.spawn().expect("leat starts"));
    let mut told = BufReader::new(running.0.stderr.take().expect("it is piped"));
    let mut handled = BufReader::new(running.0.stdout.take().expect("it is piped"));
    let address = after(&mut told, "http://");
    let address = address.split('/').next().expect("there is an address");
    let answer = post(address, "/tasks/email-pipeline-start/submit", "{}");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"successful":true}"#), "{answer}");
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..11 {
        let mut line = String::new();
        handled.read_line(&mut line).expect("it can be read");
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON object for each message");
        assert_eq!(line["status"], "200 OK", "{line}");
        *counts.entry(line["task"].as_str().expect("a type").to_owned()).or_insert(0) += 1;
    }
    let wanted = [("email-pipeline-start", 1), ("fetch-users", 1), ("generate-email", 3), ("send-email", 3), ("record-sent", 3)];
    assert_eq!(counts, wanted.map(|(kind, count)| (kind.to_owned(), count)).into());
    let signalled = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().expect("kill is there");
    assert!(signalled.success());
    assert_eq!(running.0.wait().expect("it ends").code(), Some(130));
    let mut more = String::new();
    handled.read_to_string(&mut more).expect("it can be read");
    assert_eq!(more, "", "not one call more");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_3_and_a_broker_that_is_away_with_5() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let config = dir.path().join("dispatcher.toml");
    let handler = "[[handlers]]\ntask_selector = { type = \"a\" }\nendpoint = \"http://127.0.0.1:1/a\"\n";
    for (text, code, told) in [
        ("", 3, "mq"),
        ("[mq]\nurl = \"embedded:x\"\ntopics = [\"a\"]\n", 3, "handlers"),
        // Nobody listens at the first port.
        (&format!("[mq]\nurl = \"pulsar://127.0.0.1:1\"\ntopics = [\"a\"]\n{handler}"), 5, "127.0.0.1:1"),
        (&format!("[mq]\nurl = \"somewhere\"\ntopics = [\"a\"]\n{handler}"), 3, "somewhere"),
    ] {
        fs::write(&config, text).expect("it can be written");
        let mut leat = Command::new(env!("CARGO_BIN_EXE_leat"));
        let output = leat.args(["dispatch", "--config"]).arg(&config).output().expect("leat starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(told) && error.contains("error"), "{told}: {error}");
    }
}
