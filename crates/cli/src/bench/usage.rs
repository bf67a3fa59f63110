//! What this process has used of the machine, as the kernel counts it.

use std::fs;

/// Clock ticks a second that the kernel reports to programs; Linux has fixed it at 100 for all architectures that Rust supports.
const TICKS_PER_S: f64 = 100.0;

/// CPU time of all threads so far, user and system, in seconds; `None` where `/proc` is not there.
pub(crate) fn cpu_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces, so fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_S)
}

/// The most memory that was ever resident, in bytes; `None` where `/proc` is not there.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Bytes given to write calls so far; `None` where `/proc` is not there. It counts what the program wrote, not what the file system
/// turned it into.
pub(crate) fn written_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar:"))?.trim().parse().ok()
}
