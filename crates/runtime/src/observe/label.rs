//! An edge as the value of a label.

use xxhash_rust::xxh3::xxh3_64;

/// The longest value of a label of Kubernetes. Those of metrics have the same form, so that one finds the other.
const LABEL_MAX: usize = 63;

/// An edge, or another text, as the value of a label: `parse-->|good|store` is `parse.good.store`.
pub fn label(text: &str) -> String {
    let dotted: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    // Between words of an edge stands an arrow whose hyphens are none of a name.
    let words: Vec<&str> = dotted.iter().map(|word| word.trim_matches('-')).filter(|word| !word.is_empty()).collect();
    let value = words.join(".");
    // `[*]` leaves nothing of itself, and no task is called `0`.
    let value = if text.starts_with("[*]") { format!("0.{value}") } else { value };
    if value.len() <= LABEL_MAX {
        return value;
    }
    let hash = format!("{:08x}", xxh3_64(text.as_bytes()) >> 32);
    let short = value[..LABEL_MAX - hash.len() - 1].trim_end_matches(['-', '.']);
    format!("{short}-{hash}")
}
