//! An Apache Pulsar of a rule's own, and a rig whose child runs on it.

use super::{far::Service, rig::Rig};
use crate::services::{
    http,
    pulsar::{ALL_FEATURES, Options, Pulsar},
};
use anyhow::{Result, bail};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};
use tokio::time::Instant;

/// How long the service may take to let go of a topic and to answer: it waits for what is being written.
const UNLOAD_MAX: Duration = Duration::from_secs(120);

/// Roots in one publish, and how many may be in flight: small, so that many faults find some and a repetition tells of its fault.
const BATCH: u64 = 10;
const WINDOW: u64 = 200;

/// How long nothing may go on: where other work takes the processor, a service was seen to need 80 s from its start to its first answer, and more than 60 s from
/// there to the first message.
const STUCK: Duration = Duration::from_secs(240);

/// Starts a service. Its memory is small, so that it runs beside builds.
pub(super) fn start() -> Result<Pulsar> {
    Pulsar::start_to_be_killed(&Options { settings: ALL_FEATURES, ..Options::default() })
}

/// Where the service is reached by this port.
pub(super) fn at(server: &Pulsar, port: u16) -> Service {
    let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
    Service { url: url("pulsar", port), admin_url: url("http", server.web_port), notes: None }
}

/// A rig in a new folder whose child runs on the service, which it reaches by this port.
pub(super) fn rig(folder: &Path, server: &Pulsar, port: u16) -> Result<Rig> {
    let mut rig = Rig::new(folder, None)?;
    // As a run has it, whose data directory outlives its processes.
    rig.job.service = Some(Service { notes: Some(folder.join("notes")), ..at(server, port) });
    (rig.job.batch, rig.job.window, rig.stuck) = (BATCH, WINDOW, STUCK);
    Ok(rig)
}

/// Asks the service to do something to a topic.
pub(super) fn act(server: &Pulsar, method: &str, topic: &str, what: &str) -> Result<()> {
    let path = format!("/admin/v2/persistent/public/default/{topic}/{what}");
    let (status, body) = http::act(method, server.web_port, &path, UNLOAD_MAX)?;
    if !(200..300).contains(&status) {
        bail!("`{path}` was answered with {status}: {body}");
    }
    Ok(())
}

/// Has the service let go of a topic: its producers and consumers are closed and must come again.
pub(super) fn unload(server: &Pulsar, topic: &str) -> Result<()> {
    act(server, "PUT", topic, "unload")
}

/// How often a service's console is looked at: a server without its bookie writes half a megabyte there each second.
const CONSOLE_LOOK: Duration = Duration::from_millis(100);

/// What the server says when the lock by which its bookie is registered is gone, before and behind the bookie's address.
const LOCK_LOST: [&str; 2] = ["Lock on resource /ledgers/available/", " was invalidated"];

/// Watches whether a service that was killed has its bookie back. The lock that registers the bookie of a standalone outlives its process. The next process
/// removes it and makes its own, and where the word of the removal comes only then, takes it for the loss of the new one, removes that and makes another, of
/// whose removal it hears in turn: hundreds of times a second, for up to two minutes, in one start of some ten (Pulsar 4.0.8, `ResourceLockImpl`). Meanwhile it can
/// make no ledger ("Not enough non-faulty bookies"), whoever asks.
pub(super) struct Bookie {
    console: File,
    rest: Vec<u8>,
    looked: Instant,
    lost: Option<Instant>,
}

impl Bookie {
    /// Looks at what the service says from now on.
    pub(super) fn watch(server: &Pulsar) -> Result<Self> {
        Self::by(&server.console())
    }

    fn by(console: &Path) -> Result<Self> {
        let mut console = File::open(console)?;
        console.seek(SeekFrom::End(0))?;
        Ok(Self { console, rest: Vec::new(), looked: Instant::now(), lost: None })
    }

    /// Looks again. What cannot be read now is read the next time.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() > CONSOLE_LOOK {
            let _ = self.read();
        }
    }

    /// When it was lost last, as far as was looked.
    pub(super) fn lost(&self) -> Option<Instant> {
        self.lost
    }

    fn read(&mut self) -> Result<()> {
        self.looked = Instant::now();
        self.console.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&self.rest[..whole]);
        let [before, behind] = LOCK_LOST;
        if text.lines().any(|line| line.contains(before) && line.contains(behind)) {
            self.lost = Some(self.looked);
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_bookie_is_lost_when_its_own_lock_is_from_now_on_and_also_in_a_line_that_comes_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut console = File::create(&path).unwrap();
        let mut say = |text: &str| console.write_all(text.as_bytes()).unwrap();
        say("Lock on resource /ledgers/available/127.0.0.1:3181 was invalidated. state Valid\n");
        let mut bookie = Bookie::by(&path).unwrap();
        for (text, lost) in [
            ("Successfully re-acquired missing lock at /ledgers/available/127.0.0.1:3181\n", false),
            ("Lock on resource /loadbalance/brokers/127.0.0.1:8080 was invalidated. state Valid\n", false),
            ("Lock on resource /ledgers/available/127.0.0.1:3181 was", false),
            (" invalidated. state Valid\n", true),
        ] {
            say(text);
            bookie.read().unwrap();
            assert_eq!(bookie.lost().is_some(), lost, "{text}");
        }
    }
}
