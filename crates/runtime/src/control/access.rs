//! The way to a topology's queues: the running owner's socket, or the journal itself.

use super::{Request, Response, perform, socket};
use crate::{
    config::Config,
    host::{self, HostError},
};
use leatworks_broker::{Broker, ErrorKind};
use std::{io, path::PathBuf, sync::Arc};

/// Nobody could be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The broker could not be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A run owns the journal, but does not answer.
    #[error("another process owns the data directory `{data}`, but does not answer on its control socket: {error}")]
    Socket {
        /// The data directory.
        data: String,
        /// Why.
        error: io::Error,
    },
    /// The broker is one that only lives inside a run.
    #[error("the memory broker lives inside its run only: there is nothing to look into from outside")]
    Memory,
}

/// The way to a topology's queues.
pub enum Access {
    /// This process has opened the journal.
    Own(Arc<dyn Broker>),
    /// A running owner answers for this data directory.
    Running(PathBuf),
}

impl Access {
    /// Finds out who owns the journal: this process from now on, or a running one.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn open(config: &Config) -> Result<Self, AccessError> {
        if config.broker == "memory" {
            return Err(AccessError::Memory);
        }
        // An owner that answers is a run; one that does not may be about to start, to end, or be a command like this one.
        match host::open_when_free(config, async || socket::answers(&config.data).await).await {
            Ok(broker) => Ok(Self::Own(broker)),
            Err(HostError::Broker { error, .. }) if error.kind() == ErrorKind::Conflict => Ok(Self::Running(config.data.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a run owns the journal, and so handles what is sent.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Asks.
    ///
    /// # Errors
    /// [`AccessError::Socket`]; what the broker says is in the response.
    pub async fn ask(&self, request: Request) -> Result<Response, AccessError> {
        match self {
            Self::Own(broker) => Ok(perform(broker.as_ref(), request, false).await),
            Self::Running(data) => {
                socket::ask(data, &request).await.map_err(|error| AccessError::Socket { data: data.display().to_string(), error })
            }
        }
    }

    /// Releases the journal.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn close(self) -> leatworks_broker::Result<()> {
        match self {
            Self::Own(broker) => broker.close().await,
            Self::Running(_) => Ok(()),
        }
    }
}
