//! What the tasks of a run have done, counted.

use crate::def::{EdgeDef, TopologyDef};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The counters of one topology in one process, shared by its dispatchers.
#[derive(Debug)]
pub struct Counts {
    tasks: Vec<(&'static str, TaskCounts)>,
    edges: Vec<EdgeCounts>,
    /// Roots that sources have given.
    pub(crate) roots: AtomicU64,
}

/// The counters of one task.
#[derive(Debug, Default)]
pub(crate) struct TaskCounts {
    pub(crate) handled: AtomicU64,
    pub(crate) emitted: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retried: AtomicU64,
}

/// The counters of one edge.
#[derive(Debug)]
pub(crate) struct EdgeCounts {
    pub(crate) id: &'static str,
    pub(crate) settled: AtomicU64,
    pub(crate) dead: AtomicU64,
}

/// What a task has done since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTally {
    /// Messages that were handled: their step has committed.
    pub handled: u64,
    /// Outputs of those, whether an edge follows or not.
    pub emitted: u64,
    /// Attempts that failed: an error, a panic, a timeout, a payload that cannot be decoded.
    pub failed: u64,
    /// Those of the failed attempts after which the message was given back to be tried again.
    pub retried: u64,
}

/// What one dispatcher has counted, as it tells it to the process that has started it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EdgeTally {
    #[serde(flatten)]
    pub(crate) task: TaskTally,
    pub(crate) settled: u64,
    pub(crate) dead: u64,
}

impl Counts {
    /// Zeros for every task and edge.
    pub fn new(topology: &TopologyDef) -> Self {
        Self {
            tasks: topology.tasks.iter().map(|task| (task.name, TaskCounts::default())).collect(),
            edges: topology
                .edges
                .iter()
                .map(|edge| EdgeCounts { id: edge.id, settled: AtomicU64::new(0), dead: AtomicU64::new(0) })
                .collect(),
            roots: AtomicU64::new(0),
        }
    }

    /// Where the counters of a task stand, to be asked for once. The counters are made from the same topology, so there always are some.
    pub(crate) fn task_index(&self, name: &str) -> usize {
        self.tasks.iter().position(|(task, _)| *task == name).unwrap_or_default()
    }

    /// Where the counters of an edge stand.
    pub(crate) fn edge_index(&self, id: &str) -> usize {
        self.edges.iter().position(|edge| edge.id == id).unwrap_or_default()
    }

    pub(crate) fn task(&self, index: usize) -> &TaskCounts {
        &self.tasks[index].1
    }

    pub(crate) fn edge(&self, index: usize) -> &EdgeCounts {
        &self.edges[index]
    }

    pub(crate) fn edges(&self) -> &[EdgeCounts] {
        &self.edges
    }

    /// Messages that this process has given up.
    pub fn dead_letters(&self) -> u64 {
        self.edges.iter().map(|edge| edge.dead.load(Relaxed)).sum()
    }

    /// What the dispatcher of one edge has counted in this process, where there is no other of its task.
    pub(crate) fn of_edge(&self, edge: &EdgeDef) -> EdgeTally {
        let on_edge = self.edge(self.edge_index(edge.id));
        EdgeTally {
            task: self.task(self.task_index(edge.to)).tally(),
            settled: on_edge.settled.load(Relaxed),
            dead: on_edge.dead.load(Relaxed),
        }
    }

    /// Adds what another process has counted since it told `before`.
    pub(crate) fn add(&self, edge: &EdgeDef, before: &EdgeTally, now: &EdgeTally) {
        let (task, on_edge) = (self.task(self.task_index(edge.to)), self.edge(self.edge_index(edge.id)));
        let more = |counter: &AtomicU64, before: u64, now: u64| _ = counter.fetch_add(now.saturating_sub(before), Relaxed);
        more(&task.handled, before.task.handled, now.task.handled);
        more(&task.emitted, before.task.emitted, now.task.emitted);
        more(&task.failed, before.task.failed, now.task.failed);
        more(&task.retried, before.task.retried, now.task.retried);
        more(&on_edge.settled, before.settled, now.settled);
        more(&on_edge.dead, before.dead, now.dead);
    }

    /// The tasks by name.
    pub fn tasks(&self) -> BTreeMap<String, TaskTally> {
        self.tasks.iter().map(|(name, counts)| ((*name).to_owned(), counts.tally())).collect()
    }
}

impl TaskCounts {
    fn tally(&self) -> TaskTally {
        TaskTally {
            handled: self.handled.load(Relaxed),
            emitted: self.emitted.load(Relaxed),
            failed: self.failed.load(Relaxed),
            retried: self.retried.load(Relaxed),
        }
    }
}
