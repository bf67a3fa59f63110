//! The controller as a process: waits for the lease, then reconciles whatever its watches tell of, a few at a time, and lets go when it is told to end.

use crate::{
    brokers::Brokers,
    cluster::{Cluster, ClusterError, topology_resource},
    lease::{Election, Fence},
    metrics::Metrics,
    names::{self, Kind},
    plan::Settings,
    queue::{Queue, Wait},
    reconcile::{Next, Reconciler},
    serve::{self, Health},
    watch::{self, Key, Notice, NoticeOf, Pulse, Watch},
};
use kube::{Api, Client};
use std::{collections::HashMap, future::Future, net::SocketAddr, pin::pin, sync::Arc};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::Instrument;

/// How many topologies are reconciled at once: each has one call to the API server under way.
const AT_ONCE: usize = 8;

/// Notices that wait to be taken; those who send wait when there are more.
const NOTICES: usize = 1024;

/// How the controller is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespaces whose topologies it has; none means all of them.
    pub namespaces: Vec<String>,
    /// The namespace of its lease.
    pub lease_namespace: String,
    /// The name of its lease.
    pub lease_name: String,
    /// Its own name, which no other has: that of its pod, then [`BEHIND_NAME`](crate::lease::BEHIND_NAME), then what tells it from earlier processes of that pod.
    pub identity: String,
    /// Where `/metrics`, `/livez` and `/readyz` are served, if anywhere.
    pub listen: Option<SocketAddr>,
    /// What it knows besides the resources.
    pub settings: Settings,
}

/// The controller cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It cannot listen.
    #[error("listening on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// Runs the controller until `stop` resolves.
///
/// # Errors
/// If it cannot listen. An API server that cannot be reached is waited for.
pub async fn run(
    client: Client,
    brokers: Arc<dyn Brokers>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (metrics, fence, health) = (Arc::new(Metrics::default()), Fence::default(), Health::default());
    let mut serving = JoinSet::new();
    if let Some(address) = options.listen {
        let server = serve::bind(address).await.map_err(|error| RunError::Listen { address, error })?;
        serving.spawn(serve::serve(server, metrics.clone(), health.clone()));
    }
    let Options { lease_namespace, lease_name, identity, .. } = &options;
    let mut election = Election::new(client.clone(), lease_namespace, lease_name, identity, fence.clone(), metrics.clone());
    let cluster = Cluster::new(client.clone(), fence, metrics.clone());
    let mut stop = pin!(stop);
    loop {
        tracing::info!(identity, lease = lease_name, "waiting for the lease");
        tokio::select! {
            () = election.win() => {}
            () = &mut stop => break,
        }
        tracing::info!(identity, lease = lease_name, "leading");
        // What an earlier one knew another leader may have changed since.
        let reconciler =
            Reconciler::new(cluster.clone(), brokers.clone(), options.settings.clone(), metrics.clone(), identity.clone());
        let reconciler = Arc::new(reconciler);
        let look = move |key: Key| {
            let reconciler = reconciler.clone();
            async move { reconcile(&reconciler, &key).await }
        };
        let leading = Leading::start(&client, &options, &metrics, &health);
        tokio::select! {
            () = leading.run(look) => {}
            () = election.hold() => {}
            () = &mut stop => break,
        }
        // What was under way is cut off; it writes nothing more, and whoever leads next begins with what is there.
        health.watches(Vec::new());
        metrics.leads(false);
    }
    election.release().await;
    Ok(())
}

/// The watches and the queue of a controller that leads.
struct Leading {
    notices: mpsc::Receiver<Notice>,
    /// They end when this is dropped.
    _watches: JoinSet<()>,
    queue: Pulse,
}

impl Leading {
    fn start(client: &Client, options: &Options, metrics: &Arc<Metrics>, health: &Health) -> Self {
        let (to, notices) = mpsc::channel(NOTICES);
        let (mut watches, mut pulses) = (JoinSet::new(), Vec::new());
        let ours = format!("{}={}", names::MANAGED_BY, names::LEATWORKS);
        let kinds = [Kind::ConfigMap, Kind::Service, Kind::Deployment, Kind::Autoscaler]
            .map(|kind| (kind.resource(), ours.clone(), watch::of_its_owner as NoticeOf));
        let topologies = (topology_resource(), String::new(), watch::of_itself as NoticeOf);
        for (resource, labels, notice) in std::iter::once(topologies).chain(kinds) {
            let apis = if options.namespaces.is_empty() {
                vec![Api::all_with(client.clone(), &resource)]
            } else {
                options.namespaces.iter().map(|namespace| Api::namespaced_with(client.clone(), namespace, &resource)).collect()
            };
            for api in apis {
                let pulse = Pulse::default();
                pulses.push(pulse.clone());
                let watch = Watch {
                    api,
                    labels: labels.clone(),
                    notice,
                    to: to.clone(),
                    pulse,
                    silence_max: watch::SILENCE_MAX,
                    metrics: metrics.clone(),
                };
                watches.spawn(watch.run());
            }
        }
        let queue = Pulse::default();
        pulses.push(queue.clone());
        health.watches(pulses);
        Self { notices, _watches: watches, queue }
    }

