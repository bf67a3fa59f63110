//! Finds Jobs that nobody looks after, and removes those that have ended.
//!
//! Whoever called for a Job may be gone before its end, and need not call again: the commit of the Job answers the next call at once. And whoever wrote down how a Job has
//! ended may not have been able to remove it.

use super::{Kubernetes, inside, judge, object};
use crate::{Attempt, JobError};
use k8s_openapi::api::batch::v1::Job as Object;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often it is looked for them: so that none is left a minute after its end.
const EVERY: Duration = Duration::from_secs(20);

/// The names of the Jobs that this process looks after.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<BTreeSet<String>>>);

/// A Job is looked after until this is dropped.
pub(super) struct Watch {
    all: Watched,
    name: String,
}

impl Watched {
    pub(super) fn begin(&self, name: &str) -> Watch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Watch { all: self.clone(), name: name.to_owned() }
    }

    fn holds(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Kubernetes {
    /// Looks for what was left, now and then, for ever.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(%error, "Jobs that have ended cannot be removed just now");
            }
        }
    }

    pub(super) async fn sweep_once(&self) -> Result<(), JobError> {
        for object in self.again("listing Jobs", || self.cluster.all()).await? {
            let ended = judge::has_ended(&object);
            let Object { metadata, .. } = object;
            let place = metadata.annotations.as_ref().and_then(|all| all.get(object::PLACE));
            let (Some(place), Some(name), None) = (place, metadata.name, metadata.deletion_timestamp) else { continue };
            let Some(mut attempt) = Attempt::at(&self.store, place).await?.filter(|attempt| attempt.name == name) else {
                continue;
            };
            if attempt.ended_ms.is_some() {
                self.clean(name);
            } else if ended && !self.watched.holds(&name) {
                tracing::info!(name, attempt = attempt.attempt, id = attempt.message, "a Job has ended that nobody looks after");
                let job = inside::read(&self.store, place).await?;
                // How it has ended is written down, for whoever asks.
                let _ = self.see_through(&job, &mut attempt).await;
            }
        }
        Ok(())
    }
}
