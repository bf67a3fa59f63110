//! Mermaid: the graph in one canonical form.

use std::fmt::Write as _;

use super::figure::{Figure, Node};
use crate::{Shape, StyleRule};

/// Writes the graph. Reading it gives the same nodes in the same order, the same edges in the same order, and the same looks.
pub(super) fn write(figure: &Figure) -> String {
    let mut out = format!("flowchart {}\n", figure.direction.as_str());
    let declared = declared(figure);
    for (node, declared) in figure.nodes.iter().zip(&declared) {
        if *declared {
            // Mermaid takes one class behind a node, so each further one gets a line of its own.
            let mut classes = node.classes.iter();
            let class = classes.next().map_or(String::new(), |class| format!(":::{class}"));
            let _ = writeln!(out, "    {}{}{class}", node.id, outline(node));
            for class in classes {
                let _ = writeln!(out, "    {}:::{class}", node.id);
            }
        }
    }
    write_groups(&mut out, figure, None, 1);
    for link in &figure.links {
        let (from, to) = (&figure.nodes[link.from].id, &figure.nodes[link.to].id);
        let arrow = format!("-{}>", "-".repeat(link.length.max(1)));
        let _ = match &link.label {
            Some(label) => writeln!(out, "    {from} {arrow}|{label}| {to}"),
            None => writeln!(out, "    {from} {arrow} {to}"),
        };
    }
    for rule in &figure.rules {
        write_rule(&mut out, rule);
    }
    out
}

/// Which nodes get a line of their own: those with a text, a shape, classes or no edge, and all of them where the order in which the
/// rest mentions them would be another.
fn declared(figure: &Figure) -> Vec<bool> {
    let mut declared: Vec<bool> = figure
        .nodes
        .iter()
        .map(|node| node.text.is_some() || node.shape != Shape::default() || !node.classes.is_empty())
        .collect();
    let mut seen = declared.clone();
    let mut mentioned: Vec<usize> = (0..seen.len()).filter(|&node| seen[node]).collect();
    let mut mention = |node: usize| {
        if !std::mem::replace(&mut seen[node], true) {
            mentioned.push(node);
        }
    };
    in_groups(figure, None, &mut mention);
    figure.links.iter().flat_map(|link| [link.from, link.to]).for_each(mention);
    if !mentioned.iter().copied().eq(0..figure.nodes.len()) {
        declared.fill(true);
    }
    declared
}

/// Visits the nodes of groups in the order in which [`write_groups`] writes them.
fn in_groups(figure: &Figure, parent: Option<usize>, visit: &mut impl FnMut(usize)) {
    for (index, group) in figure.groups.iter().enumerate().filter(|(_, group)| group.parent == parent) {
        group.members.iter().for_each(|&node| visit(node));
        in_groups(figure, Some(index), visit);
    }
}

fn write_groups(out: &mut String, figure: &Figure, parent: Option<usize>, depth: usize) {
    let indent = "    ".repeat(depth);
    for (index, group) in figure.groups.iter().enumerate().filter(|(_, group)| group.parent == parent) {
        let title = group.title.as_ref().map_or(String::new(), |title| format!(" [\"{}\"]", escape(title)));
        let _ = writeln!(out, "{indent}subgraph {}{title}", group.id);
        if let Some(direction) = group.direction {
            let _ = writeln!(out, "{indent}    direction {}", direction.as_str());
        }
        for &member in &group.members {
            let _ = writeln!(out, "{indent}    {}", figure.nodes[member].id);
        }
        write_groups(out, figure, Some(index), depth + 1);
        let _ = writeln!(out, "{indent}end");
    }
}

fn outline(node: &Node) -> String {
    let (open, close) = match node.shape {
        Shape::Rectangle => ("[", "]"),
        Shape::Rounded => ("(", ")"),
        Shape::Diamond => ("{", "}"),
        Shape::Stadium => ("([", "])"),
        Shape::Cylinder => ("[(", ")]"),
    };
    if node.text.is_none() && node.shape == Shape::default() {
        return String::new();
    }
    format!("{open}\"{}\"{close}", escape(node.caption()))
}

