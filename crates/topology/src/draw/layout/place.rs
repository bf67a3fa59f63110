//! The third pass: where across the flow each item stands.
//!
//! After Brandes and Köpf: items are aligned in blocks with their median neighbours, in four ways (from each end, from each side); each
//! way is packed, and the result lies between the two middle ones. Pieces of one edge and the sides of one box always share a block, so
//! long edges run straight and boxes are upright. Every packing keeps the distances, hence so does the result: nothing can overlap.

use super::layered::{Kind, Layered};
use super::refine;

/// The least distances across the flow, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distances {
    /// Between two tasks.
    pub(super) nodes: f64,
    /// Between two edges.
    pub(super) edges: f64,
    /// Between anything else: an edge and a task, a box and what is inside or beside it.
    pub(super) others: f64,
}

/// The middle of each item across the flow; the least edge of all is at 0.
pub(super) fn place(layered: &Layered, distances: Distances) -> Vec<f64> {
    let segments = Segments::new(layered);
    let mut ways: Vec<Vec<f64>> = Vec::with_capacity(4);
    for downwards in [true, false] {
        for rightwards in [true, false] {
            let way = Way { layered, segments: &segments, distances, downwards, rightwards };
            ways.push(way.positions());
        }
    }
    let mut positions = middle(layered, ways);
    refine::refine(layered, &segments.straight, &|one, other| distance(layered, distances, one, other), &mut positions);
    let low = bounds(layered, &positions).0;
    positions.iter_mut().for_each(|at| *at -= low);
    positions
}

/// How far apart the middles of two neighbours must be.
fn distance(layered: &Layered, distances: Distances, one: usize, other: usize) -> f64 {
    let (one, other) = (&layered.items[one], &layered.items[other]);
    let between = match (one.kind, other.kind) {
        (Kind::Node(_), Kind::Node(_)) => distances.nodes,
        (Kind::Bend(_), Kind::Bend(_)) => distances.edges,
        _ => distances.others,
    };
    (one.cross + other.cross) / 2.0 + between
}

/// The outermost sides of all items.
fn bounds(layered: &Layered, positions: &[f64]) -> (f64, f64) {
    let items = layered.items.iter().zip(positions);
    items.fold((f64::MAX, f64::MIN), |(low, high), (item, &at)| (low.min(at - item.cross / 2.0), high.max(at + item.cross / 2.0)))
}

/// The four ways are shifted to the narrowest one, then each item takes the mean of its two middle places.
fn middle(layered: &Layered, mut ways: Vec<Vec<f64>>) -> Vec<f64> {
    let all: Vec<(f64, f64)> = ways.iter().map(|way| bounds(layered, way)).collect();
    let Some(narrowest) = all.iter().copied().min_by(|one, other| (one.1 - one.0).total_cmp(&(other.1 - other.0))) else {
        return Vec::new();
    };
    for (index, way) in ways.iter_mut().enumerate() {
        // Even ways are packed to the low side, odd ones to the high side.
        let shift = if index % 2 == 0 { narrowest.0 - all[index].0 } else { narrowest.1 - all[index].1 };
        way.iter_mut().for_each(|at| *at += shift);
    }
    (0..layered.items.len())
        .map(|item| {
            let mut four: [f64; 4] = [ways[0][item], ways[1][item], ways[2][item], ways[3][item]];
            four.sort_by(f64::total_cmp);
            (four[1] + four[2]) / 2.0
        })
        .collect()
}

/// Which pieces between neighbouring layers may be aligned.
struct Segments {
    /// The place of each item in its layer.
    places: Vec<usize>,
    /// For each item, the neighbours before that it may stand in line with, by place.
    up: Vec<Vec<usize>>,
    /// The same for the neighbours after.
    down: Vec<Vec<usize>>,
    /// The pieces that are straight in every way: sides of boxes, and pieces of long edges.
    straight: Vec<(usize, usize)>,
}

