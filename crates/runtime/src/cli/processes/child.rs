//! One child: started, started again when it dies, and ended.

use super::{
    super::{
        exit::{Failure, INVALID, NOTHING, PARTLY, REFUSED, USAGE},
        output,
    },
    lines,
};
use crate::run::Stop;
use std::{
    collections::VecDeque,
    ffi::OsString,
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::BufReader,
    process::Command,
    sync::{mpsc, watch},
    time::Instant,
};

/// How long a child lives that did not die at once: longer than it takes to start, to connect and to meet the first message.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// How often in a row a child may die at once. A message that kills its worker is given up after its attempts, 3 unless the task says otherwise; more than that is
/// the program itself.
const QUICK_DEATHS_MAX: u32 = 6;

/// The wait before a child is started again; it doubles with each death at once.
const RESTART_FIRST: Duration = Duration::from_millis(50);

/// The longest such wait.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// How long a child may take to end when it is told to: a dispatcher's limit for the calls under way, and a little.
const END_MAX: Duration = Duration::from_secs(35);

/// The lines of its standard error that are told of a child that cannot be kept alive.
const LAST_LINES: usize = 10;

/// What is asked of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Live.
    Go,
    /// Finish what is in hand, and end.
    End,
}

/// Takes a line of standard output, and says whether it was for it; `None` is that the process has ended.
pub(super) type Told = Arc<dyn Fn(Option<&str>) -> bool + Send + Sync>;

/// A child to be.
pub(super) struct Child {
    /// What its lines begin with.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, String)>,
    /// Its standard input.
    pub(super) socket: Option<TcpListener>,
    /// Who takes its standard output; without one it is shown. A child has begun its work with the first line that is taken.
    pub(super) told: Option<Told>,
    /// Whether all is to end at once.
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) failures: mpsc::Sender<Failure>,
}

/// How a child has ended.
enum Ended {
    /// As it was told.
    Asked,
    /// By itself: how, and with which code if it had not begun its work yet. Later on a code is whatever its task has called `exit` with.
    Died(String, Option<i32>),
}

impl Child {
    /// Keeps a process alive until it is told to end.
    pub(super) async fn keep(mut self, mut orders: watch::Receiver<Order>) {
        let mut quick = 0;
        loop {
            let (since, last) = (Instant::now(), Arc::default());
            let ended = self.once(&mut orders, &last).await;
            if let Some(told) = &self.told {
                told(None);
            }
            let Ended::Died(how, code) = ended else { return };
            quick = if since.elapsed() < STEADY_AFTER { quick + 1 } else { 1 };
            let hopeless =
                code.is_some_and(|code| [USAGE, INVALID, NOTHING, REFUSED].iter().any(|known| i32::from(*known) == code));
            if hopeless || quick >= QUICK_DEATHS_MAX {
                let why = if hopeless {
                    ", which another start would not change".to_owned()
                } else {
                    format!(", {quick} times at once")
                };
                // What others have in hand may take long to end.
                output::tell(&format!("{:>12} {} {how}{why}: the run ends", "Died", self.name));
                return self.give_up(&format!("{how}{why}"), &last);
            }
            let wait = RESTART_FIRST.saturating_mul(1 << (quick - 1)).min(RESTART_MAX);
            output::tell(&format!("{:>12} {} {how}, and is started again in {wait:?}", "Died", self.name));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = orders.wait_for(|order| *order == Order::End) => return,
                () = now(&mut self.stop) => return,
            }
        }
    }

    fn give_up(&self, how: &str, last: &Mutex<VecDeque<String>>) {
        let last: Vec<String> = last.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let last =
            if last.is_empty() { " and said nothing".to_owned() } else { format!("; its last words:\n  {}", last.join("\n  ")) };
        // If somebody else has failed before, that ends the run already.
        let _ = self.failures.try_send(Failure::new(PARTLY, format!("the process of `{}` {how}{last}", self.name)));
    }

    /// Starts it and waits for its end.
    async fn once(&mut self, orders: &mut watch::Receiver<Order>, last: &Arc<Mutex<VecDeque<String>>>) -> Ended {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return Ended::Died(format!("cannot be started as `{}`: {error}", self.program.display()), None),
        };
        let reading = (child.stdout.take(), child.stderr.take());
        let (name, told, kept) = (self.name.clone(), self.told.clone(), last.clone());
        let mut has_begun = false;
        let stdout = async {
            let Some(out) = reading.0 else { return };
            lines::each(BufReader::new(out), |line| match told.as_ref().is_some_and(|told| told(Some(line))) {
                true => has_begun = true,
                false => output::tell(&format!("{name} | {line}")),
            })
            .await;
        };
        let stderr = async {
            let Some(out) = reading.1 else { return };
            lines::each(BufReader::new(out), |line| {
                output::tell(&format!("{name} | {line}"));
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LAST_LINES {
                    kept.pop_front();
                }
                kept.push_back(line.to_owned());
            })
            .await;
        };
        let mut asked = false;
        let waiting = async {
            let ended = tokio::select! {
                ended = child.wait() => return ended,
                _ = orders.wait_for(|order| *order == Order::End) => { asked = true; false }
                () = now(&mut self.stop) => { asked = true; true }
            };
            if !ended {
                terminate(&child);
                tokio::select! {
                    ended = child.wait() => return ended,
                    () = tokio::time::sleep(END_MAX) => tracing::warn!(child = name, "it does not end, and is killed"),
                    () = now(&mut self.stop) => {}
                }
            }
            child.kill().await?;
            child.wait().await
        };
        // What it has written is read to its end, which comes with the process: its own children, if it has any, have closed it or are killed with it.
        let (status, ..) = tokio::join!(waiting, stdout, stderr);
        if asked { Ended::Asked } else { died(status, has_begun) }
    }

    fn spawn(&self) -> std::io::Result<tokio::process::Child> {
        let stdin = match &self.socket {
            Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone()?)),
            None => Stdio::null(),
        };
        Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C comes to this process, which says who ends when.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

