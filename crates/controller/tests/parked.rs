//! A resource that cannot be read: what runs is left alone, and the status says so. The API server is one of the test's own, which writes down what it is asked.

use kube::{Client, Config};
use leatworks_broker::{BoxFuture, Broker};
use leatworks_controller::{
    brokers::{Brokers, QueueError},
    cluster::Cluster,
    crd,
    lease::Fence,
    plan::Settings,
    reconcile::Reconciler,
    watch::Key,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// Method and path of each request, and what came with it.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a server that has this resource. Gives its address, and what it was asked.
fn server(resource: Value) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Requests::default();
    let heard = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (heard, resource) = (heard.clone(), resource.clone());
            std::thread::spawn(move || while answer(&stream, &resource, &heard).is_some() {});
        }
    });
    (address, requests)
}

fn answer(mut stream: &TcpStream, resource: &Value, heard: &Requests) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        match line.strip_prefix("content-length: ") {
            Some(text) => length = text.parse().ok()?,
            None if line.is_empty() => break,
            None if first.is_empty() => first = line,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let words: Vec<&str> = first.split([' ', '?']).collect();
    heard.lock().ok()?.push((words[..2].join(" "), serde_json::from_slice(&body).unwrap_or_default()));
    let answer = if words[0] == "post" { String::from_utf8(body).ok()? } else { resource.to_string() };
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).ok()
}

/// No broker: nothing of a resource that cannot be read leads to one.
struct NoBrokers;

impl Brokers for NoBrokers {
    fn open<'a>(&'a self, _: &'a Cluster, _: &'a str, _: &'a crd::Broker) -> BoxFuture<'a, Result<Arc<dyn Broker>, QueueError>> {
        panic!("a broker is opened for a resource that cannot be read")
    }

    fn forget<'a>(&'a self, _: &'a str, _: &'a crd::Broker) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Reconciles a resource with this status that cannot be read. Gives all requests, and the conditions that are written.
async fn parked(status: Value) -> (Vec<String>, Value) {
    let (address, requests) = server(json!({
        "apiVersion": "leatworks.dev/v1alpha1",
        "kind": "Topology",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u", "generation": 5, "resourceVersion": "9" },
        "spec": { "graph": "flowchart LR\na --> b\n", "image": ["no", "text"], "broker": { "url": "pulsar://pulsar:6650" } },
        "status": status,
    }));
    let client = Client::try_from(Config::new(address.parse().expect("an address"))).expect("a client");
    let cluster = Cluster::new(client, Fence::open(), Arc::default());
    let reconciler = Reconciler::new(cluster, Arc::new(NoBrokers), Settings::default(), Arc::default(), "test".to_owned());
    reconciler.reconcile(&Key { namespace: "shop".to_owned(), name: "orders".to_owned() }).await.expect("it is parked");
    let requests = requests.lock().expect("the requests").clone();
    let written = requests.iter().find(|(what, _)| what.starts_with("patch")).expect("a status").1["status"].clone();
    (requests.into_iter().map(|(what, _)| what).collect(), written)
}

/// A condition in short.
fn condition(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().expect("conditions");
    let found = all.iter().find(|condition| condition["type"] == kind).expect("the condition");
    format!("{} {}: {}", found["status"], found["reason"], found["message"]).replace('"', "")
}

#[tokio::test]
async fn what_was_deployed_before_goes_on_and_the_conditions_say_so() {
    let topology = "/apis/leatworks.dev/v1alpha1/namespaces/shop/topologies/orders";
    let (requests, status) = parked(json!({ "revision": 3, "state": "Ready", "observedGeneration": 4 })).await;
    let (first, events) = requests.split_at(2);
    assert_eq!(first, [format!("get {topology}"), format!("patch {topology}/status")], "nothing but the status is written");
    assert!(events.iter().all(|what| what == "post /apis/events.k8s.io/v1/namespaces/shop/events"), "{events:?}");
    assert_eq!((&status["revision"], &status["state"]), (&json!(3), &json!("Refused")));
    let accepted = condition(&status, "Accepted");
    assert!(accepted.starts_with("False Refused: the resource cannot be read: invalid type: sequence"), "{accepted}");
    assert!(accepted.ends_with("; what was deployed before goes on"), "{accepted}");
    assert_eq!(condition(&status, "SubscriptionsReady"), "Unknown NotLookedAt: what was deployed before is not looked at");
    assert!(condition(&status, "Ready").starts_with("False Refused"), "{status}");
}

#[tokio::test]
async fn where_nothing_was_deployed_nothing_is_said_to_go_on() {
    let (requests, status) = parked(json!({})).await;
    assert!(requests.iter().all(|what| !what.starts_with("delete")), "{requests:?}");
    assert!(!condition(&status, "Accepted").contains("goes on"), "{status}");
    assert_eq!(condition(&status, "SubscriptionsReady"), "Unknown NothingDeployed: nothing is deployed");
}
