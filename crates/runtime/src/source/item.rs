//! What the sources give.

use serde::{Deserialize, Serialize};

/// One line of a text, given by the source `lines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1 on.
    pub number: u64,
    /// The line without its end (`\n` or `\r\n`). Bytes that are not UTF-8 are replaced by U+FFFD.
    pub text: String,
    /// The bytes of the line in hexadecimal, if some of them are not UTF-8, so that nothing is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_hex: Option<String>,
    /// Whether the line was longer than the source's limit: then this is a part of it, and the next message is the next part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// One file of a directory, given by the source `directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is: the directory as configured, and the path below it.
    pub path: String,
    /// The bytes of the path in hexadecimal, if some of them are not UTF-8 (they are U+FFFD in `path`): by them the file can be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_hex: Option<String>,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// When it was last changed, in milliseconds since the Unix epoch; zero if the file system does not say.
    pub modified_ms: u64,
}

/// One stroke of the clock, given by the source `interval`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Its number, from 1 on.
    pub number: u64,
    /// When it was due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
}
