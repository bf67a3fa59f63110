//! What `leat dispatch` can be told.

use crate::args::{Data, Output};
use clap::{Args, ValueHint};
use std::{net::SocketAddr, path::PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Dispatch {
    // The help is no documentation, in which the brackets would be a link.
    #[arg(
        conflicts_with_all = ["config", "allow_remote"],
        help = "The edge, in quotes: 'TOPOLOGY/A-->B', 'TOPOLOGY/A-->|label|B', or 'TOPOLOGY/[*]-->A' for the way in"
    )]
    pub(crate) edge: Option<String>,
    /// Where the worker of the edge's target listens
    #[arg(long, value_name = "URL", requires = "edge")]
    pub(crate) worker: Option<String>,
    /// The broker, pulsar://HOST:PORT or pulsar+ssl://HOST:PORT, unless leat.toml names it
    #[arg(long, requires = "edge")]
    pub(crate) broker: Option<String>,
    /// Where the admin API of that broker is
    #[arg(long, value_name = "URL", requires = "edge")]
    pub(crate) admin_url: Option<String>,
    /// A file with the token that says who asks
    #[arg(long, value_name = "FILE", requires = "edge", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the certificates, in PEM, that the broker's is checked by
    #[arg(long, value_name = "FILE", requires = "edge", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Serve /metrics, /healthz and /readyz at this address
    #[arg(long, value_name = "ADDRESS", requires = "edge")]
    pub(crate) listen: Option<SocketAddr>,
    /// One JSON object for each line of the log, with the topology and the edge
    #[arg(long, requires = "edge")]
    pub(crate) json_log: bool,
    #[command(flatten)]
    pub(crate) data: Data,
    /// What to take, whom to call, and where the broker is
    #[arg(long, default_value = "dispatcher.toml", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
    /// Take tasks over HTTP from other machines too: nobody is asked who they are
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// How to write what was handled
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}
