//! How much memory a process group uses.

/// The bytes of memory that the processes of a group have for themselves; none where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn used(group: i32) -> Option<u64> {
    let page = rustix::param::page_size() as u64;
    let mut pages = 0;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        // A process may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if group_of(&stat) != Some(group) {
            continue;
        }
        pages += std::fs::read_to_string(entry.path().join("statm")).ok().and_then(|statm| own_pages(&statm)).unwrap_or(0);
    }
    Some(pages * page)
}

/// Elsewhere there is no such limit.
#[cfg(not(target_os = "linux"))]
pub(super) fn used(_group: i32) -> Option<u64> {
    None
}

/// The process group in `/proc/PID/stat`. The name of the program, in parentheses, may hold anything.
#[cfg(target_os = "linux")]
fn group_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// What is resident and not shared with files.
#[cfg(target_os = "linux")]
fn own_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_any_name() {
        assert_eq!(group_of("12 (a) b (c) S 1 77 77 0"), Some(77));
        assert_eq!(own_pages("1000 300 100 5 0 80 0"), Some(200));
        assert_eq!((group_of(""), own_pages("1 2")), (None, None));
    }

    #[test]
    fn this_process_uses_memory() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(used(group).is_some_and(|bytes| bytes > 0));
    }
}
