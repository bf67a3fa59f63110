//! The source `interval`: a message at regular times.

use super::feed::{Feed, Root, SourceError};
use crate::{codec, ids, settings::DurationText, source::Tick};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// The shortest time between two strokes: below it a source that counts is meant, not a clock.
const EVERY_MIN: Duration = Duration::from_millis(1);

/// The longest time between two strokes. Clocks overflow beyond some hundred years, and no process lives for ten.
const EVERY_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the source is told.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Options {
    /// The time between two strokes.
    every: DurationText,
    /// How many there are; without it the source never ends.
    #[serde(default)]
    count: Option<u64>,
}

/// How many strokes there were.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Position {
    number: u64,
}

pub(super) fn check(options: &Options) -> Result<(), SourceError> {
    if options.every.0.is_zero() {
        return Err(SourceError::Options("`every` is zero: the source would never rest".to_owned()));
    }
    Ok(())
}

/// Strokes that are missed, because the process was away or much is in flight, are left out.
pub(super) async fn run(mut feed: Feed, options: Options) -> Result<(), SourceError> {
    check(&options)?;
    let mut position: Position = feed.position().await?.unwrap_or_default();
    let every = options.every.0.clamp(EVERY_MIN, EVERY_MAX);
    let first = if position.number == 0 { Instant::now() } else { Instant::now() + every };
    let mut clock = tokio::time::interval_at(first, every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while options.count.is_none_or(|count| position.number < count) {
        let due = tokio::select! {
            due = clock.tick() => due,
            () = feed.stopped() => return Ok(()),
        };
        if !feed.room().await? {
            return Ok(());
        }
        position.number += 1;
        let due_ms = ids::now_ms().saturating_sub(due.elapsed().as_millis() as u64);
        let payload = codec::encode(feed.codec(), &Tick { number: position.number, due_ms })?;
        feed.publish(vec![Root { number: position.number, codec: feed.codec(), payload, cut: None }], &position).await?;
    }
    Ok(())
}