impl Segments {
    fn new(layered: &Layered) -> Segments {
        let mut places = vec![0; layered.items.len()];
        for layer in &layered.layers {
            for (place, &item) in layer.iter().enumerate() {
                places[item] = place;
            }
        }
        let count = layered.items.len();
        let mut segments = Segments { places, up: vec![Vec::new(); count], down: vec![Vec::new(); count], straight: Vec::new() };
        let sides = side_segments(layered);
        for (layer, sides) in sides.iter().enumerate().skip(1) {
            segments.between(layered, layer, sides);
        }
        for list in segments.up.iter_mut().chain(segments.down.iter_mut()) {
            list.sort_by_key(|&other| segments.places[other]);
        }
        segments
    }

    /// Takes over the pieces between layer `lower - 1` and `lower`: first the sides of boxes, then as many pieces of long edges as do
    /// not cross each other, then what crosses none of those.
    fn between(&mut self, layered: &Layered, lower: usize, sides: &[(usize, usize)]) {
        let (above, below) = (layered.layers[lower - 1].len(), layered.layers[lower].len());
        let walls = Fence::new(sides.iter().map(|&(one, other)| (self.places[one], self.places[other])), above, below);
        let (mut strong, mut weak) = (Vec::new(), Vec::new());
        for &upper in &layered.layers[lower - 1] {
            for &other in &layered.down[upper] {
                if walls.stands_between(self.places[upper], self.places[other]) {
                    continue;
                }
                let inner = !layered.is_node(upper) && !layered.is_node(other);
                if inner { &mut strong } else { &mut weak }.push((upper, other));
            }
        }
        strong.sort_by_key(|&(upper, other)| (self.places[upper], self.places[other]));
        let ends: Vec<usize> = strong.iter().map(|&(_, other)| self.places[other]).collect();
        let mut straight: Vec<(usize, usize)> = longest_rise(&ends).into_iter().map(|index| strong[index]).collect();
        straight.extend(sides);
        let fence = Fence::new(straight.iter().map(|&(one, other)| (self.places[one], self.places[other])), above, below);
        let weak = weak.into_iter().filter(|&(upper, other)| !fence.stands_between(self.places[upper], self.places[other]));
        for (upper, other) in straight.iter().copied().chain(weak.collect::<Vec<_>>()) {
            self.down[upper].push(other);
            self.up[other].push(upper);
        }
        self.straight.extend(straight);
    }
}

/// For each layer, the pieces of box sides that lead to it from the layer before.
fn side_segments(layered: &Layered) -> Vec<Vec<(usize, usize)>> {
    let mut sides = vec![Vec::new(); layered.layers.len()];
    for of_group in &layered.sides {
        for pair in of_group.windows(2) {
            let layer = layered.items[pair[1].0].layer;
            sides[layer].push((pair[0].0, pair[1].0));
            sides[layer].push((pair[0].1, pair[1].1));
        }
    }
    sides
}

/// Pieces that do not cross each other, with the question whether another piece crosses one of them.
struct Fence {
    /// How many of its pieces start before each place.
    above: Vec<usize>,
    /// How many of its pieces end before each place.
    below: Vec<usize>,
}

impl Fence {
    fn new(pieces: impl Iterator<Item = (usize, usize)>, above: usize, below: usize) -> Fence {
        let mut fence = Fence { above: vec![0; above + 1], below: vec![0; below + 1] };
        for (from, to) in pieces {
            fence.above[from + 1] += 1;
            fence.below[to + 1] += 1;
        }
        for counts in [&mut fence.above, &mut fence.below] {
            for place in 1..counts.len() {
                counts[place] += counts[place - 1];
            }
        }
        fence
    }

    fn stands_between(&self, from: usize, to: usize) -> bool {
        self.above[from] != self.below[to]
    }
}

/// The places in `ends` of a longest strictly rising selection.
fn longest_rise(ends: &[usize]) -> Vec<usize> {
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(ends.len());
    for (index, &end) in ends.iter().enumerate() {
        let at = tails.partition_point(|&tail| ends[tail] < end);
        before.push(at.checked_sub(1).map(|previous| tails[previous]));
        if at == tails.len() {
            tails.push(index);
        } else {
            tails[at] = index;
        }
    }
    let mut rise = Vec::with_capacity(tails.len());
    let mut at = tails.last().copied();
    while let Some(index) = at {
        rise.push(index);
        at = before[index];
    }
    rise.reverse();
    rise
}

