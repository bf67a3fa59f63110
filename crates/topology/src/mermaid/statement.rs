//! Statements: the header, chains of links, subgraphs, and everything that stands between them.

use std::collections::HashSet;
use std::ops::Range;

use super::cursor::Cursor;
use super::keyword;
use super::node::Mention;
use super::sketch::Node;
use super::text::{forbidden, shown};
use super::{Box, GraphText, LINKS_MAX, Link, NODES_MAX, SUBGRAPH_DEPTH_MAX, SUBGRAPHS_MAX, Sketch, Word};
use crate::Direction;
use crate::diagnostics::{Diagnostic, Reports, codes};

/// How far the end of a directive is looked for, which may stand on a later line. It bounds the time that unclosed ones cost.
const DIRECTIVE_BYTES_MAX: usize = 4_096;

/// Statements that Mermaid knows and a topology has no use for, with what to do instead.
const FOREIGN: [(&str, &str); 5] = [
    ("click", "remove it: links and callbacks belong to a web page, not to a topology"),
    ("accTitle", "use the topology's `name` and `description`"),
    ("accDescr", "use the topology's `description`"),
    ("href", "remove it: links belong to a web page, not to a topology"),
    ("interpolate", "remove it: the shape of lines is up to the drawing"),
];

/// Reads a graph from left to right, once.
pub(super) struct Parser<'a> {
    pub(super) graph: &'a GraphText,
    pub(super) cursor: Cursor<'a>,
    reports: &'a mut Reports,
    pub(super) sketch: Sketch,
    open: Vec<OpenBox>,
    /// Nodes that a finished box holds: as in Mermaid, the box that ends first keeps a node.
    claimed: HashSet<usize>,
    full: bool,
}

/// A box whose `end` has not come yet.
struct OpenBox {
    number: usize,
    start: Range<usize>,
    seen: HashSet<usize>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(graph: &'a GraphText, reports: &'a mut Reports) -> Self {
        let mut sketch = Sketch::default();
        sketch.complete = true;
        let cursor = Cursor::new(&graph.text);
        Self { graph, cursor, reports, sketch, open: Vec::new(), claimed: HashSet::new(), full: false }
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        // Behind these a node or a link may be missing; everything else that is refused is still understood.
        let losses = [&codes::UNREADABLE, &codes::UNCLOSED, &codes::DIAGRAM, &codes::TOO_LARGE, &codes::EMPTY];
        if losses.iter().any(|code| code.code == diagnostic.code()) {
            self.sketch.complete = false;
        }
        self.reports.push(diagnostic);
    }

    pub(super) fn sketch_node(&mut self, node: usize) -> &mut Node {
        &mut self.sketch.nodes[node]
    }

    pub(super) fn run(mut self) -> Sketch {
        self.refuse_hidden_characters();
        self.front_matter();
        self.between_statements();
        if self.header() {
            self.between_statements();
            while !self.cursor.done() && !self.full {
                self.statement();
                self.between_statements();
            }
        }
        while let Some(open) = self.open.pop().filter(|_| !self.full) {
            let diagnostic = self.at(&codes::SUBGRAPH_END, &open.start, "a subgraph has no `end`", "begins here");
            self.report(diagnostic.with_help("add a line with `end` behind its last node"));
        }
        if self.sketch.nodes.is_empty() && self.sketch.complete {
            let span = 0..self.graph.text.trim_end().len();
            let diagnostic = self.at(&codes::EMPTY, &span, "the graph has no tasks", "nothing to run here");
            self.report(diagnostic.with_help("write at least one edge, such as `start --> finish`"));
        }
        self.sketch
    }

    fn refuse_hidden_characters(&mut self) {
        let text = &self.graph.text;
        let found = text.char_indices().filter(|(at, c)| forbidden(*c) && !(*c == '\r' && text[at + 1..].starts_with('\n')));
        let found: Vec<_> = found.collect();
        for (at, c) in found {
            let span = at..at + c.len_utf8();
            let message = format!("the graph holds the invisible character U+{:04X}", u32::from(c));
            let diagnostic = self.at(&codes::HIDDEN, &span, message, "stands here");
            self.report(diagnostic.with_help("remove it").with_note("it can make a text read other than it is"));
        }
    }

