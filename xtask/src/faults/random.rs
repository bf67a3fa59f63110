//! Random numbers from a seed: the same seed gives the same plan of faults on every machine.

use std::{ops::Range, time::Duration};

/// SplitMix64: one addition and three mixing steps, and good enough to choose moments.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of this seed for one purpose: two rules of one run do not share theirs.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(purpose.bytes().fold(seed, |mixed, byte| mixed.wrapping_mul(0x100_0000_01B3) ^ u64::from(byte)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of this range, which must not be empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A time below this one.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.within(0..(limit.as_micros() as u64).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_purposes_give_others() {
        let numbers = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            (0..8).map(|_| random.within(10..1000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, "R1"), numbers(1, "R1"));
        assert_ne!(numbers(1, "R1"), numbers(2, "R1"));
        assert_ne!(numbers(1, "R1"), numbers(1, "R3"));
        assert!(numbers(1, "R1").iter().all(|number| (10..1000).contains(number)));
    }
}
