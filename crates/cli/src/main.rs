//! `leat`, the command: checks, draws, builds and runs topologies, looks into their queues, and measures the machine.

mod about;
mod args;
mod bench;
mod broker;
mod dispatch;
mod exit;
mod graph;
mod image;
mod jobs;
mod kubernetes;
mod operate;
mod project;
mod trace;
mod work;

use args::{Color, Command, Leat};
use clap::Parser;
use std::{io::IsTerminal, process::ExitCode};

fn main() -> ExitCode {
    let leat = match Leat::try_parse() {
        Ok(leat) => leat,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // The write fails only when nobody reads any more, which is no reason to end differently.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let color = use_color(leat.global.color);
    match run(leat, color) {
        Ok(code) => code,
        Err(failure) => failure.exit(color),
    }
}

fn run(leat: Leat, color: bool) -> exit::Result<ExitCode> {
    let global = leat.global;
    match leat.command {
        Command::New(args) => work::new(&args, &global)?,
        Command::Check(args) => project::check(&args, &global, color)?,
        Command::Graph(args) => graph::run(&args, &project::load(&global, color)?)?,
        Command::Build(args) => work::build(&args, &project::load(&global, color)?, &global)?,
        Command::Run(args) => return work::run(&args, &project::load(&global, color)?, &global),
        Command::Send(args) => operate::send(&args, &project::load(&global, color)?)?,
        Command::Status(args) => operate::status(&args, &project::load(&global, color)?)?,
        Command::Dlq(args) => operate::dlq(&args, &project::load(&global, color)?)?,
        Command::Trace(args) => trace::run(&args, &project::load(&global, color)?)?,
        Command::Image(args) => image::leat(&args, &global)?,
        Command::Deploy(args) => kubernetes::deploy(&args, &global, &project::load(&global, color)?)?,
        Command::Rollback(args) => kubernetes::rollback(&args, &global)?,
        Command::K8s(args) => kubernetes::k8s(&args, &global, color)?,
        Command::Controller(args) => return kubernetes::control(&args),
        Command::Jobs(args) => return jobs::run(&args),
        Command::Explain(args) => about::explain(&args)?,
        Command::Broker(args) => return broker::run(args, &global, color),
        Command::Dispatch(args) => return dispatch::run(&args, &global, color),
        Command::Bench(args) => bench::run(&args, &global)?,
        Command::Completions(args) => about::completions(&args),
        Command::Man(args) => about::man(&args)?,
        Command::Version(args) => about::version(&args),
    }
    Ok(ExitCode::SUCCESS)
}

/// Colour on a terminal that can show it, unless somebody has said otherwise.
fn use_color(choice: Color) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR") => false,
        Color::Auto if set("CLICOLOR_FORCE") => true,
        Color::Auto => std::env::var("TERM").as_deref() != Ok("dumb") && std::io::stderr().is_terminal(),
    }
}
