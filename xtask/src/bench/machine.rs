//! What the disk does by itself, and which processes keep the cores busy, as the kernel counts it.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

/// Clock ticks a second that the kernel reports to programs; Linux has fixed it at 100 for all architectures that Rust supports.
const TICKS_PER_S: f64 = 100.0;

/// How long the disk is measured: 200 syncs of a slow one.
const DISK_TIME: Duration = Duration::from_secs(2);

/// The size of the file that the disk is measured with. It is written once before, as the segments of a journal are.
const FILE_BYTES: usize = 4 << 20;

/// Bytes of each write.
const WRITE_BYTES: usize = 4 << 10;

/// What one sync of 4 KiB takes in a folder: the median and the slowest hundredth, in milliseconds.
pub(super) fn sync_ms(folder: &Path) -> Result<[f64; 2]> {
    let path = folder.join(format!("syncs-{}", std::process::id()));
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0x5a; FILE_BYTES], 0)?;
    file.sync_all()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < DISK_TIME {
        let before = Instant::now();
        file.write_all_at(&[0xa5; WRITE_BYTES], (times.len() * WRITE_BYTES % FILE_BYTES) as u64)?;
        file.sync_data()?;
        times.push(before.elapsed().as_secs_f64() * 1_000.0);
    }
    fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[times.len() * 99 / 100]])
}

/// CPU time of the server, by names of threads, of the clients that have ended, and of the whole machine, up to one moment.
pub(super) struct Snapshot {
    at: Instant,
    server: u32,
    server_s: f64,
    threads: BTreeMap<u64, (String, f64)>,
    clients_s: f64,
    machine_s: f64,
}

/// How many cores were busy between two moments, and with what.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Busy {
    pub(super) server_cores: f64,
    /// With starting, which takes a Java client a second or two.
    pub(super) clients_cores: f64,
    pub(super) others_cores: f64,
    /// The busiest threads of the server, those of one name together.
    pub(super) threads: Vec<(String, f64)>,
}

impl Snapshot {
    /// What was used so far.
    pub(super) fn take(server: u32) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading `{path}`"));
        let (own, whole) = (read("/proc/self/stat")?, read(&format!("/proc/{server}/stat"))?);
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{server}/task"))?.flatten() {
            // One that ends meanwhile is left out.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map(|(name, _)| name.to_owned());
            let id = entry.file_name().to_string_lossy().parse().unwrap_or_default();
            threads.insert(id, (name.unwrap_or_default(), ticks(&stat, 11)));
        }
        Ok(Self {
            at: Instant::now(),
            server,
            server_s: ticks(&whole, 11),
            threads,
            // The time of children counts when they have been waited for, which the server has not.
            clients_s: ticks(&own, 13),
            machine_s: machine_s(&read("/proc/stat")?),
        })
    }

    /// What was used since.
    pub(super) fn busy(&self) -> Result<Busy> {
        let now = Self::take(self.server)?;
        let elapsed_s = (now.at - self.at).as_secs_f64();
        let cores = |now: f64, then: f64| (now - then).max(0.0) / elapsed_s;
        let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
        for (id, (name, cpu_s)) in &now.threads {
            // Threads of a pool differ by their number alone.
            let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '#').to_owned();
            *by_name.entry(name).or_default() += cores(*cpu_s, self.threads.get(id).map_or(0.0, |then| then.1));
        }
        let mut threads: Vec<_> = by_name.into_iter().filter(|(_, cores)| *cores >= 0.05).collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (server_cores, clients_cores) = (cores(now.server_s, self.server_s), cores(now.clients_s, self.clients_s));
        let others_cores = (cores(now.machine_s, self.machine_s) - server_cores - clients_cores).max(0.0);
        Ok(Busy { server_cores, clients_cores, others_cores, threads })
    }
}

/// User and system time, which stand beside each other in a `stat` file, in seconds.
fn ticks(stat: &str, at: usize) -> f64 {
    // The second field is the program's name in parentheses and may hold spaces, so fields are counted from its end.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(at).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// CPU time of all processes of the machine.
fn machine_s(stat: &str) -> f64 {
    let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    let busy = ticks.enumerate().take(8).filter(|(index, _)| !matches!(index, 3 | 4));
    busy.filter_map(|(_, ticks)| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}
