//! Development tasks of this repository: `cargo xtask ci` runs everything that continuous integration runs.

mod bench;
mod ci;
mod clients;
mod faults;
mod services;
mod showcase;
mod simulate;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  ci [PART …]   run all of continuous integration, or only the named parts, and print how long each took
  ci --list     name the parts
  bench stores [--seconds N] [--rounds N] [--dir DIR]
                run the workload of the broker on fjall, redb and SQLite too, and print how they compare
  bench pulsar [--rounds N] [--only leat|pulsar] [--output FILE]
                load `leat broker` and the real Pulsar with the `pulsar` crate and with pulsar-perf, and print how they compare;
                a round takes about eight minutes, the result is written to FILE as JSON
  bench edge [--url pulsar://HOST:PORT] [--leat BINARY]
                measure one edge on a Pulsar service by the dispatcher, by the `pulsar` crate and by pulsar-perf, in about two minutes
  bench deploy [--rounds N] [--leat BINARY]
                measure on a cluster how long it takes from a deploy to the first message through 20 edges, beside the bare Deployments
  bench kubernetes [--topologies N,…] [--leat BINARY]
                measure what the controller does for many topologies on a real API server without nodes: times, calls, memory
  bench jobs [--rounds N] [--leat BINARY]
                measure on a cluster how many Jobs a second an adapter makes for messages, beside a bare loop that makes the same Jobs
  clients [--against leat|pulsar] [python|go|java|rust|tools|trampoline …]
                run foreign Pulsar clients through their scenarios against the embedded broker, or against the real Pulsar
  faults [--tier pr|nightly] [--seed N] [--minutes N] [--teeth] [--report PAGE] [RULE …]
                let faults come to the embedded broker, by all rules or only the named ones, and judge what is there afterwards;
                with --minutes R8 and R9 stop after so long, and what has not come counts as missed;
                with --teeth the product is broken, and the oracle must object; R8, R9 and R…-pulsar let them come to a real Pulsar, which
                needs Java and Maven, and run only when they are named
  simulate [--from SEED] [--seeds N] [--bugs]
                run broker and dispatchers on a simulated disk, N seeds (1,000), in each of which nothing may be found; with --bugs, find each
                bug that can be planted instead
  services up|down pulsar | status | fetch pulsar|clients
                Apache Pulsar on loopback, and the clients that the protocol server is tested with
  services up kubernetes [--nodes N] [--with-pulsar] | down kubernetes | exec kubernetes COMMAND … | load kubernetes ARCHIVE …
           | test kubernetes [STAGE …]
                a real Kubernetes in a network namespace of its own, with 1 to 3 nodes, and with an Apache Pulsar that pods reach; a
                command inside of it, with its kubectl and helm; images for its nodes; the test of `ci kubernetes` on a cluster of
                its own, whole or only some of its stages";

fn main() -> ExitCode {
    if std::env::var_os(faults::BINARY).is_some() {
        return faults::binary();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let [faults::ROLE, job] = args.as_slice() {
        return faults::child(job);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["ci", "--list"] => ci::list(),
        ["ci", parts @ ..] => ci::run(parts)?,
        ["bench", "stores", rest @ ..] => bench::stores(rest)?,
        ["bench", "edge", rest @ ..] => bench::edge(rest)?,
        ["bench", "deploy", rest @ ..] => bench::deploy(rest)?,
        ["bench", "jobs", rest @ ..] => bench::jobs(rest)?,
        ["bench", "kubernetes", rest @ ..] => bench::kubernetes(rest)?,
        ["bench", "pulsar", rest @ ..] => bench::pulsar(rest)?,
        ["clients", rest @ ..] => clients::run(rest).map(drop)?,
        ["services", rest @ ..] => services::run(rest)?,
        ["simulate", words @ ..] => simulate::run(words)?,
        ["faults", words @ ..] => _ = faults::run(words)?,
        _ => bail!("{USAGE}"),
    }
    Ok(())
}
