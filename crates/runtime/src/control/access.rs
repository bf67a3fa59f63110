//! The way to a topology's queues: the running owner's socket, or the journal itself.

use super::{Outgoing, Request, Response, perform, socket};
use crate::{
    config::Config,
    host::{self, HostError},
};
use leatworks_broker::{Broker, ErrorKind};
use std::{io, path::PathBuf, sync::Arc};
use tokio::time::Instant;

/// The most messages of one request to send.
const CHUNK_MESSAGES_MAX: usize = 1024;

/// The most bytes of payloads in one request to send, unless a single message has more: one step of the broker.
const CHUNK_BYTES_MAX: usize = 4 << 20;

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

    /// Whether the broker keeps an account of roots, without which nobody can wait for the end of one. A running owner has one that does.
    pub fn keeps_accounts(&self) -> bool {
        match self {
            Self::Own(broker) => broker.promises().accounts,
            Self::Running(_) => true,
        }
    }

    /// Asks. Many messages are sent in several requests; if one of them fails, those before it are sent.
    ///
    /// # Errors
    /// [`AccessError::Socket`]; what the broker says is in the response.
    pub async fn ask(&self, request: Request) -> Result<Response, AccessError> {
        let Request::Send { topology, edge, messages, wait_ms } = request else { return self.ask_once(request).await };
        let began = Instant::now();
        let mut all = Vec::new();
        for messages in chunks(messages) {
            let wait_ms = wait_ms.map(|wait| wait.saturating_sub(began.elapsed().as_millis() as u64));
            let request = Request::Send { topology: topology.clone(), edge: edge.clone(), messages, wait_ms };
            match self.ask_once(request).await? {
                Response::Sent(sent) => all.extend(sent),
                Response::Failed { error, kind } if !all.is_empty() => {
                    return Ok(Response::failed(kind, format!("after {} messages were accepted: {error}", all.len())));
                }
                other => return Ok(other),
            }
        }
        Ok(Response::Sent(all))
    }

    async fn ask_once(&self, request: Request) -> Result<Response, AccessError> {
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

fn chunks(messages: Vec<Outgoing>) -> Vec<Vec<Outgoing>> {
    let mut chunks: Vec<Vec<Outgoing>> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        bytes += message.payload.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_MESSAGES_MAX && bytes <= CHUNK_BYTES_MAX => chunk.push(message),
            _ => {
                bytes = message.payload.len();
                chunks.push(vec![message]);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_and_have_every_message_once_in_order() {
        let half = CHUNK_BYTES_MAX / 2;
        for (sizes, lengths) in [
            (vec![], vec![]),
            (vec![1; CHUNK_MESSAGES_MAX + 1], vec![CHUNK_MESSAGES_MAX, 1]),
            (vec![half, half, 1, half], vec![2, 2]),
            (vec![3 * half, 1, 3 * half], vec![1, 1, 1]),
        ] {
            let messages: Vec<Outgoing> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| Outgoing { payload: "x".repeat(*size), key: Some(number.to_string()) })
                .collect();
            let chunks = chunks(messages.clone());
            assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
            assert_eq!(chunks.concat(), messages);
        }
    }
}
