//! A node: a containerd and a real kubelet in a mount and a process namespace of their own.
//!
//! The process that is noted for it is the parent of the namespace's first process, which ends with it, and with that one everything in the namespace.
//! What they mount, and the folders that they insist on, are in the mount namespace and are gone with it.

use super::{Cluster, control, machine, network};
use crate::{ci::run_command, services::wait_for};
use anyhow::{Context, Result, bail};
use leatworks_image::{Archive, Entry, Image, Layer};
use serde_json::json;
use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Where the system's control groups are.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The kubelet looks for its limits in these, and starts in none that has them not.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A node's containers have been killed; the system takes a moment to count them out.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A node is ready after 5 s on two quiet cores.
const READY_LIMIT: &str = "--timeout=240s";

/// Folders that containerd, its plugins and the kubelet use wherever they are told to be. Each is empty and in memory for the node. Those that the machine
/// did not have stay as empty folders: to remove one would also take what other nodes have mounted there.
pub(super) const HIDDEN: [&str; 4] = ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"];

/// Settings of the kernel that a kubelet changes, for all of the machine. The node gets copies of them, so that the machine's stay as they are.
pub(super) const KERNEL: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The longest path of a socket, which is what the system can keep of it.
const SOCKET_PATH_MAX: usize = 100;

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "leatworks.test/pause:1";

fn name(number: usize) -> String {
    format!("node{number}")
}

fn bridge(number: usize) -> String {
    format!("pods{number}")
}

fn folder(cluster: &Cluster, number: usize) -> PathBuf {
    cluster.folder.join(name(number))
}

fn socket(cluster: &Cluster, number: usize) -> PathBuf {
    folder(cluster, number).join("containerd.sock")
}

/// The node's control group, from the root of each hierarchy.
fn group(cluster: &Cluster, number: usize) -> String {
    let cluster = cluster.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{cluster}-{}", name(number))
}

pub(super) fn is_up(cluster: &Cluster, number: usize) -> bool {
    cluster.daemons.is_alive(&name(number))
}

/// Starts a node and gives it the image that every pod needs.
pub(super) fn start(cluster: &Cluster, number: usize) -> Result<()> {
    let folder = folder(cluster, number);
    let socket = socket(cluster, number);
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        bail!("`{}` is too long for a socket; set LEATWORKS_CACHE to a folder with a shorter name", socket.display());
    }
    std::fs::create_dir_all(folder.join("cni"))?;
    containerd_files(cluster, number)?;
    kubelet_files(cluster, number)?;
    for hierarchy in hierarchies()? {
        make_group(&hierarchy, &group(cluster, number))?;
    }
    for hidden in HIDDEN {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(hidden).with_context(|| format!("making `{hidden}`"))?;
    }
    let script = folder.join("start");
    std::fs::write(&script, start_script(cluster, number)?)?;
    let mut command = cluster.command("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).arg(script);
    cluster.daemons.start(&name(number), &mut command)?;
    wait_for("containerd's first answer", END_LIMIT, || {
        cluster.daemons.check(&name(number))?;
        Ok(containers(cluster, number)
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?
            .success()
            .then_some(()))
    })?;
    let archive = folder.join("pause.tar");
    let pause = std::fs::read(cluster.programs.path("pause"))?;
    let image = Image {
        layers: vec![Layer::of(&[Entry::program("pause", pause)])?],
        entrypoint: vec!["/pause".into()],
        ..Image::default()
    };
    Archive { name: PAUSE, image: &image }.write(&archive)?;
    load(cluster, number, &archive)
}

/// What the first process of the namespace runs. It waits, and so takes in what has lost its parent.
fn start_script(cluster: &Cluster, number: usize) -> Result<String> {
    let folder = folder(cluster, number);
    let mut script = "set -e\n".to_owned();
    let copies = folder.join("kernel");
    for setting in KERNEL {
        let path = Path::new("/proc/sys").join(setting);
        let copy = copies.join(setting);
        let value = std::fs::read(&path).with_context(|| format!("reading `{}`", path.display()))?;
        std::fs::create_dir_all(copy.parent().unwrap_or(&copies))?;
        std::fs::write(&copy, value)?;
        script += &format!("mount --bind '{}' '{}'\n", copy.display(), path.display());
    }
    for hidden in HIDDEN {
        script += &format!("mount -t tmpfs -o mode=755 leatworks '{hidden}'\n");
    }
    let containerd = folder.join("containerd.json");
    let socket = socket(cluster, number);
    script += &format!("containerd --config '{}' &\n", containerd.display());
    script += &format!("until ctr --address '{}' version; do sleep 0.1; done >/dev/null 2>&1\n", socket.display());
    script += &format!(
        "'{}' --config='{}' --kubeconfig='{}' --root-dir='{}' --cert-dir='{}' --hostname-override={} --node-ip={} &\nwait\n",
        cluster.programs.path("kubelet").display(),
        folder.join("kubelet.json").display(),
        super::credentials::kubeconfig(&cluster.folder, &name(number)).display(),
        folder.join("kubelet").display(),
        folder.join("kubelet/certificates").display(),
        name(number),
        network::address(number),
    );
    Ok(script)
}

