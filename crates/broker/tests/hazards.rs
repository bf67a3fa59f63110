//! Single situations of the embedded broker that a random walk meets too seldom.

use leatworks_broker::*;
use leatworks_journal::{
    File,
    simulation::{Faults, SimulatedFileSystem},
};
use std::{
    io,
    ops::Range,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const SEGMENT_BYTES: u64 = 64 << 10;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

fn open(fs: &SimulatedFileSystem) -> Embedded {
    open_on(Arc::new(fs.clone()))
}

fn open_on(fs: Arc<dyn FileSystem>) -> Embedded {
    let options = EmbeddedOptions {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_bytes: 2 * SEGMENT_BYTES,
        cache_bytes_max: 0,
        ..EmbeddedOptions::new("simulated")
    };
    Embedded::open_on(fs, options).unwrap()
}

async fn topic(broker: &Embedded, name: &str) {
    let spec = TopicSpec {
        name: name.into(),
        kind: TopicKind::Plain,
        topology: String::new(),
        retention: Duration::ZERO,
        ..TopicSpec::default()
    };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
}

fn batch(topic: &str, ids: Range<u128>, bytes: usize) -> Vec<Publish> {
    let created_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let message =
        |id: u128| Message { id: MessageId(id), created_ms, payload: vec![id as u8; bytes].into(), ..Message::default() };
    ids.map(|id| Publish { topic: topic.into(), message: message(id).into(), sequence: None }).collect()
}

async fn consumer(broker: &Embedded, topic: &str) -> Box<dyn Consumer> {
    let subscribe = Subscribe {
        topic: topic.into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "test".into(),
        permits: 10_000,
        hand_off: HandOff::Durable,
    };
    broker.subscribe(subscribe).await.unwrap()
}

/// Publishes this many messages of a kibibyte and settles them, so that the journal goes on.
async fn pass(broker: &Embedded, consumer: &mut dyn Consumer, topic: &str, batches: u128) {
    for _ in 0..batches {
        broker.publish(batch(topic, 0..10, 1_024)).await.unwrap();
        let got = consumer.receive(100).await.unwrap();
        broker.commit(settle(topic, &got)).await.unwrap();
    }
}

fn settle(topic: &str, deliveries: &[Delivery]) -> Step {
    let ack = |delivery: &Delivery| Ack {
        topic: topic.into(),
        subscription: "s".into(),
        position: delivery.position,
        cumulative: false,
    };
    Step { acks: deliveries.iter().map(ack).collect(), ..Step::default() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have come long ago")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_moved_while_it_was_about_to_be_handed_out_is_handed_out() {
    let gate = Arc::new(RwLock::new(()));
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = open_on(Arc::new(Gated { fs: fs.clone(), gate: gate.clone(), reads: true }));
    topic(&broker, "old").await;
    topic(&broker, "busy").await;
    broker.publish(batch("old", 1..4, 1_000)).await.unwrap();
    let mut old = consumer(&broker, "old").await;
    // The call is dropped when the messages are taken and not handed out: the next call is to do that. The disk cannot be read meanwhile.
    let closed = Closed::new(gate);
    let mut call = old.receive(3);
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    drop(call);
    closed.open();
    assert!(polled, "the messages are only on the disk");
    assert_eq!(broker.stats().await.unwrap()[1].subscriptions["s"].in_flight, 3);
    let first = || fs.list_names("segment-")[0].clone();
    let (before, mut busy) = (first(), consumer(&broker, "busy").await);
    soon(async {
        while first() == before {
            pass(&broker, &mut *busy, "busy", 10).await;
        }
    })
    .await;
    let got = soon(old.receive(3)).await.unwrap();
    assert_eq!(got.iter().map(|delivery| delivery.message.id.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_old_message_keeps_no_segment_but_its_own() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = open(&fs);
    topic(&broker, "old").await;
    topic(&broker, "busy").await;
    let mut busy = consumer(&broker, "busy").await;
    broker.publish(batch("old", 1..2, 1_000)).await.unwrap();
    let name = fs.list_names("segment-")[0].clone();
    let bytes = fs.bytes_of(&name).unwrap();
    let at = bytes.windows(900).position(|part| part.iter().all(|byte| *byte == 1)).unwrap();
    fs.flip_bit(&name, (at + 10) * 8);
    // One message in each of many segments.
    for id in 2..20 {
        broker.publish(batch("old", id..id + 1, 1_000)).await.unwrap();
        pass(&broker, &mut *busy, "busy", 8).await;
    }
    let filled = fs.list_names("segment-").pop().unwrap();
    soon(async {
        while fs.list_names("segment-")[1] <= filled {
            pass(&broker, &mut *busy, "busy", 4).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_message_is_passed_over_and_its_root_ends_as_given_up() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = open(&fs);
    let spec = TopicSpec { name: "a".into(), kind: TopicKind::Ingress, topology: "t".into(), ..TopicSpec::default() };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription("a", "s", Start::Earliest).await.unwrap();
    let mut damaged = batch("a", 1..2, 1_000);
    damaged[0].message = Message { root: MessageId(1), ..Message::clone(&damaged[0].message) }.into();
    broker.publish(damaged).await.unwrap();
    let name = fs.list_names("segment-")[0].clone();
    let bytes = fs.bytes_of(&name).unwrap();
    let at = bytes.windows(900).position(|part| part.iter().all(|byte| *byte == 1)).unwrap();
    fs.flip_bit(&name, (at + 10) * 8);
    let mut consumer = consumer(&broker, "a").await;
    {
        let mut receive = consumer.receive(1);
        let passed_over = async {
            while broker.stats().await.unwrap()[0].damaged == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            got = &mut receive => panic!("{got:?}"),
            () = soon(passed_over) => {}
        }
    }
    let outcome = soon(broker.root_outcome(MessageId(1))).await.unwrap();
    let account = broker.account("t").await.unwrap();
    assert_eq!((outcome, account.dead_lettered, account.in_flight), (Outcome::DeadLettered, 1, 0));
    broker.publish(batch("a", 2..3, 10)).await.unwrap();
    assert_eq!(soon(consumer.receive(1)).await.unwrap().len(), 1);
}

/// A disk whose syncs, and reads if they are to, take as long as somebody holds the gate.
struct Gated {
    fs: SimulatedFileSystem,
    gate: Arc<RwLock<()>>,
    reads: bool,
}

/// The gate, held by a thread so that a test may wait meanwhile.
struct Closed {
    open: std::sync::mpsc::Sender<()>,
    holder: std::thread::JoinHandle<()>,
}

impl Closed {
    fn new(gate: Arc<RwLock<()>>) -> Self {
        let (hold, held) = std::sync::mpsc::channel();
        let (open, opened) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let _closed = gate.write().unwrap();
            hold.send(()).unwrap();
            let _ = opened.recv();
        });
        held.recv().unwrap();
        Self { open, holder }
    }

    fn open(self) {
        self.open.send(()).unwrap();
        self.holder.join().unwrap();
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<RwLock<()>>,
    reads: bool,
}

impl Gated {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { file, gate: self.gate.clone(), reads: self.reads })
    }
}

impl File for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _open = self.reads.then(|| self.gate.read().unwrap());
        self.file.read(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let _open = self.gate.read().unwrap();
        self.file.sync()
    }
}

impl FileSystem for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.fs.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.fs.create(name, bytes)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.fs.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fs.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.fs.sync_directory()
    }
}

/// Whether this is still pending when it was looked at once.
async fn pends<T>(what: impl Future<Output = T>) -> bool {
    let mut what = std::pin::pin!(what);
    std::future::poll_fn(|cx| std::task::Poll::Ready(what.as_mut().poll(cx).is_pending())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_is_not_told_a_sequence_that_may_yet_be_lost() {
    let gate = Arc::new(RwLock::new(()));
    let fs = Gated { fs: SimulatedFileSystem::new(1, Faults::default()), gate: gate.clone(), reads: true };
    let broker = Embedded::open_on(Arc::new(fs), EmbeddedOptions::new("simulated")).unwrap();
    topic(&broker, "a").await;
    let mut published = batch("a", 1..2, 10);
    published[0].sequence = Some(("p".into(), 5));
    let step = Step { publishes: published, state: vec![("k".into(), Some("v".into()))], ..Step::default() };
    let closed = Closed::new(gate);
    let mut commit = broker.commit(step);
    assert!(pends(&mut commit).await);
    assert!(pends(broker.last_sequence("a", "p")).await);
    assert!(pends(broker.state("k")).await);
    closed.open();
    soon(commit).await.unwrap();
    assert_eq!(soon(broker.last_sequence("a", "p")).await.unwrap(), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_keeps_nothing_any_more_lets_go_of_what_it_kept() {
    let broker = open(&SimulatedFileSystem::new(1, Faults::default()));
    let spec = |retention| TopicSpec {
        name: "a".into(),
        kind: TopicKind::Plain,
        topology: String::new(),
        retention,
        ..TopicSpec::default()
    };
    broker.create_topic(spec(Duration::from_secs(3_600))).await.unwrap();
    broker.create_subscription("a", "s", Start::Earliest).await.unwrap();
    let mut consumer = consumer(&broker, "a").await;
    pass(&broker, &mut *consumer, "a", 200).await;
    broker.create_topic(spec(Duration::ZERO)).await.unwrap();
    pass(&broker, &mut *consumer, "a", 1).await;
    broker.create_subscription("a", "late", Start::Earliest).await.unwrap();
    let backlog = broker.stats().await.unwrap()[0].subscriptions["late"].backlog;
    // Messages go in blocks, and the last is not complete.
    assert!(backlog < 512, "{backlog}");
}

/// The attempts that a message has, and the message that ends whoever gets it, which is neither the first nor the last of those in hand.
const ATTEMPTS: u32 = 3;
const DEADLY: u128 = 3;

#[tokio::test]
async fn a_message_that_ends_its_process_uses_up_no_attempts_of_others() {
    let fs = SimulatedFileSystem::new(9, Faults::default());
    let broker = open(&fs);
    topic(&broker, "a").await;
    broker.publish(batch("a", 0..8, 100)).await.unwrap();
    drop(broker);
    let (mut tried, mut given_up) = (Vec::new(), Vec::new());
    while given_up.is_empty() {
        let broker = open(&fs);
        let mut consumer = consumer(&broker, "a").await;
        loop {
            let got = soon(consumer.receive(100)).await.unwrap();
            tried.extend(got.iter().filter(|delivery| delivery.message.id.0 == DEADLY).map(|delivery| delivery.attempt));
            given_up.extend(got.iter().filter(|delivery| delivery.attempt > ATTEMPTS).map(|delivery| delivery.message.id.0));
            if got.iter().any(|delivery| delivery.message.id.0 == DEADLY && delivery.attempt <= ATTEMPTS) {
                break fs.kill();
            }
            broker.commit(settle("a", &got)).await.unwrap();
            if broker.stats().await.unwrap()[0].subscriptions["s"] == (SubscriptionStats { consumers: 1, ..Default::default() }) {
                break;
            }
        }
    }
    assert_eq!((tried, given_up), (vec![1, 2, 3, 4], vec![DEADLY]));
}

/// Does what the threads of a broker would do until this is done.
async fn driven<T>(driven: &Driven, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = std::future::ready(()) => {}
        }
        for work in [Work::Close, Work::Append, Work::Write, Work::Sync] {
            driven.drive(work).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_makes_no_wait_longer() {
    const NOW_MS: u64 = 1_800_000_000_000;
    const HOUR_MS: u64 = 3_600_000;
    const DELAY: Duration = Duration::from_secs(2);
    for (case, then_ms, waits) in [("back", NOW_MS - HOUR_MS, true), ("not", NOW_MS, true), ("on", NOW_MS + HOUR_MS, false)] {
        let fs = SimulatedFileSystem::new(10, Faults::default());
        let opened = |now_ms| Embedded::open_driven(Arc::new(fs.clone()), EmbeddedOptions::new("simulated"), now_ms).unwrap();
        {
            let (broker, work) = opened(NOW_MS);
            driven(&work, topic(&broker, "a")).await;
            driven(&work, broker.publish(batch("a", 0..1, 10))).await.unwrap();
            let mut consumer = driven(&work, consumer(&broker, "a")).await;
            let got = driven(&work, consumer.receive(1)).await.unwrap();
            driven(&work, broker.nack("a", "s", got[0].position, DELAY)).await.unwrap();
            driven(&work, broker.publish(batch("a", 1..2, 10))).await.unwrap();
            fs.kill();
        }
        let (broker, work) = opened(then_ms);
        let mut consumer = driven(&work, consumer(&broker, "a")).await;
        let began = tokio::time::Instant::now();
        let got = driven(&work, consumer.receive(10)).await.unwrap();
        assert_eq!(got.iter().any(|delivery| delivery.message.id.0 == 0), !waits, "{case}");
        if waits {
            let again = tokio::time::timeout(DELAY * 2, consumer.receive(1)).await.unwrap_or_else(|_| panic!("{case}: waits on"));
            assert_eq!((again.unwrap()[0].attempt, began.elapsed() >= DELAY), (2, true), "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_the_last_group_of_a_broker_at_rest_is_not_taken_for_a_torn_end() {
    let fs = SimulatedFileSystem::new(1, Faults::default());
    let broker = open(&fs);
    topic(&broker, "a").await;
    let copy = || {
        let copy = fs.fork();
        copy.kill();
        copy
    };
    // The second time after it has rested once, when what follows has taken the place of what said so.
    for last in [3, 6] {
        broker.publish(batch("a", last - 2..last + 1, 1_000)).await.unwrap();
        let damaged = || {
            let copy = copy();
            let name = copy.list_names("segment-").pop().unwrap();
            let bytes = copy.bytes_of(&name).unwrap();
            let at = bytes.windows(900).position(|part| part.iter().all(|byte| u128::from(*byte) == last)).unwrap();
            copy.flip_bit(&name, (at + 10) * 8);
            open(&copy)
        };
        // Until it rests nothing says that the group was durable.
        let told = async {
            loop {
                let again = damaged();
                match (again.recovered().lost, &again.recovered().torn) {
                    (1, None) => return again,
                    (0, Some(_)) => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        };
        let again = soon(told).await;
        assert_eq!(again.stats().await.unwrap()[0].subscriptions["s"].backlog, last as u64, "the group is there");
        let mut consumer = consumer(&again, "a").await;
        let got = soon(consumer.receive(10)).await.unwrap();
        assert!(got.iter().map(|delivery| delivery.message.id.0).eq(1..last), "all but for what was hit: {got:?}");
    }
    // Nobody has counted what said so.
    broker.publish(batch("a", 7..8, 1_000)).await.unwrap();
    let again = open(&copy());
    assert_eq!((again.recovered().lost, again.recovered().torn.clone()), (0, None));
    assert_eq!(again.stats().await.unwrap()[0].subscriptions["s"].backlog, 7);
}

/// Looks often enough for what is not held up to have come.
const LOOKS: u32 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_that_may_end_the_process_waits_until_the_end_of_the_one_before_is_safe() {
    let fs = SimulatedFileSystem::new(9, Faults::default());
    let broker = open(&fs);
    topic(&broker, "a").await;
    broker.publish(batch("a", 0..2, 100)).await.unwrap();
    drop(broker);
    for _ in 1..ATTEMPTS {
        let broker = open(&fs);
        // It has them in hand until the end.
        let mut consumer = consumer(&broker, "a").await;
        assert_eq!(soon(consumer.receive(100)).await.unwrap().len(), 2);
        fs.kill();
    }
    let gate = Arc::new(RwLock::new(()));
    let broker = open_on(Arc::new(Gated { fs: fs.clone(), gate: gate.clone(), reads: false }));
    let mut consumer = consumer(&broker, "a").await;
    let first = soon(consumer.receive(100)).await.unwrap();
    assert_eq!((first.len(), first[0].attempt), (1, ATTEMPTS));
    let closed = Closed::new(gate);
    let mut commit = broker.commit(settle("a", &first));
    assert!(pends(&mut commit).await);
    let mut receive = consumer.receive(100);
    for _ in 0..LOOKS {
        assert!(pends(&mut receive).await, "the process could end with it, and the one before be tried once too often");
        tokio::task::yield_now().await;
    }
    closed.open();
    soon(commit).await.unwrap();
    let second = soon(receive).await.unwrap();
    assert_eq!((second.len(), second[0].attempt), (1, ATTEMPTS));
    assert_ne!(first[0].message.id, second[0].message.id);
}
