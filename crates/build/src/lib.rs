//! Leatworks for build scripts: one call turns `Project.toml` into Rust code and one binary per task.
//!
//! ```no_run
//! // In `main` of build.rs:
//! leatworks_build::project();
//! ```
//!
//! The generated code lies in `OUT_DIR`; `leatworks::topologies!();` in `src/lib.rs` brings it in. Each topology and each task has a
//! constant stub under `src/bin`, which only says where its code lies: cargo finds a package's binaries before any build script runs,
//! so the files must be there, and they are committed.

mod cargo;
mod env;
mod generate;
mod manifest;
mod names;
mod scaffold;
mod script;
mod stubs;
mod text;
mod version;
mod view;

pub use cargo::{BuildError, BuildOptions, Built, build};
pub use generate::{GenerateError, Generated, GeneratedFile, Package, generate};
pub use manifest::ManifestError;
pub use scaffold::{Made, NewProject, NewProjectError, new_project};
pub use script::project;
pub use stubs::{STUB, StubChange, StubError, assert_stubs_are_fresh, stubs_are_fresh, sync_stubs};
pub use version::build_version;