    /// Refuses `---` … `---` before the graph.
    fn front_matter(&mut self) {
        self.cursor.separators();
        let start = self.cursor.at();
        if self.cursor.rest().lines().next().map(str::trim_end) != Some("---") {
            return;
        }
        let end = self.cursor.rest()[3..].find("\n---").map(|at| start + 3 + at + 4);
        let span = start..end.unwrap_or(start + 3);
        let diagnostic = self.at(&codes::DIRECTIVE, &span, "front matter is not supported", "front matter");
        self.report(diagnostic.with_help("use the topology's own keys: `name`, `description`"));
        self.cursor.move_to(span.end);
    }

    /// Steps over blanks, comments and separators.
    fn between_statements(&mut self) {
        loop {
            self.cursor.separators();
            if !self.cursor.rest().starts_with("%%") {
                return;
            }
            self.comment();
        }
    }

    /// Steps over a comment, which has a line of its own, and refuses `%%{init: …}%%`.
    fn comment(&mut self) {
        let start = self.cursor.at();
        if self.cursor.rest().starts_with("%%{") {
            let rest = self.cursor.rest();
            let near = &rest[..rest.floor_char_boundary(DIRECTIVE_BYTES_MAX)];
            let close = near.find("}%%").map(|at| start + at + 3);
            let span = start..close.unwrap_or_else(|| self.cursor.line_end());
            let diagnostic = self.at(&codes::DIRECTIVE, &span, "directives are not supported", "a directive");
            self.report(diagnostic.with_help("remove it; `classDef` and `style` set colours"));
            self.cursor.move_to(span.end);
            return;
        }
        let before = self.cursor.slice(0..start);
        if !before[before.rfind('\n').map_or(0, |at| at + 1)..].trim().is_empty() {
            let span = start..self.cursor.line_end();
            let diagnostic = self.at(&codes::UNREADABLE, &span, "a comment behind a statement", "not a comment to Mermaid");
            self.report(diagnostic.with_help("move the comment to a line of its own"));
        }
        self.cursor.skip_line();
    }

    /// Reads the header if there is one. False when the text is another kind of diagram.
    fn header(&mut self) -> bool {
        let start = self.cursor.at();
        let word = self.cursor.peek_word();
        if let Some(kind) = keyword::diagram(word) {
            self.cursor.move_to(start + word.len());
            let behind = self.cursor.blanks().is_empty();
            let node = self.cursor.rest().starts_with(['-', '=', '<', '~', '&', '[', '(', '{', ':'])
                && (behind || !self.cursor.rest().starts_with('['));
            self.cursor.move_to(start);
            if !node {
                let span = start..start + word.len();
                let diagnostic = self.at(&codes::DIAGRAM, &span, format!("the graph is {kind}, not a flowchart"), kind);
                self.report(diagnostic.with_help("begin with `flowchart LR`, or leave the header out"));
                return false;
            }
        }
        if !matches!(word, "graph" | "flowchart" | "flowchart-elk") {
            return true;
        }
        self.cursor.move_to(start + word.len());
        self.cursor.blanks();
        if self.link_is_here() {
            self.cursor.move_to(start);
            return true;
        }
        let given = self.cursor.eat_while(|c| !c.is_whitespace() && c != ';');
        let span = self.cursor.at() - given.len()..self.cursor.at();
        match direction(given) {
            Some(direction) => self.sketch.direction = direction,
            None if given.is_empty() => {}
            None => self.unknown_direction(given, &span),
        }
        self.end_of_statement();
        true
    }

    fn unknown_direction(&mut self, given: &str, span: &Range<usize>) {
        let diagnostic = self.at(&codes::DIRECTION, span, format!("`{given}` is no direction"), "not a direction");
        let upper = given.to_uppercase();
        let help = match direction(&upper) {
            Some(_) => format!("write `{upper}`"),
            None => "write `TB`, `TD`, `BT`, `LR` or `RL`".to_owned(),
        };
        self.report(diagnostic.with_help(help));
    }

