//! The command line of a topology's binary.

use super::{
    Common, check,
    dispatch::{self, DispatchFlags},
    exit::{DEAD_LETTERS, Failure, INTERNAL, INVALID, OK, OUTPUT_CLOSED, USAGE},
    inspect::{self, DlqCommand, Send},
    listen::ListenFlags,
    log,
    output::{self, Output},
    processes::{self, Processes},
    progress,
    signals::Signals,
    trace,
};
use crate::{
    Counts,
    config::Config,
    control,
    def::TopologyDef,
    host,
    plan::{Plan, TaskPlan},
    run::{self, Prepared, Report, RunOptions},
    settings::DurationText,
    trace::Writer,
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use leatworks_broker::Broker;
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    run: RunFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the topology until all is done (this is also what happens without a command)
    Run(Run),
    /// Run one dispatcher of one edge, which calls a worker over HTTP
    Dispatch(DispatchFlags),
    /// Draw the graph
    Graph {
        /// In which form
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check the configuration, the settings of the tasks, and that sources and sinks can be opened; nothing is made
    Check,
    /// Send messages to a root task
    Send(Send),
    /// Show the account and the queues
    Status,
    /// Look at dead letters, give them back, or drop them
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Show what has become of a root message, step by step
    Trace {
        /// The id of the root, or of a message that came of it
        id: String,
    },
}

#[derive(Args)]
struct Run {
    /// File that the source reads in place of the configured one; `-` is standard input
    input: Option<String>,
    #[command(flatten)]
    flags: RunFlags,
}

#[derive(Args, Clone, Default)]
struct RunFlags {
    /// Message that a topology without a source is started with
    #[arg(long, value_name = "JSON")]
    message: Option<String>,
    /// Go on when all is done, for messages that others send
    #[arg(long)]
    serve: bool,
    /// Drop what is pending of an unfinished run, also what others have sent, and begin anew; the account takes it for done
    #[arg(long)]
    fresh: bool,
    /// End with exit code 102 if messages were given up
    #[arg(long)]
    fail_on_dlq: bool,
    /// Run each task and each edge in a process of its own
    #[arg(long, conflicts_with = "listen")]
    processes: bool,
    /// Leave the edges to tasks and HTTP workers to dispatchers elsewhere, each run by `dispatch EDGE`
    #[arg(long, conflicts_with = "processes")]
    elsewhere: bool,
    /// How long to finish what is pending after the first Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain: Option<Duration>,
    #[command(flatten)]
    listen: ListenFlags,
}

impl RunFlags {
    /// These, and those that stood before the command.
    fn over(self, before: Self) -> Self {
        Self {
            message: self.message.or(before.message),
            serve: self.serve || before.serve,
            listen: self.listen.over(before.listen),
            fail_on_dlq: self.fail_on_dlq || before.fail_on_dlq,
            drain: self.drain.or(before.drain),
            fresh: self.fresh || before.fresh,
            processes: self.processes || before.processes,
            elsewhere: self.elsewhere || before.elsewhere,
        }
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// Mermaid flowchart
    Mermaid,
    /// Graphviz DOT
    Dot,
    /// SVG picture
    Svg,
    /// Text for a terminal
    #[default]
    Text,
}

fn duration(text: &str) -> Result<Duration, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map(|DurationText(duration)| duration)
        .map_err(|error| error.to_string())
}

/// Runs the command line of a topology.
pub(crate) fn main(topology: &'static TopologyDef) -> ExitCode {
    let name = topology.name;
    let examples = format!(
        "Examples:\n  {name}                          run it until all is done\n  {name} run -o json              with the account as JSON\n  \
         {name} dlq list                 what was given up, and why\n\nFiles: leat.toml beside Project.toml configures it; LEAT_LOG sets what is logged."
    );
    let mut command = Cli::command().name(name).version(topology.version).propagate_version(false).after_help(examples).about(
        if topology.description.is_empty() {
            format!("The topology `{name}` of `{}`", topology.project)
        } else {
            topology.description.to_owned()
        },
    );
    command = command.bin_name(name);
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let mut place = vec![("topology", topology.name)];
    if let Some(Command::Dispatch(flags)) = &cli.command {
        place.push(("edge", flags.edge()));
    }
    log::init(cli.common.verbose, cli.common.quiet, cli.common.log_format, &place);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(INTERNAL, format!("starting threads: {error}")).report(),
    };
    let result = runtime.block_on(perform(topology, cli));
    // A reader of standard input may still wait: it must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// Help and version are no errors; everything else is the usage.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // Standard output or error that is closed takes nothing, and nobody reads it.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { OK })
}

