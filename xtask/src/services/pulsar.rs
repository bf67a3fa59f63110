//! Apache Pulsar standalone - broker, storage and metadata in one process - on loopback, from its Maven distribution.

use super::{
    JAVA, MAVEN, cache, http,
    kubernetes::{self, Network},
    wait_for,
};
use crate::ci::run_command;
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    ops::Range,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// The newest release of the long-term line whose distribution is complete on Maven Central.
pub(crate) const VERSION: &str = "4.0.8";

/// A quiet machine needs 14 s, one whose cores are shared by builds was seen to need 80 s.
const START_LIMIT: Duration = Duration::from_secs(240);

/// An orderly end closes ledgers and the metadata store, seen to take up to 10 s; after this it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the server's memory is held to, so that it runs beside builds: about 950 MB resident under load.
const MEMORY: &str = "-Xms512m -Xmx512m -XX:MaxDirectMemorySize=512m";

/// What it has for measurements: the heap that it is shipped with, and as much outside of it, where its caches are.
pub(crate) const MEMORY_SHIPPED: &str = "-Xms2g -Xmx2g -XX:MaxDirectMemorySize=2g";

/// Where the ports of servers are that are killed and started again: above what services have, below what outgoing connections are given.
const LASTING: Range<u16> = 20_000..30_000;

/// The storage inside asks for an interface where the broker asks for an address.
const LOOPBACK: &str = if cfg!(target_os = "macos") { "lo0" } else { "lo" };

/// Settings of every start: loopback only, and a record is on the disk before it is acknowledged, which the shipped configuration switches off
/// and without which a comparison would be with memory.
const SETTINGS: &[(&str, &str)] = &[
    ("bindAddress", "127.0.0.1"),
    ("advertisedAddress", "127.0.0.1"),
    ("listeningInterface", LOOPBACK),
    ("journalSyncData", "true"),
];

/// Settings beside builds: caches that fit into the memory above, and nothing that no test asks for.
const SMALL: &[(&str, &str)] = &[
    ("webSocketServiceEnabled", "false"),
    ("numHttpServerThreads", "8"),
    ("managedLedgerCacheSizeMB", "64"),
    ("dbStorage_writeCacheMaxSizeMb", "64"),
    ("dbStorage_readAheadCacheMaxSizeMb", "32"),
    ("dbStorage_rocksDB_blockCacheSize", "16777216"),
];

/// Settings that make the shipped server offer what a client can ask for: deduplication and acknowledgement inside a batch are off by default.
pub(crate) const ALL_FEATURES: &[(&str, &str)] =
    &[("brokerDeduplicationEnabled", "true"), ("acknowledgmentAtBatchIndexLevelEnabled", "true")];

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Pulsar {
    process: Child,
    folder: PathBuf,
    memory: &'static str,
    network: Option<Network>,
    /// Where clients connect.
    pub(crate) port: u16,
    /// The port of the admin API.
    pub(crate) web_port: u16,
}

/// What a server is started with, beyond `SETTINGS`.
#[derive(Debug, Default)]
pub(crate) struct Options<'a> {
    /// Lines of its configuration.
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// Only clients with a token get in.
    pub(crate) secret: Option<&'a Secret>,
    /// For measurements: caches as shipped, and the memory for them.
    pub(crate) as_shipped: bool,
    /// The network in which it is reached at all addresses, and not on loopback of this machine.
    pub(crate) network: Option<&'a Network>,
}

/// What tokens are signed with, and a signed one.
#[derive(Debug)]
pub(crate) struct Secret {
    /// The bytes of the key.
    pub(crate) key: &'static str,
    key_base64: &'static str,
    /// A token of the role that may do everything.
    pub(crate) token: &'static str,
}

impl Secret {
    /// A key for servers that hold nothing but tests, and a token made with `bin/pulsar tokens create`'s algorithm, HS256; it has no end.
    pub(crate) fn for_tests() -> Self {
        Self {
            key: "leatworks-test-secret-of-40-bytes-exactl",
            key_base64: "bGVhdHdvcmtzLXRlc3Qtc2VjcmV0LW9mLTQwLWJ5dGVzLWV4YWN0bA==",
            token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.gXlJbAg2B73tX4VYydJGTeknM8DhYOaSbLqmlWNtSMs",
        }
    }

