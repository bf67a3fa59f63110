//! Watches against a server that falls silent, forgets, or sends what cannot be read. It is a server of its own, since a real one does none of that when asked.

use kube::{Api, Client, Config, api::DynamicObject};
use leatworks_controller::{
    cluster::topology_resource,
    metrics::Metrics,
    watch::{Notice, Pulse, Watch, of_itself},
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

/// How long the test waits for what has to come: only a broken watch needs it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a watch may say nothing here.
const SILENCE_MAX: Duration = Duration::from_millis(300);

/// What the server does with one watch: the lines that it sends, and whether it ends it then or says nothing more.
struct Script {
    lines: Vec<&'static str>,
    ends: bool,
}

/// Starts a server that lists `a` and then follows the scripts, one for each watch. Gives its address, and the paths that it was asked for.
fn server(scripts: Vec<Script>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (heard, scripts) = (asked.clone(), Arc::new(Mutex::new(scripts.into_iter())));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (heard, scripts) = (heard.clone(), scripts.clone());
            std::thread::spawn(move || while answer(&stream, &heard, &scripts).is_some() {});
        }
    });
    (address, asked)
}

fn answer(mut stream: &TcpStream, heard: &Mutex<Vec<String>>, scripts: &Mutex<std::vec::IntoIter<Script>>) -> Option<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream.try_clone().ok()?).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    heard.lock().ok()?.push(path.clone());
    if !path.contains("watch=true") {
        let body = r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"7"},"items":[{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"a","namespace":"n"}}]}"#;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .ok()?;
        return Some(());
    }
    let script = scripts.lock().ok()?.next();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
    let Some(script) = script else { return silent() };
    for line in script.lines {
        write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).ok()?;
    }
    if !script.ends {
        return silent();
    }
    write!(stream, "0\r\n\r\n").ok()
}

/// Says nothing more, and keeps the connection.
fn silent() -> Option<()> {
    loop {
        std::thread::park();
    }
}

fn watch(address: &str, metrics: &Arc<Metrics>) -> (mpsc::Receiver<Notice>, Pulse, tokio::task::JoinHandle<()>) {
    let client = Client::try_from(Config::new(address.parse().expect("an address"))).expect("a client");
    let api: Api<DynamicObject> = Api::namespaced_with(client, "n", &topology_resource());
    let (to, notices) = mpsc::channel(16);
    let pulse = Pulse::default();
    let watch = Watch {
        api,
        labels: String::new(),
        notice: of_itself,
        to,
        pulse: pulse.clone(),
        silence_max: SILENCE_MAX,
        metrics: metrics.clone(),
    };
    (notices, pulse, tokio::spawn(watch.run()))
}

/// The next topology that is told of, with a mark if it is told of anew.
async fn next(notices: &mut mpsc::Receiver<Notice>) -> String {
    let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.expect("in time").expect("the watch goes on");
    let mark = if notice.is_anew { "!" } else { "" };
    notice.key.name + mark
}

const B: &str = r#"{"type":"ADDED","object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"b","namespace":"n","resourceVersion":"8"}}}"#;
const GONE: &str = r#"{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}}"#;

#[tokio::test]
async fn a_silent_watch_is_counted_and_begins_anew() {
    let (address, asked) = server(vec![Script { lines: vec![B], ends: false }, Script { lines: vec![B], ends: false }]);
    let metrics = Arc::new(Metrics::default());
    let (mut notices, pulse, _watching) = watch(&address, &metrics);
    for name in ["a!", "b", "a!", "b", "a!"] {
        assert_eq!(next(&mut notices).await, name);
    }
    assert!(metrics.text().contains("leatworks_controller_watch_silences_total 2\n"), "{}", metrics.text());
    assert!(pulse.age() < PATIENCE);
    let asked = asked.lock().expect("the paths").clone();
    assert!(asked[1].contains("resourceVersion=7") && asked[1].contains("timeoutSeconds=20"), "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_stays_silent_gives_no_sign_of_life_though_lists_are_answered() {
    let (address, _) = server(Vec::new());
    let metrics = Arc::new(Metrics::default());
    let (mut notices, pulse, _watching) = watch(&address, &metrics);
    for _ in 0..4 {
        assert_eq!(next(&mut notices).await, "a!");
    }
    // Between the first list and the fourth lie three whole silences.
    assert!(pulse.age() >= SILENCE_MAX * 3, "its last sign of life was {:?} ago", pulse.age());
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_where_it_was_and_one_too_old_lists_again() {
    let scripts = vec![
        Script { lines: vec![B], ends: true },
        Script { lines: vec![GONE], ends: true },
        Script { lines: vec![B], ends: false },
    ];
    let (address, asked) = server(scripts);
    let metrics = Arc::new(Metrics::default());
    let (mut notices, _, _watching) = watch(&address, &metrics);
    for name in ["a!", "b", "a!", "b"] {
        assert_eq!(next(&mut notices).await, name);
    }
    let asked = asked.lock().expect("the paths").clone();
    let kinds: Vec<&str> = asked
        .iter()
        .map(|path| match () {
            () if !path.contains("watch=true") => "list",
            () if path.contains("resourceVersion=8") => "from 8",
            () => "from 7",
        })
        .collect();
    assert_eq!(kinds, ["list", "from 7", "from 8", "list", "from 7"]);
    assert!(metrics.text().contains("leatworks_controller_watch_silences_total 0\n"), "it was told each time");
}

#[tokio::test]
async fn what_cannot_be_read_stops_nothing() {
    let scripts = vec![Script { lines: vec![B, "no JSON", B], ends: true }, Script { lines: vec![B], ends: false }];
    let (address, _) = server(scripts);
    let (mut notices, _, _watching) = watch(&address, &Arc::default());
    assert_eq!(next(&mut notices).await, "a!");
    assert_eq!(next(&mut notices).await, "b");
    while next(&mut notices).await != "a!" {}
    assert_eq!(next(&mut notices).await, "b", "it has listed again and goes on");
}

#[tokio::test]
async fn another_generation_is_told_apart_from_another_status_and_so_is_the_end() {
    let lines = vec![
        r#"{"type":"MODIFIED","object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"b","namespace":"n","uid":"u","generation":1,"resourceVersion":"8"}}}"#,
        r#"{"type":"MODIFIED","object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"b","namespace":"n","uid":"u","generation":1,"resourceVersion":"9"}}}"#,
        r#"{"type":"MODIFIED","object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"b","namespace":"n","uid":"u","generation":2,"resourceVersion":"10"}}}"#,
        r#"{"type":"DELETED","object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"b","namespace":"n","uid":"u","generation":2,"resourceVersion":"11"}}}"#,
    ];
    let (address, _) = server(vec![Script { lines, ends: false }]);
    let (mut notices, _, _watching) = watch(&address, &Arc::default());
    assert_eq!(next(&mut notices).await, "a!");
    let mut told = Vec::new();
    for _ in 0..4 {
        let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.expect("in time").expect("the watch goes on");
        told.push((notice.asked.expect("a topology says what is asked for"), notice.is_anew));
    }
    assert_eq!(told[0], told[1], "its status is written");
    assert_ne!(told[1].0, told[2].0, "something else is asked for");
    assert_eq!(told.iter().map(|(_, is_anew)| *is_anew).collect::<Vec<_>>(), [false, false, false, true]);
}
