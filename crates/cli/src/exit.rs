//! How `leat` ends: one exit code for each kind of end that a script can tell apart.

use std::{fmt, process::ExitCode};

/// Why a command did not end well. The numbers are documented and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A bug in leat.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The project, a graph or the configuration is invalid.
    Invalid = 3,
    /// Nothing matched, so nothing was done.
    Nothing = 4,
    /// A process or broker cannot be reached.
    Unreachable = 5,
    /// Refused: it would be unsafe, or was not confirmed.
    Refused = 6,
    /// Somebody else holds what is needed, or it exists already.
    Conflict = 7,
    /// The wait is over and it has not happened.
    TimedOut = 8,
    /// Part of it failed.
    Partly = 9,
    /// A difference was found by a command that looks for one.
    Different = 10,
    /// The journal failed: nothing is acknowledged any more.
    Storage = 74,
    /// The build failed.
    Build = 101,
}

/// A command's failure: the exit code, and what to tell the person. A failure whose text is empty has been reported already.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    /// What went wrong, and what would help.
    pub(crate) message: String,
}

/// What every command returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with its text.
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// A failure that has told the person everything already.
    pub(crate) fn reported(code: Code) -> Self {
        Self { code, message: String::new() }
    }

    /// Prints the failure and gives the exit code.
    pub(crate) fn exit(self, color: bool) -> ExitCode {
        if !self.message.is_empty() {
            let (on, off) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            eprintln!("{on}error{off}: {}", self.message);
            if self.code == Code::Internal {
                eprintln!("  this is a bug in leat; please report it with the command you ran and `leat version -o json`");
            }
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory => Code::Invalid,
            std::io::ErrorKind::PermissionDenied => Code::Refused,
            std::io::ErrorKind::AlreadyExists => Code::Conflict,
            _ => Code::Internal,
        };
        Self::new(code, error)
    }
}

/// The exit code of a program that its reader has left, as a shell reports SIGPIPE.
const READER_GONE: i32 = 141;

/// Writes data to standard output. A reader that has seen enough, such as `head`, ends the command quietly.
pub(crate) fn write_out(bytes: &[u8]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("error: writing to standard output: {error}");
        }
        std::process::exit(READER_GONE);
    }
}

/// Writes a line of data to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::exit::write_out(format!("{}\n", format_args!($($text)*)).as_bytes()) };
}
pub(crate) use say;

/// Names what was being done when an operation of the system failed.
pub(crate) trait Doing<T> {
    /// `doing` is a lower-case fragment that names the thing in backticks.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let failure = Failure::from(error);
            Failure::new(failure.code, format!("{}: {}", doing(), failure.message))
        })
    }
}
