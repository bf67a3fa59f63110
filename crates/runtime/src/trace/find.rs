//! Finds what was written down of a root.

use super::Record;
use crate::ids;
use leatworks_jobs::{JobError, Store};
use serde::Deserialize;

/// How far the clocks of machines may be apart: what was written so long before a root's own time is still looked at.
const CLOCKS_MS: u64 = 600_000;

/// The most records of one root that are given. A person reads no more, and a root of a million messages is no reason to run out of memory.
pub const RECORDS_MAX: usize = 10_000;

/// The root of what came of no single one.
const NO_ROOT: &str = "00000000000000000000000000000000";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The root, if anything was found.
    pub root: Option<String>,
    /// Its records, by when they were written: [`RECORDS_MAX`] at most.
    pub records: Vec<Record>,
    /// How many there are in all.
    pub total: u64,
    /// Records that were left out of what was looked at, of whatever root.
    pub missed: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Missed { missed: u64 },
    Record(Box<Record>),
}

/// Finds the records of a root by its id, or by that of any message that came of it, written in full.
///
/// # Errors
/// If the store fails.
pub async fn find(store: &Store, topology: &str, id: &str) -> Result<Found, JobError> {
    let mut found = look(store, topology, id, made_ms(id)).await?;
    if found.records.is_empty() {
        // The id may be one that says nothing of its time and looks as if it did.
        found = look(store, topology, id, 0).await?;
    }
    match found.root.clone() {
        // What a fold gives came of all roots, and belongs to none.
        Some(root) if root == NO_ROOT => {}
        // It was one of the others: once more, for the whole of its root.
        Some(root) if root != id => found = look(store, topology, &root, made_ms(&root)).await?,
        _ => {}
    }
    found.records.sort_by_key(|record| record.ended_ms);
    Ok(found)
}

async fn look(store: &Store, topology: &str, id: &str, since: u64) -> Result<Found, JobError> {
    let since = since.saturating_sub(CLOCKS_MS);
    let mut found = Found::default();
    for key in store.list(topology).await? {
        // FIRST-LAST-RANDOM.jsonl: what ended before the root began has nothing of it.
        let last = key.rsplit('/').next().and_then(|name| name.split('-').nth(1)).and_then(|last| last.parse::<u64>().ok());
        if !key.ends_with(".jsonl") || last.is_none_or(|last| last < since) {
            continue;
        }
        // It may have grown old meanwhile.
        let Some(content) = store.get(&key).await? else { continue };
        for line in content.split(|byte| *byte == b'\n') {
            let wanted = memchr::memmem::find(line, id.as_bytes()).is_some();
            if !wanted && memchr::memmem::find(line, b"\"missed\"").is_none() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(Line::Missed { missed }) => found.missed += missed,
                Ok(Line::Record(record)) if record.root == id || record.message == id => {
                    found.total += 1;
                    found.root.get_or_insert_with(|| record.root.clone());
                    if found.records.len() < RECORDS_MAX {
                        found.records.push(*record);
                    }
                }
                // One that names it among its outputs, or that another version has written.
                _ => {}
            }
        }
    }
    Ok(found)
}

/// When a root was made, as its id says; zero for an id that says nothing of it, as those of what comes of a root.
fn made_ms(id: &str) -> u64 {
    let made = u128::from_str_radix(id, 16).map_or(0, |id| (id >> 80) as u64);
    if made > ids::now_ms() + CLOCKS_MS { 0 } else { made }
}
