//! The `pulsar` crate's run through the scenarios: `scenarios NAME…` with PULSAR_URL, and PULSAR_TOKEN where a token is needed.
//!
//! Prints one line per scenario: `ok NAME`, `FAIL NAME reason`, or `absent NAME reason` where this client cannot ask for it. What each scenario
//! means stands in the list of `cargo xtask clients`. With `load` as the first word it loads the server instead: see there.

mod load;
mod rig;
mod scenarios;

use rig::Rig;
use std::time::{SystemTime, UNIX_EPOCH};

/// No scenario may hang the run: the slowest one, 200,000 messages, was seen to take 25 s.
const SCENARIO_LIMIT: std::time::Duration = std::time::Duration::from_secs(150);

/// What this client cannot ask for, and why.
const ABSENT: &[(&str, &str)] = &[
    ("ack-batch-index", "seen with 6.9.1: acknowledging one message of a batch acknowledges the batch"),
    ("redeliver-all", "the pulsar crate does not ask for it"),
];

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, load @ ..] = words.as_slice()
        && first == "load"
    {
        return match load::run(load).await {
            Ok(result) => {
                println!("{result}");
                std::process::ExitCode::SUCCESS
            }
            Err(failure) => {
                eprintln!("{}", failure.0);
                std::process::ExitCode::FAILURE
            }
        };
    }
    for name in words {
        if let Some((_, reason)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
            println!("absent {name} {reason}");
            continue;
        }
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
        let topic = format!("persistent://public/default/rust-{name}-{stamp:x}");
        let scenario = async {
            let rig = Rig::new(std::env::var("PULSAR_TOKEN").ok(), topic).await?;
            scenarios::run(&name, &rig).await
        };
        match tokio::time::timeout(SCENARIO_LIMIT, scenario).await {
            Ok(Ok(())) => println!("ok {name}"),
            Ok(Err(failure)) => println!("FAIL {name} {}", failure.0.replace('\n', " ")),
            Err(_) => println!("FAIL {name} not done after {} s", SCENARIO_LIMIT.as_secs()),
        }
    }
    std::process::ExitCode::SUCCESS
}
