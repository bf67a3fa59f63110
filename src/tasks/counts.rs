//! The three counts of `access-log`: by minute, by path, and what is malformed. Each gives its part of the report at the end.

use super::{Hit, HitKind, Malformed};
use leatworks::{Context, Fold, TaskError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most minutes that are told apart: 28 days, whose counts take about half a megabyte each time the state is kept.
pub const MINUTES_MAX: usize = 28 * 24 * 60;

/// The most paths that are told apart. A scanner asks for a new path each time, and the state is kept again and again.
pub const PATHS_MAX: usize = 5_000;

/// The most malformed lines that are shown in the report.
pub const SAMPLES_MAX: usize = 20;

/// The longest text of a sample in bytes.
const SAMPLE_BYTES_MAX: usize = 500;

/// A part of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// From `count-minutes`.
    Minutes(MinuteCounts),
    /// From `count-paths`.
    Paths(PathCounts),
    /// From `count-malformed`.
    Malformed(MalformedCount),
}

/// How many hits of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Hits on pages.
    pub page: u64,
    /// Hits on assets.
    pub asset: u64,
    /// Answers with a status of 400 or more.
    pub error: u64,
    /// Bytes sent.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, hit: &Hit) {
        *match hit.kind {
            HitKind::Page => &mut self.page,
            HitKind::Asset => &mut self.asset,
            HitKind::Error => &mut self.error,
        } += 1;
        self.bytes = self.bytes.saturating_add(hit.bytes);
    }

    /// Hits of all kinds.
    pub fn hits(&self) -> u64 {
        self.page + self.asset + self.error
    }
}

/// What `count-minutes` has counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteState {
    /// Each minute since the Unix epoch that has a hit.
    pub minutes: BTreeMap<i64, Tally>,
    /// Hits in further minutes, beyond [`MINUTES_MAX`].
    pub others: Tally,
}

/// Hits by minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteCounts {
    /// Each minute that has a hit, by its beginning in UTC (RFC 3339).
    pub minutes: BTreeMap<String, Tally>,
    /// Hits in further minutes, beyond [`MINUTES_MAX`].
    pub others: Tally,
}

/// Hits by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCounts {
    /// Each path that has a hit.
    pub paths: BTreeMap<String, Tally>,
    /// Hits on further paths, beyond [`PATHS_MAX`].
    pub others: Tally,
}

/// Lines that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalformedCount {
    /// How many there are.
    pub lines: u64,
    /// How many for each reason.
    pub reasons: BTreeMap<String, u64>,
    /// The first of them, by number, at most [`SAMPLES_MAX`].
    pub samples: BTreeMap<u64, String>,
}

/// Counts hits by minute.
#[derive(Debug, Deserialize)]
pub struct CountMinutes;

/// Counts hits by path.
#[derive(Debug, Deserialize)]
pub struct CountPaths;

/// Counts lines that cannot be read.
#[derive(Debug, Deserialize)]
pub struct CountMalformed;

impl Fold for CountMinutes {
    type In = Hit;
    type Out = Part;
    type State = MinuteState;

    fn fold(&self, state: &mut MinuteState, hit: Hit, _cx: &Context) -> Result<(), TaskError> {
        bounded(&mut state.minutes, &mut state.others, hit.minute, MINUTES_MAX).add(&hit);
        Ok(())
    }

    async fn finish(&self, state: MinuteState, _cx: &Context) -> Result<Part, TaskError> {
        let minutes = state.minutes.into_iter().map(|(minute, tally)| (clock(minute), tally)).collect();
        Ok(Part::Minutes(MinuteCounts { minutes, others: state.others }))
    }
}

impl Fold for CountPaths {
    type In = Hit;
    type Out = Part;
    type State = PathCounts;

    fn fold(&self, state: &mut PathCounts, hit: Hit, _cx: &Context) -> Result<(), TaskError> {
        bounded(&mut state.paths, &mut state.others, hit.path.clone(), PATHS_MAX).add(&hit);
        Ok(())
    }

    async fn finish(&self, state: PathCounts, _cx: &Context) -> Result<Part, TaskError> {
        Ok(Part::Paths(state))
    }
}

