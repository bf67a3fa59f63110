//! What every store is asked to do, and how it is timed.

use crate::{Failed, measure};
use std::{
    hint::black_box,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

/// Bytes of a payload. They look random to every compressor.
pub(crate) const PAYLOAD_BYTES: usize = 200;

/// Messages are acknowledged in the opposite order within windows of this many: consumers that work side by side never finish in order.
const WINDOW: usize = 16;

/// The most messages of one phase: the backlog is then 60 MB, more than a store keeps in the caches that it has by default.
const MESSAGES_MAX: u64 = 300_000;

/// How many messages a commit takes, and over how many topics they are spread.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) topics: u64,
    pub(crate) group: u64,
}

impl Load {
    /// Message number `n` is number `n / topics` of topic `n % topics`: the numbers of a range that one topic has.
    pub(crate) fn keys(self, numbers: &Range<u64>, topic: u64) -> Range<u64> {
        let first = |number: u64| (number + self.topics - 1 - topic) / self.topics;
        first(numbers.start)..first(numbers.end)
    }
}

/// A store that is measured.
pub(crate) trait Store {
    /// One durable commit: publishes these messages, and reads, checks and deletes those, each by itself, which are the oldest.
    fn commit(&mut self, publish: Range<u64>, consume: Range<u64>) -> Result<(), Failed>;

    /// Ends it in order.
    fn close(self: Box<Self>) -> Result<(), Failed>;
}

/// What opening a store gives.
pub(crate) type Opened = Result<Box<dyn Store>, Failed>;

/// What a store has done.
pub(crate) struct Figures {
    /// What the disk did right before.
    pub(crate) syncs_per_s: f64,
    /// Messages a second that were published while none was consumed.
    pub(crate) publish: f64,
    /// Messages a second while each commit published and consumed as many.
    pub(crate) both: f64,
    /// Messages a second that were consumed while none was published.
    pub(crate) consume: f64,
    /// CPU time of the process for a message from publishing to deletion, in microseconds.
    pub(crate) cpu_us: f64,
    /// Bytes given to write calls for each payload byte, from publishing to deletion.
    pub(crate) written: f64,
    /// What lies on disk with the backlog at its largest.
    pub(crate) full_bytes: f64,
    /// What lies on disk when all is consumed.
    pub(crate) empty_bytes: f64,
}

/// Fills a store, keeps it going with its backlog, and empties it.
pub(crate) fn run(dir: &Path, load: Load, open: fn(&Path, Load) -> Opened, phase: Duration) -> Result<Figures, Failed> {
    let syncs_per_s = measure::syncs_per_s(dir)?;
    let mut store = open(dir, load)?;
    let (cpu, written) = (measure::cpu(), measure::written_bytes()?);
    let step = load.group;
    let (mut published, mut consumed) = (0, 0);
    let (filled, filling) = repeat(phase, MESSAGES_MAX / step, || {
        published += step;
        store.commit(published - step..published, consumed..consumed)
    })?;
    let full_bytes = measure::disk_bytes(dir)?;
    let (turned, turning) = repeat(phase, MESSAGES_MAX / step, || {
        published += step;
        consumed += step;
        store.commit(published - step..published, consumed - step..consumed)
    })?;
    // Not bound by time: only an empty store tells what space it gives back. It holds no more than was published in one phase.
    let (emptied, emptying) = repeat(Duration::MAX, filled, || {
        consumed += step;
        store.commit(published..published, consumed - step..consumed)
    })?;
    let empty_bytes = measure::disk_bytes(dir)?;
    store.close()?;
    let cpu = measure::cpu() - cpu;
    let written = measure::written_bytes()? - written;
    let rate = |commits: u64, time: Duration| (commits * step) as f64 / time.as_secs_f64();
    Ok(Figures {
        syncs_per_s,
        publish: rate(filled, filling),
        both: rate(turned, turning),
        consume: rate(emptied, emptying),
        cpu_us: cpu.as_secs_f64() * 1e6 / published as f64,
        written: written as f64 / (published as usize * PAYLOAD_BYTES) as f64,
        full_bytes: full_bytes as f64,
        empty_bytes: empty_bytes as f64,
    })
}

/// Repeats something until the time is over or it was done so often, and gives how often and how long.
fn repeat(limit: Duration, times: u64, mut once: impl FnMut() -> Result<(), Failed>) -> Result<(u64, Duration), Failed> {
    let start = Instant::now();
    let mut count = 0;
    while count < times && start.elapsed() < limit {
        once()?;
        count += 1;
    }
    Ok((count, start.elapsed()))
}

/// The payload of one message: the output of a generator (splitmix64) that its topic and number have seeded.
pub(crate) fn payload(topic: u64, key: u64) -> [u8; PAYLOAD_BYTES] {
    let mut state = topic << 48 ^ key;
    let mut payload = [0; PAYLOAD_BYTES];
    for chunk in payload.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    payload
}

/// Fails unless these bytes are the payload of that message.
pub(crate) fn check(topic: u64, key: u64, bytes: &[u8]) -> Result<(), Failed> {
    match bytes == payload(topic, key) {
        true => Ok(()),
        false => Err(format!("message {key} of topic {topic} is not what was published").into()),
    }
}

/// Fails unless as many messages were there as should be.
pub(crate) fn check_count(topic: u64, keys: &Range<u64>, found: usize) -> Result<(), Failed> {
    match found as u64 == keys.end - keys.start {
        true => Ok(()),
        false => Err(format!("topic {topic} gave {found} messages and not those of {keys:?}").into()),
    }
}

/// The order in which messages are acknowledged.
pub(crate) fn in_windows<T>(messages: &[T]) -> impl Iterator<Item = &T> {
    messages.chunks(WINDOW).flat_map(|window| window.iter().rev())
}

/// What making a payload and checking it costs, in microseconds of CPU: it is in the figures of every store.
pub(crate) fn own_cost_us() -> f64 {
    let before = measure::cpu();
    for key in 0..MESSAGES_MAX {
        let made = black_box(payload(black_box(1), key));
        black_box(check(1, key, &made).is_ok());
    }
    (measure::cpu() - before).as_secs_f64() * 1e6 / MESSAGES_MAX as f64
}
