//! `Project.toml` and its Mermaid graphs as a model that cannot be wrong.
//!
//! [`load`] reads a project and gives either a [`Project`] whose every topology has passed every check, or [`Diagnostics`] with all
//! that is wrong at once. Nothing here awaits, and nothing but [`Sources`] reads a file.

mod diagnostics;
pub mod draw;
mod mermaid;
mod model;
mod passes;
mod sources;
mod spec;
mod toml_text;

pub use diagnostics::codes::{codes, explain, reference_markdown};
pub use diagnostics::{CodeInfo, Diagnostic, Diagnostics, Label as DiagnosticLabel, Severity};
pub use model::{
    Builtin, Codec, Direction, Edge, Ingress, Job, Label, NAME_LENGTH_MAX, Project, Retry, Route, Shape, StyleRule, Subgraph,
    Task, TaskKind, TaskName, Topology, TopologyName,
};
pub use sources::{FILE_BYTES_MAX, Sources};
pub use spec::{BuiltinInfo, OptionInfo, OptionValue, SINKS, SOURCES};

use std::path::Path;

/// Reads `Project.toml` in `root`, its members and their topologies.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(root: &Path) -> Result<Project, Diagnostics> {
    load_from(&sources::Folder(root.to_owned()))
}

/// Reads a project from anywhere.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_from(sources: &dyn Sources) -> Result<Project, Diagnostics> {
    passes::compile(sources)
}
