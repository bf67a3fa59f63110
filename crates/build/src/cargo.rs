//! What `leat build` does: stubs first, then cargo, then copies under versioned names.

use crate::{
    manifest::{self, ManifestError},
    stubs::{self, StubChange, StubError, sync_stubs},
    version::{self, build_version},
};
use leatworks_topology::{Diagnostics, Project};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// How [`build`] builds.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// With cargo's release profile.
    pub release: bool,
    /// Also lay a copy of each binary under `target/build/<project>-<name>-<build version>`.
    pub versioned: bool,
    /// Only the binary of this topology or task; otherwise all of the package.
    pub bin: Option<String>,
    /// With `versioned`: remove the copies of other build versions.
    pub prune: bool,
    /// Further arguments for `cargo build`, such as `--locked`.
    pub cargo_args: Vec<OsString>,
}

/// What [`build`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Stubs that were written or removed first.
    pub stubs: StubChange,
    /// The build version that all binaries tell.
    pub version: String,
    /// The folder that the executables are in.
    pub target_dir: PathBuf,
    /// The executables of the project's topologies and tasks, in order of their names.
    pub binaries: Vec<PathBuf>,
    /// Their copies under versioned names, if asked for.
    pub versioned: Vec<PathBuf>,
    /// Copies of other build versions that were removed, if asked for.
    pub pruned: Vec<PathBuf>,
}

