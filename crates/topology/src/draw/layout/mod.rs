//! The layout of a drawing in layers, after Sugiyama: ranks, orders, places, then the lines of the edges.
//!
//! Everything is laid out from top to bottom (`cross` is across, `flow` is down) and turned at the end. Between two layers lies a gap in
//! which no task stands; edges bend only there and run straight through the layers, in places kept for them. So no edge can meet a foreign
//! task and no label anything at all, whatever the graph.

mod geometry;
mod grid;
mod layered;
mod order;
mod place;
mod rank;
mod refine;
mod route;
#[cfg(test)]
mod tests;

pub(crate) use geometry::{Path, Point, Rect, Step};
pub(crate) use grid::Grid;

use super::figure::Figure;
use super::measure;
use crate::{Direction, Shape};
use geometry::Turn;
use layered::Layered;
use place::Distances;

/// Size of the text in boxes, in pixels.
pub(crate) const NODE_FONT: f64 = 14.0;
/// Size of labels and of titles of groups: smaller than tasks, still readable at half size.
pub(crate) const LABEL_FONT: f64 = 12.0;
/// Distance of two lines of a node's text.
pub(crate) const LINE_HEIGHT: f64 = 18.0;
/// Height of the curved ends of a cylinder.
pub(crate) const CYLINDER_CAP: f64 = 6.0;
/// Length of an arrow's head.
pub(crate) const HEAD: f64 = 8.0;

const MARGIN: f64 = 16.0;
const NODE_PADDING: (f64, f64) = (16.0, 10.0);
const NODE_WIDTH_MIN: f64 = 56.0;
const LABEL_PADDING: (f64, f64) = (6.0, 2.0);
const LABEL_HEIGHT: f64 = 16.0;
/// Room for a group's title.
const TITLE_STRIP: f64 = 24.0;
/// Between a group's box and what is inside, where no title stands.
const GROUP_PADDING: f64 = 12.0;
/// Distance of the ends of two edges on one side of a box, where the box is long enough.
const PORT_DISTANCE: f64 = 12.0;
/// Distance for which a box grows when it has many edges: arrow heads of 7 pixels still stand apart.
const PORT_DISTANCE_MIN: f64 = 9.0;
/// A box grows with its edges up to this many on a side; a hub of hundreds stays a box and its edges fan out.
const PORTS_MAX: usize = 40;
/// How often a box is widened for its title before the title is cut instead.
const TITLE_ROUNDS: usize = 3;

/// A drawing with all its measures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) nodes: Vec<NodeBox>,
    /// In the order of the figure's groups; `None` where nothing is inside.
    pub(crate) groups: Vec<Option<GroupBox>>,
    pub(crate) links: Vec<Path>,
    /// In the order of the figure's links; `None` where there is no label.
    pub(crate) labels: Vec<Option<Rect>>,
    /// How often edges cross.
    pub(crate) crossings: usize,
}

/// A task.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeBox {
    pub(crate) rect: Rect,
    pub(crate) lines: Vec<String>,
}

/// A subgraph.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupBox {
    pub(crate) rect: Rect,
    pub(crate) title: String,
    /// What the title takes, inside the box.
    pub(crate) title_rect: Rect,
}

/// Sizes across and along the flow.
pub(in crate::draw) struct Sizes {
    nodes: Vec<(f64, f64)>,
    labels: Vec<Option<(f64, f64)>>,
    group_open: f64,
    group_close: f64,
}

/// Lays a figure out. Its links must not form a cycle.
pub(crate) fn layout(figure: &Figure) -> Picture {
    let texts: Vec<Vec<String>> = figure.nodes.iter().map(|node| measure::lines(node.caption())).collect();
    let vertical = is_vertical(figure.direction);
    let sizes = sizes(figure, &texts, vertical);
    let ranks = rank::ranks(figure);
    let mut layered = Layered::new(figure, &ranks, &sizes);
    let crossings = order::order(&mut layered);
    let distances = if vertical {
        Distances { nodes: 28.0, edges: 14.0, others: 14.0 }
    } else {
        Distances { nodes: 18.0, edges: 12.0, others: 12.0 }
    };
    let mut places = place::place(&layered, distances);
    if vertical {
        for _ in 0..TITLE_ROUNDS {
            if !widen_for_titles(figure, &mut layered, &places) {
                break;
            }
            places = place::place(&layered, distances);
        }
    }
    for place in &mut places {
        *place += MARGIN;
    }
    let plan = route::Plan::new(figure, &layered, places);
    let turn = Turn { direction: figure.direction, flow: plan.flow };
    let corner = turn.rect(Rect { x: 0.0, y: 0.0, width: plan.cross, height: plan.flow });
    let links: Vec<Path> = plan.paths.iter().map(|path| turn.path(path)).collect();
    let nodes = texts
        .into_iter()
        .enumerate()
        .map(|(index, lines)| NodeBox { rect: turn.rect(plan.item_rect(&layered, index)), lines })
        .collect();
    let groups = plan
        .groups
        .iter()
        .enumerate()
        .map(|(index, rect)| rect.map(|rect| titled(figure.groups[index].caption(), turn.rect(rect), &links, vertical)))
        .collect();
    let labels = plan.labels.iter().map(|rect| rect.map(|rect| turn.rect(rect))).collect();
    Picture { width: corner.width, height: corner.height, nodes, groups, links, labels, crossings }
}

