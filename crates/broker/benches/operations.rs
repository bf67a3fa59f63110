//! What single operations cost, in memory and on the disk at level `power`: `cargo bench -p leatworks-broker --bench operations`. Each is measured with batches of
//! 1, 100 and 1,000 messages, one batch at a time, so that on disk a batch waits for its own sync; how batches share syncs is in `throughput`.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use leatworks_broker::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 200;

/// Messages of one call.
const BATCHES: [usize; 3] = [1, 100, 1_000];

/// A broker with two topics, each with one consumer.
struct Rig {
    runtime: Runtime,
    broker: Arc<dyn Broker>,
    topics: [(Arc<str>, Box<dyn Consumer>); 2],
    subscription: Arc<str>,
    last_id: u128,
}

impl Rig {
    fn new(broker: Arc<dyn Broker>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let topics = ["in", "out"].map(|name| runtime.block_on(topic(broker.as_ref(), name)));
        Self { runtime, broker, topics, subscription: "s".into(), last_id: 0 }
    }

    fn messages(&mut self, topic: usize, count: usize) -> Vec<Publish> {
        let mut message = || {
            self.last_id += 1;
            let id = MessageId(self.last_id);
            let message = Message { id, root: id, payload: vec![self.last_id as u8; PAYLOAD_BYTES].into(), ..Message::default() };
            Publish { topic: self.topics[topic].0.clone(), message: message.into(), sequence: None }
        };
        (0..count).map(|_| message()).collect()
    }

    fn publish(&self, batch: Vec<Publish>) {
        self.runtime.block_on(self.broker.publish(batch)).unwrap();
    }

    fn receive(&mut self, topic: usize, count: usize) -> Vec<Position> {
        let mut positions = Vec::with_capacity(count);
        while positions.len() < count {
            let deliveries = self.runtime.block_on(self.topics[topic].1.receive(count - positions.len())).unwrap();
            positions.extend(deliveries.iter().map(|delivery| delivery.position));
        }
        positions
    }

    fn step(&self, topic: usize, acked: Vec<Position>, publishes: Vec<Publish>) -> Step {
        let (topic, subscription) = (&self.topics[topic].0, &self.subscription);
        let ack = |position| Ack { topic: topic.clone(), subscription: subscription.clone(), position, cumulative: false };
        Step { acks: acked.into_iter().map(ack).collect(), publishes, guard: true, ..Step::default() }
    }

    fn commit(&self, step: Step) {
        self.runtime.block_on(self.broker.commit(step)).unwrap();
    }

    /// Takes everything out again, so that each round finds the same broker.
    fn drain(&mut self, topic: usize, count: usize) {
        let positions = self.receive(topic, count);
        self.commit(self.step(topic, positions, Vec::new()));
    }
}

async fn topic(broker: &dyn Broker, name: &str) -> (Arc<str>, Box<dyn Consumer>) {
    let spec = TopicSpec { name: name.into(), kind: TopicKind::Plain, ..TopicSpec::default() };
    broker.create_topic(spec).await.unwrap();
    broker.create_subscription(name, "s", Start::Earliest).await.unwrap();
    let subscribe = Subscribe {
        topic: name.into(),
        subscription: "s".into(),
        kind: SubscriptionKind::Shared,
        consumer: "bench".into(),
        permits: 10_000,
        hand_off: leatworks_broker::HandOff::Durable,
    };
    (name.into(), broker.subscribe(subscribe).await.unwrap())
}

/// Times an operation so often, each time after and before something that is not timed.
fn rounds<P>(
    rig: &mut Rig,
    count: u64,
    before: impl Fn(&mut Rig) -> P,
    timed: impl Fn(&mut Rig, P),
    after: impl Fn(&mut Rig),
) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let prepared = before(rig);
        let start = Instant::now();
        timed(rig, prepared);
        spent += start.elapsed();
        after(rig);
    }
    spent
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, rig: &mut Rig) {
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("publish/{batch}"), |bencher| {
            bencher.iter_custom(|count| {
                let publish = |rig: &mut Rig, messages| rig.publish(messages);
                rounds(rig, count, |rig| rig.messages(0, batch), publish, |rig| rig.drain(0, batch))
            });
        });
        group.bench_function(format!("receive+ack/{batch}"), |bencher| {
            bencher.iter_custom(|count| {
                let fill = |rig: &mut Rig| {
                    let messages = rig.messages(0, batch);
                    rig.publish(messages);
                };
                rounds(rig, count, fill, |rig, ()| rig.drain(0, batch), |_| {})
            });
        });
        group.bench_function(format!("step, ack 1 and publish 2/{batch}"), |bencher| {
            bencher.iter_custom(|count| {
                let prepare = |rig: &mut Rig| {
                    let messages = rig.messages(0, batch);
                    rig.publish(messages);
                    let positions = rig.receive(0, batch);
                    let outputs = rig.messages(1, 2 * batch);
                    rig.step(0, positions, outputs)
                };
                rounds(rig, count, prepare, |rig, step| rig.commit(step), |rig| rig.drain(1, 2 * batch))
            });
        });
    }
}

fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    measure(&mut group, &mut Rig::new(Arc::new(MemoryBroker::new(Limits::default()))));
    group.finish();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut group = criterion.benchmark_group("embedded, power");
    measure(&mut group, &mut Rig::new(Arc::new(Embedded::open(EmbeddedOptions::new(dir.path())).unwrap())));
    group.finish();
}

criterion_group! {
    name = benches;
    // 18 measurements of 2.5 s: what is prepared and cleaned up around each round takes as long again.
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = operations
}
criterion_main!(benches);
