//! Removes Jobs that have ended, and whose end is written down, but which are still there: whoever wrote that could not remove them.

use super::{Kubernetes, object};
use crate::{Attempt, JobError};
use std::time::Duration;

/// How often it is looked for them.
const EVERY: Duration = Duration::from_secs(30);

impl Kubernetes {
    /// Removes what was left, now and then, for ever.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(%error, "Jobs that have ended cannot be removed just now");
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), JobError> {
        for object in self.again("listing Jobs", || self.cluster.all()).await? {
            let place = object.metadata.annotations.as_ref().and_then(|all| all.get(object::PLACE));
            let (Some(place), Some(name)) = (place, object.metadata.name) else { continue };
            let going = object.metadata.deletion_timestamp.is_some();
            let written = Attempt::at(&self.store, place).await?;
            if !going && written.is_some_and(|attempt| attempt.ended_ms.is_some() && attempt.name == name) {
                self.clean(name);
            }
        }
        Ok(())
    }
}
