//! Commands that make and build projects, and run their topologies.

use crate::{
    args::{Build, Global, New, Run, Vcs},
    exit::{Code, Doing, Failure, Result, say},
    image::Order,
    project::{self, Found},
};
use leatworks_build::{BuildOptions, NewProject};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// `leat new`.
pub(crate) fn new(args: &New, global: &Global) -> Result {
    let dir = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let workspace = args.workspace.as_deref().map(checkout).transpose()?;
    let is_published = workspace.is_none();
    let made = leatworks_build::new_project(&dir, &args.name, &NewProject { workspace })
        .map_err(|error| Failure::new(Code::Invalid, error))?;
    if args.vcs == Vcs::Git {
        init_git(&dir);
    }
    if !global.quiet {
        eprintln!("{:>12} {} with {} files in {}", "Created", args.name, made.files, dir.display());
        if is_published {
            let text = "it takes the Leatworks crates from crates.io; until they are there, make it with --workspace CHECKOUT";
            eprintln!("{:>12} {text}", "Note");
        }
        eprintln!("{:>12} cd {} && leat run", "Next", dir.display());
    }
    Ok(())
}

/// A checkout of Leatworks, as a path that holds for a project in any folder.
fn checkout(dir: &Path) -> Result<PathBuf> {
    let dir = project::absolute(dir)?;
    for package in ["runtime", "build"] {
        let manifest = dir.join("crates").join(package).join("Cargo.toml");
        if !manifest.is_file() {
            let text = format!("`{}` is no checkout of Leatworks: there is no `{}`", dir.display(), manifest.display());
            return Err(Failure::new(Code::Invalid, format!("{text}; --workspace and LEAT_WORKSPACE name one")));
        }
    }
    Ok(dir)
}

/// Sets up a repository where git is installed and none is there yet. A project works as well without, so a failure is no reason to stop.
fn init_git(dir: &Path) {
    let git = |args: &[&str]| {
        Command::new("git")
            .args(args)
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !git(&["rev-parse", "--is-inside-work-tree"]) {
        git(&["init", "--quiet"]);
    }
}

/// `leat build`.
pub(crate) fn build(args: &Build, found: &Found, global: &Global) -> Result {
    let image = args.image.then(|| Order::of(args)).transpose()?;
    let options = BuildOptions {
        release: args.release,
        versioned: args.versioned,
        cargo_args: cargo_args(global),
        ..BuildOptions::default()
    };
    let built = leatworks_build::build(&found.root, &options).map_err(|error| Failure::new(Code::Build, error))?;
    for path in &built.versioned {
        say!("{}", path.display());
    }
    image.map_or(Ok(()), |image| image.fill(&built, found, global))
}

/// `leat run`: builds, then hands over to the topology's own binary, whose exit code is ours.
///
/// The binary works in the project's folder, where `leat.toml` lies and which paths in a topology are meant from.
pub(crate) fn run(args: &Run, found: &Found, global: &Global) -> Result<ExitCode> {
    let name = found.topology(args.topology.as_deref())?.name().as_str().to_owned();
    // The tasks' own binaries are needed where they are processes of their own.
    let bin = (!args.processes).then(|| name.clone());
    let options = BuildOptions { release: args.release, bin, cargo_args: cargo_args(global), ..BuildOptions::default() };
    let built = leatworks_build::build(&found.root, &options).map_err(|error| Failure::new(Code::Build, error))?;
    let binary = built.target_dir.join(&name);
    let mut command = Command::new(&binary);
    command.current_dir(&found.root).args(global.quiet.then_some("--quiet"));
    command.arg("run").args(args.processes.then_some("--processes")).args(&args.args);
    if let Some(data) = std::env::var_os(DATA).filter(|data| !data.is_empty()) {
        // As for the other commands it is meant from where this one was typed.
        command.env(DATA, project::absolute(Path::new(&data))?);
    }
    hand_over(&mut command).doing(|| format!("starting `{}`", binary.display()))
}

/// The variable that names the data folder.
const DATA: &str = "LEAT_DATA";

/// What cargo is told beside what to build.
fn cargo_args(global: &Global) -> Vec<OsString> {
    global.quiet.then(|| OsString::from("--quiet")).into_iter().collect()
}

/// Replaces this process, so that signals, the terminal and the exit code are the topology's own.
fn hand_over(command: &mut Command) -> std::io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}
