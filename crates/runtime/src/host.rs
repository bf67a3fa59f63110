//! Opens the broker that the configuration names.

use crate::config::Config;
use leatworks_broker::{Broker, BrokerError, Limits, MemoryBroker};
use std::{io, sync::Arc};

/// The brokers that can be named.
const BROKERS: [&str; 2] = ["embedded", "memory"];

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
}

/// Opens the broker, which makes this process its owner.
///
/// # Errors
/// See [`HostError`]; [`leatworks_broker::ErrorKind::Conflict`] inside if another process owns the journal.
pub async fn open_broker(config: &Config) -> Result<Arc<dyn Broker>, HostError> {
    match config.broker.as_str() {
        "memory" => Ok(Arc::new(MemoryBroker::new(Limits::default()))),
        "embedded" => Err(HostError::Unknown("the embedded broker is not built in".to_owned())),
        other => Err(HostError::Unknown(format!("unknown broker `{other}`{}", crate::settings::hint(other, &BROKERS)))),
    }
}