impl Fold for CountMalformed {
    type In = Malformed;
    type Out = Part;
    type State = MalformedCount;

    fn fold(&self, state: &mut MalformedCount, line: Malformed, _cx: &Context) -> Result<(), TaskError> {
        state.lines += 1;
        *state.reasons.entry(line.reason).or_default() += 1;
        // Lines come in any order where `parse` works on several at once, so the smallest numbers are kept.
        let end = line.text.floor_char_boundary(SAMPLE_BYTES_MAX);
        state.samples.insert(line.number, line.text[..end].to_owned());
        if state.samples.len() > SAMPLES_MAX {
            state.samples.pop_last();
        }
        Ok(())
    }

    async fn finish(&self, state: MalformedCount, _cx: &Context) -> Result<Part, TaskError> {
        Ok(Part::Malformed(state))
    }
}

/// The tally of a key, or that of all others once there are too many keys.
fn bounded<'a, K: Ord>(tallies: &'a mut BTreeMap<K, Tally>, others: &'a mut Tally, key: K, max: usize) -> &'a mut Tally {
    if tallies.len() >= max && !tallies.contains_key(&key) { others } else { tallies.entry(key).or_default() }
}

/// A minute since the Unix epoch as RFC 3339 writes it: `2000-10-10T20:55:00Z`.
fn clock(minute: i64) -> String {
    let (day, minute) = (minute.div_euclid(24 * 60), minute.rem_euclid(24 * 60));
    // Counted from 1 March of year 0, so that the leap day is the last of its year; 146,097 days are 400 years.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_day, month_number) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + i64::from(month_number <= 2);
    format!("{year:04}-{month_number:02}-{month_day:02}T{:02}:{:02}:00Z", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(kind: HitKind, minute: i64, path: &str) -> Hit {
        Hit { kind, minute, path: path.to_owned(), status: 200, bytes: 10 }
    }

    #[test]
    fn hits_are_counted_by_kind() {
        let mut state = MinuteState::default();
        for (kind, minute) in [(HitKind::Page, 1), (HitKind::Asset, 1), (HitKind::Page, 2), (HitKind::Error, 1)] {
            CountMinutes.fold(&mut state, hit(kind, minute, "/"), &Context::detached()).expect("counted");
        }
        assert_eq!(state.minutes[&1], Tally { page: 1, asset: 1, error: 1, bytes: 30 });
        assert_eq!(state.minutes[&2], Tally { page: 1, asset: 0, error: 0, bytes: 10 });
    }

    #[test]
    fn beyond_the_limit_hits_are_still_counted() {
        let mut state = PathCounts::default();
        for number in 0..PATHS_MAX + 3 {
            CountPaths.fold(&mut state, hit(HitKind::Page, 0, &number.to_string()), &Context::detached()).expect("counted");
        }
        CountPaths.fold(&mut state, hit(HitKind::Page, 0, "0"), &Context::detached()).expect("counted");
        assert_eq!((state.paths.len(), state.others.page, state.paths["0"].page), (PATHS_MAX, 3, 2));
    }

    #[test]
    fn the_first_malformed_lines_are_kept_and_all_are_counted() {
        let mut state = MalformedCount::default();
        let last = SAMPLES_MAX as u64 + 5;
        for number in (1..=last).rev() {
            let line = Malformed { number, reason: "empty line".to_owned(), text: "ż".repeat(SAMPLE_BYTES_MAX) };
            CountMalformed.fold(&mut state, line, &Context::detached()).expect("counted");
        }
        assert_eq!((state.lines, state.reasons["empty line"]), (last, last));
        assert_eq!(state.samples.keys().copied().collect::<Vec<_>>(), (1..=SAMPLES_MAX as u64).collect::<Vec<_>>());
        assert!(state.samples.values().all(|text| text.len() <= SAMPLE_BYTES_MAX));
    }

    #[test]
    fn a_minute_is_shown_as_a_date() {
        for (minute, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (28_487_519, "2024-02-29T23:59:00Z"),
            (28_487_520, "2024-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:00Z"),
        ] {
            assert_eq!(clock(minute), expected);
        }
    }
}
