//! The images of the tests: that of leat goes through a registry, those of projects straight to the nodes.

use super::super::Cluster;
use crate::{ci::run_command, services::wait_for};
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

/// The registry is ready as soon as it listens.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A registry in the cluster's own network, on loopback: `leat` and containerd both speak to those without certificates.
const REGISTRY: &str = "127.0.0.1:5000";

/// The images, by their names.
#[derive(Debug)]
pub(super) struct Images {
    /// leat itself, without its tag.
    pub(super) leat: String,
    /// Its tag.
    pub(super) tag: String,
    /// The binary of leat on this machine.
    pub(super) program: PathBuf,
    /// The archive of the showcase, once a stage has asked for it.
    showcase: OnceLock<PathBuf>,
}

/// The archive of leat's image, in the cluster's folder.
pub(super) const LEAT_ARCHIVE: &str = "leat.image.tar";

/// The showcase's image.
pub(super) const SHOWCASE: &str = "leatworks.test/showcase:1";

impl Images {
    /// Builds that of leat and brings it to where nodes find it.
    pub(super) fn make(cluster: &Cluster) -> Result<Self> {
        let mut build = Command::new(env!("CARGO"));
        run_command(build.args(["build", "--quiet", "--locked", "--package", "leatworks-cli"]))?;
        let program = Path::new("target/debug/leat").canonicalize().context("leat is not where cargo puts it")?;
        let images = Self { leat: format!("{REGISTRY}/leat"), tag: "ci".to_owned(), program, showcase: OnceLock::new() };
        images.push_leat(cluster)?;
        Ok(images)
    }

    /// The archive of the showcase's image, which all nodes have then.
    pub(super) fn showcase(&self, cluster: &Cluster) -> Result<&Path> {
        if self.showcase.get().is_none() {
            let archive = pack(&self.program, Path::new("."), SHOWCASE, &cluster.folder)?;
            cluster.load(&archive)?;
            let _ = self.showcase.set(archive);
        }
        self.showcase.get().map(PathBuf::as_path).context("the showcase was packed")
    }

    fn push_leat(&self, cluster: &Cluster) -> Result<()> {
        let mut registry = cluster.command("registry");
        registry.args(["-port", REGISTRY.rsplit(':').next().unwrap_or_default()]);
        cluster.daemons.start("registry", &mut registry)?;
        let listens = || Ok(std::net::TcpStream::connect(REGISTRY).is_ok().then_some(()));
        wait_for("the registry's start", START_LIMIT, || {
            cluster.daemons.check("registry")?;
            cluster.network.inside(listens)
        })?;
        let name = format!("{}:{}", self.leat, self.tag);
        let file = cluster.folder.join(LEAT_ARCHIVE);
        let mut push = cluster.command(&self.program.display().to_string());
        push.args(["image", "--push", "--name", &name, "--file"]).arg(&file).stdout(Stdio::null());
        run_command(&mut push)?;
        // Everything is there already now, and what is there is the same to the byte.
        let first = std::fs::read(&file)?;
        run_command(&mut push)?;
        ensure!(std::fs::read(&file)? == first, "the same program gives another image");
        Ok(())
    }
}

/// The image of the project in a folder, as an archive in another one. `program` is leat.
pub(crate) fn pack(program: &Path, project: &Path, name: &str, to: &Path) -> Result<PathBuf> {
    let mut pack = Command::new(program);
    pack.args(["build", "--image", "--image-name", name]).current_dir(project).stderr(Stdio::inherit());
    // The binaries' sources of a copy are written when it is built: they are committed nowhere, so it does not matter that this is continuous integration.
    if project != Path::new(".") {
        pack.env_remove("CI");
    }
    // All projects share what is built already.
    pack.env("CARGO_TARGET_DIR", std::path::absolute("target")?);
    let output = pack.output().context("starting leat")?;
    ensure!(output.status.success(), "{pack:?} ended with {}", output.status);
    let archive = to.join(format!("{}.tar", name.replace(['/', ':'], "-")));
    std::fs::rename(String::from_utf8_lossy(&output.stdout).trim(), &archive)
        .with_context(|| format!("moving an archive to `{}`", to.display()))?;
    Ok(archive)
}
