//! The cluster's network: a namespace of its own, with an address for each node.

use crate::ci::run_command;
use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
};

/// The device that has the nodes' addresses. Not every kernel has dummy devices, but a pair of connected ones is always to be had.
const DEVICE: &str = "nodes";
const OTHER_END: &str = "nodes-peer";

/// A namespace of the network, which need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    path: PathBuf,
}

/// The address of a node, counted from 1. The control plane, the names' server and Pulsar are at that of the first.
pub(crate) fn address(node: usize) -> String {
    format!("10.99.0.{node}")
}

impl Network {
    /// The namespace that is kept by a file.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file by which the namespace is entered.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A command in the namespace. `ip netns exec` would also mount `/sys` anew, and lose the control groups that are mounted in it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Does something on a thread inside of the namespace.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(&self.path).with_context(|| format!("opening `{}`", self.path.display()))?;
        std::thread::scope(|scope| {
            let enter = || {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
                    .context("entering the cluster's network")?;
                act()
            };
            scope.spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes the namespace, with the addresses of so many nodes.
    pub(super) fn create(&self, nodes: usize) -> Result<()> {
        File::create(&self.path).with_context(|| format!("making `{}`", self.path.display()))?;
        // The file that the namespace is mounted on keeps it, without a process in it.
        run_command(Command::new("unshare").arg(format!("--net={}", self.path.display())).arg("true"))?;
        let ip = |words: &str| run_command(self.command("ip").args(words.split(' ')));
        ip("link set lo up")?;
        ip(&format!("link add {DEVICE} type veth peer name {OTHER_END}"))?;
        for node in 1..=nodes {
            ip(&format!("addr add {}/24 dev {DEVICE}", address(node)))?;
        }
        ip(&format!("link set {DEVICE} up"))?;
        ip(&format!("link set {OTHER_END} up"))?;
        // It leads nowhere. But the kubelet takes its address from it, and a service's address is only translated on the way to a route.
        ip(&format!("route add default via {} dev {DEVICE}", address(1)))?;
        run_command(self.command("sysctl").args(["--quiet", "--write", "net.ipv4.ip_forward=1"]))
    }

    /// Whether the namespace is there, and not only its file.
    fn exists(&self) -> bool {
        std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
            let path = self.path.to_string_lossy();
            mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*path))
        })
    }

    /// Removes the devices that a node has made: a node that comes again would use its pods' addresses a second time.
    pub(super) fn remove_bridge(&self, bridge: &str) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let output = self.command("ip").args(["-oneline", "link", "show", "master", bridge]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let members = text.lines().filter_map(|line| line.split(": ").nth(1)).filter_map(|name| name.split('@').next());
        for device in members.chain([bridge]) {
            // The system removes a container's device as well, some time after the container has ended.
            let _ = self.command("ip").args(["link", "del", device]).output()?;
        }
        Ok(())
    }

    /// Removes the namespace, and with it all devices and rules in it, once no process is left there.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        // A file that nothing is mounted on is left from a start that failed.
        if self.exists() {
            run_command(Command::new("umount").arg(&self.path))?;
        }
        std::fs::remove_file(&self.path).with_context(|| format!("removing `{}`", self.path.display()))
    }
}
