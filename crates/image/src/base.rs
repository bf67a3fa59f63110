//! The image of some programs: what all of them need below, and each of them in a layer of its own.

use crate::{Entry, Error, Image, Layer, Result, USER, needed};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The folder of the programs.
pub const PROGRAMS: &str = "/app";

/// Where systems keep the certificates that they trust, in one file. Images have it at the first of these places.
const CERTIFICATES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

impl Image {
    /// The image of these programs, each at `/app` under its own name. A container runs as [`USER`], and runs nothing unless it is told what.
    ///
    /// Below are the libraries that the programs need, the certificates that this machine trusts, and a folder for temporary files. A project whose code
    /// has changed therefore gives new layers only for the programs that have changed.
    ///
    /// # Errors
    ///
    /// A program cannot be read, is none for 64-bit Linux, or needs a library that this machine does not have.
    pub fn of_programs(programs: &[PathBuf]) -> Result<Self> {
        let mut libraries = BTreeSet::new();
        for program in programs {
            libraries.extend(needed(program)?.files);
        }
        let mut layers = vec![Layer::of(&base(&libraries)?)?];
        for program in programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            layers.push(Layer::of(&[Entry::program(format!("{}/{name}", &PROGRAMS[1..]), read(program)?)])?);
        }
        Ok(Self { layers, environment: vec![format!("PATH={PROGRAMS}")], ..Self::default() })
    }
}

fn base(libraries: &BTreeSet<PathBuf>) -> Result<Vec<Entry>> {
    let user = format!("root:x:0:0:root:/:/nologin\nleat:x:{USER}:{USER}:leat:/:/nologin\n");
    let group = format!("root:x:0:\nleat:x:{USER}:\n");
    let mut entries = vec![
        Entry::file("etc/passwd", user.into_bytes()),
        Entry::file("etc/group", group.into_bytes()),
        Entry::file("etc/nsswitch.conf", b"hosts: files dns\n".to_vec()),
        Entry::folder("tmp", 0o1777),
    ];
    if let Some(certificates) = CERTIFICATES.iter().map(Path::new).find(|file| file.exists()) {
        entries.push(Entry::file(&CERTIFICATES[0][1..], read(certificates)?));
    }
    for library in libraries {
        entries.push(Entry::program(library.to_string_lossy().trim_start_matches('/'), read(library)?));
    }
    Ok(entries)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::file(path))
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Two programs of this machine that need the C library.
    fn programs(folder: &Path) -> Vec<PathBuf> {
        let own = std::env::current_exe().unwrap();
        ["one", "two"]
            .map(|name| {
                let path = folder.join(name);
                std::fs::copy(&own, &path).unwrap();
                path
            })
            .to_vec()
    }

    #[test]
    fn a_program_that_changes_gives_one_new_layer() {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs(folder.path());
        let before = Image::of_programs(&programs).unwrap();
        assert_eq!(before.layers.len(), 3);
        let mut changed = std::fs::read(&programs[1]).unwrap();
        changed.extend(b"more");
        std::fs::write(&programs[1], changed).unwrap();
        let after = Image::of_programs(&programs).unwrap();
        let same: Vec<bool> = before.layers.iter().zip(&after.layers).map(|(a, b)| a.digest() == b.digest()).collect();
        assert_eq!(same, [true, true, false]);
    }

    #[test]
    fn an_image_of_the_same_programs_is_the_same_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs(folder.path());
        let archives = ["a.tar", "b.tar"].map(|name| {
            let path = folder.path().join(name);
            crate::Archive { name: "shop:1", image: &Image::of_programs(&programs).unwrap() }.write(&path).unwrap();
            std::fs::read(path).unwrap()
        });
        assert!(archives[0] == archives[1]);
    }

    #[test]
    fn a_script_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = Image::of_programs(&[script]).unwrap_err().to_string();
        assert!(error.contains("script") && error.contains("64-bit Linux"), "{error}");
    }
}
