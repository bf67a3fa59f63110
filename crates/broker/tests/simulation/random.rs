//! Numbers that follow from a seed, and ids that follow from ids.

/// The chances of a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(hash(seed ^ 0x5EED))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        hash(self.0)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// SplitMix64's last step: every bit of the result depends on every bit of the number.
pub(crate) fn hash(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A number that follows from an id and what it is for.
pub(crate) fn of(id: u128, what: u64) -> u64 {
    hash(hash(id as u64 ^ what.wrapping_mul(0x1000_0000_01B3)) ^ (id >> 64) as u64)
}

/// An id that follows from another.
pub(crate) fn derive(id: u128, what: u64) -> u128 {
    u128::from(of(id, what)) << 64 | u128::from(of(id, what ^ 0xF00D)) | 1
}
