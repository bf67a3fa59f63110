//! `--listen`: other programs use the broker of a run over the Pulsar protocol.

use super::exit::{CONNECT, Failure, INVALID, REFUSED};
use crate::{
    def::TopologyDef,
    run::Stop,
    topics::{self, TopologyRef},
};
use leatworks_broker::Broker;
use leatworks_pulsar::{ServeError, Server, ServerOptions, TokenKey};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};

/// Where to listen, and to whom.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct ListenFlags {
    /// Serve the broker to other programs over the Pulsar protocol at this address, such as 127.0.0.1:6650; implies --serve
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// Ask them for tokens signed with this key: a file with a secret, or with an RSA public key in PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_key: Option<PathBuf>,
}

impl ListenFlags {
    /// These, and those that stood before the command.
    pub(super) fn over(self, before: Self) -> Self {
        Self { listen: self.listen.or(before.listen), token_key: self.token_key.or(before.token_key) }
    }

    /// Listens, if that is asked for, until `stop` says that the run ends.
    pub(super) async fn start(
        &self,
        topology: &'static TopologyDef,
        broker: &Arc<dyn Broker>,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<Option<Listening>, Failure> {
        let Some(address) = self.listen else { return Ok(None) };
        let token_key = self.token_key.as_deref().map(TokenKey::read).transpose();
        let options =
            ServerOptions { token_key: token_key.map_err(|error| Failure::new(INVALID, error))?, ..ServerOptions::default() };
        // Before anybody can name one of them, which would make it a topic outside of any topology.
        topics::create(broker.as_ref(), &TopologyRef::from(topology)).await?;
        let server = Server::bind(address, broker.clone(), options).await.map_err(|error| match error {
            ServeError::Broker(error) => error.into(),
            ServeError::NotLoopback(_) => Failure::new(REFUSED, error),
            _ => Failure::new(CONNECT, error),
        })?;
        let address = server.address();
        let task = tokio::spawn(server.serve(async move {
            // If the listener of signals were gone, nobody could stop the server.
            if stop.wait_for(|stop| *stop != Stop::Run).await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Ok(Some(Listening { address, task }))
    }
}

/// A server beside a run; dropping it cuts its clients off.
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    /// Waits until what its clients have sent is safe, if it has been told to stop.
    pub(super) async fn end(mut self, stop: &watch::Receiver<Stop>) {
        if *stop.borrow() == Stop::Drain {
            // A panic in it has been printed; there is nothing to add.
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}
