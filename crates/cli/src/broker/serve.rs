//! `leat broker serve`: serves the embedded broker over the Pulsar protocol.

use crate::{
    args::{Global, Level},
    exit::{Code, Failure, Result},
};
use clap::{Args, ValueHint};
use leatworks_broker::{Broker as _, BrokerError, Durability, Embedded, EmbeddedOptions, ErrorKind};
use leatworks_pulsar::{ServeError, Server, ServerOptions, TokenKey};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};

/// Ended by SIGINT, as a shell reports it.
const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
const TERMINATED: u8 = 143;

/// How the broker is served.
#[derive(Debug, Args)]
pub(crate) struct BrokerServe {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6650")]
    pub(crate) listen: SocketAddr,
    /// Serve a part of Pulsar's admin API over HTTP at this address too, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,
    /// The journal's folder, made if it is not there
    #[arg(long, default_value = "journal", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// What an acknowledged write survives
    #[arg(long, value_enum, default_value_t = Level::Power)]
    pub(crate) durability: Level,
    /// Ask for tokens signed with this key: a file with a secret, or with an RSA public key in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_key: Option<PathBuf>,
    /// Drop what producers with a name of their own send again with a sequence that is not higher
    #[arg(long)]
    pub(crate) deduplicate: bool,
    /// The most topics that clients may make by naming them, or by the admin API; each takes about 1 KiB
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    pub(crate) topics_max: usize,
}

impl From<Level> for Durability {
    fn from(level: Level) -> Self {
        match level {
            Level::Power => Self::Power,
            Level::Interval => Self::Interval,
            Level::Process => Self::Process,
            Level::Memory => Self::Memory,
        }
    }
}

pub(super) async fn until_stopped(args: BrokerServe, global: &Global) -> Result<ExitCode> {
    let token_key = args.token_key.as_deref().map(TokenKey::read).transpose();
    let token_key = token_key.map_err(|error| Failure::new(Code::Invalid, error))?;
    // Before the journal is touched: it would be refused anyway.
    let open_to_all = [Some(args.listen), args.admin].into_iter().flatten().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (open_to_all, &token_key) {
        return Err(Failure::new(Code::Refused, ServeError::NotLoopback(address)));
    }
    if args.dir.exists() && !args.dir.is_dir() {
        let text = format!("`{}` is a file, and a journal is a folder: name another with --dir", args.dir.display());
        return Err(Failure::new(Code::Invalid, text));
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = EmbeddedOptions { durability: args.durability.into(), ..EmbeddedOptions::new(args.dir.clone()) };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let broker = opened.map_err(|error| Failure::new(Code::Internal, error))?.map_err(|error| broken(&error))?;
    let failed = broker.failed();
    let options =
        ServerOptions { token_key, deduplicate: args.deduplicate, auto_topics_max: args.topics_max, ..ServerOptions::default() };
    let mut server = Server::bind(args.listen, Arc::new(broker.clone()), options).await.map_err(unserved)?;
    if let Some(address) = args.admin {
        server = server.with_admin(address).await.map_err(unserved)?;
    }
    if !global.quiet {
        let (level, dir) = (broker.durability(), args.dir.display());
        eprintln!("{:>12} on pulsar://{}, durability {level}, journal in {dir}", "Listening", server.address());
        if let Some(address) = server.admin_address() {
            eprintln!("{:>12} on http://{address}", "Admin API");
        }
    }
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let stop = async move {
        let code = tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
        };
        // It is received below, unless the journal fails meanwhile.
        let _ = tell.send(code);
    };
    tokio::select! {
        () = server.serve(stop) => {}
        error = failed => return Err(broken(&error)),
    }
    broker.close().await.map_err(|error| broken(&error))?;
    Ok(ExitCode::from(told.try_recv().unwrap_or_default()))
}

fn unserved(error: ServeError) -> Failure {
    match &error {
        ServeError::NotLoopback(_) => Failure::new(Code::Refused, error),
        ServeError::Broker(inner) => broken(inner),
        _ => Failure::new(Code::Unreachable, error),
    }
}

fn broken(error: &BrokerError) -> Failure {
    let code = match error.kind() {
        ErrorKind::Storage => Code::Storage,
        ErrorKind::Conflict => Code::Conflict,
        ErrorKind::Full => Code::Unreachable,
        _ => Code::Internal,
    };
    Failure::new(code, error)
}