/// One of the four ways.
struct Way<'a> {
    layered: &'a Layered,
    segments: &'a Segments,
    distances: Distances,
    downwards: bool,
    rightwards: bool,
}

impl Way<'_> {
    fn positions(&self) -> Vec<f64> {
        let roots = self.align();
        let positions = self.pack(&roots);
        if self.rightwards { positions } else { positions.into_iter().map(|at| -at).collect() }
    }

    /// The items of a layer in the order in which this way meets them.
    fn layer(&self, layer: usize) -> Box<dyn Iterator<Item = usize> + '_> {
        let items = self.layered.layers[layer].iter().copied();
        if self.rightwards { Box::new(items) } else { Box::new(items.rev()) }
    }

    /// The place at which this way meets an item in its layer.
    fn place(&self, item: usize) -> usize {
        let place = self.segments.places[item];
        if self.rightwards { place } else { self.layered.layers[self.layered.items[item].layer].len() - 1 - place }
    }

    /// Joins each item with the block of a median neighbour. Returns the first item of each item's block.
    fn align(&self) -> Vec<usize> {
        let mut root: Vec<usize> = (0..self.layered.items.len()).collect();
        let count = self.layered.layers.len();
        for step in 1..count {
            let layer = if self.downwards { step } else { count - 1 - step };
            // A neighbour takes one item only, and blocks may not cross: the next neighbour must stand at this place or later.
            let mut free_from = 0;
            for item in self.layer(layer) {
                let neighbours = if self.downwards { &self.segments.up[item] } else { &self.segments.down[item] };
                if neighbours.is_empty() {
                    continue;
                }
                let middles = [(neighbours.len() - 1) / 2, neighbours.len() / 2];
                let middles = if self.rightwards { middles } else { [middles[1], middles[0]] };
                for middle in middles {
                    let neighbour = neighbours[middle];
                    if self.place(neighbour) >= free_from {
                        root[item] = root[neighbour];
                        free_from = self.place(neighbour) + 1;
                        break;
                    }
                }
            }
        }
        root
    }

    /// Puts every block as low as its neighbours allow, then those with room as high as that leaves them, which closes gaps.
    fn pack(&self, root: &[usize]) -> Vec<f64> {
        let count = root.len();
        let mut after: Vec<Vec<(usize, f64)>> = vec![Vec::new(); count];
        let mut waiting = vec![0_usize; count];
        for layer in 0..self.layered.layers.len() {
            let mut previous: Option<usize> = None;
            for item in self.layer(layer) {
                if let Some(before) = previous {
                    after[root[before]].push((root[item], distance(self.layered, self.distances, before, item)));
                    waiting[root[item]] += 1;
                }
                previous = Some(item);
            }
        }
        let mut sequence: Vec<usize> = (0..count).filter(|&item| root[item] == item && waiting[item] == 0).collect();
        let mut at = vec![0.0_f64; count];
        let mut next = 0;
        while let Some(&block) = sequence.get(next) {
            next += 1;
            for &(other, distance) in &after[block] {
                at[other] = at[other].max(at[block] + distance);
                waiting[other] -= 1;
                if waiting[other] == 0 {
                    sequence.push(other);
                }
            }
        }
        for &block in sequence.iter().rev() {
            let limit = after[block].iter().map(|&(other, distance)| at[other] - distance).fold(f64::MAX, f64::min);
            if limit < f64::MAX && !self.closes_box(block) {
                at[block] = at[block].max(limit);
            }
        }
        (0..count).map(|item| at[root[item]]).collect()
    }

    /// Whether a block is the side of a box that this way meets last: it stands close to the content already and must not leave it.
    fn closes_box(&self, block: usize) -> bool {
        match self.layered.items[block].kind {
            Kind::Open(_) => !self.rightwards,
            Kind::Close(_) => self.rightwards,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::longest_rise;

    #[test]
    fn the_longest_rise_is_found() {
        for (ends, expected) in [
            (vec![], vec![]),
            (vec![1, 2, 3], vec![0, 1, 2]),
            (vec![3, 2, 1], vec![2]),
            (vec![5, 1, 2, 9, 3], vec![1, 2, 4]),
            (vec![1, 1], vec![1]),
        ] {
            assert_eq!(longest_rise(&ends), expected, "{ends:?}");
        }
    }
}