    /// Reconciles what is due, for as long as it is polled. One that breaks off, by an error in the program, counts as failed and stops no other.
    async fn run<F>(mut self, reconcile: impl Fn(Key) -> F)
    where
        F: Future<Output = Wait> + Send + 'static,
    {
        let (mut queue, mut running, mut keys) = (Queue::default(), JoinSet::new(), HashMap::new());
        loop {
            self.queue.beat();
            while running.len() < AT_ONCE {
                let Some(key) = queue.take(Instant::now()) else { break };
                let id = running.spawn(reconcile(key.clone())).id();
                keys.insert(id, key);
            }
            let due = if running.len() < AT_ONCE { queue.due() } else { None };
            // The queue shows that it lives even when there is nothing to do.
            let due = due.unwrap_or(Instant::now() + watch::PULSE_AGE_MAX / 4).min(Instant::now() + watch::PULSE_AGE_MAX / 4);
            tokio::select! {
                Some(notice) = self.notices.recv() => queue.notice(notice, Instant::now()),
                Some(done) = running.join_next_with_id() => {
                    let (id, ended) = match done {
                        Ok((id, wait)) => (id, Ok(wait)),
                        Err(error) => (error.id(), Err(error)),
                    };
                    let Some(key) = keys.remove(&id) else { continue };
                    let wait = ended.unwrap_or_else(|error| {
                        tracing::error!(topology = key.name, namespace = key.namespace, %error, "a reconciliation broke off");
                        Wait::Retry
                    });
                    queue.done(key, wait, Instant::now());
                }
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }
}

async fn reconcile(reconciler: &Reconciler, key: &Key) -> Wait {
    let span = tracing::info_span!("reconcile", topology = key.name, namespace = key.namespace);
    let began = Instant::now();
    let ended = reconciler.reconcile(key).instrument(span.clone()).await;
    let _entered = span.enter();
    let (result, wait) = match ended {
        Ok(Next::Forget) => ("gone", Wait::Forget),
        Ok(Next::Retry) => ("failed", Wait::Retry),
        Ok(Next::After(time)) => ("done", Wait::After(time)),
        Err(ClusterError::Changed(what)) => {
            tracing::debug!(what, "changed meanwhile");
            ("changed", Wait::Retry)
        }
        Err(error) => {
            tracing::warn!(%error, "the reconciliation failed");
            ("failed", Wait::Retry)
        }
    };
    reconciler.metrics.reconciled(result, began.elapsed());
    wait
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::Duration,
    };
    use tokio::sync::Notify;

    #[tokio::test(start_paused = true)]
    async fn one_that_breaks_off_is_tried_again_and_cuts_off_no_other() {
        let (to, notices) = mpsc::channel(NOTICES);
        let key = |name: &str| Key { namespace: "n".to_owned(), name: name.to_owned() };
        for name in ["broken", "slow"] {
            to.send(Notice { key: key(name), asked: None, is_anew: false }).await.expect("it is taken");
        }
        let leading = Leading { notices, _watches: JoinSet::new(), queue: Pulse::default() };
        let (broken, slow, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (breaks, begins, end) = (broken.clone(), slow.clone(), ended.clone());
        let running = tokio::spawn(leading.run(move |key: Key| {
            let (breaks, begins, end) = (breaks.clone(), begins.clone(), end.clone());
            async move {
                if key.name == "broken" {
                    breaks.fetch_add(1, Relaxed);
                    panic!("an error in the program");
                }
                begins.fetch_add(1, Relaxed);
                // The other one breaks off several times meanwhile.
                tokio::time::sleep(Duration::from_secs(10)).await;
                end.notify_one();
                Wait::After(Duration::from_secs(600))
            }
        }));
        ended.notified().await;
        running.abort();
        assert_eq!(slow.load(Relaxed), 1, "it began once and came to its end");
        let tries = broken.load(Relaxed);
        assert!((3..20).contains(&tries), "tried {tries} times within ten seconds, after longer and longer waits");
    }
}
