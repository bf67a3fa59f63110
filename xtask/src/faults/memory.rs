//! A limit of memory for a child: a control group where there is one, which ends the process as the kernel does when memory is short, or else a limit
//! of its address space, at which it aborts.

use anyhow::Result;
use std::{fs, path::PathBuf};

/// Where the memory controller of the first version of control groups lies.
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// What an address space has beside memory that is in use: stacks of threads and arenas of the allocator, which are reserved and not touched.
const RESERVED_BYTES: u64 = 2 << 30;

/// A limit that exists as long as this.
pub(crate) struct Limited {
    group: Option<PathBuf>,
    bytes: u64,
}

impl Limited {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        let group = PathBuf::from(GROUPS).join(format!("leatworks-faults-{}", std::process::id()));
        let made = fs::create_dir(&group).and_then(|()| fs::write(group.join("memory.limit_in_bytes"), bytes.to_string()));
        Ok(Self { group: made.ok().map(|()| group), bytes })
    }

    /// What ends the process.
    pub(crate) fn name(&self) -> &'static str {
        if self.group.is_some() { "a control group" } else { "a limit of its address space" }
    }

    /// The words in front of a command that put it under the limit.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = match &self.group {
            Some(group) => format!("echo $$ > {} && exec \"$@\"", group.join("cgroup.procs").display()),
            None => format!("ulimit -v {} && exec \"$@\"", (self.bytes + RESERVED_BYTES) >> 10),
        };
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.group.as_ref().map(fs::remove_dir) {
            eprintln!("removing a control group: {error}");
        }
    }
}
