//! From files to a [`Project`]: the list of passes. Each says what can no longer occur behind it.

mod assemble;
mod boxes;
mod names;
mod order;
mod read;
mod routes;
mod rust_path;
mod tasks;
mod topics;

use crate::diagnostics::{At, Reports};
use crate::mermaid::{Sketch, parse};
use crate::spec::TopologySpec;
use crate::{Diagnostics, Project, Sources};

/// A topology between its text and the model.
pub(crate) struct Draft {
    spec: TopologySpec,
    sketch: Sketch,
    /// Which declaration each node has, by the node's number.
    declared: Vec<Option<usize>>,
    /// What each node is, by its number.
    roles: Vec<tasks::Role>,
    /// An earlier topology has the same name, so comparing the two by name tells nothing new.
    copy: bool,
}

/// Runs all passes. A pass runs even if an earlier one has found something, on whatever can still be judged.
pub(crate) fn compile(sources: &dyn Sources) -> Result<Project, Diagnostics> {
    let mut reports = Reports::default();

    // After this point the files have been read and are TOML; keys are known, values have their types.
    let files = read::run(sources, &mut reports);

    // After this point every graph is a sketch: nodes, links, boxes and styles with their places.
    let mut drafts: Vec<Draft> = Vec::new();
    for spec in files.topologies {
        let sketch = parse(&spec.graph, &mut reports);
        drafts.push(Draft { spec, sketch, declared: Vec::new(), roles: Vec::new(), copy: false });
    }

    // After this point no link touches a box, and styles name what exists.
    drafts.iter().for_each(|draft| boxes::run(draft, &mut reports));

    // After this point every name can be a topic, a binary and a Kubernetes object, and no two binaries share one.
    names::run(files.project_name.as_ref(), &mut drafts, &mut reports);

    // After this point each declaration belongs to one node, and each node is of one kind.
    drafts.iter_mut().for_each(|draft| tasks::run(draft, &mut reports));

    // After this point the graph has no cycle, and every task is touched by an edge or stands alone.
    drafts.iter().for_each(|draft| order::run(draft, &mut reports));

    // After this point no edge is drawn twice, a task's edges are all labelled or all not, sources are roots and sinks are leaves.
    drafts.iter().for_each(|draft| routes::run(draft, &mut reports));

    let (At { value: name, .. }, description) = match (files.project_name, reports.count()) {
        (Some(name), 0) => (name, files.description),
        _ => return Err(reports.finish()),
    };

    // After this point the model stands.
    let topologies = assemble::run(&drafts);

    // After this point no two topics of the project share a name. It needs the model, which knows how topics are named.
    topics::run(&topologies, &drafts, &mut reports);
    if reports.count() > 0 {
        return Err(reports.finish());
    }
    Ok(Project { name, description, files: files.paths, topologies })
}
