//! The graph as the later passes see it: every edge cut into pieces between neighbouring layers, by items that hold a place for it.

use super::Sizes;
use crate::draw::figure::Figure;

/// Pieces that all edges together may be cut into. Edges beyond it, the longest first, run in lanes beside the drawing instead: a
/// thousand nodes with skips over hundreds of layers would need a hundred thousand pieces, and no eye could follow one of them anyway.
const BENDS_MAX: usize = 12_000;

/// What an item holds a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A task.
    Node(usize),
    /// An edge that passes this layer.
    Bend(usize),
    /// An edge that passes this layer with its label.
    Label(usize),
    /// The first side of a group's box.
    Open(usize),
    /// The other side of a group's box.
    Close(usize),
}

/// Something with a place in a layer.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) layer: usize,
    /// Extent across the flow.
    pub(super) cross: f64,
    /// Extent along the flow.
    pub(super) flow: f64,
    /// The innermost group whose box it belongs in; for the sides of a box that group itself.
    pub(super) group: Option<usize>,
}

/// The first and the last layer of a group's box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Span {
    fn holds(self, layer: usize) -> bool {
        (self.first..=self.last).contains(&layer)
    }
}

/// How an edge runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// Its items from its source to its target, both included; without the target when it leaves into a lane.
    pub(super) items: Vec<usize>,
    /// Whether it runs in a lane beside the drawing.
    pub(super) lane: bool,
}

/// The graph in layers.
#[derive(Clone, Debug, Default)]
pub(super) struct Layered {
    pub(super) items: Vec<Item>,
    /// The items of each layer, from one side to the other.
    pub(super) layers: Vec<Vec<usize>>,
    /// For each item its neighbours in the layer before, edge by edge.
    pub(super) up: Vec<Vec<usize>>,
    /// For each item its neighbours in the layer after, edge by edge.
    pub(super) down: Vec<Vec<usize>>,
    /// For each edge of the figure.
    pub(super) chains: Vec<Chain>,
    /// For each group of the figure; `None` where nothing is inside.
    pub(super) spans: Vec<Option<Span>>,
    /// For each group, the items of its two sides, layer by layer.
    pub(super) sides: Vec<Vec<(usize, usize)>>,
    /// For each group, the group around it.
    pub(super) parents: Vec<Option<usize>>,
}

impl Layered {
    /// Cuts the edges of `figure`. Node `n` becomes item `n`.
    pub(super) fn new(figure: &Figure, ranks: &[usize], sizes: &Sizes) -> Layered {
        let (layer_of_rank, layer_count) = layers_of_ranks(figure, ranks);
        let mut layered = Layered {
            layers: vec![Vec::new(); layer_count],
            parents: figure.groups.iter().map(|group| group.parent).collect(),
            ..Layered::default()
        };
        for (index, node) in figure.nodes.iter().enumerate() {
            let size = sizes.nodes[index];
            layered.push(Kind::Node(index), layer_of_rank[ranks[index]], size, node.group);
        }
        layered.find_spans(figure);
        let lanes = layered.choose_lanes(figure);
        for (index, &lane) in lanes.iter().enumerate() {
            layered.cut(figure, index, lane, sizes);
        }
        layered.add_sides(sizes);
        layered
    }

    fn push(&mut self, kind: Kind, layer: usize, (cross, flow): (f64, f64), group: Option<usize>) -> usize {
        let item = self.items.len();
        self.items.push(Item { kind, layer, cross, flow, group });
        self.layers[layer].push(item);
        self.up.push(Vec::new());
        self.down.push(Vec::new());
        item
    }

    fn find_spans(&mut self, figure: &Figure) {
        self.spans = vec![None; figure.groups.len()];
        for (index, node) in figure.nodes.iter().enumerate() {
            let layer = self.items[index].layer;
            let mut at = node.group;
            while let Some(group) = at {
                let span = self.spans[group].get_or_insert(Span { first: layer, last: layer });
                span.first = span.first.min(layer);
                span.last = span.last.max(layer);
                at = self.parents[group];
            }
        }
    }

