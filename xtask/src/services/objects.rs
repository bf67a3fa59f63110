//! Servers of object stores on loopback, from the registries of Python and Node: moto for what is S3-compatible, Azurite for Azure. The tests of the store of files run on them.

use super::{NODE, PYTHON, Tool, cache, http, wait_for};
use crate::ci::run_command;
use anyhow::{Context, Result, bail};
use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The version of moto.
const MOTO: &str = "5.2.3";

/// The version of Azurite.
const AZURITE: &str = "3.35.0";

/// A quiet machine needs 2 s, one whose cores are shared by builds was seen to need 20 s.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The bucket, and the container, of the tests.
const PLACE: &str = "leatworks";

/// The account that Azurite has, with the key that is written in its documentation: whoever has it can reach nothing but an Azurite.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container, which a request has to be signed for.
const MAKE_CONTAINER: &str = r#"
import base64, hashlib, hmac, sys, urllib.request
from email.utils import formatdate
port, account, key, place = sys.argv[1:]
date, version = formatdate(usegmt=True), "2021-08-06"
headers = f"x-ms-date:{date}\nx-ms-version:{version}"
text = "PUT" + "\n" * 12 + f"{headers}\n/{account}/{account}/{place}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(f"http://127.0.0.1:{port}/{account}/{place}?restype=container", method="PUT")
request.add_header("x-ms-date", date)
request.add_header("x-ms-version", version)
request.add_header("Authorization", f"SharedKey {account}:{signature}")
urllib.request.urlopen(request, timeout=5)
"#;

/// Runs the tests of the store on every server that can be had here, and gives why some could not.
pub(crate) fn test() -> Result<Vec<String>> {
    let cache = cache()?.join("objects");
    std::fs::create_dir_all(&cache)?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--package", "leatworks-jobs", "--features", "cloud", "--test", "stores"]);
    let mut missing = Vec::new();
    let s3 = S3.start(&cache)?;
    let azure = AZURE.start(&cache)?;
    for (server, kind) in [(&s3, &S3), (&azure, &AZURE)] {
        match server {
            Ok(server) => drop(command.env(kind.variable, (kind.place)(server.port))),
            Err(why) => missing.push(format!("{}: {why}", kind.about)),
        }
    }
    run_command(&mut command)?;
    Ok(missing)
}

/// A kind of server.
struct Kind {
    about: &'static str,
    needs: Tool,
    /// The variable in which the tests find it.
    variable: &'static str,
    place: fn(u16) -> String,
    install: fn(&Path) -> Result<()>,
    command: fn(&Path, u16, &Path) -> Command,
    /// Makes the bucket or container, when the server answers.
    make: fn(u16) -> Result<Option<()>>,
}

const S3: Kind = Kind {
    about: "an S3-compatible server",
    needs: PYTHON,
    variable: "LEAT_TEST_S3",
    place: |port| {
        format!(
            "s3://{PLACE} aws_endpoint=http://127.0.0.1:{port} aws_allow_http=true aws_region=us-east-1 aws_access_key_id=test aws_secret_access_key=test"
        )
    },
    install: install_moto,
    command: |cache, port, _| {
        let mut command = Command::new(python(cache).join("bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    },
    // It asks nobody who they are.
    make: |port| {
        Ok(http::act("PUT", port, &format!("/{PLACE}"), START_LIMIT).is_ok_and(|(status, _)| status == 200).then_some(()))
    },
};

const AZURE: Kind = Kind {
    about: "an Azure-compatible server",
    needs: NODE,
    variable: "LEAT_TEST_AZURE",
    place: |port| {
        format!(
            "az://{PLACE} azure_storage_endpoint=http://127.0.0.1:{port}/{ACCOUNT} azure_allow_http=true azure_storage_account_name={ACCOUNT} azure_storage_account_key={KEY}"
        )
    },
    install: install_azurite,
    command: |cache, port, folder| {
        let mut command = Command::new("node");
        command.arg(azurite(cache).join("node_modules/azurite/dist/src/blob/main.js"));
        command.args(["--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.arg("--location").arg(folder);
        command
    },
    make: |port| {
        let mut python = Command::new("python3");
        python.args(["-c", MAKE_CONTAINER, &port.to_string(), ACCOUNT, KEY, PLACE]).stderr(Stdio::null());
        Ok(python.status()?.success().then_some(()))
    },
};

fn python(cache: &Path) -> PathBuf {
    cache.join(format!("moto-{MOTO}"))
}

fn azurite(cache: &Path) -> PathBuf {
    cache.join(format!("azurite-{AZURITE}"))
}

/// Installs into a folder that is given its name when it is whole, so that what was cut short is not taken for it.
fn once(folder: &Path, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    std::fs::create_dir_all(&partial)?;
    install(&partial)?;
    std::fs::rename(&partial, folder).with_context(|| format!("finishing `{}`", folder.display()))
}

fn install_moto(cache: &Path) -> Result<()> {
    let folder = python(cache);
    let whole = folder.join("whole");
    if whole.exists() {
        return Ok(());
    }
    // An environment of Python knows its own path, so it is made where it stays.
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run_command(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &format!("moto[server]=={MOTO}")]))?;
    Ok(std::fs::write(whole, MOTO)?)
}

fn install_azurite(cache: &Path) -> Result<()> {
    once(&azurite(cache), |folder| {
        let package = format!("azurite@{AZURITE}");
        let args = ["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"];
        run_command(Command::new("npm").args(args).arg(folder).arg(package))
    })
}

/// A server that runs, and ends with this value.
struct Server {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Kind {
    /// Starts one, with the bucket or container that the tests use; why not, where what it needs is not on this machine.
    fn start(&self, cache: &Path) -> Result<Result<Server, String>> {
        if let Err(why) = self.needs.check() {
            return Ok(Err(why.to_string()));
        }
        if let Err(why) = (self.install)(cache) {
            return Ok(Err(format!("it could not be installed: {why:#}")));
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = cache.join(format!("data-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = (self.command)(cache, port, &folder);
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("starting {}", self.about))?;
        let mut server = Server { process, port, folder };
        wait_for(self.about, START_LIMIT, || {
            if let Some(status) = server.process.try_wait()? {
                bail!("{} has ended with {status}", self.about);
            }
            (self.make)(port)
        })?;
        Ok(Ok(server))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
