//! Container images of projects, and of leat itself, without a container engine.

mod push;

use crate::{
    args::{Build, Global, PackLeat},
    exit::{Code, Doing, Failure, Result, say},
    project::Found,
};
use leatworks_build::Built;
use leatworks_image::{Archive, Image, PROGRAMS};
use push::Target;
use std::path::Path;

/// Registries refuse longer tags.
const TAG_LENGTH_MAX: usize = 128;

/// What is packed, and where it goes.
struct Job<'a> {
    name: String,
    /// Where to push it, if it is to be pushed: found before anything is built, so that a wrong name is told at once.
    target: Option<Target>,
    file: &'a Path,
    quiet: bool,
}

/// Where the image of a build is to be pushed, if it is.
pub(crate) struct Order {
    name: Option<String>,
    target: Option<Target>,
}

impl Order {
    /// Looks at what was asked for. A wrong name is told before anything is built.
    pub(crate) fn of(args: &Build) -> Result<Self> {
        Ok(Self { name: args.image_name.clone(), target: target(args.image_name.as_deref(), args.push)? })
    }

    /// Packs what was built: the topologies and the tasks of the project in one image.
    pub(crate) fn fill(self, built: &Built, found: &Found, global: &Global) -> Result {
        let project = found.project.name();
        let name = self.name.unwrap_or_else(|| format!("{project}:{}", tag(&built.version)));
        let file = built.target_dir.join(format!("{project}.image.tar"));
        let mut image = Image::of_programs(&built.binaries).map_err(|error| Failure::new(Code::Build, error))?;
        if let [only] = found.project.topologies() {
            image.entrypoint = vec![format!("{PROGRAMS}/{}", only.name().as_str())];
        }
        image.labels = vec![
            ("org.opencontainers.image.title".to_owned(), project.to_string()),
            ("org.opencontainers.image.version".to_owned(), built.version.clone()),
        ];
        finish(&image, &Job { name, target: self.target, file: &file, quiet: global.quiet })
    }
}

/// `leat image`.
pub(crate) fn leat(args: &PackLeat, global: &Global) -> Result {
    let version = env!("CARGO_PKG_VERSION");
    let target = target(args.name.as_deref(), args.push)?;
    let own = std::env::current_exe().doing(|| "finding the file of this program".to_owned())?;
    let folder = tempfile::tempdir().doing(|| "making a folder for a copy".to_owned())?;
    // Whatever it is called here, in the image it is `leat`.
    let program = folder.path().join("leat");
    std::fs::copy(&own, &program).doing(|| format!("copying `{}`", own.display()))?;
    let mut image = Image::of_programs(&[program]).map_err(|error| Failure::new(Code::Invalid, error))?;
    image.entrypoint = vec![format!("{PROGRAMS}/leat")];
    image.labels = vec![
        ("org.opencontainers.image.title".to_owned(), "leat".to_owned()),
        ("org.opencontainers.image.version".to_owned(), version.to_owned()),
    ];
    let name = args.name.clone().unwrap_or_else(|| format!("leat:{version}"));
    finish(&image, &Job { name, target, file: &args.file, quiet: global.quiet })
}

/// Where an image of this name is to be pushed, if it is.
fn target(name: Option<&str>, push: bool) -> Result<Option<Target>> {
    match name {
        Some(name) if push => Target::to_push(name).map(Some),
        Some(name) => Target::of(name).map(|_| None),
        None => Ok(None),
    }
}

/// Writes the archive, and pushes the image if that was asked for.
fn finish(image: &Image, job: &Job<'_>) -> Result {
    let archive = Archive { name: &job.name, image };
    let digest = archive.write(job.file).map_err(|error| Failure::new(Code::Invalid, error))?;
    if !job.quiet {
        let size: usize = image.layers.iter().map(leatworks_image::Layer::size).sum();
        let (layers, megabytes) = (image.layers.len(), size as f64 / 1e6);
        eprintln!("{:>12} {}, {layers} layers, {megabytes:.1} MB, {digest}", "Packed", job.name);
    }
    if let Some(target) = &job.target {
        target.push(image)?;
        if !job.quiet {
            eprintln!("{:>12} {}@{digest}", "Pushed", job.name);
        }
    }
    say!("{}", job.file.display());
    Ok(())
}

/// A build version as a tag, which may not hold a plus sign.
fn tag(version: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    version.chars().map(|c| if allowed(c) { c } else { '-' }).take(TAG_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_becomes_a_tag() {
        assert_eq!(tag("0.1.0+g2c7bd61.dirty"), "0.1.0-g2c7bd61.dirty");
        assert_eq!(tag(&"1".repeat(300)).len(), TAG_LENGTH_MAX);
    }
}