async fn perform(topology: &'static TopologyDef, cli: Cli) -> Result<u8, Failure> {
    let Cli { common, run: flags, command } = cli;
    processes::tie(&common)?;
    let config = || Config::load(topology.project, &common.flags()).map_err(Failure::from);
    match command {
        None => execute(topology, &common, config()?, Run { input: None, flags }).await,
        Some(Command::Run(Run { input, flags: own })) => {
            execute(topology, &common, config()?, Run { input, flags: own.over(flags) }).await
        }
        Some(Command::Dispatch(flags)) => dispatch::run(topology, &config()?, &flags.job(&common)).await,
        Some(Command::Graph { format }) => graph(topology, format),
        Some(Command::Check) => check::check(topology, common.output, &config()?).await,
        Some(Command::Send(send)) => inspect::send(topology, common.output, &config()?, send).await,
        Some(Command::Status) => inspect::status(topology, common.output, &config()?).await,
        Some(Command::Trace { id }) => trace::show(topology, common.output, &config()?, &id).await,
        Some(Command::Dlq { command }) => inspect::dlq(topology, common.output, &config()?, command).await,
    }
}

fn graph(topology: &TopologyDef, format: Format) -> Result<u8, Failure> {
    let drawing = match format {
        Format::Mermaid => topology.drawings.mermaid,
        Format::Dot => topology.drawings.dot,
        Format::Svg => topology.drawings.svg,
        Format::Text => topology.drawings.text,
    };
    output::print(&format!("{}\n", drawing.trim_end()))?;
    Ok(OK)
}

async fn execute(topology: &'static TopologyDef, common: &Common, config: Config, run: Run) -> Result<u8, Failure> {
    let mut plan = config.plan(topology)?;
    let options = options(&plan, &run)?;
    check::doubt(&config, topology);
    // With `-o json` standard output is one JSON value: the report.
    plan.console.on_stderr = common.output == Output::Json;
    let writer = Writer::begin(&config.trace, topology.name).map_err(|error| Failure::new(INVALID, error))?;
    plan.tracer = writer.as_ref().map(Writer::tracer);
    let signals = Signals::listen(true).map_err(|error| Failure::new(INTERNAL, format!("listening for signals: {error}")))?;
    let mut stop = signals.stop.clone();
    let broker = tokio::select! {
        opened = host::open_when_free(&config, async || control::answers(&config.data).await) => opened?,
        // A service that is away is waited for, until somebody does not want to.
        _ = stop.wait_for(|stop| *stop != run::Stop::Run) => return Ok(signals.code().unwrap_or(INTERNAL)),
    };
    // Only who owns the journal may take over the socket in its directory; the others own nothing there.
    let listening = (config.broker == "embedded").then(|| {
        control::listen(broker.clone(), &config.data, signals.stop.clone()).inspect_err(
            |error| tracing::warn!(%error, "no control socket: send, status and dlq must wait for the end of this run"),
        )
    });
    let served = run.flags.listen.start(topology, &broker, signals.stop.clone()).await?;
    if !common.quiet {
        tell_running(&plan, &config, broker.as_ref());
        if let Some(served) = &served {
            super::output::tell(&format!("{:>12} on pulsar://{}", "Listening", served.address));
        }
    }
    let results = plan.results.clone();
    let sinks = sink_files(&plan);
    let counts = Arc::new(Counts::new(topology));
    let progress = progress::show(topology, counts.clone(), broker.clone(), common.quiet);
    let result = if run.flags.processes {
        in_processes(common, &config, plan, options, &broker, counts, &signals).await
    } else {
        run::run(broker.clone(), plan, options, counts, signals.stop.clone()).await.map_err(Failure::from)
    };
    drop(progress);
    drop(listening);
    if let Some(writer) = writer {
        writer.end().await;
    }
    if let Some(served) = served {
        served.end(&signals.stop).await;
    }
    let closed = broker.close().await;
    let report = match result {
        Ok(report) => report,
        Err(failure) if failure.code == OUTPUT_CLOSED => return Ok(OUTPUT_CLOSED),
        Err(failure) => return Err(failure),
    };
    closed?;
    output::show(common.output, &report, |report| format!("{report}\n"))?;
    if !common.quiet {
        for (task, path) in results.all().into_iter().chain(sinks) {
            super::output::tell(&format!("{:>12} of {task} in {}", "Results", path.display()));
        }
    }
    if let Some(code) = signals.code() {
        return Ok(code);
    }
    let given_up = report.given_up();
    if given_up > 0 {
        // The binary is rarely where a shell looks for programs, so its name alone is nothing to type.
        let text = format!("`leat dlq list {}`, or `dlq list` of this binary, shows why", topology.name);
        super::output::tell(&format!("{:>12} {given_up} given up: {text}", "Note"));
    }
    Ok(if run.flags.fail_on_dlq && given_up > 0 { DEAD_LETTERS } else { OK })
}