    fn settings(&self) -> [(&str, String); 6] {
        [
            ("authenticationEnabled", "true".into()),
            ("authenticationProviders", "org.apache.pulsar.broker.authentication.AuthenticationProviderToken".into()),
            ("tokenSecretKey", format!("data:;base64,{}", self.key_base64)),
            ("superUserRoles", "admin".into()),
            ("brokerClientAuthenticationPlugin", "org.apache.pulsar.client.impl.auth.AuthenticationToken".into()),
            ("brokerClientAuthenticationParameters", format!("{{\"token\":\"{}\"}}", self.token)),
        ]
    }
}

/// Fetches the distribution unless it is there, and gives its folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    JAVA.check()?;
    let cache = cache()?;
    let home = cache.join(format!("apache-pulsar-{VERSION}"));
    if home.is_dir() {
        return Ok(home);
    }
    MAVEN.check()?;
    eprintln!("fetching Apache Pulsar {VERSION} (245 MB)");
    let unpacked = tempfile::tempdir_in(&cache)?;
    let artifact = format!("-Dartifact=org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin");
    let copy = format!("-DoutputDirectory={}", unpacked.path().display());
    run_command(Command::new("mvn").args(["-B", "-q", "dependency:get", "-Dtransitive=false", &artifact]))?;
    run_command(Command::new("mvn").args(["-B", "-q", "dependency:copy", "-Dmdep.useBaseVersion=true", &artifact, &copy]))?;
    let archive = unpacked.path().join(format!("pulsar-server-distribution-{VERSION}-bin.tar.gz"));
    run_command(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(unpacked.path()))?;
    // The rename makes a half-unpacked distribution impossible to take for a whole one.
    std::fs::rename(unpacked.path().join(format!("apache-pulsar-{VERSION}")), &home)?;
    Ok(home)
}

impl Pulsar {
    /// Starts a server with an empty store on free ports, and waits until it answers. It ends when this is dropped.
    pub(crate) fn start(options: &Options<'_>) -> Result<Self> {
        let ports = [free_port()?, free_port()?];
        let folder = cache()?.join(format!("pulsar-{}-{}", std::process::id(), ports[0]));
        let mut server = Self::spawn(folder, ports, options, |_| {})?;
        let start = Instant::now();
        server.wait_until_ready(options.secret.map(|secret| secret.token))?;
        eprintln!("Pulsar {VERSION} on port {}, ready after {:.0} s", server.port, start.elapsed().as_secs_f64());
        Ok(server)
    }

    /// Starts a server that is to be killed and started again: on ports that no connection of this machine takes by itself while it is away.
    pub(crate) fn start_to_be_killed(options: &Options<'_>) -> Result<Self> {
        let ports = [lasting_port()?, lasting_port()?];
        let folder = cache()?.join(format!("pulsar-{}-{}", std::process::id(), ports[0]));
        let mut server = Self::spawn(folder, ports, options, |_| {})?;
        server.wait_until_ready(None)?;
        Ok(server)
    }

