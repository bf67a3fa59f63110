//! Makes the model of a draft that has passed every check.

use std::collections::{HashMap, HashSet};

use super::Draft;
use super::order::topological;
use super::tasks::MODULE;
use crate::diagnostics::LineStarts;
use crate::mermaid::{GraphText, Sketch, Styling, Word};
use crate::model::Links;
use crate::{Edge, Label, StyleRule, Subgraph, Task, TaskName, Topology, TopologyName};

pub(super) fn run(drafts: &[Draft]) -> Vec<Topology> {
    let mut files: HashMap<&str, LineStarts<'_>> = HashMap::new();
    let topologies = drafts.iter().map(|draft| {
        let starts = files.entry(&draft.spec.file).or_insert_with(|| LineStarts::new(&draft.spec.file_text));
        topology(draft, &Lines { graph: &draft.spec.graph, starts })
    });
    topologies.collect()
}

fn topology(draft: &Draft, lines: &Lines<'_>) -> Topology {
    let Draft { spec, sketch, .. } = draft;
    let name = TopologyName::accepted(&spec.name.value);
    let names: Vec<TaskName> = sketch.nodes.iter().map(|node| TaskName::accepted(&node.id.text)).collect();
    let order = topological(sketch);
    let tasks: Vec<Task> = order.iter().map(|node| task(draft, *node, &names, lines)).collect();
    let edges = sketch.links.iter().map(|link| Edge {
        topology: name.clone(),
        from: names[link.from].clone(),
        to: names[link.to].clone(),
        label: link.label.as_ref().map(|label| Label::accepted(&label.text)),
        length: link.length,
        line: lines.of(link.arrow.start),
    });
    Topology {
        edges: edges.collect(),
        links: links(sketch, &order, &names),
        subgraphs: subgraphs(sketch, &names),
        styles: sketch.stylings.iter().map(style).collect(),
        name,
        description: spec.description.clone(),
        file: spec.file.to_string(),
        codec: spec.codec,
        module: spec.module.as_ref().map_or(MODULE, |module| &module.value).to_owned(),
        direction: sketch.direction,
        tasks,
        graph_source: spec.graph.text.clone(),
        graph_line: lines.of(0),
    }
}

/// Lines of the file by positions in the graph.
struct Lines<'a> {
    graph: &'a GraphText,
    starts: &'a LineStarts<'a>,
}

impl Lines<'_> {
    fn of(&self, at: usize) -> usize {
        self.starts.line(self.graph.place(&(at..at)).span.start)
    }
}

fn task(draft: &Draft, number: usize, names: &[TaskName], lines: &Lines<'_>) -> Task {
    let node = &draft.sketch.nodes[number];
    let role = &draft.roles[number];
    let ends = draft.declared[number].map(|declared| &draft.spec.tasks[declared].ends);
    Task {
        name: names[number].clone(),
        kind: role.kind.clone(),
        retry: role.retry,
        timeout: role.timeout,
        parallelism: role.parallelism,
        ends: ends.into_iter().flatten().map(|label| Label::accepted(&label.value)).collect(),
        source: role.source.clone(),
        text: node.text.clone(),
        shape: node.shape,
        classes: node.classes.clone(),
        line: lines.of(node.id.span.start),
    }
}

fn links(sketch: &Sketch, order: &[usize], names: &[TaskName]) -> HashMap<TaskName, Links> {
    let mut links: Vec<Links> = vec![Links::default(); names.len()];
    for (place, node) in order.iter().enumerate() {
        links[*node].task = place;
    }
    for (number, link) in sketch.links.iter().enumerate() {
        links[link.from].outgoing.push(number);
        links[link.to].incoming.push(number);
    }
    names.iter().cloned().zip(links).collect()
}

fn subgraphs(sketch: &Sketch, names: &[TaskName]) -> Vec<Subgraph> {
    let nodes = sketch.nodes.iter().map(|node| node.id.text.clone());
    let mut taken: HashSet<String> = nodes.chain(sketch.boxes.iter().map(|drawn| drawn.id.text.clone())).collect();
    let boxes = sketch.boxes.iter().enumerate().map(|(number, drawn)| {
        let written = &drawn.id.text;
        let plain = !written.is_empty() && written.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        // A title can be written in the place of the id; an id is then made up, clear of tasks and other boxes.
        let made_up = || (number + 1..).map(|number| format!("subgraph-{number}")).find(|id| !taken.contains(id));
        let id = if plain { written.clone() } else { made_up().unwrap_or_default() };
        taken.insert(id.clone());
        let title = drawn.title.clone().or_else(|| Some(written.clone())).filter(|title| *title != id);
        let tasks = drawn.nodes.iter().map(|node| names[*node].clone()).collect();
        Subgraph { id, title, direction: drawn.direction, parent: drawn.parent, tasks }
    });
    boxes.collect()
}

fn style(styling: &Styling) -> StyleRule {
    let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect();
    match styling {
        Styling::ClassDef { classes, css } => StyleRule::ClassDef { classes: classes.clone(), css: css.clone() },
        Styling::Class { nodes, class } => StyleRule::Class { nodes: texts(nodes), class: class.clone() },
        Styling::Style { nodes, css } => StyleRule::Style { nodes: texts(nodes), css: css.clone() },
        Styling::LinkStyle { links, css } => {
            let edges = links.iter().flatten().map(|(number, _)| *number).collect();
            StyleRule::LinkStyle { edges, css: css.clone() }
        }
    }
}
