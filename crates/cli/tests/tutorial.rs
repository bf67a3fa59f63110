//! Runs the tutorial as a reader would: every shell block in order, every file written, every line that the page promises looked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the page asks its reader to do, or promises.
#[derive(Debug)]
enum Step {
    Shell(String),
    File(String, String),
    Prints(String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the crate lies in the repository")
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut file = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->")) {
            file = Some(name.to_owned());
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n") + "\n";
        match (language, file.take()) {
            (_, Some(name)) => steps.push(Step::File(name, body)),
            ("sh", None) => steps.push(Step::Shell(body)),
            ("text", None) => steps.push(Step::Prints(body)),
            (other, None) => panic!("the page has a block of `{other}` that no reader could follow"),
        }
    }
    steps
}

/// Runs a block in the folder where the one before it ended, and gives all that it printed.
fn shell(script: &str, folder: &mut PathBuf, home: &Path) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_leat")).parent().expect("a binary lies in a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // Where the pages have their reader's checkout, ours is.
    let script = script.replace("~/leatworks", root().to_str().expect("the repository's path is plain"));
    let output = Command::new("bash")
        .args(["-c", &format!("set -eu\nexec 2>&1\n{script}\npwd")])
        .current_dir(&*folder)
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .env_remove("LEAT_WORKSPACE")
        .env_remove("LEAT_DATA")
        .env("LEATWORKS_HOME", home)
        // One target folder for every project that a test builds, so that dependencies are compiled once.
        .env("CARGO_TARGET_DIR", root().join("target/projects"))
        // A reader's cargo writes stubs; with CI set, it would only report them.
        .env_remove("CI")
        .env_remove("LEAT_FROZEN")
        .output()
        .expect("bash starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "this step fails:\n{script}\nand prints:\n{text}");
    let (printed, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    *folder = PathBuf::from(last);
    lock_versions(folder);
    printed.to_owned()
}

/// A project that was just made gets the dependency versions of this repository, so that what passes today passes tomorrow.
fn lock_versions(folder: &Path) {
    let lock = folder.join("Cargo.lock");
    if folder.join("Cargo.toml").is_file() && !lock.exists() {
        fs::copy(root().join("Cargo.lock"), lock).expect("the repository has a lock file");
    }
}

#[test]
fn every_step_of_the_tutorial_does_what_the_page_says() {
    let page = fs::read_to_string(root().join("docs/tutorials/first-pipeline.md")).expect("the page is there");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let home = dir.path().join("home");
    let mut folder = dir.path().to_owned();
    let mut printed = String::new();
    for step in steps(&page) {
        match step {
            Step::Shell(script) => printed = shell(&script, &mut folder, &home),
            Step::File(name, text) => fs::write(folder.join(name), text).expect("the file can be written"),
            Step::Prints(lines) => {
                for line in lines.lines() {
                    assert!(printed.contains(line.trim_end()), "the page promises\n{line}\nand this was printed:\n{printed}");
                }
            }
        }
    }
}

#[test]
fn a_new_project_passes_its_own_tests() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut folder = dir.path().to_owned();
    let printed = shell("leat new mill --workspace ~/leatworks\ncd mill\ncargo test", &mut folder, &dir.path().join("home"));
    assert!(printed.contains("test result: ok") && !printed.contains("FAILED"), "{printed}");
    let listed = shell("ls src/bin", &mut folder, &dir.path().join("home"));
    let again = shell(
        "cargo build\ngit status --porcelain src/bin | grep -v '^??' || true\nls src/bin",
        &mut folder,
        &dir.path().join("home"),
    );
    assert!(again.ends_with(&listed), "building changes no stub: {again}");
}

/// Waits for a condition of the running topology, and fails when it does not come.
const UNTIL: &str =
    r#"wait_for() { for _ in $(seq 600); do if "$@"; then return; fi; sleep 0.1; done; echo "waited in vain: $*"; exit 1; }"#;

