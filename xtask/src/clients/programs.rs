//! The foreign clients: what each needs on the machine, how it is built, and how it is started.

use crate::{
    ci::run_command,
    services::{self, GO, JAVA, JAVAC, PYTHON, Tool},
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where the programs' sources are.
const SOURCES: &str = "tests/clients";

/// A client that nobody here wrote, and the program that uses it.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    needs: &'static [Tool],
    build: fn(&Path) -> Result<()>,
    start: fn(&Path) -> Result<Command>,
}

/// All of them, the quickest first.
pub(crate) const CLIENTS: &[Client] = &[
    Client { name: "python", about: "the Python pulsar-client wheel", needs: &[PYTHON], build: python, start: start_python },
    Client { name: "go", about: "the Go client", needs: &[GO], build: go, start: start_go },
    Client { name: "java", about: "the Java client", needs: &[JAVA, JAVAC], build: java, start: start_java },
    Client { name: "rust", about: "the pulsar crate", needs: &[PYTHON], build: rust, start: start_rust },
    Client { name: "tools", about: "pulsar-client and pulsar-perf", needs: &[JAVA], build: tools, start: start_tools },
];

impl Client {
    /// Why it cannot run here, if it cannot.
    pub(crate) fn missing(&self) -> Option<String> {
        self.needs.iter().find_map(|tool| tool.check().err()).map(|error| error.to_string())
    }

    /// Fetches the client and builds its program, where that is not done yet.
    pub(crate) fn build(&self, cache: &Path) -> Result<()> {
        (self.build)(cache).with_context(|| format!("building the program of {}", self.about))
    }

    /// The program, without the names of scenarios.
    pub(crate) fn command(&self, cache: &Path) -> Result<Command> {
        (self.start)(cache)
    }
}

fn source(path: &str) -> Result<PathBuf> {
    let path = Path::new(SOURCES).join(path);
    path.canonicalize().with_context(|| format!("`{}` is not here: run this in the repository's root", path.display()))
}

fn venv(cache: &Path) -> PathBuf {
    cache.join("clients/python")
}

/// An environment with the wheel and with `protoc`, made anew when the requirements have changed.
fn python(cache: &Path) -> Result<()> {
    let (venv, requirements) = (venv(cache), source("python/requirements.txt")?);
    let installed = venv.join("requirements.txt");
    let wanted = std::fs::read(&requirements)?;
    if std::fs::read(&installed).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run_command(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(&requirements))?;
    // Written last, so that what was cut short is not taken for whole.
    Ok(std::fs::write(installed, wanted)?)
}

fn start_python(cache: &Path) -> Result<Command> {
    python_program(cache, "scenarios.py")
}

/// One of the Python programs.
pub(crate) fn python_program(cache: &Path, name: &str) -> Result<Command> {
    let mut command = Command::new(venv(cache).join("bin/python"));
    command.arg(source(&format!("python/{name}"))?).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn go_program(cache: &Path) -> PathBuf {
    cache.join("clients/go/scenarios")
}

/// Go keeps modules and built packages in caches of its own, outside the build tree as well.
fn go(cache: &Path) -> Result<()> {
    run_command(
        Command::new("go").args(["build", "-mod=readonly", "-o"]).arg(go_program(cache)).arg(".").current_dir(source("go")?),
    )
}

fn start_go(cache: &Path) -> Result<Command> {
    Ok(Command::new(go_program(cache)))
}

fn java_classes(cache: &Path) -> PathBuf {
    cache.join("clients/java")
}

fn class_path(cache: &Path) -> Result<String> {
    let home = services::pulsar::fetch()?;
    Ok(format!("{}:{}:{}", java_classes(cache).display(), home.join("conf").display(), home.join("lib/*").display()))
}

fn java(cache: &Path) -> Result<()> {
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(class_path(cache)?).arg("-d").arg(java_classes(cache)).arg(source("java/Scenarios.java")?);
    run_command(&mut compiler)
}

fn start_java(cache: &Path) -> Result<Command> {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-Dlog4j.configurationFile=log4j2.yaml", "-Dpulsar.log.root.level=error"]);
    command.args(["-Dpulsar.log.level=error", "-Dpulsar.routing.appender.default=Console", "-cp"]);
    command.arg(class_path(cache)?).arg("Scenarios");
    Ok(command)
}

/// The program of the `pulsar` crate, which also loads a server for measurements.
pub(crate) fn rust_program(cache: &Path) -> PathBuf {
    cache.join("clients/rust/release/pulsar-crate-clients")
}

/// Built with a `protoc` from a registry, unless `PROTOC` names another.
pub(crate) fn rust(cache: &Path) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(source("rust/Cargo.toml")?);
    cargo.arg("--target-dir").arg(cache.join("clients/rust"));
    if std::env::var_os("PROTOC").is_none() {
        python(cache)?;
        cargo.env("PROTOC", venv(cache).join("bin/python-grpc-tools-protoc"));
    }
    run_command(&mut cargo)
}

fn start_rust(cache: &Path) -> Result<Command> {
    Ok(Command::new(rust_program(cache)))
}

/// The tools come with the service's distribution.
fn tools(_: &Path) -> Result<()> {
    services::pulsar::fetch().map(drop)
}

fn start_tools(_: &Path) -> Result<Command> {
    let mut command = Command::new("bash");
    command.arg(source("tools/scenarios.sh")?).env("PULSAR_HOME", services::pulsar::fetch()?).stdin(Stdio::null());
    Ok(command)
}
