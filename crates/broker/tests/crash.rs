//! A process under load is killed at random, again and again. Afterwards nothing that was acknowledged is lost, nothing has happened twice in the
//! graph, and the account balances.
//!
//! The graph is a diamond with a dead end: `in → a`, `a → b` and `a → c`, `b → d` and `c → d`; every third root gives nothing at `c`, every 17th is given
//! up at `b` after three attempts. `d` puts what it gets into the topic `done`, which is then compared with what must be there.
//!
//! `LEATWORKS_CRASH_KILLS` sets the number of kills, 20 if it is not set.

use leatworks_broker::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// Set for the process that is killed: its directory, and its durability.
const CHILD: &str = "LEATWORKS_CRASH_CHILD";

/// Attempts after which `b` gives a message up.
const ATTEMPTS: u32 = 3;

/// Messages of one publish and of one receive.
const BATCH: usize = 32;

/// Topic, subscription, and what it publishes for a message with this id and root: the topic and the number of the output.
const EDGES: [(&str, &str); 5] = [("in", "a"), ("a.out", "b"), ("a.out", "c"), ("b.out", "d"), ("c.out", "d")];

fn open(dir: &Path, durability: Durability) -> Embedded {
    // Small, so that kills hit the changes of segments, checkpoints and the re-use of segments too.
    let options = EmbeddedOptions {
        durability,
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300_000,
        cache_bytes_max: 100_000,
        ..EmbeddedOptions::new(dir)
    };
    Embedded::open(options).expect("the journal opens after every kill")
}

async fn prepare(broker: &Embedded) {
    let topics = [
        ("in", TopicKind::Ingress, &["a"][..]),
        ("a.out", TopicKind::Route, &["b", "c"]),
        ("b.out", TopicKind::Route, &["d"]),
        ("c.out", TopicKind::Route, &["d"]),
        ("dead", TopicKind::DeadLetter, &["b"]),
        ("done", TopicKind::Plain, &["check"]),
    ];
    for (name, kind, subscriptions) in topics {
        let spec = TopicSpec { name: name.into(), kind, topology: "t".into(), retention: Duration::ZERO, ..TopicSpec::default() };
        broker.create_topic(spec).await.unwrap();
        for subscription in subscriptions {
            broker.create_subscription(name, subscription, Start::Earliest).await.unwrap();
        }
    }
}

/// 200 bytes that follow from the id.
fn payload(id: u128) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    while bytes.len() < 200 {
        let next = bytes[bytes.len() - 16].wrapping_mul(31).wrapping_add(bytes.len() as u8);
        bytes.push(next);
    }
    bytes
}

fn message(id: u128, root: u128) -> Message {
    let key = Some(format!("key {}", root % 7));
    Message { id: MessageId(id), root: MessageId(root), key, payload: payload(id).into(), ..Message::default() }
}

fn to(topic: &str, message: Message) -> Publish {
    Publish { topic: topic.into(), message: message.into(), sequence: None }
}

/// What an edge publishes for a message; `None` if it fails this time.
fn outputs(edge: usize, delivery: &Delivery) -> Option<Vec<Publish>> {
    let (id, root) = (delivery.message.id.0, delivery.message.root.0);
    assert_eq!(delivery.message.payload, payload(id), "a payload is not what was published");
    let child = |topic: &str| vec![to(topic, message((id << 3) + edge as u128 + 1, root))];
    Some(match edge {
        0 => child("a.out"),
        1 if root.is_multiple_of(17) && delivery.attempt < ATTEMPTS => return None,
        1 if root.is_multiple_of(17) => {
            let properties = vec![("attempt".into(), delivery.attempt.to_string())];
            vec![to("dead", Message { properties, ..Message::clone(&delivery.message) })]
        }
        1 => child("b.out"),
        2 if root.is_multiple_of(3) => Vec::new(),
        2 => child("c.out"),
        _ => vec![to("done", Message::clone(&delivery.message))],
    })
}

