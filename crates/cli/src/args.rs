//! What a person can type: the commands of `leat` with their options and examples.

mod dlq;

use crate::{
    bench::Bench,
    broker::BrokerServe,
    dispatch::Dispatch,
    jobs::Jobs,
    kubernetes::{Controller, Deploy, K8s, Rollback},
};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
pub(crate) use dlq::{Dlq, DlqChange, DlqLook, DlqSelect};
use std::path::PathBuf;

/// Draw pipelines as Mermaid graphs; build typed task binaries; run them.
#[derive(Debug, Parser)]
#[command(
    name = "leat",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  leat new shop && cd shop && leat run\n  leat dlq list\n\n`leat COMMAND --help` tells all; also of completions, controller, image and man.",
    styles = styles()
)]
pub(crate) struct Leat {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The project's folder
    ///
    /// By default the nearest one upwards that holds a Project.toml.
    #[arg(long, global = true, env = "LEAT_PROJECT", hide_env = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) project: Option<PathBuf>,

    /// When to use colour: auto, always, never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: Color,

    /// Say less
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How results are printed on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    #[value(alias = "text")]
    Table,
    /// One JSON value
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a project that builds, passes its tests and runs at once
    #[command(after_help = "Examples:\n  leat new shop\n  leat new shop --workspace ~/leatworks --vcs none")]
    New(New),
    /// Check the project and its graphs; all errors at once
    ///
    /// leat.toml is checked too: it may speak only of topologies and tasks that the project has.
    #[command(after_help = "Examples:\n  leat check\n  leat check --message-format json")]
    Check(Check),
    /// Draw a topology
    #[command(
        after_help = "Examples:\n  leat graph\n  leat graph orders --format svg > orders.svg\n  leat graph orders --write README.md --check"
    )]
    Graph(Graph),
    /// Build one binary per topology and task
    ///
    /// Makes and removes the stubs in src/bin as the set of tasks changes, then runs cargo.
    ///
    /// With --image the binaries are also packed into a container image, whose file is printed. No container engine is needed: the libraries that the binaries
    /// need are taken from this machine. Every binary is a layer of its own, processes run as user 65532, and the same binaries give the same bytes.
    #[command(
        after_help = "Examples:\n  leat build --release\n  leat build --versioned\n  leat build --release --image\n  leat build --release --image --image-name registry.example/shop:1.2 --push"
    )]
    Build(Build),
    /// Build a topology and run it on this machine
    #[command(
        after_help = "Examples:\n  leat run\n  leat run access-log -- /var/log/nginx/access.log\n  leat run orders -- --serve"
    )]
    Run(Run),
    /// Send messages to a topology
    #[command(after_help = "Examples:\n  leat send orders '{\"id\": 7}' --wait\n  leat send orders/parse -f orders.jsonl")]
    Send(Send),
    /// Show the topics, backlogs and account of topologies
    #[command(visible_alias = "ps", after_help = "Examples:\n  leat status\n  leat status orders -o json")]
    Status(Status),
    /// Look into dead letters, bring them back, or drop them
    #[command(
        subcommand,
        after_help = "Examples:\n  leat dlq list\n  leat dlq show orders 'parse-->store'\n  leat dlq redrive orders --yes"
    )]
    Dlq(Dlq),
    /// Show what has become of a root message, step by step
    ///
    /// What waits and what was given up the broker knows; what jobs have done, with their logs and files, is in their records. Every other step is known where
    /// `trace.enabled = true` stands in leat.toml: then each handling is written down, and kept for a day unless `trace.keep` says otherwise.
    #[command(
        after_help = "Examples:\n  leat trace 019a5e8f3c1d7b2a90cfe1d24b6a8c30\n  leat trace 019a5e8f3c1d7b2a90cfe1d24b6a8c30 --topology chapters -o json"
    )]
    Trace(Trace),
    /// Serve a broker to other programs over the Pulsar protocol
    ///
    /// Every Pulsar client can use it, in any language. Ctrl-C ends it when what was taken is safe.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  leat broker\n  leat broker verify\n  leat broker --listen 127.0.0.1:6650 --dir data/journal\n  leat broker --listen 0.0.0.0:6650 --token-key secret.key"
    )]
    Broker(Broker),
    /// Run a dispatcher by itself, between topics and HTTP workers
    ///
    /// With an edge of the project it takes the messages of that edge and publishes what the worker gives to the routes of its task; topics, retries, time and
    /// parallelism are the project's. Several of one edge share the work. Without an edge the configuration says what to take: each message is
    /// `{"type": …, "task": …}`, its task is posted to the worker of its type, and what that answers, `{"tasks": […]}`, is published, each to the topic of its type.
    ///
    /// One line on standard output for each message that was handled. Ctrl-C ends it when calls under way are settled.
    #[command(
        after_help = "Examples:\n  leat dispatch --config mail.toml -o json\n  leat dispatch 'orders/parse-->store' --worker http://127.0.0.1:8080 --broker pulsar://HOST:6650"
    )]
    Dispatch(Dispatch),
    /// Pack this leat into a container image, for clusters
    ///
    /// The controller runs it. Like `leat build --image` it needs no container engine.
    #[command(after_help = "Examples:\n  leat image\n  leat image --name registry.example/leat:1.2 --push")]
    #[command(hide = true)]
    Image(PackLeat),
    /// Deploy topologies on a cluster, and wait until they run
    ///
    /// Shows first what will be made, changed and removed. The controller does it, which `leat controller` runs in the cluster.
    #[command(
        after_help = "Examples:\n  leat deploy --to kubernetes --image registry.example.org/shop:1 --broker pulsar://pulsar:6650 --wait\n  leat deploy orders --image shop:2 --dry-run=server --diff"
    )]
    Deploy(Deploy),
    /// Go back to an earlier revision of a topology on a cluster
    #[command(after_help = "Examples:\n  leat rollback orders --wait\n  leat rollback orders --list")]
    Rollback(Rollback),
    /// Print the resource of topologies, or topologies as resources
    #[command(
        subcommand,
        after_help = "Examples:\n  leat k8s crd | kubectl apply --server-side -f -\n  leat k8s render --image shop:1"
    )]
    K8s(K8s),
    /// Run the controller that deploys topologies on a cluster
    ///
    /// Several share one lease, and one of them leads. SIGTERM ends it, and hands the lease on.
    #[command(
        after_help = "Examples:\n  leat controller --namespace shop\n  leat controller --all-namespaces --listen 0.0.0.0:9090 --log-format json"
    )]
    #[command(hide = true)]
    Controller(Controller),
    /// Run tasks of kind `job` on a cluster
    ///
    /// The controller starts it, and what it starts runs in the pods of its Jobs.
    #[command(subcommand, hide = true)]
    Jobs(Jobs),
    /// Explain a diagnostic code
    #[command(after_help = "Examples:\n  leat explain LW0101\n  leat explain --list")]
    Explain(Explain),
    /// Measure speed and cost beside the machine's own limit
    ///
    /// Sends messages through a diamond of four edges and measures the disk in the same run. Each target is printed as met or missed, and a missed one with
    /// what the process and the disk were doing. On a Pulsar service one edge is measured in place of the diamond, beside the client that the dispatcher is
    /// built on; there and in memory also the hop to an HTTP worker.
    #[command(
        after_help = "Examples:\n  leat bench\n  leat bench --all -o json\n  leat bench --messages 200000 --size 200\n  leat bench --broker memory\n  leat bench --broker pulsar://127.0.0.1:6650"
    )]
    Bench(Bench),
    /// Print a completion script
    #[command(
        after_help = "Examples:\n  leat completions bash > ~/.local/share/bash-completion/completions/leat\n  leat completions zsh > _leat"
    )]
    #[command(hide = true)]
    Completions(Completions),
    /// Write the manual pages
    #[command(after_help = "Examples:\n  leat man | man -l -\n  leat man --dir ~/.local/share/man/man1")]
    #[command(hide = true)]
    Man(Man),
    /// Print the version and what it was built from
    #[command(after_help = "Examples:\n  leat version\n  leat version -o json")]
    #[command(hide = true)]
    Version(Version),
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The project's name: lower-case letters, digits and hyphens; also the folder
    pub(crate) name: String,
    /// Where to put it, instead of a folder of that name here
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// Use the Leatworks crates of this checkout instead of those on crates.io
    ///
    /// Needed until they are published there.
    #[arg(long, env = "LEAT_WORKSPACE", value_hint = ValueHint::DirPath)]
    pub(crate) workspace: Option<PathBuf>,
    /// Version control to set up
    #[arg(long, value_enum, default_value_t = Vcs::Git)]
    pub(crate) vcs: Vcs,
}

