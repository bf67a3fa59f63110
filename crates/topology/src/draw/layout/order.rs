//! The second pass: the order of the items in each layer, with few crossings and every group's items side by side.

use super::layered::{Kind, Layered};

/// Items times sweeps that crossing reduction may spend; at about 1 µs each this bounds it to some tenths of a second without
/// optimization. Small graphs get [`SWEEPS_MAX`] sweeps, a graph of 1,000 nodes a handful.
const SWEEP_WORK_MAX: usize = 150_000;

/// After this many sweeps even tangled small graphs no longer improve.
const SWEEPS_MAX: usize = 32;

/// Pieces of edges up to which neighbours are exchanged pairwise after each sweep, which compares every two of their pieces; beyond it
/// the sweeps alone must do.
const TRANSPOSE_PIECES_MAX: usize = 1_500;

/// Orders every layer and returns the number of crossings that are left.
pub(super) fn order(layered: &mut Layered) -> usize {
    let mut orderer = Orderer::new(layered);
    orderer.start();
    let mut best = (orderer.crossings(), orderer.layered.layers.clone());
    let sweeps = (SWEEP_WORK_MAX / orderer.layered.items.len().max(1)).clamp(2, SWEEPS_MAX);
    let pieces: usize = orderer.layered.down.iter().map(Vec::len).sum();
    for sweep in 0..sweeps {
        if best.0 == 0 {
            break;
        }
        orderer.reverse_ties = sweep % 4 >= 2;
        orderer.sweep(sweep % 2 == 0);
        orderer.reverse_ties = false;
        if pieces <= TRANSPOSE_PIECES_MAX {
            orderer.transpose();
        }
        let crossings = orderer.crossings();
        if crossings < best.0 {
            best = (crossings, orderer.layered.layers.clone());
        }
    }
    orderer.layered.layers = best.1;
    best.0
}

/// What stands in a group in one layer.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Item(usize),
    Group(usize),
}

struct Orderer<'a> {
    layered: &'a mut Layered,
    /// The place of each item in its layer.
    places: Vec<usize>,
    /// The place of each group among its siblings, the same in all layers, so that boxes are upright and side by side.
    group_places: Vec<usize>,
    /// Where in its layer each group would like to stand, from 0 to 1: the sum over the layers asked, and their number.
    wishes: Vec<(f64, f64)>,
    /// Whether items that want to stand in the same place change their order: every other pair of sweeps does, since with the same
    /// order each time a sweep would repeat the one before.
    reverse_ties: bool,
}

