//! The command line of a task's binary.

use super::{
    Common,
    exit::{Failure, INTERNAL, INVALID, OK},
    log, processes,
    signals::Signals,
    topology::usage,
};
use crate::{
    config::Config,
    def::{Kind, TaskDef},
    plan::TaskPlan,
    run::Stop,
    setup::Results,
    worker::{self, Bound},
};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{net::SocketAddr, process::ExitCode};

/// Where a worker listens unless it is told otherwise: any free port of this machine, which it prints.
const LISTEN: &str = "127.0.0.1:0";

#[derive(Parser)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the task over HTTP: POST / takes a message, /healthz and /readyz tell how it is
    Serve {
        /// Address to listen on
        #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
        listen: SocketAddr,
        /// Listen on an address that other machines can reach; nobody is asked who they are
        #[arg(long)]
        allow_remote: bool,
        /// Take calls from the listening socket that is standard input
        #[arg(long, hide = true, conflicts_with = "listen")]
        inherit: bool,
    },
}

/// Runs the command line of a task.
pub(crate) fn main(task: &'static TaskDef) -> ExitCode {
    let example = format!("Example:\n  {} serve --listen 127.0.0.1:8080", task.name);
    let command = Cli::command()
        .name(task.name)
        .version(task.version)
        .about(format!("The task `{}` of the topology `{}`", task.name, task.topology))
        .after_help(example);
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log::init(cli.common.verbose, cli.common.quiet, cli.common.log_format, &[("topology", task.topology), ("task", task.name)]);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(INTERNAL, format!("starting threads: {error}")).report(),
    };
    let Command::Serve { listen, allow_remote, inherit } = cli.command;
    let served = runtime.block_on(async {
        processes::tie(&cli.common)?;
        let bound = if inherit { worker::inherited()? } else { worker::bind(listen, allow_remote).await? };
        serve(task, &cli.common, bound).await
    });
    // A task that never awaits must not keep the process.
    runtime.shutdown_background();
    match served {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

async fn serve(task: &'static TaskDef, common: &Common, bound: Bound) -> Result<u8, Failure> {
    let open = match task.kind {
        Kind::Rust(open) => open,
        Kind::Fold(_) => return Err(Failure::new(INVALID, "a fold keeps a state, so its topology runs it")),
        Kind::Worker { url } => return Err(Failure::new(INVALID, format!("this task is served elsewhere: at `{url}`"))),
        Kind::Job(_) => return Err(Failure::new(INVALID, "a job is a program that its topology starts for each message")),
        Kind::Source | Kind::Sink(_) => {
            return Err(Failure::new(INVALID, "a source or sink that comes with Leatworks is run by its topology"));
        }
    };
    let config = Config::load(task.project, &common.flags())?;
    let plan: TaskPlan = config.task_plan(task)?;
    let results = Results::default();
    let setup = crate::Setup::new(task, plan.settings.clone(), config.data.clone()).with_results(results.clone());
    let mut signals = Signals::listen(common.child_of.is_none())
        .map_err(|error| Failure::new(INTERNAL, format!("listening for signals: {error}")))?;
    if !common.quiet || common.child_of.is_none() {
        super::output::tell(&format!("{:>12} {} on http://{}", "Serving", task.name, bound.address()));
    }
    let mut stop = signals.stop.clone();
    let first = async move {
        // If the listener of signals were gone, nobody could stop the server.
        if stop.wait_for(|stop| *stop != Stop::Run).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let second = async {
        if signals.stop.wait_for(|stop| *stop == Stop::Now).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let opening = async {
        let handler = open(&setup).await?;
        processes::is_serving(common);
        Ok(handler)
    };
    tokio::select! {
        served = bound.serve(plan, opening, first) => served?,
        () = second => {}
    }
    if common.child_of.is_some() && !common.quiet {
        // Whoever runs the topology cannot know it.
        results.all().iter().for_each(|(_, path)| super::output::tell(&format!("{:>12} in {}", "Results", path.display())));
    }
    Ok(signals.code().unwrap_or(OK))
}
