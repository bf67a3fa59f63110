//! Ties a child to the process that has started it: it does not outlive it, however that ends.

use super::super::{
    Common,
    exit::{CONFLICT, Failure},
};
use std::os::unix::process::parent_id;

/// How often a child looks whether its parent is still there, where the system does not tell: nobody waits for it.
#[cfg(not(target_os = "linux"))]
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// Ties this process to the one that has started it, if it was started as a child.
pub(crate) fn tie(common: &Common) -> Result<(), Failure> {
    let Some(parent) = common.child_of else { return Ok(()) };
    let gone = || Failure::new(CONFLICT, format!("the process {parent} that has started this one has ended"));
    watch(parent).map_err(|error| Failure::new(CONFLICT, format!("being tied to process {parent}: {error}")))?;
    // It may have ended before this was asked for.
    if parent_id() == parent { Ok(()) } else { Err(gone()) }
}

/// What is in hand is handled again by others, so there is no reason to end slowly.
#[cfg(target_os = "linux")]
fn watch(_parent: u32) -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "a thread that does nothing else")]
fn watch(parent: u32) -> std::io::Result<()> {
    let look = move || {
        while parent_id() == parent {
            std::thread::sleep(LOOK);
        }
        std::process::exit(i32::from(CONFLICT));
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(look).map(drop)
}
