//! The last pass: where the layers lie along the flow, where edges meet the outlines of tasks, and the lines between.

use super::geometry::{Path, Point, Rect, Step};
use super::layered::{Item, Kind, Layered};
use super::{CYLINDER_CAP, GROUP_PADDING, HEAD, MARGIN, PORT_DISTANCE, TITLE_STRIP, is_vertical};
use crate::draw::figure::Figure;
use crate::draw::measure;
use crate::{Direction, Shape};

/// Length of the gap after a layer of tasks in which edges bend.
const GAP: f64 = 34.0;
/// The same beside a layer of labels: two such gaps and the labels make one way from task to task.
const LABEL_GAP: f64 = 20.0;
/// A gap grows by this share of the widest bend in it, so that edges never run almost along the layer.
const GAP_GROWTH: f64 = 0.10;
/// Most that a gap grows: in a drawing of thousands of pixels the slope does not matter any more.
const GAP_GROWTH_MAX: f64 = 90.0;
/// Distance of lanes beside the drawing.
const LANE: f64 = 10.0;

/// All measures of a drawing that flows from top to bottom.
pub(super) struct Plan {
    pub(super) cross: f64,
    pub(super) flow: f64,
    pub(super) groups: Vec<Option<Rect>>,
    pub(super) labels: Vec<Option<Rect>>,
    pub(super) paths: Vec<Path>,
    places: Vec<f64>,
    bands: Vec<Band>,
}

/// A layer along the flow. Between `bend_end` of one layer's gap and the next band lie only straight pieces and sides of boxes.
#[derive(Clone, Copy, Debug, Default)]
struct Band {
    start: f64,
    end: f64,
    /// Where edges that go on begin to bend.
    bend_start: f64,
    /// Where they have to be straight again.
    bend_end: f64,
}

impl Band {
    fn middle(self) -> f64 {
        (self.start + self.end) / 2.0
    }
}

impl Plan {
    pub(super) fn new(figure: &Figure, layered: &Layered, places: Vec<f64>) -> Plan {
        let vertical = is_vertical(figure.direction);
        let cross_end = layered.items.iter().zip(&places).map(|(item, at)| at + item.cross / 2.0).fold(MARGIN, f64::max);
        let mut plan = Plan {
            cross: cross_end + MARGIN,
            flow: 0.0,
            groups: Vec::new(),
            labels: Vec::new(),
            paths: Vec::new(),
            places,
            bands: Vec::new(),
        };
        let mut lanes = 0.0;
        let lane_of: Vec<f64> = layered
            .chains
            .iter()
            .map(|chain| {
                lanes += if chain.lane { LANE } else { 0.0 };
                cross_end + LANE + lanes
            })
            .collect();
        if lanes > 0.0 {
            plan.cross = cross_end + LANE + lanes + MARGIN;
        }
        let ports = Ports::new(figure, layered, &plan.places, &lane_of, vertical);
        let room = GroupRoom::new(figure, layered);
        plan.lay_bands(layered, &ports, &lane_of, &room);
        plan.groups = (0..figure.groups.len()).map(|group| plan.group_rect(layered, group, &room)).collect();
        for (index, chain) in layered.chains.iter().enumerate() {
            let label = chain.items.iter().find(|&&item| layered.items[item].kind == Kind::Label(index));
            plan.labels.push(label.map(|&item| plan.item_rect(layered, item)));
            let path = plan.path(figure, layered, index, &ports, lane_of[index], vertical);
            plan.paths.push(path);
        }
        plan
    }

    /// The box kept for an item.
    pub(super) fn item_rect(&self, layered: &Layered, item: usize) -> Rect {
        let Item { cross, flow, layer, .. } = layered.items[item];
        Rect::around(Point { x: self.places[item], y: self.bands[layer].middle() }, cross, flow)
    }

