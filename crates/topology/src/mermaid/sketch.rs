//! What the parser gives: the graph as drawn, not yet checked for what it means.

use std::collections::HashMap;
use std::ops::Range;

use crate::{Direction, Shape};

/// A word of the graph and where it stands in the graph's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// A whole graph.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    pub(crate) direction: Direction,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    /// Outer boxes before those they enclose.
    pub(crate) boxes: Vec<Box>,
    pub(crate) stylings: Vec<Styling>,
    /// False when something could not be read, so that a missing node or link proves nothing.
    pub(crate) complete: bool,
    index: HashMap<String, usize>,
}

impl Sketch {
    /// The number of the node with that id; a new one when the id is new.
    pub(super) fn node(&mut self, id: &Word) -> usize {
        if let Some(&known) = self.index.get(&id.text) {
            return known;
        }
        let number = self.nodes.len();
        self.nodes.push(Node { id: id.clone(), text: None, shape: Shape::default(), classes: Vec::new() });
        self.index.insert(id.text.clone(), number);
        number
    }

    /// The number of the node with that id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }
}

/// A node, as far as the graph tells.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its id where it is first mentioned.
    pub(crate) id: Word,
    pub(crate) text: Option<String>,
    pub(crate) shape: Shape,
    pub(crate) classes: Vec<String>,
}

/// An arrow between two nodes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) label: Option<Word>,
    pub(crate) arrow: Range<usize>,
    /// From the mention of the one node to that of the other.
    pub(crate) span: Range<usize>,
    pub(crate) length: usize,
}

/// A subgraph.
#[derive(Debug)]
pub(crate) struct Box {
    /// What the author wrote as its id; a title with blanks serves as its own id, as in Mermaid.
    pub(crate) id: Word,
    pub(crate) title: Option<String>,
    pub(crate) direction: Option<Direction>,
    pub(crate) parent: Option<usize>,
    pub(crate) nodes: Vec<usize>,
}

/// A statement about looks.
#[derive(Debug)]
pub(crate) enum Styling {
    ClassDef {
        classes: Vec<String>,
        css: String,
    },
    Class {
        nodes: Vec<Word>,
        class: String,
    },
    Style {
        nodes: Vec<Word>,
        css: String,
    },
    /// `None` stands for `default`.
    LinkStyle {
        links: Option<Vec<(usize, Range<usize>)>>,
        css: String,
    },
}
