//! What the process and the disk have done, as the kernel counts it.

use crate::Failed;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::{Duration, Instant},
};

/// How long the disk is measured each time: 70 syncs of a slow one.
const MEASURE: Duration = Duration::from_millis(300);

/// The size of the file that the disk is measured with. It is written once before, as the segments of a journal are.
const FILE_BYTES: usize = 4 << 20;

/// Bytes of each write.
const WRITE_BYTES: usize = 4 << 10;

/// Bytes of a block in [`MetadataExt::blocks`], whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

/// CPU time of all threads so far, user and system.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes given to write calls so far.
pub(crate) fn written_bytes() -> Result<u64, Failed> {
    let io = fs::read_to_string("/proc/self/io")?;
    let count = io.lines().find_map(|line| line.strip_prefix("wchar:")).ok_or("/proc/self/io does not tell `wchar`")?;
    Ok(count.trim().parse()?)
}

/// What the files in a folder take on disk. One that is removed meanwhile takes nothing.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64, Failed> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&path)? } else { metadata.blocks() * BLOCK_BYTES };
    }
    Ok(bytes)
}

/// How often a second 4 KiB are written and synced.
pub(crate) fn syncs_per_s(dir: &Path) -> Result<f64, Failed> {
    let path = dir.join("syncs");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0x5a; FILE_BYTES], 0)?;
    file.sync_all()?;
    let block = [0xa5; WRITE_BYTES];
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < MEASURE {
        file.write_all_at(&block, (count * WRITE_BYTES % FILE_BYTES) as u64)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}
