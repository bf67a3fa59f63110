//! Which spilled block may hold a root that has left the table of roots: four and a half bytes for each root.
//!
//! A root is looked for when it is published again and when its outcome is asked for. A wrong answer, about one in two thousand with 50 million roots, costs a look
//! into a block's index; a root that is there is never missed.

use super::{
    TopicId,
    log::BLOCK_MESSAGES,
    roots::{halves, hash},
};

/// Blocks of one layer: as many as twelve bits can number.
const LAYER_BLOCKS: usize = 4_096;

/// Places of a bucket: what a cache line holds. Where it is full, the next one goes on, which is so for one in four.
const BUCKET_PLACES: usize = 16;

/// Buckets of a layer: with an eighth more places than there are roots of its blocks.
const LAYER_BUCKETS: usize = LAYER_BLOCKS * BLOCK_MESSAGES as usize * 9 / 8 / BUCKET_PLACES;

/// Bits that number a block within its layer; the others of a place are taken from the root's hash.
const BLOCK_BITS: u32 = 12;

/// What names a block that was put on the shelf, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// The roots of spilled blocks.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// The newest is the last. One is let go of when all of its blocks are gone, and blocks go in the order in which they came but for a few.
    layers: Vec<Layer>,
    next: u64,
}

#[derive(Debug)]
struct Layer {
    /// The ticket of its first block.
    first: u64,
    /// It is never made larger, so that it needs no more of a hash than it has.
    buckets: Vec<Bucket>,
    blocks: Vec<(TopicId, u64)>,
    left: usize,
}

/// Its places are used in order; 0 is an empty one.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket([u32; BUCKET_PLACES]);

impl Layer {
    fn new(first: u64) -> Self {
        Self { first, buckets: vec![Bucket([0; BUCKET_PLACES]); LAYER_BUCKETS], blocks: Vec::new(), left: 0 }
    }

    fn add(&mut self, hash: u64, block: u32) {
        let (mut at, tag) = place(hash);
        loop {
            if let Some(free) = self.buckets[at].0.iter_mut().find(|place| **place == 0) {
                *free = (tag << BLOCK_BITS) | block;
                return;
            }
            at = (at + 1) % LAYER_BUCKETS;
        }
    }

    fn find(&self, hash: u64, found: &mut Vec<(Ticket, TopicId, u64)>) {
        let (mut at, tag) = place(hash);
        loop {
            let places = &self.buckets[at].0;
            // Hardly ever any; without a branch for each place this is a few instructions for all of them.
            if places.iter().fold(false, |any, place| any | (place >> BLOCK_BITS == tag)) {
                for place in places.iter().filter(|place| **place >> BLOCK_BITS == tag) {
                    let block = place & ((1 << BLOCK_BITS) - 1);
                    let (topic, number) = self.blocks[block as usize];
                    found.push((Ticket(self.first + u64::from(block)), topic, number));
                }
            }
            if places[BUCKET_PLACES - 1] == 0 {
                return;
            }
            at = (at + 1) % LAYER_BUCKETS;
        }
    }
}

/// In which bucket a root is looked for first, and what is written there; never 0.
fn place(hash: u64) -> (usize, u32) {
    let at = ((hash >> 32) * LAYER_BUCKETS as u64) >> 32;
    (at as usize, ((hash as u32) >> BLOCK_BITS).max(1))
}

impl Shelf {
    /// Takes a block with these roots in.
    pub(crate) fn add(&mut self, topic: TopicId, number: u64, roots: impl Iterator<Item = u128>) -> Ticket {
        if self.layers.last().is_none_or(|layer| layer.blocks.len() == LAYER_BLOCKS) {
            self.next = self.next.next_multiple_of(LAYER_BLOCKS as u64);
            self.layers.push(Layer::new(self.next));
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        if let Some(layer) = self.layers.last_mut() {
            let block = layer.blocks.len() as u32;
            layer.blocks.push((topic, number));
            layer.left += 1;
            for root in roots {
                layer.add(hash(halves(root)), block);
            }
        }
        ticket
    }

    /// A block is gone.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        let index = self.layers.partition_point(|layer| layer.first <= ticket.0);
        let Some(layer) = index.checked_sub(1).and_then(|index| self.layers.get_mut(index)) else { return };
        layer.left = layer.left.saturating_sub(1);
        if layer.left == 0 {
            self.layers.remove(index - 1);
        }
    }

    /// Adds the blocks that may hold this root; some of them may be gone.
    pub(crate) fn find(&self, root: u128, found: &mut Vec<(Ticket, TopicId, u64)>) {
        let hash = hash(halves(root));
        for layer in &self.layers {
            layer.find(hash, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_on_the_shelf_is_found_until_it_is_gone() {
        const BLOCKS: u64 = 10_000;
        let mut shelf = Shelf::default();
        let roots = |block: u64| (0..BLOCK_MESSAGES).map(move |index| u128::from(block * BLOCK_MESSAGES + index) << 20);
        let tickets: Vec<Ticket> = (0..BLOCKS).map(|block| shelf.add(TopicId(3), block, roots(block))).collect();
        let find = |shelf: &Shelf, root: u128| {
            let mut found = Vec::new();
            shelf.find(root, &mut found);
            found
        };
        for block in 0..BLOCKS {
            let there = (tickets[block as usize], TopicId(3), block);
            assert!(roots(block).all(|root| find(&shelf, root).contains(&there)), "block {block}");
        }
        let wrong = (0..100_000_u128).filter(|root| !find(&shelf, (root << 64) | 1).is_empty()).count();
        assert!(wrong < 100, "{wrong} of 100,000 roots were found that are not there");
        assert_eq!(shelf.layers.len(), 3);
        // The first and the last layer go; the one between keeps what it has.
        for block in (0..LAYER_BLOCKS as u64).chain(2 * LAYER_BLOCKS as u64..BLOCKS).rev() {
            shelf.remove(tickets[block as usize]);
        }
        assert_eq!(shelf.layers.len(), 1);
        assert!(find(&shelf, 0).is_empty());
        let kept = LAYER_BLOCKS as u64 + 1;
        assert!(roots(kept).all(|root| find(&shelf, root).contains(&(tickets[kept as usize], TopicId(3), kept))));
        let again = shelf.add(TopicId(1), 7, roots(0));
        assert_eq!(find(&shelf, 0), [(again, TopicId(1), 7)]);
    }
}
