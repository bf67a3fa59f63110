//! An embedded broker that is served, with its admin API.

use leatworks_broker::{Broker, Durability, Embedded, EmbeddedOptions, Limits};
use leatworks_pulsar::{PulsarOptions, Server, ServerOptions};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::oneshot, task::JoinHandle};

/// A service, as another process would be.
pub(crate) struct Service {
    pub(crate) broker: Embedded,
    notes: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Service {
    /// Serves the journal in a folder.
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_with(dir, Limits::default()).await
    }

    /// The same with other limits.
    pub(crate) async fn start_with(dir: &Path, limits: Limits) -> Self {
        Self::start_at(dir, limits, "127.0.0.1:0".parse().unwrap()).await
    }

    /// Stops, and starts again where it was, with other limits.
    pub(crate) async fn restart_with(self, dir: &Path, limits: Limits) -> Self {
        let address = self.address;
        self.stop().await;
        Self::start_at(dir, limits, address).await
    }

    async fn start_at(dir: &Path, limits: Limits, address: SocketAddr) -> Self {
        // What is written outlives the service, and no power is cut here.
        let options = EmbeddedOptions { durability: Durability::Process, limits, ..EmbeddedOptions::new(dir) };
        let broker = tokio::task::spawn_blocking(move || Embedded::open(options)).await.unwrap().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let options = ServerOptions { deduplicate: true, ..ServerOptions::default() };
        let server = Server::bind(address, Arc::new(broker.clone()), options).await.unwrap().with_admin(any).await.unwrap();
        let (address, admin) = (server.address(), server.admin_address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { broker, notes: dir.join("attempts"), address, admin, stop, serving }
    }

    /// How to reach it.
    pub(crate) fn options(&self) -> PulsarOptions {
        PulsarOptions {
            url: format!("pulsar://{}", self.address),
            admin_url: Some(format!("http://{}", self.admin)),
            notes: Some(self.notes.clone()),
            ..PulsarOptions::default()
        }
    }

    /// Ends it; the journal can be opened again.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.await.unwrap();
        self.broker.close().await.unwrap();
    }
}
