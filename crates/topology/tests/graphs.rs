//! Graphs in the many ways that people write them.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use leatworks_topology::{Diagnostics, Project, StyleRule, Topology, load_from};

fn compile(graph: &str) -> Result<Project, Diagnostics> {
    let member = format!("[[topology]]\nname = \"the-topology\"\ngraph = '''\n{graph}'''\n");
    load_from(&[("Project.toml", "[project]\nname = \"shop\"\nmembers = [\"member.toml\"]\n"), ("member.toml", &member)])
}

/// What was understood, in a few words: direction, edges with lengths, texts and classes, boxes, styles.
fn understood(topology: &Topology) -> String {
    let mut out = format!("{}:", topology.direction().as_str());
    for edge in topology.edges() {
        let _ = write!(out, " {}{}", edge.id(), "+".repeat(edge.length() - 1));
    }
    for task in topology.tasks() {
        let classes: String = task.classes().iter().map(|class| format!(":::{class}")).collect();
        if task.text().is_some() || !classes.is_empty() || topology.edges().is_empty() {
            let _ = write!(out, "; {}{classes} {:?} {:?}", task.name(), task.shape(), task.text().unwrap_or_default());
        }
    }
    for drawn in topology.subgraphs() {
        let tasks: Vec<&str> = drawn.tasks().iter().map(|task| task.as_str()).collect();
        let parent = drawn.parent().map(|parent| format!(" in {}", topology.subgraphs()[parent].id())).unwrap_or_default();
        let direction = drawn.direction().map(|direction| format!(" {}", direction.as_str())).unwrap_or_default();
        let title = drawn.title().map(|title| format!(" {title:?}")).unwrap_or_default();
        let _ = write!(out, "; box {}{title}{direction}{parent} [{}]", drawn.id(), tasks.join(" "));
    }
    for style in topology.styles() {
        let _ = match style {
            StyleRule::ClassDef { classes, css } => write!(out, "; classDef {} {css}", classes.join(",")),
            StyleRule::Class { nodes, class } => write!(out, "; class {} {class}", nodes.join(",")),
            StyleRule::Style { nodes, css } => write!(out, "; style {} {css}", nodes.join(",")),
            StyleRule::LinkStyle { edges, css } => write!(out, "; linkStyle {edges:?} {css}"),
        };
    }
    out
}

/// The cases of the file: a name, a graph, and behind `=>` what is understood.
fn cases(text: &str) -> Vec<(String, String, String)> {
    let blocks = text.split("### ").filter(|block| !block.trim().is_empty());
    let cases = blocks.map(|block| {
        let (name, rest) = block.split_once('\n').expect("a case has a name");
        let (graph, expected) = rest.split_once("\n=> ").unwrap_or((rest.trim_end(), ""));
        (name.to_owned(), graph.to_owned(), expected.trim_end().to_owned())
    });
    cases.collect()
}

/// Every graph, with line breaks of both kinds, with and without one at the end, is understood as the file says.
#[test]
fn graphs_are_understood_as_drawn() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/graphs.txt");
    let text = fs::read_to_string(&path).expect("there is a file of graphs").replace("\r\n", "\n");
    let cases = cases(&text);
    assert!(cases.len() >= 60, "only {} graphs", cases.len());
    let mut blessed = String::new();
    for (name, graph, expected) in &cases {
        let mut seen = Vec::new();
        for graph in [graph.clone(), format!("{graph}\n"), graph.replace('\n', "\r\n"), format!("{graph}\n\n  ")] {
            let project = compile(&graph).unwrap_or_else(|diagnostics| panic!("{name}:\n{diagnostics}"));
            seen.push(understood(&project.topologies()[0]).replace("\\r\\n", "\\n"));
        }
        let _ = write!(blessed, "### {name}\n{graph}\n=> {}\n\n", seen[0]);
        if std::env::var_os("LEAT_BLESS").is_none() {
            assert!(seen.iter().all(|seen| seen == expected), "{name}:\n{graph}\nexpected {expected}\nbut got  {seen:#?}");
        }
    }
    if std::env::var_os("LEAT_BLESS").is_some() {
        fs::write(path, blessed).expect("the file can be written");
    }
}

