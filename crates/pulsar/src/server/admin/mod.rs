//! The part of Pulsar's admin API that a client of the broker needs, and that tells people how it stands.
//!
//! It makes, changes and removes topics and subscriptions, which the binary protocol has no commands for.

mod answer;
mod http;
mod limits;
mod properties;
mod routes;
mod standing;
mod subscriptions;
mod topics;

pub(crate) use properties::is_kept as is_made;

use super::{Shared, limits::ACCEPT_RETRY};
use limits::CONNECTIONS_MAX;
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Answers until the server stops, and then what has been asked for until then.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    // It fails when the server is gone, which is the same.
    let stop = {
        let mut stopped = stopped.clone();
        async move { drop(stopped.wait_for(|stopped| *stopped).await) }
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((_, peer)) if connections.len() >= CONNECTIONS_MAX => {
                    tracing::warn!(%peer, limit = CONNECTIONS_MAX, "refused by the admin API: there are as many connections as may be");
                }
                Ok((stream, _)) => drop(connections.spawn(http::connection(shared.clone(), stream, stopped.clone()))),
                // Too many open files, most likely: that passes.
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin API cannot be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
