//! An Apache Pulsar of a rule's own, and a rig whose child runs on it.

use super::{far::Service, rig::Rig};
use crate::services::{
    http,
    pulsar::{ALL_FEATURES, Options, Pulsar},
};
use anyhow::{Result, bail};
use std::{path::Path, time::Duration};

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