    fn statement(&mut self) {
        let start = self.cursor.at();
        if self.cursor.rest().starts_with("```") {
            let span = start..self.cursor.line_end();
            let diagnostic = self.at(&codes::STATEMENT, &span, "a Markdown fence does not belong to the graph", "a fence");
            self.report(diagnostic.with_help("keep only what stands between the fences"));
            self.cursor.skip_line();
            return;
        }
        let word = self.cursor.peek_word();
        let handled = !self.is_node(word) && self.keyword(word, start);
        if !handled {
            self.chain();
            self.end_of_statement();
        }
    }

    /// Whether the word at the cursor is used as a node although it may be a keyword.
    fn is_node(&mut self, word: &str) -> bool {
        let start = self.cursor.at();
        self.cursor.move_to(start + word.len());
        let glued = self.cursor.rest().starts_with(['[', '(', '{', '@']) || self.cursor.rest().starts_with(":::");
        self.cursor.blanks();
        let node = glued || self.link_is_here() || self.cursor.rest().starts_with('&');
        self.cursor.move_to(start);
        node
    }

    fn link_is_here(&self) -> bool {
        let rest = self.cursor.rest();
        ["--", "->", "==", "-.", "<-", "~~~", "x--", "o--", "=>"].into_iter().any(|sign| rest.starts_with(sign))
    }

    /// Reads a statement that begins with a keyword.
    fn keyword(&mut self, word: &str, start: usize) -> bool {
        let behind = start + word.len();
        match word {
            "subgraph" => self.subgraph(start, behind),
            "end" => self.end_of_subgraph(start..behind),
            "direction" => self.direction_in_box(start, behind),
            "classDef" | "class" | "style" | "linkStyle" => self.styling(word, start),
            "graph" | "flowchart" => {
                let span = start..self.cursor.line_end();
                let diagnostic = self.at(&codes::STATEMENT, &span, "a second header", "the graph has begun already");
                self.report(diagnostic.with_help("keep one header, in the first line; one topology holds one graph"));
                self.cursor.skip_line();
            }
            _ => {
                let Some((_, help)) = FOREIGN.into_iter().find(|(name, _)| *name == word) else { return false };
                let span = start..self.cursor.line_end();
                let message = format!("`{word}` is not supported");
                let diagnostic = self.at(&codes::STATEMENT, &span, message, "this statement");
                self.report(diagnostic.with_help(help));
                self.cursor.skip_line();
            }
        }
        true
    }

    fn direction_in_box(&mut self, start: usize, behind: usize) {
        self.cursor.move_to(behind);
        self.cursor.blanks();
        let given = self.cursor.rest_of_statement();
        let text = self.cursor.slice(given.clone());
        match (direction(text), self.open.last()) {
            (Some(direction), Some(open)) => self.sketch.boxes[open.number].direction = Some(direction),
            (Some(_), None) => {
                let diagnostic =
                    self.at(&codes::STATEMENT, &(start..given.end), "`direction` outside of a subgraph", "has no effect here");
                self.report(diagnostic.with_help(format!("write it in the header: `flowchart {text}`")));
            }
            (None, _) => self.unknown_direction(text, &given),
        }
    }