/// Serves one edge: single steps where a message may fail, one step for all where none does.
async fn serve(broker: Embedded, edge: usize) {
    let (topic, subscription): (Arc<str>, Arc<str>) = (EDGES[edge].0.into(), EDGES[edge].1.into());
    let kind = if edge == 2 { SubscriptionKind::KeyShared } else { SubscriptionKind::Shared };
    let subscribe = Subscribe {
        topic: EDGES[edge].0.into(),
        subscription: EDGES[edge].1.into(),
        kind,
        consumer: "c".into(),
        permits: 200,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await.unwrap();
    let ack = |position| Ack { topic: topic.clone(), subscription: subscription.clone(), position, cumulative: false };
    loop {
        let deliveries = consumer.receive(BATCH).await.unwrap();
        if edge == 1 {
            for delivery in deliveries {
                match outputs(edge, &delivery) {
                    None => broker.nack("a.out", "b", delivery.position, Duration::from_millis(2)).await.unwrap(),
                    Some(publishes) => {
                        let step = Step { acks: vec![ack(delivery.position)], publishes, guard: true, ..Step::default() };
                        let broker = broker.clone();
                        tokio::spawn(async move { broker.commit(step).await.unwrap() });
                    }
                }
            }
        } else {
            let acks = deliveries.iter().map(|delivery| ack(delivery.position)).collect();
            let publishes = deliveries.iter().flat_map(|delivery| outputs(edge, delivery).unwrap()).collect();
            broker.commit(Step { acks, publishes, guard: true, ..Step::default() }).await.unwrap();
        }
    }
}

/// The process that is killed: says what it has found, then what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(setting) = std::env::var(CHILD) else { return };
    let (durability, dir) = setting.split_once(' ').unwrap();
    let broker = open(Path::new(dir), durability.parse().unwrap());
    prepare(&broker).await;
    let Account { sent, done, dead_lettered, in_flight } = broker.account("t").await.unwrap();
    println!("opened {sent} {done} {dead_lettered} {in_flight}");
    for edge in 0..EDGES.len() {
        tokio::spawn(serve(broker.clone(), edge));
    }
    let producer: Arc<str> = "source".into();
    let mut next = broker.last_sequence("in", "source").await.unwrap().unwrap_or(0) + 1;
    loop {
        // As far ahead as a source may get: the graph must be in the middle of it when the kill comes, not behind.
        while broker.account("t").await.unwrap().in_flight > 300 {
            tokio::task::yield_now().await;
        }
        let batch = (next..next + BATCH as u64).map(|number| Publish {
            sequence: Some((producer.clone(), number)),
            ..to("in", message(u128::from(number), u128::from(number)))
        });
        broker.publish(batch.collect()).await.unwrap();
        next += BATCH as u64;
        println!("acked {}", next - 1);
    }
}

/// Runs the child until it has acknowledged so many batches and kills it. Gives what it said: its account, and the last acknowledged root.
fn run_and_kill(dir: &Path, durability: Durability, batches: u64) -> ([u64; 4], u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{} {}", durability.name(), dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut opened = None;
    let mut acked = 0;
    let mut left = batches;
    while left > 0 {
        let line = lines.next().expect("the child ends only when it is killed").unwrap();
        if let Some(account) = line.strip_prefix("opened ") {
            opened = account.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<u64>>().try_into().ok();
        } else if let Some(number) = line.strip_prefix("acked ") {
            acked = number.parse().unwrap();
            left -= 1;
        }
    }
    // By its id, and with SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.map_while(|line| line.ok()) {
        if let Some(number) = line.strip_prefix("acked ").and_then(|number| number.parse().ok()) {
            acked = number;
        }
    }
    (opened.expect("it said what it has found"), acked)
}

