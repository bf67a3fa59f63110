//! The image of the workers' programs, which know nothing of this project.

use super::super::super::Cluster;
use anyhow::{Context, Result, ensure};
use leatworks_image::{Archive, Entry, Image, Layer};
use std::{collections::BTreeSet, path::PathBuf, process::Command};

/// Its name.
pub(super) const IMAGE: &str = "leatworks.test/worker:1";
/// The folder of the programs in the repository.
const PROGRAMS: &str = "examples/chapters";
/// What they call.
const TOOLS: [&str; 10] = ["sh", "mkdir", "dirname", "tr", "wc", "grep", "find", "sed", "cat", "sleep"];
/// Prints the interpreter, the folder that it is installed in, and the files of the modules that the programs use. What the machine adds to Python is left out.
const ASK_PYTHON: &str = "import json, os, pathlib, site, sys, time, encodings.ascii, encodings.latin_1
print(os.path.realpath(sys.executable))
print(sys.base_prefix)
for module in list(sys.modules.values()):
    if str(getattr(module, '__file__', None)).startswith(sys.base_prefix):
        print(module.__file__)";

/// Makes it and gives it to the nodes.
pub(super) fn load(cluster: &Cluster) -> Result<()> {
    let archive = cluster.folder.join("worker.image.tar");
    Archive { name: IMAGE, image: &image()? }.write(&archive)?;
    cluster.load(&archive)
}

/// An image of programs that know nothing of this project: a shell, its tools, and Python with as much as it needs.
fn image() -> Result<Image> {
    let output = Command::new("python3").args(["-I", "-S", "-c", ASK_PYTHON]).output().context("starting python3")?;
    ensure!(output.status.success(), "python3 ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let (interpreter, prefix) = lines.next().zip(lines.next()).context("python3 names no interpreter")?;
    let folder = tempfile::tempdir()?;
    let mut programs = Vec::new();
    for (name, from) in TOOLS
        .iter()
        .map(|tool| Ok((*tool, find(tool)?)))
        .chain([Ok(("python3", interpreter.into()))])
        .collect::<Result<Vec<_>>>()?
    {
        let to = folder.path().join(name);
        std::fs::copy(&from, &to).with_context(|| format!("copying `{}`", from.display()))?;
        programs.push(to);
    }
    let mut image = Image::of_programs(&programs)?;
    let mut entries = Vec::new();
    for file in lines.collect::<BTreeSet<_>>() {
        let bytes = std::fs::read(file).with_context(|| format!("reading `{file}`"))?;
        entries.push(Entry::file(file.trim_start_matches('/'), bytes));
    }
    for entry in std::fs::read_dir(PROGRAMS).with_context(|| format!("reading `{PROGRAMS}`"))? {
        let path = entry?.path();
        if path.is_file() {
            entries.push(Entry::file(format!("app/{}", path.display()), std::fs::read(&path)?));
        }
    }
    image.layers.push(Layer::of(&entries)?);
    image.environment.push(format!("PYTHONHOME={prefix}"));
    Ok(image)
}

/// Where a program of this machine is.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("`{program}` is not installed"))
}
