//! What the tests of generated code share.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use leatworks_build::{Generated, Package, generate};
use leatworks_topology::{Project, load_from};
use std::path::Path;

/// The project of one member file.
pub(crate) fn project(member: &str) -> Result<Project, String> {
    let root = "[project]\nname = \"demo\"\nmembers = [\"topologies/demo.toml\"]\n";
    load_from(&[("Project.toml", root), ("topologies/demo.toml", member)]).map_err(|diagnostics| diagnostics.render(false))
}

/// Its generated files, for a library named `demo` in version 1.2.3.
pub(crate) fn generated(member: &str) -> Generated {
    let package = Package { library: "demo".to_owned(), version: "1.2.3".to_owned() };
    let project = project(member).unwrap_or_else(|error| panic!("{error}"));
    generate(&project, &package).unwrap_or_else(|error| panic!("{error}"))
}

/// One generated file.
pub(crate) fn file<'a>(generated: &'a Generated, name: &str) -> &'a str {
    &generated.files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("no `{name}`")).text
}

/// Whether expectations are written anew: `LEAT_BLESS=1`.
pub(crate) fn bless() -> bool {
    std::env::var_os("LEAT_BLESS").is_some()
}

/// Compares a text with the file that holds what is expected.
pub(crate) fn expect_file(path: &Path, text: &str) {
    if bless() {
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(expected == text, "`{}` differs; look at it after LEAT_BLESS=1:\n{text}", path.display());
}
