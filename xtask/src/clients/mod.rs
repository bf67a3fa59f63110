//! Clients of the Pulsar protocol that nobody here wrote, run against this project's server or against the real one: `cargo xtask clients`.

pub(crate) mod edges;
pub(crate) mod programs;
mod scenarios;
pub(crate) mod server;
mod trampoline;

use crate::services::{cache, pulsar::Secret};
use anyhow::{Context, Result, bail};
use programs::{CLIENTS, Client};
use scenarios::{SCENARIOS, WITH_TOKENS};
use server::{Against, Running};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// One program with all its scenarios: about a minute on a quiet machine, several where builds take the cores. Then it hangs.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// What is run, and what could not be.
#[derive(Debug, Default)]
struct Counts {
    ok: usize,
    failed: usize,
    absent: usize,
    missing: Vec<String>,
}

/// Fetches what the clients need and builds their programs, as far as this machine can.
pub(crate) fn fetch() -> Result<()> {
    let cache = cache()?;
    let mut missing = Vec::new();
    for client in CLIENTS {
        match client.missing() {
            Some(why) => missing.push(format!("{}: {why}", client.name)),
            None => client.build(&cache)?,
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        missing => bail!("NOT FETCHED: {}", missing.join("; ")),
    }
}

/// `cargo xtask clients [--against leat|pulsar] [CLIENT …]`. Gives what could not run; with `CI` set that is an error.
pub(crate) fn run(args: &[&str]) -> Result<Vec<String>> {
    let (against, names) = match args {
        ["--against", "leat", names @ ..] => (Against::Leat, names),
        ["--against", "pulsar", names @ ..] => (Against::Pulsar, names),
        names => (Against::Leat, names),
    };
    let known = |name: &&str| CLIENTS.iter().any(|client| client.name == *name) || *name == "trampoline";
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        bail!(
            "no client is called `{unknown}`: {}, trampoline",
            CLIENTS.iter().map(|client| client.name).collect::<Vec<_>>().join(", ")
        );
    }
    let wanted = |name: &str| names.is_empty() || names.contains(&name);
    let mut counts = Counts::default();
    let clients = built(CLIENTS.iter().filter(|client| wanted(client.name)), &mut counts)?;
    rounds(against, &clients, &mut counts)?;
    if against == Against::Leat && wanted("trampoline") {
        match crate::services::JAVA.check() {
            Err(why) => counts.missing.push(format!("trampoline: {why}")),
            Ok(()) => match trampoline::check() {
                Ok(()) => counts.ok += 1,
                Err(error) => {
                    counts.failed += 1;
                    println!("FAIL  trampoline: {error:#}");
                }
            },
        }
    }
    println!("{} ok, {} failed, {} that a client does not have", counts.ok, counts.failed, counts.absent);
    counts.missing.iter().for_each(|missing| println!("NOT RUN: {missing}"));
    if counts.failed > 0 {
        bail!("{} scenarios failed", counts.failed);
    }
    if !counts.missing.is_empty() && std::env::var_os("CI").is_some() {
        bail!("not run, and continuous integration must: {}", counts.missing.join("; "));
    }
    Ok(counts.missing)
}

/// The clients that this machine can run, built.
fn built<'a>(clients: impl Iterator<Item = &'a Client>, counts: &mut Counts) -> Result<Vec<&'a Client>> {
    let cache = cache()?;
    let mut runnable = Vec::new();
    for client in clients {
        match client.missing() {
            Some(why) => counts.missing.push(format!("{}: {why}", client.name)),
            None => {
                let start = Instant::now();
                client.build(&cache)?;
                println!("built {} in {:.0} s", client.name, start.elapsed().as_secs_f64());
                runnable.push(client);
            }
        }
    }
    Ok(runnable)
}

/// All scenarios on a server for everybody, then those with tokens on one that asks for them.
fn rounds(against: Against, clients: &[&Client], counts: &mut Counts) -> Result<()> {
    if clients.is_empty() {
        return Ok(());
    }
    let secret = Secret::for_tests();
    for (secret, list) in [(None, SCENARIOS), (Some(&secret), WITH_TOKENS)] {
        let server = against.start(secret)?;
        for client in clients {
            let start = Instant::now();
            println!("---- {} ----", client.about);
            one(client, &server, secret, list, counts)?;
            println!("      {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// Runs one client's program through a list, and counts what it says.
fn one(client: &Client, server: &Running, secret: Option<&Secret>, list: &[(&str, &str)], counts: &mut Counts) -> Result<()> {
    let cache = cache()?;
    let log = cache.join(format!("clients/{}.log", client.name));
    let mut command = client.command(&cache)?;
    command.args(list.iter().map(|(name, _)| name)).env("PULSAR_URL", server.url()).env_remove("PULSAR_TOKEN");
    if let Some(secret) = secret {
        command.env("PULSAR_TOKEN", secret.token);
    }
    // A group of its own, so that a hanging tool is ended with the script that started it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).process_group(0);
    let mut process = command.spawn().with_context(|| format!("starting the program of {}", client.about))?;
    let mut heard = Vec::new();
    lines(&mut process, |line| heard.push(line))?;
    for (name, about) in list {
        let (word, reason) = answer(&heard, name);
        match word {
            Word::Ok => {
                counts.ok += 1;
                println!("ok    {name}");
            }
            Word::Absent => {
                counts.absent += 1;
                println!("      {name}: {reason}");
            }
            Word::Fail => {
                counts.failed += 1;
                println!("FAIL  {name} ({about}): {reason}; log: {}", log.display());
            }
        }
    }
    Ok(())
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Ok,
    Absent,
    Fail,
}

/// What a program said of a scenario, and why. One without a line has failed.
fn answer<'a>(heard: &'a [String], scenario: &str) -> (Word, &'a str) {
    let found = heard.iter().find_map(|line| {
        let mut words = line.splitn(3, ' ');
        let word = match words.next()? {
            "ok" => Word::Ok,
            "absent" => Word::Absent,
            "FAIL" => Word::Fail,
            _ => return None,
        };
        (words.next()? == scenario).then(|| (word, words.next().unwrap_or_default()))
    });
    found.unwrap_or((Word::Fail, "no answer: the program hung or ended before it"))
}

/// Hears every line that a program prints until it ends, or ends it when it takes too long.
fn lines(process: &mut Child, mut hear: impl FnMut(String)) -> Result<()> {
    let output = process.stdout.take().context("the program's output is a pipe")?;
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    let end = Instant::now() + PROGRAM_LIMIT;
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => hear(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // The whole group; what is gone already does not mind.
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", process.id())]).status();
                break;
            }
        }
    }
    process.wait()?;
    // Its pipe is closed with the group.
    let _ = reader.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_without_a_line_has_failed() {
        let heard = ["noise", "ok a", "FAIL b it broke", "absent c no such thing", "ok abc"].map(str::to_owned);
        let words = ["a", "b", "c", "ab", "d"].map(|scenario| answer(&heard, scenario).0);
        assert_eq!(words, [Word::Ok, Word::Fail, Word::Absent, Word::Fail, Word::Fail]);
        assert_eq!(answer(&heard, "b").1, "it broke");
    }
}