    fn lay_bands(&mut self, layered: &Layered, ports: &Ports, lane_of: &[f64], room: &GroupRoom) {
        let count = layered.layers.len();
        let bends = self.widest_bends(layered, ports, lane_of);
        let mut at = MARGIN + room.before[0];
        for (layer, items) in layered.layers.iter().enumerate() {
            let thickness = items.iter().map(|&item| layered.items[item].flow).fold(0.0, f64::max);
            let end = at + thickness;
            if layer + 1 == count {
                self.bands.push(Band { start: at, end, bend_start: end, bend_end: end });
                self.flow = end + room.after[layer] + MARGIN;
                break;
            }
            let labels = [layer, layer + 1].iter().any(|&layer| !layered.layers[layer].iter().any(|&item| layered.is_node(item)));
            let gap = if labels { LABEL_GAP } else { GAP } + (bends[layer] * GAP_GROWTH).min(GAP_GROWTH_MAX);
            let bend_start = end + room.after[layer];
            let bend_end = bend_start + gap;
            self.bands.push(Band { start: at, end, bend_start, bend_end });
            at = bend_end + HEAD + room.before[layer + 1];
        }
    }

    /// For each gap, how far the widest of its edges goes across.
    fn widest_bends(&self, layered: &Layered, ports: &Ports, lane_of: &[f64]) -> Vec<f64> {
        let mut widest = vec![0.0_f64; layered.layers.len()];
        for (index, chain) in layered.chains.iter().enumerate() {
            let stops = self.stops(layered, index, ports, lane_of[index]);
            for pair in stops.windows(2) {
                let ((layer, from), (_, to)) = (pair[0], pair[1]);
                widest[layer] = widest[layer].max((from - to).abs());
            }
            if let (true, [.., before, last]) = (chain.lane, stops.as_slice()) {
                widest[last.0 - 1] = widest[last.0 - 1].max((before.1 - last.1).abs());
            }
        }
        widest
    }

    /// The layers an edge touches with its places in them; in a lane the layers between are left out.
    fn stops(&self, layered: &Layered, index: usize, ports: &Ports, lane: f64) -> Vec<(usize, f64)> {
        let chain = &layered.chains[index];
        let last = chain.items.len() - 1;
        let mut stops: Vec<(usize, f64)> = chain
            .items
            .iter()
            .enumerate()
            .map(|(at, &item)| {
                let place = match at {
                    0 => ports.out[index],
                    _ if at == last && !chain.lane => ports.into[index],
                    _ => self.places[item],
                };
                (layered.items[item].layer, place)
            })
            .collect();
        if chain.lane {
            stops.push((stops[last].0 + 1, lane));
            stops.push((ports.target_layer[index], ports.into[index]));
        }
        stops
    }

    fn path(&self, figure: &Figure, layered: &Layered, index: usize, ports: &Ports, lane: f64, vertical: bool) -> Path {
        let link = &figure.links[index];
        let stops = self.stops(layered, index, ports, lane);
        let (source, target) = (self.item_rect(layered, link.from), self.item_rect(layered, link.to));
        let leave = source.bottom() - inset(figure.nodes[link.from].shape, source, ports.out[index], vertical);
        let arrive = target.y + inset(figure.nodes[link.to].shape, target, ports.into[index], vertical);
        let mut path = Path { start: Point { x: ports.out[index], y: leave }, steps: Vec::new() };
        for pair in stops.windows(2) {
            let ((layer, from), (next, to)) = (pair[0], pair[1]);
            // A lane ends in the gap before the target, every other piece in the gap after its start.
            let gap = self.bands[if next > layer + 1 { next - 1 } else { layer }];
            path.flow_to(Point { x: from, y: gap.bend_start });
            path.flow_to(Point { x: to, y: gap.bend_end });
        }
        path.flow_to(Point { x: ports.into[index], y: arrive });
        path
    }

    fn group_rect(&self, layered: &Layered, group: usize, room: &GroupRoom) -> Option<Rect> {
        let span = layered.spans[group]?;
        let &(open, close) = layered.sides[group].first()?;
        let x = self.places[open] - layered.items[open].cross / 2.0;
        let right = self.places[close] + layered.items[close].cross / 2.0;
        let y = self.bands[span.first].start - room.ends[group].0;
        let bottom = self.bands[span.last].end + room.ends[group].1;
        Some(Rect { x, y, width: right - x, height: bottom - y })
    }
}