    /// Which edges run in lanes: the longest ones beyond [`BENDS_MAX`].
    fn choose_lanes(&self, figure: &Figure) -> Vec<bool> {
        let mut by_bends: Vec<(usize, usize)> = figure
            .links
            .iter()
            .enumerate()
            .map(|(index, link)| (self.items[link.to].layer.saturating_sub(self.items[link.from].layer + 1), index))
            .collect();
        by_bends.sort();
        let mut lanes = vec![false; figure.links.len()];
        let mut total = 0;
        for (bends, index) in by_bends {
            total += bends;
            lanes[index] = total > BENDS_MAX;
        }
        lanes
    }

    fn cut(&mut self, figure: &Figure, index: usize, lane: bool, sizes: &Sizes) {
        let link = &figure.links[index];
        let (first, last) = (self.items[link.from].layer, self.items[link.to].layer);
        let mut chain = Chain { items: vec![link.from], lane };
        for layer in first + 1..last {
            let group = self.group_at(figure, index, layer);
            let item = match sizes.labels[index] {
                Some(size) if layer == first + 1 => self.push(Kind::Label(index), layer, size, group),
                _ if lane => break,
                _ => self.push(Kind::Bend(index), layer, (0.0, 0.0), group),
            };
            chain.items.push(item);
        }
        if !lane {
            chain.items.push(link.to);
        }
        for pair in chain.items.windows(2) {
            self.down[pair[0]].push(pair[1]);
            self.up[pair[1]].push(pair[0]);
        }
        self.chains.push(chain);
    }

    /// The group in which an edge passes a layer: as long as its source's box lasts it stays inside, and it enters its target's box as
    /// soon as that begins, so that it crosses a box's near side rather than its flanks.
    fn group_at(&self, figure: &Figure, index: usize, layer: usize) -> Option<usize> {
        let link = &figure.links[index];
        let enclosing = |from: Option<usize>| {
            let mut at = from;
            while let Some(group) = at {
                if self.spans[group].is_some_and(|span| span.holds(layer)) {
                    return Some(group);
                }
                at = self.parents[group];
            }
            None
        };
        let of_source = enclosing(figure.nodes[link.from].group);
        let of_target = enclosing(figure.nodes[link.to].group);
        match (of_source, of_target) {
            (Some(source), Some(target)) if self.is_within(target, source) => Some(target),
            (Some(source), _) => Some(source),
            (None, target) => target,
        }
    }

    fn is_within(&self, inner: usize, outer: usize) -> bool {
        let mut at = Some(inner);
        while let Some(group) = at {
            if group == outer {
                return true;
            }
            at = self.parents[group];
        }
        false
    }

    fn add_sides(&mut self, sizes: &Sizes) {
        self.sides = vec![Vec::new(); self.spans.len()];
        for group in 0..self.spans.len() {
            let Some(span) = self.spans[group] else { continue };
            for layer in span.first..=span.last {
                let open = self.push(Kind::Open(group), layer, (sizes.group_open, 0.0), Some(group));
                let close = self.push(Kind::Close(group), layer, (sizes.group_close, 0.0), Some(group));
                self.sides[group].push((open, close));
            }
        }
    }

    /// Whether an item is a task rather than a place kept for an edge or a box.
    pub(super) fn is_node(&self, item: usize) -> bool {
        matches!(self.items[item].kind, Kind::Node(_))
    }

    /// Whether an item is a side of a group's box.
    pub(super) fn is_side(&self, item: usize) -> bool {
        matches!(self.items[item].kind, Kind::Open(_) | Kind::Close(_))
    }
}

/// The layer of each rank and the number of layers: a rank from which a labelled edge leaves is followed by a layer for its labels.
fn layers_of_ranks(figure: &Figure, ranks: &[usize]) -> (Vec<usize>, usize) {
    let rank_count = ranks.iter().max().map_or(0, |last| last + 1);
    let mut labelled = vec![false; rank_count];
    for link in figure.links.iter().filter(|link| link.label.is_some()) {
        labelled[ranks[link.from]] = true;
    }
    let mut layer_of_rank = Vec::with_capacity(rank_count);
    let mut next = 0;
    for &labels_follow in &labelled {
        layer_of_rank.push(next);
        next += 1 + usize::from(labels_follow);
    }
    (layer_of_rank, next)
}
