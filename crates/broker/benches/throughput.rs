//! How many messages a second go through: published, consumed and acknowledged in groups, in memory and on the disk at level `power`, beside what the
//! disk itself does. It prints and asserts nothing: `cargo bench -p leatworks-broker --bench throughput [directory]`.

use leatworks_broker::*;
use std::{
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 200;

/// Groups that are under way at once, of publishers and of acknowledgements: enough that one gathers while another is synced.
const GROUPS_UNDER_WAY: usize = 8;

/// Clock ticks a second in `/proc/self/stat`, on every Linux.
const TICKS_PER_S: f64 = 100.0;

fn publish(topic: &Arc<str>, id: u128) -> Publish {
    let message =
        Message { id: MessageId(id), root: MessageId(id), payload: vec![id as u8; PAYLOAD_BYTES].into(), ..Message::default() };
    Publish { topic: topic.clone(), message: message.into(), sequence: None }
}

/// Sends so many messages in groups of this size and settles them in groups of about this size.
async fn run(broker: Arc<dyn Broker>, messages: usize, group: usize) {
    let topic: Arc<str> = "bench".into();
    let spec = TopicSpec {
        name: "bench".into(),
        kind: TopicKind::Ingress,
        topology: "t".into(),
        retention: Duration::ZERO,
        ..TopicSpec::default()
    };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription("bench", "s", Start::Earliest).await.unwrap();
    let subscribe = Subscribe {
        topic: "bench".into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "bench".into(),
        permits: group * GROUPS_UNDER_WAY,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await.unwrap();
    let publishing = tokio::spawn({
        let (broker, topic) = (broker.clone(), topic.clone());
        async move {
            let under_way = Arc::new(Semaphore::new(GROUPS_UNDER_WAY));
            for start in (0..messages).step_by(group) {
                let permit = under_way.clone().acquire_owned().await.unwrap();
                let (broker, topic) = (broker.clone(), topic.clone());
                tokio::spawn(async move {
                    broker.publish((start..start + group).map(|id| publish(&topic, id as u128 + 1)).collect()).await.unwrap();
                    drop(permit);
                });
            }
        }
    });
    let subscription: Arc<str> = "s".into();
    let (mut left, mut settling) = (messages, tokio::task::JoinSet::new());
    while left > 0 {
        let deliveries = consumer.receive(group).await.unwrap();
        left -= deliveries.len();
        let ack = |delivery: &Delivery| Ack {
            topic: topic.clone(),
            subscription: subscription.clone(),
            position: delivery.position,
            cumulative: false,
        };
        let step = Step { acks: deliveries.iter().map(ack).collect(), guard: true, ..Step::default() };
        let broker = broker.clone();
        settling.spawn(async move { broker.commit(step).await.unwrap() });
    }
    publishing.await.unwrap();
    settling.join_all().await;
    let account = broker.account("t").await.unwrap();
    assert_eq!(account.done, account.sent, "the account does not balance");
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_S
}

async fn measure(name: &str, broker: Arc<dyn Broker>, messages: usize, group: usize) {
    let (started, cpu) = (Instant::now(), cpu_s());
    run(broker.clone(), messages, group).await;
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_s() - cpu);
    broker.close().await.unwrap();
    let rate = messages as f64 / elapsed;
    println!("{name:>16}  groups of {group:>6}: {rate:>9.0} messages/s, {:.2} us CPU each", cpu * 1e6 / messages as f64);
}

/// Syncs a second of the disk with writes of this size into space that was written before.
fn sync_rate(dir: &Path, bytes: usize) -> f64 {
    let path = dir.join("sync-rate");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![1; bytes];
    for _ in 0..32 {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&block, (count % 32) * bytes as u64).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    std::fs::remove_file(&path).unwrap();
    count as f64 / started.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --all-targets` runs this too, and has no minute to spare.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let base =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let (small, large) = (sync_rate(dir.path(), 4 << 10), sync_rate(dir.path(), 1 << 20));
    println!("the disk: {small:.0} syncs/s of 4 KiB, {large:.0} syncs/s of 1 MiB ({large:.0} MiB/s)");
    println!("publish + consume + acknowledge, {PAYLOAD_BYTES}-byte payloads, {GROUPS_UNDER_WAY} groups under way");
    for group in [100, 1_000, 10_000] {
        measure("memory", Arc::new(MemoryBroker::new(Limits::default())), 1_000_000, group).await;
        let broker = Embedded::open(EmbeddedOptions::new(dir.path().join(group.to_string()))).unwrap();
        let messages = if group == 100 { 200_000 } else { 1_000_000 };
        measure("embedded, power", Arc::new(broker), messages, group).await;
    }
    recovery(dir.path()).await;
}

/// How long it takes until the first delivery with a million messages waiting, after an end without closing.
async fn recovery(dir: &Path) {
    let options = || EmbeddedOptions::new(dir.join("recovery"));
    let broker = Embedded::open(options()).unwrap();
    let topic: Arc<str> = "bench".into();
    let spec = TopicSpec {
        name: "bench".into(),
        kind: TopicKind::Ingress,
        topology: "t".into(),
        retention: Duration::ZERO,
        ..TopicSpec::default()
    };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription("bench", "s", Start::Earliest).await.unwrap();
    for start in (0..1_000_000).step_by(10_000) {
        broker.publish((start..start + 10_000).map(|id| publish(&topic, id + 1)).collect()).await.unwrap();
    }
    drop(broker);
    let started = Instant::now();
    let broker = Embedded::open(options()).unwrap();
    let opened = started.elapsed();
    let kind = SubscriptionKind::Shared;
    let subscribe = Subscribe {
        topic: "bench".into(),
        subscription: "s".into(),
        kind,
        consumer: "bench".into(),
        permits: 100,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap().receive(1).await.unwrap();
    println!("recovery with 1,000,000 messages waiting: open after {opened:.0?}, first delivery after {:.0?}", started.elapsed());
    let started = Instant::now();
    Embedded::open(EmbeddedOptions::new(dir.join("empty"))).unwrap();
    println!("a new journal: {:.0?}", started.elapsed());
    let started = Instant::now();
    Embedded::open(EmbeddedOptions::new(dir.join("empty"))).unwrap();
    println!("an empty journal: {:.0?}", started.elapsed());
}
