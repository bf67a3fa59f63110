//! Checks what names something in the graph without being a node of it: boxes and styles.

use std::collections::HashSet;

use super::Draft;
use crate::diagnostics::{Diagnostic, Reports, codes};
use crate::mermaid::{Styling, Word};

pub(super) fn run(draft: &Draft, reports: &mut Reports) {
    boxes_are_no_tasks(draft, reports);
    styles_name_what_exists(draft, reports);
}

fn boxes_are_no_tasks(draft: &Draft, reports: &mut Reports) {
    let Draft { sketch, spec, .. } = draft;
    for drawn in &sketch.boxes {
        let Some(node) = sketch.find(&drawn.id.text) else { continue };
        let place = spec.graph.place(&sketch.nodes[node].id.span);
        let id = &drawn.id.text;
        let diagnostic =
            Diagnostic::at(&codes::SUBGRAPH_EDGE, &place, format!("`{id}` is a subgraph, not a task"), "used as a task");
        let diagnostic = diagnostic.also(&spec.graph.place(&drawn.id.span), "the subgraph");
        reports.push(diagnostic.with_help("draw edges to the tasks inside, or give the subgraph another id"));
    }
}

fn styles_name_what_exists(draft: &Draft, reports: &mut Reports) {
    let Draft { sketch, spec, .. } = draft;
    if !sketch.complete {
        return;
    }
    let boxes: HashSet<&str> = sketch.boxes.iter().map(|drawn| &*drawn.id.text).collect();
    let exists = |word: &&Word| sketch.find(&word.text).is_some() || boxes.contains(&*word.text);
    for styling in &sketch.stylings {
        match styling {
            Styling::Class { nodes, .. } | Styling::Style { nodes, .. } => {
                for word in nodes.iter().filter(|word| !exists(word)) {
                    let message = format!("no task or subgraph is called `{}`", word.text);
                    let known = sketch.nodes.iter().map(|node| &*node.id.text).chain(boxes.iter().copied());
                    let help = match reports.similar(&word.text, known) {
                        Some(similar) => format!("did you mean `{similar}`?"),
                        None => "name a task of this graph".to_owned(),
                    };
                    let place = spec.graph.place(&word.span);
                    reports.push(Diagnostic::at(&codes::STYLE, &place, message, "styles nothing").with_help(help));
                }
            }
            Styling::LinkStyle { links: Some(links), .. } => {
                for (number, span) in links.iter().filter(|(number, _)| *number >= sketch.links.len()) {
                    let message = format!("there is no edge {number}");
                    let diagnostic = Diagnostic::at(&codes::STYLE, &spec.graph.place(span), message, "styles nothing");
                    let count = sketch.links.len();
                    reports.push(diagnostic.with_help(format!("the graph has {count} edges, counted from 0 in their order")));
                }
            }
            Styling::ClassDef { .. } | Styling::LinkStyle { links: None, .. } => {}
        }
    }
}
