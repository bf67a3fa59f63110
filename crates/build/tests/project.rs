//! A new project is made from the template and goes through what a user does: build, test, run, add and remove a task.
//!
//! It is compiled against the crates of this workspace and shares their target folder and lock file, so that little is built twice.

use leatworks_build::{BuildOptions, NewProject, STUB, build, new_project};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The folder that cargo builds this test in.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder").join("projects")
}

struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        new_project(root.path(), "fixture-shop", &NewProject { workspace: Some(workspace()) }).expect("made");
        std::fs::copy(workspace().join("Cargo.lock"), root.path().join("Cargo.lock")).expect("the lock file");
        let config = format!("[build]\ntarget-dir = {:?}\n", target());
        std::fs::create_dir(root.path().join(".cargo")).expect("a folder");
        std::fs::write(root.path().join(".cargo/config.toml"), config).expect("a file");
        Self { root }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    fn cargo(&self, args: &[&str]) -> Output {
        self.cargo_with(args, &[("CI", ""), ("LEAT_FROZEN", "")])
    }

    fn cargo_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO"))
            .args(args)
            .current_dir(self.root.path())
            .env_remove("LEAT_BUILD_VERSION")
            .envs(variables.iter().copied())
            .output()
            .expect("cargo runs")
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(file)).expect("a file");
        assert!(text.contains(from), "`{from}` in {file}");
        std::fs::write(self.path(file), text.replace(from, to)).expect("a file");
    }

    fn run(&self, binary: &Path, args: &[&str]) -> Output {
        let data = self.path("data-of-runs");
        Command::new(binary)
            .args(args.iter().map(OsStr::new))
            .current_dir(self.root.path())
            .env("LEAT_DATA", data)
            .output()
            .expect("it runs")
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeded(output: Output) -> String {
    let text = text(&output);
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// One test, since each step needs what the one before it has built.
#[test]
fn a_new_project_builds_runs_and_follows_its_graph() {
    let shop = Fixture::new();
    it_passes_its_tests_and_runs(&shop);
    a_changed_set_of_tasks_fails_once(&shop);
    a_frozen_tree_is_only_told(&shop);
    what_is_wrong_is_told_at_once(&shop);
    all_binaries_are_built_with_their_version(&shop);
}

fn it_passes_its_tests_and_runs(shop: &Fixture) {
    let said = succeeded(shop.cargo(&["test", "--quiet"]));
    assert!(said.contains("4 passed"), "{said}");
    let output = shop.cargo(&["run", "--quiet"]);
    let lines: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    succeeded(output);
    for expected in [r#"{"orders":3,"cents":590}"#, r#"{"line":3,"reason":"there is no comma"}"#] {
        assert!(lines.iter().any(|line| line == expected), "`{expected}` in {lines:?}");
    }
}

fn a_changed_set_of_tasks_fails_once(shop: &Fixture) {
    shop.edit("topologies/orders.toml", "total --> report[report]", "total --> audit --> report[report]");
    shop.edit(
        "src/tasks.rs",
        "/// Adds up the orders.",
        "/// Passes on the sum.\n#[derive(Debug, Deserialize)]\npub struct Audit;\n\nimpl Task for Audit {\n    type In = Sum;\n    \
         type Out = Sum;\n\n    async fn run(&self, sum: Sum, _cx: &Context) -> Result<Sum, TaskError> {\n        Ok(sum)\n    }\n}\n\n\
         /// Adds up the orders.",
    );
    let output = shop.cargo(&["build", "--quiet"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("`audit` added: src/bin/audit.rs written; run the same command again"), "{said}");
    assert_eq!(std::fs::read_to_string(shop.path("src/bin/audit.rs")).expect("a stub"), STUB);
    succeeded(shop.cargo(&["build", "--quiet"]));
    assert!(target().join("debug/audit").exists());
    shop.edit("topologies/orders.toml", "total --> audit --> report", "total --> report");
    let said = text(&shop.cargo(&["build", "--quiet"]));
    assert!(said.contains("`audit` removed: src/bin/audit.rs deleted; run the same command again"), "{said}");
    succeeded(shop.cargo(&["build", "--quiet"]));
}

fn a_frozen_tree_is_only_told(shop: &Fixture) {
    std::fs::remove_file(shop.path("src/bin/total.rs")).expect("a stub");
    for variable in [("CI", "true"), ("LEAT_FROZEN", "1")] {
        let output = shop.cargo_with(&["check", "--quiet"], &[("CI", ""), ("LEAT_FROZEN", ""), variable]);
        let said = text(&output);
        assert!(!output.status.success() && !shop.path("src/bin/total.rs").exists(), "{said}");
        assert!(said.contains("`total` has no src/bin/total.rs: not written, since") && said.contains(variable.0), "{said}");
    }
    std::fs::write(shop.path("src/bin/total.rs"), "fn main() {}\n").expect("a file");
    let said = text(&shop.cargo(&["check", "--quiet"]));
    assert!(said.contains("`src/bin/total.rs` is not a stub of Leatworks, but `total` is a topology or task"), "{said}");
    std::fs::write(shop.path("src/bin/total.rs"), STUB).expect("a file");
}

fn what_is_wrong_is_told_at_once(shop: &Fixture) {
    shop.edit("topologies/orders.toml", "name = \"total\"", "name = \"totals\"");
    shop.edit("topologies/orders.toml", "mod = \"tasks\"", "mood = \"tasks\"");
    let said = text(&shop.cargo(&["check", "--quiet"]));
    assert!(said.contains("did you mean `total`?") && said.contains("`mood`"), "{said}");
    assert!(said.contains("topologies/orders.toml:"), "{said}");
    shop.edit("topologies/orders.toml", "name = \"totals\"", "name = \"total\"");
    shop.edit("topologies/orders.toml", "mood = \"tasks\"", "mod = \"tasks\"");
}

fn all_binaries_are_built_with_their_version(shop: &Fixture) {
    std::fs::remove_file(shop.path("src/bin/check.rs")).expect("a stub");
    if std::env::var_os("CI").is_some() {
        // This process is frozen itself.
        std::fs::write(shop.path("src/bin/check.rs"), STUB).expect("a stub");
    }
    let options = BuildOptions { versioned: true, prune: true, ..BuildOptions::default() };
    let built = build(shop.root.path(), &options).expect("built in one go");
    assert_eq!(built.version, "0.1.0");
    let names: Vec<_> = built.versioned.iter().map(|path| path.file_name().expect("a name").to_string_lossy()).collect();
    let expected = ["check", "orders", "read", "report", "total"].map(|name| format!("fixture-shop-{name}-0.1.0"));
    assert_eq!(names, expected);
    assert!(built.versioned[0].starts_with(target().join("build")));
    for binary in built.binaries.iter().chain(&built.versioned) {
        let said = succeeded(shop.run(binary, &["--version"]));
        assert!(said.contains("0.1.0"), "{said}");
        let said = succeeded(shop.run(binary, &["--help"]));
        assert!(said.contains("Usage:"), "{said}");
    }
}
