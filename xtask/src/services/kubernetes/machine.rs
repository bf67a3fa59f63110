//! What the machine must have to run a cluster, and what to say where it has not.

use crate::ci::run_command;
use anyhow::{Context as _, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Installs the Debian packages.
const INSTALLER: &str = ".ci/install-cluster-tools";

/// Programs that are called, beside those that are built here.
const PROGRAMS: [&str; 11] =
    ["containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter", "unshare", "mount", "sysctl", "openssl"];

/// Where distributions put the plugins that connect pods: Debian, and what their authors say.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Fails with everything that is missing, and what to do about it.
pub(super) fn check() -> Result<()> {
    check_rights()?;
    have(&missing_programs())?;
    crate::services::GO.check()
}

fn have(missing: &[String]) -> Result<()> {
    if !missing.is_empty() {
        bail!("Kubernetes needs {} on this machine; `{INSTALLER}` installs Debian's packages", missing.join(", "));
    }
    Ok(())
}

/// Fails unless this process may make namespaces and control groups.
pub(super) fn check_rights() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("Kubernetes runs on Linux alone");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("Kubernetes needs root, for namespaces and control groups; run this as root");
    }
    if !exists("unshare") {
        have(&missing_programs())?;
    }
    let words = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "true"];
    let allowed = Command::new("unshare").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        bail!(
            "this machine lets nobody make namespaces (`unshare {}` fails): a container without that right, perhaps",
            words.join(" ")
        );
    }
    can_keep_namespaces()?;
    super::node::check_control_groups()
}

/// Fails where a namespace cannot be kept by a file, as for a root who is one in a user namespace only.
fn can_keep_namespaces() -> Result<()> {
    let file = std::env::temp_dir().join(format!("leatworks-probe-{}", std::process::id()));
    std::fs::write(&file, "").with_context(|| format!("making `{}`", file.display()))?;
    let mut keep = Command::new("unshare");
    keep.arg(format!("--net={}", file.display())).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
    let is_kept = keep.status().is_ok_and(|status| status.success());
    if is_kept {
        run_command(Command::new("umount").arg(&file))?;
    }
    std::fs::remove_file(&file).with_context(|| format!("removing `{}`", file.display()))?;
    if !is_kept {
        bail!(
            "this machine lets nobody keep a namespace (`unshare --net=FILE true` fails): root has not all of its rights here, perhaps in a user namespace"
        );
    }
    Ok(())
}

/// Installs what is missing, where that can be done.
pub(super) fn install() -> Result<()> {
    let missing = missing_programs();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing what is missing: {}", missing.join(", "));
    if !exists("apt-get") {
        bail!("{} are missing, and there is no apt-get that would install them", missing.join(", "));
    }
    run_command(&mut Command::new(INSTALLER))?;
    let missing = missing_programs();
    if !missing.is_empty() {
        bail!("`{INSTALLER}` has run, and {} are still missing", missing.join(", "));
    }
    Ok(())
}

/// The folder of the plugins that connect pods to the network.
pub(super) fn plugins() -> Option<PathBuf> {
    PLUGINS.iter().map(PathBuf::from).find(|folder| folder.join("bridge").exists())
}

fn missing_programs() -> Vec<String> {
    let mut missing: Vec<String> =
        PROGRAMS.iter().filter(|program| !exists(program)).map(|program| format!("`{program}`")).collect();
    if plugins().is_none() {
        missing.push("the network plugins (`bridge` and others)".to_owned());
    }
    missing
}

/// Whether a program is among those that a command can name. Not all of them can be asked for their version.
fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]).any(|folder| folder.join(program).is_file())
}