/// Lets the graph finish and compares what it has done with what it must have done.
async fn check(dir: &Path, durability: Durability, acked: u64, kills: u32) {
    let broker = open(dir, durability);
    prepare(&broker).await;
    let last = broker.last_sequence("in", "source").await.unwrap().unwrap_or(0);
    assert!(last >= acked, "lost: {acked} were acknowledged, {last} are there");
    let serving: Vec<_> = (0..EDGES.len()).map(|edge| tokio::spawn(serve(broker.clone(), edge))).collect();
    let mut expected: BTreeMap<u128, u32> = BTreeMap::new();
    let mut dead = BTreeSet::new();
    for root in 1..=u128::from(last) {
        let outcome = tokio::time::timeout(Duration::from_secs(60), broker.root_outcome(MessageId(root))).await;
        let expected_outcome = if root.is_multiple_of(17) { Outcome::DeadLettered } else { Outcome::Done };
        assert_eq!(outcome.expect("a root is stuck").unwrap(), expected_outcome, "root {root}");
        let a = (root << 3) + 1;
        match root.is_multiple_of(17) {
            true => _ = dead.insert(a),
            false => _ = expected.insert((a << 3) + 2, 1),
        }
        if !root.is_multiple_of(3) {
            expected.insert((a << 3) + 3, 1);
        }
    }
    let account = broker.account("t").await.unwrap();
    let dead_lettered = dead.len() as u64;
    assert_eq!(account, Account { sent: last, done: last - dead_lettered, dead_lettered, in_flight: 0 });
    let mut found: BTreeMap<u128, u32> = BTreeMap::new();
    for (_, message) in broker.peek("done", "check", Position(0), usize::MAX).await.unwrap() {
        *found.entry(message.id.0).or_default() += 1;
    }
    let wrong: Vec<_> = found.iter().filter(|(id, count)| expected.get(id) != Some(count)).take(5).collect();
    assert!(wrong.is_empty(), "duplicate or phantom: {wrong:?}");
    assert_eq!(found.len(), expected.len(), "lost");
    let letters = broker.peek("dead", "b", Position(0), usize::MAX).await.unwrap();
    assert_eq!(letters.iter().map(|(_, message)| message.id.0).collect::<BTreeSet<_>>(), dead);
    assert_eq!(letters.len(), dead.len(), "duplicate dead letters");
    for (_, letter) in letters {
        let attempt: u32 = letter.properties[0].1.parse().unwrap();
        assert!((ATTEMPTS..=ATTEMPTS + kills).contains(&attempt), "given up at attempt {attempt}");
    }
    serving.iter().for_each(|task| task.abort());
}

async fn kill_again_and_again(durability: Durability) {
    let kills: u32 = std::env::var("LEATWORKS_CRASH_KILLS").map_or(20, |kills| kills.parse().unwrap()) / 2;
    let dir = tempfile::tempdir().unwrap();
    let mut random = u64::from(std::process::id()) | 1;
    let (mut acked, mut landed) = (0, 0);
    for kill in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (opened, now) = run_and_kill(dir.path(), durability, 1 + (random >> 33) % 40);
        let [sent, done, dead_lettered, in_flight] = opened;
        assert!(sent >= acked, "lost after {kill} kills: {acked} were acknowledged, {sent} are there");
        assert_eq!(sent, done + dead_lettered + in_flight, "the account does not balance after {kill} kills");
        landed += u32::from(in_flight > 0);
        acked = now;
    }
    // A kill of an idle process would prove nothing; the first opening finds nothing.
    assert!(landed + 1 >= kills / 2, "only {landed} of {kills} kills hit something in flight");
    check(dir.path(), durability, acked, kills).await;
    println!(
        "{kills} kills at `{}`, {landed} of them with something in flight, {acked} roots: nothing lost or twice",
        durability.name()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_level_power_lose_nothing() {
    kill_again_and_again(Durability::Power).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_level_process_lose_nothing() {
    kill_again_and_again(Durability::Process).await;
}
