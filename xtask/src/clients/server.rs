//! The servers that clients are run against: this project's, and the real one.

use crate::{
    ci::run_command,
    services::{
        cache,
        pulsar::{ALL_FEATURES, Options, Pulsar, Secret, free_port},
        wait_for,
    },
};
use anyhow::{Result, bail};
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// An empty broker is there within 50 ms; a machine that is busy with builds may leave it waiting for some seconds.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Which server is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The broker of this repository.
    Leat,
    /// Apache Pulsar.
    Pulsar,
}

/// A server that runs until this is dropped.
pub(crate) enum Running {
    Leat(Leat),
    Pulsar(Pulsar),
}

impl Against {
    /// Starts it on a free port with an empty store, with tokens asked for if there is a secret.
    pub(crate) fn start(self, secret: Option<&Secret>) -> Result<Running> {
        Ok(match self {
            Self::Leat => Running::Leat(Leat::start(&build("leatworks-cli", "leat", Profile::Dev)?, &["--deduplicate"], secret)?),
            Self::Pulsar => Running::Pulsar(Pulsar::start(&Options { settings: ALL_FEATURES, secret, ..Options::default() })?),
        })
    }

    /// The same for measurements: built for speed, and with nothing switched on that is not by default.
    pub(crate) fn start_for_measurements(self) -> Result<Running> {
        Ok(match self {
            Self::Leat => Running::Leat(Leat::start(&build("leatworks-cli", "leat", Profile::Release)?, &[], None)?),
            Self::Pulsar => Running::Pulsar(Pulsar::start(&Options { as_shipped: true, ..Options::default() })?),
        })
    }
}

impl Running {
    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        let port = match self {
            Self::Leat(leat) => leat.port,
            Self::Pulsar(pulsar) => pulsar.port,
        };
        format!("pulsar://127.0.0.1:{port}")
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Leat(leat) => leat.process.id(),
            Self::Pulsar(pulsar) => pulsar.pid(),
        }
    }
}

/// `leat broker`, at level `power`.
pub(crate) struct Leat {
    process: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Leat {
    /// Starts it with an empty journal.
    fn start(binary: &Path, options: &[&str], secret: Option<&Secret>) -> Result<Self> {
        let port = free_port()?;
        let folder = cache()?.join(format!("leat-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(binary);
        command.args(["broker", "--listen", &format!("127.0.0.1:{port}"), "--durability", "power", "--dir"]);
        command.arg(folder.join("journal")).args(options).stdin(Stdio::null());
        if let Some(secret) = secret {
            let key = folder.join("key");
            std::fs::write(&key, secret.key)?;
            command.arg("--token-key").arg(key);
        }
        let mut leat = Self { process: command.spawn()?, folder, port };
        until_it_listens(&mut leat.process, port)?;
        Ok(leat)
    }
}

impl Drop for Leat {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How a binary is built: quickly for tests, or to be quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds a binary of the workspace, and gives its path.
pub(crate) fn build(package: &str, binary: &str, profile: Profile) -> Result<PathBuf> {
    let (name, folder) = if profile == Profile::Dev { ("dev", "debug") } else { ("release", "release") };
    let options = ["build", "--quiet", "--locked", "--profile", name, "--package", package, "--bin", binary];
    run_command(Command::new(env!("CARGO")).args(options))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join(folder).join(binary))
}

/// Waits until a process listens on a port of loopback.
pub(crate) fn until_it_listens(process: &mut Child, port: u16) -> Result<()> {
    wait_for("listening", START_LIMIT, || {
        if let Some(status) = process.try_wait()? {
            bail!("the server ended with {status}");
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })
}
