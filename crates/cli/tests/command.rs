//! What a person at a terminal sees of `leat`: streams, exit codes, drawings, diagnostics.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A project with one topology, in a folder of its own.
fn project(graph: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(dir.path().join("Project.toml"), "[project]\nname = \"shop\"\nmembers = [\"orders.toml\"]\n").expect("written");
    fs::write(dir.path().join("orders.toml"), format!("[[topology]]\nname = \"orders\"\ngraph = \"\"\"\n{graph}\n\"\"\"\n"))
        .expect("written");
    dir
}

fn leat(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leat"))
        .args(args)
        .current_dir(dir)
        .env_remove("LEAT_PROJECT")
        .env_remove("LEAT_DATA")
        .env_remove("LEAT_WORKSPACE")
        .env("LEATWORKS_HOME", dir.join("home"))
        .output()
        .expect("leat starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("leat prints UTF-8")
}

#[test]
fn each_kind_of_end_has_its_exit_code() {
    let good = project("flowchart LR\n  parse --> store");
    let bad = project("flowchart LR\n  parse --> store\n  store --> parse");
    let nowhere = tempfile::tempdir().expect("a temporary folder can be made");
    let cases: &[(&Path, &[&str], i32, &str)] = &[
        (good.path(), &["check"], 0, "Checked"),
        (good.path(), &["chekc"], 2, "check"),
        (good.path(), &[], 2, "Usage"),
        (bad.path(), &["check"], 3, "LW0"),
        (nowhere.path(), &["check"], 3, "no Project.toml"),
        (good.path(), &["graph", "orderz"], 4, "there are `orders`"),
        (good.path(), &["graph", "--write", "orders.toml", "--format", "svg"], 2, "Mermaid"),
        (good.path(), &["status"], 4, "no journal in"),
        (good.path(), &["trace", ID], 4, "no journal in"),
        (good.path(), &["dlq", "redrive", "--yes"], 4, "no journal in"),
        (good.path(), &["dlq", "drop", "--id", "", "--yes"], 2, "--id"),
        (good.path(), &["dlq", "drop", "--id", "019a", "--yes"], 2, "32 hexadecimal digits"),
        (good.path(), &["dlq", "drop", "--limit", "0", "--yes"], 2, "--limit"),
        (nowhere.path(), &["broker", "verify", "--dir", "."], 3, "holds no journal"),
        (good.path(), &["broker", "verify", "--dir", "orders.toml"], 3, "orders.toml"),
        (good.path(), &["broker", "--dir", "orders.toml"], 3, "`orders.toml` is a file"),
        (nowhere.path(), &["new", "mill", "--workspace", "."], 3, "is no checkout of Leatworks"),
        (good.path(), &["explain", "LW9999"], 4, "explain --list"),
        (good.path(), &["bench", "--messages", "0"], 2, "--messages"),
        (good.path(), &["bench", "--backlog", "5G"], 2, "50M"),
        (good.path(), &["bench", "--broker", "kafka://127.0.0.1:1"], 2, "pulsar://HOST:PORT"),
    ];
    for (dir, args, code, words) in cases {
        let output = leat(dir, args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?} says `{words}`: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}: messages belong on standard error");
    }
    assert!(!good.path().join("home").exists(), "looking makes no journal");
    assert!(!nowhere.path().join("mill").exists(), "what is refused makes no project");
}

/// An id that no message has.
const ID: &str = "019a5e8f3c1d7b2a90cfe1d24b6a8c30";

#[test]
fn a_way_that_cannot_be_ends_as_the_topologies_own_binaries_do() {
    let dir = project("flowchart LR\n  parse --> store");
    assert_eq!(leat(dir.path(), &["send", "orders", "1"]).status.code(), Some(0));
    for (url, words) in [("embeded", "did you mean `embedded`?"), ("memory", "lives inside its run")] {
        fs::write(dir.path().join("leat.toml"), format!("[broker]\nurl = \"{url}\"\n")).expect("written");
        for args in [&["status"][..], &["dlq", "list"], &["trace", ID], &["send", "orders", "1"]] {
            let output = leat(dir.path(), args);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{url} {args:?}: {stderr}");
            assert!(stderr.contains(words), "{url} {args:?}: {stderr}");
        }
    }
    fs::remove_file(dir.path().join("leat.toml")).expect("removed");
    let journal = dir.path().join("home/shop/journal");
    for entry in journal.read_dir().expect("listed") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("segment-") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    for args in [&["status"][..], &["trace", ID]] {
        let output = leat(dir.path(), args);
        assert_eq!(output.status.code(), Some(74), "{args:?}: {}", text(&output.stderr));
    }
    fs::remove_dir_all(&journal).expect("removed");
    fs::create_dir(&journal).expect("made");
    assert_eq!(leat(dir.path(), &["broker", "verify"]).status.code(), Some(3), "an empty folder is no sound journal");
    let above = leat(dir.path(), &["broker", "verify", "--dir", "home/shop"]);
    assert!(text(&above.stderr).contains("there is one in `home/shop/journal`"), "{}", text(&above.stderr));
}

