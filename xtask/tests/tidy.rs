//! The repository is what its pages say: the crates and paths of `ARCHITECTURE.md`, the shape of source files, the words in them.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// A file longer than this, tests left out, holds more than one idea.
const FILE_LINES_MAX: usize = 500;

/// A function longer than this cannot be seen at once.
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository's root").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files that git knows or would add, by path from the root.
fn files(extension: &str) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the repository's files");
    String::from_utf8(output.stdout)
        .expect("paths are UTF-8")
        .lines()
        .filter(|path| path.ends_with(extension) && root().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

/// What stands between backticks in a piece of Markdown.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_allowed_arrows_are_the_real_ones() {
    let page = read("ARCHITECTURE.md");
    let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders: BTreeMap<String, String> = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        if let [name, folder, _, uses] = cells.as_slice() {
            let name = code_spans(name)[0].to_owned();
            allowed.insert(name.clone(), code_spans(uses).into_iter().map(str::to_owned).collect());
            folders.insert(name, code_spans(folder)[0].to_owned());
        }
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo describes the workspace");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert_eq!(
        names,
        allowed.keys().map(String::as_str).collect(),
        "the crates in ARCHITECTURE.md are the crates of the workspace"
    );
    for package in packages {
        let name = package["name"].as_str().expect("a package has a name");
        let uses: BTreeSet<String> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|dependency| names.contains(dependency))
            .map(str::to_owned)
            .collect();
        let forbidden: Vec<_> = uses.difference(&allowed[name]).collect();
        assert!(
            forbidden.is_empty(),
            "`{name}` uses {forbidden:?}: a new arrow is a decision, so it stands in ARCHITECTURE.md first"
        );
        let stale: Vec<_> = allowed[name].difference(&uses).collect();
        assert!(stale.is_empty(), "ARCHITECTURE.md lets `{name}` use {stale:?}, and it does not");
        let manifest = root().join(&folders[name]).join("Cargo.toml");
        assert!(manifest.is_file(), "`{name}` lies in `{}`", folders[name]);
    }
}

#[test]
fn every_path_in_the_pages_exists() {
    for page in ["ARCHITECTURE.md", "README.md"] {
        for span in code_spans(&read(page)) {
            let is_path = ["crates/", "docs/", "templates/", "examples/", "topologies/", "xtask/", "src/"]
                .iter()
                .any(|prefix| span.starts_with(prefix));
            if is_path && !span.contains(['<', '*', '…', ' ']) {
                assert!(root().join(span).exists(), "{page} names `{span}`, which does not exist");
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; 150 are enough");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for file in files(".rs") {
        let text = read(&file);
        let exempt = file.contains("/ui/") || file.contains("/golden/") || text.lines().count() <= 15;
        assert!(exempt || text.starts_with("//!"), "{file} begins with `//!` and what it is for");
    }
}

/// The part of a file that ships: everything before its unit tests.
fn production(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect()
}

fn is_production(file: &str) -> bool {
    !["tests/", "benches/", "examples/"].iter().any(|folder| file.starts_with(folder) || file.contains(&format!("/{folder}")))
}

#[test]
fn files_and_functions_can_be_seen_at_once() {
    let mut offenders = Vec::new();
    for file in files(".rs").into_iter().filter(|file| is_production(file)) {
        let text = read(&file);
        let lines = production(&text);
        if lines.len() > FILE_LINES_MAX {
            offenders.push(format!("{file}: {} lines", lines.len()));
        }
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let starts =
                ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "pub(crate) async fn ", "pub const fn "];
            // A signature without a body, in a trait, ends with a semicolon before any brace opens.
            let declared =
                lines[start..].iter().find(|line| line.ends_with(['{', ';', '}'])).is_some_and(|line| line.ends_with(';'));
            if !starts.iter().any(|prefix| code.starts_with(prefix)) || declared {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = lines[start..].iter().position(|line| *line == format!("{indent}}}")).unwrap_or(0);
            if end + 1 > FUNCTION_LINES_MAX {
                offenders.push(format!("{file}:{}: a function of {} lines", start + 1, end + 1));
            }
        }
    }
    assert!(offenders.is_empty(), "split these: {offenders:#?}");
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let forbidden = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    for extension in [".rs", ".md", ".toml", ".hbs", "run", ".sh", ".stderr"] {
        for file in files(extension) {
            let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
            for (number, line) in text.lines().enumerate() {
                let found = forbidden.iter().find(|word| line.contains(word.as_str()));
                assert!(found.is_none(), "{file}:{}: names a place on one machine: {line}", number + 1);
            }
        }
    }
}