fn write_rule(out: &mut String, rule: &StyleRule) {
    let _ = match rule {
        StyleRule::ClassDef { classes, css } => writeln!(out, "    classDef {} {css}", classes.join(",")),
        StyleRule::Class { nodes, class } => writeln!(out, "    class {} {class}", nodes.join(",")),
        StyleRule::Style { nodes, css } => writeln!(out, "    style {} {css}", nodes.join(",")),
        StyleRule::LinkStyle { edges, css } if edges.is_empty() => writeln!(out, "    linkStyle default {css}"),
        StyleRule::LinkStyle { edges, css } => {
            let edges: Vec<String> = edges.iter().map(usize::to_string).collect();
            writeln!(out, "    linkStyle {} {css}", edges.join(","))
        }
    };
}

/// A text between quotes: as it is, but for what would end it or be read as something else. Blanks at its ends would be trimmed.
fn escape(text: &str) -> String {
    let inner = text.trim();
    let before = text.len() - text.trim_start().len();
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let rest = &text[at..];
        let outside = at < before || at >= before + inner.len();
        match c {
            '\n' => out.push_str("<br>"),
            '"' => out.push_str("#quot;"),
            '#' if looks_like_code(rest) => out.push_str("#35;"),
            '<' if rest.get(1..3).is_some_and(|tag| tag.eq_ignore_ascii_case("br")) => out.push_str("#lt;"),
            c if c == '\u{a0}' || c == '`' || (outside && c.is_whitespace()) => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether a text that begins with `#` would be read as the code of a character.
fn looks_like_code(rest: &str) -> bool {
    rest[1..].split_once(';').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;
    use crate::draw::testing::figure;

    #[test]
    fn plain_graphs_stay_plain() {
        let mut figure = figure("start>fetch-users fetch-users>render render>mail>send render>skipped>record send>record");
        figure.direction = Direction::LeftToRight;
        let expected = "flowchart LR\n    start --> fetch-users\n    fetch-users --> render\n    render -->|mail| send\n    \
                        render -->|skipped| record\n    send --> record\n";
        assert_eq!(write(&figure), expected);
    }

    #[test]
    fn texts_are_escaped_only_where_they_must_be() {
        for (text, expected) in [
            ("plain; text (with) [brackets] & <b>tags</b>", "plain; text (with) [brackets] & <b>tags</b>"),
            ("say \"hi\"", "say #quot;hi#quot;"),
            ("two\nlines", "two<br>lines"),
            ("no #1, but #35;", "no #1, but #35;35;"),
            ("<br> written", "#lt;br> written"),
            (" blanks\u{a0}", "#32;blanks#160;"),
            ("größe 😀", "größe 😀"),
        ] {
            assert_eq!(escape(text), expected, "{text:?}");
        }
    }

    #[test]
    fn looks_are_kept() {
        let mut figure = figure("outer[a] inner[b]/outer a>b b>3>c a=Say_\"hi\" c:diamond");
        figure.nodes[1].classes = vec!["hot".to_owned(), "new".to_owned()];
        figure.groups[0].title = Some("The outer one".to_owned());
        figure.groups[1].direction = Some(Direction::LeftToRight);
        figure.rules = vec![
            StyleRule::ClassDef {
                classes: vec!["hot".to_owned(), "default".to_owned()],
                css: "fill:#f9f,stroke:#333".to_owned(),
            },
            StyleRule::Class { nodes: vec!["a".to_owned(), "inner".to_owned()], class: "hot".to_owned() },
            StyleRule::Style { nodes: vec!["c".to_owned()], css: "fill:#bbf".to_owned() },
            StyleRule::LinkStyle { edges: vec![0, 1], css: "stroke:red".to_owned() },
            StyleRule::LinkStyle { edges: vec![], css: "stroke:blue".to_owned() },
        ];
        let expected = r##"flowchart TB
    a["Say #quot;hi#quot;"]
    b:::hot
    b:::new
    c{"c"}
    subgraph outer ["The outer one"]
        a
        subgraph inner
            direction LR
            b
        end
    end
    a --> b
    b ----> c
    classDef hot,default fill:#f9f,stroke:#333
    class a,inner hot
    style c fill:#bbf
    linkStyle 0,1 stroke:red
    linkStyle default stroke:blue
"##;
        assert_eq!(write(&figure), expected);
    }

    fn read(graph: &str) -> Figure {
        let member = format!("[[topology]]\nname = \"graph\"\ngraph = '''\n{graph}'''\n");
        let files =
            [("Project.toml", "[project]\nname = \"drawn\"\nmembers = [\"graph.toml\"]\n"), ("graph.toml", member.as_str())];
        match crate::load_from(&files) {
            Ok(project) => Figure::from(&project.topologies()[0]),
            Err(diagnostics) => panic!("{}\nin\n{graph}", diagnostics.render(false)),
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same_graph() {
        let graphs = [
            "a --> b",
            "only",
            "flowchart LR\nstart --> fetch-users\nfetch-users --> render\nrender -->|mail| send\nrender -->|skipped| record\nsend --> record",
            "graph BT\na & b --> c & d; c ---> e\nd -- done --> e",
            "flowchart RL\nz --> y --> x\nz --> w",
            "flowchart TD\na[Text] --> b(Round)\nb --> c{Choice?}\nc -->|yes| d([End it])\nc -->|no| e[(Store)]",
            "a[\"say #quot;hi#quot; & #35;1; 100#37; <br> next line\"] --> b[\"#lt;br> (x) [y] {z}\"]\nb --> c[größe 😀]",
            "subgraph one [\"The first; or #quot;not#quot;\"]\na --> b\nend\nsubgraph two\ndirection LR\nc --> d\nsubgraph three\ne\nend\nend\nb --> c\nd --> e",
            "subgraph Only a title\nb\na\nend\na --> b\nsubgraph \"say #35;1; more\"\nc\nend\nb --> c",
            "a:::hot --> b\nb:::cold\nclassDef hot,cold fill:#f9f,stroke:#333\nclassDef default fill:#fff\nclass a,b cold\n\
             style a stroke-width:2px\nlinkStyle 0 stroke:red\nlinkStyle default stroke:blue",
            "late --> last\nfirst --> late\nlone[A] --> last",
            "a[ ] --> b[\" padded \"]\nb --> c[\"#160;nbsp #160;\"]",
        ];
        for graph in graphs {
            let figure = read(graph);
            let written = write(&figure);
            assert_eq!(read(&written), figure, "{graph}\nwas written as\n{written}");
            assert_eq!(write(&read(&written)), written, "{graph}");
        }
    }

    #[test]
    fn large_graphs_come_back_whole() {
        for count in [5, 20, 100, 400] {
            let mut figure = crate::draw::testing::pipeline(count, 1, count / 5, Direction::LeftToRight);
            // A task gives either labelled messages or unlabelled ones, and no two of its edges are the same.
            let labelled: Vec<usize> = figure.links.iter().filter(|link| link.label.is_some()).map(|link| link.from).collect();
            for link in figure.links.iter_mut().filter(|link| labelled.contains(&link.from)) {
                link.label = Some("mail".to_owned());
            }
            let mut seen = std::collections::HashSet::new();
            figure.links.retain(|link| seen.insert((link.from, link.to)));
            let first = read(&write(&figure));
            assert_eq!((first.nodes.len(), first.groups.len(), first.links.len()), (count, count / 5, figure.links.len()));
            assert_eq!(read(&write(&first)), first);
        }
    }
}