#[test]
fn leat_toml_and_the_data_belong_to_the_project_from_wherever_the_command_is_typed() {
    let dir = project("flowchart LR\n  parse --> store");
    let (root, below) = (dir.path(), dir.path().join("src/deep"));
    let elsewhere = tempfile::tempdir().expect("a temporary folder can be made");
    fs::create_dir_all(&below).expect("made");
    fs::write(root.join("leat.toml"), "data = \"mine\"\n").expect("written");
    fs::write(below.join("two.jsonl"), "2\n3\n").expect("written");
    let root_name = root.to_str().expect("a temporary folder has a plain name");
    for (folder, args) in [
        (below.as_path(), &["send", "orders", "1"][..]),
        (&below, &["send", "orders", "-f", "two.jsonl"]),
        (root, &["send", "orders", "4"]),
        (elsewhere.path(), &["--project", root_name, "send", "orders", "5"]),
    ] {
        let output = leat(folder, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    assert!(root.join("mine/journal").is_dir());
    for (folder, args) in [
        (below.as_path(), &["status", "-o", "json"][..]),
        (root, &["status", "-o", "json"]),
        (elsewhere.path(), &["--project", root_name, "status", "-o", "json"]),
        // What is typed is meant from where it is typed.
        (&below, &["status", "-o", "json", "--data", "../../mine"]),
    ] {
        let output = leat(folder, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        assert_eq!(status[0]["sent"], 5, "{args:?}: {status}");
    }
    let resources = project("flowchart LR\n  parse --> store");
    fs::write(resources.path().join("leat.toml"), "[broker]\nurl = \"pulsar://pulsar.example:6650\"\n").expect("written");
    fs::write(elsewhere.path().join("over.yaml"), "orders: { image: \"shop:2\" }\n").expect("written");
    let name = resources.path().to_str().expect("a temporary folder has a plain name");
    let render = ["--project", name, "k8s", "render", "--image", "shop:1", "--overlay", "over.yaml"];
    let rendered = text(&leat(elsewhere.path(), &render).stdout);
    assert!(rendered.contains("pulsar://pulsar.example:6650") && rendered.contains("shop:2"), "{rendered}");
    let verified = leat(&below, &["broker", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stderr));
    assert!(!below.join("mine").exists() && !elsewhere.path().join("mine").exists());
}

#[test]
fn a_check_knows_the_names_that_the_configuration_may_say() {
    let dir = project("flowchart LR\n  parse --> store");
    for (file, code, words) in [
        ("[topology.orders.task.store]\ntimeout = \"5s\"", 0, "Checked"),
        ("[topology.order]\ndurability = \"power\"", 3, "unknown key `topology.order` in `leat.toml`; did you mean `orders`?"),
        ("[topology.mail]", 3, "unknown key `topology.mail` in `leat.toml`; known are `orders`"),
        ("[topology.orders.task.stroe]", 3, "did you mean `store`?"),
        ("[topology.orders.task.store]\nparallelism = 0", 3, "in `leat.toml`: `topology.orders.task.store.parallelism`: "),
    ] {
        fs::write(dir.path().join("leat.toml"), file).expect("written");
        for args in [&["check"][..], &["check", "--message-format", "json"]] {
            let output = leat(dir.path(), args);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{file}: {stderr}");
            assert!(stderr.contains(words) || (code == 0 && args.len() > 1), "{file}: {stderr}");
        }
    }
}

#[test]
fn a_new_project_says_where_its_crates_come_from() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let note = "until they are there, make it with --workspace";
    let made = leat(dir.path(), &["new", "mill", "--vcs", "none"]);
    assert!(made.status.success() && text(&made.stderr).contains(note), "{}", text(&made.stderr));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the crate lies in the repository");
    let path = dir.path().join("forge");
    let path = path.to_str().expect("a temporary folder has a plain name");
    let made = leat(&root, &["new", "forge", "--vcs", "none", "--workspace", ".", "--path", path]);
    assert!(made.status.success() && !text(&made.stderr).contains(note), "{}", text(&made.stderr));
    let manifest = fs::read_to_string(dir.path().join("forge/Cargo.toml")).expect("read");
    let runtime = root.join("crates/runtime");
    assert!(manifest.contains(&format!("path = \"{}\"", runtime.display())), "it holds in every folder: {manifest}");
}

#[test]
fn diagnostics_for_machines_are_json_lines_on_stdout() {
    let bad = project("flowchart LR\n  parse --> store\n  store --> parse");
    let output = leat(bad.path(), &["check", "--message-format", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line["code"].as_str().is_some_and(|code| code.starts_with("LW"))),
        "{lines:?}"
    );
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let bad = project("flowchart LR\n  parse --> store\n  store --> parse");
    let colored = |args: &[&str]| leat(bad.path(), args).stderr.contains(&0x1b);
    assert!(!colored(&["check"]), "no colour where there is no terminal");
    assert!(colored(&["check", "--color", "always"]));
    assert!(!colored(&["check", "--color", "never"]));
}

#[test]
fn every_form_of_drawing_has_every_task() {
    let dir = project("flowchart LR\n  parse --> store\n  parse --> score");
    for (format, sign) in [("mermaid", "-->"), ("dot", "digraph"), ("svg", "<svg"), ("text", "parse")] {
        let output = leat(dir.path(), &["graph", "--format", format]);
        let drawing = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{format}: {}", text(&output.stderr));
        for word in [sign, "parse", "store", "score"] {
            assert!(drawing.contains(word), "{format} shows `{word}`: {drawing}");
        }
    }
}

#[test]
fn a_drawing_is_written_into_a_page_and_checked_there() {
    let dir = project("flowchart LR\n  parse --> store");
    let page = dir.path().join("README.md");
    fs::write(&page, "# Shop\n<!-- leat graph orders -->\n<!-- leat end -->\nThe end.\n").expect("written");
    let write = &["graph", "orders", "--write", "README.md"];
    let check = &["graph", "orders", "--write", "README.md", "--check"];
    assert_eq!(leat(dir.path(), check).status.code(), Some(10), "an empty place differs");
    assert_eq!(leat(dir.path(), write).status.code(), Some(0));
    let written = fs::read_to_string(&page).expect("read");
    assert!(written.contains("```mermaid") && written.ends_with("The end.\n"), "{written}");
    assert_eq!(leat(dir.path(), check).status.code(), Some(0), "what was written is fresh");
    fs::write(&page, "# Shop\n").expect("written");
    assert_eq!(leat(dir.path(), write).status.code(), Some(3), "a page without a place is an error");
}

#[test]
fn every_code_can_be_explained() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let list = text(&leat(dir.path(), &["explain", "--list"]).stdout);
    assert!(list.lines().count() >= 20, "{list}");
    for line in list.lines() {
        let code = line.split_whitespace().next().expect("a line begins with its code");
        let output = leat(dir.path(), &["explain", code]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{code}");
    }
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&leat(dir.path(), &["completions", shell]).stdout);
        assert!(["graph", "redrive", "bench"].iter().all(|word| script.contains(word)), "{shell}");
    }
    assert!(leat(dir.path(), &["man", "--dir", "man"]).status.success());
    for page in ["leat.1", "leat-graph.1", "leat-dlq-redrive.1"] {
        assert!(dir.path().join("man").join(page).is_file(), "{page}");
    }
    assert!(text(&leat(dir.path(), &["man"]).stdout).contains(".TH leat"));
}

