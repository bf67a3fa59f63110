//! Values of the configuration that have bounds: those that `Project.toml` has, too.

use crate::host;
use humantime::parse_duration;
use leatworks_broker::{BrokerError, Durability};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;
use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, time::Duration};

/// How often a message may be tried.
const ATTEMPTS: RangeInclusive<u64> = 1..=1_000;

/// How many messages a task may handle at a time.
const PARALLELISM: RangeInclusive<u64> = 1..=4_096;

/// The longest duration: a wait of more than a month is a mistake in the unit.
const DURATION_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

pub(crate) fn attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer, ATTEMPTS)
}

pub(crate) fn parallelism<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    whole(deserializer, PARALLELISM)
}

fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D, range: RangeInclusive<u64>) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_u64().filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
    let (least, most) = (range.start(), range.end());
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{value} is no whole number from {least} to {most}")))
}

/// A duration with its unit. A bare number is none: nobody sees whether it means seconds.
fn with_unit<E: Error>(value: &Value) -> Result<Duration, E> {
    let duration = value.as_str().and_then(|text| parse_duration(text).ok());
    duration.ok_or_else(|| E::custom(format!("{value} is no duration; write for example \"200ms\" or \"30s\"")))
}

/// How long something is kept.
pub(super) fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    with_unit(&Value::deserialize(deserializer)?).map(Some)
}

/// How long somebody waits.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    match with_unit(&value)? {
        duration if duration > DURATION_MAX => Err(D::Error::custom(format!("{value} is longer than 31 days"))),
        duration => Ok(Some(duration)),
    }
}

/// A duration that is longer than nothing.
pub(crate) fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match duration(deserializer)? {
        Some(Duration::ZERO) => Err(D::Error::custom("it is longer than zero, or every message would fail at once")),
        duration => Ok(duration),
    }
}

pub(super) fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Durability>, D::Error> {
    checked(String::deserialize(deserializer)?, |text| text.parse().map_err(|error: BrokerError| error.to_string()))
}

pub(super) fn broker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(String::deserialize(deserializer)?, |text| host::known(text).map(|()| text.to_owned()))
}

/// A text that is not empty.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(String::deserialize(deserializer)?, |text| named(text).map(str::to_owned))
}

/// A path that is not empty.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    checked(String::deserialize(deserializer)?, |text| named(text).map(PathBuf::from))
}

/// An empty name of a folder is no name: it would be the current one.
pub(super) fn named(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() { Err("it is empty: name a place, such as `.` for the current folder") } else { Ok(text) }
}

fn checked<T, F: Display, E: Error>(text: String, check: impl FnOnce(&str) -> Result<T, F>) -> Result<Option<T>, E> {
    check(&text).map(Some).map_err(E::custom)
}