/// Why a project could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The project is wrong.
    #[error("the project is invalid:\n{}", .0.render(false))]
    Project(Diagnostics),
    /// The package cannot hold the project.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The stubs could not be brought up to the project.
    #[error(transparent)]
    Stubs(#[from] StubError),
    /// Cargo could not be started, or its messages not read.
    #[error("running `{command}`: {cause}")]
    Cargo {
        /// What was run.
        command: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// Cargo ran and failed; it has told why on stderr.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// What was run.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// A versioned copy could not be laid or removed.
    #[error("`{}`: {cause}", .file.display())]
    Copy {
        /// The copy.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// Builds all binaries of the project at `root` in one go: brings the stubs up to date, then runs `cargo build` with its messages on
/// stderr. Unlike plain `cargo build` it tells apart a clean source tree from one with uncommitted changes in the build version.
///
/// # Errors
/// See [`BuildError`].
pub fn build(root: &Path, options: &BuildOptions) -> Result<Built, BuildError> {
    let project = leatworks_topology::load(root).map_err(BuildError::Project)?;
    let package = manifest::read(root)?;
    let stubs = sync_stubs(root, &project)?;
    let package_version = match package.version {
        Some(version) => version,
        None => inherited_version(root)?,
    };
    let version = build_version(root, &package_version);
    let names = stubs::binaries(&project);
    let binaries = cargo_build(root, &names, &version, options)?;
    let target_dir = binaries.first().and_then(|binary| binary.parent()).unwrap_or(root).to_owned();
    let mut built = Built { stubs, target_dir, version, binaries, versioned: Vec::new(), pruned: Vec::new() };
    if options.versioned {
        lay_copies(root, &project, &mut built, options.prune)?;
    }
    Ok(built)
}

const CARGO_BUILD: &str = "cargo build";
const CARGO_METADATA: &str = "cargo metadata";

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// Runs cargo and gives the executables that it names: only cargo knows where its target folder is.
fn cargo_build(root: &Path, names: &BTreeSet<String>, version: &str, options: &BuildOptions) -> Result<Vec<PathBuf>, BuildError> {
    let mut command = cargo(root);
    command.args(["build", "--message-format=json-render-diagnostics", "--manifest-path", "Cargo.toml"]);
    match &options.bin {
        Some(bin) => command.args(["--bin", bin]),
        None => command.arg("--bins"),
    };
    command.args(options.release.then_some("--release")).args(&options.cargo_args).env(version::VARIABLE, version);
    let output = run(command, CARGO_BUILD)?;
    let mut binaries: Vec<PathBuf> =
        output.lines().filter_map(|line| executable(line, names)).collect::<BTreeSet<_>>().into_iter().collect();
    binaries.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    Ok(binaries)
}

/// The executable that one of cargo's messages tells of, if it is one of the named binaries.
fn executable(message: &str, names: &BTreeSet<String>) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let wanted = target["kind"] == serde_json::json!(["bin"]) && names.contains(target["name"].as_str()?);
    wanted.then(|| message["executable"].as_str().map(PathBuf::from))?
}

fn run(mut command: Command, name: &'static str) -> Result<String, BuildError> {
    let output = command.output().map_err(|cause| BuildError::Cargo { command: name, cause })?;
    if !output.status.success() {
        return Err(BuildError::Failed { command: name, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn metadata(root: &Path) -> Result<Value, BuildError> {
    let mut command = cargo(root);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", "Cargo.toml"]);
    serde_json::from_str(&run(command, CARGO_METADATA)?)
        .map_err(|error| BuildError::Cargo { command: CARGO_METADATA, cause: error.into() })
}

/// The version of a package that takes it from its workspace.
fn inherited_version(root: &Path) -> Result<String, BuildError> {
    let metadata = metadata(root)?;
    let manifest =
        std::path::absolute(root.join("Cargo.toml")).map_err(|cause| BuildError::Cargo { command: CARGO_METADATA, cause })?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let package = packages.iter().find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    Ok(package.and_then(|package| package["version"].as_str()).unwrap_or("0.0.0").to_owned())
}

fn lay_copies(root: &Path, project: &Project, built: &mut Built, prune: bool) -> Result<(), BuildError> {
    let target = metadata(root)?["target_directory"].as_str().map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("build");
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |cause| BuildError::Copy { file, cause }
    };
    std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
    for binary in &built.binaries {
        let name = binary.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let prefix = format!("{}-{name}-", project.name());
        let copy = folder.join(format!("{prefix}{}{}", built.version, std::env::consts::EXE_SUFFIX));
        replace(binary, &copy).map_err(failed(&copy))?;
        if prune {
            for old in superseded(&folder, &prefix, &copy).map_err(failed(&folder))? {
                std::fs::remove_file(&old).map_err(failed(&old))?;
                built.pruned.push(old);
            }
        }
        built.versioned.push(copy);
    }
    Ok(())
}

/// Copies by way of a second file: a copy that is being executed cannot be written, but it can be replaced.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".leat-").tempfile_in(folder)?.into_temp_path();
    std::fs::copy(from, &file)?;
    file.persist(to).map_err(|error| error.error)
}

/// The copies of one binary with another build version, in order.
fn superseded(folder: &Path, prefix: &str, current: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut old = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // `shop-render-2-0.1.0` belongs to the task `render-2`, not to version `2-0.1.0` of `render`.
        if name.strip_prefix(prefix).is_some_and(starts_with_version) && path != current {
            old.insert(path);
        }
    }
    Ok(old)
}

/// Whether a text begins with three numbers, as every version does.
fn starts_with_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().is_some_and(number)
        && parts.next().is_some_and(number)
        && parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_versions_of_the_same_binary_are_superseded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files =
            ["shop-render-0.1.0", "shop-render-0.1.0+abc", "shop-render-2-0.1.0", "shop-render-mail-0.1.0", "shop-render-notes"];
        for file in files {
            std::fs::write(folder.path().join(file), "").expect("a file");
        }
        let current = folder.path().join("shop-render-0.1.0+abc");
        let old = superseded(folder.path(), "shop-render-", &current).expect("listed");
        assert_eq!(old, BTreeSet::from([folder.path().join("shop-render-0.1.0")]));
    }

    #[test]
    fn executables_are_told_by_cargo() {
        let names = BTreeSet::from(["send".to_owned()]);
        let message = |kind: &str, name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/debug/{name}"}}"#
            )
        };
        assert_eq!(executable(&message("bin", "send"), &names), Some(PathBuf::from("/t/debug/send")));
        assert_eq!(executable(&message("bin", "own"), &names), None);
        assert_eq!(executable(&message("test", "send"), &names), None);
        assert_eq!(executable("   Compiling", &names), None);
    }
}
