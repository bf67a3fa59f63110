//! The first pass of the layout: a rank for every node, so that each edge leads from a lower rank to a higher one.

use crate::draw::figure::Figure;

/// Rounds of pulling nodes towards their neighbours. Each round shortens edges; after a handful nothing moves in graphs drawn by people.
const TIGHTENING_ROUNDS: usize = 8;

/// The rank of every node, from 0, with edges as short as longest-path ranks pulled together allow.
pub(super) fn ranks(figure: &Figure) -> Vec<usize> {
    let neighbours = Neighbours::new(figure);
    let order = neighbours.topological_order();
    let mut ranks = vec![0; figure.nodes.len()];
    for &node in &order {
        ranks[node] = neighbours.earliest(node, &ranks).unwrap_or(0);
    }
    for _ in 0..TIGHTENING_ROUNDS {
        let mut moved = false;
        for &node in order.iter().rev() {
            moved |= neighbours.delay(node, &mut ranks);
        }
        for &node in &order {
            moved |= neighbours.hasten(node, &mut ranks);
        }
        if !moved {
            break;
        }
    }
    let first = ranks.iter().copied().min().unwrap_or(0);
    ranks.iter().map(|rank| rank - first).collect()
}

/// For each node its edges in and out: the other end and the least length.
struct Neighbours {
    incoming: Vec<Vec<(usize, usize)>>,
    outgoing: Vec<Vec<(usize, usize)>>,
}

impl Neighbours {
    fn new(figure: &Figure) -> Neighbours {
        let mut incoming = vec![Vec::new(); figure.nodes.len()];
        let mut outgoing = vec![Vec::new(); figure.nodes.len()];
        for link in &figure.links {
            incoming[link.to].push((link.from, link.length.max(1)));
            outgoing[link.from].push((link.to, link.length.max(1)));
        }
        Neighbours { incoming, outgoing }
    }

    fn topological_order(&self) -> Vec<usize> {
        let mut waiting: Vec<usize> = self.incoming.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..waiting.len()).filter(|&node| waiting[node] == 0).collect();
        let mut next = 0;
        while let Some(&node) = order.get(next) {
            next += 1;
            for &(to, _) in &self.outgoing[node] {
                waiting[to] -= 1;
                if waiting[to] == 0 {
                    order.push(to);
                }
            }
        }
        order
    }

    fn earliest(&self, node: usize, ranks: &[usize]) -> Option<usize> {
        self.incoming[node].iter().map(|&(from, length)| ranks[from] + length).max()
    }

    fn latest(&self, node: usize, ranks: &[usize]) -> Option<usize> {
        self.outgoing[node].iter().map(|&(to, length)| ranks[to] - length).min()
    }

    /// Moves a node down to its successors where that shortens more edges than it lengthens.
    fn delay(&self, node: usize, ranks: &mut [usize]) -> bool {
        match self.latest(node, ranks) {
            Some(latest) if latest > ranks[node] && self.outgoing[node].len() > self.incoming[node].len() => {
                ranks[node] = latest;
                true
            }
            _ => false,
        }
    }

    /// Moves a node up to its predecessors where that shortens more edges than it lengthens.
    fn hasten(&self, node: usize, ranks: &mut [usize]) -> bool {
        match self.earliest(node, ranks) {
            Some(earliest) if earliest < ranks[node] && self.incoming[node].len() > self.outgoing[node].len() => {
                ranks[node] = earliest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::testing::figure;

    #[test]
    fn ranks_follow_the_edges_and_keep_them_short() {
        for (edges, expected) in [
            ("a>b b>c", "a0 b1 c2"),
            ("a>b b>c a>c", "a0 b1 c2"),
            ("a>b b>c c>d late>d", "a0 b1 c2 d3 late2"),
            ("a>b b>c a>leaf", "a0 b1 c2 leaf1"),
            ("a>3>b", "a0 b3"),
        ] {
            let figure = figure(edges);
            let ranks = ranks(&figure);
            let mut found: Vec<String> =
                figure.nodes.iter().zip(&ranks).map(|(node, rank)| format!("{}{rank}", node.id)).collect();
            found.sort();
            assert_eq!(found.join(" "), expected, "{edges}");
        }
    }
}
