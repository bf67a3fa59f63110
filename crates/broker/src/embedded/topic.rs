//! A topic's description as records and snapshots keep it.

use crate::{Durability, TopicKind, TopicSpec};
use std::time::Duration;

/// A topic as it was created; also part of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TopicRecord {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) kind: u32,
    #[prost(string, tag = "3")]
    pub(super) topology: String,
    #[prost(uint64, tag = "4")]
    pub(super) retention_ms: u64,
    #[prost(uint64, tag = "5")]
    pub(super) retention_bytes: u64,
    #[prost(uint32, tag = "6")]
    pub(super) number: u32,
    /// 0 for the broker's own level.
    #[prost(uint32, tag = "7")]
    pub(super) durability: u32,
}

impl From<&TopicSpec> for TopicRecord {
    fn from(spec: &TopicSpec) -> Self {
        let kind = match spec.kind {
            TopicKind::Plain => 0,
            TopicKind::Ingress => 1,
            TopicKind::Route => 2,
            TopicKind::DeadLetter => 3,
        };
        let retention_ms = u64::try_from(spec.retention.as_millis()).unwrap_or(u64::MAX);
        let durability = match spec.durability {
            None => 0,
            Some(Durability::Power) => 1,
            Some(Durability::Interval) => 2,
            Some(Durability::Process) => 3,
            Some(Durability::Memory) => 4,
        };
        let TopicSpec { name, topology, retention_bytes, .. } = spec.clone();
        Self { name, kind, topology, retention_ms, retention_bytes, number: 0, durability }
    }
}

impl TryFrom<TopicRecord> for TopicSpec {
    type Error = String;

    fn try_from(record: TopicRecord) -> Result<Self, String> {
        let kind = match record.kind {
            0 => TopicKind::Plain,
            1 => TopicKind::Ingress,
            2 => TopicKind::Route,
            3 => TopicKind::DeadLetter,
            other => return Err(format!("topic `{}` is of kind {other}, which this version does not know", record.name)),
        };
        let durability = match record.durability {
            0 => None,
            1 => Some(Durability::Power),
            2 => Some(Durability::Interval),
            3 => Some(Durability::Process),
            4 => Some(Durability::Memory),
            other => return Err(format!("topic `{}` has durability {other}, which this version does not know", record.name)),
        };
        let TopicRecord { name, topology, retention_ms, retention_bytes, .. } = record;
        Ok(Self { name, kind, topology, retention: Duration::from_millis(retention_ms), retention_bytes, durability })
    }
}
