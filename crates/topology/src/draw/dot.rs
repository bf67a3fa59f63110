//! Graphviz: the graph for `dot` and everything that reads its language.

use std::fmt::Write as _;

use super::figure::Figure;
use super::measure;
use crate::Shape;

/// Writes the graph.
pub(super) fn write(figure: &Figure) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&figure.name));
    let _ = writeln!(out, "    rankdir={};", figure.direction.as_str());
    out.push_str("    compound=true;\n");
    out.push_str("    node [shape=box, fontname=\"Helvetica\"];\n    edge [fontname=\"Helvetica\", fontsize=11];\n");
    write_content(&mut out, figure, None, 1);
    for link in &figure.links {
        let _ = write!(out, "    {} -> {}", quoted(&figure.nodes[link.from].id), quoted(&figure.nodes[link.to].id));
        let mut attributes = Vec::new();
        if let Some(label) = &link.label {
            attributes.push(format!("label={}", quoted(label)));
        }
        if link.length > 1 {
            attributes.push(format!("minlen={}", link.length));
        }
        if !attributes.is_empty() {
            let _ = write!(out, " [{}]", attributes.join(", "));
        }
        out.push_str(";\n");
    }
    out.push_str("}\n");
    out
}

/// The nodes and the groups directly in a group, or in none.
fn write_content(out: &mut String, figure: &Figure, group: Option<usize>, depth: usize) {
    let indent = "    ".repeat(depth);
    for node in figure.nodes.iter().filter(|node| node.group == group) {
        let mut attributes = Vec::new();
        if node.text.is_some() {
            attributes.push(format!("label={}", quoted(&measure::paragraphs(node.caption()).collect::<Vec<_>>().join("\n"))));
        }
        attributes.extend(shape(node.shape).map(str::to_owned));
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let _ = writeln!(out, "{indent}{}{attributes};", quoted(&node.id));
    }
    for (index, inner) in figure.groups.iter().enumerate().filter(|(_, inner)| inner.parent == group) {
        let _ = writeln!(out, "{indent}subgraph {} {{", quoted(&format!("cluster_{}", inner.id)));
        let _ = writeln!(out, "{indent}    label={};", quoted(inner.caption()));
        write_content(out, figure, Some(index), depth + 1);
        let _ = writeln!(out, "{indent}}}");
    }
}

fn shape(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Rectangle => None,
        Shape::Rounded | Shape::Stadium => Some("style=rounded"),
        Shape::Diamond => Some("shape=diamond"),
        Shape::Cylinder => Some("shape=cylinder"),
    }
}

/// A quoted string in which nothing has a meaning but `\n`, the end of a line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::testing::figure;

    #[test]
    fn the_graph_is_written_with_its_groups() {
        let figure = figure("outer[a] inner[b]/outer a>mail>b b>2>c b=Say_\"hi\"\\now|twice c:cylinder");
        let expected = r#"digraph "test" {
    rankdir=TB;
    compound=true;
    node [shape=box, fontname="Helvetica"];
    edge [fontname="Helvetica", fontsize=11];
    "c" [shape=cylinder];
    subgraph "cluster_outer" {
        label="outer";
        "a";
        subgraph "cluster_inner" {
            label="inner";
            "b" [label="Say \"hi\"\\now\ntwice"];
        }
    }
    "a" -> "b" [label="mail"];
    "b" -> "c" [minlen=2];
}
"#;
        assert_eq!(write(&figure), expected);
    }
}
