//! Durations such as `200ms`, `10s`, `5m`, `1h` and `1m30s`.

use std::time::Duration;

/// The longest duration: a wait of more than a month is a mistake in the unit.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It does not read as numbers with units.
    Unreadable,
    /// It is longer than [`DURATION_MAX`].
    TooLong,
}

/// Reads whole numbers, each with its unit.
pub(super) fn parse(text: &str) -> Result<Duration, Wrong> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(Wrong::Unreadable),
        };
        if number.is_empty() {
            return Err(Wrong::Unreadable);
        }
        let part = number.parse().ok().and_then(|number| unit.checked_mul(number));
        total = part.and_then(|part| total.checked_add(part)).filter(|total| *total <= DURATION_MAX).ok_or(Wrong::TooLong)?;
        if tail.is_empty() {
            return Ok(total);
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("200ms", 200),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1m30s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "of {text:?}");
        }
        for text in ["", "10", "s", "1.5s", "10 s", "-1s", "1y", "1s ", "10S", "1µs"] {
            assert_eq!(parse(text), Err(Wrong::Unreadable), "of {text:?}");
        }
        for text in ["32d", "99999999999999999999h", "31d1s"] {
            assert_eq!(parse(text), Err(Wrong::TooLong), "of {text:?}");
        }
    }
}
