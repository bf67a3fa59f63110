//! The one edge that is measured, and the topics around it.

use super::super::{Failed, payload::Payloads};
use leatworks::{
    Codec,
    broker::{Broker, ErrorKind, Message, Publish, Start, TopicKind, TopicSpec},
    def::{Drawings, EdgeDef, Kind, Retry, RouteDef, TaskDef, TopologyDef},
    new_root,
    topics::{self, TopologyRef},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The topology of all lines. On Pulsar its state stays behind: one small topic, however often it is measured.
const TOPOLOGY: &str = "leat-bench";

/// The subscription on what comes out, where that is looked at.
pub(super) const RECEIVER: &str = "receiver";

/// Messages of one publish.
const BATCH: u64 = 1_000;

/// An edge with a task behind it that passes everything on. What the task gives goes to a topic that no edge takes from.
pub(super) struct Line {
    pub(super) def: &'static TopologyDef,
    pub(super) edge: &'static EdgeDef,
    pub(super) input: Arc<str>,
    pub(super) output: Arc<str>,
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

impl Line {
    /// A new one. It lives as long as the process, which makes some ten of them.
    pub(super) fn new(kind: Kind, parallelism: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let stamp = format!("{TOPOLOGY}-{now_ms:x}-{}", NEXT.fetch_add(1, Relaxed));
        let (topic, output) = (leak(format!("{stamp}-in")), leak(format!("{stamp}-out")));
        let task: &'static TaskDef = Box::leak(Box::new(TaskDef {
            project: "bench",
            topology: TOPOLOGY,
            name: "pass",
            version: env!("CARGO_PKG_VERSION"),
            codec: Codec::Json,
            kind,
            retry: Retry { attempts: 3, backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1) },
            timeout: Duration::from_secs(30),
            parallelism,
            source: None,
            routes: Box::leak(Box::new([RouteDef { label: None, topic: output }])),
            ends: &[],
        }));
        // Its messages come from a task, as most do: those that come from outside may lie in an envelope, which is looked for.
        let edge = EdgeDef {
            id: "before-->pass",
            from: Some("before"),
            to: "pass",
            label: None,
            topic,
            subscription: "pass",
            retry_topic: leak(format!("{topic}-pass-RETRY")),
            dead_letter_topic: leak(format!("{topic}-pass-DLQ")),
        };
        let edges: &'static [EdgeDef] = Box::leak(Box::new([edge]));
        let def = Box::leak(Box::new(TopologyDef {
            name: TOPOLOGY,
            project: "bench",
            version: env!("CARGO_PKG_VERSION"),
            description: "the edge that leat bench measures",
            codec: Codec::Json,
            tasks: Box::leak(Box::new([task])),
            edges,
            drawings: Drawings { mermaid: "", dot: "", svg: "", text: "" },
        }));
        Self { def, edge: &edges[0], input: topic.into(), output: output.into() }
    }

    /// Makes its topics, and with `received` a subscription on what comes out.
    pub(super) async fn create(&self, broker: &dyn Broker, received: bool) -> Result<(), Failed> {
        topics::create(broker, &TopologyRef::from(self.def)).await?;
        let spec = TopicSpec {
            name: self.output.to_string(),
            kind: TopicKind::Route,
            topology: self.def.name.to_owned(),
            ..TopicSpec::default()
        };
        broker.create_topic(spec).await?;
        if received {
            broker.create_subscription(&self.output, RECEIVER, Start::Earliest).await?;
        }
        Ok(())
    }

    /// Publishes so many messages.
    pub(super) async fn fill(&self, broker: &dyn Broker, payloads: &mut Payloads, messages: u64) -> Result<(), Failed> {
        let mut left = messages;
        while left > 0 {
            let count = BATCH.min(left);
            let batch = (0..count).map(|_| self.publish(new_root(payloads.next(), Codec::Json, None))).collect();
            broker.publish(batch).await?;
            left -= count;
        }
        Ok(())
    }

    fn publish(&self, message: Message) -> Publish {
        Publish { topic: self.input.clone(), message: message.into(), sequence: None }
    }

    /// Takes its topics away again, with what is left in them.
    pub(super) async fn remove(&self, broker: &dyn Broker) -> Result<(), Failed> {
        let EdgeDef { topic, subscription, retry_topic, dead_letter_topic, .. } = *self.edge;
        for (topic, subscription) in [
            (topic, subscription),
            (retry_topic, subscription),
            (dead_letter_topic, topics::DEAD_LETTER_SUBSCRIPTION),
            (&self.output, RECEIVER),
        ] {
            // There is a receiver only where latency is measured, and what belongs to a subscription may have gone with it.
            gone(broker.unsubscribe(topic, subscription).await)?;
            gone(broker.delete_topic(topic).await)?;
        }
        Ok(())
    }
}

/// Whether it is gone now, or was before.
fn gone(result: leatworks::broker::Result<()>) -> Result<(), Failed> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}