fn is_vertical(direction: Direction) -> bool {
    matches!(direction, Direction::TopToBottom | Direction::BottomToTop)
}

fn sizes(figure: &Figure, texts: &[Vec<String>], vertical: bool) -> Sizes {
    let turned = |(width, height): (f64, f64)| if vertical { (width, height) } else { (height, width) };
    let mut ports = vec![(0_usize, 0_usize); figure.nodes.len()];
    for link in &figure.links {
        ports[link.from].0 += 1;
        ports[link.to].1 += 1;
    }
    let nodes = figure
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let (cross, flow) = turned(node_size(node.shape, &texts[index]));
            let most = ports[index].0.max(ports[index].1).min(PORTS_MAX);
            let room = (most as f64 - 1.0).max(0.0) * PORT_DISTANCE_MIN / route::port_shares(node.shape, vertical).1;
            (cross.max(room), flow)
        })
        .collect();
    let labels = figure
        .links
        .iter()
        .map(|link| {
            link.label.as_ref().map(|label| {
                turned((measure::width(label, LABEL_FONT) + 2.0 * LABEL_PADDING.0, LABEL_HEIGHT + 2.0 * LABEL_PADDING.1))
            })
        })
        .collect();
    let group_open = if vertical { 1.0 } else { TITLE_STRIP - GROUP_PADDING };
    Sizes { nodes, labels, group_open, group_close: 1.0 }
}

/// Width and height of a node's outline around its text.
fn node_size(shape: Shape, lines: &[String]) -> (f64, f64) {
    let text_width = lines.iter().map(|line| measure::width(line, NODE_FONT)).fold(0.0, f64::max);
    let text_height = lines.len() as f64 * LINE_HEIGHT;
    let (width, height) = (text_width + 2.0 * NODE_PADDING.0, text_height + 2.0 * NODE_PADDING.1);
    let (width, height) = match shape {
        Shape::Diamond => {
            // A text of w × h fits into a diamond of W × H when w/W + h/H is at most 1.
            let height = text_height * 2.2 + 18.0;
            ((text_width + 8.0) / (1.0 - (text_height + 4.0) / height), height)
        }
        Shape::Stadium => (width + height / 4.0, height),
        Shape::Cylinder => (width, height + 2.0 * CYLINDER_CAP),
        Shape::Rectangle | Shape::Rounded => (width, height),
    };
    (width.max(NODE_WIDTH_MIN).round(), height.round())
}

/// Gives the sides of boxes that are narrower than their titles more room; whether there were any.
fn widen_for_titles(figure: &Figure, layered: &mut Layered, places: &[f64]) -> bool {
    let mut widened = false;
    for (index, group) in figure.groups.iter().enumerate() {
        let Some(&(open, close)) = layered.sides[index].first() else { continue };
        let wanted = measure::width(group.caption(), LABEL_FONT) + 2.0 * GROUP_PADDING;
        let width = places[close] - places[open] + (layered.items[open].cross + layered.items[close].cross) / 2.0;
        if width + 0.5 < wanted.min(TITLE_WIDTH_MAX) {
            let more = (wanted.min(TITLE_WIDTH_MAX) - width) / 2.0;
            for (open, close) in layered.sides[index].clone() {
                layered.items[open].cross += more;
                layered.items[close].cross += more;
            }
            widened = true;
        }
    }
    widened
}

/// Titles longer than this are cut rather than their boxes widened.
const TITLE_WIDTH_MAX: f64 = 320.0;

/// A group with its title in the strip at the top of its box, at a place that no edge passes if there is one.
fn titled(caption: &str, rect: Rect, links: &[Path], vertical: bool) -> GroupBox {
    let title = measure::one_line(caption, LABEL_FONT, (rect.width - GROUP_PADDING).max(24.0));
    let width = measure::width(&title, LABEL_FONT);
    let strip = Rect { x: rect.x + 8.0, y: rect.y + 4.0, width, height: LABEL_HEIGHT };
    let last = (rect.right() - 8.0 - width).max(strip.x);
    let mut passing: Vec<f64> =
        if vertical { links.iter().flat_map(|link| route::crossings_at(link, strip.center().y)).collect() } else { Vec::new() };
    passing.retain(|&x| x > rect.x && x < rect.right());
    passing.sort_by(f64::total_cmp);
    let free = |x: f64| passing.iter().all(|&at| at < x - 4.0 || at > x + width + 4.0);
    let after_edges = passing.iter().map(|&at| at + 6.0).filter(|&x| x <= last);
    let x = std::iter::once(strip.x).chain(after_edges).find(|&x| free(x)).unwrap_or(strip.x);
    GroupBox { rect, title, title_rect: Rect { x, ..strip } }
}