fn died(status: std::io::Result<ExitStatus>, has_begun: bool) -> Ended {
    match status {
        Ok(status) => Ended::Died(format!("has ended with {status}"), status.code().filter(|_| !has_begun)),
        Err(error) => Ended::Died(format!("cannot be waited for: {error}"), None),
    }
}

fn terminate(child: &tokio::process::Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself just now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Resolves when all is to end at once.
async fn now(stop: &mut watch::Receiver<Stop>) {
    // Without the listener of signals nobody can ask for it.
    if stop.wait_for(|stop| *stop == Stop::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// A shell that runs this, what it is told to, and where its failure comes.
    struct Shell {
        child: Child,
        stop: watch::Sender<Stop>,
        orders: watch::Sender<Order>,
        failures: mpsc::Receiver<Failure>,
    }

    fn shell(script: &str) -> Shell {
        let (failed, failures) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(Stop::Run);
        let child = Child {
            name: "shell".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("WORD", "oh dear".to_owned())],
            socket: None,
            told: None,
            stop: stopped,
            failures: failed,
        };
        Shell { child, stop, orders: watch::Sender::new(Order::Go), failures }
    }

    #[tokio::test]
    async fn who_dies_again_and_again_is_given_up_and_told_with_its_last_words() {
        for (code, begins, times, words) in [
            (7, false, QUICK_DEATHS_MAX, "`shell` has ended with exit status: 7, 6 times at once; its last words"),
            (3, false, 1, "exit status: 3, which another start would not change; its last words"),
            (3, true, QUICK_DEATHS_MAX, "`shell` has ended with exit status: 3, 6 times at once; its last words"),
        ] {
            let mut shell = shell(&format!("echo started; echo $WORD >&2; exit {code}"));
            let starts = Arc::new(AtomicU32::new(0));
            let seen = starts.clone();
            shell.child.told = Some(Arc::new(move |line| {
                seen.fetch_add(u32::from(line == Some("started")), SeqCst);
                begins
            }));
            shell.child.keep(shell.orders.subscribe()).await;
            let failure = shell.failures.try_recv().expect("it is told");
            assert_eq!((failure.code, starts.load(SeqCst)), (PARTLY, times), "{}", failure.text);
            assert!(failure.text.contains(words) && failure.text.ends_with("\n  oh dear"), "{}", failure.text);
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told_by_name() {
        let mut shell = shell("");
        shell.child.program = "/nowhere/program".into();
        shell.child.keep(shell.orders.subscribe()).await;
        let failure = shell.failures.try_recv().expect("it is told");
        assert!(failure.text.contains("cannot be started as `/nowhere/program`"), "{}", failure.text);
    }

    #[tokio::test]
    async fn who_is_told_to_end_ends_and_who_does_not_is_killed_by_the_next_word() {
        for (script, killed) in
            [("echo ready; exec sleep 1000", false), ("trap '' TERM; echo ready; while :; do sleep 1; done", true)]
        {
            let mut shell = shell(script);
            let (ready, mut is_ready) = mpsc::unbounded_channel();
            shell.child.told = Some(Arc::new(move |line| line.is_some_and(|_| ready.send(()).is_ok())));
            let keeping = tokio::spawn(shell.child.keep(shell.orders.subscribe()));
            is_ready.recv().await.expect("it starts");
            shell.orders.send_replace(Order::End);
            if killed {
                shell.stop.send_replace(Stop::Now);
            }
            keeping.await.expect("it ends");
            assert!(shell.failures.try_recv().is_err(), "that is no failure");
        }
    }
}