    /// Ends it as a crash does. What it has stored stays.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill().context("killing Pulsar")?;
        self.process.wait().context("waiting for the end of Pulsar")?;
        Ok(())
    }

    /// Starts it on what it has stored, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process = launch(&self.folder, self.memory, self.network.as_ref(), |_| {})?;
        self.wait_until_ready(None)
    }

    fn spawn(
        folder: PathBuf,
        [port, web_port]: [u16; 2],
        options: &Options<'_>,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let home = fetch()?;
        std::fs::create_dir_all(&folder)?;
        let configuration = folder.join("standalone.conf");
        let shipped = std::fs::read_to_string(home.join("conf/standalone.conf"))?;
        let mut settings: BTreeMap<&str, String> = to_owned(SETTINGS).collect();
        settings.extend(to_owned(if options.as_shipped { &[] } else { SMALL }));
        settings.extend(to_owned(options.settings));
        if options.network.is_some() {
            settings.extend([("bindAddress", "0.0.0.0".to_owned()), ("advertisedAddress", address(options.network))]);
        }
        settings.extend([("brokerServicePort", port.to_string()), ("webServicePort", web_port.to_string())]);
        settings.extend(options.secret.into_iter().flat_map(Secret::settings));
        std::fs::write(&configuration, configured(&shipped, &settings))?;
        let memory = if options.as_shipped { MEMORY_SHIPPED } else { MEMORY };
        let process = launch(&folder, memory, options.network, set_up)?;
        Ok(Self { process, folder, memory, network: options.network.cloned(), port, web_port })
    }

    /// Starts a server that outlives this process unless it is dropped, in a process group of its own: an interrupt typed at the terminal is
    /// not meant for it. It does not answer yet.
    pub(super) fn spawn_standing(folder: PathBuf, ports: [u16; 2], options: &Options<'_>) -> Result<Self> {
        Self::spawn(folder, ports, options, |command| {
            command.process_group(0);
        })
    }

    pub(super) fn wait_until_ready(&mut self, token: Option<&str>) -> Result<()> {
        let console = self.console();
        wait_for("Pulsar's first answer", START_LIMIT, || {
            if let Some(status) = self.process.try_wait()? {
                let console = std::fs::read_to_string(&console).unwrap_or_default();
                let lines: Vec<&str> = console.lines().collect();
                bail!("Pulsar ended with {status}:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            let answers = || Ok(ready(self.web_port, token).then_some(()));
            self.network.as_ref().map_or_else(answers, |network| network.inside(answers))
        })
    }

    /// What it has said since its last start.
    pub(crate) fn console(&self) -> PathBuf {
        console(&self.folder)
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Pulsar {
    fn drop(&mut self) {
        // Its data goes with it, so nothing is worth an orderly end.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts the server whose configuration and store are in a folder.
fn launch(folder: &Path, memory: &str, network: Option<&Network>, set_up: impl FnOnce(&mut Command)) -> Result<Child> {
    let home = fetch()?;
    let configuration = folder.join("standalone.conf");
    let console = File::create(console(folder))?;
    let program = home.join("bin/pulsar");
    let mut command = network.map_or_else(|| Command::new(&program), |network| network.command(&program));
    command
        .args(["standalone", "--no-functions-worker", "--no-stream-storage", "--advertised-address"])
        .arg(address(network))
        .arg("--config")
        .arg(&configuration)
        .arg("--metadata-dir")
        .arg(folder.join("metadata"))
        .arg("--bookkeeper-dir")
        .arg(folder.join("storage"))
        .args(["--num-bookies", "1"])
        .env("PULSAR_STANDALONE_CONF", &configuration)
        .env("PULSAR_LOG_DIR", folder.join("logs"))
        .env("PULSAR_MEM", memory)
        .env("PULSAR_GC", "-XX:+UseG1GC -XX:+PerfDisableSharedMem")
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    set_up(&mut command);
    // The script ends in `exec java`, so the process that is started here is the server itself.
    command.spawn().context("starting Pulsar")
}

/// Where a server in this folder says what it does.
fn console(folder: &Path) -> PathBuf {
    folder.join("console.log")
}

/// What clients are told to connect to.
fn address(network: Option<&Network>) -> String {
    network.map_or_else(|| "127.0.0.1".to_owned(), |_| kubernetes::address(1))
}

/// Fails with what is missing on this machine to run a server, or to fetch it.
pub(crate) fn can_run() -> Result<()> {
    JAVA.check()?;
    if cache()?.join(format!("apache-pulsar-{VERSION}")).is_dir() { Ok(()) } else { MAVEN.check() }
}

/// A port below those from which outgoing connections are given theirs. While nobody listens on one of those, a client that tries to connect
/// to it can be given it as its own, and keeps the server from it.
fn lasting_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..LASTING.len() as u16)
        .map(|_| LASTING.start + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % LASTING.len() as u16);
    ports.find(is_free).context("no port is free")
}

/// A port of loopback that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The namespace that clients use is what standalone makes last, so an answer about it means that all else is there.
fn ready(web_port: u16, token: Option<&str>) -> bool {
    http::get(web_port, "/admin/v2/namespaces/public/default", token).is_ok_and(|(status, _)| status == 200)
}

/// Settings that may be extended by such as are made when they are needed.
fn to_owned<'a>(settings: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, String)> {
    settings.iter().map(|(key, value)| (*key, (*value).to_owned()))
}

/// A configuration file with some settings replaced, and those it does not have appended.
fn configured(shipped: &str, settings: &BTreeMap<&str, String>) -> String {
    let kept = shipped.lines().filter(|line| !line.split_once('=').is_some_and(|(key, _)| settings.contains_key(key.trim())));
    let set = settings.iter().map(|(key, value)| format!("{key}={value}"));
    kept.map(str::to_owned).chain(set).map(|line| line + "\n").collect()
}

/// The server that `up` leaves running: on Pulsar's usual ports, with its store kept.
mod standing {
    use super::{Path, PathBuf, Result, cache};

    pub(super) const PORTS: [u16; 2] = [6650, 8080];

    pub(super) fn folder() -> Result<PathBuf> {
        Ok(cache()?.join("pulsar"))
    }

    pub(super) fn pid_file(folder: &Path) -> PathBuf {
        folder.join("pid")
    }
}

impl Pulsar {
    /// Starts the standing server and leaves it running.
    pub(super) fn up() -> Result<()> {
        let folder = standing::folder()?;
        if let Some(pid) = running(&folder)? {
            bail!("Pulsar is up already, as process {pid}");
        }
        for port in standing::PORTS {
            TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port} is taken"))?;
        }
        let options = Options { settings: ALL_FEATURES, ..Options::default() };
        let mut server = Self::spawn_standing(folder.clone(), standing::PORTS, &options)?;
        std::fs::write(standing::pid_file(&folder), server.pid().to_string())?;
        if let Err(error) = server.wait_until_ready(None) {
            let _ = server.process.kill();
            let _ = std::fs::remove_file(standing::pid_file(&folder));
            std::mem::forget(server);
            return Err(error);
        }
        println!("pulsar://127.0.0.1:{} http://127.0.0.1:{} process {}", server.port, server.web_port, server.pid());
        // Left running on purpose; `down` ends it.
        std::mem::forget(server);
        Ok(())
    }

    /// Ends the standing server, and no other process.
    pub(super) fn down() -> Result<()> {
        let folder = standing::folder()?;
        match running(&folder)? {
            None => println!("Pulsar is not up"),
            Some(pid) => {
                signal(pid, "-TERM")?;
                let ended = || Ok(running(&folder)?.is_none().then_some(()));
                if wait_for("an orderly end", STOP_LIMIT, ended).is_err() {
                    signal(pid, "-KILL")?;
                    wait_for("the end of a killed process", STOP_LIMIT, ended)?;
                }
                println!("ended process {pid}");
            }
        }
        let _ = std::fs::remove_file(standing::pid_file(&folder));
        Ok(())
    }

    /// Prints whether the standing server runs and answers.
    pub(super) fn status() -> Result<()> {
        let [port, web_port] = standing::PORTS;
        match running(&standing::folder()?)? {
            None => println!("pulsar  down"),
            Some(pid) if ready(web_port, None) => {
                println!("pulsar  up, process {pid}, pulsar://127.0.0.1:{port} http://127.0.0.1:{web_port}")
            }
            Some(pid) => println!("pulsar  starting, process {pid}"),
        }
        Ok(())
    }
}

/// The process in the pid file, if it is alive and runs on this folder's configuration: the number may belong to another by now.
fn running(folder: &Path) -> Result<Option<u32>> {
    let Ok(text) = std::fs::read_to_string(standing::pid_file(folder)) else { return Ok(None) };
    let pid: u32 = text.trim().parse().with_context(|| format!("`{}` holds no process", standing::pid_file(folder).display()))?;
    let output = Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output().context("running ps")?;
    let configuration = folder.join("standalone.conf");
    Ok(String::from_utf8_lossy(&output.stdout).contains(&*configuration.to_string_lossy()).then_some(pid))
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    run_command(Command::new("kill").args([signal, &pid.to_string()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_the_shipped_one_wherever_it_stands() {
        let shipped = "# bindAddress=commented\nbindAddress=0.0.0.0\nother = 1\njournalSyncData=false\nbindAddress=again\n";
        let settings = BTreeMap::from([("bindAddress", "127.0.0.1".to_owned()), ("extra", "a=b".to_owned())]);
        assert_eq!(
            configured(shipped, &settings),
            "# bindAddress=commented\nother = 1\njournalSyncData=false\nbindAddress=127.0.0.1\nextra=a=b\n"
        );
    }
}
