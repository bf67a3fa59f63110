//! The folds of a run: when they give their results.

use super::{Run, RunError, Stop, wait};
use crate::{
    def::EdgeDef,
    dispatch::{self, Edge},
    folding::{self, Finish, Given},
    handler::FoldHandler,
    plan::TaskPlan,
    topics,
};
use leatworks_broker::BrokerError;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How long the input of a fold must rest until it gives its result in a run that goes on, and how often it is looked. So a result comes one to three seconds after the last message that is
/// in it, and while a fold has something to give, another system is asked about its topics once a second.
const REST: Duration = Duration::from_secs(1);

/// How long until a fold in a run that goes on is asked again for a result that it could not give, although it was tried as often as a message: whatever it needs is away for longer.
const FINISH_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Run {
    pub(super) fn start_fold(&mut self, task: &TaskPlan, edges: &[&'static EdgeDef], handler: Arc<dyn FoldHandler>) {
        let edges = edges.iter().map(|edge| {
            let mut edge = Edge::new(self.broker.clone(), None, edge, task, self.counts.clone());
            edge.trace.clone_from(&self.plan.tracer);
            Arc::new(edge)
        });
        let edges: Vec<Arc<Edge>> = edges.collect();
        // One request at a time: the run waits for each answer.
        let (sender, receiver) = mpsc::channel(1);
        self.folds.insert(task.def.name, sender);
        let closing = self.closing.1.clone();
        // Another system's client drops repetitions by itself.
        let repeats = self.options.elsewhere && self.broker.promises().atomic_step;
        self.serving.spawn(async move { Ok(folding::serve(edges, handler, repeats, receiver, closing).await?) });
    }

    /// Goes on until it is stopped. Folds give their results whenever their input rests.
    pub(super) async fn go_on(&mut self) -> Result<(), RunError> {
        let mut stop = self.stop.clone();
        let edges = self.plan.topology.edges;
        let input: BTreeSet<&'static str> =
            self.folds.keys().flat_map(|fold| upstream(edges, fold)).map(|edge| edge.id).collect();
        let input: Vec<&'static EdgeDef> = edges.iter().filter(|edge| input.contains(edge.id)).collect();
        // Whether an earlier process has left something in a state is not known.
        let (mut given, mut before, mut not_before) = (None, None, Instant::now());
        loop {
            let stopped = async {
                // The sender outlives the run; if it is gone nobody can stop it, so it goes on for ever, as asked.
                if stop.wait_for(|stop| *stop != Stop::Run).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stopped => return Ok(()),
                () = tokio::time::sleep(REST) => {}
            }
            let folded = self.folded();
            if given == Some(folded) || Instant::now() < not_before {
                continue;
            }
            let pending = dispatch::patiently(|| topics::pending(self.broker.as_ref(), &input)).await?;
            let rests = pending.messages == 0 && before == Some(pending);
            before = Some(pending);
            if rests {
                if self.finish_folds().await? {
                    given = Some(folded);
                } else {
                    not_before = Instant::now() + FINISH_AGAIN_AFTER;
                }
            }
        }
    }

    /// How many messages folds have taken in so far.
    fn folded(&self) -> u64 {
        let folded = |fold: &&'static str| self.counts.task(self.counts.task_index(fold)).handled.load(Relaxed);
        self.folds.keys().map(folded).sum()
    }

    /// Has each fold give its result when nothing upstream of it is pending, in topological order. Says whether no fold has one to give later of what it has already.
    pub(super) async fn finish_folds(&mut self) -> Result<bool, RunError> {
        let mut all_given = true;
        let topology = self.plan.topology;
        let folds: Vec<&'static str> =
            topology.tasks.iter().map(|task| task.name).filter(|name| self.folds.contains_key(name)).collect();
        for fold in folds {
            let results = self.record.results.get(fold).copied().unwrap_or(0);
            wait::drained(self.broker.as_ref(), &upstream(topology.edges, fold)).await?;
            if *self.stop.borrow() != Stop::Run {
                return Ok(all_given);
            }
            // A run that ends has one result of nothing, too.
            if (results > 0 || self.options.serve) && !self.has_folded(fold).await? {
                continue;
            }
            *self.record.results.entry(fold.to_owned()).or_default() += 1;
            let (done, answer) = oneshot::channel();
            let state = vec![self.record.entry(topology.name)];
            let request = Finish { run_id: self.record.run_id(), results, state, may_fail: self.options.serve, done };
            let sent = self.folds[fold].send(request).await.is_ok();
            match answer.await {
                Ok(Given::Result) if sent => {}
                Ok(given) if sent => {
                    self.record.results.insert(fold.to_owned(), results);
                    all_given &= given == Given::Never;
                }
                // A fold that is gone has failed, and that error ends the run.
                _ => std::future::pending().await,
            }
        }
        Ok(all_given)
    }

    /// Whether a fold has taken in what is in no result yet.
    async fn has_folded(&self, fold: &str) -> Result<bool, BrokerError> {
        Ok(self.broker.state(&folding::state_key(self.plan.topology.name, fold)).await?.is_some())
    }

    pub(super) async fn have_folded(&self) -> Result<bool, BrokerError> {
        for fold in self.folds.keys() {
            if self.has_folded(fold).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// All edges from which a message can still come to a task.
fn upstream(edges: &'static [EdgeDef], task: &'static str) -> Vec<&'static EdgeDef> {
    let mut tasks = BTreeSet::from([task]);
    let mut found: Vec<&'static EdgeDef> = Vec::new();
    loop {
        let before = found.len();
        found = edges.iter().filter(|edge| tasks.contains(edge.to)).collect();
        tasks.extend(found.iter().filter_map(|edge| edge.from));
        if found.len() == before {
            return found;
        }
    }
}
