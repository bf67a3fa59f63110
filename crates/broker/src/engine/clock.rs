//! The broker's time: milliseconds since the Unix epoch that never jump.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The wall clock as it was at the start, moved on by the monotonic clock: a clock that is set forward or back does not shorten or
/// stretch a delay, and under tokio's paused time delays pass as the test says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// The clock from now on.
    pub(crate) fn new() -> Self {
        Self::starting_at(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// A clock that says that it is this time now.
    pub(crate) fn starting_at(started_ms: u64) -> Self {
        Self { started: Instant::now(), started_ms }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms + millis(self.started.elapsed())
    }

    /// This much after now, rounded up, so that a delay is never shorter than asked for.
    pub(crate) fn after_ms(&self, delay: Duration) -> u64 {
        self.started_ms.saturating_add(millis(self.started.elapsed().saturating_add(delay))).saturating_add(1)
    }

    /// When a time is reached.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        let delay = Duration::from_millis(at_ms.saturating_sub(self.started_ms));
        // Instants end somewhere; a century is as good as never.
        self.started.checked_add(delay).unwrap_or_else(|| self.started + Duration::from_secs(3_153_600_000))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
