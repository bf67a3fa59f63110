//! Serves a broker over the Pulsar binary protocol.
//!
//! A connection is a reader and a writer; each producer and each consumer on it is a task with a bounded queue, so that a slow one holds
//! bounded memory and stops only the reading of its own connection.

mod admin;
mod connection;
mod consumer;
mod deliver;
mod epochs;
mod ledgers;
mod limits;
mod members;
mod out;
mod place;
mod producer;
mod requests;
mod seats;
mod settle;
mod topics;

use crate::{auth::TokenKey, name::Namespace};
use leatworks_broker::{Broker, BrokerError, ErrorKind};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// How a broker is served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The one namespace that is served.
    pub namespace: Namespace,
    /// What tokens must be signed with; without it nobody is asked who they are, and only this machine may connect.
    pub token_key: Option<TokenKey>,
    /// Drop what a producer with a name of its own has sent before by its sequence, as Pulsar does with `deduplicationEnabled`.
    pub deduplicate: bool,
    /// The most connections at once. One beyond is closed before it is read.
    pub connections_max: usize,
    /// How long a client may take to say who it is.
    pub connect_time_max: Duration,
    /// How long a client may say nothing until it is asked whether it is still there, and how long it may then take to answer.
    pub keep_alive: Duration,
    /// The most topics outside of any topology, which clients make by naming them. One beyond is refused with `NotAllowed`.
    pub auto_topics_max: usize,
    /// After how long such a topic is removed that has no subscription, no producer, and nothing new; `None` keeps it.
    pub inactive_topics: Option<Duration>,
}

impl Default for ServerOptions {
    /// `public/default`, no tokens, 1,000 connections, 10 s to connect, 30 s to ping and 60 s for topics that nobody uses, as Pulsar's broker has it. 10,000 topics:
    /// some 10 MB, and each is looked at when a client names a topic for the first time.
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            token_key: None,
            deduplicate: false,
            connections_max: 1_000,
            connect_time_max: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
            auto_topics_max: 10_000,
            inactive_topics: Some(Duration::from_secs(60)),
        }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not on this machine alone, and there is no key to tell who may come.
    #[error(
        "`{0}` can be reached from other machines, and without a token key nobody is asked who they are: give one with `--token-key`"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("listening on `{address}`: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// What the server says that it is.
pub(crate) const VERSION: &str = concat!("Leatworks ", env!("CARGO_PKG_VERSION"));

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    admin: Option<TcpListener>,
    shared: Shared,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) options: ServerOptions,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: Option<SocketAddr>,
    pub(crate) topics: topics::Topics,
    pub(crate) ledgers: ledgers::Ledgers,
    pub(crate) seats: seats::Seats,
    pub(crate) members: members::Members,
    /// Bytes of messages that were read and are not published yet.
    pub(crate) incoming: Arc<Semaphore>,
    /// Tells the names apart that this server gives from those of any other.
    salt: u64,
    names: AtomicU64,
}

impl Shared {
    /// A number that no other in this process has.
    pub(crate) fn unique(&self) -> u64 {
        self.names.fetch_add(1, Relaxed)
    }

    /// A name for a producer without one, which nobody else has or has ever had.
    pub(crate) fn producer_name(&self) -> String {
        format!("{}{:016x}-{}", seats::ASSIGNED, self.salt, self.unique())
    }
}

/// Milliseconds since the Unix epoch; zero for a clock before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Server {
    /// Listens on an address.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(address: SocketAddr, broker: Arc<dyn Broker>, options: ServerOptions) -> Result<Self, ServeError> {
        let (listener, address) = listen(address, &options).await?;
        let mut salt = [0u8; 8];
        // Without randomness a name could be given twice, and messages be dropped as repetitions.
        getrandom::fill(&mut salt)
            .map_err(|error| BrokerError::new(ErrorKind::Unavailable, format!("no random bytes for names: {error}")))?;
        topics::remove_readers(broker.as_ref()).await?;
        let ledgers = ledgers::Ledgers::load(broker.as_ref()).await?;
        let shared = Shared {
            broker,
            options,
            address,
            admin_address: None,
            topics: topics::Topics::default(),
            ledgers,
            seats: seats::Seats::default(),
            members: members::Members::default(),
            incoming: Arc::new(Semaphore::new(limits::INCOMING_BYTES_MAX)),
            salt: u64::from_le_bytes(salt),
            names: AtomicU64::new(0),
        };
        Ok(Self { listener, admin: None, shared })
    }

    /// Serves a part of Pulsar's admin API too, over HTTP at another address.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn with_admin(mut self, address: SocketAddr) -> Result<Self, ServeError> {
        let (listener, address) = listen(address, &self.shared.options).await?;
        self.admin = Some(listener);
        self.shared.admin_address = Some(address);
        Ok(self)
    }

    /// The address, with the port that was given if zero was asked for.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The address of the admin API, if it is served, with the port that was given.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.shared.admin_address
    }

    /// Serves until `stop` resolves. Then it takes nothing in any more, and what was taken is published and acknowledged, within a limit.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { listener, admin, shared } = self;
        let shared = Arc::new(shared);
        let (stopping, stopped) = watch::channel(false);
        let mut asides = JoinSet::new();
        if let Some(listener) = admin {
            asides.spawn(admin::serve(shared.clone(), listener, stopped.clone()));
        }
        let cleaning = tokio::spawn(topics::clean(shared.clone()));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => connect(&shared, &mut connections, stream, peer, &stopped),
                    // Too many open files, most likely: that passes.
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(limits::ACCEPT_RETRY).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        cleaning.abort();
        stopping.send_replace(true);
        let drained = async {
            while connections.join_next().await.is_some() {}
            while asides.join_next().await.is_some() {}
        };
        if tokio::time::timeout(limits::DRAIN_TIME_MAX, drained).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "clients that do not let go are cut off; what they hold is delivered again"
            );
        }
    }
}

async fn listen(address: SocketAddr, options: &ServerOptions) -> Result<(TcpListener, SocketAddr), ServeError> {
    if !address.ip().is_loopback() && options.token_key.is_none() {
        return Err(ServeError::NotLoopback(address));
    }
    let failed = |error| ServeError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn connect(
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    peer: SocketAddr,
    stopped: &watch::Receiver<bool>,
) {
    let limit = shared.options.connections_max;
    if connections.len() >= limit {
        tracing::warn!(%peer, limit, "refused: there are as many connections as may be");
        return;
    }
    connections.spawn(connection::run(shared.clone(), stream, peer, stopped.clone()));
}
