//! The layers and their order alone, for drawings that have no measures: the terminal's.

use super::layered::{Kind, Layered};
use super::{Sizes, order, rank};
use crate::draw::figure::{Figure, Link};

/// A figure in ordered layers, without groups.
pub(crate) struct Grid {
    /// The items of each layer in order.
    pub(crate) layers: Vec<Vec<usize>>,
    /// For each item its neighbours in the layer before.
    pub(crate) up: Vec<Vec<usize>>,
    /// For each item its neighbours in the layer after.
    pub(crate) down: Vec<Vec<usize>>,
    /// For each layer the pieces behind it that begin an edge with a label: both items and the edge.
    pub(crate) labelled: Vec<Vec<(usize, usize, usize)>>,
    nodes: Vec<Option<usize>>,
}

impl Grid {
    /// Orders the figure. Between two neighbouring layers every item with several neighbours on one side is the only neighbour of each
    /// of them, so that lines which branch and lines which join never mix.
    pub(crate) fn new(figure: &Figure) -> Grid {
        let (mut leaving, mut reaching) = (vec![0; figure.nodes.len()], vec![0; figure.nodes.len()]);
        for link in &figure.links {
            leaving[link.from] += 1;
            reaching[link.to] += 1;
        }
        let links = figure.links.iter().map(|link| {
            let mixed = leaving[link.from] > 1 && reaching[link.to] > 1;
            Link { label: None, length: link.length.max(if mixed { 2 } else { 1 }), ..link.clone() }
        });
        let mut plain = Figure { links: links.collect(), groups: Vec::new(), ..figure.clone() };
        plain.nodes.iter_mut().for_each(|node| node.group = None);
        let sizes = Sizes {
            nodes: vec![(1.0, 1.0); plain.nodes.len()],
            labels: vec![None; plain.links.len()],
            group_open: 0.0,
            group_close: 0.0,
        };
        let mut layered = Layered::new(&plain, &rank::ranks(&plain), &sizes);
        order::order(&mut layered);
        let mut labelled = vec![Vec::new(); layered.layers.len()];
        for (index, link) in figure.links.iter().enumerate() {
            if let (Some(_), [from, to, ..]) = (&link.label, layered.chains[index].items.as_slice()) {
                labelled[layered.items[*from].layer].push((*from, *to, index));
            }
        }
        let nodes = layered.items.iter().map(|item| if let Kind::Node(node) = item.kind { Some(node) } else { None }).collect();
        Grid { layers: layered.layers, up: layered.up, down: layered.down, labelled, nodes }
    }

    /// The node an item stands for; `None` where an edge passes.
    pub(crate) fn node(&self, item: usize) -> Option<usize> {
        self.nodes[item]
    }
}
