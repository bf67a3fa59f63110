//! Whether an object is already as it should be. The API server adds defaults and writes quantities its own way, so objects are not compared as a whole.

use crate::names::{APPLIED, hash};
use serde_json::Value;

/// Puts the hash of an object into its annotations. With it, what was taken out of the desired object since is noticed as well.
pub(crate) fn seal(object: &mut Value) {
    let hash = hash(&object.to_string());
    object["metadata"]["annotations"][APPLIED] = hash.into();
}

/// Whether the live object holds all that the desired one says, and was made from the same.
pub(crate) fn is_applied(desired: &Value, live: &Value) -> bool {
    holds(live, desired, "")
}

fn holds(live: &Value, desired: &Value, key: &str) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(name, value)| match live.get(name) {
            // The API server leaves out what is empty.
            None => is_empty(value),
            Some(found) if key == "limits" || key == "requests" => same_quantity(found, value),
            Some(found) => holds(found, value, name),
        }),
        // Others may add to a list of named things, such as a side car that a cluster injects.
        (Value::Array(live), Value::Array(desired)) if desired.iter().all(|element| element.get("name").is_some()) => {
            let found = |wanted: &Value| live.iter().find(|live| live.get("name") == wanted.get("name"));
            live.len() >= desired.len() && desired.iter().all(|wanted| found(wanted).is_some_and(|live| holds(live, wanted, "")))
        }
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| holds(live, desired, ""))
        }
        (live, desired) => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn same_quantity(one: &Value, other: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (one, other) = (text(one), text(other));
    one == other || matches!((nanos(&one), nanos(&other)), (Some(one), Some(other)) if one == other)
}

/// A quantity of Kubernetes in thousand-millionths, which is as fine as they go; `None` for what is no quantity or does not fit.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || !fraction.chars().all(|c| c.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let negative = whole.starts_with('-');
    let whole: i128 = if matches!(whole, "" | "-" | "+") { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    let nanos = whole.checked_mul(1_000_000_000)?.checked_add(if negative { -fraction } else { fraction })?;
    let power = |base: i128, exponent: u32| nanos.checked_mul(base.checked_pow(exponent)?);
    match suffix {
        "" => Some(nanos),
        "n" => Some(nanos / 1_000_000_000),
        "u" => Some(nanos / 1_000_000),
        "m" => Some(nanos / 1_000),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { Some(nanos / factor) } else { nanos.checked_mul(factor) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_and_quantities_of_the_server_are_no_difference() {
        let desired =
            json!({"spec": {"a": [{"name": "x"}], "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}, "none": {}}});
        for (live, same) in [
            (
                json!({"spec": {"a": [{"name": "x", "default": 1}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "more": 1}}),
                true,
            ),
            (json!({"spec": {"a": [{"name": "x"}], "resources": {"limits": {"cpu": "501m", "memory": "1Gi"}}}}), false),
            (json!({"spec": {"a": [{"name": "y"}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}}), false),
            (
                json!({"spec": {"a": [{"name": "y"}, {"name": "x"}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}}),
                true,
            ),
            (json!({"spec": {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}}), false),
        ] {
            assert_eq!(is_applied(&desired, &live), same, "{live}");
        }
    }

    #[test]
    fn what_was_taken_out_is_a_difference() {
        let (mut with, mut without) = (json!({"spec": {"a": 1, "b": 2}}), json!({"spec": {"a": 1}}));
        seal(&mut with);
        seal(&mut without);
        assert!(!is_applied(&without, &with) && is_applied(&with, &with));
    }

    #[test]
    fn quantities_are_numbers() {
        for (one, other) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1e3", "1k"),
            (".5", "500m"),
            ("-1.5", "-1500m"),
            ("12E2", "1200"),
            ("100n", "0.0000001"),
        ] {
            assert!(nanos(one).is_some(), "{one}");
            assert_eq!(nanos(one), nanos(other), "{one} {other}");
        }
        for wrong in ["", "x", "1x", "1.2.3", "1ee3", "99999999999999999999999999999999Ei", "1e999"] {
            assert_eq!(nanos(wrong), None, "{wrong}");
        }
    }
}