fn containerd_files(cluster: &Cluster, number: usize) -> Result<()> {
    let folder = folder(cluster, number);
    let plugins = machine::plugins().context("the network plugins are gone")?;
    // In the style of TOML, quoted as JSON quotes, which TOML reads as well.
    let quoted = |path: PathBuf| json!(path).to_string();
    let text = format!(
        r#"version = 2
root = {root}
state = {state}
[grpc]
address = {socket}
[ttrpc]
address = {second_socket}
[plugins."io.containerd.internal.v1.opt"]
path = {opt}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Not every machine lets root lower what the system's choice of a victim starts from.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins}
conf_dir = {cni}
"#,
        root = quoted(folder.join("containerd")),
        state = quoted(folder.join("state")),
        socket = quoted(socket(cluster, number)),
        second_socket = quoted(folder.join("containerd.ttrpc")),
        opt = quoted(folder.join("opt")),
        plugins = quoted(plugins),
        cni = quoted(folder.join("cni")),
    );
    std::fs::write(folder.join("containerd.json"), text)?;
    let network = json!({
        "cniVersion": "1.0.0",
        "name": name(number),
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge(number),
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": folder.join("addresses"),
                    "ranges": [[{"subnet": format!("10.244.{number}.0/24")}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    Ok(std::fs::write(folder.join("cni/10-pods.conflist"), network.to_string())?)
}

fn kubelet_files(cluster: &Cluster, number: usize) -> Result<()> {
    let folder = folder(cluster, number);
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network::address(number),
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10260 + number,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", group(cluster, number)),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": format!("unix://{}", socket(cluster, number).display()),
        "podLogsDir": folder.join("logs"),
        "volumePluginDir": folder.join("volume-plugins"),
        "makeIPTablesUtilChains": false,
        // The machine is shared with builds: what they leave free is no reason to end pods.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "3s",
        "resolvConf": "",
        "clusterDNS": [network::address(1)],
        "clusterDomain": control::DOMAIN,
    });
    Ok(std::fs::write(folder.join("kubelet.json"), configuration.to_string())?)
}

/// Waits until the API server counts the node as ready.
pub(super) fn wait_until_ready(cluster: &Cluster, number: usize) -> Result<()> {
    let node = format!("node/{}", name(number));
    run_command(cluster.kubectl().args(["wait", "--for=create", READY_LIMIT, &node]).stdout(Stdio::null()))?;
    run_command(cluster.kubectl().args(["wait", "--for=condition=Ready", READY_LIMIT, &node]).stdout(Stdio::null()))
}

/// containerd's own client.
pub(super) fn containers(cluster: &Cluster, number: usize) -> Command {
    let mut command = cluster.command("ctr");
    command.arg("--address").arg(socket(cluster, number)).args(["--namespace", "k8s.io"]);
    command
}

/// Gives the images in an archive to the node.
pub(super) fn load(cluster: &Cluster, number: usize, archive: &Path) -> Result<()> {
    run_command(containers(cluster, number).args(["images", "import"]).arg(archive).stdout(Stdio::null()))
        .with_context(|| format!("giving `{}` to {}", archive.display(), name(number)))
}

/// Ends a node at once with all that runs on it, and removes what is left.
pub(super) fn end(cluster: &Cluster, number: usize) -> Result<()> {
    cluster.daemons.kill(&name(number))?;
    let group = group(cluster, number);
    for hierarchy in hierarchies()? {
        // A group can be removed once its last process is gone.
        wait_for("the end of a node's containers", END_LIMIT, || Ok(remove_group(&hierarchy.join(&group)).then_some(())))?;
    }
    cluster.network.remove_bridge(&bridge(number))?;
    let folder = folder(cluster, number);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing `{}`", folder.display()))?;
    }
    Ok(())
}

/// Fails unless there are control groups in which a kubelet can set limits.
pub(super) fn check_control_groups() -> Result<()> {
    let probe = "leatworks-probe";
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no control groups are mounted at `{CONTROL_GROUPS}`");
    }
    for hierarchy in hierarchies {
        make_group(&hierarchy, probe)?;
        remove_group(&hierarchy.join(probe));
    }
    Ok(())
}

/// The roots in which a node has its group: one for each controller where the first version is mounted, or a single one with the second.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(CONTROL_GROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = std::fs::read_dir(root).with_context(|| format!("reading `{CONTROL_GROUPS}`"))?;
    let mut hierarchies: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect();
    hierarchies.sort();
    Ok(hierarchies)
}

fn make_group(hierarchy: &Path, name: &str) -> Result<()> {
    let group = hierarchy.join(name);
    std::fs::create_dir_all(&group).with_context(|| format!("making the control group `{}`", group.display()))?;
    // Beside the first version the second may be mounted as well, without controllers.
    if hierarchy == Path::new(CONTROL_GROUPS) {
        for folder in [hierarchy, &group] {
            let control = folder.join("cgroup.subtree_control");
            let wanted = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
            std::fs::write(&control, wanted).with_context(|| format!("`{}` takes no controllers", control.display()))?;
        }
        return Ok(());
    }
    // In the first version a new group may use no core and no memory until it is told which.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = std::fs::read(hierarchy.join(file)) {
            std::fs::write(group.join(file), value).with_context(|| format!("setting `{file}` of `{}`", group.display()))?;
        }
    }
    Ok(())
}

/// Removes a group and those in it. Says whether it is gone.
fn remove_group(group: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(group) else { return true };
    let inner: Vec<PathBuf> = entries.flatten().filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
    inner.iter().all(|inner| remove_group(inner)) && std::fs::remove_dir(group).is_ok()
}
