//! What `leat dlq` takes.

use super::{Data, Output};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Count dead letters by edge and cause
    List(DlqLook),
    /// Show dead letters with their cause, attempts, error and payload
    Show(DlqLook),
    /// Send dead letters back to the edge that gave them up, with their attempts started over
    Redrive(DlqChange),
    /// Remove dead letters for good
    Drop(DlqChange),
}

/// Which dead letters.
#[derive(Clone, Debug, Args)]
pub(crate) struct DlqSelect {
    /// Only this topology
    pub(crate) topology: Option<String>,
    /// Only this edge, for example 'render-->|mail|send'
    pub(crate) edge: Option<String>,
    /// Only the message with this id, or those whose root has it; `list` and `show` also take its first digits
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: Data,
}

/// Which dead letters to look at.
#[derive(Clone, Debug, Args)]
pub(crate) struct DlqLook {
    #[command(flatten)]
    pub(crate) select: DlqSelect,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: usize,
}

/// Which dead letters to change.
#[derive(Clone, Debug, Args)]
pub(crate) struct DlqChange {
    #[command(flatten)]
    pub(crate) select: DlqSelect,
    /// At most this many, the first by edge and then by age; all by default
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}
