//! What a dispatcher needs to know about its edge.

use super::away::Absence;
use crate::{
    context::Place,
    counts::{Counts, EdgeCounts, TaskCounts},
    def::{Codec, EdgeDef, Kind, Retry, TaskDef},
    handler::Handler,
    ids, job,
    observe::Watch,
    plan::TaskPlan,
    trace::Tracer,
};
use leatworks_broker::{Ack, Broker, Delivery, HandOff, Position};
use std::{sync::Arc, time::Duration};

/// An edge with everything that its dispatcher uses per message, made once.
pub(crate) struct Edge {
    pub(crate) broker: Arc<dyn Broker>,
    /// None for a fold, whose owner takes the messages itself.
    pub(crate) handler: Option<Arc<dyn Handler>>,
    pub(crate) def: &'static EdgeDef,
    pub(crate) task: &'static TaskDef,
    pub(crate) topology: &'static str,
    pub(crate) subscription: Arc<str>,
    pub(crate) dead_letter_topic: Arc<str>,
    pub(crate) place: Arc<Place>,
    pub(crate) retry: Retry,
    pub(crate) timeout: Duration,
    pub(crate) parallelism: usize,
    /// Whether what its task gives says which message it was made of.
    pub(crate) lineage: bool,
    pub(crate) hand_off: HandOff,
    /// What is known of a worker that cannot be reached.
    pub(super) absence: Absence,
    /// Who watches its dispatcher, if anybody does.
    pub(crate) watch: Option<Arc<Watch>>,
    /// Where what is done with its messages is told, if it is written down.
    pub(crate) trace: Option<Tracer>,
    topics: [Arc<str>; 2],
    routes: Vec<Arc<str>>,
    /// What a Trampoline envelope must be addressed to, on an ingress edge.
    envelope: Option<String>,
    seed: u64,
    counts: Arc<Counts>,
    task_index: usize,
    edge_index: usize,
}

/// Which of its two topics a message of an edge came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// The topic of the route.
    Route,
    /// Where redriven messages come in.
    Retry,
}

/// A message that the dispatcher holds.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) queue: Queue,
    pub(crate) delivery: Delivery,
}

impl Edge {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        handler: Option<Arc<dyn Handler>>,
        def: &'static EdgeDef,
        plan: &TaskPlan,
        counts: Arc<Counts>,
    ) -> Self {
        let task = plan.def;
        let place = Place { topology: task.topology, task: task.name, edge: def.id.into(), settings: plan.settings.clone() };
        Self {
            broker,
            handler,
            def,
            task,
            topology: task.topology,
            subscription: def.subscription.into(),
            dead_letter_topic: def.dead_letter_topic.into(),
            place: Arc::new(place),
            retry: plan.retry,
            timeout: match task.kind {
                // Whoever runs it elsewhere sees to its time, and to what is needed before and after.
                Kind::Job(_) if plan.worker.is_some() => leatworks_jobs::answer_max(plan.timeout) + job::SETTLE_MAX,
                // The worker has all of its time, and what follows is to be written down.
                Kind::Job(_) => plan.timeout + job::SETTLE_MAX,
                _ => plan.timeout,
            },
            lineage: plan.lineage,
            parallelism: plan.parallelism.max(1),
            hand_off: if plan.eager { HandOff::Eager } else { HandOff::Durable },
            absence: Absence::default(),
            watch: None,
            trace: None,
            topics: [def.topic.into(), def.retry_topic.into()],
            routes: task.routes.iter().map(|route| route.topic.into()).collect(),
            envelope: def.from.is_none().then(|| format!("{}-{}", task.topology, task.name)),
            seed: ids::seed(task.topology, def.id),
            task_index: counts.task_index(task.name),
            edge_index: counts.edge_index(def.id),
            counts,
        }
    }

    pub(crate) fn topic(&self, queue: Queue) -> &Arc<str> {
        match queue {
            Queue::Route => &self.topics[0],
            Queue::Retry => &self.topics[1],
        }
    }

    /// The topic of one of the target's routes.
    pub(crate) fn route(&self, index: usize) -> Option<&Arc<str>> {
        self.routes.get(index)
    }

    pub(crate) fn ack(&self, queue: Queue, position: Position) -> Ack {
        Ack { topic: self.topic(queue).clone(), subscription: self.subscription.clone(), position, cumulative: false }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.task.codec
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn envelope(&self) -> Option<&str> {
        self.envelope.as_deref()
    }

    pub(crate) fn task_counts(&self) -> &TaskCounts {
        self.counts.task(self.task_index)
    }

    pub(crate) fn edge_counts(&self) -> &EdgeCounts {
        self.counts.edge(self.edge_index)
    }
}
