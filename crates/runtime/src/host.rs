//! Opens the broker that the configuration names.

use crate::config::Config;
use leatworks_broker::{Broker, BrokerError, Durability, Embedded, EmbeddedOptions, ErrorKind, Limits, MemoryBroker};
use leatworks_pulsar::{PulsarBroker, PulsarError};
use std::{io, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The brokers that can be named.
const BROKERS: [&str; 2] = ["embedded", "memory"];

/// What the address of a Pulsar service begins with.
const PULSAR: [&str; 2] = ["pulsar://", "pulsar+ssl://"];

/// How long a Pulsar service that cannot be reached is asked again: one that starts on a quiet machine needs 14 s.
const CONNECT_WAIT: Duration = Duration::from_secs(30);

/// How long between two such tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// The broker could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No broker has this name, or no level of durability.
    #[error("{0}")]
    Unknown(String),
    /// The data directory cannot be made.
    #[error("making the data directory `{path}`: {error}")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The broker says no.
    #[error("opening the journal in `{path}`: {error}")]
    Broker {
        /// The directory of the journal.
        path: String,
        /// Why.
        error: BrokerError,
    },
    /// The Pulsar service cannot be used.
    #[error("the Pulsar service at `{url}`: {error}")]
    Connect {
        /// Its address.
        url: String,
        /// Why.
        error: PulsarError,
    },
}

/// Opens the broker, which makes this process its owner.
///
/// # Errors
/// See [`HostError`]; [`leatworks_broker::ErrorKind::Conflict`] inside if another process owns the journal.
pub async fn open_broker(config: &Config) -> Result<Arc<dyn Broker>, HostError> {
    match config.broker.as_str() {
        "memory" => Ok(Arc::new(MemoryBroker::new(Limits::default()))),
        "embedded" => embedded(config).await,
        url if PULSAR.iter().any(|scheme| url.starts_with(scheme)) => pulsar(config).await,
        other => Err(HostError::Unknown(known(other).err().unwrap_or_default())),
    }
}

/// Whether there is a broker of this name, or at such an address; it is not opened.
///
/// # Errors
/// What may stand there.
pub(crate) fn known(broker: &str) -> Result<(), String> {
    if BROKERS.contains(&broker) || PULSAR.iter().any(|scheme| broker.starts_with(scheme)) {
        return Ok(());
    }
    let hint = crate::settings::hint(broker, &BROKERS);
    let there_are = "there are `embedded`, `memory`, and `pulsar://HOST:PORT` or `pulsar+ssl://HOST:PORT`";
    Err(format!("unknown broker `{broker}`{hint}: {there_are}"))
}

/// Whether the broker that is named can be opened, as far as that is known without asking it.
pub(crate) fn check(config: &Config) -> Result<(), HostError> {
    known(&config.broker).map_err(HostError::Unknown)?;
    let connect = |error| HostError::Connect { url: config.pulsar.url.clone(), error };
    if config.is_pulsar() { config.pulsar.check().map_err(connect) } else { Ok(()) }
}

/// Connects to a Pulsar service. One that is away is waited for, a refusal is final.
async fn pulsar(config: &Config) -> Result<Arc<dyn Broker>, HostError> {
    let url = &config.pulsar.url;
    let deadline = Instant::now() + CONNECT_WAIT;
    let mut told = false;
    loop {
        match PulsarBroker::connect(config.pulsar.clone()).await {
            Ok(broker) => return Ok(Arc::new(broker)),
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(url, %error, wait = ?CONNECT_WAIT, "the Pulsar service cannot be reached and is waited for");
                }
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            Err(error) => return Err(HostError::Connect { url: url.clone(), error }),
        }
    }
}

/// How long to wait for a journal that somebody else holds. A command such as `status` holds it for some hundredths of a second; a run that
/// starts, or ends, needs a moment until its control socket answers, or its journal is closed.
const OWNER_WAIT: Duration = Duration::from_secs(3);

/// How often it is tried meanwhile.
const OWNER_POLL: Duration = Duration::from_millis(50);

/// Opens the broker as [`open_broker`] does, and tries again for a moment while another process owns the journal, unless `give_up` says that
/// this is no passing owner.
///
/// # Errors
/// Those of [`open_broker`].
pub(crate) async fn open_when_free(
    config: &Config,
    mut give_up: impl AsyncFnMut() -> bool,
) -> Result<Arc<dyn Broker>, HostError> {
    let deadline = Instant::now() + OWNER_WAIT;
    loop {
        let error = match open_broker(config).await {
            Err(error @ HostError::Broker { .. }) => error,
            opened => return opened,
        };
        let held = matches!(&error, HostError::Broker { error, .. } if error.kind() == ErrorKind::Conflict);
        if !held || Instant::now() >= deadline || give_up().await {
            return Err(error);
        }
        tokio::time::sleep(OWNER_POLL).await;
    }
}

async fn embedded(config: &Config) -> Result<Arc<dyn Broker>, HostError> {
    let durability: Durability = config.durability.parse().map_err(|error: BrokerError| HostError::Unknown(error.to_string()))?;
    let dir = config.journal();
    let path = dir.display().to_string();
    std::fs::create_dir_all(&config.data)
        .map_err(|error| HostError::Directory { path: config.data.display().to_string(), error })?;
    let options = EmbeddedOptions { durability, elision: config.elision, ..EmbeddedOptions::new(dir) };
    // It reads what is there, which takes a moment when that is much.
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let opened =
        opened.unwrap_or_else(|error| Err(BrokerError::new(ErrorKind::Storage, format!("opening the journal failed: {error}"))));
    match opened {
        Ok(broker) => Ok(Arc::new(broker)),
        Err(error) => Err(HostError::Broker { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    async fn opened(broker: &str) -> Result<Arc<dyn Broker>, HostError> {
        let data = tempfile::tempdir().unwrap();
        let flags = Flags { data: Some(data.path().to_owned()), broker: Some(broker.to_owned()), ..Flags::default() };
        open_broker(&Config::load("p", &flags).unwrap()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_cannot_be_is_refused_with_what_may_stand_there() {
        for (broker, told) in [
            ("memry", "did you mean `memory`?"),
            ("http://127.0.0.1:1", "`pulsar://HOST:PORT`"),
            ("pulsar://", "no address"),
            ("pulsar+ssl://127.0.0.1:1", "no `ca_file`"),
            // Nobody listens there, and the time passes by itself.
            ("pulsar://127.0.0.1:1", "connecting to"),
        ] {
            let error = opened(broker).await.err().expect(broker).to_string();
            assert!(error.contains(told), "{broker}: {error}");
        }
    }
}
