//! The admin API by raw requests: what is answered, to whom, and what does no harm.

use crate::support::{PATIENCE, Rig};
use leatworks_broker::{Message, Publish, Start, TopicKind, TopicSpec};
use leatworks_pulsar::ServerOptions;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const TOPICS: &str = "/admin/v2/persistent/public/default";

/// What comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A server that closes before it has read everything resets the connection.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8(bytes).unwrap()
}

/// The status and the body of the answer to a request with these headers.
pub(crate) async fn ask_with(admin: SocketAddr, what: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let head = format!("{what} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn ask(rig: &Rig, what: &str, body: &str) -> (u16, Value) {
    ask_with(rig.admin, what, "Host: localhost\r\n", body).await
}

async fn rig() -> Rig {
    Rig::start(ServerOptions::default()).await
}

#[tokio::test]
async fn topics_and_subscriptions_are_made_changed_and_removed() {
    let rig = rig().await;
    let earliest = r#"{"ledgerId":-1,"entryId":-1,"partitionIndex":-1}"#;
    let route = r#"{"leat-kind":"route","leat-topology":"shop","leat-retention-ms":"90500","owner":"me"}"#;
    let none = Value::Null;
    for (what, body, status, expected) in [
        ("PUT /t", route, 204, none.clone()),
        ("PUT /t", "", 409, none.clone()),
        ("GET ", "", 200, json!(["persistent://public/default/t"])),
        (
            "GET /t/properties",
            "",
            200,
            json!({"leat-kind":"route","leat-topology":"shop","leat-retention-ms":"90500","owner":"me"}),
        ),
        ("GET /t/retention", "", 200, json!({"retentionTimeInMinutes":2,"retentionSizeInMB":-1})),
        ("POST /t/retention", r#"{"retentionTimeInMinutes":2,"retentionSizeInMB":5}"#, 204, none.clone()),
        ("PUT /t/properties", r#"{"owner":"you"}"#, 204, none.clone()),
        ("PUT /t/properties", r#"{"owner":7}"#, 400, none.clone()),
        ("PUT /u", r#"{"leat-kind":"odd"}"#, 400, none.clone()),
        ("GET /gone/properties", "", 404, none.clone()),
        ("PUT /t/subscription/s", earliest, 204, none.clone()),
        ("PUT /t/subscription/s", earliest, 409, none.clone()),
        ("PUT /gone/subscription/s", earliest, 404, none.clone()),
        ("PUT /t/subscription/n", r#"{"ledgerId":"x"}"#, 400, none.clone()),
        ("GET /t/subscriptions", "", 200, json!(["s"])),
        ("POST /t/subscription/s/skip_all", "", 204, none.clone()),
        ("POST /t/subscription/s/resetcursor", earliest, 204, none.clone()),
        ("POST /t/subscription/s/resetcursor/5", "", 204, none.clone()),
        ("POST /t/subscription/s/resetcursor/soon", "", 400, none.clone()),
        ("POST /t/subscription/gone/skip_all", "", 404, none.clone()),
        ("GET /t/partitions", "", 200, json!({"partitions":0})),
        ("DELETE /t/subscription/s", "", 204, none.clone()),
        ("DELETE /t/subscription/s", "", 404, none.clone()),
    ] {
        let (method, path) = what.split_once(' ').unwrap();
        let (found, told) = ask(&rig, &format!("{method} {TOPICS}{path}"), body).await;
        assert_eq!(found, status, "{what} {body}: {told}");
        match status {
            200 | 204 => assert_eq!(told, expected, "{what}"),
            _ => assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what}: {told}"),
        }
    }
    let spec = rig.broker.stats().await.unwrap().remove(0).spec;
    let expected = TopicSpec {
        name: "t".into(),
        kind: TopicKind::Route,
        topology: "shop".into(),
        // What is kept to the millisecond was told in whole minutes, and is not made longer.
        retention: Duration::from_millis(90_500),
        retention_bytes: 5 << 20,
        durability: None,
    };
    assert_eq!(spec, expected);
    assert_eq!(ask(&rig, &format!("GET {TOPICS}/t/properties"), "").await.1["owner"], "you");
    assert_eq!(ask(&rig, &format!("DELETE {TOPICS}/t"), "").await.0, 204);
    assert!(rig.broker.stats().await.unwrap().is_empty());
    ask(&rig, &format!("PUT {TOPICS}/t"), "").await;
    assert_eq!(ask(&rig, &format!("GET {TOPICS}/t/properties"), "").await, (200, json!({})), "nothing is left of the other");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_become_those_of_a_graph_while_others_get_their_subscriptions() {
    let rig = rig().await;
    let topics = 64;
    for number in 0..topics {
        assert_eq!(ask(&rig, &format!("PUT {TOPICS}/t{number}"), "").await.0, 204);
    }
    let route = r#"{"leat-kind":"route","leat-topology":"shop"}"#;
    let asked = (0..topics).flat_map(|number| {
        let (rig, next) = (&rig, (number + 1) % topics);
        let changed = async move { ask(rig, &format!("PUT {TOPICS}/t{number}/properties"), route).await };
        let subscribed = async move { ask(rig, &format!("PUT {TOPICS}/t{next}/subscription/s"), "").await };
        [futures_util::future::Either::Left(changed), futures_util::future::Either::Right(subscribed)]
    });
    for (status, told) in futures_util::future::join_all(asked).await {
        assert_eq!(status, 204, "{told}");
    }
    for topic in rig.broker.stats().await.unwrap() {
        assert_eq!((topic.spec.kind, topic.subscriptions.len()), (TopicKind::Route, 1), "{}", topic.spec.name);
    }
    rig.stop().await;
}

#[tokio::test]
async fn how_a_topic_stands_is_told_and_a_used_one_is_not_removed() {
    let rig = rig().await;
    ask(&rig, &format!("PUT {TOPICS}/t"), "").await;
    rig.broker.create_subscription("t", "s", Start::Earliest).await.unwrap();
    let publish = Publish { topic: "t".into(), message: Message::default().into(), sequence: None };
    rig.broker.publish(vec![publish; 6]).await.unwrap();
    for position in [0, 2, 3, 5] {
        let position = leatworks_broker::Position(position);
        let ack = leatworks_broker::Ack { topic: "t".into(), subscription: "s".into(), position, cumulative: false };
        rig.broker.commit(leatworks_broker::Step { acks: vec![ack], ..Default::default() }).await.unwrap();
    }
    let (_, internal) = ask(&rig, &format!("GET {TOPICS}/t/internalStats"), "").await;
    let ledger = internal["lastConfirmedEntry"].as_str().unwrap().split(':').next().unwrap().to_owned();
    assert_eq!(internal["lastConfirmedEntry"], format!("{ledger}:5"));
    assert_eq!(internal["cursors"]["s"]["markDeletePosition"], format!("{ledger}:0"));
    let expected = format!("[({ledger}:1..{ledger}:3],({ledger}:4..{ledger}:5]]");
    assert_eq!(internal["cursors"]["s"]["individuallyDeletedMessages"], expected);
    let (_, stats) = ask(&rig, &format!("GET {TOPICS}/t/stats?getPreciseBacklog=true"), "").await;
    assert_eq!((&stats["msgInCounter"], &stats["subscriptions"]["s"]["msgBacklog"]), (&json!(6), &json!(2)));
    let mut client = rig.client().await;
    client.subscribe(1, "persistent://public/default/t", "s", leatworks_pulsar::wire::proto::SubType::Shared).await;
    for what in ["DELETE /t", "DELETE /t/subscription/s"] {
        let (method, path) = what.split_once(' ').unwrap();
        assert_eq!(ask(&rig, &format!("{method} {TOPICS}{path}"), "").await.0, 412, "{what}");
    }
    assert_eq!(ask(&rig, &format!("DELETE {TOPICS}/t/subscription/s?force=true"), "").await.0, 204);
    assert_eq!(ask(&rig, &format!("DELETE {TOPICS}/t"), "").await.0, 204);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_said() {
    let rig = rig().await;
    ask(&rig, &format!("PUT {TOPICS}/t"), "").await;
    for (what, status) in [
        ("GET /", 404),
        ("GET /metrics", 404),
        ("GET /admin/v3/functions", 404),
        ("GET /admin/v2/schemas/public/default/t/schema", 501),
        ("PUT /admin/v2/persistent/public/default/t/unload", 501),
        ("POST /admin/v2/persistent/public/default/t", 405),
        ("PATCH /admin/v2/persistent/public/default/t/stats", 405),
        ("GET /admin/v2/persistent/public/other", 404),
        ("PUT /admin/v2/persistent/public/default/a%20b", 400),
        ("PUT /admin/v2/persistent/public/default/%ff", 400),
        ("GET /admin/v2/tenants", 200),
        ("GET /admin/v2/namespaces/public", 200),
        ("GET /admin/v2/namespaces/elsewhere", 404),
        ("GET /admin/v2/brokers/health", 200),
        ("GET /lookup/v2/topic/persistent/public/default/t", 200),
    ] {
        let (found, told) = ask(&rig, what, "").await;
        assert_eq!(found, status, "{what}: {told}");
        assert!(found == 200 || told["reason"].is_string(), "{what}: {told}");
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(ask(&rig, &format!("PUT {TOPICS}/u"), &large).await.0, 413);
    assert_eq!(ask(&rig, &format!("PUT {TOPICS}/u"), "{").await.0, 400);
    let long = format!("Host: localhost\r\nX: {}\r\n", "x".repeat(40_000));
    assert_eq!(ask_with(rig.admin, "GET /", &long, "").await.0, 431);
    rig.stop().await;
}

#[tokio::test]
async fn pages_in_browsers_are_not_served() {
    let rig = rig().await;
    for (headers, status) in [
        ("Host: 127.0.0.1:1\r\n", 200),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", 403),
        ("Host: rebound.example:8080\r\n", 403),
    ] {
        assert_eq!(ask_with(rig.admin, &format!("GET {TOPICS}"), headers, "").await.0, status, "{headers}");
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_cut_off() {
    let rig = rig().await;
    for said in ["", "GET /admin HTTP/1.1\r\nHost: lo"] {
        let mut stream = TcpStream::connect(rig.admin).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        // Time passes by itself as long as everybody waits.
        rest(&mut stream).await;
    }
    rig.stop().await;
}
