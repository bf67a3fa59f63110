//! What comes over the jobs of a topology, one thing after another.

use super::Random;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The pods of a part of a task are killed: when a Job of the task is there, or at once.
    Kill { part: Part, task: &'static str, under_way: bool },
    /// Somebody removes a Job.
    Delete,
    /// The time to live of a Job is over as soon as it has ended.
    Expire,
    /// A second pod does what a Job's pod does.
    Double,
    /// The API server is killed and started again.
    RestartApi,
    /// Its store is.
    RestartStore,
}

/// What makes Jobs of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Adapter,
    Dispatcher,
}

impl Part {
    /// The label of its pods.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Adapter => "worker",
            Self::Dispatcher => "dispatcher",
        }
    }
}

impl Fault {
    /// What a report counts it as.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill { part: Part::Adapter, .. } => "adapters killed",
            Self::Kill { part: Part::Dispatcher, .. } => "dispatchers killed",
            Self::Delete => "Jobs removed by others",
            Self::Expire => "Jobs removed by their time to live",
            Self::Double => "pods run twice",
            Self::RestartApi => "restarts of the API server",
            Self::RestartStore => "restarts of its store",
        }
    }
}

const fn kill(part: Part, task: &'static str, under_way: bool) -> Fault {
    Fault::Kill { part, task, under_way }
}

/// Every kill that there is.
const KILLS: [Fault; 8] = [
    kill(Part::Dispatcher, "transform", false),
    kill(Part::Dispatcher, "transform", true),
    kill(Part::Adapter, "transform", false),
    kill(Part::Adapter, "transform", true),
    kill(Part::Dispatcher, "split", false),
    kill(Part::Dispatcher, "split", true),
    kill(Part::Adapter, "split", false),
    kill(Part::Adapter, "split", true),
];

/// One of each that needs no proxy, on few messages.
pub(super) fn few() -> Vec<Fault> {
    let [before, after, adapter_before, adapter_after, .., of_split, _, _] = KILLS;
    vec![adapter_after, Fault::Delete, before, Fault::Double, after, Fault::Expire, of_split, adapter_before]
}

/// As many as R18 asks for, in an order of their own.
pub(super) fn many(random: &mut Random) -> Vec<Fault> {
    let kinds =
        [(Fault::RestartApi, 20), (Fault::RestartStore, 20), (Fault::Delete, 15), (Fault::Expire, 15), (Fault::Double, 15)];
    let mut all: Vec<Fault> =
        KILLS.into_iter().map(|kill| (kill, 7)).chain(kinds).flat_map(|(fault, count)| vec![fault; count]).collect();
    for last in (1..all.len()).rev() {
        all.swap(last, random.within(0..last as u64 + 1) as usize);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_every_kind_and_follows_its_seed() {
        let plan = |seed| many(&mut Random::new(seed, "test"));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        assert_eq!(plan(1).len(), 141);
        let few = few();
        for fault in plan(1) {
            let needs_a_proxy = matches!(fault, Fault::RestartApi | Fault::RestartStore);
            assert!(needs_a_proxy || few.iter().any(|one| one.name() == fault.name()), "{fault:?}");
        }
    }
}
