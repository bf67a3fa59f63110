//! Commands that make and build projects, and run their topologies.

use crate::{
    args::{Build, Global, New, Run, Vcs},
    exit::{Code, Doing, Failure, Result, say},
    image::Order,
    project::Found,
};
use leatworks_build::{BuildOptions, NewProject};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// `leat new`.
pub(crate) fn new(args: &New, global: &Global) -> Result {
    let dir = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let made = leatworks_build::new_project(&dir, &args.name, &NewProject { workspace: args.workspace.clone() })
        .map_err(|error| Failure::new(Code::Invalid, error))?;
    if args.vcs == Vcs::Git {
        init_git(&dir);
    }
    if !global.quiet {
        eprintln!("{:>12} {} with {} files in {}", "Created", args.name, made.files, dir.display());
        eprintln!("{:>12} cd {} && leat run", "Next", dir.display());
    }
    Ok(())
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
    let options = BuildOptions { release: args.release, versioned: args.versioned, ..BuildOptions::default() };
    let built = leatworks_build::build(&found.root, &options).map_err(|error| Failure::new(Code::Build, error))?;
    for path in &built.versioned {
        say!("{}", path.display());
    }
    image.map_or(Ok(()), |image| image.fill(&built, found, global))
}

/// `leat run`: builds, then hands over to the topology's own binary, whose exit code is ours.
pub(crate) fn run(args: &Run, found: &Found) -> Result<ExitCode> {
    let name = found.topology(args.topology.as_deref())?.name().as_str().to_owned();
    // The tasks' own binaries are needed where they are processes of their own.
    let bin = (!args.processes).then(|| name.clone());
    let options = BuildOptions { release: args.release, bin, ..BuildOptions::default() };
    let built = leatworks_build::build(&found.root, &options).map_err(|error| Failure::new(Code::Build, error))?;
    let binary = built.target_dir.join(&name);
    hand_over(Command::new(&binary).arg("run").args(args.processes.then_some("--processes")).args(&args.args))
        .doing(|| format!("starting `{}`", binary.display()))
}

/// Replaces this process, so that signals, the terminal and the exit code are the topology's own.
fn hand_over(command: &mut Command) -> std::io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}
