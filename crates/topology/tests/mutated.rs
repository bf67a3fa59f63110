//! Whatever stands in the files of a project: loading gives a project or diagnostics with true places, and comes to an end.

use std::collections::BTreeMap;

use leatworks_topology::{Diagnostics, draw, load_from};
use proptest::prelude::*;

const PROJECT: &str = "[project]\nname = \"shop\"\ndescription = \"sells\"\nmembers = [\"a.toml\", \"b/c.toml\"]\n";

/// Holds something of everything, so that few mutations miss.
const MEMBER: &str = r##"# A comment.
[project]
name = "seed"

[[topology]]
name = "email-pipeline"
description = "Größe 😀"
mod = "tasks"
codec = "messagepack"
graph = """
%% what it does
flowchart LR
    start([Start]) --> fetch-users[("Users ü")] & other{"x"}
    fetch-users -- mail --> send(Send):::hot
    fetch-users -->|skipped| record["one<br/>two #quot;q#quot;"]
    subgraph outer [Outer 📬]
      direction TB
      subgraph inner
        send ---> record
      end
    end
    other --> record; classDef hot fill:#f9f,stroke:#333
    style outer fill:#eee
    linkStyle 0,1 stroke:#f00
    class send,record hot
"""

[[topology.task]]
name = "start"
source = { type = "lines", path = "-" }

[[topology.task]]
name = "fetch-users"
type = "mail::Fetch"
ends = ["late"]
retry = { attempts = 5, backoff = "200ms", max_backoff = "30s" }
timeout = "10s"
parallelism = 8

[[topology.task]]
name = "record"
sink = { type = "jsonl", path = "out.jsonl" }
"##;

/// Strings of the other kinds, with escapes.
const ESCAPED: &str = "[[topology]]\nname = 'second'\ngraph = \"a2[\\\"Gr\\u00f6\\U0001F600\\\"] -->|x| b2\\n\\ta2 -->|y| \\\\\\\\ \\x41\"\n\
                       [[topology]]\nname = \"\"\"\\\n  third\"\"\"\ngraph = '''\nx-3 --> y-3'''\n";

/// Pieces that mean something to one of the parsers.
const PIECES: [&str; 48] = [
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\\u",
    "\\n",
    "\n",
    "\r",
    "\r\n",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "(",
    ")",
    "=",
    "|",
    "-->",
    "--",
    "-",
    "->",
    "-.->",
    "==>",
    "~~~",
    "<-->",
    "&",
    ";",
    "%%",
    "%%{",
    "}%%",
    ":::",
    "@{",
    "subgraph x",
    "end",
    "direction LR",
    "class ",
    "style ",
    "linkStyle ",
    "classDef ",
    "é",
    "😀",
    "\u{202e}",
    "\u{0}",
    "```",
    "#35;",
];