    /// Reads `subgraph id [title]`.
    fn subgraph(&mut self, start: usize, behind: usize) {
        self.cursor.move_to(behind);
        self.cursor.blanks();
        let span = self.cursor.rest_of_statement();
        let text = self.cursor.slice(span.clone());
        let (id, title) = match text.split_once('[') {
            Some((id, title)) if !id.trim().is_empty() => (id.trim_end(), Some(title)),
            _ => (text, None),
        };
        let mut id = super::text::unquoted(id, span.start);
        let closed = title.is_none_or(|title| title.trim_end().ends_with(']'));
        if text.is_empty() || !closed {
            let whole = start..span.end.max(behind);
            let message = if text.is_empty() {
                "a subgraph has neither id nor title"
            } else {
                "the title of a subgraph has no closing `]`"
            };
            let diagnostic = self.at(&codes::UNCLOSED, &whole, message, "this subgraph");
            self.report(diagnostic.with_help("write `subgraph id [Title]`"));
            if text.is_empty() {
                id = Word { text: format!("subgraph-{}", self.sketch.boxes.len() + 1), span: whole };
            }
        }
        let title = title.map(|title| super::text::unquoted(title.trim_end().trim_end_matches(']'), 0).text);
        if let Some(first) = self.sketch.boxes.iter().find(|known| known.id.text == id.text) {
            let known = self.graph.place(&first.id.span);
            let diagnostic =
                self.at(&codes::SUBGRAPH_TWICE, &id.span, format!("two subgraphs are called `{}`", id.text), "the second");
            self.report(diagnostic.also(&known, "the first").with_help("give one of them another id"));
        }
        if self.open.len() == SUBGRAPH_DEPTH_MAX {
            let message = format!("subgraphs are nested more than {SUBGRAPH_DEPTH_MAX} deep");
            self.too_large(&(start..span.end), &message, "draw fewer boxes, or make several topologies");
        } else if self.sketch.boxes.len() == SUBGRAPHS_MAX {
            let message = format!("the graph has more than {SUBGRAPHS_MAX} subgraphs");
            self.too_large(&(start..span.end), &message, "draw fewer boxes, or make several topologies");
        }
        let parent = self.open.last().map(|open| open.number);
        let title = title.map(|title| shown(&title)).filter(|title| !title.is_empty());
        self.open.push(OpenBox { number: self.sketch.boxes.len(), start: start..behind, seen: HashSet::new() });
        self.sketch.boxes.push(Box { id, title, direction: None, parent, nodes: Vec::new() });
    }

    fn end_of_subgraph(&mut self, span: Range<usize>) {
        self.cursor.move_to(span.end);
        match self.open.pop() {
            Some(open) => {
                let nodes = &mut self.sketch.boxes[open.number].nodes;
                nodes.retain(|node| self.claimed.insert(*node));
            }
            None => {
                let diagnostic = self.at(&codes::SUBGRAPH_END, &span, "`end` without a subgraph", "ends nothing");
                self.report(diagnostic.with_help("remove it; a task cannot be called `end`"));
            }
        }
        self.end_of_statement();
    }

    /// The number of a node that is mentioned here.
    pub(super) fn mention(&mut self, id: &Word) -> usize {
        let node = self.sketch.node(id);
        if self.sketch.nodes.len() > NODES_MAX && !self.full {
            self.too_large(&id.span, &format!("the graph has more than {NODES_MAX} tasks"), "split it into several topologies");
        }
        if let Some(open) = self.open.last_mut()
            && open.seen.insert(node)
        {
            self.sketch.boxes[open.number].nodes.push(node);
        }
        node
    }

    fn too_large(&mut self, span: &Range<usize>, message: &str, help: &str) {
        self.full = true;
        let diagnostic = self.at(&codes::TOO_LARGE, span, message, "one too many");
        self.report(diagnostic.with_help(help));
    }

    /// Reads `a & b --> c --> d`.
    fn chain(&mut self) {
        let Some(mut from) = self.group() else {
            return self.unexpected();
        };
        while !self.full && self.go_to_link() {
            let Some(arrow) = self.link() else { break };
            self.cursor.eat_while(char::is_whitespace);
            self.comments_in_chain();
            let Some(to) = self.group() else {
                if arrow.connects {
                    let diagnostic =
                        self.at(&codes::UNREADABLE, &arrow.span, "an edge leads nowhere", "no task behind this arrow");
                    self.report(diagnostic.with_help("name the task it leads to"));
                }
                return;
            };
            if arrow.connects {
                self.connect(&from, &to, &arrow);
            }
            from = to;
        }
    }