/// Version control of a new project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vcs {
    /// A git repository, where git is installed and the folder is not in one already
    Git,
    /// None
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// How diagnostics are printed: `table` for people on standard error, `json` one per line on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) message_format: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The topology; may be left out if the project has one
    pub(crate) topology: Option<String>,
    /// The form of the drawing
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    pub(crate) format: Format,
    /// Put the drawing, always as Mermaid, into this file, between `<!-- leat graph NAME -->` and `<!-- leat end -->`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,
    /// Write nothing; exit with 10 if the file would change
    #[arg(long, requires = "write")]
    pub(crate) check: bool,
}

/// The form of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Mermaid text, as GitHub draws it
    Mermaid,
    /// A picture
    Svg,
    /// Graphviz
    Dot,
    /// For a terminal
    Text,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Build with optimisations
    #[arg(short, long)]
    pub(crate) release: bool,
    /// Also lay copies named `<project>-<task>-<build version>` into target/build
    #[arg(long)]
    pub(crate) versioned: bool,
    /// Also pack the binaries into a container image, as an OCI archive
    #[arg(long)]
    pub(crate) image: bool,
    /// The image's name; by default that of the project, with the build version as its tag
    #[arg(long, value_name = "NAME", requires = "image")]
    pub(crate) image_name: Option<String>,
    /// Push the image to the registry in its name
    ///
    /// As the user in LEAT_REGISTRY_USER with the password in LEAT_REGISTRY_PASSWORD, if these are set.
    #[arg(long, requires = "image_name")]
    pub(crate) push: bool,
}

