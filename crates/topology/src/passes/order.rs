//! Checks the graph as a graph: no cycle, and no task that nothing touches.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::Draft;
use crate::diagnostics::{Diagnostic, Reports, codes};
use crate::mermaid::Sketch;

/// The most edges of a loop that are underlined; the message names all of its tasks anyway.
const LOOP_LABELS_MAX: usize = 6;

/// The most tasks of a loop that are spelled out.
const LOOP_TASKS_MAX: usize = 20;

pub(super) fn run(draft: &Draft, reports: &mut Reports) {
    let graph = graph(&draft.sketch);
    cycles(draft, &graph, reports);
    untouched(draft, &graph, reports);
}

/// The sketch as a graph: nodes weigh nothing, edges carry the number of their link.
fn graph(sketch: &Sketch) -> DiGraph<(), usize> {
    let mut graph = DiGraph::with_capacity(sketch.nodes.len(), sketch.links.len());
    for _ in &sketch.nodes {
        graph.add_node(());
    }
    for (number, link) in sketch.links.iter().enumerate() {
        graph.add_edge(NodeIndex::new(link.from), NodeIndex::new(link.to), number);
    }
    graph
}

/// The nodes, each before those it sends to, and otherwise in their own order. The graph has no cycle.
pub(super) fn topological(sketch: &Sketch) -> Vec<usize> {
    let graph = graph(sketch);
    let mut waiting: Vec<usize> =
        graph.node_indices().map(|node| graph.neighbors_directed(node, petgraph::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..waiting.len()).filter(|node| waiting[*node] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in graph.neighbors(NodeIndex::new(node)) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(Reverse(next.index()));
            }
        }
    }
    order
}

/// Reports one loop for each knot of the graph, spelled out.
fn cycles(draft: &Draft, graph: &DiGraph<(), usize>, reports: &mut Reports) {
    let mut knots: Vec<Vec<usize>> = Vec::new();
    for knot in kosaraju_scc(graph) {
        let mut knot: Vec<usize> = knot.into_iter().map(NodeIndex::index).collect();
        knot.sort_unstable();
        knots.push(knot);
    }
    knots.sort_unstable();
    for knot in knots {
        if let Some(links) = shortest_loop(graph, &knot) {
            report_loop(draft, &links, reports);
        }
    }
}

/// The links of the shortest loop through the first node of a knot; `None` when the knot is a single node without an edge to itself.
fn shortest_loop(graph: &DiGraph<(), usize>, knot: &[usize]) -> Option<Vec<usize>> {
    let inside: HashSet<usize> = knot.iter().copied().collect();
    let start = NodeIndex::new(knot[0]);
    let mut came_by: HashMap<NodeIndex, (NodeIndex, usize)> = HashMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        // Petgraph gives the last edge first; the first in the text is what a reader expects.
        let mut edges: Vec<_> = graph.edges(node).map(|edge| (*edge.weight(), edge.target())).collect();
        edges.sort_unstable();
        for (link, target) in edges {
            if target == start {
                let mut links = vec![link];
                let mut at = node;
                while at != start {
                    let (from, link) = *came_by.get(&at)?;
                    links.push(link);
                    at = from;
                }
                links.reverse();
                return Some(links);
            }
            if inside.contains(&target.index()) && !came_by.contains_key(&target) {
                came_by.insert(target, (node, link));
                waiting.push_back(target);
            }
        }
    }
    None
}

fn report_loop(draft: &Draft, links: &[usize], reports: &mut Reports) {
    let Draft { sketch, spec, .. } = draft;
    let name = |node: usize| &*sketch.nodes[node].id.text;
    let mut names: Vec<&str> = links.iter().take(LOOP_TASKS_MAX).map(|link| name(sketch.links[*link].from)).collect();
    if links.len() > LOOP_TASKS_MAX {
        names.push("…");
    }
    let first = name(sketch.links[links[0]].from);
    names.push(first);
    let spelled = names.join(" → ");
    let Some((closing, others)) = links.split_last() else { return };
    let message = format!("topology `{}` has a cycle: {spelled}", spec.name.value);
    let label = if others.is_empty() {
        "this task sends to itself".to_owned()
    } else {
        format!("this edge closes the loop back to `{first}`")
    };
    let mut diagnostic = Diagnostic::at(&codes::CYCLE, &spec.graph.place(&sketch.links[*closing].span), message, label);
    for (place, link) in others.iter().take(LOOP_LABELS_MAX).enumerate() {
        let label = if place == 0 { "the loop begins here" } else { "goes on here" };
        diagnostic = diagnostic.also(&spec.graph.place(&sketch.links[*link].span), label);
    }
    let diagnostic = diagnostic.with_help("remove one of these edges");
    reports.push(
        diagnostic.with_note("a topology has no loops: a failed message is tried again by `retry`, not by an edge backwards"),
    );
}

/// Reports tasks without any edge, unless the graph is that one task.
fn untouched(draft: &Draft, graph: &DiGraph<(), usize>, reports: &mut Reports) {
    let Draft { sketch, spec, .. } = draft;
    // A link may be missing because its statement could not be read.
    if sketch.nodes.len() == 1 || !sketch.complete {
        return;
    }
    for (number, node) in sketch.nodes.iter().enumerate() {
        if graph.neighbors_undirected(NodeIndex::new(number)).next().is_some() {
            continue;
        }
        let name = &node.id.text;
        let message = format!("the task `{name}` cannot be reached: no edge touches it");
        let diagnostic = Diagnostic::at(&codes::UNREACHABLE, &spec.graph.place(&node.id.span), message, "stands alone");
        reports.push(diagnostic.with_help(format!("draw an edge, such as `{name} --> …`, or make it a topology of its own")));
    }
}
