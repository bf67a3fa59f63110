//! Generated code as text: it is what it was, it is the same each time, and no text of a user becomes code.

mod support;

use leatworks_build::{Generated, Package, generate};
use std::path::Path;
use support::{expect_file, file, generated, project};

#[test]
fn generated_code_is_what_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let generated = generated(include_str!("golden/every-kind.toml"));
    expect_file(&folder.join("every-kind.rs"), file(&generated, "topologies.rs"));
    expect_file(&folder.join("every-kind.main.rs"), file(&generated, "every-kind.rs"));
}

#[test]
fn the_documentation_shows_the_flowchart() {
    let generated = generated(include_str!("golden/every-kind.toml"));
    let page = file(&generated, "every-kind.md");
    assert!(
        page.starts_with("One task of each kind, and names that Rust keeps for itself.\n\n```mermaid\nflowchart LR\n    lines"),
        "{page}"
    );
    assert!(page.contains("    sum & sum-odd --> keep[(file)]\n```\n\n```text\n"), "{page}");
}

#[test]
fn the_same_project_gives_the_same_bytes() {
    let member = include_str!("golden/every-kind.toml");
    let first = generated(member);
    for _ in 0..20 {
        // Loaded anew each time: maps that are hashed differ in their order from one to the next.
        assert_eq!(generated(member), first);
    }
}

/// Texts that would be code, or end a literal, a comment or a fence, if they were written as they are.
const HOSTILE: &[&str] = &[
    "\"#",
    "\"##\"",
    "*/",
    "/*",
    "\"; panic!() //",
    "\")] fn evil() {} #[doc(\"",
    "'); std::process::exit(1); ('",
    "{{project}} {{{{raw}}}} {{/each}}",
    "${PATH} $(reboot) `reboot`",
    "```\nfn evil() {}\n```",
    "//! inner",
    "/// outer",
    "#![no_std]",
    "a\\",
    "\\u{0}",
    "line\nbreak\r\nand\rreturn",
    "\u{202e}gnp.exe\u{2066}",
    "\u{feff}\u{200b}\u{2028}\u{2029}",
    "żółw 🐢 \u{1f468}\u{200d}\u{1f469}",
    "\u{1b}[31mred",
    "<script>alert(1)</script> & &amp; \"quoted\"",
];

/// A member file in which three texts of a user stand: a description, an option of a source, and words in the graph.
fn member(description: &str, option: &str, in_graph: &str) -> String {
    let graph = format!(
        "flowchart LR\n  %% {in_graph}\n  subgraph box[\"{in_graph}\"]\n  a[\"{in_graph}\"] --> b\n  end\n  b -->|\"label\"| c\n"
    );
    format!(
        "[[topology]]\nname = \"demo\"\ndescription = {}\ngraph = {}\n\
         [[topology.task]]\nname = \"a\"\nsource = {{ type = \"lines\", path = {option} }}\n\
         [[topology.task]]\nname = \"c\"\nsink = {{ type = \"jsonl\", path = {option} }}\n",
        toml_string(description),
        toml_string(&graph),
        option = toml_string(option),
    )
}

/// The code of a member file, unless the project is refused, which is as good.
fn code(member: &str, version: &str) -> Option<Generated> {
    let package = Package { library: "demo".to_owned(), version: version.to_owned() };
    Some(generate(&project(member).ok()?, &package).unwrap_or_else(|error| panic!("{error}")))
}

fn plain() -> Vec<String> {
    skeleton(file(&generated(&member("plain", "plain", "plain")), "topologies.rs"))
}

/// The hostile texts at each place, as far as they are possible there.
fn hostile_codes() -> Vec<(String, Generated)> {
    let mut codes = Vec::new();
    for text in HOSTILE {
        for (place, member) in [
            ("description", member(text, "plain", "plain")),
            ("option", member("plain", text, "plain")),
            ("graph", member("plain", "plain", text)),
        ] {
            codes.extend(code(&member, text).map(|code| (format!("{text:?} as {place}"), code)));
        }
    }
    codes
}

fn toml_string(text: &str) -> String {
    let mut string = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => string.push_str("\\\""),
            '\\' => string.push_str("\\\\"),
            c if c.is_control() => string.push_str(&format!("\\u{:04X}", c as u32)),
            c => string.push(c),
        }
    }
    string + "\""
}

/// The code without its literals and documentation: what is left must not depend on any text.
fn skeleton(code: &str) -> Vec<String> {
    let tokens: proc_macro2::TokenStream = code.parse().unwrap_or_else(|error| panic!("{error}\n{code}"));
    let mut words = Vec::new();
    strip(tokens, &mut words);
    words
}

fn strip(tokens: proc_macro2::TokenStream, words: &mut Vec<String>) {
    use proc_macro2::TokenTree;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' && tokens.peek().is_some_and(is_doc) => {
                tokens.next();
            }
            TokenTree::Group(group) => {
                words.push(format!("{:?}", group.delimiter()));
                strip(group.stream(), words);
                words.push("end".to_owned());
            }
            TokenTree::Literal(_) => words.push("literal".to_owned()),
            other => words.push(other.to_string()),
        }
    }
}

fn is_doc(token: &proc_macro2::TokenTree) -> bool {
    matches!(token, proc_macro2::TokenTree::Group(group) if group.stream().to_string().starts_with("doc ="))
}

#[test]
fn no_text_becomes_code() {
    let (plain, codes) = (plain(), hostile_codes());
    for place in ["description", "option", "graph"] {
        let possible = codes.iter().filter(|(case, _)| case.ends_with(place)).count();
        assert!(possible >= HOSTILE.len() / 2, "only {possible} of the texts are possible as {place}");
    }
    for (case, code) in &codes {
        assert_eq!(skeleton(file(code, "topologies.rs")), plain, "{case}");
    }
}

#[test]
fn hidden_characters_never_stand_in_generated_code() {
    let hidden = |c: &char| {
        c.is_control() && *c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    for (case, code) in hostile_codes() {
        for file in code.files.iter().filter(|file| file.name.ends_with(".rs") || file.name.ends_with(".md")) {
            assert_eq!(file.text.chars().find(hidden), None, "{case} in {}", file.name);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_description_is_only_a_text(text in "\\PC{0,60}|[\"#*/\\\\{}`\n\t]{0,20}") {
        if let Some(code) = code(&member(&text, &text, "plain"), &text) {
            proptest::prop_assert_eq!(skeleton(file(&code, "topologies.rs")), plain());
        }
    }
}
