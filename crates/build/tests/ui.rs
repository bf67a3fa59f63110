//! What rustc says of edges whose types do not fit: it names the edge and its place, and says what to do.
//!
//! Each folder under `ui` holds a topology, the tasks to it, and what the compiler says, or nothing if all is right. `TRYBUILD=overwrite`
//! writes what it says anew. The words are those of one version of rustc; with another one nothing is compared.

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use support::generated;

/// The version whose words are expected.
const RUSTC: &str = "rustc 1.95.";

/// What rustc says of a case that it refuses.
const REFUSED: &str = "main.stderr";

/// What stands for the folder of a case in what is expected.
const STAGE: &str = "$STAGE";

#[test]
fn misfits_are_told_by_rustc() {
    if !rustc_version().starts_with(RUSTC) {
        let why = format!("NOT RUN: the words that are expected are those of {RUSTC}x, and this is another version");
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("{why}");
        return;
    }
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let cases: Vec<PathBuf> = std::fs::read_dir(&cases).expect("cases").map(|case| case.expect("a case").path()).collect();
    let staged: Vec<(PathBuf, &PathBuf)> = cases.iter().map(|case| (stage(case), case)).collect();
    let tests = trybuild::TestCases::new();
    for (stage, case) in &staged {
        let main = stage.join("main.rs");
        if case.join(REFUSED).exists() || bless() && !case.ends_with("fits") {
            tests.compile_fail(main)
        } else {
            tests.pass(main)
        }
    }
    // The cases run when this is dropped.
    drop(tests);
    if bless() {
        staged.iter().for_each(|(stage, case)| keep(stage, case));
    }
}

/// Whether expectations are written anew.
fn bless() -> bool {
    std::env::var_os("TRYBUILD").is_some_and(|mode| mode == "overwrite")
}

/// Takes over what rustc said.
fn keep(stage: &Path, case: &Path) {
    if let Ok(said) = std::fs::read_to_string(stage.join(REFUSED)) {
        std::fs::write(case.join(REFUSED), said.replace(&stage.display().to_string(), STAGE)).expect("a file");
    }
}

/// Lays a case and its generated code into a folder of the target directory.
fn stage(case: &Path) -> PathBuf {
    let stage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui").join(case.file_name().expect("a name"));
    // What an earlier run left is not to be compared with.
    let _ = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage).expect("a folder");
    let member = std::fs::read_to_string(case.join("demo.toml")).expect("a topology");
    for file in generated(&member).files {
        std::fs::write(stage.join(file.name), file.text).expect("a file");
    }
    std::fs::copy(case.join("main.rs"), stage.join("main.rs")).expect("the tasks");
    if case.join(REFUSED).exists() && !bless() {
        let expected = std::fs::read_to_string(case.join(REFUSED)).expect("what is expected");
        std::fs::write(stage.join(REFUSED), expected.replace(STAGE, &stage.display().to_string())).expect("a file");
    }
    stage
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
