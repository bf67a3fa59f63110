//! Processes that outlive the command that starts them, and are found again by the command that ends them.

use super::super::wait_for;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// A killed process is gone at once, unless it hangs in a call to the disk.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How much of a log is shown when something did not start.
const LAST_LINES: usize = 8;

/// The processes whose numbers are kept in one folder, each with its log.
#[derive(Debug)]
pub(super) struct Daemons {
    folder: PathBuf,
}

impl Daemons {
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn note(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.process"))
    }

    /// Starts a command under a name. It is in a process group of its own: an interrupt typed at the terminal is not meant for it.
    pub(super) fn start(&self, name: &str, command: &mut Command) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let log = File::create(self.log(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        self.adopt(name, child.id())
    }

    /// Takes a process that runs already among these.
    pub(super) fn adopt(&self, name: &str, process: u32) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let started = started(process).with_context(|| format!("`{name}` ended at its start"))?;
        std::fs::write(self.note(name), format!("{process} {started}")).with_context(|| format!("noting `{name}`"))
    }

    /// The process of this name, if it runs: its number may belong to another by now, whose start was at another time.
    fn process(&self, name: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.note(name)).ok()?;
        let (process, at) = text.split_once(' ')?;
        let process = process.parse().ok()?;
        (started(process).as_deref() == Some(at)).then_some(process)
    }

    pub(super) fn is_alive(&self, name: &str) -> bool {
        self.process(name).is_some()
    }

    /// Fails with the end of its log, unless the process runs.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        if !self.is_alive(name) {
            bail!("`{name}` has ended");
        }
        Ok(())
    }

    /// Ends a process without asking it, and waits for that. Nothing here is worth an orderly end: its data goes with it.
    pub(super) fn kill(&self, name: &str) -> Result<()> {
        if let Some(process) = self.process(name).and_then(|process| rustix::process::Pid::from_raw(process as i32)) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            wait_for("the end of a killed process", END_LIMIT, || Ok((!self.is_alive(name)).then_some(())))?;
        }
        let note = self.note(name);
        if note.exists() {
            std::fs::remove_file(&note).with_context(|| format!("removing `{}`", note.display()))?;
        }
        Ok(())
    }

    /// Ends all that are noted.
    pub(super) fn kill_all(&self) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Ok(()) };
        for entry in entries {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".process")) {
                self.kill(name)?;
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    pub(super) fn last_words(&self) -> String {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return String::new() };
        let mut logs: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        let mut words = String::new();
        for log in logs {
            let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            words += &format!("--- {}\n{last}\n", log.display());
        }
        words
    }
}

/// When a process started, in the system's own measure, unless it has ended.
fn started(process: u32) -> Option<String> {
    start_in(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?).map(str::to_owned)
}

/// The same by what the system says of the process. One that was killed is a zombie as soon as its first thread has ended, and holds its ports until the last one has.
fn start_in(stat: &str) -> Option<&str> {
    // The name of the program comes second, in brackets, and may hold anything. The state follows; the number of threads is the 20th field, and the start the 22nd.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, threads, start) = (fields.first()?, fields.get(17)?, fields.get(19)?);
    let has_ended = matches!(*state, "Z" | "X") && matches!(*threads, "0" | "1");
    (!has_ended).then_some(*start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_name_and_ended_once() {
        let folder = tempfile::tempdir().unwrap();
        let daemons = Daemons::in_folder(folder.path().to_owned());
        daemons.start("sleeper", Command::new("sleep").arg("600")).unwrap();
        assert!(daemons.is_alive("sleeper"));
        assert!(!daemons.is_alive("nobody"));
        let again = Daemons::in_folder(folder.path().to_owned());
        again.kill_all().unwrap();
        assert!(!daemons.is_alive("sleeper"));
        assert!(daemons.check("sleeper").is_err());
        again.kill("sleeper").unwrap();
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let stat = |state, threads| format!("7 (a) b) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0");
        for (state, threads, start) in [
            ("S", 1, Some("4711")),
            ("R", 9, Some("4711")),
            ("Z", 9, Some("4711")),
            ("Z", 2, Some("4711")),
            ("Z", 1, None),
            ("X", 0, None),
        ] {
            assert_eq!(start_in(&stat(state, threads)), start, "{state} {threads}");
        }
    }

    #[test]
    fn a_number_that_was_given_to_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let daemons = Daemons::in_folder(folder.path().to_owned());
        std::fs::write(daemons.note("other"), format!("{} 1", std::process::id())).unwrap();
        assert!(!daemons.is_alive("other"));
        daemons.kill_all().unwrap();
    }
}
