//! Checks the edges of each task together: twice drawn, labelled or not, ending, and at the borders of the graph.

use std::collections::HashMap;

use super::Draft;
use crate::TaskKind;
use crate::diagnostics::{At, Diagnostic, Place, Reports, codes};
use crate::mermaid::Link;
use crate::spec::TaskSpec;

pub(super) fn run(draft: &Draft, reports: &mut Reports) {
    drawn_once(draft, reports);
    let mut outgoing: Vec<Vec<&Link>> = vec![Vec::new(); draft.sketch.nodes.len()];
    let mut incoming: Vec<Option<&Link>> = vec![None; draft.sketch.nodes.len()];
    for link in &draft.sketch.links {
        outgoing[link.from].push(link);
        incoming[link.to].get_or_insert(link);
    }
    for (node, outgoing) in outgoing.iter().enumerate() {
        let task = Task { draft, node, outgoing };
        task.labelled_or_not(reports);
        if let Some(spec) = draft.declared[node].map(|declared| &draft.spec.tasks[declared]) {
            task.ends(spec, reports);
            task.borders(spec, incoming[node], reports);
        }
    }
}

fn drawn_once(draft: &Draft, reports: &mut Reports) {
    let mut seen: HashMap<(usize, usize, Option<&str>), &Link> = HashMap::new();
    for link in &draft.sketch.links {
        let label = link.label.as_ref().map(|label| &*label.text);
        let Some(first) = seen.get(&(link.from, link.to, label)) else {
            seen.insert((link.from, link.to, label), link);
            continue;
        };
        let name = |node: usize| &draft.sketch.nodes[node].id.text;
        let arrow = label.map_or_else(|| "-->".to_owned(), |label| format!("-->|{label}|"));
        let message = format!("the edge `{} {arrow} {}` is drawn twice", name(link.from), name(link.to));
        let place = draft.spec.graph.place(&link.span);
        let first = draft.spec.graph.place(&first.span);
        let diagnostic = Diagnostic::at(&codes::EDGE_TWICE, &place, message, "again here");
        let diagnostic = if first == place { diagnostic } else { diagnostic.also(&first, "first here") };
        reports.push(diagnostic.with_help("remove one of them: a message goes over an edge once"));
    }
}

/// A node with what leaves it.
struct Task<'a> {
    draft: &'a Draft,
    node: usize,
    outgoing: &'a [&'a Link],
}

impl Task<'_> {
    fn name(&self) -> &str {
        &self.draft.sketch.nodes[self.node].id.text
    }

    fn place(&self, link: &Link) -> Place {
        self.draft.spec.graph.place(&link.span)
    }

    fn labelled_or_not(&self, reports: &mut Reports) {
        let labelled = self.outgoing.iter().find(|link| link.label.is_some());
        let plain = self.outgoing.iter().find(|link| link.label.is_none());
        let (Some(labelled), Some(plain)) = (labelled, plain) else { return };
        // A label that could not be read has been reported.
        if !self.draft.sketch.complete {
            return;
        }
        let message = format!("the task `{}` has edges with and without a label", self.name());
        let diagnostic = Diagnostic::at(&codes::MIXED, &self.place(plain), message, "no label here");
        let diagnostic = diagnostic.also(&self.place(labelled), "a label here");
        let diagnostic = diagnostic.with_help("label all edges that leave it, or none");
        reports.push(
            diagnostic.with_note(
                "with labels a task gives an enum and each variant has its edges; without, every edge gets all it gives",
            ),
        );
    }

    fn ends(&self, spec: &TaskSpec, reports: &mut Reports) {
        let labelled = self.outgoing.iter().filter_map(|link| Some((&*link.label.as_ref()?.text, *link)));
        let edges: HashMap<&str, &Link> = labelled.collect();
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        for At { value: label, place } in &spec.ends {
            if let Some(first) = seen.insert(label, place) {
                let diagnostic = Diagnostic::at(&codes::ENDS_TWICE, place, format!("`ends` names `{label}` twice"), "again here");
                reports.push(diagnostic.also(first, "first here").with_help("remove one of them"));
            }
            if let Some(edge) = edges.get(&**label) {
                let message = format!("the label `{label}` of the task `{}` ends, and goes on over an edge", self.name());
                let diagnostic = Diagnostic::at(&codes::ENDS_GOES_ON, place, message, "ends here");
                reports.push(diagnostic.also(&self.place(edge), "goes on here").with_help("remove the one or the other"));
            }
        }
        let Some(first) = spec.ends.first() else { return };
        let unlabelled = self.outgoing.iter().find(|link| link.label.is_none());
        let no_choice = matches!(self.draft.roles[self.node].kind, TaskKind::Source | TaskKind::Sink(_));
        if !(no_choice || unlabelled.is_some() && edges.is_empty()) || !self.draft.sketch.complete {
            return;
        }
        let message = format!("the task `{}` has `ends`, but gives no labels", self.name());
        let mut diagnostic = Diagnostic::at(&codes::ENDS_UNLABELLED, &first.place, message, "nothing is labelled so");
        if let Some(link) = unlabelled {
            diagnostic = diagnostic.also(&self.place(link), "an edge without a label");
        }
        reports.push(diagnostic.with_help("remove `ends`, or label the edges that leave the task"));
    }

    /// Sources are where a graph begins, sinks where it ends.
    fn borders(&self, spec: &TaskSpec, incoming: Option<&Link>, reports: &mut Reports) {
        let name = self.name();
        if let (Some(source), Some(edge)) = (&spec.source, incoming) {
            let message = format!("the task `{name}` has a source, but is not where the graph begins");
            let diagnostic = Diagnostic::at(&codes::SOURCE_INSIDE, &source.place, message, "this source");
            let diagnostic = diagnostic.also(&self.place(edge), "an edge leads to the task");
            reports.push(diagnostic.with_help("put the source on a task of its own, with an edge from there"));
        }
        let leaves = self.outgoing.first();
        if let (Some(sink), Some(edge)) = (&spec.sink, leaves) {
            let message = format!("the sink `{name}` gives nothing, but an edge leaves it");
            let diagnostic = Diagnostic::at(&codes::SINK_GIVES, &sink.place, message, "this sink");
            let diagnostic = diagnostic.also(&self.place(edge), "this edge would carry nothing");
            reports.push(diagnostic.with_help("draw the edge from the task before the sink"));
        }
        let labelled = self.outgoing.iter().find(|link| link.label.is_some());
        if let (TaskKind::Source, Some(edge), Some(source)) = (&self.draft.roles[self.node].kind, labelled, &spec.source) {
            let message = format!("the source `{name}` passes on what it reads and cannot choose a label");
            let diagnostic = Diagnostic::at(&codes::SOURCE_LABELS, &self.place(edge), message, "this edge has a label");
            let diagnostic = diagnostic.also(&source.place, "the source");
            reports.push(diagnostic.with_help("remove the label, or give the task a `type` that chooses"));
        }
    }
}
