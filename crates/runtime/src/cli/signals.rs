//! Ctrl-C and SIGTERM: the first drains, the second stops at once.

use super::exit::{INTERRUPTED, TERMINATED};
use crate::run::Stop;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// What the signals have asked for.
pub(crate) struct Signals {
    /// To be watched.
    pub(crate) stop: watch::Receiver<Stop>,
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Listens from now on. `told`: whether people are told what a signal does.
    pub(crate) fn listen(told: bool) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, stop) = watch::channel(Stop::Run);
        let code = Arc::new(AtomicU8::new(0));
        let seen = code.clone();
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => INTERRUPTED,
                    _ = terminate.recv() => TERMINATED,
                };
                seen.store(code, Relaxed);
                let next = if *sender.borrow() == Stop::Run { Stop::Drain } else { Stop::Now };
                let what = if next == Stop::Drain { "Draining" } else { "Stopping" };
                let how = if next == Stop::Drain { "what is pending; once more stops at once" } else { "at once" };
                sender.send_replace(next);
                if told {
                    super::output::tell(&format!("{what:>12} {how} (nothing is lost either way)"));
                }
            }
        });
        Ok(Self { stop, code })
    }

    /// The exit code of the signal that ended the run, if one did.
    pub(crate) fn code(&self) -> Option<u8> {
        Some(self.code.load(Relaxed)).filter(|code| *code != 0)
    }
}
