//! How long calls take.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The upper bounds in seconds: from a worker beside the dispatcher to a job that takes an hour.
pub(super) const BOUNDS: [f64; 13] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_200.0, 3_600.0];

/// Counts of durations by their length.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Those within each bound and above the one before; the last are above all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many are within each bound, then how many there are in all, and their sum in seconds.
    pub(super) fn cumulated(&self) -> ([u64; BOUNDS.len()], u64, f64) {
        let mut within = [0; BOUNDS.len()];
        let mut count = 0;
        for (index, counted) in self.counts.iter().enumerate() {
            count += counted.load(Relaxed);
            if let Some(within) = within.get_mut(index) {
                *within = count;
            }
        }
        (within, count, self.micros.load(Relaxed) as f64 / 1e6)
    }
}
