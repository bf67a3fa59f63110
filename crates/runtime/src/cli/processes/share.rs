//! Makes a broker of this process available to its children.

use super::super::exit::{CONNECT, Failure, INTERNAL};
use leatworks_broker::Broker;
use leatworks_pulsar::{PulsarOptions, Server, ServerOptions, TokenKey};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{sync::oneshot, task::JoinHandle};

/// A broker that is served to the children.
pub(super) struct Share {
    /// How they reach it, as the variables of their configuration.
    pub(super) env: Vec<(&'static str, String)>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Share {
    /// Serves a broker on this machine, at ports that are free, to those who have a token that was never there before.
    pub(super) async fn start(broker: &Arc<dyn Broker>) -> Result<Self, Failure> {
        let failed = |error: leatworks_pulsar::ServeError| Failure::new(CONNECT, format!("serving the broker: {error}"));
        let (key, token) = TokenKey::random().map_err(|error| Failure::new(INTERNAL, format!("making a token: {error}")))?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // What a dispatcher sends again after a lost connection must not be there twice.
        let options = ServerOptions { token_key: Some(key), deduplicate: true, ..ServerOptions::default() };
        // Whatever the project's configuration says of another service.
        let PulsarOptions { tenant, namespace, .. } = PulsarOptions::default();
        let server = Server::bind(any, broker.clone(), options).await.map_err(failed)?;
        let server = server.with_admin(any).await.map_err(failed)?;
        let admin = server.admin_address().ok_or_else(|| Failure::new(INTERNAL, "the admin API has no address"))?;
        let env = vec![
            ("LEAT_BROKER__URL", format!("pulsar://{}", server.address())),
            ("LEAT_BROKER__ADMIN_URL", format!("http://{admin}")),
            ("LEAT_BROKER__TENANT", tenant),
            ("LEAT_BROKER__NAMESPACE", namespace),
            ("LEAT_BROKER__TOKEN", token),
        ];
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { _ = stopped.await }));
        Ok(Self { env, stop, serving })
    }

    /// Ends it when what the children have sent is safe.
    pub(super) async fn end(self) {
        // If it has ended by itself, there is nothing to be said to it.
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}