/// Room along the flow for the ends of groups' boxes.
struct GroupRoom {
    /// Before each layer, for boxes that begin with it.
    before: Vec<f64>,
    /// After each layer, for boxes that end with it.
    after: Vec<f64>,
    /// For each group, from its box's start to its first layer and from its last layer to its box's end.
    ends: Vec<(f64, f64)>,
}

impl GroupRoom {
    fn new(figure: &Figure, layered: &Layered) -> GroupRoom {
        let layers = layered.layers.len().max(1);
        let mut room =
            GroupRoom { before: vec![0.0; layers], after: vec![0.0; layers], ends: vec![(0.0, 0.0); figure.groups.len()] };
        let (title_start, title_end) = match figure.direction {
            Direction::TopToBottom => (TITLE_STRIP, GROUP_PADDING),
            Direction::BottomToTop => (GROUP_PADDING, TITLE_STRIP),
            Direction::LeftToRight | Direction::RightToLeft => (GROUP_PADDING, GROUP_PADDING),
        };
        // Inner groups stand after outer ones, so backwards each group knows what it encloses.
        for group in (0..figure.groups.len()).rev() {
            let Some(span) = layered.spans[group] else { continue };
            let missing = missing_length(figure, group, span.last - span.first + 1);
            room.ends[group].0 += title_start + missing / 2.0;
            room.ends[group].1 += title_end + missing / 2.0;
            let (start, end) = room.ends[group];
            room.before[span.first] = room.before[span.first].max(start);
            room.after[span.last] = room.after[span.last].max(end);
            if let Some(parent) = layered.parents[group]
                && let Some(outer) = layered.spans[parent]
            {
                if outer.first == span.first {
                    room.ends[parent].0 = room.ends[parent].0.max(start);
                }
                if outer.last == span.last {
                    room.ends[parent].1 = room.ends[parent].1.max(end);
                }
            }
        }
        room
    }
}

/// What a box that lies along a horizontal flow lacks to show its title, which stands along its long side.
fn missing_length(figure: &Figure, group: usize, layers: usize) -> f64 {
    /// No layer of tasks with its box's padding is shorter than this.
    const LAYER_LEAST: f64 = 80.0;
    /// Longer titles are cut.
    const TITLE_MAX: f64 = 200.0;
    if is_vertical(figure.direction) {
        return 0.0;
    }
    let title = measure::width(figure.groups[group].caption(), super::LABEL_FONT).min(TITLE_MAX) + 2.0 * GROUP_PADDING;
    (title - LAYER_LEAST * layers as f64).max(0.0)
}

/// Where edges leave and reach tasks, across the flow.
struct Ports {
    out: Vec<f64>,
    into: Vec<f64>,
    target_layer: Vec<usize>,
}

impl Ports {
    fn new(figure: &Figure, layered: &Layered, places: &[f64], lane_of: &[f64], vertical: bool) -> Ports {
        let count = figure.links.len();
        let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); figure.nodes.len()];
        let mut reaching: Vec<Vec<usize>> = vec![Vec::new(); figure.nodes.len()];
        for (index, link) in figure.links.iter().enumerate() {
            leaving[link.from].push(index);
            reaching[link.to].push(index);
        }
        // The place each edge comes from or goes to in the neighbouring layer; lanes are beside everything.
        let after: Vec<f64> =
            (0..count).map(|index| layered.chains[index].items.get(1).map_or(lane_of[index], |&item| places[item])).collect();
        let before: Vec<f64> = (0..count)
            .map(|index| {
                let chain = &layered.chains[index];
                if chain.lane { lane_of[index] } else { places[chain.items[chain.items.len() - 2]] }
            })
            .collect();
        for links in &mut leaving {
            links.sort_by(|&one, &other| after[one].total_cmp(&after[other]));
        }
        for links in &mut reaching {
            links.sort_by(|&one, &other| before[one].total_cmp(&before[other]));
        }
        let side = |links: &[Vec<usize>], wanted: &[f64]| {
            let mut found = vec![0.0; count];
            for (node, links) in links.iter().enumerate() {
                let (middle, half) = (places[node], layered.items[node].cross / 2.0);
                let (usual, most) = port_shares(figure.nodes[node].shape, vertical);
                let wishes: Vec<f64> =
                    links.iter().map(|&index| reachable(wanted[index], middle, half * usual, half * most)).collect();
                for (&index, at) in links.iter().zip(spread(&wishes, middle - half * most, middle + half * most)) {
                    found[index] = at;
                }
            }
            found
        };
        let direct = |index: usize| layered.chains[index].items.len() == 2 && !layered.chains[index].lane;
        let meet = |ends: &[f64], otherwise: &[f64]| -> Vec<f64> {
            (0..count).map(|index| if direct(index) { ends[index] } else { otherwise[index] }).collect()
        };
        let out = side(&leaving, &after);
        let into = side(&reaching, &meet(&out, &before));
        let out = side(&leaving, &meet(&into, &after));
        let target_layer = figure.links.iter().map(|link| layered.items[link.to].layer).collect();
        Ports { out, into, target_layer }
    }
}

