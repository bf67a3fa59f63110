//! The machine's own limit: how often its disk syncs, and how many bytes a second that carries, measured beside every benchmark.

use serde::Serialize;
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

/// How long each size is measured. The sync rate of one disk varied by a third between runs of 0.2 s; from 1 s on it stayed within a tenth.
const MEASURE: Duration = Duration::from_secs(1);

/// The file is written once before, so that a sync carries data only and no change of size; that is how the journal's segments are.
const FILE_BYTES: u64 = 32 << 20;

/// What one group size reaches.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Syncs {
    /// Bytes written before each sync.
    pub(crate) group_bytes: u64,
    /// Syncs a second.
    pub(crate) syncs_per_s: f64,
    /// Bytes a second.
    pub(crate) bytes_per_s: f64,
    /// Median time of one write with its sync, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of it, in milliseconds.
    pub(crate) p99_ms: f64,
}

/// What one sync takes: its median over two measurements, one before and one after something else was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OneSync {
    pub(crate) before_p50_ms: f64,
    pub(crate) before_p99_ms: f64,
    pub(crate) after_p50_ms: f64,
    pub(crate) after_p99_ms: f64,
}

impl OneSync {
    /// From what was measured before and after.
    pub(crate) fn of(before: &Syncs, after: &Syncs) -> Self {
        Self {
            before_p50_ms: before.p50_ms,
            before_p99_ms: before.p99_ms,
            after_p50_ms: after.p50_ms,
            after_p99_ms: after.p99_ms,
        }
    }

    /// The sync that others are compared with, in milliseconds.
    pub(crate) fn ms(self) -> f64 {
        f64::midpoint(self.before_p50_ms, self.after_p50_ms)
    }
}

/// Writes groups of this size to a test file in `dir`, each followed by a sync of its data.
pub(crate) fn measure_one(dir: &Path, group_bytes: u64) -> io::Result<Syncs> {
    measure(dir, &[group_bytes])?.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The same for several sizes.
pub(crate) fn measure(dir: &Path, group_sizes: &[u64]) -> io::Result<Vec<Syncs>> {
    let path = dir.join("sync-limit");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = vec![0x5a_u8; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, offset)?;
    }
    file.sync_all()?;
    let results = group_sizes.iter().map(|size| measure_size(&file, *size)).collect();
    drop(file);
    std::fs::remove_file(path)?;
    results
}

fn measure_size(file: &std::fs::File, group_bytes: u64) -> io::Result<Syncs> {
    let group_bytes = group_bytes.clamp(1, FILE_BYTES / 2);
    let group: Vec<u8> = (0..group_bytes).map(|byte| (byte % 251) as u8).collect();
    let mut times = Vec::new();
    let mut offset = 0;
    let start = Instant::now();
    while start.elapsed() < MEASURE {
        let before = Instant::now();
        file.write_all_at(&group, offset)?;
        file.sync_data()?;
        times.push(before.elapsed());
        offset = if offset + 2 * group_bytes > FILE_BYTES { 0 } else { offset + group_bytes };
    }
    let elapsed = start.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok(Syncs {
        group_bytes,
        syncs_per_s: times.len() as f64 / elapsed,
        bytes_per_s: times.len() as f64 * group_bytes as f64 / elapsed,
        p50_ms: percentile(&times, 0.5),
        p99_ms: percentile(&times, 0.99),
    })
}

/// The value below which this part of the sorted times lies, in milliseconds; zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
