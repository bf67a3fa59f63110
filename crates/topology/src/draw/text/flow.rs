//! Boxes and arrows: one column for each layer, one row for each task, and channels between the columns in which lines branch and join.

use super::canvas::{Canvas, DOWN, LEFT, RIGHT, UP};
use super::{COLUMNS_MAX, ROWS_MAX};
use crate::draw::figure::Figure;
use crate::draw::layout::Grid;

/// More tasks than this never fit into [`COLUMNS_MAX`] by [`ROWS_MAX`] in a way one could follow.
const NODES_MAX: usize = 40;

/// Draws the figure, or `None` where it does not fit or lines could be mistaken for each other.
pub(super) fn draw(figure: &Figure, unicode: bool) -> Option<String> {
    if figure.nodes.is_empty() || figure.nodes.len() > NODES_MAX {
        return None;
    }
    let grid = Grid::new(figure);
    let rows = rows(&grid);
    if rows.iter().max().is_some_and(|&last| last >= ROWS_MAX) {
        return None;
    }
    let mut canvas = Canvas::default();
    let mut column = 0;
    for layer in 0..grid.layers.len() {
        let tasks = grid.layers[layer].iter().filter_map(|&item| grid.node(item));
        let arrow = if layer == 0 { 0 } else { 2 };
        // A layer that edges only pass takes no room.
        let end = tasks.map(|node| figure.nodes[node].id.len()).max().map_or(column, |width| column + arrow + width + 1);
        for &item in &grid.layers[layer] {
            let row = rows[item];
            match grid.node(item) {
                Some(node) => {
                    let id = &figure.nodes[node].id;
                    if !grid.up[item].is_empty() {
                        canvas.text(column, row, if unicode { "▶" } else { ">" });
                    }
                    canvas.text(column + arrow, row, id);
                    if !grid.down[item].is_empty() {
                        canvas.along(row, column + arrow + id.len() + 1, end);
                    }
                }
                None => canvas.along(row, column, end),
            }
        }
        if layer + 1 < grid.layers.len() {
            column = Channel::new(figure, &grid, layer, &rows)?.draw(&mut canvas, end);
        } else {
            column = end;
        }
    }
    (column <= COLUMNS_MAX + 1).then(|| canvas.finish(unicode))
}

/// A row for every item: each as high as those before it in its layer allow, in line with what leads to it where it can be.
fn rows(grid: &Grid) -> Vec<usize> {
    let mut rows = vec![0; grid.up.len()];
    for layer in &grid.layers {
        let mut free = 0;
        for &item in layer {
            let mut wanted: Vec<usize> = grid.up[item].iter().map(|&other| rows[other]).collect();
            wanted.sort_unstable();
            let wanted = wanted.get(wanted.len().saturating_sub(1) / 2).copied().unwrap_or(0);
            rows[item] = wanted.max(free);
            free = rows[item] + 1;
        }
    }
    rows
}

/// Lines that meet: one source with its targets, or one target with its sources.
#[derive(Debug, Default)]
struct Net {
    sources: Vec<usize>,
    targets: Vec<usize>,
    /// Where it changes rows, counted from the channel's start; `None` for a line that goes straight on.
    track: Option<usize>,
}

impl Net {
    fn first(&self) -> usize {
        self.sources.iter().chain(&self.targets).copied().min().unwrap_or(0)
    }

    fn last(&self) -> usize {
        self.sources.iter().chain(&self.targets).copied().max().unwrap_or(0)
    }
}

/// What lies between two layers.
struct Channel {
    nets: Vec<Net>,
    /// Labels with their rows, before and behind the tracks.
    labels_before: Vec<(usize, String)>,
    labels_behind: Vec<(usize, String)>,
    tracks: usize,
}