/// A thousand tasks in the shapes that are hardest on an algorithm: a chain, a star, layers.
#[test]
fn a_thousand_tasks() {
    let chain: String = (1..1000).map(|n| format!("t{} --> t{n}\n", n - 1)).collect();
    let star: String = (1..1000).map(|n| format!("t0 --> t{n}\n")).collect();
    let layers: String =
        (0..990).map(|n| format!("t{n}[Task {n}] --> t{} & t{}\n", n + 10, n - n % 10 + 10 + (n + 1) % 10)).collect();
    let backwards: String = (1..1000).rev().map(|n| format!("t{} --> t{n}\n", n - 1)).collect();
    for (graph, edges) in [(chain, 999), (star, 999), (layers, 1980), (backwards, 999)] {
        let project = compile(&graph).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let topology = &project.topologies()[0];
        assert_eq!((topology.tasks().len(), topology.edges().len()), (1000, edges));
        let place = |name: &str| topology.tasks().iter().position(|task| *task.name() == name);
        for edge in topology.edges() {
            assert!(place(edge.from().as_str()) < place(edge.to().as_str()), "{} is out of order", edge.id());
        }
    }
}

/// What Mermaid draws and a topology has no use for is refused with the code and the words for it.
#[test]
fn foreign_things_are_refused_by_name() {
    let mut wrong = Vec::new();
    for (graph, code, words) in [
        ("a --- b", "LW0102", "without an arrowhead"),
        ("a ---- b", "LW0102", "without an arrowhead"),
        ("a -- text --- b", "LW0102", "without an arrowhead"),
        ("a ---|text| b", "LW0102", "without an arrowhead"),
        ("a -.-> b", "LW0102", "dotted arrow"),
        ("a -..-> b", "LW0102", "dotted arrow"),
        ("a -. text .-> b", "LW0102", "dotted arrow"),
        ("a -.->|text| b", "LW0102", "dotted arrow"),
        ("a -.- b", "LW0102", "dotted link"),
        ("a ==> b", "LW0102", "thick arrow"),
        ("a == text ==> b", "LW0102", "thick arrow"),
        ("a === b", "LW0102", "thick link"),
        ("a --o b", "LW0102", "with a circle"),
        ("a o--o b", "LW0102", "with a circle"),
        ("a --x b", "LW0102", "with a cross"),
        ("a x--x b", "LW0102", "with a cross"),
        ("a <--> b", "LW0102", "two heads"),
        ("a <-- b", "LW0102", "arrow to the left"),
        ("a ~~~ b", "LW0102", "invisible link"),
        ("a e1@--> b", "LW0102", "ids of edges"),
        ("a -> b", "LW0102", "`->` is no arrow"),
        ("a => b", "LW0102", "`=>` is no arrow"),
        ("a → b", "LW0102", "`→` is no arrow"),
        ("a -->> b", "LW0102", "`-->>` is no arrow"),
        ("a —> b", "LW0102", "`—>` is no arrow"),
        ("a((Text)) --> b", "LW0103", "a circle"),
        ("a(((Text))) --> b", "LW0103", "a double circle"),
        ("a>Text] --> b", "LW0103", "a flag"),
        ("a{{Text}} --> b", "LW0103", "a hexagon"),
        ("a[/Text/] --> b", "LW0103", "parallelogram"),
        ("a[\\Text\\] --> b", "LW0103", "parallelogram"),
        ("a[/Text\\] --> b", "LW0103", "trapezoid"),
        ("a[[Text]] --> b", "LW0103", "subroutine"),
        ("a(-Text-) --> b", "LW0103", "ellipse"),
        ("a@{ shape: rect } --> b", "LW0103", "a shape by its name"),
        ("a --> b\nclick a href \"https://example.org\"", "LW0104", "click"),
        ("a --> b\naccTitle: Title", "LW0104", "accTitle"),
        ("accDescr: Words\na --> b", "LW0104", "accDescr"),
        ("direction LR\na --> b", "LW0104", "direction"),
        ("graph TD\na --> b\ngraph LR\nb --> c", "LW0104", "second header"),
        ("```mermaid\na --> b\n```", "LW0104", "fence"),
        ("sequenceDiagram\na ->> b: hi", "LW0105", "sequence diagram"),
        ("stateDiagram-v2\n[*] --> a", "LW0105", "state diagram"),
        ("erDiagram\na ||--o{ b : has", "LW0105", "entity relationship"),
        ("gantt\ntitle A", "LW0105", "Gantt"),
        ("pie title Pets\n\"a\" : 1", "LW0105", "pie chart"),
        ("mindmap\n  root", "LW0105", "mind map"),
        ("%%{init: {\"theme\": \"dark\"}}%%\na --> b", "LW0106", "directives"),
        ("---\ntitle: A\n---\nflowchart LR\na --> b", "LW0106", "front matter"),
        ("a[\"`**bold**`\"] --> b", "LW0107", "Markdown"),
        ("a --> s\nsubgraph s\nb --> c\nend", "LW0111", "subgraph"),
        ("s --> a\nsubgraph s\nb --> c\nend", "LW0111", "subgraph"),
        ("graph lr\na --> b", "LW0112", "`LR`"),
        ("graph XY\na --> b", "LW0112", "`TB`"),
        ("a --> b\nlinkStyle 0 interpolate basis stroke:#f00", "LW0114", "does not belong"),
        ("a --> b\nstyle a fill:url(https://example.org)", "LW0114", "does not belong"),
        ("a --> b\nlinkStyle 1 stroke:#f00", "LW0114", "no edge 1"),
        ("a --> b\nstyle a,b fill:#f00", "LW0114", "one task"),
    ] {
        let diagnostics = compile(graph).expect_err(graph);
        let rendered = diagnostics.to_string();
        let found = diagnostics.iter().any(|diagnostic| diagnostic.code() == code);
        if !found || !rendered.contains(words) {
            wrong.push(format!("{graph:?} should be {code} with {words:?}:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What cannot be read is said once, in words that help, and does not drag other errors along.
#[test]
fn mistakes_are_reported_once() {
    let mut wrong = Vec::new();
    for (graph, code, words) in [
        ("a --> b c", "LW0101", "begin a new line"),
        ("a [Text] --> b", "LW0101", "without a blank"),
        ("a --> b %% why", "LW0101", "line of its own"),
        ("a --> b; %% why", "LW0101", "line of its own"),
        ("a[Text (more)] --> b", "LW0101", "in quotes"),
        ("a -->", "LW0101", "leads nowhere"),
        ("--> b", "LW0101", "begins nowhere"),
        ("a & --> b", "LW0101", "no task behind `&`"),
        ("graph LR a --> b", "LW0101", "more text"),
        ("a -->|| b", "LW0101", "empty"),
        ("a -- x -->|y| b", "LW0101", "two labels"),
        ("a:::  --> b", "LW0101", "no class"),
        ("a -- text b", "LW0108", "no arrow behind it"),
        ("a -->|text b", "LW0108", "no closing `|`"),
        ("a[\"Text] --> b", "LW0108", "quoted text"),
        ("a(Text", "LW0108", "never closed"),
        ("subgraph\na --> b\nend", "LW0108", "neither id nor title"),
        ("subgraph s [Title\na --> b\nend", "LW0108", "no closing `]`"),
        ("a --> b\nend", "LW0109", "ends nothing"),
        ("subgraph s\na --> b", "LW0109", "no `end`"),
        ("a --> a", "LW0301", "sends to itself"),
        ("a --> b & b", "LW0305", "drawn twice"),
        ("a&b --> c", "LW0401", "blanks around `&`"),
        ("fetch_users --> b", "LW0401", "`fetch-users`"),
        ("a.b --> c", "LW0401", "has `.`"),
        ("größe --> b", "LW0401", "has `ö`"),
        ("a --> end", "LW0405", "keyword in Mermaid"),
        ("a --> style-it", "LW0405", "keyword in Mermaid"),
        ("build --> b", "LW0405", "Cargo"),
        ("a --> nul", "LW0405", "Windows"),
    ] {
        let diagnostics = compile(graph).expect_err(graph);
        let rendered = diagnostics.to_string();
        let first = &diagnostics.list()[0];
        if diagnostics.found() != 1 || first.code() != code || !rendered.contains(words) {
            wrong.push(format!("{graph:?} should be {code} alone, with {words:?}:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
