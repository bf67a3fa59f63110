//! The topology as its generated binary runs it: with the product's own command line, control socket and exit codes.

use super::{
    rig::this_program,
    workload::{Orders, Parcel, TOPOLOGY},
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::Instant};

/// Set for a process that is the generated binary of the topology.
pub(crate) const ROLE: &str = "LEATWORKS_FAULTS_BINARY";

/// The sync that fails: some behind those of the start.
const POSITION: u64 = 40;

/// How long it may take until it has failed and the process has ended.
const ENDED_MAX: Duration = Duration::from_secs(30);

/// Messages of one `send`.
const MESSAGES: u64 = 50;

/// The body of the generated binary.
pub(crate) fn main() -> ExitCode {
    leatworks::main_topology(&TOPOLOGY)
}

/// Runs the binary until a sync fails, while messages are sent to it. Gives its exit code; nothing if it never ended.
pub(crate) async fn code_after_failed_sync(folder: &Path) -> Result<Option<i32>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    configure(folder)?;
    let lines: Vec<String> =
        (1..=MESSAGES).map(|sequence| serde_json::to_string(&Parcel::new(sequence, 100))).collect::<Result<_, _>>()?;
    fs::write(folder.join("messages"), lines.join("\n"))?;
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf", "-q", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    traced.args(["-e", &format!("inject=fdatasync:error=EIO:when={POSITION}")]).arg(this_program());
    let mut server = with_place(&mut traced, folder)?.args(["run", "--serve"]).spawn().context("starting the binary")?;
    let began = Instant::now();
    while began.elapsed() < ENDED_MAX {
        if let Some(status) = server.try_wait()? {
            return Ok(status.code());
        }
        // Refused before it listens and when it has ended; which of it does not matter.
        let mut send = Command::new(this_program());
        with_place(&mut send, folder)?.args(["send", "-f", "messages"]).status().await?;
    }
    server.kill().await?;
    Ok(None)
}

/// The binary on a Pulsar service; the words are still to come. What it says is in the folder's `said`.
pub(super) fn on_service(folder: &Path, url: &str, admin_url: &str) -> Result<Command> {
    configure(folder)?;
    let mut command = Command::new(this_program());
    with_place(&mut command, folder)?.env("LEAT_BROKER__URL", url).env("LEAT_BROKER__ADMIN_URL", admin_url);
    Ok(command)
}

fn with_place<'a>(command: &'a mut Command, folder: &Path) -> Result<&'a mut Command> {
    let said = || File::options().create(true).append(true).open(folder.join("said"));
    command.env(ROLE, "1").env("LEAT_DATA", folder.join("data")).current_dir(folder);
    Ok(command.stdin(Stdio::null()).stdout(said()?).stderr(said()?).kill_on_drop(true))
}

/// The tasks' orders, as a user would write settings.
fn configure(folder: &Path) -> Result<()> {
    let Orders { logs, permanent_each, retry_after_ms, hold_ms, .. } = Orders { logs: folder.to_owned(), ..Orders::default() };
    let orders = format!(
        "{{ logs = '{}', poison = [], permanent_each = {permanent_each}, retry_after_ms = {retry_after_ms}, hold_ms = {hold_ms} }}",
        logs.display()
    );
    let tasks = TOPOLOGY
        .tasks
        .iter()
        .map(|task| format!("[topology.{}.task.{}]\nsettings = {{ orders = {orders} }}\n", TOPOLOGY.name, task.name));
    Ok(fs::write(folder.join("leat.toml"), tasks.collect::<String>())?)
}