impl Channel {
    /// Finds the nets and their tracks; `None` where two nets would have to share a piece of a row.
    fn new(figure: &Figure, grid: &Grid, layer: usize, rows: &[usize]) -> Option<Channel> {
        let mut channel = Channel { nets: Vec::new(), labels_before: Vec::new(), labels_behind: Vec::new(), tracks: 0 };
        let mut joined: Vec<usize> = Vec::new();
        for &item in &grid.layers[layer] {
            let targets = &grid.down[item];
            match targets.as_slice() {
                [] => {}
                // A single line into a task that others lead to as well belongs to that task's net.
                &[target] if grid.up[target].len() > 1 => {
                    if !joined.contains(&target) {
                        joined.push(target);
                    }
                }
                _ => channel.nets.push(Net {
                    sources: vec![rows[item]],
                    targets: targets.iter().map(|&target| rows[target]).collect(),
                    track: None,
                }),
            }
        }
        for target in joined {
            let sources = grid.up[target].iter().map(|&source| rows[source]).collect();
            channel.nets.push(Net { sources, targets: vec![rows[target]], track: None });
        }
        for &(source, target, link) in &grid.labelled[layer] {
            let label = figure.links[link].label.clone()?;
            if grid.up[target].len() > 1 {
                channel.labels_before.push((rows[source], label));
            } else {
                channel.labels_behind.push((rows[target], label));
            }
        }
        channel.choose_tracks()?;
        Some(channel)
    }

    fn choose_tracks(&mut self) -> Option<()> {
        let mut waiting: Vec<usize> =
            (0..self.nets.len()).filter(|&index| self.nets[index].first() != self.nets[index].last()).collect();
        while !waiting.is_empty() {
            // A line must have left its row before another one ends in that row.
            let ready = waiting.iter().position(|&net| {
                waiting.iter().all(|&other| {
                    other == net || !self.nets[net].targets.iter().any(|row| self.nets[other].sources.contains(row))
                })
            })?;
            let net = waiting.remove(ready);
            let (first, last) = (self.nets[net].first(), self.nets[net].last());
            let mut track = 0;
            for other in &self.nets {
                let Some(taken) = other.track else { continue };
                let shares_row = self.nets[net].targets.iter().any(|row| other.sources.contains(row));
                if shares_row || (other.first() <= last && first <= other.last()) {
                    track = track.max(taken + 1);
                }
            }
            self.nets[net].track = Some(track);
            self.tracks = self.tracks.max(track + 1);
        }
        let straight = |net: &Net| net.track.is_none();
        // A straight line may be crossed, but not where another net bends or ends.
        let clash = self.nets.iter().filter(|net| straight(net)).any(|net| {
            let row = net.sources[0];
            self.nets.iter().any(|other| !straight(other) && (other.sources.contains(&row) || other.targets.contains(&row)))
        });
        (!clash).then_some(())
    }

    /// Draws the channel from `start` on and returns where the next layer begins.
    fn draw(&self, canvas: &mut Canvas, start: usize) -> usize {
        let room = |labels: &[(usize, String)]| labels.iter().map(|(_, label)| label.len() + 4).max().unwrap_or(0);
        let first_track = start + room(&self.labels_before).max(1);
        let end = first_track + self.tracks + room(&self.labels_behind);
        for net in &self.nets {
            let Some(track) = net.track else {
                canvas.along(net.sources[0], start, end);
                continue;
            };
            let column = first_track + track;
            let (first, last) = (net.first(), net.last());
            for row in first..=last {
                let mut ends = 0;
                ends |= if row > first { UP } else { 0 };
                ends |= if row < last { DOWN } else { 0 };
                ends |= if net.sources.contains(&row) { LEFT } else { 0 };
                ends |= if net.targets.contains(&row) { RIGHT } else { 0 };
                canvas.line(column, row, ends);
            }
            net.sources.iter().for_each(|&row| canvas.along(row, start, column));
            net.targets.iter().for_each(|&row| canvas.along(row, column + 1, end));
        }
        for (row, label) in &self.labels_before {
            canvas.text(start + 1, *row, &format!(" {label} "));
        }
        for (row, label) in &self.labels_behind {
            canvas.text(first_track + self.tracks + 1, *row, &format!(" {label} "));
        }
        end
    }
}