/// The shares of a side, from its middle outwards, on which edges usually end, and on which they end at most: where that makes an edge
/// straight, or where there are many.
pub(super) fn port_shares(shape: Shape, vertical: bool) -> (f64, f64) {
    match shape {
        Shape::Diamond => (0.3, 0.75),
        Shape::Stadium if !vertical => (0.55, 0.75),
        Shape::Stadium | Shape::Cylinder if vertical => (0.6, 0.75),
        Shape::Rectangle | Shape::Rounded | Shape::Stadium | Shape::Cylinder => (0.66, 0.85),
    }
}

/// A wish that the side can fulfil, or else the end of the usual part.
fn reachable(wish: f64, middle: f64, usual: f64, most: f64) -> f64 {
    if (wish - middle).abs() <= most { wish } else { wish.clamp(middle - usual, middle + usual) }
}

/// Places near the wishes, in their order, within `low..=high`, and apart from each other: least squares, by pooling neighbours that
/// would stand too close.
fn spread(wishes: &[f64], low: f64, high: f64) -> Vec<f64> {
    let gaps = wishes.len().saturating_sub(1).max(1) as f64;
    let apart = PORT_DISTANCE.min((high - low) / gaps);
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (index, wish) in wishes.iter().enumerate() {
        let mut pool = (wish.clamp(low, high) - apart * index as f64, 1);
        while let Some(&(before, size)) = pools.last()
            && before > pool.0
        {
            pools.pop();
            let total = size + pool.1;
            pool = ((before * size as f64 + pool.0 * pool.1 as f64) / total as f64, total);
        }
        pools.push(pool);
    }
    let last = high - apart * wishes.len().saturating_sub(1) as f64;
    let flat = pools.into_iter().flat_map(|(at, size)| std::iter::repeat_n(at, size));
    flat.enumerate().map(|(index, at)| at.clamp(low, last.max(low)) + apart * index as f64).collect()
}

/// How far inside a node's box its outline lies where an edge meets it.
fn inset(shape: Shape, rect: Rect, at: f64, vertical: bool) -> f64 {
    let offset = (at - rect.center().x).abs();
    match shape {
        Shape::Rectangle | Shape::Rounded => 0.0,
        Shape::Diamond => rect.height / 2.0 * (offset / (rect.width / 2.0)),
        Shape::Stadium if vertical => 0.0,
        Shape::Stadium => {
            let radius = rect.width / 2.0;
            radius - (radius * radius - offset * offset).max(0.0).sqrt()
        }
        Shape::Cylinder if vertical => {
            let share = (offset / (rect.width / 2.0)).min(1.0);
            CYLINDER_CAP * (1.0 - (1.0 - share * share).sqrt())
        }
        Shape::Cylinder => 0.0,
    }
}

/// Where a path that is already turned crosses a horizontal line, each to a pixel or so.
pub(super) fn crossings_at(path: &Path, y: f64) -> Vec<f64> {
    let mut found = Vec::new();
    let mut from = path.start;
    for step in &path.steps {
        let to = match *step {
            Step::Line(end) | Step::Curve(_, _, end) => end,
        };
        if (from.y - y) * (to.y - y) <= 0.0 {
            let share = if (to.y - from.y).abs() < f64::EPSILON { 0.0 } else { (y - from.y) / (to.y - from.y) };
            found.push(from.x + (to.x - from.x) * share);
        }
        from = to;
    }
    found
}
