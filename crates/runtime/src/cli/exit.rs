//! The exit codes of the generated binaries, and how errors are told.

use crate::{
    config::ConfigError,
    control::{AccessError, FailureKind},
    host::HostError,
    run::RunError,
    worker::ServeError,
};
use leatworks_broker::BrokerError;
use std::{fmt, process::ExitCode};

/// All went well.
pub(crate) const OK: u8 = 0;
/// A bug, or something that nobody foresaw.
pub(crate) const INTERNAL: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// The project, its configuration or an input is wrong.
pub(crate) const INVALID: u8 = 3;
/// Nothing fits what was asked for.
pub(crate) const NOTHING: u8 = 4;
/// Something that is needed cannot be reached.
pub(crate) const CONNECT: u8 = 5;
/// Refused as unsafe.
pub(crate) const REFUSED: u8 = 6;
/// Something else is in the way.
pub(crate) const CONFLICT: u8 = 7;
/// The time to wait was over.
pub(crate) const TIMED_OUT: u8 = 8;
/// Part of it failed.
pub(crate) const PARTLY: u8 = 9;
/// The journal could not be synced: what was not acknowledged may be lost, and nothing is acknowledged any more.
pub(crate) const STORAGE: u8 = 74;
/// Messages were given up, with `--fail-on-dlq`.
pub(crate) const DEAD_LETTERS: u8 = 102;
/// Ended by SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// Nobody reads standard output any more: what a shell reports of a program that SIGPIPE has ended.
pub(crate) const OUTPUT_CLOSED: u8 = 141;
/// Ended by SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Why a command did not do what it was asked, with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }

    /// Tells it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        super::output::tell(&format!("error: {}", self.text));
        if self.code == INTERNAL {
            super::output::tell("  = this should not happen: please report it with the command and what stands above");
        }
        ExitCode::from(self.code)
    }
}

fn broker_code(error: &BrokerError) -> u8 {
    failure_code(error.kind().into())
}

/// The exit code for what a running process has answered.
pub(crate) fn failure_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Storage => STORAGE,
        FailureKind::Conflict => CONFLICT,
        FailureKind::Unavailable => CONNECT,
        FailureKind::Invalid | FailureKind::TooLarge => INVALID,
        FailureKind::NotFound => NOTHING,
        FailureKind::Full => PARTLY,
        FailureKind::Other => INTERNAL,
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::new(broker_code(&error), error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(INVALID, error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let code = match &error {
            HostError::Unknown(_) => INVALID,
            HostError::Directory { .. } => CONNECT,
            HostError::Broker { error, .. } => broker_code(error),
            HostError::Connect { error, .. } if error.is_retryable() => CONNECT,
            HostError::Connect { .. } => INVALID,
        };
        Self::new(code, error)
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Host(error) => error.into(),
            AccessError::Socket { .. } => Self::new(CONNECT, error),
            AccessError::Memory => Self::new(INVALID, error),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Broker(error) => broker_code(error),
            RunError::Config(_) | RunError::Start { .. } | RunError::Source { .. } => INVALID,
            RunError::Conflict(_) => CONFLICT,
            RunError::Fold(_) => PARTLY,
            RunError::OutputClosed => OUTPUT_CLOSED,
        };
        Self::new(code, error)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = match &error {
            ServeError::NotLoopback(_) => REFUSED,
            ServeError::Listen { .. } => CONNECT,
            ServeError::Start { .. } | ServeError::Inherit(_) => INVALID,
            ServeError::Serve(_) => INTERNAL,
        };
        Self::new(code, error)
    }
}
