//! The cluster's programs, built from their Go modules into the cache: package registries have no binaries of them.

use crate::{ci::run_command, services::GO};
use anyhow::{Context, Result};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The version of Kubernetes. The modules in `SOURCES` name it as well.
pub(super) const VERSION: &str = "1.34.4";

/// Programs that can be built by their modules' names alone: Helm, and a registry for images.
const NAMED: [(&str, &str); 2] =
    [("helm", "helm.sh/helm/v3/cmd/helm@v3.19.5"), ("registry", "github.com/google/go-containerregistry/cmd/registry@v0.22.1")];

/// Where the modules are that hold what `go install` refuses to build by name, because of directives that count only in a main module.
const SOURCES: &str = "tests/cluster";

/// The programs that are one binary, which looks at the name that it is called by.
const KUBE: [&str; 6] = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// A folder of programs.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub(super) fn named(cache: &Path) -> Self {
        Self { folder: cache.join(format!("kubernetes-programs-{VERSION}")) }
    }

    /// Where a program is: in this folder, or else wherever the system finds it.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        let own = self.folder.join(program);
        if own.exists() { own } else { PathBuf::from(program) }
    }

    /// The folders in which programs are looked for, with this one first.
    pub(super) fn search_path(&self) -> OsString {
        let others = std::env::var_os("PATH").unwrap_or_default();
        let all = [self.folder.clone()].into_iter().chain(std::env::split_paths(&others));
        std::env::join_paths(all).unwrap_or(others)
    }

    /// Builds what is not there yet or was made of other sources.
    pub(super) fn build(&self) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let (major, minor) =
            VERSION.split_once('.').and_then(|(major, rest)| Some((major, rest.split_once('.')?.0))).context(VERSION)?;
        let version = "k8s.io/component-base/version.git";
        let kube = format!("-s -w -X {version}Version=v{VERSION} -X {version}Major={major} -X {version}Minor={minor}");
        for (name, flags) in [("pause", "-s -w"), ("etcd", "-s -w"), ("coredns", "-s -w"), ("kube", kube.as_str())] {
            self.module(name, flags).with_context(|| format!("building `{name}`"))?;
        }
        // A chart says which versions of Kubernetes it is for, and Helm by itself takes a very old one.
        let helm = "helm.sh/helm/v3/pkg/chartutil.k8sVersion";
        let flags = format!("-s -w -X {helm}Major={major} -X {helm}Minor={minor}");
        for (name, module) in NAMED {
            self.unless_made_of(name, format!("{module} {flags}").as_bytes(), || {
                let mut go = Command::new("go");
                go.args(["install", "-trimpath", "-ldflags", &flags, module]).env("CGO_ENABLED", "0").env("GOBIN", &self.folder);
                run_command(&mut go)
            })?;
        }
        for name in KUBE {
            let link = self.folder.join(name);
            if link.symlink_metadata().is_err() {
                std::os::unix::fs::symlink("kube", &link).with_context(|| format!("naming `{}`", link.display()))?;
            }
        }
        Ok(())
    }

    fn module(&self, name: &str, flags: &str) -> Result<()> {
        let source = Path::new(SOURCES).join(name);
        let mut made_of = flags.as_bytes().to_vec();
        for file in ["go.mod", "go.sum", "main.go"] {
            let path = source.join(file);
            // A module that needs no other has no sums.
            if path.exists() || file == "main.go" {
                let text = std::fs::read(&path);
                made_of.extend(
                    text.with_context(|| format!("`{}` is not here: run this in the repository's root", path.display()))?,
                );
            }
        }
        self.unless_made_of(name, &made_of, || {
            let mut go = Command::new("go");
            go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"]).arg(self.folder.join(name)).arg(".");
            run_command(go.current_dir(&source).env("CGO_ENABLED", "0"))
        })
    }

    fn unless_made_of(&self, name: &str, made_of: &[u8], build: impl FnOnce() -> Result<()>) -> Result<()> {
        let note = self.folder.join(format!("{name}.source"));
        if self.folder.join(name).exists() && std::fs::read(&note).is_ok_and(|there| there == made_of) {
            return Ok(());
        }
        GO.check()?;
        println!("building {name}, once for all checkouts that use this cache");
        build()?;
        // Written last, so that what was cut short is not taken for whole.
        Ok(std::fs::write(note, made_of)?)
    }
}
