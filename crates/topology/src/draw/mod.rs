//! Drawings of a topology: Mermaid, Graphviz, text for a terminal, and SVG. All are deterministic: the same topology gives the same bytes.
//!
//! ```
//! use leatworks_topology::{draw, load_from};
//!
//! let files = [
//!     ("Project.toml", "[project]\nname = 'shop'\nmembers = ['orders.toml']"),
//!     ("orders.toml", "[[topology]]\nname = 'orders'\ngraph = 'http --> parse --> enrich & score --> store'"),
//! ];
//! let project = load_from(&files).map_err(|diagnostics| diagnostics.render(false))?;
//! let picture = draw::text(&project.topologies()[0], true);
//! assert_eq!(picture, "http ─▶ parse ─┬▶ enrich ─┬▶ store\n               └▶ score ──┘\n");
//! # Ok::<(), String>(())
//! ```

mod css;
mod dot;
mod figure;
mod layout;
mod measure;
mod mermaid;
mod svg;
#[cfg(test)]
mod testing;
mod text;

use crate::Topology;
use figure::Figure;

/// The graph in Mermaid, in one canonical form that GitHub draws. Reading it again gives the same graph.
pub fn mermaid(topology: &Topology) -> String {
    mermaid::write(&Figure::from(topology))
}

/// The graph in Graphviz' language, with a cluster for each subgraph. Styles are Mermaid's alone and left out.
pub fn dot(topology: &Topology) -> String {
    dot::write(&Figure::from(topology))
}

/// The graph for a terminal, each line ended by a newline: boxes and arrows from left to right where they fit into 100 columns,
/// otherwise a list of each task with where its messages go. With `unicode` false it is pure ASCII, whatever the texts hold.
pub fn text(topology: &Topology, unicode: bool) -> String {
    text::write(&Figure::from(topology), unicode)
}

/// The graph as an SVG document: laid out in layers, readable on light and on dark pages, with a title and a description for screen
/// readers, without scripts and without anything loaded from elsewhere.
pub fn svg(topology: &Topology) -> String {
    svg::write(&Figure::from(topology))
}
