//! What a backlog far larger than memory takes: it is published, found again by a process of its own, consumed and checked. It prints and asserts only what is
//! right or wrong, never a time: `cargo run --release -p leatworks-broker --example backlog -- DIRECTORY MESSAGES [publish|consume|check]`.
//!
//! 50 million messages take about 13 GB of disk.

use leatworks_broker::*;
use std::{path::Path, sync::Arc, time::Instant};

const PAYLOAD_BYTES: usize = 200;

/// Messages of one publish and of one receive.
const BATCH: u64 = 5_000;

/// Publishes and steps that are under way at once.
const UNDER_WAY: usize = 8;

/// How often it tells how far it is.
const REPORTS: u64 = 10;

/// Random to look at, and to be found again.
fn root_of(number: u64) -> u128 {
    let mut half = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    half = (half ^ (half >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (u128::from(half) << 64) | u128::from(number + 1)
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = vec![number as u8; PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// A line of `/proc/self/status`, in MiB.
fn memory_mib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    found.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

fn report(what: &str, started: Instant) {
    let (now, peak) = (memory_mib("VmRSS"), memory_mib("VmHWM"));
    println!("{what}: {:.1} s, {now} MiB of memory now, {peak} MiB at most", started.elapsed().as_secs_f64());
}

fn open(dir: &Path, messages: u64) -> Embedded {
    let limits = Limits { backlog_messages_max: messages, ..Limits::default() };
    Embedded::open(EmbeddedOptions { limits, ..EmbeddedOptions::new(dir) }).expect("the journal opens")
}

async fn publish(dir: &Path, messages: u64) {
    let started = Instant::now();
    let broker = open(dir, messages);
    let spec = TopicSpec { name: "in".into(), kind: TopicKind::Ingress, topology: "t".into(), ..TopicSpec::default() };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription("in", "s", Start::Earliest).await.unwrap();
    let topic: Arc<str> = "in".into();
    let mut publishing = tokio::task::JoinSet::new();
    for start in (0..messages).step_by(BATCH as usize) {
        if publishing.len() == UNDER_WAY {
            publishing.join_next().await.unwrap().unwrap();
        }
        let (broker, topic) = (broker.clone(), topic.clone());
        let message = move |number: u64| {
            let id = MessageId(root_of(number));
            let message = Message { id, root: id, payload: payload(number).into(), ..Message::default() };
            Publish { topic: topic.clone(), message: message.into(), sequence: None }
        };
        publishing.spawn(async move { broker.publish((start..start + BATCH).map(message).collect()).await.map(|_| ()).unwrap() });
        if (start + BATCH) % (messages / REPORTS) < BATCH {
            report(&format!("{} published", start + BATCH), started);
        }
    }
    publishing.join_all().await;
    let before = Instant::now();
    broker.checkpoint().await.unwrap();
    report("all published", started);
    println!("a checkpoint: {:.0?}; {} MiB on disk", before.elapsed(), broker.disk_bytes() >> 20);
    let account = broker.account("t").await.unwrap();
    assert_eq!((account.sent, account.in_flight), (messages, messages));
}

async fn consume(dir: &Path, messages: u64) {
    let started = Instant::now();
    let broker = open(dir, messages);
    report(&format!("opened, {} records replayed", broker.recovered().records), started);
    let subscribe = Subscribe {
        topic: "in".into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "c".into(),
        permits: UNDER_WAY * BATCH as usize,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await.unwrap();
    let (topic, subscription): (Arc<str>, Arc<str>) = ("in".into(), "s".into());
    let mut settling = tokio::task::JoinSet::new();
    let mut got = 0;
    while got < messages {
        let deliveries = consumer.receive(BATCH as usize).await.unwrap();
        if got == 0 {
            report("the first delivery", started);
        }
        for delivery in &deliveries {
            let number = delivery.message.id.0 as u64 - 1;
            assert_eq!(delivery.message.id.0, root_of(number));
            assert_eq!(delivery.message.payload, payload(number), "message {number}");
        }
        let before = got;
        got += deliveries.len() as u64;
        let ack = |delivery: &Delivery| Ack {
            topic: topic.clone(),
            subscription: subscription.clone(),
            position: delivery.position,
            cumulative: false,
        };
        let step = Step { acks: deliveries.iter().map(ack).collect(), guard: true, ..Step::default() };
        let broker = broker.clone();
        settling.spawn(async move { broker.commit(step).await.unwrap() });
        while settling.try_join_next().is_some() {}
        if got / (messages / REPORTS) > before / (messages / REPORTS) {
            report(&format!("{got} consumed"), started);
        }
    }
    settling.join_all().await;
    report("all consumed, each payload as it was published", started);
    let account = broker.account("t").await.unwrap();
    assert_eq!((account.sent, account.done), (messages, messages));
    drop(consumer);
    broker.close().await.unwrap();
    println!("{} MiB on disk", broker.disk_bytes() >> 20);
}

/// Asks for what the index on disk must answer.
async fn check(dir: &Path, messages: u64) {
    let started = Instant::now();
    let broker = open(dir, messages);
    report("opened", started);
    for number in [0, messages / 2, messages - 1] {
        let pending =
            tokio::time::timeout(std::time::Duration::from_millis(300), broker.root_outcome(MessageId(root_of(number))));
        assert!(pending.await.is_err(), "root {number} is pending");
        let found = broker.peek("in", "s", Position(number), 1).await.unwrap();
        assert!(found.len() == 1 && found[0].1.payload == payload(found[0].1.id.0 as u64 - 1));
    }
    report("asked for roots and messages", started);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, messages, rest @ ..] = &arguments[..] else {
        eprintln!("usage: backlog DIRECTORY MESSAGES [publish|consume|check]");
        std::process::exit(2);
    };
    let (dir, messages) = (Path::new(dir), messages.parse::<u64>().expect("a number of messages").next_multiple_of(BATCH));
    match rest.first().map(String::as_str) {
        Some("publish") => publish(dir, messages).await,
        Some("consume") => consume(dir, messages).await,
        Some("check") => check(dir, messages).await,
        _ => {
            // Each in a process of its own, so that each one's memory is its own.
            for part in ["publish", "check", "consume"] {
                println!("{part}:");
                let mut child = std::process::Command::new(std::env::current_exe().expect("this program has a file"));
                let ended = child.arg(dir).arg(messages.to_string()).arg(part).status().expect("it starts again");
                assert!(ended.success(), "{part} failed");
            }
        }
    }
}
