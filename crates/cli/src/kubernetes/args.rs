//! What the commands for Kubernetes can be told.

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use std::{net::SocketAddr, path::PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum K8s {
    /// Print the definition of the Topology resource
    #[command(after_help = "Examples:\n  leat k8s crd | kubectl apply --server-side -f -")]
    Crd,
    /// Print the topologies of the project as resources
    #[command(
        after_help = "Examples:\n  leat k8s render --image registry.example.org/shop:1 --broker pulsar://pulsar:6650 | kubectl apply -f -\n  leat k8s render orders --image shop:1 --overlay production.yaml"
    )]
    Render(Render),
}

/// How topologies are turned into resources.
#[derive(Clone, Debug, Args)]
pub(crate) struct Render {
    /// The topology; all of the project without one
    pub(crate) topology: Option<String>,
    /// The image that `leat build --image` has made
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: String,
    /// The Pulsar service, pulsar://HOST:PORT or pulsar+ssl://HOST:PORT, unless leat.toml names it
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// Where the admin API of that broker is
    #[arg(long, value_name = "URL")]
    pub(crate) admin_url: Option<String>,
    /// When nodes pull the image
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) pull_policy: Option<Pull>,
    /// Lay this YAML or JSON file over the resources: topologies by name, each with what it adds to `spec`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) overlay: Option<PathBuf>,
    /// The namespace, in place of that of the context
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// With each start of a container
    Always,
    /// If the node does not have it
    IfNotPresent,
    /// Never
    Never,
}

/// Where a topology can be deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// A Kubernetes cluster whose controller runs
    Kubernetes,
}

/// How much of a deployment is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// The API server checks the resource, and keeps nothing
    Server,
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct Context {
    /// The context of the kubeconfig, in place of the current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// Whether to wait until it runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wait {
    /// Wait until all is ready, and say what is not
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", requires = "wait")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// Where to
    #[arg(long, value_enum, default_value_t = Target::Kubernetes)]
    pub(crate) to: Target,
    #[command(flatten)]
    pub(crate) render: Render,
    /// Show what would be done, and do nothing
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "server", value_name = "HOW")]
    pub(crate) dry_run: Option<DryRun>,
    /// Show what changes within the objects
    #[arg(long)]
    pub(crate) diff: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) context: Context,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The topology, as it is called on the cluster
    pub(crate) topology: String,
    /// The revision to go back to, in place of the one before the current
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<i64>,
    /// List the revisions
    #[arg(long, conflicts_with_all = ["to", "wait"])]
    pub(crate) list: bool,
    /// The namespace, in place of that of the context
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) context: Context,
}

#[derive(Debug, Args)]
pub(crate) struct Controller {
    /// The namespaces whose topologies it has; by default its own
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',', env = "LEAT_CONTROLLER_NAMESPACES", hide_env = true)]
    pub(crate) namespace: Vec<String>,
    /// Have the topologies of all namespaces
    #[arg(long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// The namespace of the lease, in place of its own
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// The lease by which one of several controllers leads
    #[arg(long, value_name = "NAME", default_value = "leatworks-controller")]
    pub(crate) lease: String,
    /// Its own name, in place of that of its pod
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env = true)]
    pub(crate) identity: Option<String>,
    /// Serve /metrics, /livez and /readyz at this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The image that holds leat, for tasks that are jobs
    #[arg(long, value_name = "IMAGE")]
    pub(crate) leat_image: Option<String>,
    /// The service account that may create jobs
    #[arg(long, value_name = "NAME")]
    pub(crate) jobs_account: Option<String>,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) context: Context,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}