#[test]
fn a_running_topology_takes_messages_and_tells_how_it_is() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut folder = dir.path().to_owned();
    let script = [
        "leat new forge --workspace ~/leatworks && cd forge && leat build",
        UNTIL,
        "leat run -- --serve > out.txt & run=$!",
        "running() { leat status -o json | grep -q '\"running\":true'; }",
        "wait_for running",
        r#"leat send orders '{"number":1,"text":"nails,70"}' --wait"#,
        r#"leat send orders '"no line"' --wait || echo given up: $?"#,
        "leat dlq list",
        "leat dlq show -o json | grep -o '\"attempts\":1'",
        r#"(cd src && printf '"no line"\n"none"\n"nor this"\n' | leat send orders --wait) || echo more given up: $?"#,
        "leat dlq drop --dry-run",
        "leat dlq drop --dry-run --limit 3 -o json",
        "leat dlq drop < /dev/null && echo unasked || echo refused with $?",
        "leat dlq drop --limit 1 --yes",
        "(cd src && leat dlq redrive orders --limit 2 --yes -o json)",
        "all_back() { leat dlq list | grep -q 'orders: 3 dead letters'; }",
        "wait_for all_back",
        "leat dlq drop --id 019A5E8F3C1D7B2A90CFE1D24B6A8C30 --yes || echo nothing dropped: $?",
        "leat dlq drop --yes",
        "leat dlq list",
        "kill -INT $run; wait $run || echo ended with $?",
        "leat status",
        "leat send orders '1' --wait || echo nobody runs it: $?",
    ];
    let printed = shell(&script.join("\n"), &mut folder, &dir.path().join("home"));
    for line in [
        "  done",
        "  dead-lettered",
        "undecodable  1",
        "\"attempts\":1",
        "given up: 9",
        "more given up: 9",
        "would drop 4",
        r#"{"count":3,"dry_run":true,"schema":"leat.count/v1"}"#,
        "refused with 6",
        "drop: 1\n",
        r#"{"count":2,"dry_run":false,"schema":"leat.count/v1"}"#,
        "nothing dropped: 4",
        "drop: 3\n",
        "orders: 0 dead letters",
        "ended with 130",
        "dead-lettered 4 + in flight 0",
        "nobody runs it: 5",
    ] {
        assert!(printed.contains(line), "`{line}` is expected in:\n{printed}");
    }
}

#[test]
fn a_topology_runs_in_its_projects_folder_and_quietly_where_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut folder = dir.path().to_owned();
    let script = [
        "leat new quarry --workspace ~/leatworks && cd quarry",
        "printf 'data = \"mine\"\\n' > leat.toml",
        "printf 'no line\\ntea,250\\n' > data/orders.csv",
        "(cd src && leat -q run 2> ../told.txt)",
        "echo told $(wc -c < told.txt) bytes",
        "test -d mine/journal && test ! -e src/mine",
        "(cd src && LEAT_DATA=../other leat run 2>&1) | tail -n 3",
        "test -d other/journal",
        "printf '1\\n' > data/orders.csv && sed -i 's/^source = .*/source = { type = \"jsonl\", path = \"data\\/orders.csv\" }/' topologies/orders.toml",
        "(cd src && leat run) 2>&1 | tail -n 2 > note.txt",
        "cd src && $(grep -o '`leat dlq list[^`]*`' ../note.txt | tr -d '`')",
    ];
    let printed = shell(&script.join("\n"), &mut folder, &dir.path().join("home"));
    for line in [r#"{"orders":1,"cents":250}"#, "told 0 bytes", "sent 2 = done 2 + dead-lettered 0 + in flight 0", "undecodable"]
    {
        assert!(printed.contains(line), "`{line}` is expected in:\n{printed}");
    }
    assert!(!dir.path().join("home").exists(), "nothing has gone to where nobody said");
}
