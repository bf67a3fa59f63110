//! After placing: blocks move towards what they are joined with, as far as their neighbours let them. That makes drawings narrower and
//! more of their edges straight than the median of four packings, which each crowd to one side.

use super::layered::{Kind, Layered};

/// Items times rounds that may be spent; like the sweeps of the ordering it bounds the time for graphs of thousands of tasks.
const WORK_MAX: usize = 150_000;

/// After this many rounds nothing visible moves any more.
const ROUNDS_MAX: usize = 16;

/// Moves the items; `straight` are the pieces whose ends must stay in line, and `distance` is what two neighbours must keep.
pub(super) fn refine(
    layered: &Layered,
    straight: &[(usize, usize)],
    distance: &dyn Fn(usize, usize) -> f64,
    positions: &mut [f64],
) {
    let blocks = Blocks::new(layered, straight, distance);
    let rounds = (WORK_MAX / layered.items.len().max(1)).min(ROUNDS_MAX);
    let mut sequence: Vec<usize> = (0..blocks.members.len()).collect();
    for round in 0..rounds {
        // Blocks that want to go to one side must not wait for those behind them, so each round begins at the other side.
        sequence.sort_by(|&one, &other| positions[blocks.members[one][0]].total_cmp(&positions[blocks.members[other][0]]));
        if round % 2 == 1 {
            sequence.reverse();
        }
        for &block in &sequence {
            blocks.move_one(layered, block, positions);
        }
    }
}

/// Items that move together, with what holds and what pulls them.
struct Blocks {
    members: Vec<Vec<usize>>,
    block_of: Vec<usize>,
    /// For each item its neighbours in the layer with the distances they keep.
    low: Vec<Option<(usize, f64)>>,
    high: Vec<Option<(usize, f64)>>,
}

impl Blocks {
    fn new(layered: &Layered, straight: &[(usize, usize)], distance: &dyn Fn(usize, usize) -> f64) -> Blocks {
        let count = layered.items.len();
        let mut above: Vec<Option<usize>> = vec![None; count];
        for &(upper, lower) in straight {
            above[lower] = Some(upper);
        }
        let mut blocks =
            Blocks { members: Vec::new(), block_of: vec![0; count], low: vec![None; count], high: vec![None; count] };
        for layer in &layered.layers {
            for &item in layer {
                match above[item] {
                    Some(upper) => {
                        let block = blocks.block_of[upper];
                        blocks.block_of[item] = block;
                        blocks.members[block].push(item);
                    }
                    None => {
                        blocks.block_of[item] = blocks.members.len();
                        blocks.members.push(vec![item]);
                    }
                }
            }
            for pair in layer.windows(2) {
                let apart = distance(pair[0], pair[1]);
                blocks.high[pair[0]] = Some((pair[1], apart));
                blocks.low[pair[1]] = Some((pair[0], apart));
            }
        }
        blocks
    }

    fn move_one(&self, layered: &Layered, block: usize, positions: &mut [f64]) {
        let members = &self.members[block];
        let now = positions[members[0]];
        let (mut low, mut high) = (f64::MIN, f64::MAX);
        for &item in members {
            if let Some((other, apart)) = self.low[item] {
                low = low.max(positions[other] + apart);
            }
            if let Some((other, apart)) = self.high[item] {
                high = high.min(positions[other] - apart);
            }
        }
        let wanted = match layered.items[members[0]].kind {
            Kind::Open(_) => Some(high),
            Kind::Close(_) => Some(low),
            _ => self.wish(layered, block, positions),
        };
        if let Some(wanted) = wanted
            && low <= high
        {
            let to = wanted.clamp(low, high);
            if to.is_finite() && to.abs() < f64::MAX && (to - now).abs() > 0.01 {
                members.iter().for_each(|&item| positions[item] = to);
            }
        }
    }

    /// Where the edges pull a block: to the median of their other ends. Between two medians every place is as short; there a block that
    /// is pulled from one side only stands in the middle, and any other one stays as near as it can, which keeps straight edges straight.
    fn wish(&self, layered: &Layered, block: usize, positions: &[f64]) -> Option<f64> {
        let members = &self.members[block];
        let mut pulls: Vec<f64> = Vec::new();
        let (mut from_above, mut from_below) = (false, false);
        for &item in members {
            for (others, seen) in [(&layered.up[item], &mut from_above), (&layered.down[item], &mut from_below)] {
                for &other in others.iter().filter(|&&other| self.block_of[other] != block) {
                    *seen = true;
                    // Long edges pull harder: a bend in one is more visible than in an edge between neighbours.
                    let strength = if layered.is_node(item) && layered.is_node(other) { 1 } else { 2 };
                    pulls.extend(std::iter::repeat_n(positions[other], strength));
                }
            }
        }
        pulls.sort_by(f64::total_cmp);
        let (&first, &second) = (pulls.get(pulls.len().saturating_sub(1) / 2)?, pulls.get(pulls.len() / 2)?);
        if from_above && from_below { Some(positions[members[0]].clamp(first, second)) } else { Some((first + second) / 2.0) }
    }
}