    /// Goes to the next link, which may stand on a following line. Stays when there is none.
    fn go_to_link(&mut self) -> bool {
        let before = self.cursor.at();
        self.cursor.eat_while(char::is_whitespace);
        self.comments_in_chain();
        let edge_id = self.edge_id_here().is_some();
        let lookalike = self.cursor.rest().starts_with(['→', '⟶', '⇒', '➔', '➜', '–', '—']);
        let x_or_o = self.cursor.rest().starts_with(['x', 'o'])
            && ["==", "-."].iter().any(|sign| self.cursor.rest()[1..].starts_with(sign));
        if self.link_is_here() || edge_id || lookalike || x_or_o {
            return true;
        }
        self.cursor.move_to(before);
        false
    }

    /// Steps over whole-line comments between the parts of a chain.
    fn comments_in_chain(&mut self) {
        while self.cursor.rest().starts_with("%%") && !self.cursor.rest().starts_with("%%{") {
            let before = self.cursor.slice(0..self.cursor.at());
            if !before[before.rfind('\n').map_or(0, |at| at + 1)..].trim().is_empty() {
                return;
            }
            self.cursor.skip_line();
            self.cursor.eat_while(char::is_whitespace);
        }
    }

    /// Reads `a & b & c`.
    fn group(&mut self) -> Option<Vec<Mention>> {
        let mut mentions = vec![self.node()?];
        loop {
            let before = self.cursor.at();
            self.cursor.blanks();
            let sign = self.cursor.at();
            if !self.cursor.eat("&") {
                self.cursor.move_to(before);
                return Some(mentions);
            }
            self.cursor.blanks();
            match self.node() {
                Some(mention) => mentions.push(mention),
                None => {
                    let diagnostic = self.at(&codes::UNREADABLE, &(sign..sign + 1), "no task behind `&`", "joins nothing");
                    self.report(diagnostic.with_help("name another task on the same line, or remove `&`"));
                    return Some(mentions);
                }
            }
        }
    }

    fn connect(&mut self, from: &[Mention], to: &[Mention], arrow: &super::link::Arrow) {
        if self.sketch.links.len() + from.len() * to.len() > LINKS_MAX {
            return self.too_large(
                &arrow.span,
                &format!("the graph has more than {LINKS_MAX} edges"),
                "split it into several topologies",
            );
        }
        for from in from {
            for to in to {
                self.sketch.links.push(Link {
                    from: from.node,
                    to: to.node,
                    label: arrow.label.clone(),
                    arrow: arrow.span.clone(),
                    span: from.span.start.min(to.span.start)..from.span.end.max(to.span.end),
                    length: arrow.length,
                });
            }
        }
    }

    /// Reports what stands where a statement should begin.
    fn unexpected(&mut self) {
        let start = self.cursor.at();
        let span = start..self.cursor.line_end();
        let message = if self.link_is_here() { "an edge begins nowhere" } else { "this is no statement" };
        let diagnostic = self.at(&codes::UNREADABLE, &span, message, "not understood");
        self.report(diagnostic.with_help("a statement begins with the name of a task: `a --> b`"));
        self.cursor.skip_line();
    }

    /// Reports what stands behind a statement on its line.
    pub(super) fn end_of_statement(&mut self) {
        self.cursor.blanks();
        if self.cursor.at_end_of_statement() || self.full {
            return;
        }
        let start = self.cursor.at();
        if self.cursor.rest().starts_with("%%") {
            return self.comment();
        }
        let span = start..self.cursor.line_end();
        let bracket = self.cursor.rest().starts_with(['[', '(', '{']);
        let help = if bracket {
            "write the text right behind the name, without a blank: `a[Text]`"
        } else {
            "begin a new line, or put `;` before it"
        };
        let diagnostic = self.at(&codes::UNREADABLE, &span, "more text behind a statement", "not understood");
        self.report(diagnostic.with_help(help));
        self.cursor.skip_line();
    }
}

/// The direction that a header names, Mermaid's signs included.
fn direction(given: &str) -> Option<Direction> {
    match given {
        "TB" | "TD" | "v" => Some(Direction::TopToBottom),
        "BT" | "^" => Some(Direction::BottomToTop),
        "LR" | ">" => Some(Direction::LeftToRight),
        "RL" | "<" => Some(Direction::RightToLeft),
        _ => None,
    }
}
