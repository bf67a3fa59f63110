//! What this process has used of the machine, as the kernel counts it.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{collections::BTreeMap, fs, time::Instant};

/// Clock ticks a second that the kernel reports to programs; Linux has fixed it at 100 for all architectures that Rust supports.
const TICKS_PER_S: f64 = 100.0;

/// What was used up to one moment.
pub(crate) struct Snapshot {
    at: Instant,
    cpu_s: f64,
    user_s: Option<f64>,
    system_s: Option<f64>,
    written: Option<u64>,
    machine_s: Option<f64>,
    threads: BTreeMap<u64, Thread>,
}

/// One thread so far.
struct Thread {
    name: String,
    cpu_s: f64,
    switches: u64,
}

/// What was used between two moments. What the machine does not tell is missing.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Spent {
    pub(crate) elapsed_s: f64,
    /// CPU time of all threads in seconds, exact.
    pub(crate) cpu_s: f64,
    /// The part of it that was spent in the program, in steps of 10 ms.
    pub(crate) user_s: Option<f64>,
    /// The part that was spent in the kernel, in steps of 10 ms.
    pub(crate) system_s: Option<f64>,
    /// Cores that other processes kept busy: more than a few hundredths, and the figures tell less than they could.
    pub(crate) others_cores: Option<f64>,
    /// Bytes given to write calls.
    pub(crate) written_bytes: Option<u64>,
    /// The threads that are still there, those of one name together, the busiest first.
    pub(crate) threads: Vec<Busy>,
}

/// How busy the threads of one name were.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Busy {
    pub(crate) name: String,
    /// How many there are.
    pub(crate) count: usize,
    /// How many cores they kept busy.
    pub(crate) cores: f64,
    /// How often they stopped to wait for something.
    pub(crate) waits: u64,
}

impl Snapshot {
    /// What was used so far.
    pub(crate) fn take() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let times = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| user_and_system_s(&stat));
        Self {
            at: Instant::now(),
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            user_s: times.map(|(user, _)| user),
            system_s: times.map(|(_, system)| system),
            written: written_bytes(),
            machine_s: machine_s(),
            threads: threads(),
        }
    }

    /// What was used since.
    pub(crate) fn spent(&self) -> Spent {
        let now = Self::take();
        let elapsed_s = (now.at - self.at).as_secs_f64();
        let since = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| now - then);
        let mut by_name: BTreeMap<String, Busy> = BTreeMap::new();
        for (id, thread) in now.threads {
            let (cpu_s, switches) = self.threads.get(&id).map_or((0.0, 0), |then| (then.cpu_s, then.switches));
            let new = Busy { name: thread.name.clone(), count: 0, cores: 0.0, waits: 0 };
            let busy = by_name.entry(thread.name).or_insert(new);
            busy.count += 1;
            busy.cores += (thread.cpu_s - cpu_s) / elapsed_s;
            busy.waits += thread.switches.saturating_sub(switches);
        }
        let mut threads: Vec<Busy> = by_name.into_values().collect();
        threads.sort_by(|a, b| b.cores.total_cmp(&a.cores));
        let cpu_s = now.cpu_s - self.cpu_s;
        // Ticks are coarse: what is less than nothing is nothing.
        let others = since(now.machine_s, self.machine_s).map(|all_s| ((all_s - cpu_s) / elapsed_s).max(0.0));
        Spent {
            elapsed_s,
            cpu_s,
            others_cores: others,
            user_s: since(now.user_s, self.user_s),
            system_s: since(now.system_s, self.system_s),
            written_bytes: now.written.zip(self.written).map(|(now, then)| now - then),
            threads,
        }
    }
}

/// User and system time from a `stat` file of a process or thread.
fn user_and_system_s(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program's name in parentheses and may hold spaces, so fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_S);
    Some((seconds()?, seconds()?))
}

/// CPU time of all processes of the machine, and what its host took away.
fn machine_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<f64>);
    // User, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    let busy = ticks.enumerate().take(8).filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks);
    Some(busy.sum::<Result<f64, _>>().ok()? / TICKS_PER_S)
}

/// The threads by id. One that ends meanwhile is left out.
fn threads() -> BTreeMap<u64, Thread> {
    let thread = |path: &std::path::Path| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (user, system) = user_and_system_s(&stat)?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()?;
        let name = stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned();
        let id = path.file_name()?.to_str()?.parse().ok()?;
        Some((id, Thread { name, cpu_s: user + system, switches }))
    };
    let folder = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    folder.filter_map(|entry| thread(&entry.path())).collect()
}

/// The most memory that was ever resident, in bytes; `None` where `/proc` is not there.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Lets [`peak_rss_bytes`] begin anew; `false` where the kernel cannot, and the peak then is that of the whole run.
pub(crate) fn forget_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes given to write calls so far; `None` where `/proc` is not there. It counts what the program wrote, not what the file system
/// turned it into.
fn written_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar:"))?.trim().parse().ok()
}
