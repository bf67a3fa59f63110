//! What cargo tells a build script and what a build script tells cargo. Nothing else in this crate knows `build-helper`.

use std::path::{Path, PathBuf};

/// The build script that is running.
pub(crate) struct BuildScript {
    /// The package's folder.
    pub(crate) root: PathBuf,
    /// Where generated files go.
    pub(crate) out: PathBuf,
    /// The package's version.
    pub(crate) version: String,
}

impl BuildScript {
    /// Reads the environment that cargo sets for build scripts; `build-helper` panics where there is none.
    pub(crate) fn from_cargo() -> Self {
        Self {
            root: build_helper::cargo::manifest::dir(),
            out: build_helper::out_dir(),
            // Read directly: the `semver` of `build-helper` would drop what it does not know.
            version: std::env::var("CARGO_PKG_VERSION").unwrap_or_else(|_| build_helper::cargo::pkg::version().to_string()),
        }
    }

    /// Asks cargo to run the script again when the file changes or goes away.
    pub(crate) fn rerun_if_changed(&self, path: &Path) {
        build_helper::rerun_if_changed(path);
    }

    /// Asks cargo to run the script again when the variable changes.
    pub(crate) fn rerun_if_env_changed(&self, variable: &str) {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    /// Lets the build fail with this message. Cargo takes one line at a time and puts the package's name before each.
    pub(crate) fn error(&self, message: &str) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}
