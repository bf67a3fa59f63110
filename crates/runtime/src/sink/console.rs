//! Standard output as the sinks of a run use it.

use std::{
    io::{self, Write},
    sync::Arc,
};
use tokio::sync::watch;

/// Where lines for standard output go, and whether nobody reads them any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console {
    /// Whether the lines go to standard error, because standard output is for something else.
    pub(crate) on_stderr: bool,
    closed: Arc<watch::Sender<bool>>,
}

impl Console {
    /// Writes lines. An error of kind `BrokenPipe` is noted too.
    pub(super) fn write(&self, lines: &[u8]) -> io::Result<()> {
        let written = if self.on_stderr { write_to(io::stderr().lock(), lines) } else { write_to(io::stdout().lock(), lines) };
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.closed.send_replace(true);
        }
        written
    }

    /// Waits until nobody reads the lines any more.
    pub(crate) async fn closed(&self) {
        // The sender is in `self`, so it is there.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

fn write_to(mut out: impl Write, lines: &[u8]) -> io::Result<()> {
    out.write_all(lines)?;
    out.flush()
}
