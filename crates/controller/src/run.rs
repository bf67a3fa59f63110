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
use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc};
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
        let leading = Leading::start(&client, &options, &reconciler, &metrics, &health);
        tokio::select! {
            () = leading.run() => {}
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
    reconciler: Arc<Reconciler>,
    notices: mpsc::Receiver<Notice>,
    /// They end when this is dropped.
    _watches: JoinSet<()>,
    queue: Pulse,
}

impl Leading {
    fn start(client: &Client, options: &Options, reconciler: &Arc<Reconciler>, metrics: &Arc<Metrics>, health: &Health) -> Self {
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
        Self { reconciler: reconciler.clone(), notices, _watches: watches, queue }
    }

    /// Reconciles what is due, for as long as it is polled.
    async fn run(mut self) {
        let mut queue = Queue::default();
        let mut running = JoinSet::new();
        loop {
            self.queue.beat();
            while running.len() < AT_ONCE {
                let Some(key) = queue.take(Instant::now()) else { break };
                let reconciler = self.reconciler.clone();
                running.spawn(async move {
                    let next = reconcile(&reconciler, &key).await;
                    (key, next)
                });
            }
            let due = if running.len() < AT_ONCE { queue.due() } else { None };
            // The queue shows that it lives even when there is nothing to do.
            let due = due.unwrap_or(Instant::now() + watch::PULSE_AGE_MAX / 4).min(Instant::now() + watch::PULSE_AGE_MAX / 4);
            tokio::select! {
                Some(notice) = self.notices.recv() => queue.notice(notice, Instant::now()),
                Some(done) = running.join_next() => match done {
                    Ok((key, next)) => queue.done(key, next, Instant::now()),
                    Err(error) => {
                        // Which one it was is not known any more, so all that are under way count as not done.
                        tracing::error!(%error, "a reconciliation broke off");
                        running.abort_all();
                        while running.join_next().await.is_some() {}
                        queue.restart(Instant::now());
                    }
                },
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
