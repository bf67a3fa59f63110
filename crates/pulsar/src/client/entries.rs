//! Entries of which not everything is settled, and what was settled lately.

use super::{
    feed::Feed,
    limits::{SETTLED_AGAIN_TIME, SETTLED_MAX, SETTLED_TIME},
};
use leatworks_broker::Position;
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};
use tokio::time::Instant;

/// An entry of which something is not settled.
pub(crate) struct Slot {
    pub(crate) feed: Arc<Feed>,
    pub(crate) epoch: u64,
    pub(crate) total: usize,
    /// One bit for each message that is not settled, as Pulsar has it.
    pub(crate) open: Vec<i64>,
    pub(crate) left: usize,
}

impl Slot {
    pub(crate) fn new(feed: Arc<Feed>, total: usize) -> Self {
        let mut open = vec![-1; total.div_ceil(64)];
        if let (Some(last), 1..) = (open.last_mut(), total % 64) {
            *last = ((1_u64 << (total % 64)) - 1) as i64;
        }
        Self { epoch: feed.epoch(), feed, total, open, left: total }
    }

    pub(crate) fn settle(&mut self, index: usize) {
        if bit(&self.open, index) {
            self.open[index / 64] &= !(1 << (index % 64));
            self.left -= 1;
        }
    }
}

/// Whether a message of an entry is not settled.
pub(crate) fn bit(bits: &[i64], index: usize) -> bool {
    bits.get(index / 64).is_some_and(|word| (word >> (index % 64)) & 1 == 1)
}

/// What was settled in the last seconds.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) known: HashSet<Position>,
    order: VecDeque<(Instant, Position)>,
    /// A connection is lost, and nothing has come since.
    away: bool,
    /// Until then nothing is forgotten for its age.
    all_until: Option<Instant>,
}

impl Settled {
    /// A connection is lost, perhaps with the service: then what was settled just before comes again, however long it is away.
    pub(crate) fn lost(&mut self) {
        self.away = true;
    }

    /// Something has come.
    pub(crate) fn came(&mut self) {
        if std::mem::take(&mut self.away) {
            self.all_until = Some(Instant::now() + SETTLED_AGAIN_TIME);
        }
    }

    pub(crate) fn add(&mut self, positions: &[Position]) {
        let now = Instant::now();
        self.known.extend(positions);
        self.order.extend(positions.iter().map(|position| (now, *position)));
        let all = self.away || self.all_until.is_some_and(|until| now < until);
        let is_old = |(at, _): &(Instant, Position)| !all && now.duration_since(*at) > SETTLED_TIME;
        while self.order.len() > SETTLED_MAX || self.order.front().is_some_and(is_old) {
            let Some((_, position)) = self.order.pop_front() else { break };
            self.known.remove(&position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_settled_before_a_service_died_is_known_when_it_is_back() {
        let mut settled = Settled::default();
        settled.add(&[Position(1)]);
        tokio::time::advance(SETTLED_TIME + SETTLED_TIME).await;
        settled.add(&[Position(2)]);
        assert!(!settled.known.contains(&Position(1)), "its time is over");
        settled.lost();
        tokio::time::advance(SETTLED_TIME * 100).await;
        settled.came();
        settled.add(&[Position(3)]);
        assert!(settled.known.contains(&Position(2)), "what is handed out first does not push out what follows");
        tokio::time::advance(SETTLED_AGAIN_TIME).await;
        settled.add(&[Position(4)]);
        assert_eq!(settled.known, HashSet::from([Position(4)]));
    }
}
