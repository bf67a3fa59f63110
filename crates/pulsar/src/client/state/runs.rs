//! Sets of positions as runs of neighbours: what is settled together mostly lies together.

use leatworks_broker::Position;

/// Positions, as the first of each run and how many it has, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub(crate) fn of(positions: impl IntoIterator<Item = Position>) -> Self {
        let mut all: Vec<u64> = positions.into_iter().map(|position| position.0).collect();
        all.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for position in all {
            match runs.last_mut() {
                Some((first, count)) if position < *first + *count => {}
                Some((first, count)) if position == *first + *count => *count += 1,
                _ => runs.push((position, 1)),
            }
        }
        Self(runs)
    }

    pub(crate) fn has(&self, position: Position) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= position.0);
        after > 0 && position.0 - self.0[after - 1].0 < self.0[after - 1].1
    }

    /// The first position of each run, and the last.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Position, Position)> {
        self.0.iter().map(|(first, count)| (Position(*first), Position(first + count - 1)))
    }

    /// All of them.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> {
        self.0.iter().flat_map(|(first, count)| (*first..first + count).map(Position))
    }

    /// As numbers: of each run the distance from the end of the one before, and how many it has.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut end = 0;
        self.0.iter().flat_map(|(first, count)| [first - std::mem::replace(&mut end, first + count), *count]).collect()
    }

    /// From these numbers. What is too large for a position is left out: no record has it that this code has written.
    pub(crate) fn from_numbers(numbers: &[u64]) -> Self {
        let mut end = 0_u64;
        let mut runs = Vec::with_capacity(numbers.len() / 2);
        for pair in numbers.chunks_exact(2) {
            let Some(first) = end.checked_add(pair[0]) else { break };
            let Some(next) = first.checked_add(pair[1]) else { break };
            runs.push((first, pair[1]));
            end = next;
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_exactly_what_they_were_made_of() {
        for positions in [vec![], vec![0], vec![5, 3, 4, 4, 9, 1 << 40, 3], vec![u64::MAX - 2, u64::MAX - 1, 0, 1, 2]] {
            let runs = Runs::of(positions.iter().copied().map(Position));
            let mut sorted = positions.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(runs.positions().map(|position| position.0).eq(sorted.iter().copied()), "{positions:?}");
            assert_eq!(Runs::from_numbers(&runs.numbers()), runs, "{positions:?}");
            for near in positions.iter().flat_map(|position| [position.saturating_sub(1), *position, position.saturating_add(1)])
            {
                assert_eq!(runs.has(Position(near)), positions.contains(&near), "{near} of {positions:?}");
            }
        }
        assert_eq!(Runs::from_numbers(&[u64::MAX, 5, 1]), Runs::default());
    }
}
