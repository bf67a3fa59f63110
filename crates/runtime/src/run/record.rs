//! The durable record of a run, by which a killed run goes on where it was and a finished one starts anew.

use crate::{codec::Bytes, def::TopologyDef, folding, ids, source, topics};
use leatworks_broker::{Account, Ack, Broker, BrokerError, ErrorKind, MessageId, Position, Result, Start, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// What is known of the current run of a topology. Kept under `run/<topology>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The run's identity, in hexadecimal.
    pub(crate) run: String,
    /// The input that was named on the command line, if one was.
    pub(crate) input: Option<String>,
    /// Whether the one root message of a topology without a source has been sent.
    pub(crate) started: bool,
    /// What [`digest`] says of that message.
    pub(crate) message: Option<u64>,
    /// How many results each fold has given.
    pub(crate) results: BTreeMap<String, u64>,
    /// Whether the run has come to its end.
    pub(crate) ended: bool,
    /// The account before the run, so that a run can tell its own share.
    pub(crate) done_before: u64,
    pub(crate) dead_before: u64,
}

/// By what one start message is told from another.
pub(crate) fn digest(message: &serde_json::Value) -> u64 {
    xxh3_64(message.to_string().as_bytes())
}

pub(crate) fn key(topology: &str) -> String {
    format!("run/{topology}")
}

impl Record {
    /// The current run, or a new one if there is none or it has ended. A new one forgets where sources stood. What a fold keeps stays: after
    /// its result that is only what came in too late for it.
    ///
    /// A record that cannot be read is an error: beginning anew beside a run that may be unfinished would do its work twice.
    pub(crate) async fn open(broker: &dyn Broker, topology: &TopologyDef, input: Option<&str>) -> Result<(Self, bool)> {
        let kept = broker.state(&key(topology.name)).await?;
        let kept: Option<Self> = kept.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(|error| {
            let text = format!("the record of `{}`'s last run cannot be read: {error}; `--fresh` drops that run", topology.name);
            BrokerError::new(ErrorKind::Invalid, text)
        })?;
        if let Some(record) = kept.filter(|record| !record.ended) {
            return Ok((record, true));
        }
        let account = match broker.promises().accounts {
            true => broker.account(topology.name).await?,
            false => Account::default(),
        };
        let record = Self {
            run: ids::random_id().to_string(),
            input: input.map(str::to_owned),
            done_before: account.done,
            dead_before: account.dead_lettered,
            ..Self::default()
        };
        let mut state = vec![record.entry(topology.name)];
        for task in topology.tasks {
            state.push((source::position_key(topology.name, task.name), None));
        }
        crate::dispatch::commit(broker, Step { state, ..Step::default() }).await?;
        Ok((record, false))
    }

    /// Whether anything has come in by the run's input, so that another one cannot take its place.
    pub(crate) async fn has_begun(&self, broker: &dyn Broker, topology: &TopologyDef) -> Result<bool> {
        for task in topology.tasks {
            if broker.state(&source::position_key(topology.name, task.name)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(self.started)
    }

    /// The record as keyed state.
    pub(crate) fn entry(&self, topology: &str) -> (String, Option<Bytes>) {
        let bytes = serde_json::to_vec(self).expect("a record is texts, flags and numbers");
        (key(topology), Some(bytes.into()))
    }

    pub(crate) fn run_id(&self) -> MessageId {
        self.run.parse().unwrap_or_default()
    }

    /// The share of this run in the account. What was in flight when it began is counted as sent by it, and so is what has been
    /// redriven since: so its account balances too.
    pub(crate) fn share(&self, account: Account) -> Account {
        let dead_before = self.dead_before.min(account.dead_lettered);
        Account {
            sent: account.sent.saturating_sub(self.done_before + dead_before),
            done: account.done.saturating_sub(self.done_before),
            dead_lettered: account.dead_lettered - dead_before,
            in_flight: account.in_flight,
        }
    }
}

/// The most messages that are dropped in one step.
const DROPPED_AT_ONCE: usize = 1024;

/// Gives an unfinished run up: drops what is pending on its edges, and marks it as ended. Gives how many messages were dropped.
pub(crate) async fn abandon(broker: &dyn Broker, topology: &TopologyDef) -> Result<u64> {
    let mut dropped = 0;
    if !broker.promises().atomic_step {
        // Another system's subscriptions are moved as a whole: what is in nobody's hands would be settled there one by one.
        let stats = broker.stats().await?;
        for edge in topology.edges {
            dropped += topics::pending_in(&stats, &[edge]).messages;
            for topic in [edge.topic, edge.retry_topic] {
                broker.seek(topic, edge.subscription, Start::Latest).await?;
            }
        }
    }
    for edge in topology.edges {
        for topic in [edge.topic, edge.retry_topic] {
            loop {
                let pending = broker.peek(topic, edge.subscription, Position(0), DROPPED_AT_ONCE).await?;
                if pending.is_empty() {
                    break;
                }
                dropped += pending.len() as u64;
                let ack =
                    |position| Ack { topic: topic.into(), subscription: edge.subscription.into(), position, cumulative: false };
                let acks = pending.into_iter().map(|(position, _)| ack(position)).collect();
                crate::dispatch::commit(broker, Step { acks, ..Step::default() }).await?;
            }
        }
    }
    let folds = topology.tasks.iter().map(|task| (folding::state_key(topology.name, task.name), None));
    let state = folds.chain([(key(topology.name), None)]).collect();
    crate::dispatch::commit(broker, Step { state, ..Step::default() }).await?;
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    static EMPTY: TopologyDef = TopologyDef {
        name: "t",
        project: "p",
        version: "0",
        description: "",
        codec: crate::Codec::Json,
        tasks: &[],
        edges: &[],
        drawings: crate::def::Drawings { mermaid: "", dot: "", svg: "", text: "" },
    };

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_no_new_run() {
        let broker = leatworks_broker::MemoryBroker::new(leatworks_broker::Limits::default());
        let state = vec![(key("t"), Some(Bytes::from_static(b"{\"run\": 1}")))];
        broker.commit(Step { state, ..Step::default() }).await.unwrap();
        let error = Record::open(&broker, &EMPTY, None).await.unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("--fresh"), "{error}");
        abandon(&broker, &EMPTY).await.unwrap();
        assert!(!Record::open(&broker, &EMPTY, None).await.unwrap().1);
    }

    #[test]
    fn the_share_of_a_run_balances() {
        let record = Record { done_before: 10, dead_before: 2, ..Record::default() };
        for (sent, done, dead_lettered, in_flight) in [(12, 10, 2, 0), (20, 15, 3, 2), (20, 16, 1, 3), (13, 11, 0, 2)] {
            let share = record.share(Account { sent, done, dead_lettered, in_flight });
            assert_eq!(share.sent, share.done + share.dead_lettered + share.in_flight, "{share:?}");
        }
    }
}
