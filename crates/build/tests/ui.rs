//! What rustc says of edges whose types do not fit: it names the edge and its place, and says what to do.
//!
//! Each folder under `ui` holds a topology, the tasks to it, and what the compiler says, or nothing if all is right. `LEAT_BLESS=1`
//! writes what it says anew. The words are those of one version of rustc; with another one it is only checked that it refuses.

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use support::{bless, generated};

/// The version whose words are expected.
const RUSTC: &str = "rustc 1.95.";

const EXPECTED: &str = "main.stderr";

#[test]
fn misfits_are_told_by_rustc() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let words_are_known = rustc_version().starts_with(RUSTC);
    let mut staged: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(&cases).expect("cases") {
        let case = entry.expect("a case").path();
        staged.push((stage(&case, words_are_known), case));
    }
    {
        // The tests run when this goes out of scope.
        let tests = trybuild::TestCases::new();
        for (stage, case) in &staged {
            let main = stage.join("main.rs");
            if case.join(EXPECTED).exists() || bless() && !case.ends_with("fits") { tests.compile_fail(main) } else { tests.pass(main) }
        }
    }
    for (stage, case) in staged.iter().filter(|(stage, _)| bless() && stage.join(EXPECTED).exists()) {
        std::fs::copy(stage.join(EXPECTED), case.join(EXPECTED)).expect("blessed");
    }
}

/// Lays a case and its generated code into a folder of the target directory.
fn stage(case: &Path, words_are_known: bool) -> PathBuf {
    let stage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui").join(case.file_name().expect("a name"));
    // What an earlier run left is not to be compared with.
    let _ = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage).expect("a folder");
    let member = std::fs::read_to_string(case.join("demo.toml")).expect("a topology");
    for file in generated(&member).files {
        std::fs::write(stage.join(file.name), file.text).expect("a file");
    }
    std::fs::copy(case.join("main.rs"), stage.join("main.rs")).expect("the tasks");
    if case.join(EXPECTED).exists() && words_are_known && !bless() {
        std::fs::copy(case.join(EXPECTED), stage.join(EXPECTED)).expect("what is expected");
    }
    stage
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
