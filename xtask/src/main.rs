//! Development tasks of this repository: `cargo xtask ci` runs everything that continuous integration runs.

mod bench;
mod ci;
mod clients;
mod services;
mod showcase;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  ci [PART …]   run all of continuous integration, or only the named parts, and print how long each took
  ci --list     name the parts
  bench stores [--seconds N] [--rounds N] [--dir DIR]
                run the workload of the broker on fjall, redb and SQLite too, and print how they compare
  services up|down pulsar | status | fetch pulsar|clients
                 Apache Pulsar on loopback, and the clients that the protocol server is tested with";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ci", "--list"] => ci::list(),
        ["ci", parts @ ..] => ci::run(parts)?,
        ["bench", "stores", rest @ ..] => bench::stores(rest)?,
        ["services", rest @ ..] => services::run(rest)?,
        _ => bail!("{USAGE}"),
    }
    Ok(())
}
