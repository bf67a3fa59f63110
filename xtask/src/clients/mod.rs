//! `cargo xtask clients`: programs with Pulsar clients that nobody here wrote run one list of scenarios against a server, ours or the real one.
//!
//! | scenario | shows that |
//! |---|---|
//! | `keys-and-properties`, `batches`, `compression-*` | what is sent is what comes, whatever it is packed in |
//! | `exclusive`, `shared`, `failover`, `key-shared`, `exclusive-conflict` | consumers share a subscription as its kind says |
//! | `ack-*`, `nack`, `redeliver-all`, `unacked-again`, `acked-never-again` | what is acknowledged is done with, and nothing else is |
//! | `seek-*`, `last-message-id`, `reader` | a reader gets to where it wants |
//! | `deliver-after`, `dedup`, `unsubscribe`, `pattern`, `pattern-grows`, `consumer-stats`, `oversized` | the rest is as Pulsar has it |
//! | `shared-200k` | 200,000 messages reach two consumers once each |
//! | `token-*` | a token lets in, and a wrong one or none does not |

mod programs;

use crate::services::{
    self,
    pulsar::{self, Options, Pulsar, Secret},
};
use anyhow::{Context, Result, bail, ensure};
use programs::Program;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const SCENARIOS: &[&str] = &[
    "keys-and-properties",
    "batches",
    "compression-lz4",
    "compression-zstd",
    "compression-zlib",
    "compression-snappy",
    "exclusive",
    "shared",
    "failover",
    "key-shared",
    "ack-individual",
    "ack-cumulative",
    "ack-batch-index",
    "nack",
    "redeliver-all",
    "unacked-again",
    "acked-never-again",
    "seek-id",
    "seek-time",
    "last-message-id",
    "deliver-after",
    "dedup",
    "unsubscribe",
    "pattern",
    "pattern-grows",
    "oversized",
    "exclusive-conflict",
    "reader",
    "consumer-stats",
    "shared-200k",
];

/// Those that need a server which asks for tokens.
const TOKEN_SCENARIOS: &[&str] = &["token-right", "token-wrong", "token-none"];

/// How long our server may take until it listens: it starts in milliseconds, but a machine may be busy.
const START_LIMIT: Duration = Duration::from_secs(20);

/// `cargo xtask services fetch clients`.
pub(crate) fn fetch() -> Result<()> {
    for program in programs::ALL {
        program.prepare()?;
    }
    Ok(())
}

/// `cargo xtask clients [--against leat|pulsar] [CLIENT …]`.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (against, names) = match args {
        ["--against", against, names @ ..] => (*against, names),
        names => ("leat", names),
    };
    ensure!(matches!(against, "leat" | "pulsar"), "clients run against `leat` or `pulsar`, not `{against}`");
    let programs: Vec<&Program> = match names {
        [] => programs::ALL.iter().collect(),
        names => names.iter().map(|name| programs::find(name)).collect::<Result<_>>()?,
    };
    for program in &programs {
        program.prepare()?;
    }
    let mut count = Count::default();
    {
        let server = Server::start(against, None)?;
        for program in &programs {
            count.add(program.run(&server.url(), None, SCENARIOS)?);
        }
    }
    let secret = Secret::new()?;
    let server = Server::start(against, Some(&secret))?;
    for program in &programs {
        count.add(program.run(&server.url(), Some(&secret.token), TOKEN_SCENARIOS)?);
    }
    println!("{} ok, {} absent in the client, {} failed", count.ok, count.absent, count.failed);
    ensure!(count.failed == 0, "{} scenarios failed", count.failed);
    ensure!(count.ok > 0, "no scenario was run");
    Ok(())
}

/// How scenarios have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    ok: usize,
    absent: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.absent += other.absent;
        self.failed += other.failed;
    }

    /// What a program's output says. A scenario without a line has failed: its program ended before.
    fn of(output: &str, scenarios: &[&str]) -> Self {
        let mut count = Self::default();
        for scenario in scenarios {
            let line = output.lines().find(|line| line.split(' ').nth(1) == Some(scenario));
            match line.and_then(|line| line.split(' ').next()) {
                Some("ok") => count.ok += 1,
                Some("absent") => count.absent += 1,
                _ => count.failed += 1,
            }
        }
        count
    }
}

/// A server that clients run against; it ends with this.
enum Server {
    Leat { process: Child, port: u16, folder: PathBuf },
    Pulsar(Pulsar),
}

impl Server {
    fn start(against: &str, secret: Option<&Secret>) -> Result<Self> {
        if against == "pulsar" {
            let settings = [("brokerDeduplicationEnabled", "true")];
            return Pulsar::start(&Options { settings: &settings, secret }).map(Self::Pulsar);
        }
        let [port, _] = pulsar::free_ports()?;
        let folder = services::cache()?.join(format!("leat-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(built()?);
        command.args(["broker", "--deduplicate", "--listen"]).arg(format!("127.0.0.1:{port}"));
        command.arg("--dir").arg(folder.join("journal")).stdin(Stdio::null());
        if let Some(secret) = secret {
            let key = folder.join("secret.key");
            std::fs::write(&key, secret.bytes()?)?;
            command.arg("--token-key").arg(key);
        }
        let mut process = command.spawn().context("starting `leat broker`")?;
        services::wait_for("`leat broker`", START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("`leat broker` ended with {status}");
            }
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(Self::Leat { process, port, folder })
    }

    fn url(&self) -> String {
        let port = match self {
            Self::Leat { port, .. } => *port,
            Self::Pulsar(pulsar) => pulsar.port(),
        };
        format!("pulsar://127.0.0.1:{port}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Leat { process, folder, .. } = self {
            // Its data goes with it, so nothing is worth an orderly end.
            let _ = process.kill();
            let _ = process.wait();
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Builds `leat` and gives where it is.
fn built() -> Result<&'static Path> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--package", "leatworks-cli"]);
    crate::ci::run_command(&mut build)?;
    Ok(Path::new("target/debug/leat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_without_a_line_has_failed() {
        let output = "noise\nok a\nFAIL b it broke\nabsent c no such thing\n";
        assert_eq!(Count::of(output, &["a", "b", "c", "d"]), Count { ok: 1, absent: 1, failed: 2 });
    }
}
