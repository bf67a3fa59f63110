//! Payloads that are made before anything is measured.

use bytes::Bytes;

/// How many different ones there are. They are shared by the messages, so making one costs nothing while something is measured.
const DIFFERENT: u64 = 4_096;

/// JSON strings of one size: two quotes and letters that no store can compress to nothing.
#[derive(Clone)]
pub(crate) struct Payloads {
    all: Vec<Bytes>,
    next: usize,
}

impl Payloads {
    /// Payloads of this many bytes, at least 2.
    pub(crate) fn new(bytes: u64) -> Self {
        let mut seed = 1_u64;
        let mut letter = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'a' + ((seed >> 33) % 26) as u8
        };
        let mut payload = || {
            let mut payload = Vec::with_capacity(bytes as usize);
            payload.push(b'"');
            payload.extend((2..bytes).map(|_| letter()));
            payload.push(b'"');
            Bytes::from(payload)
        };
        // Large ones are not worth gigabytes of memory to be different.
        let count = (DIFFERENT * 200 / bytes).clamp(1, DIFFERENT);
        Self { all: (0..count).map(|_| payload()).collect(), next: 0 }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Bytes {
        self.next = (self.next + 1) % self.all.len();
        self.all[self.next].clone()
    }
}
