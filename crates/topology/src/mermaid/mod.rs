//! The Mermaid subset: from the text of a graph to nodes, links, boxes and style rules with exact positions.
//!
//! The grammar follows the lexer of Mermaid's own flowcharts, so that a text means the same here and on a page that draws it. What
//! Mermaid knows and a topology has no use for is recognised and refused by name; reading goes on behind it, so that one run finds
//! everything.

mod cursor;
mod keyword;
mod link;
mod node;
mod sketch;
mod statement;
mod style;
mod text;

pub(crate) use keyword::reserved;
pub(crate) use sketch::{Box, Link, Sketch, Styling, Word};
pub(crate) use text::forbidden;

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostics::{Place, Reports};
use crate::toml_text::TextMap;

/// The most nodes in a graph. Ten times the 1,000 that are promised; it bounds what a mistaken or hostile file can cost.
pub(crate) const NODES_MAX: usize = 10_000;

/// The most links in a graph. `a & b --> c & d` multiplies, so 64 KiB of text could otherwise ask for millions.
pub(crate) const LINKS_MAX: usize = 50_000;

/// The most subgraphs in a graph, as many as people can tell apart and then some.
pub(crate) const SUBGRAPHS_MAX: usize = 1_000;

/// The deepest nesting of subgraphs. Nobody can read more, and drawings recurse over them.
pub(crate) const SUBGRAPH_DEPTH_MAX: usize = 32;

/// The text of a graph and where it stands in its file.
#[derive(Clone, Debug)]
pub(crate) struct GraphText {
    pub(crate) text: String,
    pub(crate) map: TextMap,
    pub(crate) file: Arc<str>,
}

impl GraphText {
    /// The place in the file of a span of the text.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        Place { file: self.file.clone(), span: self.map.span(span.clone()) }
    }
}

/// Reads a graph. What cannot be read is reported, and the rest is still returned.
pub(crate) fn parse(graph: &GraphText, reports: &mut Reports) -> Sketch {
    statement::Parser::new(graph, reports).run()
}
