//! What travels through `email-pipeline`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What starts the pipeline. Everything may be left out; `null` is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The CSV file of the subscribers, if it is not the configured one.
    #[serde(default)]
    pub subscribers: Option<PathBuf>,
}

/// One mailing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The CSV file of the subscribers, if it is not the configured one.
    pub subscribers: Option<PathBuf>,
    /// When it began, in seconds since the Unix epoch: the date of all its mails.
    pub began_s: u64,
}

/// One row of the subscribers' file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, as a person writes it.
    pub name: String,
    /// The address as it stands in the file; it may be none.
    pub email: String,
    /// Whether mail is wanted.
    pub subscribed: bool,
    /// The date of the mail, in seconds since the Unix epoch.
    pub date_s: u64,
}

/// A mail that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The name of the recipient.
    pub name: String,
    /// The address of the recipient, which is valid.
    pub email: String,
    /// The subject, one line.
    pub subject: String,
    /// The text.
    pub body: String,
    /// Its date, in seconds since the Unix epoch.
    pub date_s: u64,
}

/// What became of one subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The address as it stands in the file.
    pub email: String,
    /// What became of it.
    #[serde(flatten)]
    pub result: Result,
}

/// What became of a subscriber's mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Result {
    /// It was handed over.
    Sent {
        /// The `Message-ID` of the mail.
        message_id: String,
        /// The Maildir or server that has it.
        to: String,
    },
    /// There was none.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// A text without control characters and with single blanks, as a header may hold it.
pub(crate) fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
