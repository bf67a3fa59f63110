//! `leat dispatch`: a dispatcher by itself, on the embedded broker or on Pulsar, by a configuration or by an edge of the project.

mod args;
mod edge;

pub(crate) use args::Dispatch;

use crate::{
    args::{Global, Output},
    exit::{Code, Failure, Result},
    project,
};
use leatworks::{
    standalone::{self, DispatchError, Handled, Settings},
    worker::{ServeError, bind},
};
use leatworks_broker::{Broker, BrokerError, Embedded, EmbeddedOptions, ErrorKind};
use leatworks_pulsar::{PulsarBroker, PulsarOptions, Server, ServerOptions};
use std::{io::Write, process::ExitCode, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Ended by SIGINT, as a shell reports it.
const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
const TERMINATED: u8 = 143;

/// What an address of the embedded broker begins with; a folder follows.
const EMBEDDED: &str = "embedded:";

/// Dispatches until a signal ends it.
pub(crate) fn run(args: &Dispatch, global: &Global, color: bool) -> Result<ExitCode> {
    if let Some(target) = &args.edge {
        return edge::run(args, target, global.quiet, &project::load(global, color)?);
    }
    let settings = Settings::read(&args.config).map_err(|error| Failure::new(Code::Invalid, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(until_stopped(args, &settings, global));
    // A call to a worker that never answers must not keep the process.
    runtime.shutdown_background();
    ended
}

async fn until_stopped(args: &Dispatch, settings: &Settings, global: &Global) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let broker = open(settings).await?;
    let (stop, stopped) = watch::channel(0_u8);
    let sharing = share(settings, &broker, stopped.clone(), global).await?;
    let http = match settings.http {
        Some(address) => Some(bind(address, args.allow_remote).await.map_err(unserved)?),
        None => None,
    };
    if !global.quiet {
        eprintln!("{:>12} {} from {}", "Dispatching", settings.topics.join(", "), settings.url);
        if let Some(bound) = &http {
            eprintln!("{:>12} http://{}/tasks/TYPE/submit", "Taking", bound.address());
        }
    }
    tokio::spawn(async move {
        let code = tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
        };
        stop.send_replace(code);
    });
    let mut told = stopped.clone();
    let until = async move { _ = told.wait_for(|code| *code != 0).await };
    let output = args.output;
    standalone::run(broker.clone(), settings, http, move |handled| tell(output, handled), until).await.map_err(broken)?;
    if let Some(sharing) = sharing {
        // It ends by the same word, when what its clients have sent is safe.
        let _ = sharing.await;
    }
    broker.close().await.map_err(|error| unusable(&error))?;
    let code = *stopped.borrow();
    Ok(ExitCode::from(code))
}

async fn open(settings: &Settings) -> Result<Arc<dyn Broker>> {
    let Some(dir) = settings.url.strip_prefix(EMBEDDED) else {
        let options = PulsarOptions { url: settings.url.clone(), notes: settings.notes.clone(), ..PulsarOptions::default() };
        let broker = PulsarBroker::connect(options).await.map_err(|error| {
            let code = if error.is_retryable() { Code::Unreachable } else { Code::Invalid };
            Failure::new(code, format!("`mq.url`: {error} (it may also be `{EMBEDDED}DIRECTORY`)"))
        })?;
        return Ok(Arc::new(broker));
    };
    if settings.notes.is_some() {
        return Err(Failure::new(
            Code::Invalid,
            "`mq.notes` is for a Pulsar service: an embedded broker keeps them in its own directory",
        ));
    }
    let options = EmbeddedOptions::new(dir);
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let broker = opened.map_err(|error| Failure::new(Code::Internal, error))?.map_err(|error| unusable(&error))?;
    Ok(Arc::new(broker))
}

/// Serves an embedded broker to others, if that is asked for.
async fn share(
    settings: &Settings,
    broker: &Arc<dyn Broker>,
    mut stopped: watch::Receiver<u8>,
    global: &Global,
) -> Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(address) = settings.share else { return Ok(None) };
    if !settings.url.starts_with(EMBEDDED) {
        return Err(Failure::new(Code::Invalid, "`mq.share` is for an embedded broker: another is shared already"));
    }
    let server = Server::bind(address, broker.clone(), ServerOptions::default()).await;
    let server = server.map_err(|error| match error {
        leatworks_pulsar::ServeError::NotLoopback(_) => Failure::new(Code::Refused, error),
        error => Failure::new(Code::Unreachable, error),
    })?;
    if !global.quiet {
        eprintln!("{:>12} pulsar://{}", "Sharing", server.address());
    }
    Ok(Some(tokio::spawn(server.serve(async move { _ = stopped.wait_for(|code| *code != 0).await }))))
}

/// One line for each message. Whether somebody reads it is no concern of the messages.
fn tell(output: Output, handled: &Handled<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = match output {
        Output::Table => writeln!(out, "{handled}"),
        Output::Json => match serde_json::to_string(handled) {
            Ok(line) => writeln!(out, "{line}"),
            Err(_) => Ok(()),
        },
    };
}

fn unserved(error: ServeError) -> Failure {
    let code = if matches!(error, ServeError::NotLoopback(_)) { Code::Refused } else { Code::Unreachable };
    Failure::new(code, error)
}

fn broken(error: DispatchError) -> Failure {
    match error {
        DispatchError::Broker(error) => unusable(&error),
        DispatchError::Handler(_) => Failure::new(Code::Invalid, error),
        error => Failure::new(Code::Unreachable, error),
    }
}

fn unusable(error: &BrokerError) -> Failure {
    let code = match error.kind() {
        ErrorKind::Storage => Code::Storage,
        ErrorKind::Conflict => Code::Conflict,
        ErrorKind::Invalid => Code::Invalid,
        ErrorKind::Unavailable | ErrorKind::Full => Code::Unreachable,
        _ => Code::Internal,
    };
    Failure::new(code, error)
}
