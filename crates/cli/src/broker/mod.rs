//! `leat broker`: what concerns the embedded broker itself and no single topology.

mod serve;
mod verify;

pub(crate) use serve::BrokerServe;

use crate::{
    args::{Broker, BrokerCommand, Global},
    exit::Result,
};
use std::process::ExitCode;

/// Runs a command of the group. Without one, it serves.
pub(crate) fn run(args: Broker, global: &Global, color: bool) -> Result<ExitCode> {
    match args.command.unwrap_or(BrokerCommand::Serve(args.serve)) {
        BrokerCommand::Serve(serve) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve::until_stopped(serve, global))
        }
        BrokerCommand::Verify(args) => verify::run(&args, global, color).map(|()| ExitCode::SUCCESS),
    }
}