impl<'a> Orderer<'a> {
    fn new(layered: &'a mut Layered) -> Orderer<'a> {
        let places = vec![0; layered.items.len()];
        let group_places = (0..layered.spans.len()).collect();
        let wishes = vec![(0.0, 0.0); layered.spans.len()];
        Orderer { layered, places, group_places, wishes, reverse_ties: false }
    }

    /// The first order: as a walk along the edges meets the items, which leaves trees without crossings.
    fn start(&mut self) {
        let mut seen = vec![false; self.layered.items.len()];
        let mut met = vec![Vec::new(); self.layered.layers.len()];
        let roots: Vec<usize> = self.layered.layers.iter().flatten().copied().collect();
        let mut stack = Vec::new();
        for root in roots {
            stack.push(root);
            while let Some(item) = stack.pop() {
                if std::mem::replace(&mut seen[item], true) {
                    continue;
                }
                met[self.layered.items[item].layer].push(item);
                stack.extend(self.layered.down[item].iter().rev());
            }
        }
        self.layered.layers = met;
        for layer in 0..self.layered.layers.len() {
            self.number(layer);
        }
        self.keep_places();
        self.settle();
    }

    fn number(&mut self, layer: usize) {
        for (place, &item) in self.layered.layers[layer].iter().enumerate() {
            self.places[item] = place;
        }
    }

    /// Orders each layer by the layer before it, or each by the layer after it.
    fn sweep(&mut self, downwards: bool) {
        let count = self.layered.layers.len();
        for step in 1..count {
            let layer = if downwards { step } else { count - 1 - step };
            let keys: Vec<Option<f64>> = self.layered.layers[layer].iter().map(|&item| self.key(item, downwards)).collect();
            self.arrange(layer, &keys);
        }
        self.settle();
    }

    /// Where an item wants to stand: the mean place of its neighbours in the layer that stays.
    fn key(&self, item: usize, downwards: bool) -> Option<f64> {
        let neighbours = if downwards { &self.layered.up[item] } else { &self.layered.down[item] };
        if neighbours.is_empty() {
            return None;
        }
        Some(neighbours.iter().map(|&other| self.places[other] as f64).sum::<f64>() / neighbours.len() as f64)
    }

    /// Puts the groups in the order that the layers wish for on average, then every layer in that order.
    fn settle(&mut self) {
        if self.layered.spans.iter().all(Option::is_none) {
            return;
        }
        let count = self.wishes.len() as f64;
        let wish = |group: usize| match self.wishes[group] {
            (_, 0.0) => self.group_places[group] as f64 / count,
            (sum, layers) => sum / layers,
        };
        let mut groups: Vec<(f64, usize, usize)> =
            (0..self.wishes.len()).map(|group| (wish(group), self.group_places[group], group)).collect();
        groups.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        for (place, &(_, _, group)) in groups.iter().enumerate() {
            self.group_places[group] = place;
        }
        self.keep_places();
        self.wishes.fill((0.0, 0.0));
    }

    /// Orders every layer as it stands, which only brings groups together and into their common order.
    fn keep_places(&mut self) {
        for layer in 0..self.layered.layers.len() {
            let keys: Vec<Option<f64>> = (0..self.layered.layers[layer].len()).map(|place| Some(place as f64)).collect();
            self.arrange(layer, &keys);
        }
    }

    /// Sorts one layer by the keys of its items; items without a key keep their places.
    fn arrange(&mut self, layer: usize, keys: &[Option<f64>]) {
        let items = std::mem::take(&mut self.layered.layers[layer]);
        let mut key_of = std::collections::HashMap::with_capacity(items.len());
        for (&item, &key) in items.iter().zip(keys) {
            key_of.insert(item, key);
        }
        let mut content: Vec<Vec<Entry>> = vec![Vec::new(); self.layered.spans.len()];
        let mut outermost = Vec::new();
        for &item in &items {
            match (self.layered.items[item].kind, self.layered.items[item].group) {
                (Kind::Close(_), _) => {}
                (Kind::Open(group), _) => match self.layered.parents[group] {
                    Some(parent) => content[parent].push(Entry::Group(group)),
                    None => outermost.push(Entry::Group(group)),
                },
                (_, Some(group)) => content[group].push(Entry::Item(item)),
                (_, None) => outermost.push(Entry::Item(item)),
            }
        }
        let mut arranged = Vec::with_capacity(items.len());
        self.lay(layer, &outermost, &content, &key_of, &mut arranged);
        self.layered.layers[layer] = arranged;
        self.number(layer);
    }

    fn lay(
        &mut self,
        layer: usize,
        entries: &[Entry],
        content: &[Vec<Entry>],
        key_of: &std::collections::HashMap<usize, Option<f64>>,
        out: &mut Vec<usize>,
    ) {
        let mut slots: Vec<usize> = Vec::new();
        let mut keyed: Vec<(f64, Entry)> = Vec::new();
        let mut arranged: Vec<Option<Entry>> = vec![None; entries.len()];
        for (slot, &entry) in entries.iter().enumerate() {
            let key = match entry {
                Entry::Item(item) => key_of[&item],
                Entry::Group(group) => mean_key(group, content, key_of),
            };
            match key {
                Some(key) => {
                    slots.push(slot);
                    keyed.push((key, entry));
                }
                None => arranged[slot] = Some(entry),
            }
        }
        if self.reverse_ties {
            keyed.reverse();
        }
        keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (slot, (_, entry)) in slots.into_iter().zip(keyed) {
            arranged[slot] = Some(entry);
        }
        let mut arranged: Vec<Entry> = arranged.into_iter().flatten().collect();
        self.straighten_groups(&mut arranged);
        for entry in arranged {
            match entry {
                Entry::Item(item) => out.push(item),
                Entry::Group(group) => {
                    let Some(span) = self.layered.spans[group] else { continue };
                    let (open, close) = self.layered.sides[group][layer - span.first];
                    out.push(open);
                    self.lay(layer, &content[group], content, key_of, out);
                    out.push(close);
                }
            }
        }
    }

    /// Notes in which order the groups would like to stand, and puts them into the order that holds in all layers.
    fn straighten_groups(&mut self, entries: &mut [Entry]) {
        let slots: Vec<usize> = (0..entries.len()).filter(|&slot| matches!(entries[slot], Entry::Group(_))).collect();
        let mut groups: Vec<usize> =
            slots.iter().filter_map(|&slot| if let Entry::Group(group) = entries[slot] { Some(group) } else { None }).collect();
        for (&slot, &group) in slots.iter().zip(&groups) {
            self.wishes[group].0 += (slot as f64 + 0.5) / entries.len() as f64;
            self.wishes[group].1 += 1.0;
        }
        groups.sort_by_key(|&group| self.group_places[group]);
        for (slot, group) in slots.into_iter().zip(groups) {
            entries[slot] = Entry::Group(group);
        }
    }

    /// Exchanges neighbours of one group wherever that takes crossings away.
    fn transpose(&mut self) {
        /// Each round only keeps what improves; more rounds than this find next to nothing.
        const ROUNDS: usize = 4;
        for _ in 0..ROUNDS {
            let mut improved = false;
            for layer in 0..self.layered.layers.len() {
                for place in 1..self.layered.layers[layer].len() {
                    let (one, other) = (self.layered.layers[layer][place - 1], self.layered.layers[layer][place]);
                    let same_group = self.layered.items[one].group == self.layered.items[other].group;
                    if !same_group || self.layered.is_side(one) || self.layered.is_side(other) {
                        continue;
                    }
                    if self.pair_crossings(other, one) < self.pair_crossings(one, other) {
                        self.layered.layers[layer].swap(place - 1, place);
                        self.places[one] = place;
                        self.places[other] = place - 1;
                        improved = true;
                    }
                }
            }
            if !improved {
                break;
            }
        }
    }

    /// Crossings between the edges of two items of a layer when `first` stands before `second`.
    fn pair_crossings(&self, first: usize, second: usize) -> usize {
        let between = |of_first: &[usize], of_second: &[usize]| {
            let places =
                of_first.iter().flat_map(|&one| of_second.iter().map(move |&other| (self.places[one], self.places[other])));
            places.filter(|(one, other)| one > other).count()
        };
        between(&self.layered.up[first], &self.layered.up[second])
            + between(&self.layered.down[first], &self.layered.down[second])
    }

    fn crossings(&self) -> usize {
        let mut total = 0;
        for layer in self.layered.layers.windows(2) {
            let mut ends: Vec<usize> = Vec::new();
            for &item in &layer[0] {
                let from = ends.len();
                ends.extend(self.layered.down[item].iter().map(|&other| self.places[other]));
                ends[from..].sort_unstable();
            }
            total += inversions(&ends, layer[1].len());
        }
        total
    }
}

fn mean_key(group: usize, content: &[Vec<Entry>], key_of: &std::collections::HashMap<usize, Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    let mut stack = vec![group];
    while let Some(group) = stack.pop() {
        for &entry in &content[group] {
            match entry {
                Entry::Item(item) => {
                    if let Some(key) = key_of[&item] {
                        sum += key;
                        count += 1;
                    }
                }
                Entry::Group(inner) => stack.push(inner),
            }
        }
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Pairs that stand in the wrong order, counted with a Fenwick tree so that thousands of edges take thousands of steps.
fn inversions(ends: &[usize], width: usize) -> usize {
    let mut tree = vec![0_usize; width + 1];
    let mut total = 0;
    for (before, &end) in ends.iter().enumerate() {
        let mut not_greater = 0;
        let mut at = end + 1;
        while at > 0 {
            not_greater += tree[at];
            at &= at - 1;
        }
        total += before - not_greater;
        let mut at = end + 1;
        while at <= width {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::inversions;

    #[test]
    fn inversions_are_counted_like_by_hand() {
        for (ends, expected) in
            [(vec![], 0), (vec![0, 1, 2], 0), (vec![2, 1, 0], 3), (vec![1, 1, 0, 0], 4), (vec![3, 0, 3, 1], 3)]
        {
            assert_eq!(inversions(&ends, 4), expected, "{ends:?}");
        }
    }
}