/// What the image of leat itself is made with.
#[derive(Debug, Args)]
pub(crate) struct PackLeat {
    /// The archive to write
    #[arg(long, default_value = "leat.image.tar", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The image's name; by default `leat` with its version as the tag
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Push the image to the registry in its name
    ///
    /// As the user in LEAT_REGISTRY_USER with the password in LEAT_REGISTRY_PASSWORD, if these are set.
    #[arg(long, requires = "name")]
    pub(crate) push: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The topology; may be left out if the project has one, or its package names a default
    pub(crate) topology: Option<String>,
    /// Build with optimisations
    #[arg(short, long)]
    pub(crate) release: bool,
    /// Run each task and each edge in a process of its own
    #[arg(long)]
    pub(crate) processes: bool,
    /// Arguments of the topology's own `run`; `leat run TOPOLOGY -- --help` lists them
    ///
    /// It works in the project's folder, so relative paths are meant from there.
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

/// Where a project's data lies, for the commands that look into it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Data {
    /// The data folder
    #[arg(long, env = "LEAT_DATA", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The topology, or `topology/task` for one of several roots
    pub(crate) target: String,
    /// The message as JSON
    #[arg(conflicts_with = "file")]
    pub(crate) message: Option<String>,
    /// A file of messages, one JSON value a line; `-` is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// The key of the messages
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Wait until nothing that came of the messages is pending
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, for example 30s
    #[arg(long, default_value = "60s", requires = "wait")]
    pub(crate) timeout: humantime::Duration,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The id of the root, or of a message that came of it
    pub(crate) id: String,
    /// Only in this topology
    #[arg(long, value_name = "TOPOLOGY")]
    pub(crate) topology: Option<String>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this topology
    pub(crate) topology: Option<String>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerVerify {
    /// The journal's folder, instead of that of the project
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct Broker {
    #[command(subcommand)]
    pub(crate) command: Option<BrokerCommand>,
    #[command(flatten)]
    pub(crate) serve: BrokerServe,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Serve; this is also what happens without a command
    Serve(BrokerServe),
    /// Check every record, segment and checkpoint of the journal; change nothing
    ///
    /// Exits with 10 if something is damaged. Nobody may have the journal open meanwhile.
    #[command(after_help = "Examples:\n  leat broker verify\n  leat broker verify --dir /var/lib/shop/journal -o json")]
    Verify(BrokerVerify),
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The code, for example LW0101
    #[arg(required_unless_present = "list")]
    pub(crate) code: Option<String>,
    /// List all codes
    #[arg(long)]
    pub(crate) list: bool,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// A power cut
    Power,
    /// A power cut, but for the last moments
    Interval,
    /// The end of the process
    Process,
    /// Nothing
    Memory,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page per command into this folder; without it the first page goes to standard output
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

fn styles() -> clap::builder::Styles {
    use clap::builder::styling::{AnsiColor, Styles};
    Styles::styled()
        .header(AnsiColor::Green.on_default().bold())
        .usage(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default().bold())
        .placeholder(AnsiColor::Cyan.on_default())
}