fn tell_running(plan: &Plan, config: &Config, broker: &dyn Broker) {
    let level = match plan.durability {
        Some(level) if config.broker == "embedded" => level.name(),
        _ => broker.durability(),
    };
    super::output::tell(&format!(
        "{:>12} {} on the {} broker, durability {level}, data in {}",
        "Running",
        plan.topology.name,
        config.broker,
        config.data.display()
    ));
}

/// Runs a topology whose tasks and edges have processes of their own.
async fn in_processes(
    common: &Common,
    config: &Config,
    plan: Plan,
    options: RunOptions,
    broker: &Arc<dyn Broker>,
    counts: Arc<Counts>,
    signals: &Signals,
) -> Result<Report, Failure> {
    let options = RunOptions { elsewhere: true, ..options };
    let stop = signals.stop.clone();
    // What `--fresh` drops is dropped before anybody takes it.
    let prepared = Prepared::new(broker.clone(), plan.clone(), options, counts.clone(), stop.clone()).await?;
    let mut processes = Processes::start(common, config, &plan, broker, &counts, &stop).await?;
    let result = tokio::select! {
        result = prepared.run() => result.map_err(Failure::from),
        failure = processes.failed() => Err(failure),
    };
    // What they have counted last comes with their end.
    processes.end().await;
    result.map(|mut report| {
        report.recount(&counts);
        report
    })
}

/// The files that sinks write.
fn sink_files(plan: &Plan) -> Vec<(&'static str, PathBuf)> {
    let path = |task: &TaskPlan| Some((task.def.name, PathBuf::from(task.sink.as_ref()?.options.get("path")?.as_str()?)));
    plan.tasks.iter().filter_map(path).collect()
}

/// How a run is meant.
fn options(plan: &Plan, run: &Run) -> Result<RunOptions, Failure> {
    let flags = &run.flags;
    let serve = flags.serve || flags.listen.listen.is_some();
    let mut options =
        RunOptions { input: run.input.clone(), serve, fresh: flags.fresh, elsewhere: flags.elsewhere, ..RunOptions::default() };
    if let Some(message) = &flags.message {
        let name = plan.topology.name;
        let instead = match (plan.tasks.iter().any(|task| task.source.is_some()), serve) {
            (true, _) => format!("`{name}` is started by its sources"),
            (false, true) => "a run that serves waits for what is sent".to_owned(),
            (false, false) => String::new(),
        };
        if !instead.is_empty() {
            let text = format!("{instead}, so `--message` would not be sent: leave it out, and send it by `{name} send`");
            return Err(Failure::new(USAGE, text));
        }
        let message =
            serde_json::from_str(message).map_err(|error| Failure::new(USAGE, format!("`--message` is no JSON: {error}")));
        options.message = Some(message?);
    }
    if let Some(drain) = flags.drain {
        options.drain_limit = drain;
    }
    Ok(options)
}
