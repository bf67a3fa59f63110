//! Who leads: one of several controllers, by a Lease.
//!
//! A holder writes only while its own clock says that nobody else can have taken over. What it has decided on is written with the version it was decided
//! on, so that even a write that was held up on its way cannot undo what a later holder did.

use crate::metrics::Metrics;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff,
};
use kube::{Api, Client, api::PostParams};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long a holder that says nothing keeps the lease. With 7 s an API server on a busy machine, which answered after more than 2 s, made its holder lose it
/// again and again.
const LEASE_TIME: Duration = Duration::from_secs(15);

/// How long a holder relies on what it has last said. It is shorter than [`LEASE_TIME`], by what clocks may differ in speed and a write may take.
const TRUST_TIME: Duration = Duration::from_secs(10);

/// How often it is said again, and how often others look.
const PERIOD: Duration = Duration::from_secs(2);

/// How long one call may take: so short that two fit within the trust.
const CALL_TIME_MAX: Duration = Duration::from_secs(4);

/// What stands in an identity between the name, which is that of the pod, and what tells processes of that name apart.
pub const BEHIND_NAME: char = '_';

/// This controller does not lead, or cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this controller does not hold the lease")]
pub struct NotLeader;

/// Until when this controller may write, by its own monotonic clock.
#[derive(Clone)]
pub struct Fence {
    began: Instant,
    /// Milliseconds after `began`.
    until: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { began: Instant::now(), until: Arc::default() }
    }
}

impl Fence {
    /// A fence that never closes, for a command that a person runs.
    pub fn open() -> Self {
        Self { began: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Whether this controller may write now.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(&self) -> Result<(), NotLeader> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now < self.until.load(Relaxed) { Ok(()) } else { Err(NotLeader) }
    }

    fn extend(&self, from: Instant) {
        let until = (from + TRUST_TIME).duration_since(self.began);
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn close(&self) {
        self.until.store(0, Relaxed);
    }
}

/// A lease that several controllers want.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    fence: Fence,
    metrics: Arc<Metrics>,
    /// What was last seen of somebody else's hold, and when: only our own clock tells how long they have said nothing.
    seen: Option<(String, Instant)>,
}

impl Election {
    /// A candidate. `identity` is its own alone.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, fence: Fence, metrics: Arc<Metrics>) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), fence, metrics, seen: None }
    }

    /// Waits until this controller leads.
    pub async fn win(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "the lease cannot be read or taken"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Keeps the lease for as long as that goes; returns when it is lost.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.attempt().await {
                Ok(true) => {}
                Ok(false) => {
                    self.fence.close();
                    tracing::warn!(lease = self.name, "another controller has the lease");
                    return;
                }
                Err(error) => tracing::warn!(%error, lease = self.name, "the lease cannot be renewed"),
            }
            if self.fence.check().is_err() {
                tracing::warn!(lease = self.name, "the lease was not renewed in time");
                return;
            }
        }
    }

    /// Lets go, so that another need not wait.
    pub async fn release(&mut self) {
        if self.fence.check().is_err() {
            return;
        }
        self.fence.close();
        let released = tokio::time::timeout(CALL_TIME_MAX, async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        });
        if !matches!(released.await, Ok(Ok(()))) {
            tracing::warn!(lease = self.name, "the lease could not be released; another controller takes it when it runs out");
        }
    }

    /// Takes or renews the lease, if it is ours or nobody's. Whether we have it then.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let began = Instant::now();
        let taken = tokio::time::timeout(CALL_TIME_MAX, self.take()).await;
        let taken = taken.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into())))?;
        if taken {
            self.fence.extend(began);
        }
        self.metrics.leads(taken);
        Ok(taken)
    }

    async fn take(&mut self) -> kube::Result<bool> {
        self.metrics.called("lease");
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let spec = self.spec(0, None);
            let lease =
                Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: Some(spec) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let old = lease.spec.clone().unwrap_or_default();
        let holder = old.holder_identity.clone().unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or_default();
        if holder == self.identity {
            lease.spec = Some(self.spec(transitions, old.acquire_time));
        } else {
            if !holder.is_empty() && !is_gone(&holder, &self.identity) && !self.is_over(&lease) {
                return Ok(false);
            }
            lease.spec = Some(self.spec(transitions + 1, None));
        }
        // The version that was read goes with it: of two who take it at once, one has it.
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether its holder has said nothing for so long that it may not write any more.
    fn is_over(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= LEASE_TIME,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, transitions: i32, since: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_TIME.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: since.or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

/// Whether the holder was an earlier process of the same name: a container is only started anew when what ran in it has ended. Should it live nevertheless, its
/// writes name the versions that they were decided on, and change nothing that was changed since.
fn is_gone(holder: &str, identity: &str) -> bool {
    let name = |of: &str| of.rsplit_once(BEHIND_NAME).map(|(name, _)| name.to_owned());
    name(holder).is_some() && name(holder) == name(identity)
}

/// Somebody else was quicker, or it was us.
fn won<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_process_of_the_same_name_is_gone() {
        for (holder, identity, gone) in [
            ("pod-1_a", "pod-1_b", true),
            ("pod-1_a", "pod-2_a", false),
            ("pod_1_a", "pod_1_b", true),
            ("pod_1_a", "pod_2_b", false),
            ("alone", "alone", false),
            ("alone", "pod-1_b", false),
            ("", "pod-1_b", false),
        ] {
            assert_eq!(is_gone(holder, identity), gone, "{holder} {identity}");
        }
    }
}
