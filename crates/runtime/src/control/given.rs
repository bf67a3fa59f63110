//! The messages that somebody gives on a command line.

use super::Outgoing;
use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
};

/// Why nothing is sent.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// There is neither a message nor anything that is piped in.
    #[error("no message: give one as JSON, or a file of them by `--file`")]
    Missing,
    /// What is given cannot be read.
    #[error("reading {place}: {error}")]
    Read {
        /// What it is, for people.
        place: String,
        /// Why.
        error: io::Error,
    },
    /// One of them is no JSON, so that none is sent.
    #[error("{what} is no JSON: {error}; a text needs its quotes: '\"text\"'")]
    NoJson {
        /// Which one, counted from 1.
        what: String,
        /// Why.
        error: serde_json::Error,
    },
    /// There is none in what is given.
    #[error("there is no message in the input")]
    Empty,
}

impl Outgoing {
    /// The messages that were given, all with one key: `message`, or one on each line of `file`, or without both, and for the file `-`, of what is piped in.
    ///
    /// # Errors
    /// If there is none, or one is no JSON.
    pub fn given(message: Option<&str>, file: Option<&Path>, key: Option<&str>) -> Result<Vec<Self>, GivenError> {
        let one = |text: &str, what: &dyn Fn() -> String| match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(Self { payload: text.to_owned(), key: key.map(str::to_owned) }),
            Err(error) => Err(GivenError::NoJson { what: what(), error }),
        };
        let failed = |place: &str, error| GivenError::Read { place: place.to_owned(), error };
        let text = match (message, file) {
            (Some(message), _) => return Ok(vec![one(message, &|| "the message".to_owned())?]),
            (None, Some(file)) if file != Path::new("-") => {
                fs::read_to_string(file).map_err(|error| failed(&format!("`{}`", file.display()), error))?
            }
            (None, None) if io::stdin().is_terminal() => return Err(GivenError::Missing),
            (None, _) => io::read_to_string(io::stdin()).map_err(|error| failed("standard input", error))?,
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
        let messages: Vec<Self> =
            lines.map(|(number, line)| one(line, &|| format!("message {}", number + 1))).collect::<Result<_, _>>()?;
        if messages.is_empty() { Err(GivenError::Empty) } else { Ok(messages) }
    }
}
