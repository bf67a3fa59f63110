//! The way in: publishes roots together with the position of their source, and holds the source back when much is in flight.

use crate::{
    codec::{Bytes, Codec, EncodeError},
    counts::Counts,
    def::EdgeDef,
    dispatch, ids,
    plan::{Plan, TaskPlan},
    run::Stop,
    topics,
};
use leatworks_broker::{Broker, BrokerError, Message, MessageId, Publish, Step};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::watch;

/// The most roots of a topology that may be in flight before its sources wait. It covers a graph that is ten disk flushes (50 ms) deep at
/// 300,000 roots a second, and bounds what a slow task lets pile up.
pub(crate) const ROOTS_IN_FLIGHT_MAX: u64 = 16_384;

/// How long a source waits before it looks again whether there is room: half a disk flush.
const LOOK: Duration = Duration::from_millis(2);

/// On a broker that keeps no account: how much may be pending on the edges of the topology before its sources wait, as that broker counts it, which
/// may be in batches of up to a thousand messages. A quarter of the other limit.
const PENDING_MAX: u64 = 4_096;

/// After how many roots it is looked at there, which takes a request for each topic; so a source goes beyond the limit by this much at most.
const ROOTS_BETWEEN_LOOKS: u64 = 4_096;

/// How long between two looks there while there is no room.
const LOOK_FAR: Duration = Duration::from_millis(200);

/// A source could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("{0}")]
    Options(String),
    #[error("reading `{path}`: {error}")]
    Read { path: String, error: std::io::Error },
    #[error(
        "`{path}` has {length} bytes, but {position} of it were read already: it was cut; give the same input again, or begin anew by `--fresh`"
    )]
    Cut { path: String, length: u64, position: u64 },
    #[error(
        "`{path}` is not what the unfinished run has read: before byte {position} it differs; give the same input again, or begin anew by `--fresh`"
    )]
    Other { path: String, position: u64 },
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

/// Where a source is kept to stand.
pub(crate) fn position_key(topology: &str, task: &str) -> String {
    format!("source/{topology}/{task}")
}

/// One root: its number within the source, which makes its identity, and its payload.
pub(crate) struct Root {
    pub(crate) number: u64,
    pub(crate) codec: Codec,
    pub(crate) payload: Bytes,
    /// Why it is only the beginning of what the source has read, if it is.
    pub(crate) cut: Option<String>,
}

/// The property of a root that is only the beginning of what its source has read.
const CUT: &str = "cut";

/// Why a message is only the beginning of what its source has read, if it is.
pub(crate) fn cut(message: &Message) -> Option<&str> {
    message.properties.iter().find(|(name, _)| name == CUT).map(|(_, why)| why.as_str())
}

/// The way into a topology by one root task.
pub(crate) struct Feed {
    broker: Arc<dyn Broker>,
    topology: &'static str,
    topic: Arc<str>,
    codec: Codec,
    key: String,
    run_id: MessageId,
    seed: u64,
    counts: Arc<Counts>,
    edges: Vec<&'static EdgeDef>,
    /// On a broker that keeps no account, whether roots may be given before it is looked at again.
    unlooked: Unlooked,
    /// On a broker that may have the roots without the position, by whom they are numbered there: then a second one is dropped.
    producer: Option<Arc<str>>,
    stop: watch::Receiver<Stop>,
}

/// How many roots were given since it was seen that there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unlooked {
    Accounts,
    Roots(u64),
}

impl Feed {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        plan: &Plan,
        task: &TaskPlan,
        run_id: MessageId,
        counts: Arc<Counts>,
        stop: watch::Receiver<Stop>,
    ) -> Result<Self, SourceError> {
        let promises = broker.promises();
        let topology = plan.topology.name;
        let ingress: &EdgeDef = plan
            .topology
            .ingress(task.def.name)
            .ok_or_else(|| SourceError::Options(format!("`{}` is no root, so it cannot have a source", task.def.name)))?;
        Ok(Self {
            broker,
            topology,
            topic: ingress.topic.into(),
            codec: task.def.codec,
            key: position_key(topology, task.def.name),
            run_id,
            counts,
            edges: plan.topology.edges.iter().collect(),
            unlooked: if promises.accounts { Unlooked::Accounts } else { Unlooked::Roots(ROOTS_BETWEEN_LOOKS) },
            producer: (!promises.atomic_step).then(|| format!("source/{topology}/{}/{run_id}", task.def.name).into()),
            seed: ids::seed(topology, &format!("source/{}", task.def.name)),
            stop,
        })
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) fn max_message_bytes(&self) -> usize {
        self.broker.max_message_bytes()
    }

    /// Where the source stood when it last published.
    pub(crate) async fn position<P: DeserializeOwned>(&self) -> Result<Option<P>, SourceError> {
        let kept = self.broker.state(&self.key).await?;
        let read = |bytes: Bytes| {
            serde_json::from_slice(&bytes)
                .map_err(|error| SourceError::Options(format!("the run was begun with a source of another type: {error}")))
        };
        kept.map(read).transpose()
    }

    /// Publishes roots and where the source stands after them, in one step.
    pub(crate) async fn publish(&mut self, roots: Vec<Root>, position: &impl Serialize) -> Result<(), SourceError> {
        let created_ms = ids::now_ms();
        let count = roots.len() as u64;
        let publishes = roots.into_iter().map(|root| {
            let id = ids::child_id(self.run_id, self.seed, root.number);
            let properties = root.cut.map(|why| (CUT.to_owned(), why)).into_iter().collect();
            let message =
                Message { id, root: id, created_ms, codec: root.codec, payload: root.payload, properties, ..Message::default() };
            let sequence = self.producer.clone().map(|producer| (producer, root.number));
            Publish { topic: self.topic.clone(), message: message.into(), sequence }
        });
        let position = serde_json::to_vec(position).map_err(EncodeError::from)?;
        let step =
            Step { publishes: publishes.collect(), state: vec![(self.key.clone(), Some(position.into()))], ..Step::default() };
        dispatch::commit(self.broker.as_ref(), step).await?;
        self.counts.roots.fetch_add(count, Relaxed);
        if let Unlooked::Roots(given) = &mut self.unlooked {
            *given += count;
        }
        Ok(())
    }

    /// Waits until there is room for more roots. `false`: the run is stopped, so the source ends.
    pub(crate) async fn room(&mut self) -> Result<bool, SourceError> {
        loop {
            if self.is_stopped() {
                return Ok(false);
            }
            let pause = match self.unlooked {
                Unlooked::Accounts if self.broker.account(self.topology).await?.in_flight < ROOTS_IN_FLIGHT_MAX => {
                    return Ok(true);
                }
                Unlooked::Accounts => LOOK,
                Unlooked::Roots(given) if given < ROOTS_BETWEEN_LOOKS => return Ok(true),
                Unlooked::Roots(_) => {
                    let look = || topics::pending(self.broker.as_ref(), &self.edges);
                    if dispatch::patiently(look).await?.messages < PENDING_MAX {
                        self.unlooked = Unlooked::Roots(0);
                        return Ok(true);
                    }
                    LOOK_FAR
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::Run
    }

    /// Waits until the run is stopped.
    pub(crate) async fn stopped(&mut self) {
        if self.stop.wait_for(|stop| *stop != Stop::Run).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