/// A change of a text at some place.
#[derive(Clone, Debug)]
enum Change {
    Insert(usize, usize),
    Delete(usize, usize),
    Double(usize, usize),
    Cut(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..10_000usize;
    prop_oneof![
        4 => (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        3 => (at.clone(), 1..30usize).prop_map(|(at, len)| Change::Delete(at, len)),
        2 => (at.clone(), 1..80usize).prop_map(|(at, len)| Change::Double(at, len)),
        1 => at.clone().prop_map(Change::Cut),
        2 => (at.clone(), at).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn apply(text: &mut String, change: &Change) {
    let place = |at: usize| text.floor_char_boundary(at % (text.len() + 1));
    match *change {
        Change::Insert(at, piece) => text.insert_str(place(at), PIECES[piece]),
        Change::Delete(at, len) => {
            let range = place(at)..text.ceil_char_boundary((place(at) + len).min(text.len()));
            text.replace_range(range, "");
        }
        Change::Double(at, len) => {
            let piece = text[place(at)..text.ceil_char_boundary((place(at) + len).min(text.len()))].to_owned();
            text.insert_str(place(at), &piece);
        }
        Change::Cut(at) => text.truncate(place(at)),
        Change::Swap(one, other) => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            if !lines.is_empty() {
                let (one, other) = (one % lines.len(), other % lines.len());
                lines.swap(one, other);
            }
            *text = lines.concat();
        }
    }
}

/// Loads and looks at everything that comes of it.
fn survives(files: &BTreeMap<String, String>) {
    match load_from(files) {
        Ok(project) => {
            for topology in project.topologies() {
                assert!(topology.roots().next().is_some(), "{} has no root", topology.name());
                draw::mermaid(topology);
                draw::dot(topology);
            }
        }
        Err(diagnostics) => places_are_true(files, &diagnostics),
    }
}

fn places_are_true(files: &BTreeMap<String, String>, diagnostics: &Diagnostics) {
    assert!(diagnostics.found() > 0 && !diagnostics.list().is_empty());
    for label in diagnostics.iter().flat_map(|diagnostic| diagnostic.labels()) {
        let text = &files[label.file()];
        let before = text.get(..label.span().start).expect("a label starts at a character of its file");
        assert!(text.get(label.span()).is_some(), "a label ends at a character of its file");
        assert_eq!(label.line(), before.matches('\n').count() + 1);
    }
    assert!(diagnostics.render(false).contains("leat explain LW"));
    assert!(diagnostics.render(true).contains("leat explain LW"));
}

fn files(project: String, member: String, escaped: String) -> BTreeMap<String, String> {
    [("Project.toml", project), ("a.toml", member), ("b/c.toml", escaped)]
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text))
        .collect()
}

#[test]
fn the_seed_is_in_order_but_for_its_escapes() {
    let first =
        load_from(&files(PROJECT.replace(", \"b/c.toml\"", ""), MEMBER.replace("-- mail -->", "-->|mail|"), String::new()));
    assert_eq!(first.expect("the first member has nothing wrong").topologies().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_members_never_panic(changes in prop::collection::vec(change(), 1..6), which in 0..3usize) {
        let mut texts = [PROJECT.to_owned(), MEMBER.to_owned(), ESCAPED.to_owned()];
        changes.iter().for_each(|change| apply(&mut texts[which], change));
        let [project, member, escaped] = texts;
        survives(&files(project, member, escaped));
    }

    #[test]
    fn graphs_of_any_pieces_never_panic(pieces in prop::collection::vec(prop_oneof![
        prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned), "[a-d]", " ", "[ -~]{1,4}", "\\PC{1,3}",
    ], 0..60)) {
        let graph: String = pieces.concat().chars().flat_map(char::escape_unicode).collect::<String>().replace("\\u{", "\\U{");
        // TOML wants eight digits and no braces.
        let graph: String = graph.split("\\U{").skip(1).map(|code| format!("\\U{:0>8}", code.trim_end_matches('}'))).collect();
        let member = format!("[[topology]]\nname = \"any\"\ngraph = \"{graph}\"\n");
        survives(&files(PROJECT.replace(", \"b/c.toml\"", ""), member, String::new()));
    }
}

/// Files that would take hours if anything took time in the square of their size; as it is they take well under a second each.
#[test]
fn hostile_files_come_to_an_end() {
    const SIZE: usize = 1 << 16;
    let graph = |statement: &str, separator: &str| {
        let repeated = format!("{statement}{separator}").repeat(SIZE / (statement.len() + separator.len()));
        format!("[[topology]]\nname = \"any\"\ngraph = '''\n{repeated}\n'''\n")
    };
    let statements = [
        "a",
        "a --> b",
        "a -- x --> b",
        "a -- x",
        "a -. x",
        "a == x",
        "a-->|x",
        "a((x))",
        "a((x",
        "a[x",
        "a[\"x",
        "a>x",
        "a@{x",
        "%%{x}%%",
        "%%{x",
        "%%",
        "a %% x",
        "subgraph x",
        "subgraph",
        "end",
        "direction",
        "style a x:y",
        "style a '",
        "linkStyle 0 a:b",
        "class a b",
        "a:::x",
        "a:::",
        "x--x",
        "-->",
        "a & ",
        "a & b --> c & d",
        "```",
        "graph",
        "click",
        "\u{200b}",
        "é",
        "a b",
        "(",
        "#",
        "---",
        "a -->",
        "a <-- b",
        "a e@--> b",
    ];
    for statement in statements {
        for separator in [";", "\n", " ", ""] {
            survives(&files(PROJECT.replace(", \"b/c.toml\"", ""), graph(statement, separator), String::new()));
        }
    }
    let numbered: String = (0..12_000).map(|n| format!("a{n} --> b{n}\n")).collect();
    let boxes: String = (0..12_000).map(|n| format!("subgraph s{n}\nend\n")).collect();
    let group: String = (0..12_000).map(|n| format!("a{n} & ")).collect::<String>() + "z --> x & y";
    let fan: String = (0..3_000).map(|n| format!("a{n} & ")).collect::<String>() + "z --> " + &"a1 & ".repeat(3_000) + "y";
    let loops: String = (0..4_000).map(|n| format!("a{n} --> b{n} --> a{n}\n")).collect();
    let ring: String = (0..9_000).map(|n| format!("a{n} --> a{}\n", (n + 1) % 9_000)).collect();
    for graph in [numbered, boxes, group, fan, loops, ring] {
        let member = format!("[[topology]]\nname = \"any\"\ngraph = '''\n{graph}\n'''\n");
        survives(&files(PROJECT.replace(", \"b/c.toml\"", ""), member, String::new()));
    }
    let declared: String = (0..SIZE / 40).map(|n| format!("[[topology.task]]\nname = \"task-{n}\"\n")).collect();
    let topologies: String =
        (0..SIZE / 50).map(|n| format!("[[topology]]\nname = \"t{n}\"\ngraph = \"a{n} --> b{n}\"\n")).collect();
    let ends: String = (0..SIZE / 8).map(|n| format!("\"e{n}\",")).collect();
    for member in [
        format!("[[topology]]\nname = \"any\"\ngraph = \"a --> b\"\n{declared}"),
        topologies,
        format!("[[topology]]\nname = \"any\"\ngraph = \"a -->|x| b\"\n[[topology.task]]\nname = \"a\"\nends = [{ends}]\n"),
        "[".repeat(SIZE),
        format!("a = {}", "[".repeat(SIZE)),
        format!("a = {}", "{ a = ".repeat(SIZE / 6)),
        "a.".repeat(SIZE / 2),
        "\"".repeat(SIZE),
        format!("{} = 1", "x".repeat(SIZE)),
        (0..SIZE / 12).map(|n| format!("key{n} = 1\n")).collect(),
        (0..SIZE / 12).map(|n| format!("k{n} = ]\n")).collect(),
        format!("[[topology]]\nname = \"{}\"\ngraph = \"{}\"\n", "x".repeat(SIZE), "\\u0041".repeat(SIZE / 6)),
    ] {
        survives(&files(PROJECT.replace(", \"b/c.toml\"", ""), member, String::new()));
    }
    let members: String = (0..SIZE / 16).map(|n| format!("\"m{n}.toml\",")).collect();
    survives(&files(format!("[project]\nname = \"shop\"\nmembers = [{members}]\n"), String::new(), String::new()));
}
