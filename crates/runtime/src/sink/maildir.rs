//! The sink `maildir`: one file per message, whole or not at all, and once however often the message comes.

use crate::{
    Context, TaskError,
    handler::{Handler, Output, decode},
};
use leatworks_broker::{BoxFuture, Message};
use serde::Deserialize;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What it takes: the text of a mail (RFC 5322), bare or as a field.
#[derive(Deserialize)]
#[serde(untagged)]
enum Mail {
    Bare(String),
    Field { rfc5322: String },
}

#[derive(Clone)]
pub(super) struct Maildir {
    path: PathBuf,
}

impl Maildir {
    pub(super) fn open(path: &Path) -> Result<Self, TaskError> {
        for folder in ["tmp", "new", "cur"] {
            fs::create_dir_all(path.join(folder))
                .map_err(|error| TaskError::retryable(format!("making the Maildir `{}`: {error}", path.display())))?;
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The name is that of the message, so a repetition writes the same file again.
    fn deliver(&self, name: &str, text: &str, again: bool) -> io::Result<()> {
        let new = self.path.join("new").join(name);
        if new.exists() || (again && self.was_read(name)?) {
            return Ok(());
        }
        let temporary = self.path.join("tmp").join(name);
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&temporary, &new)?;
        // The name survives a loss of power only when its directory is written too.
        File::open(self.path.join("new"))?.sync_all()
    }

    /// A mail reader moves a mail to `cur` and adds any flags behind a colon. Looking through it takes long, so it is done for a message
    /// that was tried before only.
    fn was_read(&self, name: &str) -> io::Result<bool> {
        for entry in fs::read_dir(self.path.join("cur"))? {
            let found = entry?.file_name();
            let found = found.as_encoded_bytes();
            if found.strip_prefix(name.as_bytes()).is_some_and(|flags| flags.is_empty() || flags[0] == b':') {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Handler for Maildir {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let (Mail::Bare(text) | Mail::Field { rfc5322: text }) = decode(message.codec, &message.payload)?;
            let name = format!("{}.{}.leatworks", message.created_ms / 1000, cx.message_id());
            let (this, again) = (self.clone(), cx.attempt() > 1);
            // It waits for the disk, which no thread of the runtime may.
            tokio::task::spawn_blocking(move || this.deliver(&name, &text, again)).await??;
            Ok(Vec::new())
        })
    }
}
