//! `leat controller`.

use super::{
    args::{Controller, LogFormat},
    block_on,
};
use crate::exit::{Code, Failure, Result};
use leatworks_controller::{Connected, Options, brokers::Pulsars, lease::BEHIND_NAME, plan::Settings};
use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the controller until a signal ends it, which is its usual end.
pub(crate) fn control(args: &Controller) -> Result<ExitCode> {
    log(args.log_format);
    block_on(async {
        let Connected { client, namespace } = leatworks_controller::connect(args.context.context.as_deref()).await?;
        let namespaces = match (args.all_namespaces, args.namespace.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![namespace.clone()],
            (false, false) => args.namespace.clone(),
        };
        let options = Options {
            namespaces,
            lease_namespace: args.lease_namespace.clone().unwrap_or(namespace),
            lease_name: args.lease.clone(),
            identity: identity(args.identity.as_deref()),
            listen: args.listen,
            settings: Settings { leat_image: args.leat_image.clone(), jobs_account: args.jobs_account.clone() },
        };
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let brokers = Arc::new(Pulsars::default());
        leatworks_controller::run(client, brokers, options, stop)
            .await
            .map_err(|error| Failure::new(Code::Unreachable, error))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// A name that no other process has, even one of the same pod that was started anew.
fn identity(name: Option<&str>) -> String {
    let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| "leat".to_owned());
    let name = name.map_or_else(host, str::to_owned);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}{BEHIND_NAME}{:x}{:x}", now.as_nanos() & 0xffff_ffff, std::process::id())
}

/// Each line of a reconciliation names its topology.
fn log(format: LogFormat) {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("LEAT_LOG").unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
    }
}
