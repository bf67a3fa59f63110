//! What the package's own `Cargo.toml` says that cargo does not tell a build script.

use std::{io, path::Path};

/// Why a package cannot hold a project.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// `Cargo.toml` cannot be read.
    #[error("reading `Cargo.toml`: {0}")]
    Read(#[from] io::Error),
    /// `Cargo.toml` is no TOML, or has no package.
    #[error("`Cargo.toml`: {0}")]
    Parse(String),
    /// The binaries in `src/bin` would not be built.
    #[error("`Cargo.toml` sets `autobins = false`, so cargo would build none of the binaries in `src/bin`: remove that line")]
    AutobinsOff,
    /// The generated module has no place.
    #[error("`{0}` is missing: the generated topologies go there, by the line `leatworks::topologies!();`")]
    LibraryMissing(String),
}

/// The parts of a manifest that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The library's name in Rust.
    pub(crate) library: String,
    /// The package's version, unless it is inherited.
    pub(crate) version: Option<String>,
}

/// Reads `Cargo.toml` in `root` and checks that the package can hold generated binaries.
pub(crate) fn read(root: &Path) -> Result<Manifest, ManifestError> {
    let text = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ManifestError::Parse(error.message().to_owned()))?;
    let package = table.get("package").ok_or_else(|| ManifestError::Parse("`[package]` is missing".to_owned()))?;
    let name = package.get("name").and_then(|name| name.as_str());
    let name = name.ok_or_else(|| ManifestError::Parse("`package.name` is missing".to_owned()))?;
    if package.get("autobins").and_then(|flag| flag.as_bool()) == Some(false) {
        return Err(ManifestError::AutobinsOff);
    }
    let lib = |key| table.get("lib").and_then(|lib| lib.get(key)).and_then(|value| value.as_str());
    let path = lib("path").unwrap_or("src/lib.rs");
    if !root.join(path).is_file() {
        return Err(ManifestError::LibraryMissing(path.to_owned()));
    }
    Ok(Manifest {
        library: lib("name").unwrap_or(name).replace('-', "_"),
        version: package.get("version").and_then(|version| version.as_str()).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: &str) -> Result<Manifest, String> {
        let root = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(root.path().join("src")).expect("a folder");
        std::fs::write(root.path().join("src/lib.rs"), "").expect("a file");
        std::fs::write(root.path().join("Cargo.toml"), manifest).expect("a file");
        read(root.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_library_is_named_by_the_manifest() {
        let library = |manifest| check(manifest).map(|manifest| manifest.library);
        assert_eq!(library("[package]\nname = \"my-shop\""), Ok("my_shop".to_owned()));
        assert_eq!(library("[package]\nname = \"my-shop\"\n[lib]\nname = \"shop\""), Ok("shop".to_owned()));
    }

    #[test]
    fn a_package_that_cannot_hold_a_project_is_refused() {
        for (manifest, expected) in [
            ("[package]\nname = \"a\"\nautobins = false", "`Cargo.toml` sets `autobins = false`"),
            ("[package]\nname = \"a\"\n[lib]\npath = \"src/other.rs\"", "`src/other.rs` is missing"),
            ("[workspace]", "`Cargo.toml`: `[package]` is missing"),
            ("[package", "`Cargo.toml`: "),
        ] {
            let error = check(manifest).expect_err("refused");
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