#[test]
fn every_command_shows_an_example() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for command in
        ["new", "check", "graph", "build", "run", "send", "status", "dlq", "explain", "bench", "completions", "man", "version"]
    {
        let help = text(&leat(dir.path(), &[command, "--help"]).stdout);
        assert!(help.contains("Examples:") && help.contains(&format!("leat {command}")), "{help}");
    }
}

#[test]
fn bench_accounts_for_every_message_and_has_every_key() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for (broker, has_disk) in [("memory", false), ("embedded", true)] {
        let output = leat(dir.path(), &["bench", "--messages", "500", "--rate", "50", "--broker", broker, "-o", "json", "-q"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        for key in [
            "messages",
            "throughput",
            "latency_ms",
            "peak_rss_bytes",
            "account",
            "disk_limit",
            "scale",
            "recovery",
            "backlog",
            "http",
        ] {
            assert!(result.get(key).is_some(), "`{key}` is missing in {result}");
        }
        let account = &result["account"];
        assert_eq!(
            (&account["sent"], &account["dead_lettered"], &account["in_flight"]),
            (&account["done"], &0.into(), &0.into()),
            "{result}"
        );
        let throughputs = if has_disk { 2 } else { 1 };
        assert_eq!(
            account["sent"],
            throughputs * 500 + 50 * 5,
            "with and without elision, and five seconds of latency: {result}"
        );
        assert_eq!(result["throughput"]["ratio_to_limit"].is_number(), has_disk, "{result}");
        let targets = result["targets"].as_array().expect("an array");
        assert!(!targets.is_empty(), "{result}");
        let hops = result["http"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(hops.len(), if has_disk { 0 } else { 2 }, "one for each form: {result}");
        assert!(hops.iter().all(|hop| hop["rate"]["per_s"].as_f64().is_some_and(|rate| rate > 0.0)), "{result}");
        for target in targets {
            let (figure, limit) = (target["figure"].as_f64().expect("a figure"), target["target"].as_f64().expect("a target"));
            let met = if target["comparison"] == "at least" { figure >= limit } else { figure <= limit };
            assert_eq!(target["met"], met, "{target}");
            assert_eq!(target["profile"].is_null(), met, "what is missed says what was busy: {target}");
        }
        assert!(fs::read_dir(dir.path()).expect("read").next().is_none(), "nothing is left behind");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for args in [&["man"][..], &["completions", "zsh"], &["explain", "--list"], &["version"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_leat"))
            .args(args)
            .current_dir(dir.path())
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn();
        let output = output.expect("leat starts").wait_with_output().expect("leat ends");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()), "{args:?}");
    }
}
