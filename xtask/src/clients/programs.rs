//! The programs in `tests/clients`, how each is made ready in the cache, and how it is run.

use super::Count;
use crate::{
    ci::run_command,
    services::{self, GO, JAVAC, PYTHON, pulsar},
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One program.
pub(super) struct Program {
    name: &'static str,
    /// Makes it ready, which is quick the second time.
    prepare: fn(&Path) -> Result<()>,
    /// The command that runs it.
    command: fn(&Path) -> Result<Command>,
}

/// All of them, the quickest to make ready first.
pub(super) const ALL: &[Program] = &[
    Program { name: "python", prepare: prepare_python, command: python },
    Program { name: "java", prepare: prepare_java, command: java },
    Program { name: "go", prepare: prepare_go, command: go },
    Program { name: "rust", prepare: prepare_rust, command: rust },
];

/// The program of this name.
pub(super) fn find(name: &str) -> Result<&'static Program> {
    let names = || ALL.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    ALL.iter().find(|program| program.name == name).with_context(|| format!("no client `{name}`; there are {}", names()))
}

impl Program {
    pub(super) fn prepare(&self) -> Result<()> {
        (self.prepare)(&folder()?).with_context(|| format!("making the {} client ready", self.name))
    }

    /// Runs scenarios, and shows what it says of them.
    pub(super) fn run(&self, url: &str, token: Option<&str>, scenarios: &[&str]) -> Result<Count> {
        let mut command = (self.command)(&folder()?)?;
        command.args(scenarios).env("PULSAR_URL", url).env("PULSAR_TOKEN", token.unwrap_or_default());
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("running the {} client", self.name))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let count = Count::of(&text, scenarios);
        for line in text.lines().filter(|line| line.starts_with("FAIL") || line.starts_with("absent")) {
            println!("{}: {line}", self.name);
        }
        println!("{}: {} of {} scenarios ok, ended with {}", self.name, count.ok, scenarios.len(), output.status);
        Ok(count)
    }
}

fn folder() -> Result<PathBuf> {
    let folder = services::cache()?.join("clients");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Python packages: the client, and `protoc`, which the `pulsar` crate needs to be built.
fn prepare_python(folder: &Path) -> Result<()> {
    PYTHON.check()?;
    let venv = folder.join("python");
    if !venv.join("bin/pip").is_file() {
        run_command(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut install = Command::new(venv.join("bin/pip"));
    run_command(install.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        "tests/clients/python/requirements.txt",
    ]))
}

fn python(folder: &Path) -> Result<Command> {
    let mut command = Command::new(folder.join("python/bin/python"));
    command.arg("tests/clients/python/scenarios.py");
    Ok(command)
}

fn prepare_java(folder: &Path) -> Result<()> {
    JAVAC.check()?;
    let mut compile = Command::new("javac");
    compile.arg("-cp").arg(jars()?).arg("-d").arg(folder.join("java")).arg("tests/clients/java/Scenarios.java");
    run_command(&mut compile)
}

fn java(folder: &Path) -> Result<Command> {
    let mut path = folder.join("java").into_os_string();
    path.push(":");
    path.push(jars()?);
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-cp"]).arg(path).arg("Scenarios");
    Ok(command)
}

fn jars() -> Result<PathBuf> {
    Ok(pulsar::fetch()?.join("lib/*"))
}

fn prepare_go(folder: &Path) -> Result<()> {
    GO.check()?;
    run_command(
        Command::new("go").args(["build", "-o"]).arg(folder.join("go-scenarios")).arg(".").current_dir("tests/clients/go"),
    )
}

fn go(folder: &Path) -> Result<Command> {
    Ok(Command::new(folder.join("go-scenarios")))
}

fn prepare_rust(folder: &Path) -> Result<()> {
    prepare_python(folder)?;
    let protoc = folder.join("protoc");
    let python = folder.join("python/bin/python");
    std::fs::write(&protoc, format!("#!/bin/sh\nexec '{}' -m grpc_tools.protoc \"$@\"\n", python.display()))?;
    std::fs::set_permissions(&protoc, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--locked", "--manifest-path", "tests/clients/rust/Cargo.toml", "--target-dir"]);
    run_command(build.arg(folder.join("rust")).env("PROTOC", protoc))
}

fn rust(folder: &Path) -> Result<Command> {
    Ok(Command::new(folder.join("rust/release/pulsar-crate-clients")))
}
