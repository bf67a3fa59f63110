//! Which messages of a topic a subscription has settled: everything below a cursor, and ranges above it.

use std::collections::BTreeMap;

/// Settled positions. Ranges that touch are one, so a single old unsettled message costs one range and not one per later message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    cursor: u64,
    /// Start and exclusive end of what is settled above the cursor; never touching each other or the cursor.
    above: BTreeMap<u64, u64>,
}

impl Settled {
    /// Everything below `cursor` is settled and nothing else.
    pub(crate) fn up_to(cursor: u64) -> Self {
        Self { cursor, above: BTreeMap::new() }
    }

    /// The first unsettled position.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The ranges above the cursor, in order.
    pub(crate) fn above(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.above.iter().map(|(start, end)| (*start, *end))
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        position < self.cursor || self.above.range(..=position).next_back().is_some_and(|(_, end)| position < *end)
    }

    /// The first unsettled position at or after `from`.
    pub(crate) fn next_unsettled(&self, from: u64) -> u64 {
        let from = from.max(self.cursor);
        match self.above.range(..=from).next_back() {
            Some((_, end)) if from < *end => *end,
            _ => from,
        }
    }

    /// Whether all of `start..end` is settled, or nothing of it; `None` if it is some.
    pub(crate) fn all_or_nothing(&self, start: u64, end: u64) -> Option<bool> {
        if self.next_unsettled(start) >= end {
            return Some(true);
        }
        let some = self.cursor > start || self.above.range(..end).next_back().is_some_and(|(_, stop)| *stop > start);
        (!some).then_some(false)
    }

    /// The first settled position after `from`, which is not settled itself.
    pub(crate) fn next_settled(&self, from: u64) -> u64 {
        self.above.range(from..).next().map_or(u64::MAX, |(start, _)| *start)
    }

    /// The unsettled ranges below `end`, in order.
    pub(crate) fn unsettled_below(&self, end: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let mut from = self.cursor;
        for (start, stop) in self.above.range(..end) {
            if from < *start {
                found.push((from, *start));
            }
            from = *stop;
        }
        if from < end {
            found.push((from, end));
        }
        found
    }

    /// Settles `start..end`.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if end <= self.cursor || start >= end {
            return;
        }
        let (mut start, mut end) = (start.max(self.cursor), end);
        if let Some((before, stop)) = self.above.range(..=start).next_back().map(|(s, e)| (*s, *e))
            && stop >= start
        {
            start = before;
            end = end.max(stop);
            self.above.remove(&before);
        }
        while let Some((next, stop)) = self.above.range(start..=end).next().map(|(s, e)| (*s, *e)) {
            end = end.max(stop);
            self.above.remove(&next);
        }
        if start == self.cursor {
            self.cursor = end;
        } else {
            self.above.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_like_a_set_of_positions_whatever_the_order() {
        let mut seed = 7_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % 64
        };
        for _ in 0..300 {
            let mut settled = Settled::up_to(3);
            let mut model = [false; 80];
            model[..3].fill(true);
            for _ in 0..20 {
                let start = next();
                let end = start + next() % 9;
                settled.insert(start, end);
                model[start as usize..end as usize].fill(true);
                for position in 0..80_u64 {
                    assert_eq!(settled.contains(position), model[position as usize], "{position} in {settled:?}");
                    let unsettled = (position..80).find(|p| !model[*p as usize]);
                    assert_eq!(Some(settled.next_unsettled(position)).filter(|p| *p < 80), unsettled);
                    if !model[position as usize] {
                        let next = (position..80).find(|p| model[*p as usize]).unwrap_or(u64::MAX);
                        assert_eq!(settled.next_settled(position), next);
                    }
                }
                let (from, to) = (start as usize, end as usize + 1);
                let expected = match model[from..to].iter().filter(|settled| **settled).count() {
                    0 => Some(false),
                    count if count == to - from => Some(true),
                    _ => None,
                };
                assert_eq!(settled.all_or_nothing(start, end + 1), expected, "{start}..={end} in {settled:?}");
                let unsettled: Vec<u64> = settled.unsettled_below(80).into_iter().flat_map(|(start, end)| start..end).collect();
                assert_eq!(unsettled, (0..80).filter(|p| !model[*p as usize]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_old_message_keeps_one_range() {
        let mut settled = Settled::default();
        for position in (1..100_000).rev() {
            settled.insert(position, position + 1);
        }
        assert_eq!(settled.above().len(), 1);
        settled.insert(0, 1);
        assert_eq!((settled.cursor(), settled.above().len()), (100_000, 0));
    }
}
